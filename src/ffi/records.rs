//! Putting records into the queue: the hot path.

use super::codes::{OK, code};
use super::guard;
use crate::queue::Flags;
use crate::record::{Headers, Record};
use crate::worker::{Entry, Handle, Refusal};
use std::ffi::c_char;

/// A record with everything that it may have. The pointers are borrowed for the call.
#[repr(C)]
#[allow(non_camel_case_types, reason = "the name that C has for it")]
pub struct lkfk_record {
    /// Number of the topic, from [`lkfk_topic`].
    pub topic: u32,
    /// A partition, -1 for the default partitioner, or -2 when the caller's partitioner is to be asked later.
    pub partition: i32,
    /// See [`Entry::flags`].
    pub flags: u32,
    /// The time on the wire, milliseconds since 1970; negative: now.
    pub timestamp_ms: i64,
    /// The key, or null for a null key.
    pub key: *const c_char,
    /// Bytes of the key.
    pub key_len: usize,
    /// A block of headers as [`Headers`] has it, or null for none.
    pub headers: *const c_char,
    /// Bytes of the headers.
    pub headers_len: usize,
    /// The payload, or null for a null payload.
    pub payload: *const c_char,
    /// Bytes of the payload.
    pub payload_len: usize,
}

/// Milliseconds since 1970, as of the kernel's last tick: a few nanoseconds instead of some twenty, exact to the tick (1
/// to 10 ms).
fn coarse_ms() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// `len` bytes at `at`, or `None` where that is null.
///
/// # Safety
/// Unless it is null `at` points to `len` bytes that do not change during `'a`.
unsafe fn bytes<'a>(at: *const c_char, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise, see above.
    (!at.is_null()).then(|| unsafe { std::slice::from_raw_parts(at.cast(), len) })
}

fn code_of(result: Result<(), Refusal>) -> i32 {
    result.map_or_else(code, |()| OK)
}

/// Copies a record without headers into the queue, with the time of now.
///
/// # Arguments
/// `handle` names the producer. `topic` is a number from [`lkfk_topic`]. `partition` is a number, -1 for the default
/// partitioner, or -2 when the caller's partitioner is to be asked later. `key` is null for a null key. Key and payload
/// are copied before the return.
///
/// # Returns
/// 0.
///
/// # Errors
/// A negative code of [`CODES`](super::codes::CODES); then nothing was taken.
///
/// # Panics
/// Never: a panic inside becomes [`FAULT`](super::codes::FAULT).
///
/// # Safety
/// `handle` comes from `lkfk.core`; `payload` and, unless it is null, `key` point to as many bytes as their lengths say.
/// Called on nginx's thread.
pub unsafe extern "C" fn lkfk_push(
    handle: *const Handle,
    topic: u32,
    partition: i32,
    key: *const c_char,
    key_len: usize,
    payload: *const c_char,
    payload_len: usize,
) -> i32 {
    // SAFETY: the caller's promise, see above.
    guard(|| unsafe {
        let (key, payload) = (bytes(key, key_len), bytes(payload, payload_len));
        let logged_ms = coarse_ms();
        let record = Record::new(logged_ms, key, payload);
        let entry = Entry { topic, partition, flags: Flags::NONE, logged_ms, record };
        code_of((*handle).push(&entry))
    })
}

/// Copies a record into the queue, with everything that a record may have.
///
/// # Arguments
/// `handle` names the producer. `record` and all that it points to are copied before the return. The block of headers is
/// checked first.
///
/// # Returns
/// 0.
///
/// # Errors
/// A negative code of [`CODES`](super::codes::CODES); then nothing was taken.
///
/// # Panics
/// Never: a panic inside becomes [`FAULT`](super::codes::FAULT).
///
/// # Safety
/// `handle` comes from `lkfk.core`; `record` points to one whose pointers, unless they are null, point to as many bytes
/// as their lengths say. Called on nginx's thread.
pub unsafe extern "C" fn lkfk_push_record(
    handle: *const Handle,
    record: *const lkfk_record,
) -> i32 {
    // SAFETY: the caller's promise, see above.
    guard(|| unsafe {
        let (handle, from) = (&*handle, &*record);
        let headers = bytes(from.headers, from.headers_len).unwrap_or_default();
        let headers = match Headers::check(headers) {
            Ok(headers) => headers,
            Err(error) => return code(handle.reject(error.into())),
        };
        let Some(flags) = Flags::from_bits(from.flags) else {
            return code(handle.reject(Refusal::Flags));
        };
        let logged_ms = coarse_ms();
        let record = Record {
            timestamp_ms: if from.timestamp_ms < 0 { logged_ms } else { from.timestamp_ms },
            key: bytes(from.key, from.key_len),
            headers,
            payload: bytes(from.payload, from.payload_len),
        };
        let lkfk_record { topic, partition, .. } = *from;
        code_of(handle.push(&Entry { topic, partition, flags, logged_ms, record }))
    })
}

/// Number of a topic, for [`lkfk_push`]. The same name gives the same number, for the same producer.
///
/// # Arguments
/// `handle` names the producer; `name` has `name_len` bytes.
///
/// # Returns
/// The number, from 0 on.
///
/// # Errors
/// A negative code of [`CODES`](super::codes::CODES).
///
/// # Panics
/// Never: a panic inside becomes [`FAULT`](super::codes::FAULT).
///
/// # Safety
/// `handle` comes from `lkfk.core`; `name` points to `name_len` bytes. Called on nginx's thread.
pub unsafe extern "C" fn lkfk_topic(
    handle: *const Handle,
    name: *const c_char,
    name_len: usize,
) -> i32 {
    // SAFETY: the caller's promise, see above.
    guard(|| unsafe {
        let name = bytes(name, name_len).unwrap_or_default();
        (*handle).topic(name).map_or_else(code, i32::from)
    })
}
