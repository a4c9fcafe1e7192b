//! A batch: records of one partition that are sent, repeated and acknowledged together.

use super::{NewRecord, RecordId, Time};
use crate::protocol::record_batch::ProducerStamp;
use crate::protocol::sequence;
use crate::seeded_bug::{Bug, is_seeded};

/// A record as the producer knows it: everything but its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Its name with the caller.
    pub id: RecordId,
    /// When `log()` took it.
    pub born: Time,
    /// Upper bound of its encoded size.
    pub bytes: u32,
    /// CRC-32 of its key; `None` for a null key.
    pub key_hash: Option<u32>,
    /// The partition the caller wants, if it wants one.
    pub partition: Option<u32>,
}

impl Record {
    pub(super) fn new(now: Time, new: &NewRecord) -> Record {
        Record {
            id: new.id,
            born: new.born.min(now),
            bytes: new.bytes,
            key_hash: new.key_hash,
            partition: new.partition,
        }
    }
}

/// Records of one partition, oldest first, never empty once queued.
#[derive(Debug, Default)]
pub struct Batch {
    /// The records.
    pub records: Vec<Record>,
    /// Upper bound of the encoded size, batch header not included.
    pub bytes: usize,
    /// Takes no more records.
    pub(super) closed: bool,
    /// Answers with an error that counts as a try.
    pub(super) attempts: u32,
    /// By which a broker knows it again; `None` before it is first sent, and without idempotence.
    pub stamp: Option<ProducerStamp>,
    /// An earlier request with these records was left without an answer, or answered in a way that leaves
    /// open whether they were written.
    pub(super) in_doubt: bool,
    /// An earlier request with these records was left without an answer.
    pub(super) unanswered: bool,
    /// It was in doubt when it was sent again as a new one.
    pub(super) resent: bool,
    /// The broker does not recognise it. Whether it is in the log, those that follow it will tell.
    pub(super) passed: bool,
}

impl Batch {
    pub(super) fn push(&mut self, record: Record) {
        self.bytes += record.bytes as usize;
        self.records.push(record);
    }

    /// True when its records may be in the log though they fail.
    pub(super) fn may_be_logged(&self) -> bool {
        self.in_doubt || self.resent
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
    pub(super) fn split(mut self) -> (Batch, Batch) {
        let Batch { in_doubt, resent, .. } = self;
        let mut second = Batch { closed: true, in_doubt, resent, ..Batch::default() };
        for record in self.records.split_off(self.records.len() / 2) {
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
        self.closed = true;
        (self, second)
    }
}
