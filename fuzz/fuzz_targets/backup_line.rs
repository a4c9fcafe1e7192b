//! Backup lines: what is written is read back byte for byte, and reading takes any bytes.
//!
//! The first four bytes say what is null and how the rest is split into key, payload, and one header's name and value.
//! Run with `cargo +nightly fuzz run backup_line`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lkfk::internals::backup::format::{Line, Writing, put, read};
use lkfk::internals::record::{Headers, HeadersBuf, Record};

/// The longest key, headers and payload that are read.
const LONGEST: usize = 1 << 20;

fn read_any(line: &[u8]) {
    for writing in [Writing::Escaped, Writing::Raw] {
        let mut buffer = Vec::new();
        if let Ok((topic, fields)) = read(line, writing, LONGEST, &mut buffer) {
            let _ = fields.line(topic, &buffer);
        }
    }
}

fuzz_target!(|input: &[u8]| {
    read_any(input);
    read_any(&[b"2024-01-01 00:00:00\tt\t", input].concat());
    read_any(&[b"2024-01-01 00:00:00\tt\tk\tp\t{\"headers\":[[", input].concat());
    let [nulls, key, name, value, rest @ ..] = input else { return };
    let mut rest = rest;
    let mut take = |len: &u8| rest.split_off(..usize::from(*len).min(rest.len())).unwrap_or_default();
    let (key, name, value) = (take(key), take(name), take(value));
    let some = |bit: u8| nulls & bit == 0;

    let mut headers = HeadersBuf::default();
    if some(1) {
        headers.push(&String::from_utf8_lossy(name), some(2).then_some(value));
    }
    let headers = headers.into_block();
    let record = Record {
        timestamp_ms: if some(4) { 1_700_000_000_000 } else { 1_600_000_000_000 },
        key: some(8).then_some(key),
        headers: Headers::check(&headers).expect("headers of ours"),
        payload: some(16).then_some(rest),
    };
    let written = Line { logged_ms: 1_700_000_000_000, topic: "t", record };
    let mut line = Vec::new();
    put(&mut line, &written);
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
    let mut buffer = Vec::new();
    let (topic, fields) = read(&line[..line.len() - 1], Writing::Escaped, LONGEST, &mut buffer)
        .expect("a line of ours");
    assert_eq!(fields.line(topic, &buffer), written);
});
