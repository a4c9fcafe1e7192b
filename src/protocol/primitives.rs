//! Reading the primitive types of Kafka's wire format, within bounds. [`put`](super::put) writes them.
//!
//! Bytes from a broker are hostile until checked, so [`Reader`] keeps three rules:
//! - No read goes past the bytes it was given, or past the tagged field it is in.
//! - An array's count is compared with the bytes left before anything is reserved for it.
//! - Memory is paid for in advance out of an allowance of four times the answer's size plus 512 KiB,
//!   and never more than 3 MiB.
//!   Counting elements is not enough: a topic that takes 3 bytes on the wire takes 48 here. The
//!   constant is for Produce v0, whose answers name a partition in 14 bytes that take 88 here: it
//!   covers as many partitions as there can be in a request of 1 MiB.
//!
//! After an error the reader stands somewhere inside the answer and is of no further use.
//!
//! Types: <https://kafka.apache.org/protocol#protocol_types>, tagged fields: KIP-482.

use thiserror::Error;
use uuid::Uuid;

/// The most memory that an answer may decode to.
const MOST_MEMORY: usize = 3 * 1024 * 1024;

/// How a version of a message writes lengths and counts.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Form {
    /// Lengths have a fixed width, -1 is null, and there are no tagged fields.
    Classic,
    /// Lengths are unsigned varints one too large, 0 is null, and each struct ends with its tagged
    /// fields (KIP-482).
    Flexible,
}

/// Why an answer cannot be read: what was being read, where, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} at byte {at}: {fault}")]
pub struct DecodeError {
    /// The field that was being read.
    pub what: &'static str,
    /// Where the reader stood, counted from the start of its bytes.
    pub at: usize,
    /// What is wrong.
    pub fault: DecodeFault,
}

/// What is wrong with bytes that cannot be read.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Error)]
pub enum DecodeFault {
    /// The answer, or the tagged field, ends too early.
    #[error("{needed} bytes needed, {left} left")]
    Truncated {
        /// Bytes the field takes.
        needed: usize,
        /// Bytes there are.
        left: usize,
    },
    /// A length or count below -1.
    #[error("length {0} is negative")]
    NegativeLength(i32),
    /// Null where the schema has no null.
    #[error("null is not allowed here")]
    Null,
    /// An unsigned varint of more than 32 bits.
    #[error("variable-length integer exceeds 32 bits")]
    LongVarint,
    /// More elements are announced than can follow.
    #[error("{count} elements of at least {smallest} bytes cannot be in the {left} bytes left")]
    Count {
        /// Elements announced.
        count: usize,
        /// Bytes that the smallest possible element takes.
        smallest: usize,
        /// Bytes there are.
        left: usize,
    },
    /// A string that is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// Tags must ascend.
    #[error("tag {0} is repeated or out of order")]
    TagOrder(u32),
    /// The answer decodes to too many times its own size.
    #[error("takes more memory than an answer of this size may")]
    Memory,
    /// The answer, or the tagged field, is longer than its content.
    #[error("{0} bytes left over")]
    LeftOver(usize),
    /// The caller asked for a version that has no decoder.
    #[error("version {0} is not supported")]
    Version(i16),
}

/// Reads an answer, see the [module](self) for its rules.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Where reads must stop: the end of `bytes`, or of the tagged field being visited.
    end: usize,
    /// Bytes of memory that what is still to be decoded may take.
    allowance: usize,
    /// Where each length and count was read, for tests that damage every one of them.
    #[cfg(test)]
    pub(super) lengths_at: Vec<LengthAt>,
}

/// A length that was read: where it starts, and its width in bytes, or 0 for a varint.
#[cfg(test)]
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) struct LengthAt {
    pub(super) position: usize,
    pub(super) width: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from their start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            position: 0,
            end: bytes.len(),
            allowance: bytes.len().saturating_mul(4).saturating_add(512 * 1024).min(MOST_MEMORY),
            #[cfg(test)]
            lengths_at: Vec::new(),
        }
    }

    /// Bytes that are still to be read.
    pub fn left(&self) -> usize {
        self.end - self.position
    }

    /// The answer must end here.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.left() {
            0 => Ok(()),
            left => Err(self.error("answer", DecodeFault::LeftOver(left))),
        }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let left = self.left();
        if count > left {
            return Err(self.error(what, DecodeFault::Truncated { needed: count, left }));
        }
        let taken = &self.bytes[self.position..self.position + count];
        self.position += count;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N, what)?);
        Ok(bytes)
    }

    /// An 8-bit integer.
    pub fn i8(&mut self, what: &'static str) -> Result<i8, DecodeError> {
        Ok(i8::from_be_bytes(self.fixed(what)?))
    }

    /// A 16-bit integer.
    pub fn i16(&mut self, what: &'static str) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.fixed(what)?))
    }

    /// A 32-bit integer.
    pub fn i32(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.fixed(what)?))
    }

    /// A 64-bit integer.
    pub fn i64(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.fixed(what)?))
    }

    /// A topic id or the like.
    pub fn uuid(&mut self, what: &'static str) -> Result<Uuid, DecodeError> {
        Ok(Uuid::from_bytes(self.fixed(what)?))
    }

    /// An unsigned varint of at most 32 bits.
    pub fn unsigned_varint(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed(what)?;
            // Four bits of the fifth byte are left, and no sixth may follow.
            if shift == 28 && byte > 0x0f {
                return Err(self.error(what, DecodeFault::LongVarint));
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        unreachable!("the fifth byte has no continuation bit")
    }

    /// A string.
    pub fn string(&mut self, form: Form, what: &'static str) -> Result<String, DecodeError> {
        let null = self.error(what, DecodeFault::Null);
        self.nullable_string(form, what)?.ok_or(null)
    }

    /// A string, or null.
    pub fn nullable_string(
        &mut self,
        form: Form,
        what: &'static str,
    ) -> Result<Option<String>, DecodeError> {
        let Some(len) = self.length(form, 2, what)? else { return Ok(None) };
        let bytes = self.take(len, what)?;
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Err(self.error(what, DecodeFault::NotUtf8));
        };
        self.pay(len, what)?;
        Ok(Some(text.to_owned()))
    }

    /// A string of any bytes.
    pub fn bytes(&mut self, form: Form, what: &'static str) -> Result<Vec<u8>, DecodeError> {
        let null = self.error(what, DecodeFault::Null);
        let len = self.length(form, 4, what)?.ok_or(null)?;
        let bytes = self.take(len, what)?;
        self.pay(len, what)?;
        Ok(bytes.to_owned())
    }

    /// An array. `smallest` is the size on the wire of the smallest element there can be, at least 1.
    pub fn array<T>(
        &mut self,
        form: Form,
        smallest: usize,
        what: &'static str,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count(form, smallest, what)?;
        self.pay(count.saturating_mul(size_of::<T>()), what)?;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(elements)
    }

    /// Passes over an array whose elements take `size` bytes each, at least 1.
    pub fn skip_array(
        &mut self,
        form: Form,
        size: usize,
        what: &'static str,
    ) -> Result<(), DecodeError> {
        let count = self.count(form, size, what)?;
        self.take(count * size, what)?;
        Ok(())
    }

    /// Visits the tagged fields at the end of a struct; in the classic form there are none.
    ///
    /// `visit` gets each tag and a reader that ends where the field ends. It either reads nothing,
    /// and the field is passed over, or it reads the field whole.
    pub fn tagged_fields(
        &mut self,
        form: Form,
        mut visit: impl FnMut(u32, &mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        const WHAT: &str = "tagged fields";
        if form == Form::Classic {
            return Ok(());
        }
        self.note_length(0);
        let count = self.unsigned_varint(WHAT)? as usize;
        self.must_fit(count, 2, WHAT)?;
        let mut lowest = 0;
        for _ in 0..count {
            let tag = self.unsigned_varint(WHAT)?;
            if u64::from(tag) < lowest {
                return Err(self.error(WHAT, DecodeFault::TagOrder(tag)));
            }
            lowest = u64::from(tag) + 1;
            self.note_length(0);
            let size = self.unsigned_varint(WHAT)? as usize;
            self.must_fit(size, 1, WHAT)?;

            let (start, outer_end) = (self.position, self.end);
            self.end = start + size;
            visit(tag, self)?;
            if self.position != start {
                self.finish()?;
            }
            self.position = self.end;
            self.end = outer_end;
        }
        Ok(())
    }

    /// Passes over the tagged fields at the end of a struct.
    pub fn skip_tagged_fields(&mut self, form: Form) -> Result<(), DecodeError> {
        self.tagged_fields(form, |_, _| Ok(()))
    }

    /// Fails unless `version` is one of `supported`.
    pub(super) fn check_version(
        &self,
        version: i16,
        supported: std::ops::RangeInclusive<i16>,
        what: &'static str,
    ) -> Result<(), DecodeError> {
        if supported.contains(&version) {
            Ok(())
        } else {
            Err(self.error(what, DecodeFault::Version(version)))
        }
    }

    /// The count of an array, checked against the bytes left.
    fn count(
        &mut self,
        form: Form,
        smallest: usize,
        what: &'static str,
    ) -> Result<usize, DecodeError> {
        let Some(count) = self.length(form, 4, what)? else {
            return Err(self.error(what, DecodeFault::Null));
        };
        self.must_fit(count, smallest, what)?;
        Ok(count)
    }

    /// A length or a count; `width` is its size in the classic form. `None` is null.
    fn length(
        &mut self,
        form: Form,
        width: usize,
        what: &'static str,
    ) -> Result<Option<usize>, DecodeError> {
        let length = match form {
            Form::Flexible => {
                self.note_length(0);
                return Ok((self.unsigned_varint(what)? as usize).checked_sub(1));
            }
            Form::Classic => {
                self.note_length(width);
                match width {
                    2 => i32::from(self.i16(what)?),
                    _ => self.i32(what)?,
                }
            }
        };
        match length {
            -1 => Ok(None),
            0.. => Ok(Some(length as usize)),
            _ => Err(self.error(what, DecodeFault::NegativeLength(length))),
        }
    }

    fn must_fit(
        &self,
        count: usize,
        smallest: usize,
        what: &'static str,
    ) -> Result<(), DecodeError> {
        let left = self.left();
        if count <= left / smallest {
            Ok(())
        } else {
            Err(self.error(what, DecodeFault::Count { count, smallest, left }))
        }
    }

    /// Takes `bytes` off the allowance, before they are allocated.
    fn pay(&mut self, bytes: usize, what: &'static str) -> Result<(), DecodeError> {
        match self.allowance.checked_sub(bytes) {
            Some(rest) => {
                self.allowance = rest;
                Ok(())
            }
            None => Err(self.error(what, DecodeFault::Memory)),
        }
    }

    fn error(&self, what: &'static str, fault: DecodeFault) -> DecodeError {
        DecodeError { what, at: self.position, fault }
    }

    #[cfg(test)]
    fn note_length(&mut self, width: usize) {
        self.lengths_at.push(LengthAt { position: self.position, width });
    }

    #[cfg(not(test))]
    #[inline(always)]
    fn note_length(&mut self, _width: usize) {}
}
