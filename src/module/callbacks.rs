//! What `lua/lkfk/callbacks.lua` and `stats.lua` need of a producer's [`LuaPorts`]. The first argument of each function
//! names the producer, see [`super`].

use super::with;
use crate::backup::LineBatch;
use crate::backup::format::Line;
use crate::driver::lua::topics::Row;
use crate::driver::lua::{Append, LuaPorts};
use crate::producer::RecordId;
use crate::record::{Headers, Record};
use crate::topic_name;
use mlua::{Function, LightUserData, Lua, LuaString, MultiValue, Table};

pub(super) fn add_to(lua: &Lua, core: &Table) -> mlua::Result<()> {
    core.set("next_failure", lua.create_function(next_failure)?)?;
    core.set("headers_of", lua.create_function(headers_of)?)?;
    core.set("failure_done", lua.create_function(failure_done)?)?;
    core.set("next_question", lua.create_function(next_question)?)?;
    core.set("answer", lua.create_function(answer)?)?;
    core.set("end_callbacks", lua.create_function(end_callbacks)?)?;
    core.set("is_alive", lua.create_function(is_alive)?)?;
    core.set("has_partitioner", lua.create_function(has_partitioner)?)?;
    core.set("signal", lua.create_function(signal)?)?;
    core.set("append", lua.create_function(append)?)?;
    core.set("back_up", lua.create_function(back_up)?)?;
    core.set("partition_count", lua.create_function(partition_count)?)?;
    core.set("waiting_by_partition", lua.create_function(waiting_by_partition)?)?;
    Ok(())
}

/// Calls `f` with what the callbacks of a producer exchange with its driver.
fn with_lua<T>(id: LightUserData, f: impl FnOnce(&LuaPorts) -> T) -> Option<T> {
    with(id, |producer| f(&producer.shared().lua))
}

/// `core.next_failure(id) -> { id=, topic=, key=, str=, headers=, timestamp=, err=, code= } | nil`
fn next_failure(lua: &Lua, id: LightUserData) -> mlua::Result<Option<Table>> {
    let Some(failure) = with_lua(id, |lua| lua.failures.take()).flatten() else {
        return Ok(None);
    };
    let msg = lua.create_table()?;
    msg.set("id", failure.id.0 as f64)?;
    msg.set("topic", failure.topic)?;
    if let Some(key) = failure.key {
        msg.set("key", lua.create_string(key)?)?;
    }
    if let Some(payload) = failure.payload {
        msg.set("str", lua.create_string(payload)?)?;
    }
    msg.set("headers", list_of(lua, &failure.headers)?)?;
    msg.set("timestamp", failure.timestamp_ms as f64)?;
    msg.set("err", failure.reason)?;
    msg.set("code", failure.code)?;
    Ok(Some(msg))
}

/// A block of headers as a list of `{ name, value }`, as `log()` takes it; a null value is `ngx.null`. Nil without headers.
fn list_of(lua: &Lua, block: &[u8]) -> mlua::Result<Option<Table>> {
    // It was checked when it was taken.
    let headers = Headers::check(block).unwrap_or(Headers::NONE);
    if headers.is_empty() {
        return Ok(None);
    }
    let list = lua.create_table()?;
    for (name, value) in headers.iter() {
        let value = match value {
            Some(value) => mlua::Value::String(lua.create_string(value)?),
            None => mlua::Value::NULL,
        };
        let pair = lua.create_table()?;
        pair.raw_push(name)?;
        pair.raw_push(value)?;
        list.raw_push(pair)?;
    }
    Ok(Some(list))
}

/// `core.headers_of(block) -> list | nil`
fn headers_of(lua: &Lua, block: LuaString) -> mlua::Result<Option<Table>> {
    list_of(lua, &block.as_bytes())
}

/// `core.failure_done(id, message, handled)`
fn failure_done(_: &Lua, (id, message, handled): (LightUserData, f64, bool)) -> mlua::Result<()> {
    with_lua(id, |lua| lua.give_verdict(RecordId(message as u64), handled));
    Ok(())
}

/// `core.next_question(id) -> message, partition_count, key | nil`
fn next_question(lua: &Lua, id: LightUserData) -> mlua::Result<MultiValue> {
    let Some(question) = with_lua(id, |lua| lua.questions.take()).flatten() else {
        return Ok(MultiValue::new());
    };
    let key = match question.key {
        Some(key) => mlua::Value::String(lua.create_string(key)?),
        None => mlua::Value::Nil,
    };
    let message = mlua::Value::Number(question.id.0 as f64);
    let count = mlua::Value::Number(f64::from(question.partitions));
    Ok(MultiValue::from_vec(vec![message, count, key]))
}

/// `core.answer(id, message, partition | nil)`
fn answer(
    _: &Lua,
    (id, message, partition): (LightUserData, f64, Option<u32>),
) -> mlua::Result<()> {
    with_lua(id, |lua| lua.questions.answer((RecordId(message as u64), partition)));
    Ok(())
}

/// `core.end_callbacks(id)`: no timer will run any more.
fn end_callbacks(_: &Lua, id: LightUserData) -> mlua::Result<()> {
    with(id, |producer| {
        producer.shared().lua.end_callbacks();
        producer.shared().signal();
    });
    Ok(())
}

/// `core.is_alive(pid) -> boolean`: whether there is such a process.
fn is_alive(_: &Lua, pid: i32) -> mlua::Result<bool> {
    let pid = rustix::process::Pid::from_raw(pid.max(0));
    // A process that may not be signalled is there all the same.
    Ok(pid
        .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)))
}

/// `core.has_partitioner(id) -> boolean`
fn has_partitioner(_: &Lua, id: LightUserData) -> mlua::Result<bool> {
    Ok(with(id, |producer| producer.config().callbacks.partitioner.0).unwrap_or(false))
}

/// `core.signal(id)`: wakes the driver to look at what was answered.
fn signal(_: &Lua, id: LightUserData) -> mlua::Result<()> {
    with(id, |producer| producer.shared().signal());
    Ok(())
}

/// `core.append(id, topic, text) -> true | false`: false when the topic is none or the disk is too far behind.
fn append(_: &Lua, (id, topic, text): (LightUserData, LuaString, LuaString)) -> mlua::Result<bool> {
    Ok(put(id, &topic, |_| Append::Others(text.as_bytes().to_vec())))
}

/// What `core.back_up` is given: the producer, topic, key or nil, payload or nil, seconds, block of headers or nil, time on
/// the wire or nil.
type Refused = (
    LightUserData,
    LuaString,
    Option<LuaString>,
    Option<LuaString>,
    f64,
    Option<LuaString>,
    Option<f64>,
);

/// `core.back_up(id, topic, key | nil, payload | nil, seconds[, headers[, timestamp]]) -> true | false`: a backup line, as
/// the driver writes it, for a message that `log()` refused. False as for `append`.
fn back_up(_: &Lua, refused: Refused) -> mlua::Result<bool> {
    let (id, topic, key, payload, seconds, headers, timestamp_ms) = refused;
    let (key, payload, headers) = (
        key.as_ref().map(|key| key.as_bytes()),
        payload.as_ref().map(|payload| payload.as_bytes()),
        headers.as_ref().map(|headers| headers.as_bytes()),
    );
    let logged_ms = (seconds * 1000.0) as i64;
    let record = Record {
        timestamp_ms: timestamp_ms.map_or(logged_ms, |ms| ms as i64),
        key: key.as_deref(),
        // What `log()` did not check, since it never came so far.
        headers: Headers::check(headers.as_deref().unwrap_or_default()).unwrap_or(Headers::NONE),
        payload: payload.as_deref(),
    };
    Ok(put(id, &topic, |topic| {
        let mut lines = LineBatch::default();
        lines.push_refused(&Line { logged_ms, topic, record });
        Append::Own(lines)
    }))
}

/// Leaves what is to be appended to a topic's file with the driver, and wakes it. False when the topic is none or the
/// disk is too far behind.
fn put(id: LightUserData, topic: &LuaString, append: impl FnOnce(&str) -> Append) -> bool {
    let topic = topic.as_bytes();
    let topic = std::str::from_utf8(&topic).ok().filter(|name| topic_name::is_valid(name));
    let Some(topic) = topic else { return false };
    with(id, |producer| {
        let taken = producer.shared().lua.appends.put(topic, append(topic));
        producer.shared().signal();
        taken
    })
    .unwrap_or(false)
}

/// `core.partition_count(id, topic number) -> count | nil`
fn partition_count(_: &Lua, (id, topic): (LightUserData, usize)) -> mlua::Result<Option<u32>> {
    Ok(with_lua(id, |lua| lua.topics.partition_count(topic)).flatten())
}

/// `core.waiting_by_partition(id, most) -> next`, a function for `for`: each time it gives `{ "<topic><partition>",
/// messages, ... }` of the next `most` partitions. A name may be there more than once.
fn waiting_by_partition(lua: &Lua, (id, most): (LightUserData, usize)) -> mlua::Result<Function> {
    let mut rows = with_lua(id, |lua| lua.topics.waiting());
    let mut at = 0_usize;
    lua.create_function_mut(move |lua, ()| {
        let left = rows.as_deref().and_then(|rows| rows.get(at..)).unwrap_or_default();
        let next = &left[..left.len().min(most)];
        at += next.len();
        if next.is_empty() {
            // Lua keeps this function for a while: the rows are let go of now.
            rows = None;
            return Ok(None);
        }
        names_and_counts(lua, next).map(Some)
    })
}

fn names_and_counts(lua: &Lua, rows: &[Row]) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(2 * rows.len(), 0)?;
    for (topic, partition, count) in rows {
        table.raw_push(format!("{topic}{partition}"))?;
        table.raw_push(*count)?;
    }
    Ok(table)
}
