//! The rules of producing, as a state machine: no sockets, no clock, no threads, no payload bytes.
//!
//! # Contract
//! - In go records, connection events, answers and time, through `handle_*`; out come [`Action`]s through
//!   [`poll`](Producer::poll), fates of records through [`poll_outcome`](Producer::poll_outcome), what is
//!   to be on record of them through [`poll_mark`](Producer::poll_mark), things worth a log line through
//!   [`poll_notice`](Producer::poll_notice), and the next moment something is due through
//!   [`next_deadline`](Producer::next_deadline). After any `handle_*` poll all of them until they are empty.
//! - Time never runs backwards. Chance comes from the seed, so equal calls give equal runs.
//! - Every record handed in comes out exactly once, as delivered or as failed.
//! - Per partition, records are sent in the order they came; a batch that is repeated is not overtaken.
//! - Outcomes and marks are to be carried out before the actions that come with them: a broker remembers a partition's
//!   last five batches, and whoever reads what we left must not find more of them open.
//! - A record in flight is never failed: its fate waits for the answer, the request's time limit, or
//!   the end of the connection.
//! - A late event of an earlier connection or request does no harm: both are named by numbers that are
//!   never used twice.
//!
//! # The life of a record
//! ```text
//! handle_record -> waiting for metadata -> accumulator: open batch -> closed batch -> broker: in flight
//!                        |                       ^            ^                          |
//!                        | expired               |            '------- retry, split -----+-> delivered
//!                        v                       v expired                               v
//!                      failed                  failed                                  failed
//! ```

mod accumulator;
mod api;
pub mod batch;
mod broker;
mod completion;
mod compression_ratio;
mod discovery;
mod dispatch;
mod eviction;
mod idempotence;
mod identity;
mod ids;
mod metadata;
pub mod partitioner;
mod producer_id;
pub mod random;
mod request_limit;
mod retry;
mod routing;
mod rules;
mod sequence;
mod state;
#[cfg(test)]
mod tests;
pub mod timer;

pub use api::{Action, CloseReason, Counts, Delivery, Mark, NewRecord, Notice, Outcome, Reason};
pub use batch::Record;
pub use broker::InFlightBatch;
pub use ids::{ConnId, RecordId, RequestId, TopicId};
pub use rules::{Idempotence, Rules};
pub use state::Producer;
pub use timer::Time;

use crate::protocol::metadata::MetadataResponse;
use crate::protocol::produce::{ProduceResponse, ProducedTopicRef};
use accumulator::Partition;
use broker::{ConnState, request_bytes};
use dispatch::{ANSWER_GRACE, Ending};
use metadata::Refresh;
use timer::Timer;
use uuid::Uuid;

/// Partitions among which open batches are looked for, each time the caller goes to sleep.
const OPEN_AMONG: usize = 256;

impl Producer {
    /// Number of a topic; a new one is asked for with the next metadata.
    pub fn topic(&mut self, now: Time, name: &str) -> TopicId {
        let id = match self.topics.by_name.get(name) {
            Some(id) if self.topics[*id].may_be_made => return *id,
            Some(id) => *id,
            None => self.topics.add(name),
        };
        let topic = &mut self.topics[id];
        (topic.may_be_made, topic.is_due) = (true, true);
        self.want_due_metadata(now);
        id
    }

    /// Number of a topic that is of use only if it exists: asking about it does not make it, and that nobody knows it
    /// is worth no notice.
    pub fn topic_if_it_exists(&mut self, now: Time, name: &str) -> TopicId {
        if let Some(id) = self.topics.by_name.get(name) {
            return *id;
        }
        let id = self.topics.add(name);
        self.topics[id].may_be_made = false;
        self.want_due_metadata(now);
        id
    }

    /// Name of a topic.
    pub fn topic_name(&self, topic: TopicId) -> &str {
        &self.topics[topic].name
    }

    /// Number of a topic's partitions, once it is known.
    pub fn partition_count(&self, topic: TopicId) -> Option<u32> {
        let count = self.topics[topic].partitions.len();
        (count > 0).then_some(count as u32)
    }

    /// Records that wait to be sent: topic, partition (`None`: no metadata yet), count, where that is not 0.
    /// Those in flight are not among them.
    pub fn waiting_records(&self) -> impl Iterator<Item = (&str, Option<u32>, usize)> + '_ {
        let rows =
            self.topics.list.iter().flat_map(|topic| {
                let repeats: usize = topic.repeats.iter().map(|(_, b)| b.records.len()).sum();
                let unassigned = (&*topic.name, None, topic.waiting.len() + repeats);
                let partitions = topic.partitions.iter().enumerate();
                std::iter::once(unassigned).chain(partitions.map(|(index, partition)| {
                    (&*topic.name, Some(index as u32), partition.records())
                }))
            });
        rows.filter(|(_, _, count)| *count > 0)
    }

    /// The topic of this name, if it is in use.
    pub fn topic_by_name(&self, name: &str) -> Option<&str> {
        self.topics.by_name.get_key_value(name).map(|(name, _)| &**name)
    }

    /// Name of the topic with this id of Kafka's.
    pub fn topic_by_id(&self, id: &Uuid) -> Option<&str> {
        self.topics.list.iter().find(|topic| topic.id == *id).map(|topic| &*topic.name)
    }

    /// Names of the topics that the Metadata request in flight is about.
    pub fn asked_topics(&self) -> Vec<&str> {
        match &self.metadata.refresh {
            Refresh::Asked(asked) => asked.page.iter().map(|id| self.topic_name(*id)).collect(),
            Refresh::Idle | Refresh::Due => Vec::new(),
        }
    }

    /// Whether asking about [these](Self::asked_topics) may make them.
    pub fn may_make_asked_topics(&self) -> bool {
        match &self.metadata.refresh {
            Refresh::Asked(asked) => asked.page.iter().all(|id| self.topics[*id].may_be_made),
            Refresh::Idle | Refresh::Due => true,
        }
    }

    /// The batches of a Produce request that has no outcome yet.
    pub fn request(&self, conn: ConnId, request: RequestId) -> &[InFlightBatch] {
        let node = self.brokers.connections.get(&conn);
        let broker = node.and_then(|node| self.brokers.known.get(node));
        broker
            .and_then(|broker| broker.in_flight.iter().find(|sent| sent.request == request))
            .map_or(&[], |sent| &sent.batches)
    }

    /// Records in flight.
    pub fn in_flight_records(&self) -> u64 {
        self.load.in_flight
    }

    /// Records handed in that have no fate yet.
    pub fn held_records(&self) -> u64 {
        self.load.held
    }

    /// Counts since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many more records may come before it is worth looking at them: as many as the one open batch
    /// lacks. When several fill at a time one of them is nearly full always, and to look for each would cost
    /// more than it gains: then half of what they lack together. Their linger bounds the wait.
    pub fn records_to_full_batch(&self) -> usize {
        let partitions = self.topics.list.iter().flat_map(|topic| &topic.partitions);
        let open = partitions.take(OPEN_AMONG).map(Partition::open_records).filter(|n| *n > 0);
        let lacks = open.map(|n| self.rules.batch_records - n);
        let (count, total) = lacks.fold((0, 0), |(count, sum), n| (count + 1, sum + n));
        match count {
            0 => self.rules.batch_records,
            1 => total,
            _ => total.div_ceil(2),
        }
    }

    // ---------------------------------------------------------------------------------- events in

    /// Takes a record.
    pub fn handle_record(&mut self, now: Time, new: NewRecord) {
        self.load.held += 1;
        let born = new.record.born.min(now);
        self.route(now, new.topic, Record { born, ..new.record });
    }

    /// A connection is open and its versions are known.
    pub fn handle_connected(&mut self, now: Time, conn: ConnId) {
        let Some(&node) = self.brokers.connections.get(&conn) else { return };
        let Some(broker) = self.brokers.known.get_mut(&node) else { return };
        if broker.conn_state != ConnState::Connecting(conn) {
            return;
        }
        broker.conn_state = ConnState::Up(conn);
        if node >= 0 {
            self.brokers.reached();
        }
        self.list_broker(node);
        self.reschedule_metadata(now);
        self.reschedule_identity(now);
    }

    /// A connection could not be made, or broke.
    pub fn handle_closed(&mut self, now: Time, conn: ConnId) {
        self.counts.broken_connections += 1;
        self.drop_connection(now, conn, Ending::Broken);
    }

    /// A connection could not be made since the broker and we do not accept each other. To try that again soon is
    /// no use, and may lock an account: the next attempt has ten times the usual pause before it.
    pub fn handle_refused(&mut self, now: Time, conn: ConnId) {
        self.counts.broken_connections += 1;
        self.drop_connection(now, conn, Ending::Refused);
    }

    /// A connection was not made, since this producer, or all of the process together, has as many as there may be. It is
    /// tried again after a pause; where the broker has most to send an idle connection makes room for it.
    pub fn handle_no_room(&mut self, now: Time, conn: ConnId) {
        let node = self.brokers.connections.get(&conn).copied();
        self.drop_connection(now, conn, Ending::NoRoom);
        if let Some(node) = node {
            self.close_idle_for(now, node);
        }
    }

    /// Requests with `acks = 0` have no answer: they are done once they are written.
    pub fn handle_written(&mut self, now: Time, conn: ConnId, request: RequestId) {
        if self.rules.acks != 0 {
            return;
        }
        for sent in self.take_in_flight(conn, request) {
            self.complete(now, sent, None);
        }
        self.relist(conn);
    }

    /// A Produce request was encoded with compression: its batches took so many bytes, in their order, by which it is
    /// known how many records may go into a batch, and batches into a request. That may have taken long, so its time for
    /// an answer is counted from `now`.
    pub fn handle_encoded(&mut self, now: Time, conn: ConnId, request: RequestId, sizes: &[usize]) {
        let timeout = self.rules.request_timeout + ANSWER_GRACE;
        let Some(broker) = self.brokers.of(conn) else { return };
        let Some(sent) = broker.in_flight.iter_mut().find(|sent| sent.request == request) else {
            return;
        };
        if !sizes.is_empty() {
            sent.begin_anew(now + timeout);
        }
        for (sent, bytes) in sent.batches.iter_mut().zip(sizes) {
            sent.batch.was_encoded_in(*bytes);
            self.topics[sent.topic].compression.observe(sent.batch.ratio);
        }
    }

    /// An answer to a Produce request.
    pub fn handle_produced(
        &mut self,
        now: Time,
        conn: ConnId,
        request: RequestId,
        response: &ProduceResponse,
    ) {
        let sent = self.take_in_flight(conn, request);
        let Some(broker) = self.brokers.of(conn) else { return };
        broker.backoff.failures = 0;
        broker.request_limit.answered(request_bytes(&sent));
        broker.throttle.one_at_a_time = response.throttle_ms > 0;
        self.throttle(now, conn, response.throttle_ms);
        for sent in sent {
            let topic = &self.topics[sent.topic];
            // The first answer for a partition counts; one that was not asked for counts for nothing.
            let told = response
                .topics
                .iter()
                .filter(|told| match &told.topic {
                    ProducedTopicRef::Name(name) => **name == *topic.name,
                    ProducedTopicRef::Id(id) => *id == sent.topic_id && !id.is_nil(),
                })
                .flat_map(|told| &told.partitions)
                .find(|told| told.index == sent.partition as i32);
            match told {
                Some(told) => self.complete(now, sent, Some(told)),
                None => self.retry_in_doubt(now, sent),
            }
        }
        self.relist(conn);
    }

    /// An answer to a metadata request.
    pub fn handle_metadata(
        &mut self,
        now: Time,
        conn: ConnId,
        request: RequestId,
        response: &MetadataResponse,
    ) {
        self.take_in_flight(conn, request);
        self.relist(conn);
        let Some(asked) = self.metadata.answered(conn, request) else { return };
        self.throttle(now, conn, response.throttle_ms);
        if let Some(broker) = self.brokers.of(conn) {
            broker.backoff.failures = 0;
        }
        self.metadata.lost_answers = 0;
        let brokers_named = self.update_brokers(now, response);
        self.update_page(now, asked.page, response);
        if self.topics.any_due(now) {
            // A rest may have ended since it was asked.
            self.metadata.want();
        } else {
            self.end_round(now, brokers_named);
        }
        self.reschedule_metadata(now);
    }

    /// Sends what has come so far without waiting for full batches.
    pub fn handle_flush(&mut self, now: Time) {
        self.flushed_at = Some(now);
        self.reschedule_all_partitions(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some((at, timer)) = self.timers.pop(now) {
            match timer {
                Timer::Partition(id, index) => {
                    let topic = &mut self.topics[id];
                    if let Some(partition) = topic.partitions.get_mut(index as usize)
                        && partition.scheduled.fired(at)
                    {
                        self.reschedule_partition(now, id, index);
                    }
                }
                Timer::Topic(id) => {
                    if self.topics[id].scheduled.fired(at) {
                        self.expire_waiting(now, id);
                    }
                }
                Timer::Broker(node) => {
                    if let Some(broker) = self.brokers.known.get_mut(&node)
                        && broker.scheduled.fired(at)
                    {
                        self.reschedule_broker(now, node);
                    }
                }
                Timer::ProducerId => {
                    if self.identity.scheduled.fired(at) {
                        self.reschedule_identity(now);
                    }
                }
                Timer::Metadata => {
                    if self.metadata.scheduled.fired(at) {
                        if self.metadata.periodic <= now {
                            self.metadata.periodic = now + self.rules.metadata_refresh;
                            self.metadata.all = true;
                            self.metadata.want();
                        }
                        self.reschedule_metadata(now);
                    }
                }
            }
        }
    }

    // --------------------------------------------------------------------------------- results out

    /// The next thing to do.
    pub fn poll(&mut self, now: Time) -> Option<Action> {
        loop {
            if let Some(action) = self.out.actions.pop_front() {
                return Some(action);
            }
            let node = *self.brokers.listed.front()?;
            if !self.drive_broker(now, node) {
                self.brokers.listed.pop_front();
                if let Some(broker) = self.brokers.known.get_mut(&node) {
                    broker.listed = false;
                }
            }
        }
    }

    /// The next fate.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        let outcome = self.out.outcomes.pop_front()?;
        self.load.held -= outcome.records.len() as u64;
        Some(outcome)
    }

    /// The next thing to be written down of a record, with idempotence, before the next action is carried out.
    pub fn poll_mark(&mut self) -> Option<(RecordId, Mark)> {
        self.out.marks.pop_front()
    }

    /// The next thing worth a log line.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.out.notices.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.next()
    }
}
