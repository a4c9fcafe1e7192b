//! Message sets (magic 0 and 1), uncompressed: what Produce v0 to v2 carry where later versions carry
//! a [record batch](super::record_batch), for brokers before Kafka 0.11.
//!
//! ```text
//! message set = messages, without a count
//! message = offset i64       length i32 of what follows
//!           crc32 u32        magic i8        attributes i8 = 0
//!           timestamp i64 in magic 1 only
//!           key length i32 (-1 is null), key, value length i32, value
//! ```
//! The checksum, CRC-32 as in zlib, covers what follows it. Brokers write the offsets anew.
//! (<https://kafka.apache.org/documentation/#messageset>)

use super::put::Put;
use super::record_batch::BatchSummary;
use crate::record::Record;

/// Bytes of a message before its checksum, and with it.
const LENGTH_END: usize = 12;
const CHECKSUM_END: usize = 16;

/// The layout of a message.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum MessageFormat {
    /// Magic 0, from the beginning: without a timestamp.
    V0,
    /// Magic 1, from Kafka 0.10: with a timestamp.
    V1,
}

impl MessageFormat {
    /// The format that a version of Produce carries; none from v3 on, which carries record batches.
    pub const fn of_produce(version: i16) -> Option<Self> {
        match version {
            ..=1 => Some(Self::V0),
            2 => Some(Self::V1),
            _ => None,
        }
    }

    const fn magic(self) -> i8 {
        match self {
            Self::V0 => 0,
            Self::V1 => 1,
        }
    }

    /// What a message takes besides its key and value.
    const fn overhead(self) -> usize {
        match self {
            Self::V0 => CHECKSUM_END + 1 + 1 + 4 + 4,
            Self::V1 => CHECKSUM_END + 1 + 1 + 8 + 4 + 4,
        }
    }
}

/// An upper bound of what a message takes in a set, in any format.
pub fn message_size_bound(record: &Record<'_>) -> usize {
    let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    MessageFormat::V1.overhead() + len(record.key) + len(record.payload)
}

/// Appends one message set to a buffer: [`begin`](Self::begin), [`push`](Self::push) each message,
/// then [`finish`](Self::finish).
///
/// A buffer with room for each message's [`message_size_bound`] does not grow.
#[derive(Debug)]
#[must_use = "finish says what the set came to"]
pub struct MessageSetEncoder<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    format: MessageFormat,
    records: usize,
}

impl<'a> MessageSetEncoder<'a> {
    /// Begins a set at the end of `out`.
    pub fn begin(out: &'a mut Vec<u8>, format: MessageFormat) -> Self {
        let start = out.len();
        Self { out, start, format, records: 0 }
    }

    /// Adds a message. A null key and an empty one are different things to Kafka, and so are a null payload and an
    /// empty one. The timestamp is left out where the format has none, and headers always: no format here has them.
    ///
    /// # Panics
    /// If the message exceeds 2 GiB, which the limit on a message's size forbids.
    pub fn push(&mut self, record: &Record<'_>) {
        let (key, payload) = (record.key, record.payload);
        let byte_len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let len = self.format.overhead() + byte_len(key) + byte_len(payload);
        let counted = i32::try_from(len - LENGTH_END).expect("a message is far below 2 GiB");
        let start = self.out.len();
        self.out.reserve(len);
        self.out.put_i64(self.records as i64);
        self.out.put_i32(counted);
        self.out.put_i32(0); // the checksum
        self.out.put_i8(self.format.magic());
        self.out.put_i8(0);
        if self.format == MessageFormat::V1 {
            self.out.put_i64(record.timestamp_ms);
        }
        for bytes in [key, payload] {
            // Both lengths are parts of one that fits.
            self.out.put_i32(bytes.map_or(-1, |bytes| bytes.len() as i32));
            self.out.extend_from_slice(bytes.unwrap_or_default());
        }
        let message = &mut self.out[start..];
        let checksum = crc32fast::hash(&message[CHECKSUM_END..]);
        message[LENGTH_END..CHECKSUM_END].copy_from_slice(&checksum.to_be_bytes());
        self.records += 1;
    }

    /// Messages pushed so far.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// Whether no message was pushed yet.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Completes the set.
    pub fn finish(self) -> BatchSummary {
        BatchSummary { records: self.records, len: self.len() }
    }
}
