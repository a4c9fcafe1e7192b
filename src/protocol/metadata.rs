//! Metadata: the brokers, and who leads which partition.
//!
//! Requests and answers v0 to v13 (<https://kafka.apache.org/protocol#The_Messages_Metadata>). What
//! changed for a producer: v1 racks, and no topics can be asked for, v4 auto-creation can be
//! declined, v6 throttle time, v7 leader epochs, v9 flexible, v10 topic ids, v13 an error for the whole
//! answer (KIP-1102).

use std::ops::RangeInclusive;

use super::error_code::ErrorCode;
use super::header::ApiKey;
use super::primitives::{DecodeError, Form, Reader};
use super::put::Put;
use uuid::Uuid;

/// The versions that can be encoded and decoded here.
pub const VERSIONS: RangeInclusive<i16> = 0..=13;

/// From this version on it is the client that pauses; up to then the throttle time is the pause that
/// the broker made before it answered (KIP-219).
const THROTTLED_BY_CLIENT: i16 = 6;

/// From this version on a client can say that asking about a topic is not to make it.
pub const DECLINES_TO_MAKE_TOPICS: i16 = 4;

/// Sizes of the smallest elements, in any version.
pub(super) const SMALLEST_BROKER: usize = 10;
const SMALLEST_TOPIC: usize = 8;
const SMALLEST_PARTITION: usize = 18;

/// Asks for nothing in v0: a name that no topic can have. Brokers answer it with an error and do not
/// create it; it says in their logs what it is there for.
const NO_TOPIC: &str = "(version probe)";

/// Writes the body of a request about `topics`, and about the brokers in any case.
///
/// Up to v3 the broker alone decides whether asking creates a topic.
pub fn put_metadata_request(
    out: &mut Vec<u8>,
    version: i16,
    topics: &[&str],
    allow_auto_topic_creation: bool,
) {
    debug_assert!(VERSIONS.contains(&version));
    let form = ApiKey::Metadata.form(version);
    // An empty array asks for no topics, and null for all of them. In v0 there is no null, and it is
    // the empty array that asks for all of them.
    let topics = if version == 0 && topics.is_empty() { &[NO_TOPIC][..] } else { topics };
    out.put_array_len(form, topics.len());
    for topic in topics {
        if version >= 10 {
            // It is the name that is asked for: no topic has this id.
            out.put_uuid(Uuid::nil());
        }
        out.put_string(form, topic);
        out.put_no_tagged_fields(form);
    }
    if version >= DECLINES_TO_MAKE_TOPICS {
        out.put_bool(allow_auto_topic_creation);
    }
    if (8..=10).contains(&version) {
        out.put_bool(false); // the cluster's authorized operations
    }
    if version >= 8 {
        out.put_bool(false); // the topics' authorized operations
    }
    out.put_no_tagged_fields(form);
}

/// What a broker knows of the cluster. Nothing in it is checked against the rest of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataResponse {
    /// Of the whole answer, such as [`ErrorCode::REBOOTSTRAP_REQUIRED`]; none before v13.
    pub error: ErrorCode,
    /// How long the broker wants no more requests; 0 before v6.
    pub throttle_ms: i32,
    /// The brokers that are alive.
    pub brokers: Vec<BrokerMetadata>,
    /// The cluster's name for itself; none before v2.
    pub cluster_id: Option<String>,
    /// The controller's broker id, or -1, as always in v0.
    pub controller_id: i32,
    /// The topics that were asked for.
    pub topics: Vec<TopicMetadata>,
}

/// Where a broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerMetadata {
    /// Its number.
    pub id: i32,
    /// Name or address.
    pub host: String,
    /// TCP port, as sent.
    pub port: i32,
    /// Its rack, or availability zone; none in v0.
    pub rack: Option<String>,
}

/// A topic and its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Why nothing is known of the topic.
    pub error: ErrorCode,
    /// Its name; empty if the broker gave none.
    pub name: String,
    /// Its id; zeros before v10.
    pub id: Uuid,
    /// Its partitions, in any order.
    pub partitions: Vec<PartitionMetadata>,
}

/// A partition and its leader.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Such as [`ErrorCode::LEADER_NOT_AVAILABLE`].
    pub error: ErrorCode,
    /// The partition's number.
    pub index: i32,
    /// The leader's broker id, or -1.
    pub leader: i32,
    /// Counts the partition's leaders; -1 when unknown, as always before v7.
    pub leader_epoch: i32,
}

impl MetadataResponse {
    /// Reads the body of an answer to a request of this version, to its last byte.
    pub fn decode(version: i16, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.check_version(version, VERSIONS, "Metadata answer")?;
        let form = ApiKey::Metadata.form(version);
        let mut throttle_ms = if version >= 3 { reader.i32("throttle time")? } else { 0 };
        if version < THROTTLED_BY_CLIENT {
            throttle_ms = 0;
        }
        let brokers = reader.array(form, SMALLEST_BROKER, "brokers", |reader| {
            BrokerMetadata::decode(version >= 1, form, reader)
        })?;
        let cluster_id =
            if version >= 2 { reader.nullable_string(form, "cluster id")? } else { None };
        let controller_id = if version >= 1 { reader.i32("controller id")? } else { -1 };
        let topics = reader.array(form, SMALLEST_TOPIC, "topics", |reader| {
            TopicMetadata::decode(version, form, reader)
        })?;
        if (8..=10).contains(&version) {
            reader.i32("cluster's authorized operations")?;
        }
        let error =
            if version >= 13 { ErrorCode(reader.i16("error code")?) } else { ErrorCode::NONE };
        reader.skip_tagged_fields(form)?;
        reader.finish()?;
        Ok(Self { error, throttle_ms, brokers, cluster_id, controller_id, topics })
    }
}

impl BrokerMetadata {
    pub(super) fn decode(
        has_rack: bool,
        form: Form,
        reader: &mut Reader<'_>,
    ) -> Result<Self, DecodeError> {
        let broker = Self {
            id: reader.i32("broker id")?,
            host: reader.string(form, "broker host")?,
            port: reader.i32("broker port")?,
            rack: if has_rack { reader.nullable_string(form, "broker rack")? } else { None },
        };
        reader.skip_tagged_fields(form)?;
        Ok(broker)
    }
}

impl TopicMetadata {
    fn decode(version: i16, form: Form, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let error = ErrorCode(reader.i16("topic error code")?);
        // Only v12 and later may leave the name out, for an id that is unknown.
        let name = reader.nullable_string(form, "topic name")?.unwrap_or_default();
        let id = if version >= 10 { reader.uuid("topic id")? } else { Uuid::nil() };
        if version >= 1 {
            reader.i8("topic is internal")?;
        }
        let partitions = reader.array(form, SMALLEST_PARTITION, "partitions", |reader| {
            PartitionMetadata::decode(version, form, reader)
        })?;
        if version >= 8 {
            reader.i32("topic's authorized operations")?;
        }
        reader.skip_tagged_fields(form)?;
        Ok(Self { error, name, id, partitions })
    }
}

impl PartitionMetadata {
    fn decode(version: i16, form: Form, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let partition = Self {
            error: ErrorCode(reader.i16("partition error code")?),
            index: reader.i32("partition index")?,
            leader: reader.i32("leader id")?,
            leader_epoch: if version >= 7 { reader.i32("leader epoch")? } else { -1 },
        };
        reader.skip_array(form, 4, "replicas")?;
        reader.skip_array(form, 4, "in-sync replicas")?;
        if version >= 5 {
            reader.skip_array(form, 4, "offline replicas")?;
        }
        reader.skip_tagged_fields(form)?;
        Ok(partition)
    }
}
