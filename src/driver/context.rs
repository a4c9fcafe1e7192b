//! What the components of a producer's event loop are given: the time, the configuration, and what is shared.

use super::lua::LuaPorts;
use super::lua::bell::{self, Bell};
use super::lua::log::LogBuffer;
use super::report::Report;
use super::undelivered::disk::Disk;
use crate::producer::Time;
use crate::stats::Stats;
use rustix::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What nginx's event loop and the driver thread share of one producer, besides its queue.
pub struct Shared {
    /// Values for `kfk.stats()`.
    pub stats: Stats,
    /// Lines for `ngx.log`.
    pub log: LogBuffer,
    /// What goes to Lua callbacks and comes from them.
    pub lua: LuaPorts,
    /// Wakes Lua.
    pub bell: Arc<Bell>,
    /// Wakes the producer's event loop.
    pub wake: OwnedFd,
    /// Position up to which everything is to be sent without lingering.
    pub(super) flush: AtomicU64,
    /// Set once when the worker begins to leave: nothing of others' is begun any more.
    leaving: AtomicBool,
    /// Set once to end the producer; from then on the deadline counts.
    stopping: AtomicBool,
    /// When a stopping producer gives up, microseconds on its clock.
    stop_by: AtomicU64,
    /// Zero of that clock.
    start: Instant,
}

impl Shared {
    #[allow(clippy::disallowed_methods, reason = "the driver reads the clock for the layers below")]
    pub(super) fn new(wake: OwnedFd) -> Shared {
        let bell = bell::of_process();
        Shared {
            stats: Stats::default(),
            log: LogBuffer::ringing(bell.clone()),
            lua: LuaPorts::new(&bell),
            bell,
            wake,
            flush: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stop_by: AtomicU64::new(u64::MAX),
            start: Instant::now(),
        }
    }

    /// Microseconds since the producer was started.
    pub(super) fn now(&self) -> Time {
        Time(self.start.elapsed().as_micros() as u64)
    }

    /// Wakes the producer's event loop. Never blocks: a full eventfd is a wake-up already.
    pub fn signal(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Reports to operators; see [`LogBuffer::put`].
    pub(super) fn report(&self, report: &dyn Report) {
        self.log.put(self.now(), report);
    }

    /// True while queues of dead workers and backup files are this worker's business.
    pub(super) fn looks_after_others(&self) -> bool {
        !self.leaving.load(Ordering::Acquire) && !self.is_stopping()
    }

    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        self.signal();
        self.bell.close();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// When a stopping producer gives up.
    pub(super) fn stop_by(&self) -> Time {
        Time(self.stop_by.load(Ordering::Relaxed))
    }

    /// Ends the producer within `limit` from now. Called again with less than is left it shortens that.
    pub(super) fn stop_within(&self, limit: Duration) {
        self.stop_by.fetch_min((self.now() + limit).0, Ordering::Relaxed);
        self.stopping.store(true, Ordering::Release);
        self.signal();
    }

    /// True once the event loop begins no callbacks any more.
    pub(super) fn callbacks_ended(&self) -> bool {
        self.is_stopping() || self.lua.callbacks_ended()
    }
}

/// What a component is given in each turn.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub now: Time,
    pub shared: &'a Shared,
    pub disk: &'a Disk,
}

impl Context<'_> {
    /// Reports to operators; see [`LogBuffer::put`].
    pub fn report(&self, report: &dyn Report) {
        self.shared.log.put(self.now, report);
    }
}

/// Milliseconds since 1970.
#[allow(clippy::disallowed_methods, reason = "the driver reads the clock for the layers below")]
pub(super) fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
