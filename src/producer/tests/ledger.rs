//! What outlives the producer's owners in the simulation, as the queue files do in a worker: the records, their
//! stamps, and which are done. Each owner has a file of its own and adopts those of all before it.

use super::*;
use crate::protocol::record_batch::ProducerStamp;
use crate::queue::stamps::{Stamp, Stamped, open_batches};
use std::collections::{BTreeMap, HashSet};

struct Entry {
    record: NewRecord,
    stamp: Option<Stamp>,
    first_producer_id: Option<i64>,
    fate: Option<Fate>,
}

/// Records by their number.
#[derive(Default)]
pub struct Ledger {
    entries: Vec<Entry>,
    open: usize,
}

impl Ledger {
    pub fn accept(&mut self, record: NewRecord) {
        assert_eq!(record.id.0 as usize, self.entries.len());
        self.entries.push(Entry { record, stamp: None, first_producer_id: None, fate: None });
        self.open += 1;
    }

    /// The partition that the producer chose.
    pub fn assign(&mut self, id: RecordId, partition: u32) {
        self.entries[id.0 as usize].record.partition = Some(partition);
    }

    pub fn stamp(&mut self, id: RecordId, stamp: Stamp) {
        let entry = &mut self.entries[id.0 as usize];
        entry.record.partition = Some(stamp.partition);
        entry.stamp = Some(stamp);
        entry.first_producer_id.get_or_insert(stamp.producer_id);
    }

    pub fn settle(&mut self, id: RecordId, fate: Fate) -> Result<(), String> {
        let entry = &mut self.entries[id.0 as usize];
        if entry.fate.replace(fate).is_some() {
            return Err(format!("{id:?} has two fates"));
        }
        self.open -= 1;
        Ok(())
    }

    /// Gives all that is open to another producer, as the driver does with a queue that it finds.
    pub fn hand_over(&mut self, now: Time, producer: &mut Producer) {
        let mut files: BTreeMap<u16, Vec<Stamped>> = BTreeMap::new();
        for entry in &self.entries {
            let NewRecord { id, topic, origin, .. } = entry.record;
            if let Some(stamp) = entry.stamp {
                let (topic, done) = (topic.0 as u16, entry.fate.is_some());
                let stamped = Stamped { position: id.0, topic, stamp, done };
                files.entry(origin).or_default().push(stamped);
            }
        }
        let mut repeated = HashSet::new();
        for batch in files.into_values().flat_map(open_batches) {
            let mut records = Vec::new();
            for position in batch.positions {
                let entry = &mut self.entries[position as usize];
                // Done marks are undone: the batch is repeated whole.
                self.open += usize::from(entry.fate.take().is_some());
                repeated.insert(position);
                records.push(NewRecord { born: now, ..entry.record });
            }
            let stamp = ProducerStamp {
                producer_id: batch.producer_id,
                epoch: batch.epoch,
                base_sequence: batch.base_sequence,
            };
            let topic = TopicId(u32::from(batch.topic));
            producer.handle_repeat(now, topic, batch.partition, stamp, records);
        }
        for entry in &self.entries {
            if entry.fate.is_none() && !repeated.contains(&entry.record.id.0) {
                producer.handle_record(now, NewRecord { born: now, ..entry.record });
            }
        }
    }

    /// Who sent the record first.
    pub fn first_producer_id(&self, id: RecordId) -> Option<i64> {
        self.entries[id.0 as usize].first_producer_id
    }

    pub fn is_settled(&self) -> bool {
        self.open == 0
    }

    pub fn open(&self) -> usize {
        self.open
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn topic(&self, id: RecordId) -> TopicId {
        self.entries[id.0 as usize].record.topic
    }

    pub fn fate(&self, id: RecordId) -> Option<Fate> {
        self.entries[id.0 as usize].fate
    }
}
