//! What kafka-protocol encodes is decoded here to the same values, in every version.

use kafka_protocol::messages as theirs;
use proptest::prelude::*;

use super::oracle;
use crate::protocol::api_versions::{self, ApiRange, ApiVersionsResponse};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::header::{ApiKey, read_response_header};
use crate::protocol::init_producer_id::{self, InitProducerIdResponse};
use crate::protocol::metadata::{
    self, BrokerMetadata, MetadataResponse, PartitionMetadata, TopicMetadata,
};
use crate::protocol::primitives::Reader;
use crate::protocol::produce::{
    self, LeaderHint, ProduceResponse, ProducedPartition, ProducedTopic, ProducedTopicRef,
    RecordError,
};
use crate::protocol::record_batch::{BATCH_OVERHEAD, record_size_bound};
use crate::protocol::sasl::{self, SaslAuthenticateResponse, SaslHandshakeResponse};
use crate::record::Record;

proptest! {
    #[test]
    fn api_versions_answers_decode_to_what_was_encoded(
        (version, theirs) in api_versions::VERSIONS
            .prop_flat_map(|version| (Just(version), oracle::api_versions(version)))
    ) {
        let bytes = oracle::encode(&theirs, version);
        let ours = ApiVersionsResponse::decode(version, &mut Reader::new(&bytes));
        prop_assert_eq!(ours, Ok(expected_api_versions(&theirs)));
    }

    #[test]
    fn metadata_answers_decode_to_what_was_encoded(
        (version, theirs) in metadata::VERSIONS
            .prop_flat_map(|version| (Just(version), oracle::metadata(version)))
    ) {
        let bytes = oracle::encode(&theirs, version);
        let ours = MetadataResponse::decode(version, &mut Reader::new(&bytes));
        prop_assert_eq!(ours, Ok(expected_metadata(version, &theirs)));
    }

    #[test]
    fn init_producer_id_answers_decode_to_what_was_encoded(
        (version, theirs) in init_producer_id::VERSIONS
            .prop_flat_map(|version| (Just(version), oracle::init_producer_id(version)))
    ) {
        let bytes = oracle::encode(&theirs, version);
        let ours = InitProducerIdResponse::decode(version, &mut Reader::new(&bytes));
        let expected = InitProducerIdResponse {
            throttle_ms: if version >= 1 { theirs.throttle_time_ms } else { 0 },
            error: ErrorCode(theirs.error_code),
            producer_id: theirs.producer_id.0,
            epoch: theirs.producer_epoch,
        };
        prop_assert_eq!(ours, Ok(expected));
    }

    #[test]
    fn sasl_handshake_answers_decode_to_what_was_encoded(
        (version, theirs) in sasl::HANDSHAKE_VERSIONS
            .prop_flat_map(|version| (Just(version), oracle::sasl_handshake(version)))
    ) {
        let bytes = oracle::encode(&theirs, version);
        let ours = SaslHandshakeResponse::decode(version, &mut Reader::new(&bytes));
        let expected = SaslHandshakeResponse {
            error: ErrorCode(theirs.error_code),
            mechanisms: theirs.mechanisms.iter().map(|name| name.to_string()).collect(),
        };
        prop_assert_eq!(ours, Ok(expected));
    }

    #[test]
    fn sasl_authenticate_answers_decode_to_what_was_encoded(
        (version, theirs) in sasl::AUTHENTICATE_VERSIONS
            .prop_flat_map(|version| (Just(version), oracle::sasl_authenticate(version)))
    ) {
        let bytes = oracle::encode(&theirs, version);
        let ours = SaslAuthenticateResponse::decode(version, &mut Reader::new(&bytes));
        let expected = SaslAuthenticateResponse {
            error: ErrorCode(theirs.error_code),
            message: theirs.error_message.as_ref().map(|text| text.to_string()),
            token: theirs.auth_bytes.to_vec(),
            session_lifetime_ms: theirs.session_lifetime_ms,
        };
        prop_assert_eq!(ours, Ok(expected));
    }

    #[test]
    fn produce_answers_decode_to_what_was_encoded(
        (version, theirs) in produce::VERSIONS
            .prop_flat_map(|version| (Just(version), oracle::produce(version)))
    ) {
        let bytes = oracle::encode_produce(&theirs, version);
        let ours = ProduceResponse::decode(version, &mut Reader::new(&bytes));
        prop_assert_eq!(ours, Ok(expected_produce(version, &theirs)));
    }

    #[test]
    fn response_headers_decode_to_the_correlation_id(
        correlation_id in any::<i32>(),
        unknown in proptest::collection::vec(any::<u8>(), 0..5),
    ) {
        for (api, versions) in APIS {
            for version in versions {
                let header_version = their_key(api).response_header_version(version);
                let mut header = theirs::ResponseHeader::default()
                    .with_correlation_id(correlation_id);
                if header_version >= 1 {
                    header = header.with_unknown_tagged_field(3, unknown.clone().into());
                }
                let bytes = oracle::encode(&header, header_version);
                let mut reader = Reader::new(&bytes);
                prop_assert_eq!(
                    read_response_header(&mut reader, api, version),
                    Ok(correlation_id)
                );
                prop_assert_eq!(reader.finish(), Ok(()));
            }
        }
    }
}

#[test]
fn arrays_of_the_smallest_elements_there_can_be_are_read() {
    const MANY: usize = 400;
    for version in api_versions::VERSIONS {
        let theirs =
            theirs::ApiVersionsResponse::default().with_api_keys(vec![Default::default(); MANY]);
        let bytes = oracle::encode(&theirs, version);
        let ours = ApiVersionsResponse::decode(version, &mut Reader::new(&bytes));
        assert_eq!(ours, Ok(expected_api_versions(&theirs)), "version {version}");
    }
    for version in metadata::VERSIONS {
        let partitions = theirs::metadata_response::MetadataResponseTopic::default()
            .with_partitions(vec![Default::default(); MANY]);
        for theirs in [
            theirs::MetadataResponse::default().with_brokers(vec![Default::default(); MANY]),
            theirs::MetadataResponse::default().with_topics(vec![Default::default(); MANY]),
            theirs::MetadataResponse::default().with_topics(vec![partitions]),
        ] {
            let bytes = oracle::encode(&theirs, version);
            let ours = MetadataResponse::decode(version, &mut Reader::new(&bytes));
            assert_eq!(ours, Ok(expected_metadata(version, &theirs)), "version {version}");
        }
    }
    for version in produce::VERSIONS {
        use theirs::produce_response::{PartitionProduceResponse, TopicProduceResponse};
        let mut partition = PartitionProduceResponse::default();
        if version >= 8 {
            partition = partition.with_record_errors(vec![Default::default(); MANY]);
        }
        let mut answers = vec![
            vec![TopicProduceResponse::default(); MANY],
            vec![
                TopicProduceResponse::default()
                    .with_partition_responses(vec![Default::default(); MANY]),
            ],
            vec![TopicProduceResponse::default().with_partition_responses(vec![partition])],
        ]
        .into_iter()
        .map(|topics| theirs::ProduceResponse::default().with_responses(topics))
        .collect::<Vec<_>>();
        if version >= 10 {
            let endpoints = vec![Default::default(); MANY];
            answers.push(theirs::ProduceResponse::default().with_node_endpoints(endpoints));
        }
        for theirs in answers {
            let bytes = oracle::encode_produce(&theirs, version);
            let ours = ProduceResponse::decode(version, &mut Reader::new(&bytes));
            assert_eq!(ours, Ok(expected_produce(version, &theirs)), "version {version}");
        }
    }
}

#[test]
fn an_api_versions_request_that_is_too_new_is_answered_in_the_v0_form() {
    let theirs = theirs::ApiVersionsResponse::default().with_error_code(35).with_api_keys(vec![
        theirs::api_versions_response::ApiVersion::default().with_api_key(18).with_max_version(2),
    ]);
    let bytes = oracle::encode(&theirs, 0);
    for asked in api_versions::VERSIONS {
        let ours = ApiVersionsResponse::decode(asked, &mut Reader::new(&bytes)).unwrap();
        assert_eq!(ours.error, ErrorCode::UNSUPPORTED_VERSION);
        assert_eq!(ours.ranges, [ApiRange { key: 18, min: 0, max: 2 }]);
    }

    let empty_list = [0, 35, 0, 0, 0, 0];
    let ours = ApiVersionsResponse::decode(3, &mut Reader::new(&empty_list)).unwrap();
    assert_eq!(ours.error, ErrorCode::UNSUPPORTED_VERSION);
    assert!(ours.ranges.is_empty());
}

#[test]
fn a_leader_the_broker_does_not_know_is_no_hint() {
    use theirs::produce_response::{
        LeaderIdAndEpoch, PartitionProduceResponse, TopicProduceResponse,
    };
    let unknown = LeaderIdAndEpoch::default().with_leader_epoch(5);
    let partition = PartitionProduceResponse::default().with_current_leader(unknown);
    let topic = TopicProduceResponse::default().with_partition_responses(vec![partition]);
    let theirs = theirs::ProduceResponse::default().with_responses(vec![topic]);
    let bytes = oracle::encode(&theirs, 10);
    let ours = ProduceResponse::decode(10, &mut Reader::new(&bytes)).unwrap();
    assert_eq!(ours.topics[0].partitions[0].current_leader, None);
}

#[test]
fn answers_for_as_many_partitions_as_a_request_can_hold_are_read() {
    use theirs::produce_response::{PartitionProduceResponse, TopicProduceResponse};
    // The smallest record in the smallest batch, in a request of 1 MiB.
    let most = (1 << 20) / (BATCH_OVERHEAD + record_size_bound(&Record::new(0, None, None)));
    let topic = |name: String, partitions| {
        TopicProduceResponse::default()
            .with_name(theirs::TopicName(name.into()))
            .with_partition_responses(vec![PartitionProduceResponse::default(); partitions])
    };
    let one_topic = vec![topic("t".into(), most)];
    let many_topics: Vec<_> = (0..most).map(|index| topic(format!("{index:03x}"), 1)).collect();
    for topics in [one_topic, many_topics] {
        for version in produce::VERSIONS {
            let mut theirs = theirs::ProduceResponse::default().with_responses(topics.clone());
            if version >= 13 {
                theirs.responses.iter_mut().for_each(|topic| topic.name = Default::default());
            }
            let bytes = oracle::encode_produce(&theirs, version);
            let ours = ProduceResponse::decode(version, &mut Reader::new(&bytes)).map(drop);
            assert_eq!(ours, Ok(()), "version {version}");
        }
    }
}

#[test]
fn the_versions_decoded_here_exist() {
    for (api, versions) in APIS {
        let theirs = their_key(api).valid_versions();
        // The schemas of Kafka 4 have forgotten the versions of Produce that only older brokers take.
        let lowest = if api == ApiKey::Produce { 0 } else { theirs.min };
        assert!(*versions.start() >= lowest && *versions.end() <= theirs.max, "{api:?}");
    }
}

const APIS: [(ApiKey, std::ops::RangeInclusive<i16>); 6] = [
    (ApiKey::Produce, produce::VERSIONS),
    (ApiKey::Metadata, metadata::VERSIONS),
    (ApiKey::ApiVersions, api_versions::VERSIONS),
    (ApiKey::InitProducerId, init_producer_id::VERSIONS),
    (ApiKey::SaslHandshake, sasl::HANDSHAKE_VERSIONS),
    (ApiKey::SaslAuthenticate, sasl::AUTHENTICATE_VERSIONS),
];

fn their_key(api: ApiKey) -> theirs::ApiKey {
    theirs::ApiKey::try_from(api.code()).expect("a key of Kafka's")
}

fn expected_api_versions(theirs: &theirs::ApiVersionsResponse) -> ApiVersionsResponse {
    let ranges = theirs.api_keys.iter().map(|range| ApiRange {
        key: range.api_key,
        min: range.min_version,
        max: range.max_version,
    });
    ApiVersionsResponse {
        error: ErrorCode(theirs.error_code),
        ranges: ranges.collect(),
        throttle_ms: theirs.throttle_time_ms,
    }
}

fn expected_metadata(version: i16, theirs: &theirs::MetadataResponse) -> MetadataResponse {
    let brokers = theirs.brokers.iter().map(|broker| BrokerMetadata {
        id: broker.node_id.0,
        host: broker.host.to_string(),
        port: broker.port,
        rack: broker.rack.as_deref().map(str::to_owned),
    });
    let topics = theirs.topics.iter().map(|topic| TopicMetadata {
        error: ErrorCode(topic.error_code),
        name: topic.name.as_ref().map(|name| name.0.to_string()).unwrap_or_default(),
        id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|partition| PartitionMetadata {
                error: ErrorCode(partition.error_code),
                index: partition.partition_index,
                leader: partition.leader_id.0,
                leader_epoch: partition.leader_epoch,
            })
            .collect(),
    });
    MetadataResponse {
        error: ErrorCode(theirs.error_code),
        // Before that the broker has paused already.
        throttle_ms: if version >= 6 { theirs.throttle_time_ms } else { 0 },
        brokers: brokers.collect(),
        cluster_id: theirs.cluster_id.as_deref().map(str::to_owned),
        controller_id: theirs.controller_id.0,
        topics: topics.collect(),
    }
}

fn expected_produce(version: i16, theirs: &theirs::ProduceResponse) -> ProduceResponse {
    let topics = theirs.responses.iter().map(|topic| ProducedTopic {
        topic: if version >= 13 {
            ProducedTopicRef::Id(topic.topic_id)
        } else {
            ProducedTopicRef::Name(topic.name.0.to_string())
        },
        partitions: topic.partition_responses.iter().map(expected_partition).collect(),
    });
    let node_endpoints = theirs.node_endpoints.iter().map(|endpoint| BrokerMetadata {
        id: endpoint.node_id.0,
        host: endpoint.host.to_string(),
        port: endpoint.port,
        rack: endpoint.rack.as_deref().map(str::to_owned),
    });
    ProduceResponse {
        throttle_ms: if version >= 6 { theirs.throttle_time_ms } else { 0 },
        topics: topics.collect(),
        node_endpoints: node_endpoints.collect(),
    }
}

fn expected_partition(
    theirs: &theirs::produce_response::PartitionProduceResponse,
) -> ProducedPartition {
    let record_errors = theirs.record_errors.iter().map(|error| RecordError {
        batch_index: error.batch_index,
        message: error.batch_index_error_message.as_deref().map(Box::from),
    });
    let leader = &theirs.current_leader;
    ProducedPartition {
        index: theirs.index,
        error: ErrorCode(theirs.error_code),
        base_offset: theirs.base_offset,
        log_append_time_ms: theirs.log_append_time_ms,
        error_message: theirs.error_message.as_deref().map(str::to_owned),
        record_errors: record_errors.collect(),
        current_leader: (leader.leader_id.0 >= 0)
            .then_some(LeaderHint { id: leader.leader_id.0, epoch: leader.leader_epoch }),
    }
}
