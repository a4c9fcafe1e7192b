//! Backup lines: what is written is read back byte for byte, and reading takes any bytes.
//!
//! The first byte splits the rest into key and payload. Run with `cargo +nightly fuzz run backup_line`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lkfk::backup::format::{Line, Writing, put, read};

fuzz_target!(|input: &[u8]| {
    for writing in [Writing::Escaped, Writing::Raw] {
        let _ = read(input, writing);
        let nearly = [b"2024-01-01 00:00:00\tt\t", input].concat();
        let _ = read(&nearly, writing);
    }
    let [split, rest @ ..] = input else { return };
    let (key, payload) = rest.split_at(usize::from(*split).min(rest.len()));
    let key = (*split != 255).then_some(key);
    let mut line = Vec::new();
    put(&mut line, &Line::new(1_700_000_000_000, "t", key, Some(payload)));
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
    let back = read(&line[..line.len() - 1], Writing::Escaped).expect("a line of ours");
    assert_eq!((back.key.as_deref(), &*back.payload), (key, payload));
});
