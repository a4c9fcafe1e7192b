//! Lines for nginx's error log when `ngx.log` can no longer be called: while a Lua VM is closed, and while the process
//! exits. nginx points stderr at its error log.

#![allow(clippy::disallowed_methods, reason = "a log line carries the time")]

use crate::local_time;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes a line to stderr, in the form that nginx gives the lines of its error log.
pub(crate) fn write_line(level: &str, tag: &str, text: &[u8]) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut line = Vec::with_capacity(text.len() + 64);
    local_time::put(&mut line, since.as_millis() as i64, b'/');
    line.extend(format!(" [{level}] {}#0: {tag}", std::process::id()).bytes());
    line.extend_from_slice(text);
    line.push(b'\n');
    // With stderr closed there is nobody left to tell.
    let _ = std::io::stderr().write_all(&line);
}
