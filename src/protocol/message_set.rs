//! Message sets (magic 0 and 1): what Produce v0 to v2 carry where later versions carry a
//! [record batch](super::record_batch), for brokers before Kafka 0.11.
//!
//! ```text
//! message set = messages, without a count
//! message = offset i64       length i32 of what follows
//!           crc32 u32        magic i8        attributes i8 = codec
//!           timestamp i64 in magic 1 only
//!           key length i32 (-1 is null), key, value length i32, value
//! ```
//! The checksum, CRC-32 as in zlib, covers what follows it. Brokers write the offsets anew.
//!
//! A compressed set is the value of a message that has no key. Its offset is that of the last message in it, which count
//! from 0, and its timestamp the highest of theirs.
//! (<https://kafka.apache.org/documentation/#messageset>)

use super::record_batch::BatchSummary;
use super::sink::Sink;
use crate::record::Record;

/// Bytes of a message before its checksum, and with it.
const LENGTH_END: usize = 12;
const CHECKSUM_END: usize = 16;
/// Bytes of a message before its key, in the format where they are most.
const LONGEST_HEADER: usize = CHECKSUM_END + 1 + 1 + 8 + 4;

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
    pub(super) const fn overhead(self) -> usize {
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
        self.out.reserve(message_size_bound(record));
        let message = Message::of_record(record, self.records);
        message.put(self.out, self.format);
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

/// One message.
pub(super) struct Message<'a> {
    pub offset: i64,
    pub attributes: i8,
    pub timestamp_ms: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

impl<'a> Message<'a> {
    pub fn of_record(record: &Record<'a>, index: usize) -> Message<'a> {
        let Record { timestamp_ms, key, payload: value, .. } = *record;
        Message { offset: index as i64, attributes: 0, timestamp_ms, key, value }
    }

    pub fn put<S: Sink>(&self, out: &mut S, format: MessageFormat) {
        let (header, len) = self.header(format);
        out.put(&header[..len]);
        out.put(self.key.unwrap_or_default());
        out.put(&self.value_len().to_be_bytes());
        out.put(self.value.unwrap_or_default());
    }

    /// What stands before the key, and how long it is.
    pub fn header(&self, format: MessageFormat) -> ([u8; LONGEST_HEADER], usize) {
        let (key, value) = (self.key.unwrap_or_default(), self.value.unwrap_or_default());
        let len = format.overhead() + key.len() + value.len();
        let counted = i32::try_from(len - LENGTH_END).expect("a message is far below 2 GiB");
        let mut header = [0; LONGEST_HEADER];
        header[..8].copy_from_slice(&self.offset.to_be_bytes());
        header[8..12].copy_from_slice(&counted.to_be_bytes());
        header[16] = format.magic() as u8;
        header[17] = self.attributes as u8;
        let mut end = 18;
        if format == MessageFormat::V1 {
            header[18..26].copy_from_slice(&self.timestamp_ms.to_be_bytes());
            end = 26;
        }
        header[end..end + 4].copy_from_slice(&len_or_null(self.key).to_be_bytes());
        end += 4;

        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&header[CHECKSUM_END..end]);
        checksum.update(key);
        checksum.update(&self.value_len().to_be_bytes());
        checksum.update(value);
        header[LENGTH_END..CHECKSUM_END].copy_from_slice(&checksum.finalize().to_be_bytes());
        (header, end)
    }

    pub fn value_len(&self) -> i32 {
        len_or_null(self.value)
    }
}

/// A length as it is written, -1 for null. It is a part of one that fits.
fn len_or_null(bytes: Option<&[u8]>) -> i32 {
    bytes.map_or(-1, |bytes| bytes.len() as i32)
}
