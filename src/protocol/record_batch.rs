//! Record batches (magic 2): what a Produce request carries for each partition.
//!
//! ```text
//! base offset i64 = 0     batch length i32        partition leader epoch i32 = -1
//! magic i8 = 2            crc32c u32              attributes i16 = codec
//! last offset delta i32   first timestamp i64     highest timestamp i64
//! producer id i64         producer epoch i16      base sequence i32
//! record count i32        records
//! record = length varint, attributes i8 = 0, timestamp delta varlong, offset delta varint,
//!          key length varint (-1 is null), key, value length varint, value, header count varint = 0
//! ```
//! The batch length counts what follows it, the checksum covers what follows it, and deltas count
//! from the first record, so that a clock set back gives negative ones. A codec has the records, and not what stands before
//! them.
//! (<https://kafka.apache.org/documentation/#recordbatch>)
//!
//! This is the hot path: each record's bytes are copied once, the checksum is taken in one pass over
//! the finished batch, and nothing is allocated per record.

use super::sink::Sink;
use crate::record::Record;
use crate::varint::{varint_len, write_varint, zigzag};

/// Bytes of a batch before its first record.
pub const BATCH_OVERHEAD: usize = 61;

/// The most bytes that a record takes besides its key and value.
const RECORD_OVERHEAD: usize = 32;

// A record's length, attributes, two deltas, key length; value length; header count.
const _: () = assert!(RECORD_OVERHEAD == (5 + 1 + 10 + 5 + 5) + 5 + 1);

/// Where the batch length stops counting from, and where the checksum starts.
const LENGTH_END: usize = 12;
const CHECKSUM_END: usize = 21;

const MAGIC: u8 = 2;

/// An upper bound of what a record takes in a batch.
pub fn record_size_bound(record: &Record<'_>) -> usize {
    let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    RECORD_OVERHEAD + len(record.key) + len(record.payload) + record.headers.block().len()
}

/// Who a batch is from, for brokers to drop duplicates by (KIP-98).
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct ProducerStamp {
    /// The id that InitProducerId gave.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// The sequence number of the batch's first record in its partition.
    pub base_sequence: i32,
}

impl ProducerStamp {
    /// Not idempotent.
    pub const NONE: Self = Self { producer_id: -1, epoch: -1, base_sequence: -1 };
}

/// What a finished batch came to.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct BatchSummary {
    /// Records in it.
    pub records: usize,
    /// Bytes it takes.
    pub len: usize,
}

/// Appends one batch to a buffer: [`begin`](Self::begin), [`push`](Self::push) each record, then
/// [`finish`](Self::finish). Dropped unfinished it leaves bytes that are no batch.
///
/// A buffer with room for [`BATCH_OVERHEAD`] and each record's [`record_size_bound`] does not grow.
#[derive(Debug)]
#[must_use = "a batch is valid only once it is finished"]
pub struct BatchEncoder<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    producer: ProducerStamp,
    records: RecordEncoder,
}

impl<'a> BatchEncoder<'a> {
    /// Begins a batch at the end of `out`.
    pub fn begin(out: &'a mut Vec<u8>, producer: ProducerStamp) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; BATCH_OVERHEAD]);
        Self { out, start, producer, records: RecordEncoder::default() }
    }

    /// Adds a record. A null key and an empty one are different things to Kafka, and so are a null payload and an
    /// empty one.
    ///
    /// # Panics
    /// If the record exceeds 2 GiB, which the limit on a message's size forbids.
    #[inline]
    pub fn push(&mut self, record: &Record<'_>) {
        self.out.reserve(record_size_bound(record));
        self.records.put(self.out, record);
    }

    /// Records pushed so far.
    pub fn records(&self) -> usize {
        self.records.count as usize
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// Whether no record was pushed yet.
    pub fn is_empty(&self) -> bool {
        self.records.count == 0
    }

    /// Completes the batch. Without a record there is none, and nothing stays in the buffer.
    ///
    /// # Panics
    /// If the batch exceeds 2 GiB, which the limit on a request's size forbids.
    pub fn finish(self) -> BatchSummary {
        if self.records.count == 0 {
            self.out.truncate(self.start);
            return BatchSummary { records: 0, len: 0 };
        }
        let batch = &mut self.out[self.start..];
        self.records.put_header(batch, 0, self.producer);
        BatchSummary { records: self.records.count as usize, len: batch.len() }
    }
}

/// Puts records one behind the other, and knows then what the header says of them.
#[derive(Debug)]
pub(super) struct RecordEncoder {
    count: i32,
    first_timestamp_ms: i64,
    highest_timestamp_ms: i64,
}

impl Default for RecordEncoder {
    fn default() -> RecordEncoder {
        RecordEncoder { count: 0, first_timestamp_ms: 0, highest_timestamp_ms: i64::MIN }
    }
}

impl RecordEncoder {
    /// Puts a record behind the others.
    #[inline]
    pub(super) fn put<S: Sink>(&mut self, out: &mut S, record: &Record<'_>) {
        let timestamp_ms = record.timestamp_ms;
        if self.count == 0 {
            self.first_timestamp_ms = timestamp_ms;
        }
        self.highest_timestamp_ms = self.highest_timestamp_ms.max(timestamp_ms);

        // Readers add the delta to the first timestamp and wrap as well.
        let timestamp_delta = zigzag(timestamp_ms.wrapping_sub(self.first_timestamp_ms));
        let offset_delta = zigzag(i64::from(self.count));
        let key_len = zigzag(record.key.map_or(-1, |key| key.len() as i64));
        let value_len = zigzag(record.payload.map_or(-1, |payload| payload.len() as i64));
        let (key, payload) = (record.key.unwrap_or_default(), record.payload.unwrap_or_default());
        // The block begins with the count of headers; without one that is 0.
        let headers = record.headers.block();
        let len = 1
            + varint_len(timestamp_delta)
            + varint_len(offset_delta)
            + varint_len(key_len)
            + key.len()
            + varint_len(value_len)
            + payload.len()
            + headers.len().max(1);
        assert!(len <= i32::MAX as usize, "a record of {len} bytes");

        let mut fields = Fields::new();
        fields.varint(zigzag(len as i64));
        fields.byte(0);
        fields.varint(timestamp_delta);
        fields.varint(offset_delta);
        fields.varint(key_len);
        if key.is_empty() {
            fields.varint(value_len);
            fields.put_to(out);
        } else {
            fields.put_to(out);
            out.put(key);
            let mut fields = Fields::new();
            fields.varint(value_len);
            out.put(&fields.bytes[..fields.len]);
        }
        out.put(payload);
        out.put(if headers.is_empty() { &[0] } else { headers });
        self.count += 1;
    }

    /// Writes the header of a batch whose records are complete.
    pub(super) fn put_header(&self, batch: &mut [u8], attributes: i16, producer: ProducerStamp) {
        let counted = i32::try_from(batch.len() - LENGTH_END).expect("a batch is far below 2 GiB");
        batch[8..12].copy_from_slice(&counted.to_be_bytes());
        batch[12..16].copy_from_slice(&(-1i32).to_be_bytes());
        batch[16] = MAGIC;
        batch[21..23].copy_from_slice(&attributes.to_be_bytes());
        batch[23..27].copy_from_slice(&(self.count - 1).to_be_bytes());
        batch[27..35].copy_from_slice(&self.first_timestamp_ms.to_be_bytes());
        batch[35..43].copy_from_slice(&self.highest_timestamp_ms.to_be_bytes());
        batch[43..51].copy_from_slice(&producer.producer_id.to_be_bytes());
        batch[51..53].copy_from_slice(&producer.epoch.to_be_bytes());
        batch[53..57].copy_from_slice(&producer.base_sequence.to_be_bytes());
        batch[57..61].copy_from_slice(&self.count.to_be_bytes());
        let checksum = crc32c::crc32c(&batch[CHECKSUM_END..]);
        batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// A record's small fields, put together outside the buffer.
struct Fields {
    bytes: [u8; RECORD_OVERHEAD],
    len: usize,
}

impl Fields {
    #[inline]
    fn new() -> Self {
        Self { bytes: [0; RECORD_OVERHEAD], len: 0 }
    }

    #[inline]
    fn byte(&mut self, value: u8) {
        self.bytes[self.len] = value;
        self.len += 1;
    }

    #[inline]
    fn varint(&mut self, value: u64) {
        self.len = write_varint(&mut self.bytes, self.len, value);
    }

    /// For a moment this takes more room than it fills: at the start of a record, where it happens, [`record_size_bound`]
    /// covers that.
    #[inline]
    fn put_to<S: Sink>(self, out: &mut S) {
        out.put_short(&self.bytes, self.len);
    }
}
