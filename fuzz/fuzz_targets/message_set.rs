//! Encodes arbitrary records as message sets and reads them back with the reader of the tests, which
//! also checks the checksums: same keys, payloads and timestamps, within the promised size.
//!
//! The input is the format, then the records. Run with `cargo +nightly fuzz run message_set`.

#![no_main]

#[path = "../../src/protocol/tests/message_reader.rs"]
mod message_reader;
mod records;

use libfuzzer_sys::fuzz_target;
use lkfk::internals::protocol::message_set::{MessageFormat, MessageSetEncoder, message_size_bound};
use lkfk::internals::protocol::record_batch::BatchSummary;
use message_reader::Message;
use records::Input;

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let [magic] = input.number().map(|byte: u8| byte & 1);
    let format = if magic == 1 { MessageFormat::V1 } else { MessageFormat::V0 };
    let records = input.records();
    let bounds = records.iter().map(message_size_bound);
    let bound = bounds.sum::<usize>();

    let mut out = Vec::new();
    let mut set = MessageSetEncoder::begin(&mut out, format);
    for record in &records {
        set.push(record);
    }
    let summary = set.finish();
    assert_eq!(summary, BatchSummary { records: records.len(), len: out.len() });
    assert!(out.len() <= bound);

    let expected = records.iter().enumerate().map(|(index, record)| Message {
        offset: index as i64,
        magic,
        timestamp: (magic == 1).then_some(record.timestamp_ms),
        key: record.key.map(<[u8]>::to_vec),
        value: record.payload.map(<[u8]>::to_vec),
    });
    assert!(message_reader::read(&out).into_iter().eq(expected));
});
