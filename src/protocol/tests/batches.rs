//! Record batches, read back by kafka-protocol.

use kafka_protocol::records::{
    self as theirs, BatchDecodeInfo, Compression, RecordBatchDecoder, TimestampType,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use crate::protocol::record_batch::{
    BATCH_OVERHEAD, BatchEncoder, BatchSummary, ProducerStamp, record_size_bound,
};
use crate::record::{Headers, HeadersBuf, Record};

/// A record that owns its bytes.
#[derive(Debug, Clone)]
struct Pushed {
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    headers: Vec<u8>,
}

impl Pushed {
    fn new(timestamp_ms: i64, key: Option<Vec<u8>>, payload: Option<Vec<u8>>) -> Pushed {
        Pushed { timestamp_ms, key, payload, headers: Vec::new() }
    }

    fn record(&self) -> Record<'_> {
        let headers = Headers::check(&self.headers).unwrap();
        let record = Record::new(self.timestamp_ms, self.key.as_deref(), self.payload.as_deref());
        Record { headers, ..record }
    }
}

const NOW: i64 = 1_760_000_000_000;

proptest! {
    #[test]
    fn batches_read_back_to_what_was_pushed(
        records in vec(any_record(), 1..40),
        (producer_id, epoch, base_sequence) in any::<(i64, i16, i32)>(),
    ) {
        check_round_trip(&records, ProducerStamp { producer_id, epoch, base_sequence });
    }
}

#[test]
fn null_and_empty_keys_and_payloads_stay_apart() {
    let bytes = [None, Some(vec![]), Some(b"bytes".to_vec())];
    let records: Vec<Pushed> = bytes
        .iter()
        .flat_map(|key| bytes.iter().map(|payload| Pushed::new(NOW, key.clone(), payload.clone())))
        .collect();
    check_round_trip(&records, ProducerStamp::NONE);
}

#[test]
fn large_keys_and_payloads_read_back() {
    let large = vec![0x5a; 1 << 20];
    check_round_trip(
        &[
            Pushed::new(NOW, None, Some(large.clone())),
            Pushed::new(NOW + 1, Some(large.clone()), Some(large.clone())),
            Pushed::new(NOW + 2, Some(large), Some(vec![])),
        ],
        ProducerStamp::NONE,
    );
}

#[test]
fn timestamps_may_go_backwards_and_lie_far_apart() {
    let timestamps = [NOW, NOW - 1, NOW - 86_400_000, 0, -1, NOW + 3_600_000, i64::MAX / 2];
    let records: Vec<Pushed> =
        timestamps.map(|timestamp| Pushed::new(timestamp, None, Some(vec![1]))).to_vec();
    check_round_trip(&records, ProducerStamp::NONE);
}

#[test]
fn timestamps_at_the_ends_of_their_range_make_a_valid_batch() {
    let mut out = Vec::new();
    let mut batch = BatchEncoder::begin(&mut out, ProducerStamp::NONE);
    batch.push(&Record::new(i64::MAX, None, Some(b"")));
    batch.push(&Record::new(i64::MIN, None, Some(b"")));
    batch.finish();
    // i64::MIN - i64::MAX is 1 once it has wrapped: one byte of zigzag.
    assert_eq!(out[BATCH_OVERHEAD + 7..], [12, 0, 2, 2, 1, 0, 0]);
    assert_eq!(batch_info(&out).min_timestamp, i64::MAX);
}

#[test]
fn fields_of_the_batch_header_are_where_brokers_look_for_them() {
    let mut out = Vec::new();
    let mut batch = BatchEncoder::begin(
        &mut out,
        ProducerStamp { producer_id: 0x0102_0304_0506_0708, epoch: 0x090a, base_sequence: 11 },
    );
    batch.push(&Record::new(1000, Some(b"k"), Some(b"v")));
    batch.push(&Record::new(1300, None, Some(b"v")));
    batch.push(&Record::new(900, None, Some(b"v")));
    batch.finish();

    let field = |range: std::ops::Range<usize>| &out[range];
    assert_eq!(field(0..8), 0i64.to_be_bytes(), "base offset");
    assert_eq!(field(8..12), (out.len() as i32 - 12).to_be_bytes(), "batch length");
    assert_eq!(field(12..16), (-1i32).to_be_bytes(), "partition leader epoch");
    assert_eq!(field(16..17), [2], "magic");
    assert_eq!(field(17..21), crc32c::crc32c(&out[21..]).to_be_bytes(), "checksum");
    assert_eq!(field(21..23), [0, 0], "attributes");
    assert_eq!(field(23..27), 2i32.to_be_bytes(), "last offset delta");
    assert_eq!(field(27..35), 1000i64.to_be_bytes(), "first timestamp");
    assert_eq!(field(35..43), 1300i64.to_be_bytes(), "highest timestamp");
    assert_eq!(field(43..51), [1, 2, 3, 4, 5, 6, 7, 8], "producer id");
    assert_eq!(field(51..53), [9, 10], "producer epoch");
    assert_eq!(field(53..57), 11i32.to_be_bytes(), "base sequence");
    assert_eq!(field(57..61), 3i32.to_be_bytes(), "record count");
    let first_record = [
        16, // length 8
        0,  // attributes
        0,  // timestamp delta
        0,  // offset delta
        2, b'k', // key
        2, b'v', // value
        0,    // headers
    ];
    assert_eq!(field(61..70), first_record);
    let third_record = [
        16, 0, //
        199, 1, // timestamp delta -100
        4, // offset delta 2
        1, // null key
        2, b'v', 0,
    ];
    assert_eq!(out[79..], third_record);
}

#[test]
fn a_batch_without_records_leaves_nothing_behind() {
    let mut out = b"before".to_vec();
    let batch = BatchEncoder::begin(&mut out, ProducerStamp::NONE);
    assert!(batch.is_empty());
    assert_eq!(batch.finish(), BatchSummary { records: 0, len: 0 });
    assert_eq!(out, b"before");
}

/// Encodes the records behind other bytes, reads them back, and checks each of them, the summary
/// and that the bound held.
fn check_round_trip(records: &[Pushed], producer: ProducerStamp) {
    let bound: usize = records.iter().map(|pushed| record_size_bound(&pushed.record())).sum();
    let mut out = Vec::with_capacity(6 + BATCH_OVERHEAD + bound);
    let capacity = out.capacity();
    out.extend_from_slice(b"before");

    let mut batch = BatchEncoder::begin(&mut out, producer);
    for (index, pushed) in records.iter().enumerate() {
        assert_eq!(batch.records(), index);
        let before = batch.len();
        batch.push(&pushed.record());
        assert!(batch.len() - before <= record_size_bound(&pushed.record()));
    }
    let len = batch.len();
    let summary = batch.finish();
    assert_eq!(summary, BatchSummary { records: records.len(), len });
    assert_eq!(out.capacity(), capacity, "grew beyond the bound");
    let bytes = out.strip_prefix(b"before").expect("what was there stays there");
    assert_eq!(bytes.len(), len);

    let info = batch_info(bytes);
    assert_eq!(info.record_count as usize, records.len());
    assert_eq!(info.min_offset, 0);
    assert_eq!(info.partition_leader_epoch, -1);
    assert_eq!(info.timestamp_type, TimestampType::Creation);
    assert_eq!(info.compression, Compression::None);
    assert_eq!((info.version, info.transactional, info.control), (2, false, false));
    assert_eq!(info.producer_id, producer.producer_id);
    assert_eq!(info.producer_epoch, producer.epoch);
    assert_eq!(info.base_sequence, producer.base_sequence);

    for (index, (read, pushed)) in read_back(bytes).iter().zip(records).enumerate() {
        assert_eq!(read.offset, index as i64);
        assert_eq!(read.sequence, producer.base_sequence.wrapping_add(index as i32));
        let record = pushed.record();
        assert_eq!(read.timestamp, record.timestamp_ms);
        assert_eq!(read.key.as_deref(), record.key);
        assert_eq!(read.value.as_deref(), record.payload);
        let headers = read.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        assert!(headers.eq(record.headers.iter()));
    }
}

fn batch_info(bytes: &[u8]) -> BatchDecodeInfo {
    let infos = RecordBatchDecoder::decode_batch_info(&mut &*bytes).unwrap();
    let [info] = infos.try_into().expect("one batch");
    info
}

fn read_back(bytes: &[u8]) -> Vec<theirs::Record> {
    let mut rest = bytes;
    let set = RecordBatchDecoder::decode(&mut rest).unwrap();
    assert!(rest.is_empty());
    set.records
}

fn any_record() -> impl Strategy<Value = Pushed> {
    // The reader adds the delta without wrapping, so that a quarter of the range is what it takes.
    let timestamp =
        prop_oneof![4 => NOW - 5000..NOW + 5000, 1 => i64::MIN / 4..i64::MAX / 4, 1 => Just(-1)];
    let bytes = prop_oneof![4 => vec(any::<u8>(), 0..200), 1 => vec(any::<u8>(), 0..20_000)];
    // The reader keeps one value a name, so that names do not repeat here.
    let headers = btree_map(".{0,9}", option::of(vec(any::<u8>(), 0..20)), 0..4);
    (timestamp, option::of(vec(any::<u8>(), 0..300)), option::of(bytes), headers).prop_map(
        |(timestamp_ms, key, payload, headers)| {
            let mut block = HeadersBuf::default();
            headers.iter().for_each(|(name, value)| block.push(name, value.as_deref()));
            Pushed { timestamp_ms, key, payload, headers: block.into_block() }
        },
    )
}
