//! Time as the producer knows it, and its one table of deadlines.

use super::ids::{BrokerId, TopicId};
use crate::seeded_bug::{Bug, is_seeded};
use std::collections::BTreeSet;
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
    Broker(BrokerId),
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

/// Deadlines, earliest first, one for each owner. An owner that fires looks at all its reasons anew and schedules the
/// next, so one that comes too early costs a look.
#[derive(Default)]
pub(super) struct Timers {
    entries: BTreeSet<(Time, Timer)>,
}

impl Timers {
    /// Wakes `timer` at `at` or, when it is due earlier already, then.
    pub fn schedule(&mut self, owner: &mut Scheduled, timer: Timer, at: Time) {
        if at < owner.0 {
            let overtaken = std::mem::replace(&mut owner.0, at);
            self.entries.remove(&(overtaken, timer));
            self.entries.insert((at, timer));
        }
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Time> {
        self.entries.first().map(|(at, _)| *at)
    }

    /// Takes a timer that is due. The caller passes it to its owner's [`fired`](Scheduled::fired).
    pub fn pop(&mut self, now: Time) -> Option<(Time, Timer)> {
        if self.next()? > now {
            return None;
        }
        self.entries.pop_first()
    }
}

impl Scheduled {
    /// True when the entry at `at` is the owner's; false when it was that of one of the same name that is gone.
    pub fn fired(&mut self, at: Time) -> bool {
        let current = self.0 == at;
        if current {
            self.0 = Time::NEVER;
        }
        current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_has_one_entry_however_often_an_earlier_deadline_overtakes_a_later_one() {
        let (mut timers, mut owner) = (Timers::default(), Scheduled::default());
        for round in 0..1000 {
            timers.schedule(&mut owner, Timer::Metadata, Time(1_000_000 + round));
            timers.schedule(&mut owner, Timer::Metadata, Time(10 + round));
            timers.schedule(&mut owner, Timer::Metadata, Time(500_000));
            assert_eq!(timers.entries.len(), 1);
            assert_eq!(timers.pop(Time(9 + round)), None);
            let due = timers.pop(Time(10 + round));
            assert_eq!(due, Some((Time(10 + round), Timer::Metadata)));
            assert!(owner.fired(Time(10 + round)));
        }
        assert_eq!(timers.next(), None);
    }
}
