//! Lines for nginx's error log when `ngx.log` can no longer be called: while a Lua VM is closed, and while the process
//! exits. nginx points stderr at its error log.

#![allow(clippy::disallowed_methods, reason = "a log line carries the time")]

use crate::local_time;
use crate::nginx::error_log;
use crate::report_kind::Level;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes a line to stderr, in the form that nginx gives the lines of its error log, if that one takes such lines.
pub(crate) fn write_line(level: Level, tag: &str, text: &[u8]) {
    if !error_log::takes(level as usize) {
        return;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut line = Vec::with_capacity(text.len() + 64);
    local_time::put(&mut line, since.as_millis() as i64, b'/');
    let (level, pid) = (level.name(), std::process::id());
    line.extend(format!(" [{level}] {pid}#0: {tag}").bytes());
    line.extend_from_slice(text);
    line.push(b'\n');
    // With stderr closed there is nobody left to tell.
    let _ = std::io::stderr().write_all(&line);
}
