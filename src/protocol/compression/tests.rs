//! What the codecs make, read back by decoders that are not lkfk's.

use super::{Codec, Compressor, put_compressed_batch, put_compressed_set};
use crate::protocol::message_set::{MessageFormat, MessageSetEncoder};
use crate::protocol::record_batch::{BATCH_OVERHEAD, BatchEncoder, ProducerStamp};
use crate::protocol::sink::Sink;
use crate::record::Record;
use proptest::collection::vec;
use proptest::prelude::*;
use std::io::Read;

const NOW: i64 = 1_760_000_000_000;
const BEFORE: &[u8] = b"before";

fn decoded(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match codec {
        Codec::Gzip => {
            flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
        }
        Codec::Snappy => {
            let (header, mut blocks) = bytes.split_at(16);
            assert_eq!(header, b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
            while let Some((len, rest)) = blocks.split_first_chunk::<4>() {
                let (block, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
                let block = snap::raw::Decoder::new().decompress_vec(block).unwrap();
                assert!(block.len() <= 32 << 10);
                out.extend(block);
                blocks = rest;
            }
        }
        Codec::Lz4 => {
            // Version 1, independent blocks of 64 KiB, neither checksums nor a size; the specification's checksum.
            assert_eq!(bytes[..7], [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82]);
            lz4_flex::frame::FrameDecoder::new(bytes).read_to_end(&mut out).unwrap();
        }
        Codec::Zstd => {
            let len = zstd_safe::get_frame_content_size(bytes).unwrap().expect("it is pledged");
            out.reserve(len as usize);
            zstd_safe::decompress(&mut out, bytes).unwrap();
        }
    }
    out
}

fn compressed(compressor: &mut Compressor, codec: Codec, pieces: &[Vec<u8>]) -> Vec<u8> {
    let len = pieces.iter().map(Vec::len).sum();
    let mut out = BEFORE.to_vec();
    let mut stream = compressor.begin(codec, &mut out, len);
    pieces.iter().for_each(|piece| stream.put(piece));
    assert!(stream.end());
    assert_eq!(out[..BEFORE.len()], *BEFORE);
    out.split_off(BEFORE.len())
}

/// A line as an access log has it.
fn line(number: usize) -> Vec<u8> {
    format!(
        r#"{{"time":"2026-01-01T00:{:02}:{:02}Z","uri":"/items/{}","status":200,"bytes":{}}}"#,
        number / 60 % 60,
        number % 60,
        number * 7919 % 1000,
        number * 31 % 5000
    )
    .into_bytes()
}

#[test]
fn streams_of_any_length_read_back_and_leave_nothing_for_the_next() {
    let pieces = |lens: &[usize]| -> Vec<Vec<u8>> {
        lens.iter().map(|len| (0..*len).map(|byte| ((byte * byte) >> 7) as u8).collect()).collect()
    };
    let shapes = [
        &[0][..],
        &[1],
        &[64, 65, 1, 511, 2],
        &[32 << 10],
        &[40_000, 3, 90_000],
        &[1 << 20; 3],
        &[5],
    ];
    for codec in Codec::ALL {
        let mut reused = Compressor::new(None);
        for shape in shapes {
            let pieces = pieces(shape);
            let bytes = compressed(&mut reused, codec, &pieces);
            assert_eq!(decoded(codec, &bytes), pieces.concat(), "{codec:?} {shape:?}");
            assert_eq!(bytes, compressed(&mut Compressor::new(None), codec, &pieces), "{codec:?}");
        }
    }
}

#[test]
fn a_stream_that_was_dropped_does_not_show_in_the_next() {
    for codec in Codec::ALL {
        let mut compressor = Compressor::new(None);
        let mut out = Vec::new();
        compressor.begin(codec, &mut out, 100_000).put(&[7; 100_000]);
        let pieces = [b"short".to_vec(), vec![b'x'; 300]];
        let bytes = compressed(&mut compressor, codec, &pieces);
        assert_eq!(decoded(codec, &bytes), pieces.concat(), "{codec:?}");
    }
}

#[test]
fn levels_beyond_a_codecs_own_are_its_nearest_one() {
    let lines: Vec<_> = (0..2000).map(line).collect();
    let of = |codec, level| compressed(&mut Compressor::new(Some(level)), codec, &lines);
    assert_eq!(of(Codec::Gzip, 22), of(Codec::Gzip, 9));
    assert_eq!(of(Codec::Zstd, 100), of(Codec::Zstd, 22));
    assert!(of(Codec::Gzip, 9).len() < of(Codec::Gzip, 1).len());
    assert!(of(Codec::Zstd, 19).len() < of(Codec::Zstd, 1).len());
    assert_eq!(of(Codec::Lz4, 9), of(Codec::Lz4, 1));
    let default = compressed(&mut Compressor::new(None), Codec::Zstd, &lines);
    assert_eq!(default, of(Codec::Zstd, 3));
}

#[test]
fn a_compressed_batch_holds_the_records_of_the_plain_one() {
    let lines: Vec<_> = (0..500).map(line).collect();
    let records = || lines.iter().map(|line| Record::new(NOW, Some(b"key"), Some(line)));
    let stamp = ProducerStamp { producer_id: 7, epoch: 1, base_sequence: 40 };
    let mut plain = Vec::new();
    let mut batch = BatchEncoder::begin(&mut plain, stamp);
    records().for_each(|record| batch.push(&record));
    batch.finish();
    for codec in Codec::ALL {
        let mut compressor = Compressor::new(None);
        let mut out = BEFORE.to_vec();
        assert!(put_compressed_batch(&mut out, stamp, (&mut compressor, codec), records));
        let batch = out.split_off(BEFORE.len());
        assert!(batch.len() < plain.len() / 2, "{codec:?}");
        assert_eq!(decoded(codec, &batch[BATCH_OVERHEAD..]), plain[BATCH_OVERHEAD..], "{codec:?}");
        assert_eq!(batch[8..12], (batch.len() as i32 - 12).to_be_bytes());
        assert_eq!(batch[17..21], crc32c::crc32c(&batch[21..]).to_be_bytes());
        assert_eq!(batch[21..23], [0, codec.attributes() as u8]);
        assert_eq!(batch[23..BATCH_OVERHEAD], plain[23..BATCH_OVERHEAD]);
    }
}

#[test]
fn a_compressed_set_is_one_message_that_holds_the_plain_one() {
    let lines: Vec<_> = (0..500).map(line).collect();
    let times = |index: usize| NOW + (index as i64 * 37) % 500;
    let records = || {
        lines.iter().enumerate().map(|(n, line)| Record::new(times(n), Some(b"key"), Some(line)))
    };
    let highest = (0..500).map(times).max().unwrap();
    for format in [MessageFormat::V0, MessageFormat::V1] {
        let mut plain = Vec::new();
        let mut set = MessageSetEncoder::begin(&mut plain, format);
        records().for_each(|record| set.push(&record));
        set.finish();
        for codec in Codec::ALL {
            let mut compressor = Compressor::new(None);
            let mut out = BEFORE.to_vec();
            assert!(put_compressed_set(&mut out, format, (&mut compressor, codec), records));
            let wrapper = out.split_off(BEFORE.len());
            let (magic, value_at) = if format == MessageFormat::V0 { (0, 26) } else { (1, 34) };
            assert_eq!(wrapper[..8], 499i64.to_be_bytes());
            assert_eq!(wrapper[8..12], (wrapper.len() as i32 - 12).to_be_bytes());
            assert_eq!(wrapper[12..16], crc32fast::hash(&wrapper[16..]).to_be_bytes());
            assert_eq!(wrapper[16..18], [magic, codec.attributes() as u8]);
            if magic == 1 {
                assert_eq!(wrapper[18..26], highest.to_be_bytes());
            }
            assert_eq!(wrapper[value_at - 8..value_at - 4], (-1i32).to_be_bytes());
            let mut value = wrapper[value_at..].to_vec();
            assert_eq!(wrapper[value_at - 4..value_at], (value.len() as i32).to_be_bytes());
            if codec == Codec::Lz4 && magic == 0 {
                assert_eq!(std::mem::replace(&mut value[6], 0x82), 0x1a);
            }
            assert_eq!(decoded(codec, &value), plain, "{codec:?} {format:?}");
        }
    }
}

#[test]
fn what_does_not_shrink_leaves_the_buffer_as_it_was() {
    let record = || std::iter::once(Record::new(NOW, None, Some(b"x")));
    for codec in Codec::ALL {
        let mut compressor = Compressor::new(None);
        let mut out = BEFORE.to_vec();
        let stamp = ProducerStamp::NONE;
        assert!(!put_compressed_batch(&mut out, stamp, (&mut compressor, codec), record));
        assert!(!put_compressed_set(&mut out, MessageFormat::V1, (&mut compressor, codec), record));
        assert_eq!(out, BEFORE);
    }
}

#[test]
fn zstd_is_for_brokers_from_2_1_on_and_the_others_for_all() {
    for version in crate::protocol::produce::VERSIONS {
        for codec in Codec::ALL {
            assert_eq!(codec.is_taken_in(version), codec != Codec::Zstd || version >= 7);
        }
    }
}

proptest! {
    #[test]
    fn any_pieces_read_back(pieces in vec(vec(any::<u8>(), 0..700), 0..60), index in 0..4usize) {
        let codec = Codec::ALL[index];
        let bytes = compressed(&mut Compressor::new(None), codec, &pieces);
        prop_assert_eq!(decoded(codec, &bytes), pieces.concat());
    }
}
