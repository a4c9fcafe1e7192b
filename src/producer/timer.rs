//! Time as the producer knows it, and its one table of deadlines.

use super::{BrokerId, TopicId};
use crate::seeded_bug::{Bug, is_seeded};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// A point on the caller's monotonic clock, microseconds since whatever the caller chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub u64);

impl Time {
    /// Later than everything.
    pub const NEVER: Time = Time(u64::MAX);

    /// When something was written that bears the wall clock's time `stamp_ms`, now that the wall clock says
    /// `wall_ms`. It may have been set in between: nothing was written after now, nor before `earliest`.
    pub fn of_stamp(self, earliest: Time, wall_ms: i64, stamp_ms: i64) -> Time {
        let age = u64::try_from(wall_ms.saturating_sub(stamp_ms)).unwrap_or(0);
        let written = Time(self.0.saturating_sub(age.saturating_mul(1000)));
        if is_seeded(Bug::TrustWallClock) { written } else { written.max(earliest.min(self)) }
    }

    /// Time passed since `earlier`, zero when that is later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Time;
    fn add(self, span: Duration) -> Time {
        Time(self.0.saturating_add(span.as_micros() as u64))
    }
}

/// Whose deadline it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Linger, backoff or expiry in a partition.
    Partition(TopicId, u32),
    /// Expiry of records whose topic has no metadata.
    Topic(TopicId),
    /// Answer, reconnect or throttle of a broker.
    Sink(BrokerId),
    /// Metadata refresh.
    Metadata,
    /// Request for a producer id.
    ProducerId,
}

/// The earliest deadline that an owner has in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scheduled(Time);

impl Default for Scheduled {
    fn default() -> Self {
        Scheduled(Time::NEVER)
    }
}

/// Deadlines, earliest first. An owner that fires looks at all its reasons anew and schedules the next,
/// so an entry that comes too early costs a look and one that was overtaken is skipped.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Time, Timer)>>,
}

impl Timers {
    /// Wakes `timer` at `at` or, when it is due earlier already, then.
    pub fn schedule(&mut self, owner: &mut Scheduled, timer: Timer, at: Time) {
        if at < owner.0 {
            owner.0 = at;
            self.heap.push(Reverse((at, timer)));
        }
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes a timer that is due. The caller passes it to its owner's [`fired`](Scheduled::fired).
    pub fn pop(&mut self, now: Time) -> Option<(Time, Timer)> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

impl Scheduled {
    /// True when the entry at `at` is the owner's current one; false when it was overtaken.
    pub fn fired(&mut self, at: Time) -> bool {
        let current = self.0 == at;
        if current {
            self.0 = Time::NEVER;
        }
        current
    }
}
