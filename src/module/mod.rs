//! The Lua module. `lkfk.so` alone is a whole installation: Lua's all-in-one loader finds `lkfk.kfk` and
//! the others in it by the names of the functions below, unless a file of that name stands on
//! lua_package_path, as a user's own `lkfk/conf.lua` does.
//!
//! `lkfk.core` is what the Lua files are built on. A producer is named there by the address of its
//! [`Handle`], as light userdata: it is looked up among the producers that there are, and never followed.

mod callbacks;
mod value;

use crate::config::{Config, KEYS};
use crate::driver::statistics;
use crate::ffi;
use crate::worker::{self, Handle, Producer};
use mlua::{Function, LightUserData, Lua, MultiValue, Table};
use std::ffi::c_void;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Where a VM keeps what must outlive the Lua modules, which a framework may load anew: in its registry.
const KEPT: &str = "lkfk";

/// What is said of a list.
const UNNAMED: &str = "the configuration must be a table with named keys";

/// `require "lkfk"`: the same functions as `lkfk.kfk`.
#[mlua::lua_module(name = "lkfk")]
fn lkfk(lua: &Lua) -> mlua::Result<mlua::Value> {
    lua.globals().get::<Function>("require")?.call("lkfk.kfk")
}

#[mlua::lua_module(name = "lkfk_kfk")]
fn lkfk_kfk(lua: &Lua) -> mlua::Result<mlua::Value> {
    embedded(lua, "lkfk.kfk", include_str!("../../lua/lkfk/kfk.lua"))
}

#[mlua::lua_module(name = "lkfk_conf")]
fn lkfk_conf(lua: &Lua) -> mlua::Result<mlua::Value> {
    embedded(lua, "lkfk.conf", include_str!("../../lua/lkfk/conf.lua"))
}

#[mlua::lua_module(name = "lkfk_cdefs")]
fn lkfk_cdefs(lua: &Lua) -> mlua::Result<mlua::Value> {
    embedded(lua, "lkfk.cdefs", include_str!("../../lua/lkfk/cdefs.lua"))
}

#[mlua::lua_module(name = "lkfk_producer")]
fn lkfk_producer(lua: &Lua) -> mlua::Result<mlua::Value> {
    embedded(lua, "lkfk.producer", include_str!("../../lua/lkfk/producer.lua"))
}

#[mlua::lua_module(name = "lkfk_events")]
fn lkfk_events(lua: &Lua) -> mlua::Result<mlua::Value> {
    embedded(lua, "lkfk.events", include_str!("../../lua/lkfk/events.lua"))
}

#[mlua::lua_module(name = "lkfk_shutdown")]
fn lkfk_shutdown(lua: &Lua) -> mlua::Result<mlua::Value> {
    embedded(lua, "lkfk.shutdown", include_str!("../../lua/lkfk/shutdown.lua"))
}

#[mlua::lua_module(name = "lkfk_callbacks")]
fn lkfk_callbacks(lua: &Lua) -> mlua::Result<mlua::Value> {
    embedded(lua, "lkfk.callbacks", include_str!("../../lua/lkfk/callbacks.lua"))
}

#[mlua::lua_module(name = "lkfk_stats")]
fn lkfk_stats(lua: &Lua) -> mlua::Result<mlua::Value> {
    embedded(lua, "lkfk.stats", include_str!("../../lua/lkfk/stats.lua"))
}

#[mlua::lua_module(name = "lkfk_options")]
fn lkfk_options(lua: &Lua) -> mlua::Result<mlua::Value> {
    embedded(lua, "lkfk.options", include_str!("../../lua/lkfk/options.lua"))
}

#[mlua::lua_module(name = "lkfk_numbers")]
fn lkfk_numbers(lua: &Lua) -> mlua::Result<mlua::Value> {
    embedded(lua, "lkfk.numbers", include_str!("../../lua/lkfk/numbers.lua"))
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
    core.set("api", LightUserData((&raw const ffi::API).cast_mut().cast::<c_void>()))?;
    core.set("kept", kept(lua)?)?;
    add_codes(lua, &core)?;
    core.set("init", lua.create_function(init)?)?;
    core.set("check", lua.create_function(check)?)?;
    core.set("set_init_error", lua.create_function(set_init_error)?)?;
    core.set("init_error", lua.create_function(init_error)?)?;
    core.set("find", lua.create_function(find)?)?;
    core.set("serve", lua.create_function(serve)?)?;
    core.set("flush", lua.create_function(flush)?)?;
    core.set("is_done", lua.create_function(is_done)?)?;
    core.set("bell", lua.create_function(bell)?)?;
    core.set("ring", lua.create_function(ring)?)?;
    core.set("heard", lua.create_function(heard)?)?;
    core.set("shuts_down", lua.create_function(shuts_down)?)?;
    core.set("waiting", lua.create_function(waiting)?)?;
    let names: Vec<&str> = statistics::names().collect();
    core.set("stat_names", names)?;
    let defaults = lua.create_table()?;
    for key in KEYS {
        defaults.set(key.name, (key.default)())?;
    }
    core.set("defaults", defaults)?;
    let secrets = KEYS.iter().filter(|key| key.is_secret());
    let names = secrets.flat_map(|key| std::iter::once(&key.name).chain(key.aliases));
    core.set("secrets", lua.create_table_from(names.map(|name| (*name, true)))?)?;
    callbacks::add_to(lua, &core)?;
    Ok(core)
}

/// `core.kept`: a table of this VM's that no reload of a module forgets and no collection takes.
fn kept(lua: &Lua) -> mlua::Result<Table> {
    if let Some(table) = lua.named_registry_value(KEPT)? {
        return Ok(table);
    }
    let table = lua.create_table()?;
    lua.set_named_registry_value(KEPT, &table)?;
    Ok(table)
}

/// `core.codes`: name to number; `core.errors`: number to text.
fn add_codes(lua: &Lua, core: &Table) -> mlua::Result<()> {
    let (codes, errors) = (lua.create_table()?, lua.create_table()?);
    for (name, number, refusal) in ffi::codes::CODES {
        codes.set(*name, *number)?;
        errors.set(*number, refusal.to_string())?;
    }
    errors.set(ffi::codes::FAULT, ffi::codes::FAULT_TEXT)?;
    core.set("codes", codes)?;
    core.set("errors", errors)
}

/// Calls `f` with the producer that Lua names, see [`worker::with`].
fn with<T>(id: LightUserData, f: impl FnOnce(&mut Producer) -> T) -> Option<T> {
    worker::with(id.0.cast_const().cast(), f)
}

/// `core.init(conf, prefix) -> id | nil, err`: starts the default producer, or finds it running.
fn init(lua: &Lua, (conf, prefix): (Table, String)) -> mlua::Result<MultiValue> {
    let Some(entries) = value::entries(conf) else { return failure(lua, UNNAMED) };
    match worker::init(&entries, &prefix) {
        Ok(handle) => Ok(MultiValue::from_vec(vec![mlua::Value::LightUserData(id_of(handle))])),
        Err(error) => failure(lua, &error.to_string()),
    }
}

/// `core.check(conf, prefix) -> true | nil, err`: whether [`init`] would take this configuration. Starts nothing.
fn check(lua: &Lua, (conf, prefix): (Table, String)) -> mlua::Result<MultiValue> {
    let Some(entries) = value::entries(conf) else { return failure(lua, UNNAMED) };
    match Config::parse(&entries, &prefix) {
        Ok(_) => Ok(MultiValue::from_vec(vec![mlua::Value::Boolean(true)])),
        Err(error) => failure(lua, &error.to_string()),
    }
}

/// `core.set_init_error(name, err | nil)`: what the last `init()` of the producer of this name came to.
fn set_init_error(_: &Lua, (name, error): (String, Option<String>)) -> mlua::Result<()> {
    worker::set_init_error(&name, error);
    Ok(())
}

/// `core.init_error(name) -> err | nil`, as it was set, also by another VM or by the process that forked this one.
fn init_error(_: &Lua, name: String) -> mlua::Result<Option<String>> {
    Ok(worker::init_error(&name))
}

/// What Lua calls a producer by.
fn id_of(handle: &'static Handle) -> LightUserData {
    LightUserData(handle.address().cast_mut().cast::<c_void>())
}

/// The one place where errors of Rust's become `nil, err`.
fn failure(lua: &Lua, text: &str) -> mlua::Result<MultiValue> {
    let text = mlua::Value::String(lua.create_string(text)?);
    Ok(MultiValue::from_vec(vec![mlua::Value::Nil, text]))
}

/// `core.find(name) -> id | nil`: the producer of this name; the default one has the empty name.
fn find(_: &Lua, name: mlua::LuaString) -> mlua::Result<Option<LightUserData>> {
    Ok(std::str::from_utf8(&name.as_bytes()).ok().and_then(worker::find).map(id_of))
}

/// `core.serve(id) -> boolean`: true for the one VM that is to serve the producer from now on, see
/// [`Producer::begin_to_serve`].
fn serve(_: &Lua, id: LightUserData) -> mlua::Result<bool> {
    Ok(with(id, Producer::begin_to_serve).unwrap_or(false))
}

/// `core.flush(id) -> position | nil`: nil when the producer takes no more.
fn flush(_: &Lua, id: LightUserData) -> mlua::Result<Option<f64>> {
    let position = with(id, |producer| (!producer.ends()).then(|| producer.flush() as f64));
    Ok(position.flatten())
}

/// `core.is_done(id, position) -> boolean`
fn is_done(_: &Lua, (id, position): (LightUserData, f64)) -> mlua::Result<bool> {
    Ok(with(id, |producer| producer.is_done(position as u64)).unwrap_or(true))
}

/// `core.waiting(id) -> messages`
fn waiting(_: &Lua, id: LightUserData) -> mlua::Result<u64> {
    Ok(with(id, |producer| producer.handle().waiting()).unwrap_or(0))
}

/// `core.bell(id) -> path | nil, err`: where the driver's [bell](crate::driver::lua::bell) is heard.
fn bell(lua: &Lua, id: LightUserData) -> mlua::Result<MultiValue> {
    match with(id, |producer| producer.bell_path()) {
        Some(Ok(path)) => {
            let path = lua.create_string(path.as_os_str().as_bytes())?;
            Ok(MultiValue::from_vec(vec![mlua::Value::String(path)]))
        }
        Some(Err(error)) => failure(lua, &error.to_string()),
        None => failure(lua, &worker::Refusal::Closed.to_string()),
    }
}

/// `core.ring(id)`: as the driver does when it has left something for Lua.
fn ring(_: &Lua, id: LightUserData) -> mlua::Result<()> {
    with(id, |producer| producer.shared().bell.ring());
    Ok(())
}

/// `core.heard(id)`: the bell was heard, and what was left is looked at next.
fn heard(_: &Lua, id: LightUserData) -> mlua::Result<()> {
    with(id, |producer| producer.shared().bell.heard());
    Ok(())
}

/// `core.shuts_down(timeout_ms)`, see [`worker::shuts_down`].
fn shuts_down(_: &Lua, timeout_ms: f64) -> mlua::Result<()> {
    // The cast ends at the bounds, and makes 0 of what is no number.
    worker::shuts_down(Duration::from_millis(timeout_ms as u64));
    Ok(())
}
