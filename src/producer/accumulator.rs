//! What waits in one partition: closed batches, oldest first, and at the back one that may still take
//! records.
//!
//! Invariants: batches leave in the order they were made. Without idempotence none is sent while one of the
//! partition is in flight, so that a repetition cannot overtake; with it, see [`idempotence`](super::idempotence).
//! No batch in the queue is empty. The records of a batch lie in one queue file, since whoever finds the file has
//! to find the batch whole.

use super::batch::{Batch, InLog, Record};
use super::compression_ratio::Ratio;
use super::identity::Identity;
use super::ids::BrokerId;
use super::rules::Rules;
use super::sequence::{self, Sequence, is_older};
use super::timer::{Scheduled, Time};
use crate::protocol::record_batch::{BATCH_OVERHEAD, ProducerStamp};
use crate::seeded_bug::{Bug, is_seeded};
use std::collections::VecDeque;

/// One partition's accumulator, and what is known of its leader.
#[derive(Debug, Default)]
pub(super) struct Partition {
    pub leader: Option<BrokerId>,
    /// Epoch of that leader, -1 when the broker does not say.
    pub leader_epoch: i32,
    /// Answers in a row that named an earlier epoch.
    pub stale_answers: u8,
    pub(super) queue: VecDeque<Batch>,
    /// Batches of this partition in requests that have no outcome yet.
    in_flight: Vec<Option<ProducerStamp>>,
    /// Where they went.
    sent_to: Option<BrokerId>,
    /// What is in flight was sent before.
    repeating: bool,
    /// The numbers of its batches.
    pub sequence: Sequence,
    /// Nothing is sent before this.
    pub not_before: Time,
    /// Stands in its leader's list of partitions with something to send.
    pub listed: bool,
    pub scheduled: Scheduled,
}

/// Why a partition is looked at again, and when.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Something can be sent now.
    Ready,
    /// Nothing before then.
    At(Time),
}

impl Partition {
    /// Adds a record. Returns true when that closed a batch. `expected` is what compression is expected to leave.
    pub fn append(&mut self, record: Record, rules: &Rules, expected: Ratio) -> bool {
        let fits = |batch: &Batch| {
            !batch.closed
                && (batch.queue() == Some(record.id.queue()) || is_seeded(Bug::MixQueues))
                && batch.encoded_bytes_with(&record) <= rules.batch_bytes
        };
        let mut closed_one = false;
        if !self.queue.back().is_some_and(fits) {
            if let Some(back) = self.queue.back_mut() {
                closed_one = !back.closed;
                back.closed = true;
            }
            self.queue.push_back(Batch::expecting(expected));
        }
        let back = self.queue.back_mut().expect("pushed above when there was none");
        back.push(record);
        if back.records.len() >= rules.batch_records || back.encoded_bytes() >= rules.batch_bytes {
            back.closed = true;
            closed_one = true;
        }
        closed_one
    }

    /// Puts batches that were in flight back, in their order: after those that come before it by their number,
    /// or in front. What has no number goes behind what has one of ours: were it given the next and appended, the
    /// broker might forget a batch in doubt.
    pub fn put_back(&mut self, batches: impl DoubleEndedIterator<Item = Batch>) {
        for batch in batches.rev().filter(|batch| !batch.records.is_empty()) {
            let older = |queued: &Batch| match (&queued.stamp, &batch.stamp) {
                (Some(queued), Some(ours)) => is_older(queued, ours),
                _ => false,
            };
            let place = match self.queue.iter().rposition(older) {
                Some(place) => place + 1,
                None if batch.stamp.is_some() => 0,
                None => {
                    let ours = |queued: &Batch| self.sequence.stamped(queued);
                    self.queue.iter().rposition(ours).map_or(0, |place| place + 1)
                }
            };
            let place = if is_seeded(Bug::PutBackUnordered) { 0 } else { place };
            self.queue.insert(place, Batch { closed: true, ..batch });
        }
    }

    /// Place of the batch to be sent next: the first that waits neither for a restart nor for the fate of one
    /// that follows it.
    fn next_place(&self) -> Option<usize> {
        for (place, batch) in self.queue.iter().enumerate() {
            let passed = batch.stamp.filter(|_| batch.is_passed());
            let waits = passed.is_some_and(|stamp| self.has_later_unanswered(&stamp));
            if !waits && !self.sequence.is_behind_gap(batch) {
                return Some(place);
            }
            if batch.stamp.is_none() {
                break;
            }
        }
        None
    }

    /// True when the batch that is next must wait for what is in flight. `idempotent`: several may be.
    fn is_blocked(&self, now: Time, front: &Batch, idempotent: bool) -> bool {
        match self.in_flight.len() {
            0 => false,
            1 if !idempotent && is_seeded(Bug::TwoInFlight) => false,
            _ if !idempotent || self.sequence.is_unsure(now) => true,
            _ if self.repeating && is_seeded(Bug::FollowRepeat) => false,
            _ if self.repeating || front.stamp.is_some() => true,
            // The new leader would refuse what comes before the old one's answers.
            _ if self.sent_to != self.leader => true,
            count => count >= sequence::IN_FLIGHT,
        }
    }

    /// Whether something can be sent at `now`, and if not, when to look again.
    pub fn next(
        &self,
        now: Time,
        rules: &Rules,
        flushed_at: Option<Time>,
        idempotent: bool,
    ) -> Next {
        let idempotent = idempotent && !self.sequence.unnumbered;
        let front = self.next_place().map(|place| &self.queue[place]);
        let Some(front) = front.filter(|front| !self.is_blocked(now, front, idempotent)) else {
            return Next::At(Time::NEVER);
        };
        let linger_over = match flushed_at {
            Some(at) if front.born() <= at => at,
            _ => front.born() + rules.linger,
        };
        let due = if front.closed || self.queue.len() > 1 { Time(0) } else { linger_over };
        let due = due.max(self.not_before);
        if due <= now { Next::Ready } else { Next::At(due) }
    }

    /// Takes the batch to be sent next, which is in flight from then on. `None` also while there is no
    /// producer id for it.
    pub fn take(&mut self, identity: &Identity) -> Option<Batch> {
        let place = self.next_place()?;
        let front = &mut self.queue[place];
        let repeating = front.stamp.is_some();
        if !self.sequence.stamp(identity, front) {
            return None;
        }
        self.repeating = repeating;
        let batch = self.queue.remove(place)?;
        self.in_flight.push(batch.stamp);
        self.sent_to = self.leader;
        Some(batch)
    }

    /// A batch with this stamp is not in flight any more.
    pub fn remove_in_flight(&mut self, stamp: Option<ProducerStamp>) {
        if let Some(place) = self.in_flight.iter().position(|sent| *sent == stamp) {
            self.in_flight.remove(place);
        }
    }

    /// Batches in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// True when a batch with a number before this one has no fate yet, and does not wait for that of this one.
    pub fn has_older(&self, stamp: &ProducerStamp) -> bool {
        let waits = |batch: &Batch| batch.is_passed() || self.sequence.is_behind_gap(batch);
        let queued = self.queue.iter().filter(|batch| !waits(batch));
        let queued = queued.filter_map(|batch| batch.stamp.as_ref());
        self.in_flight.iter().flatten().chain(queued).any(|other| is_older(other, stamp))
    }

    /// True when the fate of a batch with a number after this one, whose answer was lost, will tell of this one.
    pub fn has_later_unanswered(&self, stamp: &ProducerStamp) -> bool {
        let asked = |batch: &&Batch| {
            batch.in_log == InLog::Unanswered && !self.sequence.is_behind_gap(batch)
        };
        let unanswered = self.queue.iter().filter(asked);
        unanswered.filter_map(|batch| batch.stamp.as_ref()).any(|other| is_older(stamp, other))
    }

    /// Takes out the batches that waited for the fate of this one.
    pub fn take_passed(&mut self, stamp: &ProducerStamp) -> Vec<Batch> {
        let waits = |batch: &Batch| {
            batch.is_passed() && batch.stamp.as_ref().is_some_and(|passed| is_older(passed, stamp))
        };
        let mut taken = Vec::new();
        while let Some(place) = self.queue.iter().position(waits) {
            taken.extend(self.queue.remove(place));
        }
        taken.iter_mut().for_each(Batch::unpass);
        taken
    }

    /// What comes after this one in number, and was cut from a batch that may be in the log, is known not to be there.
    pub fn free_later_parts(&mut self, stamp: &ProducerStamp) {
        let later = |batch: &&mut Batch| {
            batch.is_part() && batch.stamp.as_ref().is_some_and(|part| is_older(stamp, part))
        };
        self.queue.iter_mut().filter(later).for_each(|batch| batch.in_log = InLog::No);
    }

    /// Cuts the batch to be sent next so that it fits in a request of so many bytes, as far as records can be parted.
    pub fn cut_front(&mut self, bytes: usize) {
        let Some(place) = self.next_place() else { return };
        let rest = self.queue[place].split_off_beyond(bytes.saturating_sub(BATCH_OVERHEAD));
        if let Some(rest) = rest {
            self.queue.insert(place + 1, rest);
        }
    }

    /// Records of batches that wait for the fate of one that follows them.
    pub fn passed_records(&self) -> u64 {
        let passed = self.queue.iter().filter(|batch| batch.is_passed());
        passed.map(|batch| batch.records.len() as u64).sum()
    }

    /// The log is another one than that which batches were sent to: what follows one there tells nothing of it.
    pub fn log_is_new(&mut self) {
        for batch in &mut self.queue {
            batch.in_log = batch.in_log.min(InLog::Maybe);
        }
    }

    /// Encoded size of the batch to be sent next.
    pub fn front_bytes(&self) -> usize {
        self.next_place().map_or(0, |place| self.queue[place].encoded_bytes())
    }

    /// True when a batch does not expire: it may be in the log, and the broker would say so.
    /// Nor are those that follow it in number, while it is open whether there is a gap before them.
    fn stays(&self, batch: &Batch, topic_is_gone: bool) -> bool {
        if is_seeded(Bug::ExpireInDoubt) {
            return false;
        }
        batch.stamp.as_ref().is_some_and(|stamp| {
            !self.in_flight.is_empty()
                || !topic_is_gone && (batch.in_doubt() || self.has_older(stamp))
        })
    }

    /// When the oldest record expires that may.
    pub fn expiry(&self, rules: &Rules, topic_is_gone: bool) -> Time {
        let mut batches = self.queue.iter();
        let first = batches.find(|batch| !self.stays(batch, topic_is_gone));
        first.map_or(Time::NEVER, Batch::born) + rules.message_timeout
    }

    /// Takes out the records that have waited for `message_timeout` at `now`; each group says whether it is in
    /// doubt.
    pub fn expire(
        &mut self,
        now: Time,
        rules: &Rules,
        topic_is_gone: bool,
    ) -> Vec<(Vec<Record>, bool)> {
        let mut expired = Vec::new();
        let mut place = 0;
        let mut log_is_gone = false;
        while let Some(batch) = self.queue.get(place) {
            if self.stays(batch, topic_is_gone) {
                place += 1;
                continue;
            }
            // With one that may be in the log go all that may follow it there: none of them could be told
            // from a duplicate any more.
            let with_it = log_is_gone && batch.stamp.is_some() && batch.in_doubt();
            if batch.born() + rules.message_timeout > now && !with_it {
                break;
            }
            let batch = &mut self.queue[place];
            log_is_gone |= batch.stamp.is_some() && batch.in_doubt();
            // What was numbered together expires together: a part of it would not be known again.
            let whole = batch.stamp.is_some();
            let late =
                batch.extract(|_, record| whole || record.born + rules.message_timeout <= now);
            self.sequence.leave_gap(batch);
            let emptied = batch.records.is_empty();
            expired.push((late, batch.may_be_logged()));
            if !emptied {
                break;
            }
            self.queue.remove(place);
        }
        expired
    }

    /// Takes everything out, for a partition that is no more.
    pub fn drain(&mut self) -> impl Iterator<Item = Batch> + '_ {
        self.queue.drain(..)
    }

    /// True when nothing waits here.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Records that wait here.
    pub fn records(&self) -> usize {
        self.queue.iter().map(|batch| batch.records.len()).sum()
    }

    /// Records in the batch that still takes some.
    pub fn open_records(&self) -> usize {
        self.queue.back().filter(|batch| !batch.closed).map_or(0, |batch| batch.records.len())
    }
}
