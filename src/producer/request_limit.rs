//! The largest request that a broker takes, found out by what it does: one that is larger than
//! `socket.request.max.bytes` is not answered, the broker hangs up. So do proxies and services with limits of their own.
//!
//! A connection that ends under a request says little, for brokers die and networks fail. That it is the size is taken
//! for true when the connection ended [`HANG_UPS`] times in a row under large requests and none that is as large was
//! answered in between; smaller ones may have been. Then requests are at most half as large as the smallest of those, or
//! as large as what was answered. Each further time halves that, and where as much was answered before it takes as many
//! times in a row again. To be wrong costs smaller requests for a while, and nothing else: after [`HOLDS_FOR`] larger ones
//! are tried again.
//!
//! # What is cut smaller, and why nothing is duplicated by that
//! A request consists of batches of several partitions, so that mostly fewer of them are enough. A batch that is too
//! large by itself is cut in two, the first of which fits:
//! - One that cannot be in the log (it was never sent, or was refused) is cut freely; with numbers, its parts share them.
//! - One without a number that may be in the log is cut, too. That no broker recognises it was so before.
//! - One with numbers that may be in the log is the case to think about. The broker hung up before it read this request,
//!   but an earlier one with the same batch may have been read, its answer lost, before somebody lowered the limit. No
//!   broker recognises a part of a batch that it has. But it does not take it, either: a partition's numbers are taken
//!   without gaps, each once. So the first part goes alone, with its share of the numbers, when all that come before it
//!   have their fate. Either it is taken: then nothing from its first number on was in the log, and the rest is not there
//!   either ([`InLog::No`]). Or it is refused as out of order: then its first number is in use, and by nothing else than
//!   the batch that it was cut from, which is in the log; so the part was delivered, and the rest is asked about in the
//!   same way. Copies of the whole that still travel are refused by the broker once a part is taken, and the other way
//!   round. Where the refusal has another possible reason (a gap in the numbers before it, a dead worker's numbers, of
//!   which not all is known, or no acknowledgement for a minute, so that a broker of Kafka 0.11 may have forgotten us and
//!   say so in the same words, though not of the number that a producer begins with) nothing is concluded: the part fails
//!   in doubt.
//! - On record a part replaces the whole by one store, before it is sent, and is marked as a part
//!   ([`Stamp::part`](crate::queue::stamps::Stamp::part)): whoever finds the file judges by the same rules.
//!
//! # What even alone is too large
//! A record that the broker hung up on [`HOPELESS`] times while it was alone in its request fails in doubt: with
//! [`Reason::HungUp`](super::Reason::HungUp) when smaller requests were answered meanwhile, or as timed out once
//! `message_timeout_ms` is over: then it may be the broker, and not the size.
//!
//! [`InLog::No`]: super::batch::InLog::No

use super::timer::Time;
use crate::seeded_bug::{Bug, is_seeded};
use std::time::Duration;

/// Encoded batches that go into one request, unless a single batch is larger. Azure's Event Hubs hangs up on more than
/// 1,046,528 bytes.
pub(super) const REQUEST_BYTES: usize = 1_000_000;

/// Ends of connections in a row before it is taken to be the size.
const HANG_UPS: u32 = 2;

/// No limit is below this: when a broker hangs up on less it is not the size.
pub(super) const SMALLEST_LIMIT: usize = if cfg!(test) { 128 } else { 16 << 10 };

/// Hang-ups that are further apart have nothing to do with each other.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// After so long a larger request is tried.
const HOLDS_FOR: Duration = Duration::from_secs(600);

/// Hang-ups on a record that was alone after which it is not sent again.
pub(super) const HOPELESS: u32 = 10;

/// What is known of one broker's limit.
#[derive(Debug, Default)]
pub(super) struct RequestLimit {
    /// Largest request that is sent; `None` while nothing speaks for a limit.
    bytes: Option<usize>,
    /// From then on twice as much is tried.
    holds_until: Time,
    /// Hang-ups in a row.
    hang_ups: u32,
    last_hang_up: Time,
    /// Smallest request that was hung up on since the first of them.
    too_large: Option<usize>,
    /// Largest one that was answered since then.
    answered: usize,
    /// The broker hung up on no more than it had answered: it is not the size, or the limit is another one now.
    is_doubtful: bool,
}

impl RequestLimit {
    /// Bytes of batches that are put together into a request.
    pub fn bytes(&mut self, now: Time) -> usize {
        if let Some(bytes) = self.bytes
            && self.holds_until <= now
        {
            let larger = bytes * 2;
            *self = RequestLimit::default();
            if larger < REQUEST_BYTES {
                (self.bytes, self.holds_until) = (Some(larger), now + HOLDS_FOR);
            }
        }
        self.bytes.unwrap_or(REQUEST_BYTES)
    }

    /// The largest request that is known to be taken; everything while nothing speaks for a limit. To be asked for after
    /// [`bytes`](Self::bytes), which lets a limit go that is old.
    pub fn found(&self) -> usize {
        self.bytes.unwrap_or(usize::MAX)
    }

    /// The connection ended under requests of which the largest had so many bytes. True when a limit was found where
    /// none was known.
    pub fn hung_up(&mut self, now: Time, bytes: usize) -> bool {
        if bytes < SMALLEST_LIMIT || is_seeded(Bug::IgnoreHangUps) {
            return false;
        }
        if self.bytes.is_none() && self.last_hang_up + FORGOTTEN_AFTER <= now {
            *self = RequestLimit::default();
        }
        if bytes <= self.answered {
            (self.hang_ups, self.too_large, self.answered) = (0, None, 0);
            self.is_doubtful = true;
        }
        self.last_hang_up = now;
        self.hang_ups += 1;
        let too_large = self.too_large.map_or(bytes, |smallest| smallest.min(bytes));
        self.too_large = Some(too_large);
        if (self.bytes.is_none() || self.is_doubtful) && self.hang_ups < HANG_UPS {
            return false;
        }
        self.is_doubtful = false;
        self.holds_until = now + HOLDS_FOR;
        // No more than without a limit: what is larger is a single batch.
        let smaller = (too_large / 2).max(self.answered).clamp(SMALLEST_LIMIT, REQUEST_BYTES);
        self.bytes.replace(smaller).is_none()
    }

    /// A request of so many bytes was answered.
    pub fn answered(&mut self, bytes: usize) {
        match self.too_large {
            // It was not the size.
            Some(too_large) if bytes >= too_large => {
                let (limit, holds_until) = (self.bytes, self.holds_until);
                // What a limit is judged by is kept as long as that.
                let answered = if limit.is_some() { bytes.max(self.answered) } else { 0 };
                *self =
                    RequestLimit { bytes: limit, holds_until, answered, ..RequestLimit::default() };
            }
            None if self.bytes.is_none() => {}
            _ => self.answered = self.answered.max(bytes),
        }
    }

    /// True when requests were answered since the broker began to hang up.
    pub fn some_pass(&self) -> bool {
        self.answered > 0
    }

    /// True while it is open why the broker hung up: one request at a time tells most.
    pub fn is_open(&self, now: Time) -> bool {
        self.bytes.is_none() && self.hang_ups > 0 && now < self.last_hang_up + FORGOTTEN_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn two_hang_ups_on_large_requests_in_a_row_are_a_limit_and_what_passes_bounds_it() {
        let mut limit = RequestLimit::default();
        assert!(!limit.hung_up(Time(0), 800_000));
        limit.answered(300_000);
        assert_eq!(limit.bytes(Time(1)), REQUEST_BYTES);
        assert!(limit.hung_up(Time(1), 700_000));
        assert_eq!(limit.bytes(Time(1)), 350_000);
        limit.answered(340_000);
        assert!(!limit.hung_up(Time(2), 350_000), "it is said once");
        assert_eq!(limit.bytes(Time(2)), 340_000);
        assert!(limit.some_pass());
        // It is raised in the end.
        let later = Time(2) + HOLDS_FOR;
        assert_eq!(limit.bytes(later), 680_000);
        assert_eq!(limit.bytes(later + HOLDS_FOR), REQUEST_BYTES);
    }

    #[test]
    fn a_limit_that_is_lowered_while_we_are_at_work_is_found_anew() {
        let mut limit = RequestLimit::default();
        limit.hung_up(Time(0), 800_000);
        limit.answered(790_000);
        assert!(!limit.hung_up(Time(1), 600_000));
        assert!(limit.hung_up(Time(2), 600_000));
        assert_eq!(limit.bytes(Time(3)), 300_000);
        limit.answered(300_000);
        assert!(!limit.hung_up(Time(3), 280_000));
        assert_eq!(limit.bytes(Time(3)), 300_000, "as much was answered");
        assert!(!limit.hung_up(Time(3), 280_000));
        assert_eq!(limit.bytes(Time(3)), 140_000);
    }

    #[test]
    fn connections_that_end_now_and_then_do_not_halve_a_limit_each_time() {
        let mut limit = RequestLimit::default();
        limit.hung_up(Time(0), 700_000);
        limit.hung_up(Time(1), 700_000);
        limit.answered(340_000);
        for minute in 1..9 {
            limit.hung_up(Time(1) + 60 * minute * SECOND, 200_000);
            limit.answered(340_000);
        }
        assert_eq!(limit.bytes(Time(1) + 500 * SECOND), 350_000);
    }

    #[test]
    fn a_limit_is_never_above_what_is_put_together_without_one() {
        let mut limit = RequestLimit::default();
        assert_eq!(limit.found(), usize::MAX);
        limit.hung_up(Time(0), 5_000_000);
        assert!(limit.hung_up(Time(1), 5_000_000));
        assert_eq!((limit.bytes(Time(1)), limit.found()), (REQUEST_BYTES, REQUEST_BYTES));
    }

    #[test]
    fn what_is_answered_as_large_or_long_ago_or_small_is_no_limit() {
        let mut limit = RequestLimit::default();
        for n in 0..10 {
            assert!(!limit.hung_up(Time(n), 500_000));
            limit.answered(500_000);
            assert!(!limit.is_open(Time(n)));
        }
        for n in 1..10 {
            let now = Time(0) + FORGOTTEN_AFTER * n;
            assert!(!limit.hung_up(now, 500_000));
            assert!(limit.is_open(now));
            assert!(!limit.is_open(now + FORGOTTEN_AFTER));
        }
        let mut limit = RequestLimit::default();
        for n in 0..10 {
            assert!(!limit.hung_up(Time(0) + SECOND * n, SMALLEST_LIMIT - 1));
        }
        assert_eq!(limit.bytes(Time(0)), REQUEST_BYTES);
    }
}
