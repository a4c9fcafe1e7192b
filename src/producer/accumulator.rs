//! What waits in one partition: closed batches, oldest first, and at the back one that may still take
//! records.
//!
//! Invariants: batches leave in the order they were made, and while one is on the way none of its
//! partition is sent, so that a repetition cannot overtake. No batch in the queue is empty.

use super::Rules;
use super::batch::{Batch, Record};
use super::timer::Scheduled;
use super::{BrokerId, Time};
use crate::protocol::record_batch::BATCH_OVERHEAD;
use std::collections::VecDeque;

/// One partition's accumulator, and what is known of its leader.
#[derive(Debug, Default)]
pub(super) struct Partition {
    pub leader: Option<BrokerId>,
    /// Epoch of that leader, -1 when the broker does not say.
    pub leader_epoch: i32,
    queue: VecDeque<Batch>,
    /// A batch of this partition is in a request that has no outcome yet.
    pub in_flight: bool,
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
    /// Adds a record. Returns true when that closed a batch.
    pub fn append(&mut self, record: Record, rules: &Rules) -> bool {
        let fits = |batch: &Batch| {
            !batch.closed
                && BATCH_OVERHEAD + batch.bytes + record.bytes as usize <= rules.batch_bytes
        };
        let mut closed_one = false;
        if !self.queue.back().is_some_and(fits) {
            if let Some(back) = self.queue.back_mut() {
                closed_one = !back.closed;
                back.closed = true;
            }
            self.queue.push_back(Batch::default());
        }
        let back = self.queue.back_mut().expect("pushed above when there was none");
        back.push(record);
        if back.records.len() >= rules.batch_records
            || BATCH_OVERHEAD + back.bytes >= rules.batch_bytes
        {
            back.closed = true;
            closed_one = true;
        }
        closed_one
    }

    /// Puts batches that were on the way back in front, in their order.
    pub fn put_back(&mut self, batches: impl DoubleEndedIterator<Item = Batch>) {
        for batch in batches.rev() {
            if !batch.records.is_empty() {
                self.queue.push_front(Batch { closed: true, ..batch });
            }
        }
    }

    /// Whether something can be sent at `now`, and if not, when to look again. Expiry is part of the
    /// answer; a batch on the way is not looked at, its outcome will be.
    pub fn next(&self, now: Time, rules: &Rules, flushed_at: Option<Time>) -> Next {
        let Some(front) = self.queue.front() else { return Next::At(Time::NEVER) };
        let expiry = front.born() + rules.message_timeout;
        if self.in_flight {
            return Next::At(Time::NEVER);
        }
        let linger_over = match flushed_at {
            Some(at) if front.born() <= at => at,
            _ => front.born() + rules.linger,
        };
        let due = if front.closed || self.queue.len() > 1 { Time(0) } else { linger_over };
        let due = due.max(self.not_before);
        if due <= now { Next::Ready } else { Next::At(due.min(expiry)) }
    }

    /// Takes the batch to be sent next. The caller marks the partition in flight.
    pub fn take(&mut self) -> Option<Batch> {
        self.queue.pop_front()
    }

    /// Birth of the oldest record.
    pub fn front_born(&self) -> Time {
        self.queue.front().map_or(Time::NEVER, Batch::born)
    }

    /// Encoded size of the batch to be sent next.
    pub fn front_bytes(&self) -> usize {
        self.queue.front().map_or(0, |batch| BATCH_OVERHEAD + batch.bytes)
    }

    /// Takes out the records that have waited for `message_timeout` at `now`; each group says whether it is in
    /// doubt.
    pub fn expire(&mut self, now: Time, rules: &Rules) -> Vec<(Vec<Record>, bool)> {
        let mut expired = Vec::new();
        while let Some(front) = self.queue.front_mut() {
            if front.born() + rules.message_timeout > now {
                break;
            }
            let late = front.extract(|_, record| record.born + rules.message_timeout <= now);
            let in_doubt = front.in_doubt;
            let emptied = front.records.is_empty();
            expired.push((late, in_doubt));
            if !emptied {
                break;
            }
            self.queue.pop_front();
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
