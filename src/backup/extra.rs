//! The fifth column of a backup line: what a record has beyond key and payload.
//!
//! ```text
//! {"timestamp":1700000000123,"headers":[["name","text"],["bytes",{"base64":"AAEC"}],["nothing",null]]}
//! ```
//! It is JSON that PostgreSQL takes as `jsonb`. `timestamp` is the record's own time, in milliseconds since 1970, where
//! that is not when `log()` took the message; `headers` are names and values in their order. Either is left out where
//! it does not apply. Text that is not UTF-8, or that has a NUL, which `jsonb` refuses, is in base64.
//!
//! A column that is read back is believed to be nothing: it is decoded straight into the headers' block, so that no
//! nesting and no count in it takes more memory than its bytes do.

use crate::record::{Headers, HeadersBuf, Record};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// Bytes of a column for each byte of the headers' block, at most: one byte of name and one of value, each in base64.
pub(super) const LONGEST_RATIO: usize = 10;

/// What a record has beyond key and payload.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Extra {
    /// Its own time, if it has one.
    #[serde(default, rename = "timestamp", deserialize_with = "number")]
    pub timestamp_ms: Option<i64>,
    /// The block of its headers; empty when there are none.
    #[serde(default, rename = "headers", deserialize_with = "headers")]
    pub headers: Vec<u8>,
}

impl Extra {
    /// Reads a column whose COPY escapes are undone. Takes any bytes; `None` for what is not such JSON.
    pub fn read(json: &[u8]) -> Option<Extra> {
        // Of a list serde would take the elements for the fields.
        let is_object = json.trim_ascii_start().starts_with(b"{");
        if is_object { serde_json::from_slice(json).ok() } else { None }
    }
}

/// The column of a record that was logged at this time, as JSON; `None` when it needs none.
pub(super) fn json(logged_ms: i64, record: &Record<'_>) -> Option<Vec<u8>> {
    let timestamp_ms = (record.timestamp_ms != logged_ms).then_some(record.timestamp_ms);
    if timestamp_ms.is_none() && record.headers.is_empty() {
        return None;
    }
    let column = Column { timestamp_ms, headers: record.headers };
    // Writing to memory does not fail, and no key is anything but text.
    serde_json::to_vec(&column).ok()
}

struct Column<'a> {
    timestamp_ms: Option<i64>,
    headers: Headers<'a>,
}

impl Serialize for Column<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(timestamp_ms) = self.timestamp_ms {
            map.serialize_entry("timestamp", &timestamp_ms)?;
        }
        if !self.headers.is_empty() {
            map.serialize_entry("headers", &Pairs(self.headers))?;
        }
        map.end()
    }
}

struct Pairs<'a>(Headers<'a>);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut pairs = serializer.serialize_seq(None)?;
        for (name, value) in self.0.iter() {
            pairs.serialize_element(&(Bytes(name.as_bytes()), value.map(Bytes)))?;
        }
        pairs.end()
    }
}

/// A name or a value: text where it can be, else base64.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) if !text.contains('\0') => serializer.serialize_str(text),
            _ => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &STANDARD.encode(self.0))?;
                map.end()
            }
        }
    }
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    i64::deserialize(deserializer).map(Some)
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    struct Block;
    impl<'de> Visitor<'de> for Block {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of names and values")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut pairs: A) -> Result<Vec<u8>, A::Error> {
            let mut headers = HeadersBuf::default();
            while let Some((name, value)) =
                pairs.next_element::<(Read<'de>, Option<Read<'de>>)>()?
            {
                let name = std::str::from_utf8(&name.0).map_err(A::Error::custom)?;
                headers.push(name, value.as_ref().map(|value| &*value.0));
            }
            Ok(headers.into_block())
        }
    }
    deserializer.deserialize_seq(Block)
}

/// A name or a value that was read.
struct Read<'a>(Cow<'a, [u8]>);

impl<'de> Deserialize<'de> for Read<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Read<'de>, D::Error> {
        deserializer.deserialize_any(ReadBytes)
    }
}

struct ReadBytes;

impl<'de> Visitor<'de> for ReadBytes {
    type Value = Read<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, or an object with base64 alone")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Read<'de>, E> {
        Ok(Read(Cow::Borrowed(text.as_bytes())))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Read<'de>, E> {
        Ok(Read(Cow::Owned(text.as_bytes().to_vec())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Read<'de>, A::Error> {
        let Some(("base64", encoded)) = map.next_entry::<&str, String>()? else {
            return Err(A::Error::custom("a key other than base64"));
        };
        if map.next_key::<&str>()?.is_some() {
            return Err(A::Error::custom("a key beside base64"));
        }
        STANDARD.decode(encoded).map(|bytes| Read(Cow::Owned(bytes))).map_err(A::Error::custom)
    }
}
