//! Lua values, detached from Lua.

use crate::config::Value;
use mlua::Table;

/// Tables in a configuration may be nested this deep (a list of brokers is two).
const DEPTH: usize = 4;

/// The entries of a configuration; `None` when it has others than named ones.
pub(super) fn entries(conf: Table) -> Option<Vec<(String, Value)>> {
    match value(mlua::Value::Table(conf), DEPTH) {
        Value::Map(entries) => Some(entries),
        Value::List(items) if items.is_empty() => Some(Vec::new()),
        _ => None,
    }
}

fn value(from: mlua::Value, depth: usize) -> Value {
    match from {
        mlua::Value::Boolean(b) => Value::Bool(b),
        mlua::Value::Integer(i) => Value::Int(i),
        mlua::Value::Number(x) if x.fract() == 0.0 && x.abs() < 9.0e15 => Value::Int(x as i64),
        mlua::Value::Number(x) => Value::Float(x),
        mlua::Value::String(text) => Value::Text(text.as_bytes().to_vec()),
        mlua::Value::Table(table) if depth > 0 => {
            let len = table.raw_len();
            let entries: Vec<_> = table.pairs::<mlua::Value, mlua::Value>().flatten().collect();
            if len == entries.len() {
                let items = (1..=len).map(|i| table.raw_get::<mlua::Value>(i));
                return Value::List(items.flatten().map(|item| value(item, depth - 1)).collect());
            }
            let named = entries.into_iter().map(|(key, item)| {
                let key = key.to_string().unwrap_or_else(|_| key.type_name().to_owned());
                (key, value(item, depth - 1))
            });
            Value::Map(named.collect())
        }
        other => Value::Other(other.type_name()),
    }
}
