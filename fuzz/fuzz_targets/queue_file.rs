//! Opens whole queue files of dead workers with arbitrary edits, reads them to their end, and gives
//! everything back: no panic, no read outside the file, and an end.
//!
//! The input is the number of records that the file begins with and how many of them are done, and
//! then edits: where (a place in 64 KiB from the file's start, from the segment map, from the done bits, which the batch
//! log follows, or from where the records are), how many bytes, the bytes. Run with `cargo +nightly fuzz run queue_file`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lkfk::internals::protocol::record_batch::ProducerStamp;
use lkfk::internals::queue::layout::{Areas, DONE_OFFSET, MAP_OFFSET, NO_PARTITION};
use lkfk::internals::queue::{Flags, Owner, Queue, QueueDir, Reader, Writer, recovery};
use lkfk::internals::record::{Headers, HeadersBuf, Record};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

/// Bytes for records: the smallest queue there is.
const DATA: u64 = 64 * 1024;
const OWNER: Owner<'static> = Owner { instance: "fuzz", producer: "" };

static DIR: LazyLock<(Arc<QueueDir>, PathBuf)> = LazyLock::new(|| {
    let parent = PathBuf::from(format!("/dev/shm/lkfk-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&parent).expect("/dev/shm takes directories");
    (Arc::new(QueueDir::open(&parent).expect("a directory of ours")), parent)
});

/// A dead worker's file; returns where it is.
fn orphan(records: usize, done: usize) -> PathBuf {
    let queue = Queue::create(DIR.0.clone(), OWNER, "1", DATA, 0).expect("room for a queue");
    let mut writer = Writer::new(&queue, u64::MAX, 1 << 20);
    let topics = [writer.topic("one").unwrap(), writer.topic("another").unwrap()];
    for number in 0..records {
        let payload = vec![number as u8; number * 7 % 300];
        let key = (number % 3 > 0).then_some(&payload[..payload.len() / 2]);
        let mut headers = HeadersBuf::default();
        headers.push("h", Some(&payload));
        let block = headers.into_block();
        let mut record = Record::new(number as i64 / 2, key, (number % 5 > 0).then_some(&payload));
        if number % 4 == 0 {
            record.headers = Headers::check(&block).expect("just made");
        }
        // What does not fit is not written.
        let _ =
            writer.push(topics[number % 2], NO_PARTITION, number as i64, &record, Flags::NO_LINGER);
    }
    let mut reader = Reader::new(&queue);
    let mut positions = Vec::new();
    while let Some(slot) = reader.read().expect("a whole file") {
        positions.push(slot.position);
    }
    let stamp = ProducerStamp { producer_id: 3, epoch: 0, base_sequence: 0 };
    reader.stamp(1, stamp, false, positions.iter().copied().take(3)).expect("room for a batch");
    for position in positions.into_iter().rev().take(done) {
        reader.done(position);
    }
    queue.path()
}

/// Looks at each byte of a record.
fn sum(record: &Record<'_>) -> u64 {
    let parts = [record.payload.unwrap_or_default(), record.key.unwrap_or_default()];
    let headers = record.headers.iter().flat_map(|(name, value)| {
        name.bytes().chain(value.unwrap_or_default().iter().copied())
    });
    parts.into_iter().flatten().copied().chain(headers).map(u64::from).sum()
}

fuzz_target!(|input: &[u8]| {
    let [records, done, edits @ ..] = input else { return };
    let path = orphan(usize::from(*records), usize::from(*done));
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("just written");
    let mut edits = edits;
    while let [high, low, len, rest @ ..] = edits {
        let place = u64::from(u16::from_be_bytes([*high, *low]));
        // The topmost bits of the length say which part of the file.
        let parts = [0, MAP_OFFSET, DONE_OFFSET, Areas::of(DATA).data];
        let from = parts[usize::from(*len / 64)] as u64;
        let (bytes, rest) = rest.split_at(usize::from(*len % 64).min(rest.len()));
        file.write_all_at(bytes, from + place).expect("room for an edit");
        edits = rest;
    }

    if let Ok(queue) = recovery::adopt(DIR.0.clone(), "fuzz-1.queue", OWNER) {
        let mut reader = Reader::new(&queue);
        let mut taken = Vec::new();
        for position in reader.take_open_batches().into_iter().flat_map(|batch| batch.positions) {
            let slot = reader.get(position).expect("of an open batch");
            taken.push((position, slot.topic, sum(&slot.record)));
        }
        // A slot takes 32 bytes at least.
        for _ in 0..=2 * DATA / 32 {
            match reader.read() {
                Ok(Some(slot)) => {
                    taken.push((slot.position, slot.topic, sum(&slot.record)));
                }
                Ok(None) => break,
                Err(_) => {
                    reader.abandon_rest();
                    break;
                }
            }
        }
        assert!(reader.read().is_ok_and(|slot| slot.is_none()), "no end");
        for (position, topic, before) in &taken {
            let slot = reader.get(*position).expect("handed out and not done");
            assert_eq!(sum(&slot.record), *before);
            if let Some(name) = reader.topic(*topic) {
                assert!(name.len() <= 249);
            }
        }
        // Out of order, and some twice.
        for (position, ..) in taken.iter().rev().chain(taken.first()) {
            reader.done(*position);
            reader.release();
        }
        reader.release();
        assert_eq!(reader.head(), reader.tail(), "space that nobody gives back");
        queue.remove().expect("ours to remove");
    }
    // What was refused stays where it was.
    let _ = std::fs::remove_file(&path);
});
