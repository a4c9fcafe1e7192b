//! Produce: sends batches, and says what became of each.
//!
//! Requests and answers v0 to v13 (<https://kafka.apache.org/protocol#The_Messages_Produce>). What
//! changed for a producer: v2 timestamps, v3 record batches instead of message sets, v6 throttle
//! time, v7 zstd, v8 errors per record (KIP-467), v9 flexible, v10 the new leader after a move
//! (KIP-951), v13 topic ids instead of names (KIP-516). Kafka 4 offers v0 to v2 and refuses them.

use std::ops::RangeInclusive;

use super::error_code::ErrorCode;
use super::header::{ApiKey, finish_frame, put_request_header};
use super::metadata::{BrokerMetadata, SMALLEST_BROKER};
use super::primitives::{DecodeError, Form, Reader};
use super::put::{Put, one_more};
use crate::varint::{varint_len, write_varint};
use uuid::Uuid;

/// The versions that can be encoded and decoded here.
pub const VERSIONS: RangeInclusive<i16> = 0..=13;

/// From this version on it is the client that pauses; up to then the throttle time is the pause that
/// the broker made before it answered (KIP-219).
const THROTTLED_BY_CLIENT: i16 = 6;

/// From this version on topics go by id.
pub const BY_TOPIC_ID: i16 = 13;

/// Sizes of the smallest elements of an answer, in any version.
const SMALLEST_TOPIC: usize = 3;
const SMALLEST_PARTITION: usize = 14;
const SMALLEST_RECORD_ERROR: usize = 6;

/// A topic in a request: by name, or by id from v13 on.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct TopicRef<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its id, as Metadata v10 or later told it.
    pub id: Uuid,
}

/// Appends one request to a buffer: [`begin`](Self::begin), then for each topic
/// [`topic`](Self::topic) and its [`partition`](Self::partition)s, then [`finish`](Self::finish).
///
/// Counts precede what they count, so each is promised beforehand and must be kept: debug builds
/// panic otherwise, release builds would write a request that brokers refuse.
#[derive(Debug)]
#[must_use = "a request is valid only once it is finished"]
pub struct ProduceEncoder<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    version: i16,
    form: Form,
    topics_left: usize,
    partitions_left: usize,
}

impl<'a> ProduceEncoder<'a> {
    /// Begins a request with its header. `acks` is 0, 1 or -1 for all in-sync replicas; within
    /// `timeout_ms` the broker waits for them.
    pub fn begin(
        out: &'a mut Vec<u8>,
        version: i16,
        correlation_id: i32,
        client_id: &str,
        acks: i16,
        timeout_ms: i32,
        topic_count: usize,
    ) -> Self {
        debug_assert!(VERSIONS.contains(&version));
        let form = ApiKey::Produce.form(version);
        let start = put_request_header(out, ApiKey::Produce, version, correlation_id, client_id);
        if version >= 3 {
            out.put_null_string(form); // transactional id
        }
        out.put_i16(acks);
        out.put_i32(timeout_ms);
        out.put_array_len(form, topic_count);
        Self { out, start, version, form, topics_left: topic_count, partitions_left: 0 }
    }

    /// Begins the next topic.
    pub fn topic(&mut self, topic: TopicRef<'_>, partition_count: usize) {
        debug_assert_eq!(self.partitions_left, 0, "the topic before lacks partitions");
        debug_assert_ne!(self.topics_left, 0, "more topics than promised");
        self.topics_left = self.topics_left.wrapping_sub(1);
        self.partitions_left = partition_count;
        if self.version >= BY_TOPIC_ID {
            self.out.put_uuid(topic.id);
        } else {
            self.out.put_string(self.form, topic.name);
        }
        self.out.put_array_len(self.form, partition_count);
        self.end_topic_if_complete();
    }

    /// Adds a partition to the topic; `write_records` appends its batch, or its message set
    /// below v3, and what it returns is handed back. `records_hint` is about how many bytes it will append: the flexible form
    /// writes their number first and in as few bytes as it takes, and if the hint is off by too
    /// much, they have to be moved.
    pub fn partition<T>(
        &mut self,
        index: i32,
        records_hint: usize,
        write_records: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> T {
        debug_assert_ne!(self.partitions_left, 0, "more partitions than promised");
        self.partitions_left = self.partitions_left.wrapping_sub(1);
        self.out.put_i32(index);
        let result = match self.form {
            Form::Classic => self.sized_records(write_records),
            Form::Flexible => self.compact_records(records_hint, write_records),
        };
        self.out.put_no_tagged_fields(self.form);
        self.end_topic_if_complete();
        result
    }

    /// Completes the request.
    pub fn finish(self) {
        debug_assert_eq!(self.partitions_left, 0, "the last topic lacks partitions");
        debug_assert_eq!(self.topics_left, 0, "fewer topics than promised");
        self.out.put_no_tagged_fields(self.form);
        finish_frame(self.out, self.start);
    }

    fn end_topic_if_complete(&mut self) {
        if self.partitions_left == 0 {
            self.out.put_no_tagged_fields(self.form);
        }
    }

    fn sized_records<T>(&mut self, write_records: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let size_at = self.out.len();
        self.out.put_i32(0);
        let result = write_records(self.out);
        // The same shape as a frame: four bytes of size, then that many bytes.
        finish_frame(self.out, size_at);
        result
    }

    fn compact_records<T>(
        &mut self,
        records_hint: usize,
        write_records: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> T {
        let size_at = self.out.len();
        let reserved = varint_len((records_hint as u64).saturating_add(1)).min(5);
        let records_at = size_at + reserved;
        self.out.resize(records_at, 0);
        let result = write_records(self.out);
        let size = u64::from(one_more(self.out.len() - records_at));
        let width = varint_len(size);
        if width != reserved {
            self.out.splice(size_at..records_at, std::iter::repeat_n(0, width));
        }
        write_varint(self.out, size_at, size);
        result
    }
}

/// What became of each batch of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceResponse {
    /// How long the broker wants no more requests; 0 before v6.
    pub throttle_ms: i32,
    /// The topics of the request, unchecked: some may be missing, foreign or repeated.
    pub topics: Vec<ProducedTopic>,
    /// Where the brokers are that [`ProducedPartition::current_leader`] names; from v10 on.
    pub node_endpoints: Vec<BrokerMetadata>,
}

/// A topic in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducedTopic {
    /// Which.
    pub topic: ProducedTopicRef,
    /// Its partitions.
    pub partitions: Vec<ProducedPartition>,
}

/// How an answer names a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProducedTopicRef {
    /// Before v13.
    Name(String),
    /// From v13 on.
    Id(Uuid),
}

/// What became of one partition's batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducedPartition {
    /// The partition's number.
    pub index: i32,
    /// Success, or why not.
    pub error: ErrorCode,
    /// The offset of the batch's first record, or -1.
    pub base_offset: i64,
    /// The broker's time, if the topic takes that instead of the records' own; otherwise -1, as
    /// always before v2.
    pub log_append_time_ms: i64,
    /// The broker's words; from v8 on.
    pub error_message: Option<String>,
    /// The records that made the broker refuse the batch; from v8 on.
    pub record_errors: Vec<RecordError>,
    /// Where to send the batch instead, if the broker knows; from v10 on.
    pub current_leader: Option<LeaderHint>,
}

/// A record that made the broker refuse its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// The record's place in the batch.
    pub batch_index: i32,
    /// The broker's words. Boxed, since a batch may have ten thousand of these.
    pub message: Option<Box<str>>,
}

/// A partition's leader.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct LeaderHint {
    /// Its broker id, 0 or higher.
    pub id: i32,
    /// Counts the partition's leaders.
    pub epoch: i32,
}

impl ProduceResponse {
    /// Reads the body of an answer to a request of this version, to its last byte.
    pub fn decode(version: i16, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.check_version(version, VERSIONS, "Produce answer")?;
        let form = ApiKey::Produce.form(version);
        let topics = reader.array(form, SMALLEST_TOPIC, "topics", |reader| {
            ProducedTopic::decode(version, form, reader)
        })?;
        let mut throttle_ms = if version >= 1 { reader.i32("throttle time")? } else { 0 };
        if version < THROTTLED_BY_CLIENT {
            throttle_ms = 0;
        }
        let mut node_endpoints = Vec::new();
        reader.tagged_fields(form, |tag, reader| {
            if version >= 10 && tag == 0 {
                node_endpoints =
                    reader.array(form, SMALLEST_BROKER, "node endpoints", |reader| {
                        BrokerMetadata::decode(true, form, reader)
                    })?;
            }
            Ok(())
        })?;
        reader.finish()?;
        Ok(Self { throttle_ms, topics, node_endpoints })
    }
}

impl ProducedTopic {
    fn decode(version: i16, form: Form, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let topic = if version >= BY_TOPIC_ID {
            ProducedTopicRef::Id(reader.uuid("topic id")?)
        } else {
            ProducedTopicRef::Name(reader.string(form, "topic name")?)
        };
        let partitions = reader.array(form, SMALLEST_PARTITION, "partitions", |reader| {
            ProducedPartition::decode(version, form, reader)
        })?;
        reader.skip_tagged_fields(form)?;
        Ok(Self { topic, partitions })
    }
}

impl ProducedPartition {
    fn decode(version: i16, form: Form, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let index = reader.i32("partition index")?;
        let error = ErrorCode(reader.i16("partition error code")?);
        let base_offset = reader.i64("base offset")?;
        let log_append_time_ms = if version >= 2 { reader.i64("log append time")? } else { -1 };
        if version >= 5 {
            reader.i64("log start offset")?;
        }
        let (mut record_errors, mut error_message) = (Vec::new(), None);
        if version >= 8 {
            record_errors =
                reader.array(form, SMALLEST_RECORD_ERROR, "record errors", |reader| {
                    RecordError::decode(form, reader)
                })?;
            error_message = reader.nullable_string(form, "error message")?;
        }
        let mut current_leader = None;
        reader.tagged_fields(form, |tag, reader| {
            if version >= 10 && tag == 0 {
                current_leader = LeaderHint::decode(form, reader)?;
            }
            Ok(())
        })?;
        Ok(Self {
            index,
            error,
            base_offset,
            log_append_time_ms,
            error_message,
            record_errors,
            current_leader,
        })
    }
}

impl RecordError {
    fn decode(form: Form, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let batch_index = reader.i32("record's place in the batch")?;
        let message = reader.nullable_string(form, "record's error message")?;
        reader.skip_tagged_fields(form)?;
        Ok(Self { batch_index, message: message.map(String::into_boxed_str) })
    }
}

impl LeaderHint {
    fn decode(form: Form, reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        let id = reader.i32("leader id")?;
        let epoch = reader.i32("leader epoch")?;
        reader.skip_tagged_fields(form)?;
        Ok((id >= 0).then_some(Self { id, epoch }))
    }
}
