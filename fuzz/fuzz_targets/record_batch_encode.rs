//! Encodes arbitrary records and reads them back with kafka-protocol, which also checks the
//! checksum: same keys, payloads and timestamps, within the promised size.
//!
//! The input is the producer's stamp, then for each record whether it has a key, the lengths of key
//! and payload, the timestamp, and their bytes. Run with
//! `cargo +nightly fuzz run record_batch_encode`.

#![no_main]

use kafka_protocol::records::RecordBatchDecoder;
use libfuzzer_sys::fuzz_target;
use lkfk::protocol::record_batch::{
    BATCH_OVERHEAD, BatchEncoder, BatchSummary, ProducerStamp, record_size_bound,
};

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// The next bytes, fewer at the end.
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn number<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let taken = self.take(N);
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }
}

struct Record<'a> {
    timestamp_ms: i64,
    key: Option<&'a [u8]>,
    value: &'a [u8],
}

impl<'a> Record<'a> {
    fn take(input: &mut Input<'a>) -> Self {
        let [has_key, key_len] = input.number();
        let value_len = u16::from_le_bytes(input.number());
        // The reader adds deltas without wrapping: a quarter of the range is what it takes.
        let timestamp_ms = i64::from_le_bytes(input.number()) >> 2;
        let key = input.take(usize::from(key_len));
        let value = input.take(usize::from(value_len));
        Self { timestamp_ms, key: (has_key & 1 == 1).then_some(key), value }
    }

    fn size_bound(&self) -> usize {
        record_size_bound(self.key.map(<[u8]>::len), self.value.len())
    }
}

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let producer = ProducerStamp {
        producer_id: i64::from_le_bytes(input.number()),
        epoch: i16::from_le_bytes(input.number()),
        base_sequence: i32::from_le_bytes(input.number()),
    };
    let mut records = Vec::new();
    while !input.0.is_empty() {
        records.push(Record::take(&mut input));
    }
    let bound = BATCH_OVERHEAD + records.iter().map(Record::size_bound).sum::<usize>();

    let mut out = Vec::new();
    let mut batch = BatchEncoder::begin(&mut out, producer);
    for record in &records {
        batch.push(record.timestamp_ms, record.key, record.value);
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
        assert_eq!(read.value.as_deref(), Some(record.value));
    }
});
