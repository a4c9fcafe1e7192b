//! Keys that take one of a few values, and those that take a function.

use super::value::{FromValue, Value, whole};
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

/// Compression codecs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not compressed.
    None,
}

impl FromValue for Codec {
    type Bounds = ();
    fn takes(_: &()) -> String {
        "\"none\"".into()
    }
    fn from_value(value: &Value, _: &()) -> Result<Self, String> {
        match value {
            Value::Text(text) if text == b"none" => Ok(Codec::None),
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
