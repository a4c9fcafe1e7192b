//! Valid answers of any content, as kafka-protocol encodes them, and Produce below v3, which it does
//! not know, from the protocol's guide.

use kafka_protocol::messages::api_versions_response::{ApiVersion, SupportedFeatureKey};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, InitProducerIdResponse, MetadataResponse, ProduceResponse,
    ProducerId, SaslAuthenticateResponse, SaslHandshakeResponse, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// A tag that no message uses.
const UNKNOWN_TAG: i32 = 99;

pub fn encode(message: &impl Encodable, version: i16) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes, version).expect("the strategies fit the version");
    bytes
}

/// Below v3 answers to Produce are those of v3 without the fields that came later: the time of append
/// in v0 and v1, the throttle time in v0.
pub fn encode_produce(answer: &ProduceResponse, version: i16) -> Vec<u8> {
    if version >= 3 {
        return encode(answer, version);
    }
    let count = |out: &mut Vec<u8>, len: usize| out.extend((len as i32).to_be_bytes());
    let mut out = Vec::new();
    count(&mut out, answer.responses.len());
    for topic in &answer.responses {
        out.extend((topic.name.len() as i16).to_be_bytes());
        out.extend(topic.name.as_bytes());
        count(&mut out, topic.partition_responses.len());
        for partition in &topic.partition_responses {
            out.extend(partition.index.to_be_bytes());
            out.extend(partition.error_code.to_be_bytes());
            out.extend(partition.base_offset.to_be_bytes());
            if version >= 2 {
                out.extend(partition.log_append_time_ms.to_be_bytes());
            }
        }
    }
    if version >= 1 {
        out.extend(answer.throttle_time_ms.to_be_bytes());
    }
    out
}

pub fn api_versions(version: i16) -> BoxedStrategy<ApiVersionsResponse> {
    let ranges = vec((any::<(i16, i16, i16)>(), unknown_field(version >= 3)), 0..5);
    let features = vec((text(), any::<(i16, i16)>()), 0..3);
    (error_code_but_35(), ranges, since(version, 1, 0), features, unknown_field(version >= 3))
        .prop_map(move |(error, ranges, throttle, features, unknown)| {
            let ranges = ranges.into_iter().map(|((key, min, max), unknown)| {
                let range = ApiVersion::default()
                    .with_api_key(key)
                    .with_min_version(min)
                    .with_max_version(max);
                match unknown {
                    Some(bytes) => range.with_unknown_tagged_field(UNKNOWN_TAG, bytes.into()),
                    None => range,
                }
            });
            let mut answer = ApiVersionsResponse::default()
                .with_error_code(error)
                .with_api_keys(ranges.collect())
                .with_throttle_time_ms(throttle);
            if version >= 3 {
                let features = features.into_iter().map(|(name, (min, max))| {
                    SupportedFeatureKey::default()
                        .with_name(name)
                        .with_min_version(min)
                        .with_max_version(max)
                });
                answer = answer.with_supported_features(features.collect());
            }
            match unknown {
                Some(bytes) => answer.with_unknown_tagged_field(UNKNOWN_TAG, bytes.into()),
                None => answer,
            }
        })
        .boxed()
}

pub fn init_producer_id(version: i16) -> BoxedStrategy<InitProducerIdResponse> {
    (any::<(i32, i16, i64, i16)>(), unknown_field(version >= 2))
        .prop_map(|((throttle, error, id, epoch), unknown)| {
            let answer = InitProducerIdResponse::default()
                .with_throttle_time_ms(throttle)
                .with_error_code(error)
                .with_producer_id(ProducerId(id))
                .with_producer_epoch(epoch);
            match unknown {
                Some(bytes) => answer.with_unknown_tagged_field(UNKNOWN_TAG, bytes.into()),
                None => answer,
            }
        })
        .boxed()
}

pub fn sasl_handshake(_: i16) -> BoxedStrategy<SaslHandshakeResponse> {
    (any::<i16>(), vec(text(), 0..5))
        .prop_map(|(error, mechanisms)| {
            SaslHandshakeResponse::default().with_error_code(error).with_mechanisms(mechanisms)
        })
        .boxed()
}

pub fn sasl_authenticate(version: i16) -> BoxedStrategy<SaslAuthenticateResponse> {
    let token = vec(any::<u8>(), 0..40);
    let head = (any::<i16>(), option::of(text()), token, since(version, 1, 0));
    (head, unknown_field(version >= 2))
        .prop_map(|((error, message, token, lifetime), unknown)| {
            let answer = SaslAuthenticateResponse::default()
                .with_error_code(error)
                .with_error_message(message)
                .with_auth_bytes(token.into())
                .with_session_lifetime_ms(lifetime);
            match unknown {
                Some(bytes) => answer.with_unknown_tagged_field(UNKNOWN_TAG, bytes.into()),
                None => answer,
            }
        })
        .boxed()
}

pub fn metadata(version: i16) -> BoxedStrategy<MetadataResponse> {
    let head =
        (since(version, 3, 0), option::of(text()), since(version, 1, -1), since(version, 13, 0));
    let brokers = vec(broker(version), 0..4);
    let topics = vec(topic(version), 0..4);
    (head, brokers, topics, unknown_field(version >= 9))
        .prop_map(move |((throttle, cluster, controller, error), brokers, topics, unknown)| {
            let answer = MetadataResponse::default()
                .with_throttle_time_ms(throttle)
                .with_cluster_id(cluster.filter(|_| version >= 2))
                .with_controller_id(BrokerId(controller))
                .with_brokers(brokers)
                .with_topics(topics)
                .with_error_code(error);
            match unknown {
                Some(bytes) => answer.with_unknown_tagged_field(UNKNOWN_TAG, bytes.into()),
                None => answer,
            }
        })
        .boxed()
}

fn broker(version: i16) -> impl Strategy<Value = MetadataResponseBroker> {
    (any::<(i32, i32)>(), text(), option::of(text()), unknown_field(version >= 9)).prop_map(
        move |((id, port), host, rack, unknown)| {
            let broker = MetadataResponseBroker::default()
                .with_node_id(BrokerId(id))
                .with_host(host)
                .with_port(port)
                .with_rack(rack.filter(|_| version >= 1));
            match unknown {
                Some(bytes) => broker.with_unknown_tagged_field(UNKNOWN_TAG, bytes.into()),
                None => broker,
            }
        },
    )
}

fn topic(version: i16) -> impl Strategy<Value = MetadataResponseTopic> {
    let partitions = vec(metadata_partition(version), 0..5);
    let head = (any::<(i16, bool)>(), option::of(text()), any::<[u8; 16]>());
    (head, partitions, unknown_field(version >= 9)).prop_map(
        move |(((error, internal), name, id), partitions, unknown)| {
            let name = if version >= 12 { name } else { Some(name.unwrap_or_default()) };
            let mut topic = MetadataResponseTopic::default()
                .with_error_code(error)
                .with_name(name.map(TopicName))
                .with_is_internal(internal)
                .with_partitions(partitions);
            if version >= 10 {
                topic = topic.with_topic_id(id.to_vec().try_into().expect("16 bytes"));
            }
            match unknown {
                Some(bytes) => topic.with_unknown_tagged_field(UNKNOWN_TAG, bytes.into()),
                None => topic,
            }
        },
    )
}

fn metadata_partition(version: i16) -> impl Strategy<Value = MetadataResponsePartition> {
    let brokers = || vec(any::<i32>().prop_map(BrokerId), 0..4);
    let head = (any::<i16>(), any::<i32>(), any::<i32>(), since(version, 7, -1));
    (head, (brokers(), brokers(), brokers()), unknown_field(version >= 9)).prop_map(
        move |((error, index, leader, epoch), (replicas, in_sync, offline), unknown)| {
            let mut partition = MetadataResponsePartition::default()
                .with_error_code(error)
                .with_partition_index(index)
                .with_leader_id(BrokerId(leader))
                .with_leader_epoch(epoch)
                .with_replica_nodes(replicas)
                .with_isr_nodes(in_sync);
            if version >= 5 {
                partition = partition.with_offline_replicas(offline);
            }
            match unknown {
                Some(bytes) => partition.with_unknown_tagged_field(UNKNOWN_TAG, bytes.into()),
                None => partition,
            }
        },
    )
}

pub fn produce(version: i16) -> BoxedStrategy<ProduceResponse> {
    let topics = vec(produced_topic(version), 0..4);
    let endpoints = vec((any::<(i32, i32)>(), text(), option::of(text())), 0..3);
    (since(version, 1, 0), topics, endpoints, unknown_field(version >= 9))
        .prop_map(move |(throttle, topics, endpoints, unknown)| {
            let mut answer =
                ProduceResponse::default().with_throttle_time_ms(throttle).with_responses(topics);
            if version >= 10 {
                let endpoints = endpoints.into_iter().map(|((id, port), host, rack)| {
                    NodeEndpoint::default()
                        .with_node_id(BrokerId(id))
                        .with_host(host)
                        .with_port(port)
                        .with_rack(rack)
                });
                answer = answer.with_node_endpoints(endpoints.collect());
            }
            match unknown {
                Some(bytes) => answer.with_unknown_tagged_field(UNKNOWN_TAG, bytes.into()),
                None => answer,
            }
        })
        .boxed()
}

fn produced_topic(version: i16) -> impl Strategy<Value = TopicProduceResponse> {
    let partitions = vec(produced_partition(version), 0..4);
    (text(), any::<[u8; 16]>(), partitions, unknown_field(version >= 9)).prop_map(
        move |(name, id, partitions, unknown)| {
            let topic = TopicProduceResponse::default().with_partition_responses(partitions);
            let topic = if version >= 13 {
                topic.with_topic_id(id.to_vec().try_into().expect("16 bytes"))
            } else {
                topic.with_name(TopicName(name))
            };
            match unknown {
                Some(bytes) => topic.with_unknown_tagged_field(UNKNOWN_TAG, bytes.into()),
                None => topic,
            }
        },
    )
}

fn produced_partition(version: i16) -> impl Strategy<Value = PartitionProduceResponse> {
    let numbers = (any::<(i32, i16, i64)>(), since(version, 2, -1), any::<i64>());
    let record_errors = vec((any::<i32>(), option::of(text())), 0..4);
    let leader = option::of(any::<(i32, i32)>());
    (numbers, record_errors, option::of(text()), leader, unknown_field(version >= 9)).prop_map(
        move |(numbers, record_errors, message, leader, unknown)| {
            let ((index, error, base_offset), append_time, start_offset) = numbers;
            let mut partition = PartitionProduceResponse::default()
                .with_index(index)
                .with_error_code(error)
                .with_base_offset(base_offset)
                .with_log_append_time_ms(append_time);
            if version >= 5 {
                partition = partition.with_log_start_offset(start_offset);
            }
            if version >= 8 {
                let record_errors = record_errors.into_iter().map(|(index, message)| {
                    BatchIndexAndErrorMessage::default()
                        .with_batch_index(index)
                        .with_batch_index_error_message(message)
                });
                partition = partition
                    .with_record_errors(record_errors.collect())
                    .with_error_message(message);
            }
            if let Some((id, epoch)) = leader.filter(|_| version >= 10) {
                partition = partition.with_current_leader(
                    LeaderIdAndEpoch::default()
                        .with_leader_id(BrokerId(id))
                        .with_leader_epoch(epoch),
                );
            }
            match unknown {
                Some(bytes) => partition.with_unknown_tagged_field(UNKNOWN_TAG, bytes.into()),
                None => partition,
            }
        },
    )
}

fn text() -> impl Strategy<Value = StrBytes> {
    ".{0,12}".prop_map(StrBytes::from_string)
}

/// Content of a tagged field that the schema does not know, where there can be one.
fn unknown_field(flexible: bool) -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(vec(any::<u8>(), 0..6)).prop_map(move |bytes| bytes.filter(|_| flexible))
}

/// Any number from `first` version on, and the schema's default before it.
fn since<T>(version: i16, first: i16, default: T) -> BoxedStrategy<T>
where
    T: Arbitrary + Clone + 'static,
{
    if version >= first { any::<T>().boxed() } else { Just(default).boxed() }
}

/// Error 35 changes an ApiVersions answer's form and has tests of its own.
fn error_code_but_35() -> impl Strategy<Value = i16> {
    any::<i16>().prop_filter("35 is answered in v0", |&code| code != 35)
}
