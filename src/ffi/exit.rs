//! Log lines and the end. The end comes from a `__gc` while nginx closes the Lua VM: the module's own Lua
//! functions and `ngx.log` may be gone by then, so it is a plain C function and writes the last lines
//! itself, to stderr, which nginx points at its error log.

#![allow(clippy::disallowed_methods, reason = "the last log lines carry the time")]

use super::{Handle, guard};
use crate::driver::Level;
use crate::{local_time, worker};
use std::ffi::c_char;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Takes the driver's oldest log line.
///
/// # Arguments
/// `line` takes at most `size` bytes, without a terminating zero; `level` takes nginx's log level.
///
/// # Returns
/// Bytes written, or -1 when there is no line. A line longer than `size` is cut.
///
/// # Safety
/// `handle` is the one of [`Api`](super::Api); `line` and `level` point to memory of ours to write. Called on
/// nginx's thread.
pub unsafe extern "C" fn lkfk_next_line(
    handle: *const Handle,
    line: *mut c_char,
    size: usize,
    level: *mut i32,
) -> i32 {
    // SAFETY: the caller's promise, see above; the copy is bounded by both lengths.
    guard(|| unsafe {
        let handle = &*handle;
        let Some((nginx_level, text)) = handle.shared.log.take() else { return -1 };
        let len = text.len().min(size).min(i32::MAX as usize);
        line.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), len);
        *level = nginx_level as i32;
        len as i32
    })
}

/// Ends the producer, see [`worker::stop`], and writes its last log lines to stderr. Blocks for
/// `exit_timeout_ms` and what writing the rest to disk takes.
///
/// # Safety
/// `handle` is the one of [`Api`](super::Api). Called on nginx's thread.
pub unsafe extern "C" fn lkfk_stop(handle: *const Handle) {
    guard(|| {
        worker::stop();
        // SAFETY: the caller's promise, see above.
        let lines = unsafe { &(&*handle).shared.log };
        while let Some((level, text)) = lines.take() {
            write_line(level.name(), "[lkfk] ", text.as_bytes());
        }
        0
    });
}

/// Writes a line to stderr as nginx would write it to its error log.
///
/// # Arguments
/// `text` of `len` bytes; `level` is nginx's number, of which `ngx.WARN` and below are known.
///
/// # Safety
/// `text` points to `len` bytes. Called on nginx's thread.
pub unsafe extern "C" fn lkfk_write_line(text: *const c_char, len: usize, level: i32) {
    guard(|| {
        // SAFETY: the caller's promise, see above.
        let text = unsafe { std::slice::from_raw_parts(text.cast(), len) };
        write_line(if level <= Level::Warn as i32 { "warn" } else { "notice" }, "", text);
        0
    });
}

fn write_line(level: &str, tag: &str, text: &[u8]) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut line = Vec::with_capacity(text.len() + 64);
    local_time::put(&mut line, since.as_millis() as i64, b'/');
    line.extend(format!(" [{level}] {}#0: {tag}", std::process::id()).bytes());
    line.extend_from_slice(text);
    line.push(b'\n');
    // With stderr closed there is nobody left to tell.
    let _ = std::io::stderr().write_all(&line);
}
