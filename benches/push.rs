//! What a record costs on its way into the queue: nginx's thread does this inside `log()`.
//!
//! Two readers: one that drains between bursts on the same thread, so that the slots are in this
//! processor's cache, and one on a thread of its own, as in a worker.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use lkfk::internals::queue::layout::NO_PARTITION;
use lkfk::internals::queue::{Flags, Owner, Provisioner, Queue, QueueDir, Reader, Writer};
use lkfk::internals::record::Record;

/// Records between two looks at the clock.
const BURST: u64 = 50;
const QUEUE_BYTES: u64 = 32 << 20;
const NOW_MS: i64 = 1_760_000_000_000;
const KEY: &[u8] = b"user-4711";

fn push(criterion: &mut Criterion) {
    let scratch = Scratch::new();
    for reader in ["reader on this thread", "reader on its own thread"] {
        let mut group = criterion.benchmark_group(format!("push, {reader}"));
        group.throughput(Throughput::Elements(1));
        for payload_len in [100, 400, 1000] {
            let owner = Owner::of_default_producer("bench");
            let queue = Queue::create(scratch.dir(), owner, "push", QUEUE_BYTES, NOW_MS);
            let queue = queue.expect("no queue file");
            Provisioner::new(&queue).turn(0);
            if reader == "reader on this thread" {
                drain_between(&mut group, &queue, payload_len);
            } else {
                drain_beside(&mut group, &queue, payload_len);
            }
            queue.remove().expect("the queue file is gone");
        }
        group.finish();
    }
}

fn drain_between(group: &mut BenchmarkGroup<'_, WallTime>, queue: &Queue, payload_len: usize) {
    let mut reader = Reader::new(queue);
    measure(group, queue, payload_len, || {
        drain(&mut reader);
    });
}

fn drain_beside(group: &mut BenchmarkGroup<'_, WallTime>, queue: &Queue, payload_len: usize) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut reader = Reader::new(queue);
            while !stop.load(Ordering::Relaxed) {
                drain(&mut reader);
                std::hint::spin_loop();
            }
        });
        measure(group, queue, payload_len, || {
            while queue.waiting() > 0 {
                std::hint::spin_loop();
            }
        });
        stop.store(true, Ordering::Relaxed);
    });
}

/// Times bursts of pushes; what `between` does is not counted.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    queue: &Queue,
    payload_len: usize,
    mut between: impl FnMut(),
) {
    let payload = vec![b'x'; payload_len];
    let mut writer = Writer::new(queue, u64::MAX, payload_len + KEY.len());
    let topic = writer.topic("access-log").expect("a topic");
    group.bench_function(format!("{payload_len} B"), |bencher| {
        bencher.iter_custom(|records| {
            let mut spent = Duration::ZERO;
            let mut left = records;
            while left > 0 {
                let burst = left.min(BURST);
                let began = Instant::now();
                for _ in 0..burst {
                    push_one(&mut writer, topic, black_box(&payload));
                }
                spent += began.elapsed();
                left -= burst;
                between();
            }
            spent
        });
    });
}

fn push_one(writer: &mut Writer, topic: u16, payload: &[u8]) {
    let record = Record::new(NOW_MS, Some(KEY), Some(payload));
    // The first ones may ask for memory, which the writer gets itself here.
    let _ = writer.push(topic, NO_PARTITION, NOW_MS, &record, Flags::NONE).expect("room");
}

/// Takes all records and gives their space back.
fn drain(reader: &mut Reader) {
    while let Some(slot) = reader.read().expect("the slots are whole") {
        let position = black_box(slot).position;
        reader.done(position);
    }
    reader.release();
}

/// A directory for the queue files, in memory where the system has such a place.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Scratch {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory } else { Path::new(env!("CARGO_TARGET_TMPDIR")) };
        Scratch(tempfile::tempdir_in(parent).expect("a directory for the queue files"))
    }

    fn dir(&self) -> Arc<QueueDir> {
        Arc::new(QueueDir::open(self.0.path()).expect("a directory for the queue files"))
    }
}

criterion_group!(benches, push);
criterion_main!(benches);
