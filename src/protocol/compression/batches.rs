//! Batches and message sets with compressed records. Both go through the records twice: the first time they are only
//! measured, since zstd's readers need less memory when a frame says how long its content is, and since what does not become
//! smaller is not compressed.

use super::codec::Codec;
use super::compressor::Compressor;
use super::lz4;
use crate::protocol::message_set::{Message, MessageFormat};
use crate::protocol::record_batch::{BATCH_OVERHEAD, ProducerStamp, RecordEncoder};
use crate::protocol::sink::Sink;
use crate::record::Record;

/// Appends one batch whose records `codec` has compressed. False, and nothing stays in the buffer, when that would make it
/// no smaller. `records` gives the records, of which there is one at least, as often as it is asked.
///
/// # Panics
/// As [`BatchEncoder`](crate::protocol::record_batch::BatchEncoder) does.
pub fn put_compressed_batch<'r, R: Iterator<Item = Record<'r>>>(
    out: &mut Vec<u8>,
    producer: ProducerStamp,
    (compressor, codec): (&mut Compressor, Codec),
    records: impl Fn() -> R,
) -> bool {
    let mut plain = Count::default();
    let mut measured = RecordEncoder::default();
    records().for_each(|record| measured.put(&mut plain, &record));

    let start = out.len();
    out.extend_from_slice(&[0; BATCH_OVERHEAD]);
    let mut stream = compressor.begin(codec, out, plain.0);
    let mut encoder = RecordEncoder::default();
    records().for_each(|record| encoder.put(&mut stream, &record));
    let is_smaller = stream.end() && out.len() - start - BATCH_OVERHEAD < plain.0;
    match is_smaller {
        true => encoder.put_header(&mut out[start..], codec.attributes().into(), producer),
        false => out.truncate(start),
    }
    is_smaller
}

/// Appends one message set that `codec` has compressed, as one message. False, and nothing stays in the buffer, when that
/// would make it no smaller. `records` gives the records, of which there is one at least, as often as it is asked.
///
/// # Panics
/// As [`MessageSetEncoder`](crate::protocol::message_set::MessageSetEncoder) does.
pub fn put_compressed_set<'r, R: Iterator<Item = Record<'r>>>(
    out: &mut Vec<u8>,
    format: MessageFormat,
    (compressor, codec): (&mut Compressor, Codec),
    records: impl Fn() -> R,
) -> bool {
    let mut plain = Count::default();
    let (mut last, mut highest_timestamp_ms) = (0, i64::MIN);
    for (index, record) in records().enumerate() {
        Message::of_record(&record, index).put(&mut plain, format);
        (last, highest_timestamp_ms) = (index, highest_timestamp_ms.max(record.timestamp_ms));
    }

    let start = out.len();
    let value_at = start + format.overhead();
    out.resize(value_at, 0);
    let mut stream = compressor.begin(codec, out, plain.0);
    for (index, record) in records().enumerate() {
        Message::of_record(&record, index).put(&mut stream, format);
    }
    if !stream.end() || out.len() - start >= plain.0 {
        out.truncate(start);
        return false;
    }
    let (header, value) = out[start..].split_at_mut(format.overhead());
    if codec == Codec::Lz4 && format == MessageFormat::V0 {
        lz4::use_old_header(value);
    }
    let wrapper = Message {
        offset: last as i64,
        attributes: codec.attributes(),
        timestamp_ms: highest_timestamp_ms,
        key: None,
        value: Some(value),
    };
    let (fields, len) = wrapper.header(format);
    header[..len].copy_from_slice(&fields[..len]);
    header[len..].copy_from_slice(&wrapper.value_len().to_be_bytes());
    true
}

/// Only counts.
#[derive(Debug, Default)]
struct Count(usize);

impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}
