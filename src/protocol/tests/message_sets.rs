//! Message sets, read back by a reader of their own.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::message_reader::{self, Message};
use crate::protocol::message_set::{MessageFormat, MessageSetEncoder, message_size_bound};
use crate::protocol::produce;
use crate::protocol::record_batch::{BatchSummary, record_size_bound};
use crate::record::Record;

/// A timestamp, a key and a value.
type Pushed = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

fn record((timestamp_ms, key, payload): &Pushed) -> Record<'_> {
    Record::new(*timestamp_ms, key.as_deref(), payload.as_deref())
}

const NOW: i64 = 1_760_000_000_000;
const FORMATS: [MessageFormat; 2] = [MessageFormat::V0, MessageFormat::V1];

proptest! {
    #[test]
    fn message_sets_read_back_to_what_was_pushed(
        messages in vec(any_message(), 0..40),
        format in prop::sample::select(&FORMATS[..]),
    ) {
        check_round_trip(&messages, format);
    }
}

#[test]
fn null_and_empty_keys_and_payloads_stay_apart() {
    for format in FORMATS {
        check_round_trip(
            &[
                (NOW, None, Some(vec![])),
                (NOW, Some(vec![]), Some(vec![])),
                (NOW, None, Some(b"payload".to_vec())),
                (NOW, Some(b"key".to_vec()), Some(vec![])),
                (NOW, None, None),
                (NOW, Some(b"key".to_vec()), None),
            ],
            format,
        );
    }
}

#[test]
fn large_keys_and_payloads_read_back() {
    let large = vec![0x5a; 1 << 20];
    for format in FORMATS {
        check_round_trip(
            &[
                (NOW, None, Some(large.clone())),
                (NOW + 1, Some(large.clone()), Some(large.clone())),
                (NOW + 2, Some(large.clone()), Some(vec![])),
            ],
            format,
        );
    }
}

#[test]
fn fields_of_a_message_are_where_brokers_look_for_them() {
    let mut out = Vec::new();
    let mut set = MessageSetEncoder::begin(&mut out, MessageFormat::V1);
    set.push(&Record::new(0x0102_0304_0506_0708, Some(b"k"), Some(b"value")));
    set.push(&Record::new(0, None, Some(b"")));
    set.finish();
    let checksum = crc32fast::hash(&out[16..40]).to_be_bytes();
    let first = [
        &[0, 0, 0, 0, 0, 0, 0, 0][..], // offset
        &[0, 0, 0, 28],                // length
        &checksum,                     //
        &[1, 0],                       // magic, attributes
        &[1, 2, 3, 4, 5, 6, 7, 8],     // timestamp
        &[0, 0, 0, 1],                 // key
        b"k",                          //
        &[0, 0, 0, 5],                 // value
        b"value",
    ];
    assert_eq!(out[..40], first.concat());
    let second = &out[40..];
    assert_eq!(second[..12], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 22]);
    assert_eq!(second[26..], [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);

    out.clear();
    let mut set = MessageSetEncoder::begin(&mut out, MessageFormat::V0);
    set.push(&Record::new(0x0102_0304_0506_0708, Some(b"k"), Some(b"v")));
    set.finish();
    assert_eq!(out[8..12], [0, 0, 0, 16]);
    assert_eq!(out[16..], [0, 0, 0, 0, 0, 1, b'k', 0, 0, 0, 1, b'v']);
}

#[test]
fn a_set_without_messages_is_empty() {
    let mut out = b"before".to_vec();
    let set = MessageSetEncoder::begin(&mut out, MessageFormat::V1);
    assert!(set.is_empty());
    assert_eq!(set.finish(), BatchSummary { records: 0, len: 0 });
    assert_eq!(out, b"before");
}

#[test]
fn each_version_of_produce_carries_one_format() {
    let formats: Vec<_> = produce::VERSIONS.map(MessageFormat::of_produce).collect();
    assert_eq!(
        formats[..3],
        [Some(MessageFormat::V0), Some(MessageFormat::V0), Some(MessageFormat::V1)]
    );
    assert!(formats[3..].iter().all(Option::is_none));
}

/// A record is measured before it is known in which format it will be sent.
#[test]
fn the_bound_of_a_message_holds_for_a_record_of_a_batch_too() {
    for key in [None, Some(&b""[..]), Some(b"a key")] {
        let record = Record::new(0, key, Some(b"a payload"));
        assert!(message_size_bound(&record) >= record_size_bound(&record));
    }
}

/// Encodes the messages behind other bytes, reads them back, and checks each of them, the summary
/// and that the bound held.
fn check_round_trip(messages: &[Pushed], format: MessageFormat) {
    let bound: usize = messages.iter().map(|message| message_size_bound(&record(message))).sum();
    let mut out = Vec::with_capacity(6 + bound);
    let capacity = out.capacity();
    out.extend_from_slice(b"before");

    let mut set = MessageSetEncoder::begin(&mut out, format);
    for (index, message) in messages.iter().enumerate() {
        assert_eq!(set.records(), index);
        set.push(&record(message));
    }
    let len = set.len();
    assert_eq!(set.finish(), BatchSummary { records: messages.len(), len });
    assert_eq!(out.capacity(), capacity, "grew beyond the bound");
    let bytes = out.strip_prefix(b"before").expect("what was there stays there");
    assert_eq!(bytes.len(), len);

    let expected = messages.iter().enumerate().map(|(index, (timestamp, key, value))| Message {
        offset: index as i64,
        magic: u8::from(format == MessageFormat::V1),
        timestamp: (format == MessageFormat::V1).then_some(*timestamp),
        key: key.clone(),
        value: value.clone(),
    });
    assert!(message_reader::read(bytes).into_iter().eq(expected));
}

fn any_message() -> impl Strategy<Value = Pushed> {
    let bytes = prop_oneof![4 => vec(any::<u8>(), 0..200), 1 => vec(any::<u8>(), 0..20_000)];
    (any::<i64>(), option::of(vec(any::<u8>(), 0..300)), option::of(bytes))
}
