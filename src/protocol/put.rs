//! Writing the primitive types of Kafka's wire format.

use super::primitives::Form;
use crate::varint::put_varint;
use uuid::Uuid;

/// Writes primitive types to the end of a buffer.
///
/// Strings and counts that lkfk sends are names, ids and its own tallies, all bounded by the
/// configuration; one that its length field cannot hold is a bug and panics.
pub trait Put {
    /// A 16-bit integer.
    fn put_i16(&mut self, value: i16);
    /// A 32-bit integer.
    fn put_i32(&mut self, value: i32);
    /// A 64-bit integer.
    fn put_i64(&mut self, value: i64);
    /// A boolean.
    fn put_bool(&mut self, value: bool);
    /// A topic id or the like.
    fn put_uuid(&mut self, value: Uuid);
    /// An unsigned varint.
    fn put_unsigned_varint(&mut self, value: u32);
    /// A string.
    fn put_string(&mut self, form: Form, value: &str);
    /// A string in the flexible form.
    fn put_compact_string(&mut self, value: &str);
    /// The null string.
    fn put_null_string(&mut self, form: Form);
    /// A string of any bytes.
    fn put_bytes(&mut self, form: Form, value: &[u8]);
    /// The count before the elements of an array.
    fn put_array_len(&mut self, form: Form, count: usize);
    /// The end of a struct that has no tagged fields; in the classic form nothing.
    fn put_no_tagged_fields(&mut self, form: Form);
}

impl Put for Vec<u8> {
    fn put_i16(&mut self, value: i16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_i32(&mut self, value: i32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_bool(&mut self, value: bool) {
        self.push(u8::from(value));
    }

    fn put_uuid(&mut self, value: Uuid) {
        self.extend_from_slice(value.as_bytes());
    }

    fn put_unsigned_varint(&mut self, value: u32) {
        put_varint(self, u64::from(value));
    }

    fn put_string(&mut self, form: Form, value: &str) {
        match form {
            Form::Flexible => self.put_compact_string(value),
            Form::Classic => {
                self.put_i16(i16::try_from(value.len()).expect("names and ids are short"));
                self.extend_from_slice(value.as_bytes());
            }
        }
    }

    fn put_compact_string(&mut self, value: &str) {
        self.put_unsigned_varint(one_more(value.len()));
        self.extend_from_slice(value.as_bytes());
    }

    fn put_null_string(&mut self, form: Form) {
        match form {
            Form::Flexible => self.put_unsigned_varint(0),
            Form::Classic => self.put_i16(-1),
        }
    }

    fn put_bytes(&mut self, form: Form, value: &[u8]) {
        self.put_array_len(form, value.len());
        self.extend_from_slice(value);
    }

    fn put_array_len(&mut self, form: Form, count: usize) {
        match form {
            Form::Flexible => self.put_unsigned_varint(one_more(count)),
            Form::Classic => self.put_i32(i32::try_from(count).expect("arrays are short")),
        }
    }

    fn put_no_tagged_fields(&mut self, form: Form) {
        if form == Form::Flexible {
            self.put_unsigned_varint(0);
        }
    }
}

/// A length as the flexible form writes it.
pub(super) fn one_more(len: usize) -> u32 {
    u32::try_from(len + 1).expect("what lkfk sends is far below 4 GiB")
}
