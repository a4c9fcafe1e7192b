//! Putting records into the queue: the hot path.

use super::{
    ABI, Api, BAD_TOPIC, BAD_TOPIC_ID, CLOSED, NO_SPACE, OK, TOO_LARGE, TOO_MANY_MESSAGES,
    TOO_MANY_TOPICS, TOPIC_UNKNOWN, exit, guard, stats as stats_ffi,
};
use crate::driver::Shared;
use crate::queue::{Flags, PushError, TopicError, Writer};
use crate::record::Record;
use crate::stats;
use std::cell::{Cell, UnsafeCell};
use std::collections::HashSet;
use std::ffi::c_char;
use std::sync::Arc;

/// What stands behind the C functions. Made once and never freed, since Lua keeps its address.
pub struct Handle {
    writer: UnsafeCell<Writer>,
    pub(super) shared: Arc<Shared>,
    /// Topics that may be logged to; `None` when all may.
    allowed: Option<HashSet<String>>,
    closed: Cell<bool>,
    rejected: Cell<u64>,
    api: Api,
}

// SAFETY: the cells are touched by nginx's thread alone, which is the only one that calls Lua, and with it
// the C functions and `worker`.
unsafe impl Sync for Handle {}

impl Handle {
    /// Makes the handle and gives it to the process.
    pub fn leak(writer: Writer, shared: Arc<Shared>, topics: &[String]) -> &'static Handle {
        let handle = Box::into_raw(Box::new(Handle {
            writer: UnsafeCell::new(writer),
            shared,
            allowed: (!topics.is_empty()).then(|| topics.iter().cloned().collect()),
            closed: Cell::new(false),
            rejected: Cell::new(0),
            api: Api {
                abi: ABI,
                size: size_of::<Api>() as u32,
                handle: std::ptr::null(),
                push: lkfk_push,
                topic: lkfk_topic,
                next_line: exit::lkfk_next_line,
                stat: stats_ffi::lkfk_stat,
                stop: exit::lkfk_stop,
                write_line: exit::lkfk_write_line,
            },
        }));
        // SAFETY: the box was just made and is never freed; nobody else has its address yet. What Lua gets
        // is the raw pointer itself, so that it stays valid beside the shared references handed out here.
        unsafe {
            (*handle).api.handle = handle;
            &*handle
        }
    }

    /// The functions.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Refuses all records from now on.
    pub fn close(&self) {
        self.closed.set(true);
    }

    fn writer(&self) -> &Writer {
        // SAFETY: no push is under way: all of this runs on nginx's thread, and push calls nobody.
        unsafe { &*self.writer.get() }
    }

    /// Position after the last record taken.
    pub fn tail(&self) -> u64 {
        self.writer().tail()
    }

    /// Records in the queue.
    pub fn waiting(&self) -> u64 {
        self.writer().waiting()
    }

    /// Brings the statistics that this thread owns up to date.
    pub(super) fn refresh_stats(&self) {
        let (stats, writer) = (&self.shared.stats, self.writer());
        stats::set(&stats.accepted_cnt, writer.written());
        stats::set(&stats.rejected_cnt, self.rejected.get());
        stats::set(&stats.queue_messages, writer.waiting());
        stats::set(&stats.queue_bytes, writer.bytes_in_use());
    }

    fn reject(&self, code: i32) -> i32 {
        self.rejected.set(self.rejected.get() + 1);
        code
    }

    /// Takes a record; the code for Lua.
    #[inline]
    pub fn push(&self, topic: u32, partition: i32, key: Option<&[u8]>, payload: &[u8]) -> i32 {
        if self.closed.get() {
            return self.reject(CLOSED);
        }
        let Ok(topic) = u16::try_from(topic) else { return self.reject(BAD_TOPIC_ID) };
        // SAFETY: the only reference to the writer: nginx's thread is in here once at a time, since
        // nothing below calls back into Lua.
        let writer = unsafe { &mut *self.writer.get() };
        let now_ms = coarse_ms();
        let record = Record::new(now_ms, key, Some(payload));
        match writer.push(topic, partition, now_ms, &record, Flags::NONE) {
            Ok(false) => OK,
            Ok(true) => {
                self.shared.signal();
                OK
            }
            Err(error) => self.reject(match error {
                PushError::TooManyMessages => TOO_MANY_MESSAGES,
                PushError::NoSpace => NO_SPACE,
                PushError::TooLarge => TOO_LARGE,
                PushError::UnknownTopic => BAD_TOPIC_ID,
            }),
        }
    }

    /// Number of a topic, or a negative code.
    pub fn topic(&self, name: &[u8]) -> i32 {
        let Ok(name) = std::str::from_utf8(name) else { return self.reject(BAD_TOPIC) };
        if self.allowed.as_ref().is_some_and(|allowed| !allowed.contains(name)) {
            return self.reject(TOPIC_UNKNOWN);
        }
        // SAFETY: as in `push`.
        let writer = unsafe { &mut *self.writer.get() };
        match writer.topic(name) {
            Ok(id) => i32::from(id),
            Err(TopicError::Invalid) => self.reject(BAD_TOPIC),
            Err(TopicError::TableFull) => self.reject(TOO_MANY_TOPICS),
            Err(TopicError::NoSpace) => self.reject(NO_SPACE),
        }
    }
}

/// Milliseconds since 1970, as of the kernel's last tick: a few nanoseconds instead of some twenty, exact
/// to the tick (1 to 10 ms).
fn coarse_ms() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// Copies a record into the queue.
///
/// # Arguments
/// `topic` from [`lkfk_topic`]; `partition` a number, -1 for the default partitioner or -2 when the caller's
/// partitioner is to be asked later; `key` null for a null key; payload and key are copied before the return.
///
/// # Returns
/// 0, or a negative code of [`CODES`](super::CODES): then nothing was taken.
///
/// # Safety
/// `handle` is the one of [`Api`]; `key` (unless null) and `payload` point to as many bytes as their
/// lengths say. Called on nginx's thread.
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
        let handle = &*handle;
        let key = (!key.is_null()).then(|| std::slice::from_raw_parts(key.cast(), key_len));
        handle.push(topic, partition, key, std::slice::from_raw_parts(payload.cast(), payload_len))
    })
}

/// Number of a topic, for [`lkfk_push`]. The same name gives the same number.
///
/// # Returns
/// The number, or a negative code of [`CODES`](super::CODES).
///
/// # Safety
/// `handle` is the one of [`Api`]; `name` points to `name_len` bytes. Called on nginx's thread.
pub unsafe extern "C" fn lkfk_topic(
    handle: *const Handle,
    name: *const c_char,
    name_len: usize,
) -> i32 {
    // SAFETY: the caller's promise, see above.
    guard(|| unsafe {
        let handle = &*handle;
        handle.topic(std::slice::from_raw_parts(name.cast(), name_len))
    })
}
