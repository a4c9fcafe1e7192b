//! Keys that take one of a few values, and those that take a function.

use super::value::{FromValue, Value, whole};
use crate::protocol::compression::Codec;
use std::ops::RangeInclusive;

/// Parameters of a function.
pub(super) struct Signature(pub &'static str);

/// Whether the user set a function of their own. The function itself stays in Lua.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Callback(pub bool);

impl FromValue for Callback {
    type Bounds = Signature;
    fn takes(bounds: &Signature) -> String {
        format!("a function({})", bounds.0)
    }
    fn from_value(value: &Value, _: &Signature) -> Result<Self, String> {
        match value {
            Value::Other("function") => Ok(Callback(true)),
            _ => Err(value.to_string()),
        }
    }
}

/// Which backup lines are sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// None.
    Off,
    /// Those of lkfk's own.
    Own,
    /// Every line.
    All,
}

impl FromValue for Replay {
    type Bounds = ();
    fn takes(_: &()) -> String {
        "true, false or \"all\"".into()
    }
    fn from_value(value: &Value, _: &()) -> Result<Self, String> {
        match value {
            Value::Bool(true) => Ok(Replay::Own),
            Value::Bool(false) => Ok(Replay::Off),
            Value::Text(text) if text == b"all" => Ok(Replay::All),
            _ => Err(value.to_string()),
        }
    }
}

/// How fast backup lines are sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayRate {
    /// As fast as the brokers take them beside new messages.
    Auto,
    /// So many lines a second; 0: any number.
    Fixed(u64),
}

impl FromValue for ReplayRate {
    type Bounds = RangeInclusive<u64>;
    fn takes(bounds: &Self::Bounds) -> String {
        format!("\"auto\" or {}", u64::takes(bounds))
    }
    fn from_value(value: &Value, bounds: &Self::Bounds) -> Result<Self, String> {
        match value {
            Value::Text(text) if text == b"auto" => Ok(ReplayRate::Auto),
            _ => u64::from_value(value, bounds).map(ReplayRate::Fixed),
        }
    }
}

/// What happens when queue and backup are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// New messages are refused.
    Reject,
    /// The oldest ones are dropped.
    DropOldest,
}

impl FromValue for Overflow {
    type Bounds = ();
    fn takes(_: &()) -> String {
        "\"reject\" or \"drop_oldest\"".into()
    }
    fn from_value(value: &Value, _: &()) -> Result<Self, String> {
        match value {
            Value::Text(text) if text == b"reject" => Ok(Overflow::Reject),
            Value::Text(text) if text == b"drop_oldest" => Ok(Overflow::DropOldest),
            _ => Err(value.to_string()),
        }
    }
}

/// Codecs for batches, the first that a broker takes being used; none: batches are not compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codecs(pub Vec<Codec>);

impl Codecs {
    /// From words separated by commas. "none" stands for what comes behind all others anyway.
    fn from_words(words: &[u8]) -> Option<Codecs> {
        let mut codecs = Vec::new();
        let mut words = std::str::from_utf8(words).ok()?.split(',').map(str::trim).peekable();
        while let Some(word) = words.next() {
            if word.eq_ignore_ascii_case("none") && words.peek().is_none() {
                break;
            }
            let named = |codec: &&Codec| word.eq_ignore_ascii_case(codec.name());
            let codec = *Codec::ALL.iter().find(named)?;
            if codecs.contains(&codec) {
                return None;
            }
            codecs.push(codec);
        }
        Some(Codecs(codecs))
    }
}

impl FromValue for Codecs {
    type Bounds = ();
    fn takes(_: &()) -> String {
        let names: Vec<_> =
            Codec::ALL.iter().map(|codec| format!("\"{}\"", codec.name())).collect();
        format!("\"none\", or one or more of {}, separated by commas", names.join(", "))
    }
    fn from_value(value: &Value, _: &()) -> Result<Self, String> {
        match value {
            Value::Text(words) => Codecs::from_words(words).ok_or_else(|| value.to_string()),
            _ => Err(value.to_string()),
        }
    }
}

/// The three values of `request_required_acks`.
pub(super) struct Acks;

impl FromValue for i16 {
    type Bounds = Acks;
    fn takes(_: &Acks) -> String {
        "1, 0, -1 or \"all\"".into()
    }
    fn from_value(value: &Value, _: &Acks) -> Result<Self, String> {
        match whole(value) {
            Some(acks @ -1..=1) => Ok(acks as i16),
            None if *value == Value::Text(b"all".to_vec()) => Ok(-1),
            _ => Err(value.to_string()),
        }
    }
}
