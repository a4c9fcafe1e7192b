//! Encodes arbitrary records and reads them back with kafka-protocol, which also checks the
//! checksum: same keys, payloads and timestamps, within the promised size.
//!
//! The input is the producer's stamp, then for each record whether it has a key, the lengths of key
//! and payload, the timestamp, and their bytes. Run with
//! `cargo +nightly fuzz run record_batch`.

#![no_main]

mod records;

use kafka_protocol::records::RecordBatchDecoder;
use libfuzzer_sys::fuzz_target;
use lkfk::internals::protocol::record_batch::{
    BATCH_OVERHEAD, BatchEncoder, BatchSummary, ProducerStamp, record_size_bound,
};
use records::Input;

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let producer = ProducerStamp {
        producer_id: i64::from_le_bytes(input.number()),
        epoch: i16::from_le_bytes(input.number()),
        base_sequence: i32::from_le_bytes(input.number()),
    };
    let records = input.records();
    let bounds = records.iter().map(record_size_bound);
    let bound = BATCH_OVERHEAD + bounds.sum::<usize>();

    let mut out = Vec::new();
    let mut batch = BatchEncoder::begin(&mut out, producer);
    for record in &records {
        batch.push(record);
    }
    let summary = batch.finish();
    assert_eq!(summary, BatchSummary { records: records.len(), len: out.len() });
    assert!(out.len() <= bound);
    if records.is_empty() {
        return;
    }

    let mut rest = &out[..];
    let read = RecordBatchDecoder::decode(&mut rest).expect("a valid batch").records;
    assert!(rest.is_empty());
    assert_eq!(read.len(), records.len());
    for (index, (read, record)) in read.iter().zip(&records).enumerate() {
        assert_eq!(read.offset, index as i64);
        assert_eq!(read.producer_id, producer.producer_id);
        assert_eq!(read.producer_epoch, producer.epoch);
        assert_eq!(read.sequence, producer.base_sequence.wrapping_add(index as i32));
        assert_eq!(read.timestamp, record.timestamp_ms);
        assert_eq!(read.key.as_deref(), record.key);
        assert_eq!(read.value.as_deref(), record.payload);
    }
});
