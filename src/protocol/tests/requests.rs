//! What is encoded here is decoded by kafka-protocol to the same values, in every version. Produce
//! below v3, which it does not know, has one field less than v3.

use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::Decodable;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::protocol::api_versions::{self, put_api_versions_request};
use crate::protocol::header::{ApiKey, finish_frame, put_request_header};
use crate::protocol::init_producer_id::{self, put_init_producer_id_request};
use crate::protocol::metadata::{self, put_metadata_request};
use crate::protocol::produce::{self, ProduceEncoder, TopicRef};
use crate::protocol::sasl::{self, put_sasl_authenticate_request, put_sasl_handshake_request};
use crate::topic_name;
use uuid::Uuid;

/// What is in the buffer before a request, and must not change.
const BEFORE: &[u8] = b"before";

/// A partition's index, its records, and the hint of their size.
type Partition = (i32, Vec<u8>, usize);

proptest! {
    #[test]
    fn api_versions_requests_decode_to_what_was_asked(
        version in api_versions::VERSIONS,
        correlation_id in any::<i32>(),
        client_id in ".{0,20}",
    ) {
        let mut out = BEFORE.to_vec();
        let start = put_request_header(
            &mut out, ApiKey::ApiVersions, version, correlation_id, &client_id,
        );
        put_api_versions_request(&mut out, version);
        finish_frame(&mut out, start);

        let request: theirs::ApiVersionsRequest =
            decode(&out, theirs::ApiKey::ApiVersions, version, correlation_id, &client_id);
        if version >= 3 {
            prop_assert_eq!(&*request.client_software_name, "lkfk");
            prop_assert_eq!(&*request.client_software_version, env!("CARGO_PKG_VERSION"));
        }
    }

    #[test]
    fn metadata_requests_decode_to_what_was_asked(
        version in metadata::VERSIONS,
        correlation_id in any::<i32>(),
        client_id in ".{0,20}",
        topics in vec("[a-zA-Z0-9._-]{1,249}", 0..5),
        auto_create in any::<bool>(),
    ) {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let mut out = BEFORE.to_vec();
        let start =
            put_request_header(&mut out, ApiKey::Metadata, version, correlation_id, &client_id);
        put_metadata_request(&mut out, version, &names, auto_create);
        finish_frame(&mut out, start);

        let request: theirs::MetadataRequest =
            decode(&out, theirs::ApiKey::Metadata, version, correlation_id, &client_id);
        let asked = request.topics.expect("null would ask for all topics");
        let asked_names: Vec<&str> =
            asked.iter().map(|topic| &*topic.name.as_ref().expect("by name").0).collect();
        if version == 0 && names.is_empty() {
            // An empty list would ask for all topics.
            prop_assert_eq!(asked_names.len(), 1);
            prop_assert!(!topic_name::is_valid(asked_names[0]), "{:?}", asked_names);
        } else {
            prop_assert_eq!(asked_names, names);
        }
        prop_assert!(asked.iter().all(|topic| topic.topic_id.is_nil()));
        prop_assert_eq!(request.allow_auto_topic_creation, auto_create || version < 4);
        prop_assert!(!request.include_cluster_authorized_operations);
        prop_assert!(!request.include_topic_authorized_operations);
    }

    #[test]
    fn init_producer_id_requests_decode_to_the_wish_for_a_new_id(
        version in init_producer_id::VERSIONS,
        correlation_id in any::<i32>(),
        client_id in ".{0,20}",
    ) {
        let mut out = BEFORE.to_vec();
        let start = put_request_header(
            &mut out, ApiKey::InitProducerId, version, correlation_id, &client_id,
        );
        put_init_producer_id_request(&mut out, version);
        finish_frame(&mut out, start);

        let request: theirs::InitProducerIdRequest =
            decode(&out, theirs::ApiKey::InitProducerId, version, correlation_id, &client_id);
        prop_assert_eq!(request.transactional_id, None);
        prop_assert_eq!((request.producer_id.0, request.producer_epoch), (-1, -1));
    }

    #[test]
    fn sasl_handshake_requests_decode_to_the_mechanism(
        version in sasl::HANDSHAKE_VERSIONS,
        correlation_id in any::<i32>(),
        mechanism in "[A-Z0-9-]{1,20}",
    ) {
        let mut out = BEFORE.to_vec();
        let start =
            put_request_header(&mut out, ApiKey::SaslHandshake, version, correlation_id, "me");
        put_sasl_handshake_request(&mut out, &mechanism);
        finish_frame(&mut out, start);

        let request: theirs::SaslHandshakeRequest =
            decode(&out, theirs::ApiKey::SaslHandshake, version, correlation_id, "me");
        prop_assert_eq!(&*request.mechanism, &*mechanism);
    }

    #[test]
    fn sasl_authenticate_requests_decode_to_the_token(
        version in sasl::AUTHENTICATE_VERSIONS,
        correlation_id in any::<i32>(),
        token in vec(any::<u8>(), 0..300),
    ) {
        let mut out = BEFORE.to_vec();
        let start =
            put_request_header(&mut out, ApiKey::SaslAuthenticate, version, correlation_id, "me");
        put_sasl_authenticate_request(&mut out, version, &token);
        finish_frame(&mut out, start);

        let request: theirs::SaslAuthenticateRequest =
            decode(&out, theirs::ApiKey::SaslAuthenticate, version, correlation_id, "me");
        prop_assert_eq!(&*request.auth_bytes, &*token);
    }

    #[test]
    fn produce_requests_decode_to_what_was_sent(
        version in produce::VERSIONS,
        correlation_id in any::<i32>(),
        client_id in ".{0,20}",
        acks in -1i16..=1,
        timeout_ms in any::<i32>(),
        topics in vec(("[a-zA-Z0-9._-]{1,30}", any::<[u8; 16]>(), partitions()), 0..4),
    ) {
        let mut out = BEFORE.to_vec();
        let mut encoder = ProduceEncoder::begin(
            &mut out, version, correlation_id, &client_id, acks, timeout_ms, topics.len(),
        );
        for (name, id, partitions) in &topics {
            encoder.topic(TopicRef { name, id: Uuid::from_bytes(*id) }, partitions.len());
            for (index, records, hint) in partitions {
                let written = encoder.partition(*index, *hint, |out| {
                    out.extend_from_slice(records);
                    records.len()
                });
                prop_assert_eq!(written, records.len());
            }
        }
        encoder.finish();

        let (out, version) =
            if version < 3 { (as_produce_v3(&out), 3) } else { (out, version) };
        let request: theirs::ProduceRequest =
            decode(&out, theirs::ApiKey::Produce, version, correlation_id, &client_id);
        prop_assert_eq!(request.transactional_id, None);
        prop_assert_eq!(request.acks, acks);
        prop_assert_eq!(request.timeout_ms, timeout_ms);
        prop_assert_eq!(request.topic_data.len(), topics.len());
        for (sent, (name, id, partitions)) in request.topic_data.iter().zip(&topics) {
            if version >= 13 {
                prop_assert_eq!(sent.topic_id.as_bytes(), id);
            } else {
                prop_assert_eq!(&*sent.name.0, name.as_str());
            }
            prop_assert_eq!(sent.partition_data.len(), partitions.len());
            for (sent, (index, records, _)) in sent.partition_data.iter().zip(partitions) {
                prop_assert_eq!(sent.index, *index);
                prop_assert_eq!(sent.records.as_deref(), Some(&records[..]));
            }
        }
    }
}

#[test]
fn a_wrong_hint_of_the_size_costs_only_a_move() {
    // Sizes on both sides of where the length on the wire grows by a byte.
    let sizes = [0, 1, 126, 127, 128, 16_382, 16_383, 16_384, 2_097_150, 2_097_151];
    for version in [9, 13] {
        for size in sizes {
            let mut exact = Vec::new();
            put_one_partition(&mut exact, version, size, size);
            for hint in sizes.into_iter().chain([usize::MAX, u32::MAX as usize]) {
                let mut out = Vec::new();
                put_one_partition(&mut out, version, size, hint);
                assert!(out == exact, "version {version}, size {size}, hint {hint}");
            }
        }
    }
}

#[test]
#[should_panic = "lacks partitions"]
#[cfg(debug_assertions)]
fn a_broken_promise_of_partitions_is_noticed() {
    let mut out = Vec::new();
    let mut encoder = ProduceEncoder::begin(&mut out, 9, 0, "", -1, 0, 1);
    encoder.topic(TopicRef { name: "t", id: Uuid::nil() }, 1);
    encoder.finish();
}

#[test]
#[should_panic = "fewer topics than promised"]
#[cfg(debug_assertions)]
fn a_broken_promise_of_topics_is_noticed() {
    let mut out = Vec::new();
    ProduceEncoder::begin(&mut out, 9, 0, "", -1, 0, 1).finish();
}

fn put_one_partition(out: &mut Vec<u8>, version: i16, size: usize, hint: usize) {
    let mut encoder = ProduceEncoder::begin(out, version, 1, "client", -1, 1000, 1);
    encoder.topic(TopicRef { name: "topic", id: Uuid::from_bytes([7; 16]) }, 1);
    encoder.partition(0, hint, |out| out.resize(out.len() + size, 0xab));
    encoder.finish();
}

fn partitions() -> impl Strategy<Value = Vec<Partition>> {
    let records = vec(any::<u8>(), 0..300);
    vec((any::<i32>(), records, 0usize..40_000), 0..4)
}

/// A Produce request of v0 to v2 as one of v3, which has a transactional id in front.
fn as_produce_v3(out: &[u8]) -> Vec<u8> {
    let mut frame = out.strip_prefix(BEFORE).expect("what was there stays there").to_vec();
    let client_id_len = u16::from_be_bytes([frame[12], frame[13]]);
    let body_at = 14 + usize::from(client_id_len);
    frame.splice(body_at..body_at, (-1i16).to_be_bytes());
    let size = frame.len() as i32 - 4;
    frame[..4].copy_from_slice(&size.to_be_bytes());
    frame[6..8].copy_from_slice(&3i16.to_be_bytes());
    [BEFORE, &frame].concat()
}

/// Takes a frame apart and checks what all requests have in common.
fn decode<T: Decodable>(
    out: &[u8],
    api: theirs::ApiKey,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) -> T {
    let frame = out.strip_prefix(BEFORE).expect("what was there stays there");
    let (size, mut rest) = frame.split_at(4);
    assert_eq!(i32::from_be_bytes(size.try_into().unwrap()), rest.len() as i32);

    let header_version = api.request_header_version(version);
    let header = theirs::RequestHeader::decode(&mut rest, header_version).unwrap();
    assert_eq!(header.request_api_key, api as i16);
    assert_eq!(header.request_api_version, version);
    assert_eq!(header.correlation_id, correlation_id);
    assert_eq!(header.client_id.as_deref(), Some(client_id));
    assert!(header.unknown_tagged_fields.is_empty());

    let request = T::decode(&mut rest, version).unwrap();
    assert!(rest.is_empty(), "{} bytes left over", rest.len());
    request
}
