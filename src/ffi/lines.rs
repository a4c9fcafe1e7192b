//! Log lines: those of the driver, which Lua hands to `ngx.log`, and those that are written without it.

use super::guard;
use crate::report_kind::Level;
use crate::worker::{Handle, write_line};
use std::ffi::c_char;

/// Takes the oldest log line of a producer.
///
/// # Arguments
/// `handle` names the producer. `line` takes at most `size` bytes, without a terminating zero; a longer line is cut.
/// `level` takes nginx's log level.
///
/// # Returns
/// The bytes that were written, or -1 when there is no line or the producer is closed.
///
/// # Errors
/// None but those of a panic.
///
/// # Panics
/// Never: a panic inside becomes [`FAULT`](super::codes::FAULT), which is negative as well.
///
/// # Safety
/// `handle` comes from `lkfk.core`; `line` and `level` point to the caller's memory to write. Called on nginx's thread.
pub unsafe extern "C" fn lkfk_next_line(
    handle: *const Handle,
    line: *mut c_char,
    size: usize,
    level: *mut i32,
) -> i32 {
    // SAFETY: the caller's promise, see above; the copy is bounded by both lengths.
    guard(|| unsafe {
        let next = (*handle).shared().and_then(|shared| shared.log.take());
        let Some((nginx_level, text)) = next else { return -1 };
        let len = text.len().min(size).min(i32::MAX as usize);
        line.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), len);
        *level = nginx_level as i32;
        len as i32
    })
}

/// Writes a line to stderr as nginx would write it to its error log, when `ngx.log` may touch a request that is gone.
///
/// # Arguments
/// `text` of `len` bytes; `level` is nginx's number: up to `ngx.WARN` it is a warning, above that a notice.
///
/// # Returns
/// Nothing.
///
/// # Errors
/// What stderr does not take is lost, and so is a line of a level that nginx's error log leaves out.
///
/// # Panics
/// Never: a panic inside is caught.
///
/// # Safety
/// `text` points to `len` bytes. Called on nginx's thread.
pub unsafe extern "C" fn lkfk_write_line(text: *const c_char, len: usize, level: i32) {
    guard(|| {
        // SAFETY: the caller's promise, see above.
        let text = unsafe { std::slice::from_raw_parts(text.cast(), len) };
        let is_warning = level <= Level::Warn as i32;
        write_line(if is_warning { Level::Warn } else { Level::Notice }, "", text);
        0
    });
}
