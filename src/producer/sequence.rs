//! The sequence numbers of one partition: what the next batch gets, which numbers will never be used, and how a
//! partition starts anew (KIP-98, KIP-360). What brokers say about numbers is judged in
//! [`idempotence`](super::idempotence), which has the invariants.

use super::api::Mark;
use super::batch::{Batch, InLog};
use super::identity::Identity;
use super::ids::RecordId;
use super::timer::Time;
use crate::protocol::record_batch::ProducerStamp;
use crate::protocol::sequence::{advance, precedes};
use crate::seeded_bug::{Bug, is_seeded};
use std::collections::VecDeque;
use std::time::Duration;

/// Batches of one partition that a broker can tell from duplicates.
pub(super) const IN_FLIGHT: usize = 5;

/// How long after an acknowledgement a broker is taken to know us still. It keeps a producer for
/// `producer.id.expiration.ms`, a day if nobody said otherwise.
const REMEMBERED: Duration = Duration::from_secs(1);

/// How long after an acknowledgement it is certain: what brokers keep of a producer goes with the messages that it wrote,
/// for which they look every five minutes.
const SURELY_KNOWN: Duration = Duration::from_secs(60);

/// Why and how a partition's numbers start anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restart {
    /// With the next epoch.
    Epoch,
    /// With another producer id.
    Id,
}

/// A partition's place in its sequence.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// Id and epoch of the numbers; `None`: those of the next batch.
    owner: Option<(i64, i16)>,
    next: i32,
    /// When a batch of this owner and epoch was last acknowledged.
    acknowledged: Option<Time>,
    gap: Option<Gap>,
    /// Its log takes none.
    pub unnumbered: bool,
}

/// Numbers that will not be used.
#[derive(Debug)]
struct Gap {
    restart: Restart,
    /// The first of them.
    first: i32,
    /// None of them is in the log.
    sure: bool,
}

impl Sequence {
    /// True when a batch has the numbers of this partition's present owner and epoch.
    pub fn stamped(&self, batch: &Batch) -> bool {
        let stamp = batch.stamp.map(|stamp| (stamp.producer_id, stamp.epoch));
        stamp.is_some() && stamp == self.owner
    }

    /// Gives a batch that is about to be sent for the first time its stamp. False when there is no id yet.
    pub fn stamp(&mut self, identity: &Identity, batch: &mut Batch) -> bool {
        let repeated = batch.stamp.is_some() && !is_seeded(Bug::NewNumbersOnRetry);
        if repeated || !identity.is_on() || self.unnumbered || is_seeded(Bug::SkipStamp) {
            return true;
        }
        if self.owner.is_none() {
            self.next = identity.first_sequence;
        }
        let Some((producer_id, epoch)) = self.owner.or(identity.known) else { return false };
        self.owner = Some((producer_id, epoch));
        batch.stamp = Some(ProducerStamp { producer_id, epoch, base_sequence: self.next });
        self.next = advance(self.next, batch.records.len());
        true
    }

    /// Numbers of this batch will not be used. Those of another producer are its own affair.
    pub fn leave_gap(&mut self, batch: &Batch) {
        self.must_restart(Restart::Epoch, batch);
    }

    pub fn must_restart(&mut self, restart: Restart, batch: &Batch) {
        let Some(stamp) = batch.stamp.filter(|_| self.stamped(batch)) else { return };
        let mut gap =
            self.gap.take().unwrap_or(Gap { restart, first: stamp.base_sequence, sure: true });
        if precedes(stamp.base_sequence, gap.first) {
            gap.first = stamp.base_sequence;
        }
        if restart == Restart::Id {
            gap.restart = restart;
        }
        gap.sure &= !batch.in_doubt();
        self.gap = Some(gap);
    }

    /// A batch of these numbers was acknowledged.
    pub fn acknowledge(&mut self, now: Time, stamp: &ProducerStamp) {
        if self.owner == Some((stamp.producer_id, stamp.epoch)) {
            self.acknowledged = Some(now);
        }
    }

    /// True when a broker that refuses a number has it in use: all numbers up to now were used, and it has no reason to
    /// have forgotten us. One that has takes the number with which a producer `begins`.
    pub fn is_surely_known(&self, now: Time, begins: bool) -> bool {
        let lately = self.acknowledged.is_some_and(|at| now < at + SURELY_KNOWN);
        self.gap.is_none() && (lately || begins)
    }

    /// True when numbers were given that a broker may remember.
    pub fn is_in_use(&self) -> bool {
        self.owner.is_some()
    }

    /// True while nothing may follow what is in flight.
    pub fn is_unsure(&self, now: Time) -> bool {
        let known = self.acknowledged.is_some_and(|at| now < at + REMEMBERED);
        !known && !is_seeded(Bug::FollowUnknown) || self.gap.is_some()
    }

    /// True when a batch has to wait for the restart. One that may be in the log does not, while the broker can
    /// still say whether it is.
    pub fn is_behind_gap(&self, batch: &Batch) -> bool {
        self.gap.as_ref().is_some_and(|gap| match &batch.stamp {
            Some(stamp) if self.stamped(batch) => {
                !precedes(stamp.base_sequence, gap.first) && (gap.sure || !batch.in_doubt())
            }
            // Another producer's numbers have nothing to do with it.
            stamp => stamp.is_none(),
        })
    }

    /// Starts anew, if that is due: `batches` are all there are, and none is in flight.
    /// Returns the producer id that is not to be used any more.
    pub fn start_over(
        &mut self,
        batches: &mut VecDeque<Batch>,
        marks: &mut VecDeque<(RecordId, Mark)>,
    ) -> Option<i64> {
        self.gap.as_ref()?;
        let before = |batch: &Batch| self.stamped(batch) && !self.is_behind_gap(batch);
        if batches.iter().any(before) && !is_seeded(Bug::RestartEarly) {
            return None;
        }
        let gap = self.gap.take()?;
        // The last one first: who finds some with their numbers, and some without, repeats the former, and they are to
        // be the older ones.
        for batch in batches.iter_mut().rev().filter(|batch| self.stamped(batch)) {
            batch.stamp = None;
            batch.unpass();
            // What follows a number that is not in the log is not there either.
            if gap.sure {
                batch.in_log = InLog::No;
            }
            if !batch.in_doubt() {
                marks.extend(batch.records.iter().rev().map(|record| (record.id, Mark::Unsent)));
            }
        }
        let (id, epoch) = self.owner?;
        self.next = 0;
        self.acknowledged = None;
        if is_seeded(Bug::KeepEpoch) {
            return None;
        }
        match (gap.restart, epoch.checked_add(1)) {
            (Restart::Epoch, Some(epoch)) => {
                self.owner = Some((id, epoch));
                None
            }
            _ => {
                self.owner = None;
                Some(id)
            }
        }
    }
}

/// True when both stamps come from one producer and epoch, `a` before `b`.
pub(super) fn is_older(a: &ProducerStamp, b: &ProducerStamp) -> bool {
    (a.producer_id, a.epoch) == (b.producer_id, b.epoch)
        && precedes(a.base_sequence, b.base_sequence)
}
