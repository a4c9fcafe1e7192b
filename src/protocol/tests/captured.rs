//! What real brokers sent and stored: Kafka 0.8.2.2, 0.9.0.1, 0.10.2.2. librdkafka had produced three
//! records to each: k1 = first, null = second, empty = third.

use super::message_reader;
use crate::protocol::api_versions::Versions;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::header::{ApiKey, read_response_header};
use crate::protocol::message_set::{MessageFormat, MessageSetEncoder};
use crate::protocol::metadata::MetadataResponse;
use crate::protocol::primitives::{DecodeError, Reader};
use crate::protocol::produce::{ProduceResponse, ProducedTopicRef};
use crate::record::Record;
use uuid::Uuid;

/// From an answer to Fetch v0 of 0.8.2.2.
const STORED_IN_0_8: &str = "
    0000000000000000 00000015 d58e1fa1 00 00 00000002 6b31 00000005 6669727374
    0000000000000001 00000014 a6f2489d 00 00 ffffffff 00000006 7365636f6e64
    0000000000000002 00000013 650e452d 00 00 00000000 00000005 7468697264";

/// From an answer to Fetch v2 of 0.10.2.2.
const STORED_IN_0_10: &str = "
    0000000000000000 0000001d 4bc6d1c2 01 00 000001a20536a554 00000002 6b31 00000005 6669727374
    0000000000000001 0000001c 0c5fe2f6 01 00 000001a20536a96a ffffffff 00000006 7365636f6e64
    0000000000000002 0000001b 3955ac59 01 00 000001a20536a97b 00000000 00000005 7468697264";

/// Topic `cap` of three partitions; also what 0.10.2.2 answers, but for the port.
const METADATA_V0_OF_0_8: &str = "00000001
    00000001 00000001 0009 3132372e302e302e31 000042cd
    00000001 0000 0003 636170 00000003
    0000 00000002 00000001 00000001 00000001 00000001 00000001
    0000 00000001 00000001 00000001 00000001 00000001 00000001
    0000 00000000 00000001 00000001 00000001 00000001 00000001";

/// The answers to a name that no topic can have: error 17, and 0.8 forgets its brokers over it.
const NO_TOPIC_IN_0_8: &str = "00000007
    00000000
    00000001 0011 000f 2876657273696f6e2070726f626529 00000000";
const NO_TOPIC_IN_0_9: &str = "00000007
    00000001 00000001 0009 3132372e302e302e31 000042ce
    00000001 0011 000f 2876657273696f6e2070726f626529 00000000";

/// Answers to Produce: partition 0 took the records, there is no partition 9.
const PRODUCE_V0_OF_0_8: &str = "00000005 00000001 0003 636170 00000002
    00000000 0000 0000000000000003
    00000009 0003 ffffffffffffffff";
const PRODUCE_V1_OF_0_9: &str = "00000005 00000001 0003 636170 00000002
    00000000 0000 0000000000000000
    00000009 0003 ffffffffffffffff
    00000000";
const PRODUCE_V2_OF_0_10: &str = "00000005 00000001 0003 636170 00000002
    00000000 0000 0000000000000003 ffffffffffffffff
    00000009 0003 ffffffffffffffff ffffffffffffffff
    00000000";
/// 0.8 does not look at the version: it was asked in v1.
const PRODUCE_V1_OF_0_8: &str = "00000005 00000001 0003 636170 00000002
    00000000 0000 0000000000000005
    00000009 0003 ffffffffffffffff";

#[test]
fn message_sets_are_those_that_brokers_store() {
    let stored = [
        (MessageFormat::V0, STORED_IN_0_8, [0, 0, 0]),
        (
            MessageFormat::V1,
            STORED_IN_0_10,
            [1_795_383_797_076, 1_795_383_798_122, 1_795_383_798_139],
        ),
    ];
    for (format, bytes, [first, second, third]) in stored {
        let mut out = Vec::new();
        let mut set = MessageSetEncoder::begin(&mut out, format);
        set.push(&Record::new(first, Some(b"k1"), Some(b"first")));
        set.push(&Record::new(second, None, Some(b"second")));
        set.push(&Record::new(third, Some(b""), Some(b"third")));
        set.finish();
        assert_eq!(out, hex(bytes), "{format:?}");
    }
}

#[test]
fn the_reader_of_these_tests_reads_what_brokers_store() {
    for (bytes, first_timestamp) in
        [(STORED_IN_0_8, None), (STORED_IN_0_10, Some(1_795_383_797_076))]
    {
        let messages = message_reader::read(&hex(bytes));
        let keys: Vec<_> = messages.iter().map(|message| message.key.as_deref()).collect();
        assert_eq!(keys, [Some(&b"k1"[..]), None, Some(b"")]);
        let values: Vec<_> = messages.iter().flat_map(|message| &message.value).collect();
        assert_eq!(values, [&b"first"[..], b"second", b"third"]);
        assert_eq!(messages[0].timestamp, first_timestamp);
    }
}

#[test]
fn metadata_v0_tells_brokers_and_leaders() {
    let answer = metadata(1, METADATA_V0_OF_0_8);
    let [broker] = &answer.brokers[..] else { panic!("{answer:?}") };
    assert_eq!((broker.id, &*broker.host, broker.port), (1, "127.0.0.1", 17101));
    assert_eq!((&broker.rack, answer.controller_id), (&None, -1));
    let [topic] = &answer.topics[..] else { panic!("{answer:?}") };
    assert_eq!((&*topic.name, topic.error, topic.id), ("cap", ErrorCode::NONE, Uuid::nil()));
    let partitions = topic.partitions.iter().map(|p| (p.index, p.leader, p.leader_epoch));
    assert!(partitions.eq([(2, 1, -1), (1, 1, -1), (0, 1, -1)]));
}

#[test]
fn a_name_that_no_topic_can_have_is_answered_with_an_error() {
    for (bytes, brokers) in [(NO_TOPIC_IN_0_8, 0), (NO_TOPIC_IN_0_9, 1)] {
        let answer = metadata(7, bytes);
        assert_eq!(answer.brokers.len(), brokers);
        assert_eq!(answer.topics[0].error, ErrorCode::INVALID_TOPIC_EXCEPTION);
        assert!(answer.topics[0].partitions.is_empty());
    }
}

#[test]
fn produce_answers_tell_each_partition_its_fate() {
    let captured =
        [(0, PRODUCE_V0_OF_0_8, 3), (1, PRODUCE_V1_OF_0_9, 0), (2, PRODUCE_V2_OF_0_10, 3)];
    for (version, bytes, offset) in captured {
        let answer = produce(version, bytes).expect("a whole answer");
        assert_eq!(answer.throttle_ms, 0);
        let [topic] = &answer.topics[..] else { panic!("{answer:?}") };
        assert_eq!(topic.topic, ProducedTopicRef::Name("cap".into()));
        let fates = topic.partitions.iter().map(|p| (p.index, p.error, p.base_offset));
        let no_partition = (9, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, -1);
        assert!(fates.eq([(0, ErrorCode::NONE, offset), no_partition]));
        assert!(topic.partitions.iter().all(|p| p.log_append_time_ms == -1));
    }
}

/// It appends, and the answer cannot be read: a batch would be sent again and again.
#[test]
fn only_v0_is_safe_with_0_8() {
    assert!(produce(1, PRODUCE_V1_OF_0_8).is_err());
    assert!(produce(Versions::OLDEST.produce, PRODUCE_V1_OF_0_8).is_ok());
}

fn metadata(correlation_id: i32, text: &str) -> MetadataResponse {
    let bytes = hex(text);
    let mut reader = Reader::new(&bytes);
    assert_eq!(read_response_header(&mut reader, ApiKey::Metadata, 0), Ok(correlation_id));
    MetadataResponse::decode(0, &mut reader).expect("a whole answer")
}

fn produce(version: i16, text: &str) -> Result<ProduceResponse, DecodeError> {
    let bytes = hex(text);
    let mut reader = Reader::new(&bytes);
    assert_eq!(read_response_header(&mut reader, ApiKey::Produce, version), Ok(5));
    ProduceResponse::decode(version, &mut reader)
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}
