//! Whatever a broker answers, decoding it takes at most four times its size plus 512 KiB of memory,
//! and neither panics nor aborts.

mod support {
    pub mod answers;
}
#[path = "../src/protocol/tests/oracle.rs"]
mod oracle;

use lkfk::internals::protocol::header::ApiKey;
use proptest::collection::vec;
use proptest::prelude::*;
use support::answers::{APIS, Counting, allowed_memory, decode, peak_memory};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Every version there is of any API, and some that there are not.
const VERSIONS: std::ops::RangeInclusive<i16> = -1..=15;

const CORRELATION_ID: [u8; 4] = [0, 0, 0, 7];

/// Counts and lengths that promise too much, as integers and as varints.
const HOSTILE: [&[u8]; 9] = [
    &[0xff, 0xfe],                         // i16 -2
    &[0x7f, 0xff],                         // i16, highest
    &[0xff, 0xff, 0xff, 0xfe],             // i32 -2
    &[0x7f, 0xff, 0xff, 0xff],             // i32, highest
    &[0x00, 0xff, 0xff, 0xff],             // i32, 16 million
    &[0xff, 0xff, 0xff, 0xff, 0x07],       // varint 2^31 - 1
    &[0xff, 0xff, 0xff, 0xff, 0x0f],       // varint 2^32 - 1
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], // varint without an end
    &[0x80, 0x80, 0x04],                   // varint 2^16
];

proptest! {
    #[test]
    fn random_bytes_take_bounded_memory(
        api in prop::sample::select(&APIS[..]),
        version in VERSIONS,
        bytes in vec(prop_oneof![Just(0), Just(1), Just(0xff), any::<u8>()], 0..2000),
    ) {
        check(api, version, &bytes);
    }

    #[test]
    fn valid_answers_with_a_hostile_length_at_any_place_take_bounded_memory(
        (api, version, answer) in any_answer()
    ) {
        prop_assert_eq!(decode(api, version, &answer), Ok(()));
        check(api, version, &answer);
        for position in 0..answer.len() {
            for hostile in HOSTILE {
                let mut damaged = answer.clone();
                let end = answer.len().min(position + hostile.len());
                damaged.splice(position..end, hostile.iter().copied());
                check(api, version, &damaged);

                damaged.clear();
                damaged.extend_from_slice(&answer[..position]);
                damaged.extend_from_slice(hostile);
                damaged.extend_from_slice(&answer[position + 1..]);
                check(api, version, &damaged);
            }
        }
    }

    #[test]
    fn valid_answers_read_as_another_api_or_version_take_bounded_memory(
        (_, _, answer) in any_answer()
    ) {
        for api in APIS {
            for version in VERSIONS {
                check(api, version, &answer);
            }
        }
    }

    #[test]
    fn valid_answers_with_random_changes_take_bounded_memory(
        (api, version, mut answer) in any_answer(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        for (index, byte) in changes {
            let index = index.index(answer.len());
            answer[index] = byte;
            check(api, version, &answer);
        }
    }
}

/// A count of elements that fits the bytes, each byte of which is the same.
#[test]
fn answers_of_the_smallest_elements_take_bounded_memory() {
    for filler in [0, 1, 2, 0xff] {
        for len in [10_000usize, 1_000_000] {
            let mut answer = vec![filler; len];
            for api in APIS {
                for version in VERSIONS {
                    for elements in [len / 24, len / 12, len / 10, len / 6, len / 4, len / 3] {
                        check_filled(&mut answer, api, version, elements, filler);
                    }
                }
            }
        }
    }
}

/// Arrays in arrays, each of them as full of small elements as it goes.
#[test]
fn dense_arrays_deep_inside_take_bounded_memory() {
    let len = 1_000_000;
    for inner in [1usize, 3, 10, 1000, 100_000] {
        // Produce v8: one topic, one partition, many record errors without a message.
        let mut answer = [&CORRELATION_ID[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 1], &[0; 30]].concat();
        answer.extend_from_slice(&(inner as i32).to_be_bytes());
        for _ in 0..inner {
            answer.extend_from_slice(&[0, 0, 0, 0, 0xff, 0xff]);
        }
        answer.extend_from_slice(&[0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(decode(ApiKey::Produce, 8, &answer), Ok(()), "{inner} record errors");
        check(ApiKey::Produce, 8, &answer);

        // Produce v0, v1 and v3: many topics of few empty partitions.
        for (version, partition_len) in [(0, 14), (1, 14), (3, 22)] {
            let partitions = vec![0; inner * partition_len];
            let topic = [&[0, 0][..], &(inner as i32).to_be_bytes(), &partitions].concat();
            let topics = len / topic.len();
            let mut answer = [CORRELATION_ID, (topics as i32).to_be_bytes()].concat();
            answer.extend(topic.iter().copied().cycle().take(topics * topic.len()));
            answer.extend_from_slice(&[0; 4]);
            check(ApiKey::Produce, version, &answer);
        }
    }
}

/// Topics without partitions take more memory than bytes, and their names come on top.
#[test]
fn names_on_top_of_dense_arrays_take_bounded_memory() {
    for name_len in 0..12 {
        // Metadata v0: no brokers; topics of error, name, no partitions. v1 has a controller too, and
        // tells whether a topic is internal.
        for (version, controller, end) in [(0, &[][..], 4), (1, &[0; 4], 5)] {
            let topic =
                [&[0, 0, 0, name_len as u8][..], &vec![b'n'; name_len], &vec![0; end]].concat();
            for topics in (1000..40_000usize).step_by(1000) {
                let mut answer = [&CORRELATION_ID[..], &[0; 4], controller].concat();
                answer.extend_from_slice(&(topics as i32).to_be_bytes());
                answer.extend_from_slice(&topic.repeat(topics));
                check(ApiKey::Metadata, version, &answer);
            }
        }
    }
}

/// `answer` consists of the filler.
fn check_filled(answer: &mut [u8], api: ApiKey, version: i16, elements: usize, filler: u8) {
    let as_i32 = (elements as i32).to_be_bytes().to_vec();
    let (low, middle, high) = (elements as u8, (elements >> 7) as u8, (elements >> 14) as u8);
    let as_varint = vec![low | 0x80, middle | 0x80, high & 0x7f];
    // What stands before the first count, in some version: nothing, a throttle time, an error.
    let before: &[usize] = match api {
        ApiKey::Produce => &[0],
        ApiKey::Metadata => &[0, 4],
        ApiKey::ApiVersions | ApiKey::SaslHandshake => &[2],
        ApiKey::InitProducerId | ApiKey::SaslAuthenticate => &[0, 2, 4],
    };
    for &before in before {
        for count in [&as_i32, &as_varint] {
            // With and without the tagged fields of a flexible header.
            for header in [&CORRELATION_ID[..], &[0, 0, 0, 7, 0]] {
                let head = [header, &vec![0; before], count].concat();
                answer[..head.len()].copy_from_slice(&head);
                check(api, version, answer);
                answer[..head.len()].fill(filler);
            }
        }
    }
}

fn check(api: ApiKey, version: i16, answer: &[u8]) {
    let (_, peak) = peak_memory(|| decode(api, version, answer));
    let allowed = allowed_memory(answer.len());
    assert!(peak <= allowed, "{api:?} v{version}: {peak} bytes for {} bytes", answer.len());
}

fn any_answer() -> impl Strategy<Value = (ApiKey, i16, Vec<u8>)> {
    use lkfk::internals::protocol::{api_versions, init_producer_id, metadata, produce, sasl};
    let api_versions = api_versions::VERSIONS.prop_flat_map(|version| {
        oracle::api_versions(version).prop_map(move |answer| {
            (ApiKey::ApiVersions, version, with_header(false, &oracle::encode(&answer, version)))
        })
    });
    let metadata = metadata::VERSIONS.prop_flat_map(|version| {
        oracle::metadata(version).prop_map(move |answer| {
            (
                ApiKey::Metadata,
                version,
                with_header(version >= 9, &oracle::encode(&answer, version)),
            )
        })
    });
    let produce = produce::VERSIONS.prop_flat_map(|version| {
        oracle::produce(version).prop_map(move |answer| {
            let body = oracle::encode_produce(&answer, version);
            (ApiKey::Produce, version, with_header(version >= 9, &body))
        })
    });
    let producer_id = init_producer_id::VERSIONS.prop_flat_map(|version| {
        oracle::init_producer_id(version).prop_map(move |answer| {
            let bytes = with_header(version >= 2, &oracle::encode(&answer, version));
            (ApiKey::InitProducerId, version, bytes)
        })
    });
    let handshake = sasl::HANDSHAKE_VERSIONS.prop_flat_map(|version| {
        oracle::sasl_handshake(version).prop_map(move |answer| {
            let bytes = with_header(false, &oracle::encode(&answer, version));
            (ApiKey::SaslHandshake, version, bytes)
        })
    });
    let authenticate = sasl::AUTHENTICATE_VERSIONS.prop_flat_map(|version| {
        oracle::sasl_authenticate(version).prop_map(move |answer| {
            let bytes = with_header(version >= 2, &oracle::encode(&answer, version));
            (ApiKey::SaslAuthenticate, version, bytes)
        })
    });
    prop_oneof![api_versions, metadata, produce, producer_id, handshake, authenticate]
}

fn with_header(flexible: bool, body: &[u8]) -> Vec<u8> {
    let no_tagged_fields: &[u8] = if flexible { &[0] } else { &[] };
    [&CORRELATION_ID[..], no_tagged_fields, body].concat()
}
