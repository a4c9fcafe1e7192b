//! What outlives the producer's owner in the simulation, as the queue file does in a worker: the records, their
//! stamps, and which are done.

use super::*;
use crate::queue::stamps::{Stamp, Stamped, open_batches};
use std::collections::{HashMap, HashSet};

struct Entry {
    record: NewRecord,
    stamp: Option<Stamp>,
    first_producer_id: Option<i64>,
    fate: Option<Delivery>,
    /// It was sent without a number, or again after it was given up in doubt: nothing keeps it from being doubled.
    may_double: bool,
    /// It was given up in doubt.
    given_up: bool,
    /// It was given up for sure, and so is elsewhere.
    backed_up: bool,
}

/// Number of a record. The rest of its name says in which file it lies, as in the driver.
pub fn number(id: RecordId) -> usize {
    (id.0 & 0xffff_ffff) as usize
}

/// Records by their number, each in one of several files.
#[derive(Default)]
pub struct Ledger {
    entries: Vec<Entry>,
    open: usize,
    /// Files that batches of a producer, topic and partition lie in.
    files: HashMap<(i64, TopicId, u32), u16>,
    chains_cross: bool,
}

impl Ledger {
    pub fn accept(&mut self, record: NewRecord) {
        assert_eq!(number(record.record.id), self.entries.len());
        let (stamp, first_producer_id, fate) = (None, None, None);
        let (may_double, given_up, backed_up) = (false, false, false);
        self.entries.push(Entry {
            record,
            stamp,
            first_producer_id,
            fate,
            may_double,
            given_up,
            backed_up,
        });
        self.open += 1;
    }

    /// The partition that the producer chose.
    pub fn assign(&mut self, id: RecordId, partition: u32) {
        self.entries[number(id)].record.record.partition = Some(partition);
    }

    pub fn stamp(&mut self, id: RecordId, stamp: Stamp) {
        let entry = &mut self.entries[number(id)];
        entry.record.record.partition = Some(stamp.partition);
        entry.stamp = Some(stamp);
        let chain = (stamp.producer_id, entry.record.topic, stamp.partition);
        self.chains_cross |= *self.files.entry(chain).or_insert(id.queue()) != id.queue();
        entry.first_producer_id.get_or_insert(stamp.producer_id);
    }

    /// A producer's batches of one partition lie in several files.
    pub fn chains_cross(&self) -> bool {
        self.chains_cross
    }

    /// It is known not to be in a log.
    pub fn unstamp(&mut self, id: RecordId) {
        self.entries[number(id)].stamp = None;
    }

    pub fn was_backed_up(&self, id: RecordId) -> bool {
        self.entries[number(id)].backed_up
    }

    /// It was given up in doubt. Who sends it again may double it.
    pub fn give_up(&mut self, id: RecordId) {
        self.entries[number(id)].given_up = true;
    }

    /// It is about to be sent without a number.
    pub fn sent_plain(&mut self, id: RecordId) {
        self.entries[number(id)].may_double = true;
    }

    pub fn may_double(&self, id: RecordId) -> bool {
        self.entries[number(id)].may_double
    }

    pub fn settle(&mut self, id: RecordId, fate: Delivery) -> Result<(), String> {
        let entry = &mut self.entries[number(id)];
        if entry.fate.replace(fate).is_some() {
            return Err(format!("{id:?} has two fates"));
        }
        entry.backed_up |= matches!(fate, Delivery::Failed { in_doubt: false, .. });
        self.open -= 1;
        Ok(())
    }

    /// Gives all that is open in a file to another producer, as the driver does with a queue that it finds.
    pub fn hand_over(&mut self, now: Time, file: u16, producer: &mut Producer) {
        let of_file = |entry: &Entry| entry.record.record.id.queue() == file;
        let stamped = self.entries.iter().filter(|entry| of_file(entry)).filter_map(|entry| {
            let NewRecord { topic, record } = entry.record;
            let (id, topic, stamp, done) =
                (record.id, topic.0 as u16, entry.stamp?, entry.fate.is_some());
            Some(Stamped { position: id.0, topic, stamp, done })
        });
        let mut repeated = HashSet::new();
        for batch in open_batches(stamped) {
            let mut records = Vec::new();
            for position in batch.positions {
                let entry = &mut self.entries[number(RecordId(position))];
                // Done marks are undone: the batch is repeated whole.
                self.open += usize::from(entry.fate.take().is_some());
                entry.may_double |= entry.given_up;
                repeated.insert(position);
                records.push(Record { born: now, ..entry.record.record });
            }
            let topic = TopicId(u32::from(batch.topic));
            producer.handle_repeat(
                now,
                topic,
                batch.partition,
                batch.stamp,
                batch.is_part,
                records,
            );
        }
        for entry in self.entries.iter_mut().filter(|entry| of_file(entry)) {
            if entry.fate.is_none() && !repeated.contains(&entry.record.record.id.0) {
                entry.may_double |= entry.given_up;
                let record = Record { born: now, ..entry.record.record };
                producer.handle_record(now, NewRecord { record, ..entry.record });
            }
        }
        producer.handle_flush(now);
    }

    /// Who sent the record first.
    pub fn first_producer_id(&self, id: RecordId) -> Option<i64> {
        self.entries[number(id)].first_producer_id
    }

    pub fn is_settled(&self) -> bool {
        self.open == 0
    }

    pub fn open(&self) -> usize {
        self.open
    }

    pub fn ids(&self) -> impl Iterator<Item = RecordId> + '_ {
        self.entries.iter().map(|entry| entry.record.record.id)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn topic(&self, id: RecordId) -> TopicId {
        self.entries[number(id)].record.topic
    }

    pub fn fate(&self, id: RecordId) -> Option<Delivery> {
        self.entries[number(id)].fate
    }
}
