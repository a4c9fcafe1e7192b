//! Damaged answers are errors: cut anywhere, with a hostile length anywhere, or too long.
//!
//! That the memory stays bounded meanwhile is tested in `tests/hostile_answers.rs`.

use proptest::prelude::*;

use super::oracle;
use crate::protocol::api_versions::{self, ApiVersionsResponse};
use crate::protocol::init_producer_id::{self, InitProducerIdResponse};
use crate::protocol::metadata::{self, MetadataResponse};
use crate::protocol::primitives::{DecodeError, DecodeFault, LengthAt, Reader};
use crate::protocol::produce::{self, ProduceResponse};
use crate::protocol::sasl::{self, SaslAuthenticateResponse, SaslHandshakeResponse};

type Decode = fn(i16, &mut Reader<'_>) -> Result<(), DecodeError>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damage_to_an_answer_is_an_error((version, bytes, decode) in any_answer()) {
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(decode(version, &mut reader), Ok(()));

        for len in 0..bytes.len() {
            prop_assert!(decode(version, &mut Reader::new(&bytes[..len])).is_err(), "cut at {}", len);
        }

        let mut longer = bytes.clone();
        longer.push(0);
        let error = decode(version, &mut Reader::new(&longer)).unwrap_err();
        prop_assert_eq!(error.fault, DecodeFault::LeftOver(1));

        for length in &reader.lengths_at {
            for hostile in hostile_lengths(length.width) {
                let damaged = with_length(&bytes, *length, &hostile);
                prop_assert!(
                    decode(version, &mut Reader::new(&damaged)).is_err(),
                    "{:?} at byte {}", hostile, length.position
                );
            }
        }
    }
}

#[test]
fn every_length_of_an_answer_is_damaged() {
    // One broker, one topic, one partition: 3 arrays and 3 strings, and the lists of replicas.
    let bytes: &[u8] = &[
        &[0, 0, 0, 1][..],                     // brokers
        &[0, 0, 0, 1, 0, 1, b'h', 0, 0, 0, 9], // id, host, port
        &[0xff, 0xff],                         // no rack
        &[0, 0, 0, 1],                         // controller
        &[0, 0, 0, 1],                         // topics
        &[0, 0, 0, 1, b't', 0],                // error, name, is internal
        &[0, 0, 0, 1],                         // partitions
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 1],       // error, index, leader
        &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0], // replicas, none in sync
    ]
    .concat();
    let mut reader = Reader::new(bytes);
    assert!(MetadataResponse::decode(1, &mut reader).is_ok());
    let widths: Vec<usize> = reader.lengths_at.iter().map(|length| length.width).collect();
    assert_eq!(widths, [4, 2, 2, 4, 2, 4, 4, 4]);
}

#[test]
fn every_length_of_an_answer_before_v3_is_damaged() {
    // Two topics of one partition each.
    let topic: &[&[u8]] = &[
        &[0, 1, b't', 0, 0, 0, 1], // name, partitions
        &[0, 0, 0, 7, 0, 0],       // index, error
        &[0, 0, 0, 0, 0, 0, 0, 9], // base offset
        &[0xff; 8],                // time of append, from v2
    ];
    for version in 0..=2 {
        let fields = if version == 2 { topic } else { &topic[..3] };
        let throttle: &[u8] = if version == 0 { &[] } else { &[0; 4] };
        let bytes = [&[0, 0, 0, 2], &fields.concat().repeat(2)[..], throttle].concat();
        let mut reader = Reader::new(&bytes);
        assert!(ProduceResponse::decode(version, &mut reader).is_ok());
        let widths: Vec<usize> = reader.lengths_at.iter().map(|length| length.width).collect();
        assert_eq!(widths, [4, 2, 4, 2, 4]);
    }
}

#[test]
fn versions_without_a_decoder_are_refused() {
    for version in [i16::MIN, -1, 14, i16::MAX] {
        let fault = DecodeFault::Version(version);
        let error = MetadataResponse::decode(version, &mut Reader::new(&[0; 64])).unwrap_err();
        assert_eq!(error.fault, fault);
        let error = ProduceResponse::decode(version, &mut Reader::new(&[0; 64])).unwrap_err();
        assert_eq!(error.fault, fault);
    }
    let error = ApiVersionsResponse::decode(4, &mut Reader::new(&[0; 64])).unwrap_err();
    assert_eq!(error.fault, DecodeFault::Version(4));
}

#[test]
fn null_is_refused_where_the_schema_has_none() {
    // Produce v3: topics; the name of a topic; its partitions.
    let null_topics = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    let null_name = [0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
    let null_partitions = [0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    for bytes in [&null_topics[..], &null_name, &null_partitions] {
        let error = ProduceResponse::decode(3, &mut Reader::new(bytes)).unwrap_err();
        assert_eq!(error.fault, DecodeFault::Null);
    }
}

#[test]
fn an_answer_made_of_nothing_but_tiny_elements_is_refused() {
    // Topics of 3 bytes each that take 48 bytes each here.
    let topics = 300_000u32;
    let mut bytes = Vec::new();
    crate::protocol::put::Put::put_unsigned_varint(&mut bytes, topics + 1);
    bytes.resize(bytes.len() + topics as usize * 3, 1);
    let error = ProduceResponse::decode(9, &mut Reader::new(&bytes)).unwrap_err();
    assert_eq!((error.what, error.fault), ("topics", DecodeFault::Memory));
}

#[test]
fn errors_say_what_was_read_and_where() {
    let bytes = [0, 0, 0, 1, 0, 9, b't'];
    let error = ProduceResponse::decode(3, &mut Reader::new(&bytes)).unwrap_err();
    assert_eq!(error.to_string(), "topic name at byte 6: 9 bytes needed, 1 left");
}

fn any_answer() -> impl Strategy<Value = (i16, Vec<u8>, Decode)> {
    let api_versions = api_versions::VERSIONS.prop_flat_map(|version| {
        let decode: Decode = |v, reader| ApiVersionsResponse::decode(v, reader).map(drop);
        let bytes = oracle::api_versions(version).prop_map(move |a| oracle::encode(&a, version));
        (Just(version), bytes, Just(decode))
    });
    let metadata = metadata::VERSIONS.prop_flat_map(|version| {
        let decode: Decode = |v, reader| MetadataResponse::decode(v, reader).map(drop);
        let bytes = oracle::metadata(version).prop_map(move |a| oracle::encode(&a, version));
        (Just(version), bytes, Just(decode))
    });
    let produce = produce::VERSIONS.prop_flat_map(|version| {
        let decode: Decode = |v, reader| ProduceResponse::decode(v, reader).map(drop);
        let bytes = oracle::produce(version).prop_map(move |a| oracle::encode_produce(&a, version));
        (Just(version), bytes, Just(decode))
    });
    let producer_id = init_producer_id::VERSIONS.prop_flat_map(|version| {
        let decode: Decode = |v, reader| InitProducerIdResponse::decode(v, reader).map(drop);
        let bytes =
            oracle::init_producer_id(version).prop_map(move |a| oracle::encode(&a, version));
        (Just(version), bytes, Just(decode))
    });
    let handshake = sasl::HANDSHAKE_VERSIONS.prop_flat_map(|version| {
        let decode: Decode = |v, reader| SaslHandshakeResponse::decode(v, reader).map(drop);
        let bytes = oracle::sasl_handshake(version).prop_map(move |a| oracle::encode(&a, version));
        (Just(version), bytes, Just(decode))
    });
    let authenticate = sasl::AUTHENTICATE_VERSIONS.prop_flat_map(|version| {
        let decode: Decode = |v, reader| SaslAuthenticateResponse::decode(v, reader).map(drop);
        let bytes =
            oracle::sasl_authenticate(version).prop_map(move |a| oracle::encode(&a, version));
        (Just(version), bytes, Just(decode))
    });
    prop_oneof![
        1 => api_versions,
        3 => metadata,
        3 => produce,
        1 => producer_id,
        1 => handshake,
        1 => authenticate,
    ]
}

fn hostile_lengths(width: usize) -> Vec<Vec<u8>> {
    match width {
        2 => vec![(-2i16).to_be_bytes().to_vec(), i16::MAX.to_be_bytes().to_vec()],
        4 => vec![(-2i32).to_be_bytes().to_vec(), i32::MAX.to_be_bytes().to_vec()],
        _ => vec![
            vec![0xff, 0xff, 0xff, 0xff, 0x07],       // 2^31 - 1
            vec![0xff, 0xff, 0xff, 0xff, 0x0f],       // 2^32 - 1
            vec![0xff, 0xff, 0xff, 0xff, 0x1f],       // 33 bits
            vec![0xff, 0xff, 0xff, 0xff, 0xff, 0x01], // six bytes
        ],
    }
}

/// The bytes with another length in the place of one.
fn with_length(bytes: &[u8], length: LengthAt, other: &[u8]) -> Vec<u8> {
    let (before, rest) = bytes.split_at(length.position);
    let width = match length.width {
        0 => rest.iter().position(|byte| *byte < 0x80).expect("a whole varint") + 1,
        width => width,
    };
    [before, other, &rest[width..]].concat()
}
