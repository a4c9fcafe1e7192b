//! Records from the queues to the producer, and batches that somebody sent before us.

use super::super::context::{Context, wall_ms};
use super::super::report::queue::QueueReport;
use super::adoption::Adoption;
use super::name::{self, OWN};
use super::new_record::new_record;
use super::partitioning::Partitioning;
use super::queues::Queues;
use crate::config::DeliveryConfig;
use crate::producer::{self, NewRecord, Producer, Time, TopicId};
use crate::queue::Damage;
use crate::queue::layout::ASK_PARTITION;

/// Records taken from a queue in one turn.
const RECORDS_A_TURN: usize = 4096;

/// Takes records from all queues.
pub(in crate::driver) struct Intake {
    /// When the own queue was last seen empty: what is read next was written after that.
    drained_at: Time,
    send_key: bool,
}

impl Intake {
    pub fn new(now: Time, config: &DeliveryConfig) -> Intake {
        Intake { drained_at: now, send_key: config.send_key }
    }

    /// Hands records to the producer; true when the queues may hold more.
    pub fn turn(
        &mut self,
        cx: &Context<'_>,
        adoption: &mut Adoption<'_>,
        queues: &mut Queues,
        producer: &mut Producer,
        partitioning: &mut Partitioning,
    ) -> bool {
        if cx.shared.looks_after_others() {
            adoption.turn(cx, queues);
        }
        let mut more = false;
        for number in queues.numbers() {
            self.repeat_open_batches(cx, queues, producer, partitioning, number);
            let before = producer.held_records();
            more |= self.take_records(cx, queues, producer, partitioning, number);
            if number != OWN && producer.held_records() > before {
                // They have waited long enough.
                producer.handle_flush(cx.now);
            }
        }
        more
    }

    fn take_records(
        &mut self,
        cx: &Context<'_>,
        queues: &mut Queues,
        producer: &mut Producer,
        partitioning: &mut Partitioning,
        number: usize,
    ) -> bool {
        let now_ms = wall_ms();
        // No record of our own is older than our last look. What a dead worker left gets all of its time anew.
        let earliest = if number == OWN { self.drained_at } else { cx.now };
        for _ in 0..RECORDS_A_TURN {
            let Some(source) = queues.source(number) else { return false };
            let slot = match source.reader.read() {
                Ok(Some(slot)) => slot,
                Ok(None) => {
                    if number == OWN {
                        self.drained_at = cx.now;
                    }
                    return false;
                }
                Err(damage) => {
                    abandon(cx, queues, number, damage);
                    return false;
                }
            };
            if number != OWN {
                crate::crash_points::crash_point("adopted record read");
            }
            let id = name::of_slot(number, slot.position);
            let born = cx.now.of_stamp(earliest, now_ms, slot.logged_ms);
            let record = producer::Record {
                partition: u32::try_from(slot.partition).ok(),
                ..new_record(self.send_key, id, born, slot.record)
            };
            // Another configuration than the dead worker's may have nobody to ask.
            let ask = slot.partition == ASK_PARTITION && partitioning.is_asked(cx);
            let topic = slot.topic;
            match topic_of(cx, queues, producer, partitioning, number, topic) {
                Some(topic) => {
                    let record = NewRecord { topic, record };
                    partitioning.hand_over(cx.now, record, ask, producer);
                }
                None => lose_topicless(cx, queues, [record]),
            }
        }
        true
    }
    /// Hands the batches to the producer that were sent from a queue before this run of ours.
    fn repeat_open_batches(
        &self,
        cx: &Context<'_>,
        queues: &mut Queues,
        producer: &mut Producer,
        partitioning: &Partitioning,
        number: usize,
    ) {
        let Some(source) = queues.source(number) else { return };
        for batch in std::mem::take(&mut source.open_batches) {
            // The scan that found the batch checked its slots.
            let records = batch.positions.iter().map(|position| {
                let id = name::of_slot(number, *position);
                new_record(self.send_key, id, cx.now, queues.in_use(id).record)
            });
            let records: Vec<producer::Record> = records.collect();
            match topic_of(cx, queues, producer, partitioning, number, batch.topic) {
                Some(topic) => {
                    let (partition, stamp, is_part) = (batch.partition, batch.stamp, batch.is_part);
                    producer.handle_repeat(cx.now, topic, partition, stamp, is_part, records);
                }
                None => lose_topicless(cx, queues, records),
            }
        }
    }
}

/// Only a damaged file names a topic that its table does not have.
fn lose_topicless(
    cx: &Context<'_>,
    queues: &mut Queues,
    records: impl IntoIterator<Item = producer::Record>,
) {
    for record in records {
        cx.report(&QueueReport::WithoutTopic);
        queues.lose(record.id);
    }
}

fn abandon(cx: &Context<'_>, queues: &mut Queues, number: usize, damage: Damage) {
    let Some(source) = queues.source(number) else { return };
    let path = source.queue.path();
    let bytes = queues.abandon_rest(number);
    cx.report(&QueueReport::Damaged { number, path: &path, damage, bytes });
}

/// The producer's number for topic `id` of queue `number`.
fn topic_of(
    cx: &Context<'_>,
    queues: &mut Queues,
    producer: &mut Producer,
    partitioning: &Partitioning,
    number: usize,
    id: u16,
) -> Option<TopicId> {
    let source = queues.source(number)?;
    if let Some(topic) = source.topics.get(id as usize) {
        return Some(*topic);
    }
    while source.topics.len() <= id as usize {
        let name = source.reader.topic(source.topics.len() as u16)?;
        source.topics.push(producer.topic(cx.now, name));
    }
    let topic = source.topics[id as usize];
    if number == OWN {
        partitioning.publish_counts(cx, queues, producer);
    }
    Some(topic)
}
