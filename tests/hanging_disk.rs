//! A disk that hangs in the middle of a write to the backup: the real driver with its queue and its files, and a
//! point in the writer that nobody passes for as long as a test likes. (DSK-08; `dev/chaos.sh` freezes a file system.)

#![allow(clippy::disallowed_methods, reason = "things take their time")]

#[allow(dead_code, reason = "the broker tells hardly any lies here, and nothing is counted")]
mod support {
    pub mod broker;
    pub mod memory;
}

use lkfk::internals::config::{Config, Value};
use lkfk::internals::crash_points::{Held, hold};
use lkfk::internals::driver::Driver;
use lkfk::internals::driver::lua::Append;
use lkfk::internals::queue::layout::NO_PARTITION;
use lkfk::internals::queue::{Flags, PushError, Writer};
use lkfk::internals::record::Record;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use support::broker::{Broker, Lie};

const PATIENCE: Duration = Duration::from_secs(20);
/// A topic that the broker does not know.
const UNKNOWN: &str = "unknown";

/// There is one disk.
static ALONE: Mutex<()> = Mutex::new(());
static SCENES: AtomicUsize = AtomicUsize::new(0);

/// A producer whose backup hangs from its first write on.
struct Scene {
    driver: Driver,
    writer: Writer,
    broker: Broker,
    directory: PathBuf,
    disk: Option<Held>,
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    fn new(options: &[(&str, Value)]) -> Scene {
        let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let number = SCENES.fetch_add(1, Ordering::Relaxed);
        let name = format!("lkfk-hanging-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(directory.join("queue")).unwrap();
        let unknown = Lie::metadata(|answer| {
            for topic in &mut answer.topics {
                if topic.name.as_ref().is_some_and(|name| name.as_str() == UNKNOWN) {
                    topic.error_code = 3;
                    topic.partitions.clear();
                }
            }
        });
        let broker = Broker::start((12, 12), vec![unknown.times(usize::MAX)]);
        let text = |text: String| Value::Text(text.into_bytes());
        let path = |name: &str| text(directory.join(name).display().to_string());
        let mut entries = vec![
            ("metadata_broker_list", text(format!("127.0.0.1:{}", broker.port()))),
            ("queue_path", path("queue")),
            ("backpath", path("backup")),
            ("replay", Value::Bool(false)),
            ("queue_buffering_max_kbytes", Value::Int(128)),
            ("message_max_bytes", Value::Int(2_000)),
            ("queue_buffering_max_ms", Value::Int(1)),
            ("message_timeout_ms", Value::Int(1_000)),
        ];
        entries.extend(options.iter().cloned());
        let entries: Vec<_> =
            entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let config = Config::parse(&entries, "/nowhere").unwrap();
        let (driver, writer) = Driver::start(config, "", "hanging").unwrap();
        let disk = Some(hold("chunk to be written"));
        Scene { driver, writer, broker, directory, disk, _alone: alone }
    }

    /// Logs messages with these numbers, each as soon as there is room for it.
    fn log(&mut self, topic: &str, numbers: std::ops::Range<usize>) {
        let topic = self.writer.topic(topic).unwrap();
        for number in numbers {
            let payload = format!("{number:>100}");
            eventually("room", || match push(&mut self.writer, topic, payload.as_bytes()) {
                Ok(signal) => {
                    if signal {
                        self.driver.shared().signal();
                    }
                    true
                }
                Err(_) => false,
            });
        }
    }

    fn count(&self, counter: impl Fn(&lkfk::internals::stats::Stats) -> &AtomicU64) -> u64 {
        counter(&self.driver.shared().stats).load(Ordering::Relaxed)
    }

    /// Numbers of the messages in the backup.
    fn backed_up(&self) -> Vec<usize> {
        let text = std::fs::read_to_string(self.directory.join("backup").join(UNKNOWN)).unwrap();
        let payload = |line: &str| line.rsplit('\t').next().unwrap().trim().parse().unwrap();
        text.lines().map(payload).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.disk = None;
        {
            self.driver.begin_stop(Duration::ZERO);
            self.driver.wait(|| None)
        };
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn eventually(what: &str, mut happens: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happens() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn dsk_08_other_messages_are_delivered_while_the_backup_hangs_and_it_is_said() {
    let mut scene = Scene::new(&[]);
    scene.log(UNKNOWN, 0..200);
    eventually("given up", || scene.count(|stats| &stats.spill_waiting) == 200);
    scene.log("known", 0..300);
    eventually("delivered", || scene.count(|stats| &stats.succ_msg_cnt) == 300);
    let mut lines = Vec::new();
    eventually("said", || {
        lines.extend(std::iter::from_fn(|| scene.driver.shared().log.take()));
        lines.iter().any(|(_, line)| line.contains("a write to the backup has taken"))
    });
    assert_eq!(scene.count(|stats| &stats.fail_msg_cnt), 0);
    scene.disk = None;
    eventually("written", || scene.count(|stats| &stats.fail_msg_cnt) == 200);
    assert_eq!(scene.backed_up(), Vec::from_iter(0..200));
    assert_eq!(scene.broker.arrived().len(), 300);
}

#[test]
fn dsk_08_drop_oldest_goes_on_while_the_backup_hangs() {
    const MESSAGES: usize = 2_000;
    let mut scene = Scene::new(&[("overflow", Value::Text("drop_oldest".into()))]);
    scene.log(UNKNOWN, 0..MESSAGES);
    let ended = |scene: &Scene| {
        scene.count(|stats| &stats.dropped_cnt) + scene.count(|stats| &stats.fail_msg_cnt)
    };
    scene.disk = None;
    eventually("written or dropped", || ended(&scene) == MESSAGES as u64);
    let dropped = scene.count(|stats| &stats.dropped_cnt) as usize;
    assert!(dropped > MESSAGES / 2, "{dropped}");
    // What was under way stays, and the newest.
    let left = scene.backed_up();
    assert_eq!(left.len(), MESSAGES - dropped);
    assert_eq!((left[0], left.last()), (0, Some(&(MESSAGES - 1))));
    assert!(left.is_sorted());
}

#[test]
fn dsk_08_a_worker_ends_in_time_while_the_backup_hangs_and_leaves_its_queue() {
    let mut scene = Scene::new(&[]);
    scene.log(UNKNOWN, 0..200);
    eventually("given up", || scene.count(|stats| &stats.spill_waiting) == 200);
    let begun = Instant::now();
    assert!(!{
        scene.driver.begin_stop(Duration::from_millis(20));
        scene.driver.wait(|| None)
    });
    assert!(begun.elapsed() < PATIENCE);
    let lines: Vec<_> = std::iter::from_fn(|| scene.driver.shared().log.take()).collect();
    let says_where = |line: &str| line.contains("did not end in time") && line.contains(".queue");
    assert!(lines.iter().any(|(_, line)| says_where(line)), "{lines:?}");
    let queues = scene.directory.join("queue");
    let queues = std::fs::read_dir(queues).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::read_dir(&queues).unwrap().count(), 1);
    // Where the process lives on the thread ends its work.
    scene.disk = None;
    eventually("written", || std::fs::read_dir(&queues).unwrap().count() == 0);
    assert_eq!(scene.backed_up(), Vec::from_iter(0..200));
}

#[test]
fn dsk_08_what_a_callback_handled_before_the_end_is_not_written_again() {
    let mut scene = Scene::new(&[("failed_cb", Value::Other("function"))]);
    scene.log(UNKNOWN, 0..10);
    let lua = &scene.driver.shared().lua;
    // What a failed_cb does that writes to kfk.fp.
    for _ in 0..10 {
        let mut failure = None;
        eventually("handed over", || {
            failure = lua.failures.take();
            failure.is_some()
        });
        let failure = failure.unwrap();
        let line = String::from_utf8(failure.payload.unwrap()).unwrap() + "\n";
        assert!(lua.appends.put(UNKNOWN, Append::Others(line.into_bytes())));
        lua.give_verdict(failure.id, true);
    }
    scene.driver.shared().signal();
    lua.end_callbacks();
    let disk = scene.disk.take();
    let stopped = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            drop(disk);
        });
        {
            scene.driver.begin_stop(PATIENCE);
            scene.driver.wait(|| None)
        }
    });
    assert!(stopped);
    assert_eq!(scene.backed_up(), Vec::from_iter(0..10));
}

fn push(writer: &mut Writer, topic: u16, payload: &[u8]) -> Result<bool, PushError> {
    writer.push(topic, NO_PARTITION, 0, &Record::new(0, None, Some(payload)), Flags::NONE)
}
