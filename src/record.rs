//! A record: what `log()` takes, the queue and the backup hold, and a request carries.
//!
//! A record borrows its bytes from wherever they lie: a queue slot, a backup line that was read back, a Lua string.
//! Two times belong to a message. The one that the record carries ([`Record::timestamp_ms`]) is what consumers see.
//! When `log()` took the message is not part of the record, since the broker never learns it: it stands beside it
//! (`logged_ms` of a slot and of a backup line), and ages and timeouts are counted from there.

use crate::varint::{put_varint, take_varint32, unzigzag, zigzag};

/// One record. `Copy`, since it only borrows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The time on the wire, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The key. `None` is a null key, which is not the same as an empty one.
    pub key: Option<&'a [u8]>,
    /// The headers, in their order.
    pub headers: Headers<'a>,
    /// The payload. `None` is a null payload: a tombstone in a compacted topic.
    pub payload: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// A record without headers.
    pub fn new(timestamp_ms: i64, key: Option<&'a [u8]>, payload: Option<&'a [u8]>) -> Record<'a> {
        Record { timestamp_ms, key, headers: Headers::NONE, payload }
    }
}

/// The headers of a record, checked.
///
/// They are kept as a record batch holds them, so that the encoder copies them in one piece: a count, then for each
/// the length of its name, the name, the length of its value (-1: null) and the value, all lengths as signed varints
/// (<https://kafka.apache.org/documentation/#recordheader>). No headers are no bytes at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a>(&'a [u8]);

/// Bytes that are not a block of headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadersError {
    /// A count or length is missing, negative or beyond the bytes at hand, or bytes are left over.
    #[error("the headers are cut, or their lengths do not add up")]
    Lengths,
    /// A name that is not UTF-8; Kafka's own clients read names as text.
    #[error("the name of a header is not UTF-8")]
    Name,
}

impl<'a> Headers<'a> {
    /// No headers.
    pub const NONE: Headers<'static> = Headers(&[]);

    /// Checks a block of headers. Allocates nothing, and believes no length that the bytes do not bear out.
    pub fn check(block: &'a [u8]) -> Result<Headers<'a>, HeadersError> {
        if block.is_empty() {
            return Ok(Headers::NONE);
        }
        let mut rest = block;
        let count = take_len(&mut rest).flatten().ok_or(HeadersError::Lengths)?;
        for _ in 0..count {
            let (name, _) = take_header(&mut rest).ok_or(HeadersError::Lengths)?;
            std::str::from_utf8(name).map_err(|_| HeadersError::Name)?;
        }
        if count == 0 || !rest.is_empty() {
            return Err(HeadersError::Lengths);
        }
        Ok(Headers(block))
    }

    /// The block, as a record batch holds it; empty when there are no headers.
    #[inline]
    pub fn block(&self) -> &'a [u8] {
        self.0
    }

    /// True when there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values in their order; a value of `None` is null.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let mut rest = self.0;
        let count = take_len(&mut rest).flatten().unwrap_or(0);
        (0..count).map_while(move |_| {
            let (name, value) = take_header(&mut rest)?;
            Some((std::str::from_utf8(name).ok()?, value))
        })
    }
}

/// A length, of which -1 is null: `Some(None)`.
#[inline]
fn take_len(bytes: &mut &[u8]) -> Option<Option<usize>> {
    match unzigzag(u64::from(take_varint32(bytes)?)) {
        -1 => Some(None),
        len => usize::try_from(len).ok().map(Some),
    }
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

fn take_header<'a>(bytes: &mut &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let len = take_len(bytes)??;
    let name = take(bytes, len)?;
    let value = match take_len(bytes)? {
        None => None,
        Some(len) => Some(take(bytes, len)?),
    };
    Some((name, value))
}

/// Headers under construction, owned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadersBuf {
    count: u32,
    fields: Vec<u8>,
}

impl HeadersBuf {
    /// Adds a header behind the others. Names may repeat.
    pub fn push(&mut self, name: &str, value: Option<&[u8]>) {
        self.count += 1;
        put_len(&mut self.fields, Some(name.len()));
        self.fields.extend_from_slice(name.as_bytes());
        put_len(&mut self.fields, value.map(<[u8]>::len));
        self.fields.extend_from_slice(value.unwrap_or_default());
    }

    /// The finished block, for [`Headers::check`]; empty when nothing was pushed.
    pub fn into_block(self) -> Vec<u8> {
        if self.count == 0 {
            return Vec::new();
        }
        let mut block = Vec::with_capacity(self.fields.len() + 5);
        put_len(&mut block, Some(self.count as usize));
        block.extend_from_slice(&self.fields);
        block
    }
}

fn put_len(out: &mut Vec<u8>, len: Option<usize>) {
    put_varint(out, zigzag(len.map_or(-1, |len| len as i64)));
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(headers: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
        let mut buf = HeadersBuf::default();
        headers.iter().for_each(|(name, value)| buf.push(name, *value));
        buf.into_block()
    }

    #[test]
    fn names_repeat_values_are_null_or_empty_and_the_order_stays() {
        let all: [(&str, Option<&[u8]>); 4] =
            [("a", Some(b"1")), ("a", None), ("", Some(b"")), ("ü", Some(&[0, 255]))];
        let block = block(&all);
        let headers = Headers::check(&block).unwrap();
        assert_eq!(headers.iter().collect::<Vec<_>>(), all);
        assert!(!headers.is_empty() && Headers::NONE.is_empty());
        assert_eq!(Headers::NONE.iter().count(), 0);
    }

    #[test]
    fn no_headers_are_no_bytes_and_a_count_of_none_is_refused() {
        assert_eq!(block(&[]), b"");
        assert_eq!(Headers::check(b""), Ok(Headers::NONE));
        assert_eq!(Headers::check(&[0]), Err(HeadersError::Lengths));
    }

    #[test]
    fn a_name_that_is_no_text_and_a_null_name_are_refused() {
        assert_eq!(Headers::check(&[2, 2, 0xff, 0]), Err(HeadersError::Name));
        assert_eq!(Headers::check(&[2, 1, 0]), Err(HeadersError::Lengths));
    }

    proptest! {
        #[test]
        fn any_bytes_are_checked_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(headers) = Headers::check(&bytes) {
                let mut again = HeadersBuf::default();
                headers.iter().for_each(|(name, value)| again.push(name, value));
                // Only lengths that were written longer than they need be differ.
                prop_assert!(again.into_block().len() <= bytes.len());
            }
        }

        #[test]
        fn a_block_that_is_cut_or_continued_is_refused(
            headers in proptest::collection::vec((".{0,9}", proptest::option::of(any::<Vec<u8>>())), 1..5),
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut buf = HeadersBuf::default();
            headers.iter().for_each(|(name, value)| buf.push(name, value.as_deref()));
            let mut block = buf.into_block();
            prop_assert!(Headers::check(&block).is_ok());
            prop_assert!(Headers::check(&block[..cut.index(block.len())]).map_or(true, |cut| cut.is_empty()));
            block.push(0);
            prop_assert!(Headers::check(&block).is_err());
        }
    }
}
