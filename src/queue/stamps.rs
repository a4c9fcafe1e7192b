//! Batches on record: which records were sent together, to which partition, and by which producer id, epoch
//! and sequence numbers a broker knows them. Written down before the first send, so that whoever finds the
//! file repeats the same batches and the broker drops those that it has (KIP-98).
//!
//! Invariants:
//! - A stamp is the reader's, who keeps it in the batch log, or in a file of version 2 in the record's slot; the writer
//!   never looks at it.
//! - A batch counts only when it is whole: as many records as its first one says, with numbers in a row. One
//!   that is not was never sent, since a batch is sent after its last stamp.
//! - A batch of which one record is done is not forgotten for the others: they were sent with it, and the
//!   broker knows only the whole.

use crate::protocol::record_batch::ProducerStamp;
use crate::protocol::sequence::{advance, distance};
use crate::seeded_bug::{Bug, is_seeded};
use std::collections::BTreeMap;

/// On a batch's first record: the batch was cut from a larger one that may be in the log as a whole. What follows it in
/// number without a first record of its own is the rest of that.
const PART: u32 = 1 << 31;

/// A record's place in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Kafka's producer id, from 0 on; negative without one.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// The record's number in its partition.
    pub sequence: i32,
    /// Records in the batch on its first record, and `PART`; 0 on the others.
    pub batch_records: u32,
    /// The partition it was sent to.
    pub partition: u32,
}

impl Stamp {
    /// That of record number `index` of a batch of `records`.
    pub fn of_record(batch: ProducerStamp, partition: u32, index: usize, records: usize) -> Stamp {
        Stamp {
            producer_id: batch.producer_id,
            epoch: batch.epoch,
            sequence: advance(batch.base_sequence, index),
            batch_records: if index == 0 { records as u32 } else { 0 },
            partition,
        }
    }

    /// Whether all of its numbers are such as a broker gives and takes.
    #[cfg(not(loom))]
    pub(super) fn is_possible(&self) -> bool {
        let Stamp { producer_id, epoch, sequence, partition, .. } = *self;
        producer_id >= 0 && epoch >= 0 && sequence >= 0 && i32::try_from(partition).is_ok()
    }

    /// The same, as that of a record of such a part, or of a whole.
    pub fn part(self, is_part: bool) -> Stamp {
        let is_first = self.batch_records != 0;
        let part = if is_part && is_first { PART } else { 0 };
        Stamp { batch_records: self.batch_records | part, ..self }
    }

    fn is_part(&self) -> bool {
        self.batch_records & PART != 0
    }

    fn records(&self) -> usize {
        (self.batch_records & !PART) as usize
    }
}

/// A record that has a stamp.
#[derive(Debug, Clone, Copy)]
pub struct Stamped {
    /// Names the record.
    pub position: u64,
    /// Topic id in its queue.
    pub topic: u16,
    /// Its stamp.
    pub stamp: Stamp,
    /// It was delivered, or is safe elsewhere.
    pub done: bool,
}

/// A batch that was sent, as far as the file knows, and of which not all records are done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenBatch {
    /// Topic id in its queue.
    pub topic: u16,
    /// The partition it was sent to.
    pub partition: u32,
    /// By which a broker knows it.
    pub stamp: ProducerStamp,
    /// It was cut from a batch that may be in the log as a whole.
    pub is_part: bool,
    /// The records, in the order of their numbers; done ones among them.
    pub positions: Vec<u64>,
}

/// The open batches among `records`: those of one partition and producer in the order of their numbers.
pub fn open_batches(records: impl IntoIterator<Item = Stamped>) -> Vec<OpenBatch> {
    let mut chains: BTreeMap<(u16, u32, i64, i16), Vec<Stamped>> = BTreeMap::new();
    for record in records {
        let Stamp { producer_id, epoch, partition, .. } = record.stamp;
        chains.entry((record.topic, partition, producer_id, epoch)).or_default().push(record);
    }
    let mut open = Vec::new();
    for ((topic, partition, producer_id, epoch), mut chain) in chains {
        // Numbers go around after 2^31 - 1, and those of one file lie close together.
        let middle = chain[0].stamp.sequence.wrapping_sub(1 << 30);
        chain.sort_by_key(|record| distance(middle, record.stamp.sequence));
        let mut rest = &chain[..];
        while let Some(first) = rest.first() {
            let count = first.stamp.records().clamp(1, rest.len());
            let (batch, after) = rest.split_at(count);
            if !is_whole(batch) {
                rest = &rest[1..];
                continue;
            }
            let is_part = first.stamp.is_part();
            let remainder = if is_part { headless(batch, after) } else { 0 };
            let (remainder, after) = after.split_at(remainder);
            rest = after;
            for batch in [batch, remainder] {
                if batch.iter().any(|record| !record.done) {
                    let base_sequence = batch[0].stamp.sequence;
                    open.push(OpenBatch {
                        topic,
                        partition,
                        stamp: ProducerStamp { producer_id, epoch, base_sequence },
                        is_part,
                        positions: batch
                            .iter()
                            .filter(|record| {
                                !(record.done && is_seeded(Bug::RepeatOpenRecordsOnly))
                            })
                            .map(|record| record.position)
                            .collect(),
                    });
                }
            }
        }
    }
    open
}

fn is_whole(batch: &[Stamped]) -> bool {
    let first = &batch[0].stamp;
    first.records() == batch.len() && headless(&batch[..1], &batch[1..]) == batch.len() - 1
}

/// How many of the records behind a part are the rest of what it was cut from.
fn headless(part: &[Stamped], after: &[Stamped]) -> usize {
    let first = part[0].stamp.sequence;
    let follows = |(index, record): &(usize, &Stamped)| {
        record.stamp.batch_records == 0
            && distance(first, record.stamp.sequence) as usize == part.len() + index
    };
    after.iter().enumerate().take_while(follows).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(position: u64, sequence: i32, batch_records: u32, done: bool) -> Stamped {
        let stamp = Stamp { producer_id: 7, epoch: 0, sequence, batch_records, partition: 1 };
        Stamped { position, topic: 0, stamp, done }
    }

    fn positions(records: &[Stamped]) -> Vec<Vec<u64>> {
        open_batches(records.iter().copied()).into_iter().map(|batch| batch.positions).collect()
    }

    #[test]
    fn batches_are_found_whole_and_in_the_order_of_their_numbers() {
        // The second batch lies before the first in the file.
        let records = [
            record(8, 2, 2, false),
            record(16, 3, 0, false),
            record(24, 0, 2, false),
            record(32, 1, 0, false),
        ];
        assert_eq!(positions(&records), [vec![24, 32], vec![8, 16]]);
    }

    #[test]
    fn a_batch_with_one_open_record_is_open_and_one_without_is_not() {
        let records = [
            record(8, 0, 2, true),
            record(16, 1, 0, false),
            record(24, 2, 1, true),
            record(32, 3, 1, false),
        ];
        assert_eq!(positions(&records), [vec![8, 16], vec![32]]);
    }

    #[test]
    fn a_batch_whose_stamps_are_not_all_there_was_never_sent() {
        let half = [record(8, 0, 3, false), record(16, 1, 0, false)];
        assert!(positions(&half).is_empty());
        let hole = [record(8, 0, 2, false), record(16, 2, 0, false), record(24, 3, 1, false)];
        assert_eq!(positions(&hole), [vec![24]]);
        let headless = [record(8, 1, 0, false), record(16, 2, 1, false)];
        assert_eq!(positions(&headless), [vec![16]]);
        let hostile = [record(8, 0, u32::MAX, false), record(16, 1, 1, false)];
        assert_eq!(positions(&hostile), [vec![16]]);
    }

    #[test]
    fn one_store_cuts_a_batch_in_two_and_both_are_known_as_parts() {
        let cut = |parts: &[(i32, u32)]| {
            let heads = parts.iter().copied().collect::<BTreeMap<_, _>>();
            let records =
                (0..6).map(|n| record(n as u64, n, heads.get(&n).copied().unwrap_or(0), n == 0));
            let open = open_batches(records.collect::<Vec<_>>());
            open.into_iter().map(|open| (open.is_part, open.positions)).collect::<Vec<_>>()
        };
        assert_eq!(cut(&[(0, 4), (4, 2)]), [(false, vec![0, 1, 2, 3]), (false, vec![4, 5])]);
        let part = Stamp { batch_records: 2, ..record(0, 0, 0, false).stamp }.part(true);
        let cut_once = [(0, part.batch_records), (4, 2)];
        assert_eq!(cut(&cut_once), [(true, vec![0, 1]), (true, vec![2, 3]), (false, vec![4, 5])]);
        assert_eq!(part.part(false).batch_records, part.batch_records, "it stays one");
        let other = Stamp { batch_records: 0, ..part };
        assert_eq!(other.part(true).batch_records, 0, "only a first record says so");
    }

    #[test]
    fn numbers_go_around() {
        let records = [
            record(8, i32::MAX - 1, 3, false),
            record(16, i32::MAX, 0, false),
            record(24, 0, 0, false),
            record(32, 1, 1, false),
        ];
        assert_eq!(positions(&records), [vec![8, 16, 24], vec![32]]);
    }

    #[test]
    fn producers_epochs_and_partitions_are_kept_apart() {
        let mut records =
            [record(8, 0, 1, false), record(16, 1, 1, false), record(24, 2, 1, false)];
        records[1].stamp.epoch = 1;
        records[2].stamp.partition = 2;
        assert_eq!(open_batches(records).len(), 3);
        let batches = open_batches(records);
        assert!(batches.iter().all(|batch| batch.positions.len() == 1));
    }
}
