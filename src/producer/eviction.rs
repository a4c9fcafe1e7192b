//! Making room while partitions are stuck: which ones are, and what is taken from them. Nothing is taken that
//! may be in a log already: what is in flight, or was and left doubt, stays until its fate is known.

use super::accumulator::Partition;
use super::api::{Delivery, Outcome, Reason};
use super::batch::{Batch, Record};
use super::ids::{RecordId, TopicId};
use super::state::Producer;
use super::timer::Time;
use crate::protocol::error_code::ErrorCode;
use std::time::Duration;

/// After so long without an attempt to connect, a leader that failed may be back.
const UNTRIED_FOR: Duration = Duration::from_secs(3);

/// Where records wait: a topic, and a partition unless none could be chosen yet.
type Place = (TopicId, Option<u32>);

impl Producer {
    /// Fails the oldest records of stuck partitions with [`Reason::QueueFull`], at least `records` of them and
    /// at least `bytes`, as far as there are any; a batch goes as a whole. `may_go` says whose records count.
    /// Returns how many went.
    pub fn evict(
        &mut self,
        records: u64,
        bytes: u64,
        may_go: impl Fn(RecordId) -> bool,
    ) -> (u64, u64) {
        let mut places: Vec<Place> = self.stuck_places();
        let mut gone = (0, 0);
        while gone.0 < records || gone.1 < bytes {
            let oldest = |(index, (topic, partition)): (usize, &Place)| {
                let topic = &self.topics[*topic];
                let born = match partition {
                    None => topic.waiting.iter().find(|r| may_go(r.id)).map(|r| r.born),
                    Some(partition) => topic.partitions[*partition as usize].oldest_that(&may_go),
                };
                born.map(|born| (born, index))
            };
            let Some((_, index)) = places.iter().enumerate().filter_map(oldest).min() else {
                break;
            };
            let (id, partition) = places[index];
            let topic = &mut self.topics[id];
            let taken = match partition {
                None => {
                    // As many as a batch would hold, so that the other partitions' turn comes.
                    let mut taken = Vec::new();
                    topic.waiting.retain(|record| {
                        let goes = taken.len() < self.rules.batch_records && may_go(record.id);
                        if goes {
                            taken.push(*record);
                        }
                        !goes
                    });
                    taken
                }
                Some(partition) => topic.partitions[partition as usize].take_oldest_that(&may_go),
            };
            if taken.is_empty() {
                places.swap_remove(index);
                continue;
            }
            gone.0 += taken.len() as u64;
            gone.1 += taken.iter().map(|record| u64::from(record.bytes)).sum::<u64>();
            let delivery = Delivery::Failed { reason: Reason::QueueFull, in_doubt: false };
            self.out.outcomes.push_back(Outcome { topic: id, partition, records: taken, delivery });
        }
        gone
    }

    /// Fails records that were not handed in yet with [`Reason::QueueFull`].
    pub fn fail_evicted(&mut self, topic: TopicId, records: Vec<Record>) {
        self.load.held += records.len() as u64;
        let delivery = Delivery::Failed { reason: Reason::QueueFull, in_doubt: false };
        self.out.outcomes.push_back(Outcome { topic, partition: None, records, delivery });
    }

    /// True when a record of this topic could be sent now, as far as is known: a partition has a leader, and no
    /// leader's connection failed since it last served. A leader that nobody has tried for a while counts as
    /// one that may be back: with nothing to send nobody would ever try.
    pub fn is_deliverable(&self, now: Time, topic: TopicId) -> bool {
        let partitions = &self.topics[topic].partitions;
        let mut led = partitions.iter().filter_map(|partition| partition.leader).peekable();
        led.peek().is_some()
            && led.all(|leader| {
                self.brokers.known.get(&leader).is_some_and(|broker| {
                    broker.is_up()
                        || broker.backoff.failures == 0
                        || broker.backoff.connect_after + UNTRIED_FOR <= now
                })
            })
    }

    /// Asks about topics though nobody waits for them: one that was unknown, or had no leader, may have one. One that
    /// stays unknown is asked about less and less often.
    pub fn ask_about(&mut self, now: Time, topics: &[TopicId]) {
        for id in topics {
            self.topics[*id].is_due = true;
        }
        self.want_due_metadata(now);
    }

    /// True while nothing is known of the topic, and asking for it failed.
    pub fn is_unknown(&self, topic: TopicId) -> bool {
        let topic = &self.topics[topic];
        let nobody_to_ask = !self.brokers.known.values().any(|broker| broker.is_up())
            && self.brokers.known.values().any(|broker| broker.backoff.failures > 0);
        topic.partitions.is_empty() && (topic.error != ErrorCode::NONE || nobody_to_ask)
    }

    fn is_stuck(&self, partition: &Partition) -> bool {
        let broker = partition.leader.and_then(|leader| self.brokers.known.get(&leader));
        broker.is_none_or(|broker| !broker.is_up() && broker.backoff.failures > 0)
    }

    fn stuck_places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for (index, topic) in self.topics.list.iter().enumerate() {
            let id = TopicId(index as u32);
            if self.is_unknown(id) && !topic.waiting.is_empty() {
                places.push((id, None));
            }
            let partitions = topic.partitions.iter().enumerate();
            let stuck = partitions.filter(|(_, partition)| {
                !partition.is_empty() && partition.in_flight() == 0 && self.is_stuck(partition)
            });
            places.extend(stuck.map(|(partition, _)| (id, Some(partition as u32))));
        }
        places
    }
}

/// Whether no record of a batch can be in a log.
fn never_sent(batch: &Batch) -> bool {
    !batch.may_be_logged() && batch.attempts == 0 && batch.stamp.is_none()
}

impl Partition {
    fn oldest_that(&self, may_go: impl Fn(RecordId) -> bool) -> Option<Time> {
        let batches = self.queue.iter().filter(|batch| never_sent(batch));
        let mut records = batches.flat_map(|batch| &batch.records);
        records.find(|record| may_go(record.id)).map(|record| record.born)
    }

    /// Takes the records that may go out of the oldest batch that has any.
    fn take_oldest_that(&mut self, may_go: impl Fn(RecordId) -> bool) -> Vec<Record> {
        for index in 0..self.queue.len() {
            let batch = &mut self.queue[index];
            if !never_sent(batch) {
                continue;
            }
            let taken = batch.extract(|_, record| may_go(record.id));
            if batch.records.is_empty() {
                self.queue.remove(index);
            }
            if !taken.is_empty() {
                return taken;
            }
        }
        Vec::new()
    }
}
