//! Records from the queues to the producer, and batches that somebody sent before us.

use super::sources::Sources;
use super::{Level, RECORDS_A_TURN, Run, encode, wall_ms};
use crate::config::Config;
use crate::producer::{self, NewRecord, RecordId, Time, TopicId, partitioner};
use crate::queue::layout::ASK_PARTITION;
use crate::record::Record;

impl Run<'_> {
    /// Hands records from the queues to the producer; true when they may hold more.
    pub(super) fn take_records(&mut self) -> bool {
        let now = self.shared.now();
        if self.shared.looks_after_others() {
            self.sources.adopt(now, self.dirs, self.instance, self.shared, self.disk);
        }
        let mut more = false;
        for number in self.sources.numbers() {
            self.repeat_open_batches(now, number);
            let before = self.producer.held_records();
            more |= self.take_records_of(now, number);
            if number > 0 && self.producer.held_records() > before {
                // They have waited long enough.
                self.producer.handle_flush(now);
            }
        }
        more
    }

    /// Hands the batches to the producer that were sent from a queue before this run of ours.
    fn repeat_open_batches(&mut self, now: Time, number: usize) {
        let Some(source) = self.sources.source(number) else { return };
        for batch in std::mem::take(&mut source.open_batches) {
            let mut records = Vec::with_capacity(batch.positions.len());
            for position in batch.positions {
                let id = Sources::name(number, position);
                // The scan that found the batch checked its slots.
                let slot = self.sources.get(id).expect("a slot in use is whole");
                records.push(new_record(self.config, id, now, slot.record));
            }
            match self.topic(now, number, batch.topic) {
                Some(topic) => {
                    self.producer.handle_repeat(now, topic, batch.partition, batch.stamp, records);
                }
                None => self.lose_topicless(now, number, records.into_iter().map(|r| r.id)),
            }
        }
    }

    /// Only a damaged file names a topic that its table does not have.
    fn lose_topicless(
        &mut self,
        now: Time,
        number: usize,
        records: impl IntoIterator<Item = RecordId>,
    ) {
        for id in records {
            let text = format_args!("a message whose topic is not in the queue is lost");
            self.shared.lines.put(now, Level::Error, "damage", "topic", text);
            self.sources.give_up(number, id);
        }
    }

    fn take_records_of(&mut self, now: Time, number: usize) -> bool {
        let now_ms = wall_ms();
        // No record of our own is older than our last look. What a dead worker left gets all of its time anew.
        let earliest = if number == 0 { self.drained_at } else { now };
        for _ in 0..RECORDS_A_TURN {
            let Some(source) = self.sources.source(number) else { return false };
            let slot = match source.reader.read() {
                Ok(Some(slot)) => slot,
                Ok(None) => {
                    if number == 0 {
                        self.drained_at = now;
                    }
                    return false;
                }
                Err(damage) => {
                    let path = source.queue.path();
                    let bytes = self.sources.abandon_rest(number);
                    let text = format_args!(
                        "queue {}: {damage}; {bytes} bytes of messages are lost",
                        path.display()
                    );
                    self.shared.lines.put(now, Level::Error, "damage", number, text);
                    return false;
                }
            };
            if number > 0 {
                crate::crash_points::crash_point("adopted record read");
            }
            let id = Sources::name(number, slot.position);
            let born = now.of_stamp(earliest, now_ms, slot.logged_ms);
            let record = producer::Record {
                partition: u32::try_from(slot.partition).ok(),
                ..new_record(self.config, id, born, slot.record)
            };
            // Another configuration than the dead worker's may have nobody to ask.
            let ask = self.config.partitioner.0
                && slot.partition == ASK_PARTITION
                && !self.shared.events.has_ended();
            let topic = slot.topic;
            match self.topic(now, number, topic) {
                Some(topic) => {
                    if let Some(record) = self.asking.hold(NewRecord { topic, record }, ask) {
                        self.producer.handle_record(now, record);
                    }
                }
                None => self.lose_topicless(now, number, [record.id]),
            }
        }
        true
    }

    /// The producer's number for topic `id` of queue `number`.
    fn topic(&mut self, now: Time, number: usize, id: u16) -> Option<TopicId> {
        let source = self.sources.source(number)?;
        if let Some(topic) = source.topics.get(id as usize) {
            return Some(*topic);
        }
        while source.topics.len() <= id as usize {
            let name = source.reader.topic(source.topics.len() as u16)?;
            source.topics.push(self.producer.topic(now, name));
        }
        let topic = source.topics[id as usize];
        if self.config.partitioner.0 && number == 0 {
            self.publish_partition_counts();
        }
        Some(topic)
    }
}

/// What the producer is to know of a record. A partition that somebody chose is still to be named.
pub(super) fn new_record(
    config: &Config,
    id: RecordId,
    born: Time,
    record: Record<'_>,
) -> producer::Record {
    producer::Record {
        id,
        partition: None,
        key_hash: record.key.map(partitioner::key_hash),
        bytes: encode::record_size_bound(&encode::sent(config, record)) as u32,
        born,
    }
}
