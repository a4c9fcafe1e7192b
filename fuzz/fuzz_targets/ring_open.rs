//! Opens whole queue files of dead workers with arbitrary edits, reads them to their end, and gives
//! everything back: no panic, no read outside the file, and an end.
//!
//! The input is the number of records that the file begins with and how many of them are done, and
//! then edits: where (a place in the first 64 KiB, or in as much from where the records are), how many
//! bytes, the bytes. Run with `cargo +nightly fuzz run ring_open`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lkfk::queue::layout::DATA_OFFSET;
use lkfk::queue::{Queue, QueueDir};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

/// Bytes for records: the smallest queue there is.
const DATA: u64 = 64 * 1024;

static DIR: LazyLock<(Arc<QueueDir>, PathBuf)> = LazyLock::new(|| {
    let parent = PathBuf::from(format!("/dev/shm/lkfk-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&parent).expect("/dev/shm takes directories");
    (Arc::new(QueueDir::open(&parent).expect("a directory of ours")), parent)
});

/// A dead worker's file; returns where it is.
fn orphan(records: usize, done: usize) -> PathBuf {
    let queue = Queue::create(DIR.0.clone(), "fuzz", DATA, 0).expect("room for a queue");
    let mut writer = queue.writer(u64::MAX, 1 << 20);
    let topics = [writer.topic("one").unwrap(), writer.topic("another").unwrap()];
    for number in 0..records {
        let payload = vec![number as u8; number * 7 % 300];
        let key = (number % 3 > 0).then_some(&payload[..payload.len() / 2]);
        // What does not fit is not written.
        let _ = writer.push(topics[number % 2], number as i64, key, &payload);
    }
    let mut reader = queue.reader();
    let mut positions = Vec::new();
    while let Some(slot) = reader.read().expect("a whole file") {
        positions.push(slot.position);
    }
    for position in positions.into_iter().rev().take(done) {
        reader.done(position);
    }
    queue.path()
}

fuzz_target!(|input: &[u8]| {
    let [records, done, edits @ ..] = input else { return };
    let path = orphan(usize::from(*records), usize::from(*done));
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("just written");
    let mut edits = edits;
    while let [high, low, len, rest @ ..] = edits {
        let place = u64::from(u16::from_be_bytes([*high, *low]));
        // The topmost bit of the length says which part of the file.
        let from = if *len < 128 { 0 } else { DATA_OFFSET as u64 };
        let (bytes, rest) = rest.split_at(usize::from(*len % 128).min(rest.len()));
        file.write_all_at(bytes, from + place).expect("room for an edit");
        edits = rest;
    }

    if let Ok(queue) = Queue::adopt(DIR.0.clone(), "fuzz.queue") {
        let mut reader = queue.reader();
        let mut taken = Vec::new();
        // A slot takes 64 bytes at least, a filler 8.
        for _ in 0..=2 * DATA / 64 {
            match reader.read() {
                Ok(Some(slot)) => {
                    let sum: u64 = slot.record
                        .payload
                        .unwrap_or_default()
                        .iter()
                        .chain(slot.record.key.unwrap_or_default())
                        .map(|b| u64::from(*b))
                        .sum();
                    taken.push((slot.position, slot.topic, sum));
                }
                Ok(None) => break,
                Err(_) => {
                    reader.abandon_rest();
                    break;
                }
            }
        }
        assert!(reader.read().is_ok_and(|slot| slot.is_none()), "no end");
        for (position, topic, sum) in &taken {
            let slot = reader.get(*position).expect("handed out and not done");
            let again: u64 = slot.record
                .payload
                .unwrap_or_default()
                .iter()
                .chain(slot.record.key.unwrap_or_default())
                .map(|b| u64::from(*b))
                .sum();
            assert_eq!(again, *sum);
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
