//! A batch: records of one partition that are sent, repeated and acknowledged together.

use super::compression_ratio::Ratio;
use super::ids::RecordId;
use super::timer::Time;
use crate::protocol::record_batch::{BATCH_OVERHEAD, ProducerStamp};
use crate::protocol::sequence;
use crate::seeded_bug::{Bug, is_seeded};

/// A record as the producer knows it: everything but its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Its name with the caller.
    pub id: RecordId,
    /// When `log()` took it; not after it is handed in.
    pub born: Time,
    /// Upper bound of its encoded size.
    pub bytes: u32,
    /// [`key_hash`](super::partitioner::key_hash) of its key, `None` for a null key.
    pub key_hash: Option<u32>,
    /// Where it must go; `None`, or a partition that does not exist, leaves that to the partitioner.
    pub partition: Option<u32>,
}

/// What is known of whether a batch, as it was last numbered, is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum InLog {
    /// It is not: no request with it was left open.
    #[default]
    No,
    /// An answer left that open: an error that may have come after the append.
    Maybe,
    /// A request with it had no answer at all.
    Unanswered,
    /// A request with it had no answer, and the broker does not recognise it now. Whether it is in the log, the answers
    /// about those that follow it will tell.
    Passed,
    /// It is a part of a batch that may be in the log as a whole, see [`request_limit`](super::request_limit).
    AsPart,
}

impl InLog {
    /// What is known after a request whose answer said no more than `this`.
    pub fn or(self, this: InLog) -> InLog {
        self.max(this)
    }
}

/// Records of one partition, oldest first, never empty once queued.
#[derive(Debug, Default)]
pub struct Batch {
    /// The records.
    pub records: Vec<Record>,
    /// Upper bound of the encoded size without compression, batch header not included.
    pub bytes: usize,
    /// What becomes of that by compression: what is expected, or what became of it when it was encoded last.
    pub(super) ratio: Ratio,
    /// By which a broker knows it again; `None` before it is first sent, and without idempotence.
    pub stamp: Option<ProducerStamp>,
    /// Takes no more records.
    pub(super) closed: bool,
    /// Answers with an error that counts as a try.
    pub(super) attempts: u32,
    /// What is known of the log.
    pub(super) in_log: InLog,
    /// Times that the connection ended under a request that had nothing else in it.
    pub(super) hung_up: u32,
    /// It was in doubt when it lost its number, and is sent again as a new one: it stands in the log twice perhaps.
    pub(super) resent: bool,
}

impl Batch {
    /// One that takes records of which compression is expected to leave so much.
    pub(super) fn expecting(ratio: Ratio) -> Batch {
        Batch { ratio, ..Batch::default() }
    }

    /// The encoded size: an upper bound, with compression an estimate until it was encoded.
    pub fn encoded_bytes(&self) -> usize {
        BATCH_OVERHEAD + self.ratio.of(self.bytes)
    }

    /// The encoded size with another record.
    pub(super) fn encoded_bytes_with(&self, record: &Record) -> usize {
        BATCH_OVERHEAD + self.ratio.of(self.bytes + record.bytes as usize)
    }

    /// It took so many bytes when it was encoded.
    pub(super) fn was_encoded_in(&mut self, bytes: usize) {
        self.ratio = Ratio::between(bytes.saturating_sub(BATCH_OVERHEAD), self.bytes);
    }

    /// One of records that a dead worker sent under these numbers, as a whole or as a part; no answer is known.
    pub(super) fn repeated(
        stamp: ProducerStamp,
        is_part: bool,
        records: impl IntoIterator<Item = Record>,
    ) -> Batch {
        let in_log = if is_part { InLog::AsPart } else { InLog::Unanswered };
        let mut batch = Batch { closed: true, in_log, stamp: Some(stamp), ..Batch::default() };
        records.into_iter().for_each(|record| batch.push(record));
        batch
    }

    pub(super) fn push(&mut self, record: Record) {
        self.bytes += record.bytes as usize;
        self.records.push(record);
    }

    /// True when it may be in the log under the number that it has, or without one.
    pub(super) fn in_doubt(&self) -> bool {
        self.in_log != InLog::No
    }

    /// True when it waits for the answers about those that follow it.
    pub(super) fn is_passed(&self) -> bool {
        self.in_log == InLog::Passed
    }

    /// It is asked about itself again.
    pub(super) fn unpass(&mut self) {
        if self.is_passed() {
            self.in_log = InLog::Unanswered;
        }
    }

    /// True when it is a part of a batch that may be in the log as a whole: that is to be on record.
    pub fn is_part(&self) -> bool {
        self.in_log == InLog::AsPart
    }

    /// True when its records may be in the log though they fail.
    pub(super) fn may_be_logged(&self) -> bool {
        self.in_doubt() || self.resent
    }

    /// The queue file that its records lie in.
    pub(super) fn queue(&self) -> Option<u16> {
        self.records.first().map(|record| record.id.queue())
    }

    /// Oldest record's birth.
    pub(super) fn born(&self) -> Time {
        self.records.first().map_or(Time::NEVER, |record| record.born)
    }

    /// Takes out the records for which `take` says so.
    pub(super) fn extract(&mut self, mut take: impl FnMut(usize, &Record) -> bool) -> Vec<Record> {
        let mut taken = Vec::new();
        let mut index = 0;
        self.records.retain(|record| {
            let gone = take(index, record);
            index += 1;
            if gone {
                taken.push(*record);
            }
            !gone
        });
        self.bytes = self.records.iter().map(|record| record.bytes as usize).sum();
        taken
    }

    /// Cuts the batch into two closed ones, for a broker that found it too large.
    pub(super) fn split(self) -> (Batch, Batch) {
        let half = self.records.len() / 2;
        self.split_at(half)
    }

    /// Cuts off what is more than fits in `bytes`, one record at least being left. `None` when all of it fits.
    pub(super) fn split_off_beyond(&mut self, bytes: usize) -> Option<Batch> {
        let mut size = 0;
        let fits = self.records.iter().take_while(|record| {
            size += record.bytes as usize;
            self.ratio.of(size) <= bytes
        });
        let fits = fits.count().max(1);
        if fits == self.records.len() {
            return None;
        }
        let mut whole = std::mem::take(self);
        // Under its numbers the broker would know the whole alone.
        if whole.stamp.is_some() && whole.in_doubt() && !is_seeded(Bug::CutForgetsDoubt) {
            whole.in_log = InLog::AsPart;
        }
        let (first, rest) = whole.split_at(fits);
        *self = first;
        Some(rest)
    }

    fn split_at(mut self, records: usize) -> (Batch, Batch) {
        let Batch { in_log, resent, ratio, .. } = self;
        let mut second = Batch { closed: true, in_log, resent, ratio, ..Batch::default() };
        for record in self.records.split_off(records) {
            second.push(record);
        }
        // The halves share its numbers, so what follows keeps its own.
        second.stamp = self.stamp.map(|stamp| ProducerStamp {
            base_sequence: match is_seeded(Bug::SplitKeepsNumber) {
                true => stamp.base_sequence,
                false => sequence::advance(stamp.base_sequence, self.records.len()),
            },
            ..stamp
        });
        self.bytes -= second.bytes;
        (self.closed, self.hung_up) = (true, 0);
        (self, second)
    }
}
