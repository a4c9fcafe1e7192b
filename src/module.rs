//! The Lua module. `lkfk.so` alone is a whole installation: Lua's all-in-one loader finds `lkfk.kfk` and
//! the others in it by the names of the functions below, unless a file of that name stands on
//! lua_package_path, as a user's own `lkfk/conf.lua` does.

use crate::config::{KEYS, Value};
use crate::queue::layout::NO_PARTITION;
use crate::{ffi, stats, worker};

mod callbacks;
use mlua::{Function, LightUserData, Lua, MultiValue, Table};
use std::ffi::c_void;
use std::time::Duration;

/// Tables in a configuration may be nested this deep (a list of brokers is two).
const DEPTH: usize = 4;

/// `require "lkfk"`: the same functions as `lkfk.kfk`.
#[mlua::lua_module(name = "lkfk")]
fn lkfk(lua: &Lua) -> mlua::Result<mlua::Value> {
    lua.globals().get::<Function>("require")?.call("lkfk.kfk")
}

#[mlua::lua_module(name = "lkfk_kfk")]
fn lkfk_kfk(lua: &Lua) -> mlua::Result<mlua::Value> {
    embedded(lua, "lkfk.kfk", include_str!("../lua/lkfk/kfk.lua"))
}

#[mlua::lua_module(name = "lkfk_conf")]
fn lkfk_conf(lua: &Lua) -> mlua::Result<mlua::Value> {
    embedded(lua, "lkfk.conf", include_str!("../lua/lkfk/conf.lua"))
}

#[mlua::lua_module(name = "lkfk_cdefs")]
fn lkfk_cdefs(lua: &Lua) -> mlua::Result<mlua::Value> {
    embedded(lua, "lkfk.cdefs", include_str!("../lua/lkfk/cdefs.lua"))
}

#[mlua::lua_module(name = "lkfk_events")]
fn lkfk_events(lua: &Lua) -> mlua::Result<mlua::Value> {
    embedded(lua, "lkfk.events", include_str!("../lua/lkfk/events.lua"))
}

#[mlua::lua_module(name = "lkfk_shutdown")]
fn lkfk_shutdown(lua: &Lua) -> mlua::Result<mlua::Value> {
    embedded(lua, "lkfk.shutdown", include_str!("../lua/lkfk/shutdown.lua"))
}

#[mlua::lua_module(name = "lkfk_callbacks")]
fn lkfk_callbacks(lua: &Lua) -> mlua::Result<mlua::Value> {
    embedded(lua, "lkfk.callbacks", include_str!("../lua/lkfk/callbacks.lua"))
}

#[mlua::lua_module(name = "lkfk_stats")]
fn lkfk_stats(lua: &Lua) -> mlua::Result<mlua::Value> {
    embedded(lua, "lkfk.stats", include_str!("../lua/lkfk/stats.lua"))
}

fn embedded(lua: &Lua, name: &str, source: &str) -> mlua::Result<mlua::Value> {
    lua.load(source).set_name(format!("={name}")).call(name)
}

/// `lkfk.core`: what the Lua files are built on. Not for users.
#[mlua::lua_module(name = "lkfk_core")]
fn lkfk_core(lua: &Lua) -> mlua::Result<Table> {
    let core = lua.create_table()?;
    core.set("version", env!("CARGO_PKG_VERSION"))?;
    core.set("abi", ffi::ABI)?;
    core.set("cdef", ffi::CDEF)?;
    let errors = lua.create_table()?;
    for (code, text) in ffi::CODES {
        errors.set(*code, *text)?;
    }
    core.set("errors", errors)?;
    core.set("init", lua.create_function(init)?)?;
    core.set("api", lua.create_function(api)?)?;
    core.set("log", lua.create_function(log)?)?;
    core.set("flush", lua.create_function(|_, ()| Ok(worker::flush().map(|at| at as f64)))?)?;
    core.set("is_done", lua.create_function(|_, at: f64| Ok(worker::is_done(at as u64)))?)?;
    core.set("shuts_down", lua.create_function(shuts_down)?)?;
    core.set("waiting", lua.create_function(|_, ()| Ok(worker::waiting()))?)?;
    let names: Vec<&str> = stats::ROWS.iter().map(|row| row.name).collect();
    core.set("stat_names", names)?;
    let defaults = lua.create_table()?;
    for key in KEYS {
        defaults.set(key.name, key.default)?;
    }
    core.set("defaults", defaults)?;
    callbacks::add_to(lua, &core)?;
    Ok(core)
}

/// `core.init(conf, prefix) -> "started" | "found" | nil, err`
fn init(lua: &Lua, (conf, prefix): (Table, String)) -> mlua::Result<MultiValue> {
    let entries = match value(mlua::Value::Table(conf), DEPTH) {
        Value::Map(entries) => entries,
        Value::List(items) if items.is_empty() => Vec::new(),
        _ => return failure(lua, "the configuration must be a table with named keys"),
    };
    match worker::init(&entries, &prefix) {
        Ok(started) => {
            let what = lua.create_string(if started { "started" } else { "found" })?;
            Ok(MultiValue::from_vec(vec![mlua::Value::String(what)]))
        }
        Err(error) => failure(lua, &error.to_string()),
    }
}

/// The one place where errors become `nil, err`.
fn failure(lua: &Lua, text: &str) -> mlua::Result<MultiValue> {
    let text = mlua::Value::String(lua.create_string(text)?);
    Ok(MultiValue::from_vec(vec![mlua::Value::Nil, text]))
}

/// `core.shuts_down(timeout_ms)`, see [`worker::shuts_down`].
fn shuts_down(_: &Lua, timeout_ms: f64) -> mlua::Result<()> {
    // The cast ends at the bounds, and makes 0 of what is no number.
    worker::shuts_down(Duration::from_millis(timeout_ms as u64));
    Ok(())
}

/// `core.api() -> light userdata | nil`: the address of the running producer's [`ffi::Api`].
fn api(_: &Lua, (): ()) -> mlua::Result<Option<LightUserData>> {
    Ok(worker::api().map(|api| LightUserData((&raw const *api).cast_mut().cast::<c_void>())))
}

/// `core.log(topic, key, payload) -> true | nil, err`: the way in for callers without FFI.
fn log(
    lua: &Lua,
    (topic, key, payload): (mlua::LuaString, Option<mlua::LuaString>, mlua::LuaString),
) -> mlua::Result<MultiValue> {
    let Some(api) = worker::api() else {
        return failure(lua, "not running: call init() in init_worker_by_lua");
    };
    // SAFETY: the handle of a running producer lives as long as the process.
    let handle = unsafe { &*api.handle };
    let mut code = handle.topic(&topic.as_bytes());
    if code >= 0 {
        let key = key.as_ref().map(|key| key.as_bytes());
        code = handle.push(code as u32, NO_PARTITION, key.as_deref(), &payload.as_bytes());
    }
    match ffi::CODES.iter().find(|(known, _)| *known == code) {
        Some((_, text)) => failure(lua, text),
        None => Ok(MultiValue::from_vec(vec![mlua::Value::Boolean(true)])),
    }
}

/// A Lua value, detached from Lua.
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
