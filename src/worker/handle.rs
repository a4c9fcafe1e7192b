//! The writing half of a producer: what `log()` goes through.
//!
//! A [`Handle`] is never freed, since Lua keeps its address. It is a pointer's width: everything behind it is dropped
//! when the producer is closed by name, and from then on every call is told [`Refusal::Closed`]. So a process that makes
//! and closes producers without end keeps a few bytes for each.

use crate::driver::Shared;
use crate::queue::{Flags, PushError, TopicError, Writer};
use crate::record::{HeadersError, Record};
use crate::stats;
use std::cell::{Cell, UnsafeCell};
use std::collections::HashSet;
use std::sync::Arc;

/// Why a record or a topic was not taken. The texts are what `log()` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The queue did not take the record.
    #[error(transparent)]
    Record(#[from] PushError),
    /// The queue did not take the topic.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The headers are not a block of headers.
    #[error(transparent)]
    Headers(#[from] HeadersError),
    /// Bits that are no flags.
    #[error("unknown flags of a record")]
    Flags,
    /// The configuration names the topics that may be logged to, and this is none of them.
    #[error("topic unknown: it is not in the topics of the configuration")]
    TopicUnknown,
    /// The process ends.
    #[error("the worker is exiting")]
    Exiting,
    /// The producer was closed by its name.
    #[error("the producer is closed")]
    Closed,
}

/// A record and where it is to go.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Number of the topic, from [`Handle::topic`].
    pub topic: u32,
    /// A partition, or one of [`NO_PARTITION`](crate::queue::layout::NO_PARTITION) and
    /// [`ASK_PARTITION`](crate::queue::layout::ASK_PARTITION).
    pub partition: i32,
    /// What else is asked for.
    pub flags: Flags,
    /// When it was logged: the wall clock's time, milliseconds since 1970.
    pub logged_ms: i64,
    /// The record.
    pub record: Record<'a>,
}

/// The writing half of a producer, under an address that stays.
pub struct Handle {
    open: UnsafeCell<Option<Box<Open>>>,
}

/// What is behind the handle of a producer that is not closed.
struct Open {
    writer: UnsafeCell<Writer>,
    shared: Arc<Shared>,
    /// Topics that may be logged to; `None` when all may.
    allowed: Option<HashSet<String>>,
    exiting: Cell<bool>,
    rejected: Cell<u64>,
}

// SAFETY: the cells are touched by nginx's thread alone, which is the only one that calls Lua, and with it the C
// functions and `worker`.
unsafe impl Sync for Handle {}

impl Handle {
    /// Makes a handle and gives it to the process.
    pub fn leak(writer: Writer, shared: Arc<Shared>, topics: &[String]) -> &'static Handle {
        let open = Open {
            writer: UnsafeCell::new(writer),
            shared,
            allowed: (!topics.is_empty()).then(|| topics.iter().cloned().collect()),
            exiting: Cell::new(false),
            rejected: Cell::new(0),
        };
        Box::leak(Box::new(Handle { open: UnsafeCell::new(Some(Box::new(open))) }))
    }

    /// What Lua calls this producer by.
    pub fn address(&'static self) -> *const Handle {
        self
    }

    #[inline]
    fn open(&self) -> Option<&Open> {
        // SAFETY: only `close` writes the cell. It runs on nginx's thread like everything here, and nothing that holds
        // this reference calls it or anybody outside of this module.
        unsafe { (*self.open.get()).as_deref() }
    }

    /// Refuses all records from now on, and still answers what was counted: the process ends.
    pub fn exit(&self) {
        if let Some(open) = self.open() {
            open.exiting.set(true);
        }
    }

    /// Drops all that is behind the handle: the producer was closed by name.
    pub fn close(&self) {
        // SAFETY: as in `open`: no reference to what is dropped here is alive.
        unsafe { *self.open.get() = None };
    }

    /// Position after the last record taken.
    pub fn tail(&self) -> u64 {
        self.open().map_or(0, |open| open.writer().tail())
    }

    /// Records in the queue.
    pub fn waiting(&self) -> u64 {
        self.open().map_or(0, |open| open.writer().waiting())
    }

    /// What is shared with the driver, unless the producer is closed.
    pub fn shared(&self) -> Option<&Shared> {
        self.open().map(|open| &*open.shared)
    }

    /// Brings the statistics up to date that nginx's thread owns.
    pub fn refresh_stats(&self) {
        let Some(open) = self.open() else { return };
        let (stats, writer) = (&open.shared.stats, open.writer());
        stats::set(&stats.accepted_cnt, writer.written());
        stats::set(&stats.rejected_cnt, open.rejected.get());
        stats::set(&stats.queue_messages, writer.waiting());
        stats::set(&stats.queue_bytes, writer.bytes_in_use());
        stats::set(&stats.queue_segments_by_log, writer.allocated_by_writer());
    }

    /// Takes a record.
    #[inline]
    pub fn push(&self, entry: &Entry<'_>) -> Result<(), Refusal> {
        let open = self.open().ok_or(Refusal::Closed)?;
        open.count(open.push(entry))
    }

    /// Counts a record that was refused before it came as far as [`push`](Self::push).
    pub fn reject(&self, refusal: Refusal) -> Refusal {
        if let Some(open) = self.open() {
            open.rejected.set(open.rejected.get() + 1);
        }
        refusal
    }

    /// Number of a topic, for [`Entry::topic`]. The same name gives the same number.
    pub fn topic(&self, name: &[u8]) -> Result<u16, Refusal> {
        let open = self.open().ok_or(Refusal::Closed)?;
        open.count(open.topic(name))
    }
}

impl Open {
    fn writer(&self) -> &Writer {
        // SAFETY: no push is under way: all of this runs on nginx's thread, and push calls nobody.
        unsafe { &*self.writer.get() }
    }

    #[inline]
    fn count<T>(&self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        if result.is_err() {
            self.rejected.set(self.rejected.get() + 1);
        }
        result
    }

    #[inline]
    fn push(&self, entry: &Entry<'_>) -> Result<(), Refusal> {
        if self.exiting.get() {
            return Err(Refusal::Exiting);
        }
        let topic = u16::try_from(entry.topic).map_err(|_| PushError::UnknownTopic)?;
        // SAFETY: the only reference to the writer: nginx's thread is in here once at a time, since nothing below calls
        // back into Lua.
        let writer = unsafe { &mut *self.writer.get() };
        if write(writer, topic, entry)? {
            self.shared.signal();
        }
        Ok(())
    }

    fn topic(&self, name: &[u8]) -> Result<u16, Refusal> {
        if self.exiting.get() {
            return Err(Refusal::Exiting);
        }
        let name = std::str::from_utf8(name).map_err(|_| TopicError::Invalid)?;
        if self.allowed.as_ref().is_some_and(|allowed| !allowed.contains(name)) {
            return Err(Refusal::TopicUnknown);
        }
        // SAFETY: as in `push`.
        Ok(unsafe { &mut *self.writer.get() }.topic(name)?)
    }
}

/// The one place that calls the queue's writer. True when the driver is to be woken.
#[inline]
fn write(writer: &mut Writer, topic: u16, entry: &Entry<'_>) -> Result<bool, PushError> {
    writer.push(topic, entry.partition, entry.logged_ms, &entry.record, entry.flags)
}
