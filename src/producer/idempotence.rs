//! Idempotence: what is repeated, and what to do when a broker and we do not agree about sequence numbers (KIP-98,
//! KIP-360). Producer ids come from [`producer_id`](super::producer_id), numbers from [`sequence`](super::sequence).
//!
//! Invariants:
//! - A batch gets its stamp when it is first taken for a request, and keeps stamp and bounds for as long as
//!   it may be in the log: whatever is repeated is repeated alike, so that the broker drops it.
//! - Up to five batches (`IN_FLIGHT`) of a partition are in flight, which is how many the broker remembers. One
//!   that is repeated goes alone: were others appended meanwhile, and its answer lost once more, the broker
//!   would not know it any longer.
//! - A broker that does not know a producer takes any number from it. So until the first batch is
//!   acknowledged, none follows it; nor after a pause in which it may have been forgotten.
//! - A number that will never be used leaves a gap that the broker does not pass. A partition whose batch
//!   was failed, or was refused for its number though none before it is open, *restarts*: once all before
//!   the gap have their fate and nothing is in flight, those after it lose their stamps, since they cannot
//!   be in the log, and the epoch is raised.
//! - Epochs are a partition's own. Brokers keep numbers by partition and compare epochs there only.
//! - A broker that does not recognise a batch may have it all the same: one that was restarted remembers the last
//!   batch of a producer alone, and so does Kafka 0.11 always. But numbers in a log have no gaps. So one whose
//!   answer was lost is *passed* while another such one follows it: the first of those that the broker has, or
//!   takes, shows that all before it are there; when it knows none, none is. When the one that follows was cut, since it
//!   seemed too large for a request, its parts may tell nothing: then it is sent as new, which is said and counted.
//! - Numbers are never used twice under one id and epoch, or a broker would take new batches for old ones: when
//!   what is known of a partition's numbers is lost with it, the producer id goes, too.
//! - Batches that another producer stamped (a dead worker's, a driver's that was restarted) are repeated
//!   with that stamp, oldest first.
//!
//! | answer | nothing older is open | otherwise |
//! |---|---|---|
//! | none, DUPLICATE_SEQUENCE_NUMBER | delivered | delivered |
//! | OUT_OF_ORDER_SEQUENCE_NUMBER, its answer and that of a later one lost | passed | wait for the older one |
//! | OUT_OF_ORDER_SEQUENCE_NUMBER, for a part of a batch in doubt | see [`request_limit`](super::request_limit) | wait for the older one |
//! | OUT_OF_ORDER_SEQUENCE_NUMBER | not in the log: restart; a dead worker's is sent as new | wait for the older one |
//! | UNKNOWN_PRODUCER_ID | the broker forgot us: the same, said and counted | wait for the older one |
//! | INVALID_PRODUCER_EPOCH, INVALID_PRODUCER_ID_MAPPING | restart with a new id, said and counted | the same |

use super::accumulator::Partition;
use super::api::{Delivery, Notice, Outcome, Reason};
use super::batch::{Batch, InLog, Record};
use super::broker::InFlightBatch;
use super::ids::TopicId;
use super::retry::Retry;
use super::rules::Idempotence;
use super::sequence::Restart;
use super::state::Producer;
use super::timer::{Time, Timer};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::record_batch::ProducerStamp;
use crate::seeded_bug::{Bug, is_seeded};

impl Producer {
    /// Takes a batch that another producer stamped and whose fate nobody knows: it is sent again as it is,
    /// before what comes later. `is_part`: see [`Batch::is_part`]. Batches of one partition are to be handed in in the
    /// order of their numbers.
    pub fn handle_repeat(
        &mut self,
        now: Time,
        topic: TopicId,
        partition: u32,
        stamp: ProducerStamp,
        is_part: bool,
        records: Vec<Record>,
    ) {
        self.load.held += records.len() as u64;
        let records = records.into_iter().map(|record| {
            let born = record.born.min(now);
            Record { born, partition: Some(partition), ..record }
        });
        let batch = Batch::repeated(stamp, is_part, records);
        self.route_repeat(now, topic, partition, batch);
    }

    pub(super) fn route_repeat(&mut self, now: Time, id: TopicId, index: u32, batch: Batch) {
        let topic = &mut self.topics[id];
        let expiry = batch.born() + self.rules.message_timeout;
        match topic.partitions.get_mut(index as usize) {
            Some(partition) => {
                partition.put_back(std::iter::once(batch));
                self.reschedule_partition(now, id, index);
            }
            // Whoever told of the partitions may be behind.
            None => {
                topic.repeats.push_back((index, batch));
                self.timers.schedule(&mut topic.scheduled, Timer::Topic(id), expiry);
                self.want_metadata(now);
            }
        }
    }

    /// A broker keeps a topic's log in a format without numbers (`log.message.format.version` before 0.11): where they
    /// are not required its partition goes on without. True when that is so.
    pub(super) fn does_without_numbers(&mut self, sent: &InFlightBatch, error: ErrorCode) -> bool {
        let refused = error == ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT
            && sent.batch.stamp.is_some()
            && self.identity.mode == Idempotence::Preferred;
        let partitions = &mut self.topics[sent.topic].partitions;
        let partition = partitions.get_mut(sent.partition as usize).filter(|_| refused);
        if let Some(partition) = partition
            && !std::mem::replace(&mut partition.sequence.unnumbered, true)
        {
            self.out.notices.push_back(Notice::LogWithoutNumbers { topic: sent.topic });
        }
        refused
    }

    /// A broker refused a batch for its number.
    pub(super) fn out_of_sequence(&mut self, now: Time, mut sent: InFlightBatch, error: ErrorCode) {
        let Some(stamp) = sent.batch.stamp else { return };
        let fenced = !matches!(
            error,
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER | ErrorCode::UNKNOWN_PRODUCER_ID
        );
        let topic = &mut self.topics[sent.topic];
        let partition = topic.partitions.get_mut(sent.partition as usize);
        let Some(partition) = partition.filter(|p| fenced || !p.has_older(&stamp)) else {
            // Its turn comes after that of the one that is missing.
            return self.retry(now, sent, Retry::QUIETLY);
        };
        if error == ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER && sent.batch.is_part() {
            return self.part_is_out_of_order(now, sent);
        }
        // One that was passed is asked about again when those that were to tell of it did not.
        let asked_again = sent.batch.is_passed();
        sent.batch.unpass();
        let unknown = error == ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;
        let sure = unknown && !asked_again;
        if unknown
            && sent.batch.in_log == InLog::Unanswered
            && partition.has_later_unanswered(&stamp)
            && !is_seeded(Bug::TrustRefusal)
        {
            sent.batch.in_log = InLog::Passed;
            return self.retry(now, sent, Retry::QUIETLY);
        }
        partition.remove_in_flight(Some(stamp));
        let mut passed = partition.take_passed(&stamp);
        let restart = if fenced { Restart::Id } else { Restart::Epoch };
        for batch in passed.iter_mut().filter(|_| sure).chain([&mut sent.batch]) {
            if partition.sequence.stamped(batch) {
                if sure {
                    batch.in_log = InLog::No;
                }
                partition.sequence.must_restart(restart, batch);
            } else {
                // Only the numbers of a living producer can be used again.
                batch.stamp = None;
            }
        }
        for batch in passed.iter_mut().filter(|_| sure).chain([&mut sent.batch]) {
            self.resend_as_new(sent.topic, sent.partition, batch, error);
        }
        let (id, index) = (sent.topic, sent.partition);
        self.retry(now, sent, Retry { counted: true, ..Retry::QUIETLY });
        if let Some(partition) = self.topics[id].partitions.get_mut(index as usize) {
            partition.put_back(passed.into_iter());
            self.reschedule_partition(now, id, index);
        }
    }

    /// A part of a batch that may be in the log was refused, though nothing before it is open. Its first number is in
    /// use then, by the whole, unless there is a gap before it, it is another producer's, or the broker is one of Kafka
    /// 0.11 that has forgotten us, which says the same then.
    fn part_is_out_of_order(&mut self, now: Time, sent: InFlightBatch) {
        let partition = self.topics[sent.topic].partitions.get(sent.partition as usize);
        let in_use = partition.is_some_and(|partition| {
            let first = sent.batch.stamp.map(|stamp| stamp.base_sequence);
            let begins = first == Some(0) || first == Some(self.identity.first_sequence);
            partition.sequence.stamped(&sent.batch)
                && partition.sequence.is_surely_known(now, begins)
                && partition.passed_records() == 0
        });
        match in_use {
            true => self.finish(now, sent, Delivery::UNPLACED),
            false => {
                let error = ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;
                self.fail_in_doubt(now, sent, Reason::Broker(error));
            }
        }
    }

    /// A batch is about to be sent in a way in which no broker recognises it. Says so when it may be in the log.
    pub(super) fn resend_as_new(
        &mut self,
        topic: TopicId,
        partition: u32,
        batch: &mut Batch,
        error: ErrorCode,
    ) {
        if std::mem::take(&mut batch.in_log) != InLog::No {
            batch.resent = true;
            let records = batch.records.len();
            self.counts.resent_in_doubt += records as u64;
            self.out.notices.push_back(Notice::ResentInDoubt { topic, partition, records, error });
        }
    }

    /// Sends the records of a partition that is no more to others, unless they may be in a log: nobody can tell
    /// any more.
    pub(super) fn reroute(&mut self, now: Time, id: TopicId, index: u32, batch: Batch) {
        if batch.may_be_logged() {
            let reason = Reason::Broker(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
            let delivery = Delivery::Failed { reason, in_doubt: true };
            let (partition, records) = (Some(index), batch.records);
            return self.out.outcomes.push_back(Outcome {
                topic: id,
                partition,
                records,
                delivery,
            });
        }
        for record in batch.records {
            self.route(now, id, record);
        }
    }

    /// Starts a partition's numbers anew if that is due and nothing of it is in flight any more.
    pub(super) fn restart_sequence(&mut self, now: Time, id: TopicId, index: u32) {
        let topic = &mut self.topics[id];
        let Some(partition) = topic.partitions.get_mut(index as usize) else { return };
        if partition.in_flight() > 0 {
            return;
        }
        let Partition { sequence, queue, .. } = partition;
        let given_up = sequence.start_over(queue, &mut self.out.marks);
        if let (Some(given_up), Some((id, _))) = (given_up, self.identity.known)
            && given_up == id
        {
            self.identity.known = None;
            self.reschedule_identity(now);
        }
    }
}
