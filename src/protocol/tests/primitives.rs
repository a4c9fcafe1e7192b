//! The primitive types, at the ends of their ranges.

use proptest::prelude::*;

use crate::protocol::primitives::{DecodeFault, Form, Reader};
use crate::protocol::put::Put;
use crate::varint::{put_varint, varint_len, zigzag};
use uuid::Uuid;

const FORMS: [Form; 2] = [Form::Classic, Form::Flexible];

/// Numbers and their unsigned varints, from the ends of each width.
const VARINTS: [(u32, &[u8]); 9] = [
    (0, &[0]),
    (1, &[1]),
    (127, &[0x7f]),
    (128, &[0x80, 0x01]),
    (16_383, &[0xff, 0x7f]),
    (16_384, &[0x80, 0x80, 0x01]),
    (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
    (268_435_456, &[0x80, 0x80, 0x80, 0x80, 0x01]),
    (u32::MAX, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
];

#[test]
fn unsigned_varints_have_seven_bits_a_byte_lowest_first() {
    for (value, bytes) in VARINTS {
        let mut out = Vec::new();
        out.put_unsigned_varint(value);
        assert_eq!(out, bytes);
        assert_eq!(varint_len(u64::from(value)), bytes.len());
        let mut reader = Reader::new(bytes);
        assert_eq!(reader.unsigned_varint("number"), Ok(value));
        assert_eq!(reader.finish(), Ok(()));
    }
}

#[test]
fn signed_varints_are_zigzag() {
    for (value, bytes) in [(0, &[0][..]), (-1, &[1]), (1, &[2]), (-64, &[127]), (64, &[128, 1])] {
        let mut out = Vec::new();
        put_varint(&mut out, zigzag(value));
        assert_eq!(out, bytes);
    }
    let mut out = Vec::new();
    put_varint(&mut out, zigzag(i64::from(i32::MIN)));
    assert_eq!(out, [0xff, 0xff, 0xff, 0xff, 0x0f]);
    out.clear();
    put_varint(&mut out, zigzag(i64::MIN));
    assert_eq!(out, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
}

#[test]
fn varints_beyond_32_bits_are_refused() {
    for bytes in [&[0xff, 0xff, 0xff, 0xff, 0x10][..], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]] {
        let error = Reader::new(bytes).unsigned_varint("number").unwrap_err();
        assert_eq!(error.fault, DecodeFault::LongVarint);
    }
}

#[test]
fn varints_may_be_longer_than_they_need_to_be() {
    assert_eq!(Reader::new(&[0x81, 0x80, 0x00]).unsigned_varint("number"), Ok(1));
}

#[test]
fn null_differs_from_empty_in_both_forms() {
    for form in FORMS {
        let mut out = Vec::new();
        out.put_null_string(form);
        out.put_string(form, "");
        let mut reader = Reader::new(&out);
        assert_eq!(reader.nullable_string(form, "text"), Ok(None));
        assert_eq!(reader.nullable_string(form, "text"), Ok(Some(String::new())));

        let error = Reader::new(&out).string(form, "text").unwrap_err();
        assert_eq!(error.fault, DecodeFault::Null);
    }
}

#[test]
fn strings_that_are_not_utf8_are_refused() {
    let error = Reader::new(&[3, 0xc3, 0x28]).string(Form::Flexible, "text").unwrap_err();
    assert_eq!(error.fault, DecodeFault::NotUtf8);
}

#[test]
fn counts_are_measured_against_the_bytes_left() {
    for form in FORMS {
        let mut out = Vec::new();
        out.put_array_len(form, 3);
        out.put_i64(0);
        let decode = |smallest| {
            Reader::new(&out).array(form, smallest, "numbers", |reader| reader.i16("number"))
        };
        assert_eq!(decode(2), Ok(vec![0; 3]));
        let fault = DecodeFault::Count { count: 3, smallest: 3, left: 8 };
        assert_eq!(decode(3).unwrap_err().fault, fault);

        let mut reader = Reader::new(&out);
        assert_eq!(reader.skip_array(form, 2, "numbers"), Ok(()));
        assert_eq!(reader.left(), 2);
        assert!(Reader::new(&out).skip_array(form, 3, "numbers").is_err());
    }
}

#[test]
fn tagged_fields_are_read_whole_or_passed_over() {
    // Two fields: tag 1 with [5, 6], tag 4 with [7].
    let bytes = [2, 1, 2, 5, 6, 4, 1, 7, 0xee];
    let mut reader = Reader::new(&bytes);
    let mut seen = Vec::new();
    let visited = reader.tagged_fields(Form::Flexible, |tag, field| {
        seen.push((tag, field.left()));
        if tag == 4 {
            assert_eq!(field.i8("number"), Ok(7));
        }
        Ok(())
    });
    assert_eq!(visited, Ok(()));
    assert_eq!(seen, [(1, 2), (4, 1)]);
    assert_eq!(reader.left(), 1);

    let too_little = Reader::new(&bytes)
        .tagged_fields(Form::Flexible, |_, field| field.i8("number").map(drop))
        .unwrap_err();
    assert_eq!(too_little.fault, DecodeFault::LeftOver(1));

    let too_much = Reader::new(&bytes)
        .tagged_fields(Form::Flexible, |_, field| field.i32("number").map(drop))
        .unwrap_err();
    assert_eq!(too_much.fault, DecodeFault::Truncated { needed: 4, left: 2 });
}

#[test]
fn tags_must_ascend() {
    for bytes in [[2, 4, 0, 4, 0], [2, 4, 0, 1, 0]] {
        let error = Reader::new(&bytes).skip_tagged_fields(Form::Flexible).unwrap_err();
        assert_eq!(error.fault, DecodeFault::TagOrder(u32::from(bytes[3])));
    }
    let highest = [1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0];
    assert_eq!(Reader::new(&highest).skip_tagged_fields(Form::Flexible), Ok(()));
}

#[test]
fn the_classic_form_has_no_tagged_fields() {
    let mut reader = Reader::new(&[1]);
    assert_eq!(reader.skip_tagged_fields(Form::Classic), Ok(()));
    assert_eq!(reader.left(), 1);
}

proptest! {
    #[test]
    fn what_is_put_is_what_is_read(
        (i8, i16, i32, i64) in any::<(i8, i16, i32, i64)>(),
        uuid in any::<[u8; 16]>(),
        unsigned in any::<u32>(),
        text in ".{0,200}",
    ) {
        for form in FORMS {
            let mut out = Vec::new();
            out.push(i8 as u8);
            out.put_i16(i16);
            out.put_i32(i32);
            out.put_i64(i64);
            out.put_uuid(Uuid::from_bytes(uuid));
            out.put_unsigned_varint(unsigned);
            out.put_string(form, &text);
            out.put_no_tagged_fields(form);

            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.i8("i8"), Ok(i8));
            prop_assert_eq!(reader.i16("i16"), Ok(i16));
            prop_assert_eq!(reader.i32("i32"), Ok(i32));
            prop_assert_eq!(reader.i64("i64"), Ok(i64));
            prop_assert_eq!(reader.uuid("uuid"), Ok(Uuid::from_bytes(uuid)));
            prop_assert_eq!(reader.unsigned_varint("unsigned"), Ok(unsigned));
            prop_assert_eq!(reader.string(form, "text"), Ok(text.clone()));
            prop_assert_eq!(reader.skip_tagged_fields(form), Ok(()));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }
}
