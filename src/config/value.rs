//! Values as Lua hands them over, and what each type of key makes of them.

use crate::protocol::release::Release;
use crate::topic_name;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// A Lua value, detached from Lua.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A string, of any bytes.
    Text(Vec<u8>),
    /// A table with keys 1 to n.
    List(Vec<Value>),
    /// Any other table; keys that are not strings are left out.
    Map(Vec<(String, Value)>),
    /// Something else: its Lua type name.
    Other(&'static str),
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Int(value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.as_bytes().to_vec())
    }
}

/// The value as it appears in an error message: short, and without control characters.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(b) => write!(f, "{b}"),
            Value::Int(i) => write!(f, "{i}"),
            Value::Float(x) => write!(f, "{x}"),
            Value::Text(text) => write!(f, "\"{}\"", shown(text)),
            Value::List(_) | Value::Map(_) => f.write_str("a table"),
            Value::Other(name) => write!(f, "a {name}"),
        }
    }
}

/// At most 64 characters of foreign bytes, fit for a log line.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().count() > 64 {
        out.push_str("...");
    }
    out
}

/// How a type of key reads its value. The error is what was got, for the message.
pub(super) trait FromValue: Sized {
    type Bounds;
    fn takes(bounds: &Self::Bounds) -> String;
    fn from_value(value: &Value, bounds: &Self::Bounds) -> Result<Self, String>;
}

/// Shortest and longest text.
pub(super) struct Length(pub usize, pub usize);
/// Names that Kafka takes for topics.
pub(super) struct TopicNames;

/// A whole number, however it was written.
pub(super) fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Int(i) => Some(*i),
        Value::Float(x) if x.fract() == 0.0 && x.abs() < 9.0e15 => Some(*x as i64),
        Value::Text(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
        _ => None,
    }
}

macro_rules! integers {
    ($($type:ty)*) => { $(
        impl FromValue for $type {
            type Bounds = RangeInclusive<$type>;
            fn takes(bounds: &Self::Bounds) -> String {
                format!("an integer from {} to {}", bounds.start(), bounds.end())
            }
            fn from_value(value: &Value, bounds: &Self::Bounds) -> Result<Self, String> {
                whole(value)
                    .and_then(|i| <$type>::try_from(i).ok())
                    .filter(|i| bounds.contains(i))
                    .ok_or_else(|| value.to_string())
            }
        }
    )* };
}
integers!(i32 u32 u64 usize);

impl FromValue for bool {
    type Bounds = ();
    fn takes(_: &()) -> String {
        "true or false".into()
    }
    fn from_value(value: &Value, _: &()) -> Result<Self, String> {
        match value {
            Value::Bool(b) => Ok(*b),
            _ => Err(value.to_string()),
        }
    }
}

impl FromValue for Option<bool> {
    type Bounds = ();
    fn takes(bounds: &()) -> String {
        bool::takes(bounds)
    }
    fn from_value(value: &Value, bounds: &()) -> Result<Self, String> {
        bool::from_value(value, bounds).map(Some)
    }
}

impl FromValue for String {
    type Bounds = Length;
    fn takes(bounds: &Length) -> String {
        format!("a string of {} to {} bytes", bounds.0, bounds.1)
    }
    fn from_value(value: &Value, bounds: &Length) -> Result<Self, String> {
        match value {
            Value::Text(text) if (bounds.0..=bounds.1).contains(&text.len()) => {
                String::from_utf8(text.clone()).map_err(|_| value.to_string())
            }
            _ => Err(value.to_string()),
        }
    }
}

/// A path without what it may as well do without, such as a second slash: people read it in the log.
pub(super) fn plain_path(text: &str) -> PathBuf {
    Path::new(text).components().collect()
}

impl FromValue for PathBuf {
    type Bounds = ();
    fn takes(_: &()) -> String {
        "a path".into()
    }
    fn from_value(value: &Value, _: &()) -> Result<Self, String> {
        match value {
            Value::Text(text) if !text.is_empty() && !text.contains(&0) => {
                std::str::from_utf8(text).map(plain_path).map_err(|_| value.to_string())
            }
            _ => Err(value.to_string()),
        }
    }
}

impl FromValue for Vec<String> {
    type Bounds = TopicNames;
    fn takes(_: &TopicNames) -> String {
        "a list of topic names (1 to 249 of a-z A-Z 0-9 . _ -)".into()
    }
    fn from_value(value: &Value, _: &TopicNames) -> Result<Self, String> {
        let items: &[Value] = match value {
            Value::List(items) => items,
            Value::Map(entries) if entries.is_empty() => &[],
            single @ Value::Text(_) => std::slice::from_ref(single),
            other => return Err(other.to_string()),
        };
        items
            .iter()
            .map(|item| match item {
                Value::Text(name) => std::str::from_utf8(name)
                    .ok()
                    .filter(|name| topic_name::is_valid(name))
                    .map(str::to_owned)
                    .ok_or_else(|| item.to_string()),
                other => Err(other.to_string()),
            })
            .collect()
    }
}

impl FromValue for Release {
    type Bounds = ();
    fn takes(_: &()) -> String {
        "a release of Kafka from 0.8 on, such as \"0.8.2\" or \"0.10.2.1\"".into()
    }
    fn from_value(value: &Value, _: &()) -> Result<Self, String> {
        match value {
            Value::Text(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()),
            _ => None,
        }
        .ok_or_else(|| value.to_string())
    }
}
