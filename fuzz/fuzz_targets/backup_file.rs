//! Replays backup files with arbitrary edits, in the lines and in the journal, to their end: no panic, an end, no
//! message longer than there can be, and none that lkfk did not write when only its own are wanted.
//!
//! The input is the number of messages that the file begins with and which lines are wanted, and then edits: what
//! (the file, its journal, or one more line of somebody else's), where, how many bytes, the bytes. Run with
//! `cargo +nightly fuzz run backup_file`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lkfk::internals::backup::backlog::Which;
use lkfk::internals::backup::format::Line;
use lkfk::internals::backup::{Backlog, BackupDir, Limits, LineBatch};
use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

const TOPIC: &str = "t";
/// What key and payload may take together.
const LONGEST: usize = 300;

fn payload(number: u8) -> Vec<u8> {
    format!("{number} a\tb\\c\n").repeat(usize::from(number % 7)).into_bytes()
}

fuzz_target!(|input: &[u8]| {
    let [count, wanted, edits @ ..] = input else { return };
    let path = PathBuf::from(format!("/dev/shm/lkfk-fuzz-backup-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    let mut backup = BackupDir::open(&path, Limits { file: 1 << 20, total: 1 << 24 })
        .expect("a directory of ours");
    let mut lines = LineBatch::default();
    for number in 0..*count {
        let (timestamp_ms, payload) = (1_700_000_000_000 + i64::from(number), payload(number));
        let key = (number % 3 > 0).then_some(&payload[..payload.len() / 2]);
        lines.push(&Line::new(timestamp_ms, TOPIC, key, Some(&payload)));
    }
    backup.append(TOPIC, &lines).expect("room for lines");
    let mut edits = edits;
    while let [what, high, low, len, rest @ ..] = edits {
        let place = u64::from(u16::from_be_bytes([*high, *low]));
        let (bytes, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        edits = rest;
        let file = path.join(TOPIC);
        let journal =
            || path.join(format!("~journal/{}", fs::metadata(&file).map_or(0, |file| file.ino())));
        let edited = match what % 3 {
            0 => file,
            1 => journal(),
            _ => {
                backup.append_others(TOPIC, bytes).expect("room for a line");
                continue;
            }
        };
        if let Ok(file) = OpenOptions::new().write(true).open(edited) {
            file.write_all_at(bytes, place).expect("room for an edit");
        }
    }
    drop(backup);

    let which = if wanted % 2 == 0 { Which::Own } else { Which::All };
    let mut backlog = Backlog::open(&path, which, LONGEST).expect("a directory of ours");
    assert!(backlog.lock().expect("a lock"));
    let (nothing, mut chunks) = (HashSet::new(), 0);
    while let Ok(Some(chunk)) = backlog.read(TOPIC, &nothing) {
        for index in 0..chunk.len() {
            let record = chunk.get(index).expect("one of the chunk's").record;
            let key_and_payload = [record.key, record.payload].into_iter().flatten();
            let len = record.headers.block().len() + key_and_payload.map(<[u8]>::len).sum::<usize>();
            assert!(len <= LONGEST);
            let ours = || (0..*count).any(|number| Some(&*payload(number)) == record.payload);
            assert!(which == Which::All || ours(), "not lkfk's: {:?}", record.payload);
        }
        backlog.commit(&chunk, None, &[]).expect("room for progress");
        chunks += 1;
        assert!(chunks < 1000, "no end");
    }
    let _ = backlog.waiting(i64::MAX);
    let _ = fs::remove_dir_all(&path);
});
