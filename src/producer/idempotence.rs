//! Idempotence: the producer id, the sequence numbers of each partition, and what to do when a broker and
//! we do not agree about them (KIP-98, KIP-360).
//!
//! Invariants:
//! - A batch gets its stamp when it is first taken for a request, and keeps stamp and bounds for as long as
//!   it may be in the log: whatever is repeated is repeated alike, so that the broker drops it.
//! - Up to five batches (`IN_FLIGHT`) of a partition are on the way, which is how many the broker remembers. One
//!   that is repeated goes alone: were others appended meanwhile, and its answer lost once more, the broker
//!   would not know it any longer.
//! - A broker that does not know a producer takes any number from it. So until the first batch is
//!   acknowledged, none follows it; nor after a pause in which it may have been forgotten.
//! - A number that will never be used leaves a gap that the broker does not pass. A partition whose batch
//!   was given up, or was refused for its number though none before it is open, *restarts*: once all before
//!   the gap have their fate and nothing is on the way, those after it lose their stamps, since they cannot
//!   be in the log, and the epoch is raised.
//! - Epochs are a partition's own. Brokers keep numbers by partition and compare epochs there only.
//! - A broker that does not recognise a batch may have it all the same: one that was restarted remembers the last
//!   batch of a producer alone, and so does Kafka 0.11 always. But numbers in a log have no gaps. So one whose
//!   answer was lost is *passed* while another such one follows it: the first of those that the broker has, or
//!   takes, shows that all before it are there; when it knows none, none is.
//! - Numbers are never used twice under one id and epoch, or a broker would take new batches for old ones: when
//!   what is known of a partition's numbers is lost with it, the producer id goes, too.
//! - Batches that another producer stamped (a dead worker's, a driver's that was restarted) are repeated
//!   with that stamp, oldest first.
//!
//! | answer | nothing older is open | otherwise |
//! |---|---|---|
//! | none, DUPLICATE_SEQUENCE_NUMBER | delivered | delivered |
//! | OUT_OF_ORDER_SEQUENCE_NUMBER, its answer and that of a later one lost | passed | wait for the older one |
//! | OUT_OF_ORDER_SEQUENCE_NUMBER | not in the log: restart; a dead worker's is sent as new | wait for the older one |
//! | UNKNOWN_PRODUCER_ID | the broker forgot us: the same, said and counted | wait for the older one |
//! | INVALID_PRODUCER_EPOCH, INVALID_PRODUCER_ID_MAPPING | restart with a new id, said and counted | the same |

use super::batch::{Batch, Record};
use super::sink::Sent;
use super::timer::{Scheduled, Timer};
use super::{
    Action, ConnId, Fate, Mark, NewRecord, Notice, Outcome, Producer, Reason, RecordId, RequestId,
    Time, TopicId, accumulator::Partition, retry,
};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::init_producer_id::InitProducerIdResponse;
use crate::protocol::record_batch::ProducerStamp;
use crate::protocol::sequence::{advance, precedes};
use crate::seeded_bug::{Bug, is_seeded};
use std::collections::VecDeque;
use std::time::Duration;

/// Batches of one partition that a broker can tell from doubles.
pub(super) const IN_FLIGHT: usize = 5;

/// How long after an acknowledgement a broker is taken to know us still. It keeps a producer for
/// `producer.id.expiration.ms`, a day if nobody said otherwise.
const REMEMBERED: Duration = Duration::from_secs(1);

/// Whether batches carry sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotence {
    /// No.
    Off,
    /// Yes, unless the brokers do not know it or do not allow it.
    Preferred,
    /// Yes, and nothing is sent without.
    Required,
}

/// The producer id, or the way to one.
#[derive(Debug)]
pub(super) struct Identity {
    pub mode: Idempotence,
    /// Id and epoch.
    known: Option<(i64, i16)>,
    /// The request on its way.
    asked: Option<(ConnId, RequestId)>,
    attempts: u32,
    not_before: Time,
    /// Number of the first record to an unknown partition: 0, or anything in tests.
    first_sequence: i32,
    pub scheduled: Scheduled,
}

impl Identity {
    pub fn new(mode: Idempotence) -> Identity {
        Identity {
            mode,
            known: None,
            asked: None,
            attempts: 0,
            not_before: Time(0),
            first_sequence: 0,
            scheduled: Scheduled::default(),
        }
    }

    pub fn is_on(&self) -> bool {
        self.mode != Idempotence::Off
    }

    fn is_wanted(&self) -> bool {
        self.is_on() && self.known.is_none()
    }
}

/// Why and how a partition's numbers start anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restart {
    /// With the next epoch.
    Epoch,
    /// With another producer id.
    Id,
}

/// A partition's place in its sequence.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// Id and epoch of the numbers; `None`: those of the next batch.
    owner: Option<(i64, i16)>,
    next: i32,
    /// When a batch of this owner and epoch was last acknowledged.
    acknowledged: Option<Time>,
    gap: Option<Gap>,
    /// Its log takes none.
    pub unnumbered: bool,
}

/// Numbers that will not be used.
#[derive(Debug)]
struct Gap {
    restart: Restart,
    /// The first of them.
    first: i32,
    /// None of them is in the log.
    sure: bool,
}

impl Sequence {
    /// True when a batch has the numbers of this partition's present owner and epoch.
    pub fn stamped(&self, batch: &Batch) -> bool {
        let stamp = batch.stamp.map(|stamp| (stamp.producer_id, stamp.epoch));
        stamp.is_some() && stamp == self.owner
    }

    /// Gives a batch that is about to be sent for the first time its stamp. False when there is no id yet.
    pub fn stamp(&mut self, identity: &Identity, batch: &mut Batch) -> bool {
        let repeated = batch.stamp.is_some() && !is_seeded(Bug::NewNumbersOnRetry);
        if repeated || !identity.is_on() || self.unnumbered || is_seeded(Bug::SkipStamp) {
            return true;
        }
        if self.owner.is_none() {
            self.next = identity.first_sequence;
        }
        let Some((producer_id, epoch)) = self.owner.or(identity.known) else { return false };
        self.owner = Some((producer_id, epoch));
        batch.stamp = Some(ProducerStamp { producer_id, epoch, base_sequence: self.next });
        self.next = advance(self.next, batch.records.len());
        true
    }

    /// Numbers of this batch will not be used. Those of another producer are its own affair.
    pub fn leave_gap(&mut self, batch: &Batch) {
        self.must_restart(Restart::Epoch, batch);
    }

    fn must_restart(&mut self, restart: Restart, batch: &Batch) {
        let Some(stamp) = batch.stamp.filter(|_| self.stamped(batch)) else { return };
        let mut gap =
            self.gap.take().unwrap_or(Gap { restart, first: stamp.base_sequence, sure: true });
        if precedes(stamp.base_sequence, gap.first) {
            gap.first = stamp.base_sequence;
        }
        if restart == Restart::Id {
            gap.restart = restart;
        }
        gap.sure &= !batch.in_doubt;
        self.gap = Some(gap);
    }

    /// A batch of these numbers was acknowledged.
    pub fn acknowledge(&mut self, now: Time, stamp: &ProducerStamp) {
        if self.owner == Some((stamp.producer_id, stamp.epoch)) {
            self.acknowledged = Some(now);
        }
    }

    /// True when numbers were given that a broker may remember.
    pub fn is_in_use(&self) -> bool {
        self.owner.is_some()
    }

    /// True while nothing may follow what is on the way.
    pub fn is_unsure(&self, now: Time) -> bool {
        let known = self.acknowledged.is_some_and(|at| now < at + REMEMBERED);
        !known && !is_seeded(Bug::FollowUnknown) || self.gap.is_some()
    }

    /// True when a batch has to wait for the restart. One that may be in the log does not, while the broker can
    /// still say whether it is.
    pub fn is_behind_gap(&self, batch: &Batch) -> bool {
        self.gap.as_ref().is_some_and(|gap| match &batch.stamp {
            Some(stamp) if self.stamped(batch) => {
                !precedes(stamp.base_sequence, gap.first) && (gap.sure || !batch.in_doubt)
            }
            // Another producer's numbers have nothing to do with it.
            stamp => stamp.is_none(),
        })
    }

    /// Starts anew, if that is due: `batches` are all there are, and none is on the way.
    /// Returns the producer id that is not to be used any more.
    fn start_over(
        &mut self,
        batches: &mut VecDeque<Batch>,
        marks: &mut VecDeque<(RecordId, Mark)>,
    ) -> Option<i64> {
        self.gap.as_ref()?;
        let before = |batch: &Batch| self.stamped(batch) && !self.is_behind_gap(batch);
        if batches.iter().any(before) && !is_seeded(Bug::RestartEarly) {
            return None;
        }
        let gap = self.gap.take()?;
        // The last one first: who finds some with their numbers, and some without, repeats the former, and they are to
        // be the older ones.
        for batch in batches.iter_mut().rev().filter(|batch| self.stamped(batch)) {
            batch.stamp = None;
            batch.passed = false;
            // What follows a number that is not in the log is not there either.
            batch.in_doubt &= !gap.sure;
            if !batch.in_doubt {
                marks.extend(batch.records.iter().rev().map(|record| (record.id, Mark::Unsent)));
            }
        }
        let (id, epoch) = self.owner?;
        self.next = 0;
        self.acknowledged = None;
        if is_seeded(Bug::KeepEpoch) {
            return None;
        }
        match (gap.restart, epoch.checked_add(1)) {
            (Restart::Epoch, Some(epoch)) => {
                self.owner = Some((id, epoch));
                None
            }
            _ => {
                self.owner = None;
                Some(id)
            }
        }
    }
}

/// True when both stamps come from one producer and epoch, `a` before `b`.
pub(super) fn is_older(a: &ProducerStamp, b: &ProducerStamp) -> bool {
    (a.producer_id, a.epoch) == (b.producer_id, b.epoch)
        && precedes(a.base_sequence, b.base_sequence)
}

impl Producer {
    /// Lets the numbers of all partitions begin elsewhere than at 0.
    #[cfg(test)]
    pub(super) fn begin_sequences_at(&mut self, sequence: i32) {
        self.identity.first_sequence = sequence;
    }

    /// Takes a batch that another producer stamped and whose fate nobody knows: it is sent again as it is,
    /// before what comes later. Batches of one partition are to be handed in in the order of their numbers.
    pub fn handle_repeat(
        &mut self,
        now: Time,
        topic: TopicId,
        partition: u32,
        stamp: ProducerStamp,
        records: Vec<NewRecord>,
    ) {
        self.held_records += records.len() as u64;
        let mut batch = Batch {
            closed: true,
            in_doubt: true,
            unanswered: true,
            stamp: Some(stamp),
            ..Batch::default()
        };
        for new in records {
            batch.push(Record { partition: Some(partition), ..Record::new(now, &new) });
        }
        self.route_repeat(now, topic, partition, batch);
    }

    pub(super) fn route_repeat(&mut self, now: Time, id: TopicId, index: u32, batch: Batch) {
        let topic = &mut self.topics[id.0 as usize];
        let expiry = batch.born() + self.rules.message_timeout;
        match topic.partitions.get_mut(index as usize) {
            Some(partition) => {
                partition.put_back(std::iter::once(batch));
                self.look_at_partition(now, id, index);
            }
            // Whoever told of the partitions may be behind.
            None => {
                topic.repeats.push_back((index, batch));
                self.timers.schedule(&mut topic.scheduled, Timer::Topic(id), expiry);
                self.want_metadata(now);
            }
        }
    }

    /// An answer to a request for a producer id.
    pub fn handle_producer_id(
        &mut self,
        now: Time,
        conn: ConnId,
        request: RequestId,
        response: &InitProducerIdResponse,
    ) {
        self.take_in_flight(conn, request);
        self.relist(conn);
        if self.identity.asked != Some((conn, request)) {
            return;
        }
        self.identity.asked = None;
        if let Some(&broker) = self.connections.get(&conn) {
            self.throttle(now, broker, response.throttle_ms);
        }
        match response.error {
            ErrorCode::NONE if response.producer_id >= 0 && response.epoch >= 0 => {
                self.identity.known = Some((response.producer_id, response.epoch));
                self.identity.attempts = 0;
                return self.look_at_all_partitions(now);
            }
            error @ (ErrorCode::UNSUPPORTED_VERSION | ErrorCode::CLUSTER_AUTHORIZATION_FAILED) => {
                self.notices.push_back(Notice::NoProducerId { error, mode: self.identity.mode });
                if self.identity.mode == Idempotence::Preferred {
                    self.identity.mode = Idempotence::Off;
                    return self.look_at_all_partitions(now);
                }
                // It takes a person to change that.
                self.identity.attempts = u32::MAX / 2;
            }
            // Whatever else it is may pass, as may an id that is none.
            _ => {}
        }
        self.identity.attempts = self.identity.attempts.saturating_add(1);
        let pause = retry::backoff(
            self.rules.retry_backoff,
            self.rules.retry_backoff_max,
            self.identity.attempts,
            &mut self.random,
        );
        self.identity.not_before = now + pause;
        self.look_at_identity(now);
    }

    /// Asks for a producer id, if one is needed and somebody is connected.
    pub(super) fn look_at_identity(&mut self, now: Time) {
        let identity = &mut self.identity;
        if !identity.is_wanted() || identity.asked.is_some() {
            return;
        }
        if identity.not_before > now {
            let at = identity.not_before;
            return self.timers.schedule(&mut identity.scheduled, Timer::ProducerId, at);
        }
        self.identity.asked =
            self.ask(now, |conn, request| Action::InitProducerId { conn, request });
        // Without a connection the next one asks; those that there are may be throttled.
        if self.identity.asked.is_none() && !self.connections.is_empty() {
            let at = now + self.rules.retry_backoff;
            self.timers.schedule(&mut self.identity.scheduled, Timer::ProducerId, at);
        }
    }

    /// A connection is gone, and with it perhaps the request for an id. The next one is put off when it `failed`,
    /// and not when it was we who closed it.
    pub(super) fn forget_asked_identity(&mut self, now: Time, conn: ConnId, failed: bool) {
        if self.identity.asked.is_some_and(|(asked, _)| asked == conn) {
            self.identity.asked = None;
            if failed {
                self.identity.not_before = now + self.rules.retry_backoff;
            }
            self.look_at_identity(now);
        }
    }

    /// Sees to every partition with something to send.
    pub(super) fn look_at_all_partitions(&mut self, now: Time) {
        for topic in 0..self.topics.len() {
            for partition in 0..self.topics[topic].partitions.len() {
                if !self.topics[topic].partitions[partition].is_empty() {
                    self.look_at_partition(now, TopicId(topic as u32), partition as u32);
                }
            }
        }
    }

    /// A broker keeps a topic's log in a format without numbers (`log.message.format.version` before 0.11): where they
    /// are not required its partition goes on without. True when that is so.
    pub(super) fn does_without_numbers(&mut self, sent: &Sent, error: ErrorCode) -> bool {
        let refused = error == ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT
            && sent.batch.stamp.is_some()
            && self.identity.mode == Idempotence::Preferred;
        let partitions = &mut self.topics[sent.topic.0 as usize].partitions;
        let partition = partitions.get_mut(sent.partition as usize).filter(|_| refused);
        if let Some(partition) = partition
            && !std::mem::replace(&mut partition.sequence.unnumbered, true)
        {
            self.notices.push_back(Notice::LogWithoutNumbers { topic: sent.topic });
        }
        refused
    }

    /// A broker refused a batch for its number.
    pub(super) fn out_of_sequence(&mut self, now: Time, mut sent: Sent, error: ErrorCode) {
        let Some(stamp) = sent.batch.stamp else { return };
        let fenced = !matches!(
            error,
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER | ErrorCode::UNKNOWN_PRODUCER_ID
        );
        let topic = &mut self.topics[sent.topic.0 as usize];
        let partition = topic.partitions.get_mut(sent.partition as usize);
        let Some(partition) = partition.filter(|p| fenced || !p.has_older(&stamp)) else {
            // Its turn comes after that of the one that is missing.
            return self.retry(now, sent, false, false, false);
        };
        // One that was passed is asked about again when those that were to tell of it did not.
        let asked_again = std::mem::take(&mut sent.batch.passed);
        let unknown = error == ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;
        let sure = unknown && !asked_again;
        if unknown
            && sent.batch.in_doubt
            && sent.batch.unanswered
            && partition.has_later_unanswered(&stamp)
            && !is_seeded(Bug::TrustRefusal)
        {
            sent.batch.passed = true;
            return self.retry(now, sent, false, false, false);
        }
        partition.land(Some(stamp));
        let mut passed = partition.take_passed(&stamp);
        let restart = if fenced { Restart::Id } else { Restart::Epoch };
        for batch in passed.iter_mut().filter(|_| sure).chain([&mut sent.batch]) {
            if partition.sequence.stamped(batch) {
                batch.in_doubt &= !sure;
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
        self.retry(now, sent, true, false, false);
        if let Some(partition) = self.topics[id.0 as usize].partitions.get_mut(index as usize) {
            partition.put_back(passed.into_iter());
            self.look_at_partition(now, id, index);
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
        if std::mem::take(&mut batch.in_doubt) {
            batch.resent = true;
            let records = batch.records.len();
            self.counts.resent_in_doubt += records as u64;
            self.notices.push_back(Notice::ResentInDoubt { topic, partition, records, error });
        }
    }

    /// Sends the records of a partition that is no more to others, unless they may be in a log: nobody can tell
    /// any more.
    pub(super) fn reroute(&mut self, now: Time, id: TopicId, index: u32, batch: Batch) {
        if batch.may_be_logged() {
            let reason = Reason::Broker(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
            let fate = Fate::Failed { reason, in_doubt: true };
            let (partition, records) = (Some(index), batch.records);
            return self.outcomes.push_back(Outcome { topic: id, partition, records, fate });
        }
        for record in batch.records {
            self.route(now, id, record);
        }
    }

    /// Partitions are gone, and with them what is known of their numbers. Should they come back, a broker may
    /// remember them.
    pub(super) fn forget_numbers(&mut self, now: Time) {
        self.identity.known = None;
        self.look_at_identity(now);
    }

    /// Starts a partition's numbers anew if that is due and nothing of it is on the way any more.
    pub(super) fn restart_sequence(&mut self, now: Time, id: TopicId, index: u32) {
        let topic = &mut self.topics[id.0 as usize];
        let Some(partition) = topic.partitions.get_mut(index as usize) else { return };
        if partition.in_flight() > 0 {
            return;
        }
        let Partition { sequence, queue, .. } = partition;
        let given_up = sequence.start_over(queue, &mut self.marks);
        if let (Some(given_up), Some((id, _))) = (given_up, self.identity.known)
            && given_up == id
        {
            self.identity.known = None;
            self.look_at_identity(now);
        }
    }
}
