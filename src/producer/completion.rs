//! Completion: what becomes of a batch that was in flight. The decision itself is [`retry`]'s.

use super::api::{Delivery, Notice, Outcome, Reason};
use super::batch::{Batch, InLog};
use super::broker::InFlightBatch;
use super::ids::TopicId;
use super::retry::{self, Decision, Retry};
use super::state::Producer;
use super::timer::Time;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::produce::ProducedPartition;
use crate::protocol::record_batch::ProducerStamp;
use crate::seeded_bug::{Bug, is_seeded};

impl Producer {
    /// Decides about a batch that was answered; `told` is `None` for `acks = 0`.
    pub(super) fn complete(
        &mut self,
        now: Time,
        sent: InFlightBatch,
        told: Option<&ProducedPartition>,
    ) {
        let error = match told {
            None => ErrorCode::NONE,
            // Success without an offset, or with one behind which there is no room, is no success.
            Some(told)
                if told.error == ErrorCode::NONE
                    && (told.base_offset < 0
                        || i64::MAX - told.base_offset < sent.batch.records.len() as i64) =>
            {
                return self.retry_in_doubt(now, sent);
            }
            Some(told) => told.error,
        };
        let lost = is_seeded(Bug::RefusalIsSuccess) && error == ErrorCode::NOT_ENOUGH_REPLICAS;
        let error = if lost { ErrorCode::NONE } else { error };
        if let Some(hint) = told.and_then(|told| told.current_leader.as_ref()) {
            self.follow_hint(now, &sent, hint.id, hint.epoch);
        }
        let records = sent.batch.records.len();
        let stamped = sent.batch.stamp.is_some();
        if self.does_without_numbers(&sent, error) {
            return self.out_of_sequence(now, sent, error);
        }
        let overdue = sent.batch.born() + self.rules.message_timeout <= now;
        match retry::decide(error, stamped, records, sent.batch.attempts, &self.rules) {
            Decision::OutOfSequence => self.out_of_sequence(now, sent, error),
            // The broker will know whether it has it; only the error has to pass. One that does not pass in the
            // time that a message has is final.
            Decision::Fail { in_doubt }
                if stamped
                    && (in_doubt || sent.batch.in_doubt())
                    && (error.retriable() || !overdue) =>
            {
                let in_log = if in_doubt { InLog::Maybe } else { InLog::No };
                self.retry(now, sent, Retry { counted: true, refresh: true, in_log });
            }
            // Nor would the broker know the halves of one that it has.
            Decision::Split
                if stamped && sent.batch.in_doubt() && !is_seeded(Bug::SplitInDoubt) =>
            {
                match overdue {
                    false => {
                        let again = Retry { counted: true, refresh: true, in_log: InLog::No };
                        self.retry(now, sent, again);
                    }
                    true => self.fail(now, sent, error, true, None),
                }
            }
            Decision::Delivered => {
                self.check_passed(&sent, told);
                self.free_later_parts(&sent);
                self.finish(now, sent, delivered(told));
            }
            Decision::Split => {
                let stamp = sent.batch.stamp;
                self.topics[sent.topic].compression.reset();
                self.out.notices.push_back(Notice::BatchSplit { topic: sent.topic, records });
                let (first, second) = sent.batch.split();
                let halves = vec![first, second];
                self.release_partition(now, sent.topic, sent.partition, stamp, halves, None);
            }
            Decision::Retry(again) => self.retry(now, sent, again),
            Decision::Fail { in_doubt } => {
                let in_doubt = in_doubt || sent.batch.may_be_logged();
                self.fail(now, sent, error, in_doubt, told);
            }
        }
    }

    /// Fails a batch; when the broker names the records at fault, only those, and sends the rest again.
    pub(super) fn fail(
        &mut self,
        now: Time,
        mut sent: InFlightBatch,
        error: ErrorCode,
        in_doubt: bool,
        told: Option<&ProducedPartition>,
    ) {
        // Nor are those that follow it in number sure not to be there.
        if in_doubt {
            sent.batch.in_log = sent.batch.in_log.or(InLog::Maybe);
        }
        let delivery = Delivery::Failed { reason: Reason::Broker(error), in_doubt };
        // With other bounds no broker would recognise what may be in the log.
        let recognised = sent.batch.stamp.is_some() && sent.batch.in_doubt();
        let faulty: Vec<usize> = told
            .iter()
            .filter(|_| !recognised)
            .flat_map(|told| &told.record_errors)
            .filter_map(|fault| usize::try_from(fault.batch_index).ok())
            .filter(|index| *index < sent.batch.records.len())
            .collect();
        if faulty.is_empty() {
            return self.finish(now, sent, delivery);
        }
        let records = sent.batch.extract(|index, _| faulty.contains(&index));
        self.load.in_flight -= records.len() as u64;
        self.out.outcomes.push_back(Outcome {
            topic: sent.topic,
            partition: Some(sent.partition),
            records,
            delivery,
        });
        let stamp = sent.batch.stamp;
        self.leave_gap(&sent);
        self.release_partition(now, sent.topic, sent.partition, stamp, vec![sent.batch], None);
    }

    /// Fails a batch that may be in the log.
    pub(super) fn fail_in_doubt(&mut self, now: Time, mut sent: InFlightBatch, reason: Reason) {
        sent.batch.in_log = sent.batch.in_log.or(InLog::Maybe);
        self.finish(now, sent, Delivery::Failed { reason, in_doubt: true });
    }

    /// A batch that lies so near its log's start that those that wait for its fate cannot stand before it tells
    /// nothing of them: the topic was made anew.
    fn check_passed(&mut self, sent: &InFlightBatch, told: Option<&ProducedPartition>) {
        let partitions = &mut self.topics[sent.topic].partitions;
        if let Some(partition) = partitions.get_mut(sent.partition as usize)
            && let Some(offset) = told.and_then(|told| u64::try_from(told.base_offset).ok())
            && offset < partition.passed_records()
        {
            partition.log_is_new();
        }
    }

    /// The broker took a part of a batch: the rest of that is not in the log.
    fn free_later_parts(&mut self, sent: &InFlightBatch) {
        let partitions = &mut self.topics[sent.topic].partitions;
        if let Some(partition) = partitions.get_mut(sent.partition as usize)
            && let Some(stamp) = sent.batch.stamp.filter(|_| sent.batch.is_part())
        {
            partition.free_later_parts(&stamp);
        }
    }

    /// The numbers of a batch that was refused for good, or some of them, will not be used.
    fn leave_gap(&mut self, sent: &InFlightBatch) {
        let partitions = &mut self.topics[sent.topic].partitions;
        if let Some(partition) = partitions.get_mut(sent.partition as usize) {
            partition.sequence.leave_gap(&sent.batch);
        }
    }

    /// Puts a batch back to be sent again after a connection broke or an answer made no sense.
    pub(super) fn retry_in_doubt(&mut self, now: Time, sent: InFlightBatch) {
        let in_log = if is_seeded(Bug::ForgetDoubt) { InLog::No } else { Retry::UNANSWERED.in_log };
        self.retry(now, sent, Retry { in_log, ..Retry::UNANSWERED });
    }

    pub(super) fn retry(&mut self, now: Time, mut sent: InFlightBatch, again: Retry) {
        sent.batch.attempts += u32::from(again.counted);
        sent.batch.in_log = sent.batch.in_log.or(again.in_log);
        let pause = retry::backoff(
            self.rules.retry_backoff,
            self.rules.retry_backoff_max,
            sent.batch.attempts.max(1),
            &mut self.random,
        );
        self.counts.retries += 1;
        if again.refresh {
            self.want_metadata(now);
        }
        let (stamp, again) = (sent.batch.stamp, vec![sent.batch]);
        self.release_partition(now, sent.topic, sent.partition, stamp, again, Some(now + pause));
    }

    /// Reports all records of a batch that was in flight.
    pub(super) fn finish(&mut self, now: Time, sent: InFlightBatch, delivery: Delivery) {
        if !delivery.is_delivered() {
            self.leave_gap(&sent);
        } else if let Some(stamp) = &sent.batch.stamp {
            let partitions = &mut self.topics[sent.topic].partitions;
            if let Some(partition) = partitions.get_mut(sent.partition as usize) {
                partition.sequence.acknowledge(now, stamp);
                for batch in partition.take_passed(stamp) {
                    let (topic, partition) = (sent.topic, Some(sent.partition));
                    let (records, delivery) = (batch.records, Delivery::UNPLACED);
                    self.out.outcomes.push_back(Outcome { topic, partition, records, delivery });
                }
            }
        }
        let InFlightBatch { topic, partition, batch, .. } = sent;
        self.load.in_flight -= batch.records.len() as u64;
        let (stamp, records) = (batch.stamp, batch.records);
        if is_seeded(Bug::ReportTwice) {
            let records = records.clone();
            self.out.outcomes.push_back(Outcome { topic, partition: None, records, delivery });
        }
        self.out.outcomes.push_back(Outcome {
            topic,
            partition: Some(partition),
            records,
            delivery,
        });
        self.release_partition(now, topic, partition, stamp, Vec::new(), None);
    }

    /// Ends the way of a batch, named by its stamp, with `again` to be sent first, not before `pause_until`.
    pub(super) fn release_partition(
        &mut self,
        now: Time,
        id: TopicId,
        index: u32,
        stamp: Option<ProducerStamp>,
        again: Vec<Batch>,
        pause_until: Option<Time>,
    ) {
        self.load.in_flight -= again.iter().map(|b| b.records.len() as u64).sum::<u64>();
        let topic = &mut self.topics[id];
        match topic.partitions.get_mut(index as usize) {
            Some(partition) => {
                partition.remove_in_flight(stamp);
                partition.put_back(again.into_iter());
                if let Some(at) = pause_until {
                    partition.not_before = at;
                }
                self.reschedule_partition(now, id, index);
            }
            // The topic was made anew with fewer partitions while the batch was in flight.
            None => {
                for batch in again {
                    self.reroute(now, id, index, batch);
                }
            }
        }
    }
}

/// An acknowledgement; a broker that dropped a duplicate, or was not asked to answer, does not say where it stands.
fn delivered(told: Option<&ProducedPartition>) -> Delivery {
    let placed = told.filter(|told| told.error == ErrorCode::NONE);
    Delivery::Delivered {
        base_offset: placed.map(|told| told.base_offset),
        log_append_time_ms: placed.map(|told| told.log_append_time_ms).filter(|ms| *ms >= 0),
    }
}
