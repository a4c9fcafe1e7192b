//! Records to partitions, and partitions to brokers: where a record waits, until when, and when there is
//! something to send.

use super::accumulator::Next;
use super::api::{Delivery, Mark, Outcome, Reason};
use super::batch::{Batch, Record};
use super::compression_ratio::Ratio;
use super::ids::TopicId;
use super::partitioner;
use super::state::Producer;
use super::timer::{Time, Timer};
use crate::protocol::error_code::ErrorCode;

impl Producer {
    /// Gives a record its partition, or lets it wait for metadata.
    pub(super) fn route(&mut self, now: Time, id: TopicId, record: Record) {
        let topic = &mut self.topics[id];
        if topic.partitions.is_empty() {
            let expiry = record.born + self.rules.message_timeout;
            topic.waiting.push_back(record);
            let is_first = topic.waiting.len() == 1;
            topic.is_due |= is_first;
            self.timers.schedule(&mut topic.scheduled, Timer::Topic(id), expiry);
            // As long as one waits it is asked about again and again.
            if is_first {
                self.want_due_metadata(now);
            }
            return;
        }
        let index = match record.partition {
            Some(index) if (index as usize) < topic.partitions.len() => index,
            _ => partitioner::choose(topic, record.key_hash, &mut self.random),
        };
        if self.identity.is_on() && record.partition != Some(index) {
            self.out.marks.push_back((record.id, Mark::Partition(index)));
        }
        let partition = &mut topic.partitions[index as usize];
        let first = partition.is_empty();
        // Without acknowledgements nobody would say that a batch became too large.
        let expected = match self.rules.acks {
            0 => Ratio::ONE,
            _ => topic.compression.expected(),
        };
        let closed = partition.append(record, &self.rules, expected);
        if closed && topic.sticky == Some(index) {
            topic.sticky = None;
        }
        // Between the first record and a full batch nothing changes that a timer does not know.
        if first || closed {
            self.reschedule_partition(now, id, index);
        }
    }

    /// Expires, lists or schedules a partition, whatever its state asks for.
    pub(super) fn reschedule_partition(&mut self, now: Time, id: TopicId, index: u32) {
        let topic = &mut self.topics[id];
        let topic_is_gone = topic.is_gone(now, self.rules.message_timeout);
        let Some(partition) = topic.partitions.get_mut(index as usize) else { return };
        for (records, in_doubt) in partition.expire(now, &self.rules, topic_is_gone) {
            let delivery = Delivery::Failed { reason: Reason::TimedOut, in_doubt };
            self.out.outcomes.push_back(Outcome {
                topic: id,
                partition: Some(index),
                records,
                delivery,
            });
        }
        self.restart_sequence(now, id, index);
        let topic = &mut self.topics[id];
        let Some(partition) = topic.partitions.get_mut(index as usize) else { return };
        let next = partition.next(now, &self.rules, self.flushed_at, self.identity.is_on());
        let timer = Timer::Partition(id, index);
        let expiry = partition.expiry(&self.rules, topic_is_gone);
        match next {
            Next::At(at) => {
                self.timers.schedule(&mut partition.scheduled, timer, at.min(expiry));
            }
            Next::Ready => {
                self.timers.schedule(&mut partition.scheduled, timer, expiry);
                if partition.listed {
                    return;
                }
                let leader = partition.leader;
                match leader.and_then(|leader| self.brokers.known.get_mut(&leader)) {
                    None => self.want_metadata(now),
                    Some(broker) => {
                        partition.listed = true;
                        broker.ready.push_back((id, index));
                        self.list_broker(leader.unwrap_or_default());
                    }
                }
            }
        }
    }

    /// Reschedules every partition with something to send.
    pub(super) fn reschedule_all_partitions(&mut self, now: Time) {
        for topic in 0..self.topics.list.len() {
            let id = TopicId(topic as u32);
            for index in 0..self.topics[id].partitions.len() {
                if !self.topics[id].partitions[index].is_empty() {
                    self.reschedule_partition(now, id, index as u32);
                }
            }
        }
    }

    /// Fails the records that waited too long for their topic's metadata.
    pub(super) fn expire_waiting(&mut self, now: Time, id: TopicId) {
        let topic = &mut self.topics[id];
        let timeout = self.rules.message_timeout;
        let unknown = topic.error == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        let reason = if unknown { Reason::TopicUnknown } else { Reason::TimedOut };
        let late = topic.waiting.partition_point(|record| record.born + timeout <= now);
        if late > 0 {
            let records = topic.waiting.drain(..late).collect();
            let delivery = Delivery::Failed { reason, in_doubt: false };
            self.out.outcomes.push_back(Outcome { topic: id, partition: None, records, delivery });
        }
        // What may be in a log is failed only with the log: when the topic is gone, or is there without that
        // partition.
        let gone = topic.is_gone(now, timeout) || !topic.partitions.is_empty();
        let stays = |(_, batch): &(u32, Batch)| !gone || batch.born() + timeout > now;
        while !topic.repeats.front().is_none_or(stays)
            && let Some((_, batch)) = topic.repeats.pop_front()
        {
            let delivery = Delivery::Failed { reason, in_doubt: true };
            let records = batch.records;
            self.out.outcomes.push_back(Outcome { topic: id, partition: None, records, delivery });
        }
        let waiting = topic.waiting.front().map_or(Time::NEVER, |front| front.born + timeout);
        let repeat = topic.repeats.front().map_or(Time::NEVER, |(_, batch)| batch.born() + timeout);
        // A repeat that is kept beyond its time is looked at when the topic's metadata says more.
        let at = waiting.min(if repeat > now { repeat } else { Time::NEVER });
        self.timers.schedule(&mut topic.scheduled, Timer::Topic(id), at);
    }
}
