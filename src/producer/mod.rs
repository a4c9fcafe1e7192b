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
//! - A record on its way is never given up: its fate waits for the answer, the request's time limit, or
//!   the end of the connection.
//! - A late event of an earlier connection or request does no harm: both are named by numbers that are
//!   never used twice.
//!
//! # The life of a record
//! ```text
//! handle_record -> waiting for metadata -> accumulator: open batch -> closed batch -> sink: in flight
//!                        |                       ^            ^                          |
//!                        | expired               |            '------- retry, split -----+-> delivered
//!                        v                       v expired                               v
//!                      failed                  failed                                  failed
//! ```

mod accumulator;
pub mod batch;
mod discovery;
mod dispatch;
mod eviction;
mod exchange;
mod idempotence;
mod metadata;
pub mod partitioner;
pub mod random;
mod retry;
mod routing;
mod rules;
mod settlement;
mod sink;
#[cfg(test)]
mod tests;
pub mod timer;

pub use batch::{Batch, Record};
pub use exchange::{
    Action, BrokerId, CloseReason, ConnId, Counts, Fate, Mark, NewRecord, Notice, Outcome, Reason,
    RecordId, RequestId, TopicId,
};
pub use idempotence::Idempotence;
pub use rules::Rules;
pub use sink::Sent;
pub use timer::Time;

use crate::protocol::metadata::MetadataResponse;
use crate::protocol::produce::{ProduceResponse, ProducedTopicRef};
use accumulator::Partition;
use dispatch::Ending;
use idempotence::Identity;
use metadata::{Refresh, Topic};
use random::Random;
use sink::{Link, Sink};
use std::collections::{BTreeMap, HashMap, VecDeque};
use timer::{Timer, Timers};
/// Partitions among which open batches are looked for, each time the caller goes to sleep.
const OPEN_AMONG: usize = 256;

/// The state machine. See the module for its contract.
pub struct Producer {
    rules: Rules,
    random: Random,
    topics: Vec<Topic>,
    topic_ids: HashMap<Box<str>, TopicId>,
    sinks: BTreeMap<BrokerId, Sink>,
    connections: HashMap<ConnId, BrokerId>,
    refresh: Refresh,
    identity: Identity,
    flushed_at: Option<Time>,
    timers: Timers,
    /// Sinks that may have something to do.
    listed_sinks: VecDeque<BrokerId>,
    actions: VecDeque<Action>,
    outcomes: VecDeque<Outcome>,
    notices: VecDeque<Notice>,
    marks: VecDeque<(RecordId, Mark)>,
    last_id: u64,
    in_flight_records: u64,
    held_records: u64,
    counts: Counts,
}

impl Producer {
    /// A producer that knows nothing but its rules.
    pub fn new(rules: Rules, seed: u64) -> Producer {
        let sinks = rules
            .bootstrap
            .iter()
            .enumerate()
            .map(|(index, address)| (-1 - index as BrokerId, Sink::new(address.clone())))
            .collect();
        Producer {
            identity: Identity::new(rules.idempotence),
            rules,
            random: Random::new(seed),
            topics: Vec::new(),
            topic_ids: HashMap::new(),
            sinks,
            connections: HashMap::new(),
            refresh: Refresh { all: true, periodic: Time::NEVER, ..Refresh::default() },
            flushed_at: None,
            timers: Timers::default(),
            listed_sinks: VecDeque::new(),
            actions: VecDeque::new(),
            outcomes: VecDeque::new(),
            notices: VecDeque::new(),
            marks: VecDeque::new(),
            last_id: 0,
            in_flight_records: 0,
            held_records: 0,
            counts: Counts::default(),
        }
    }

    /// Number of a topic; a new one is asked for with the next metadata.
    pub fn topic(&mut self, now: Time, name: &str) -> TopicId {
        if let Some(id) = self.topic_ids.get(name) {
            return *id;
        }
        let id = TopicId(self.topics.len() as u32);
        self.topics.push(Topic::new(name));
        self.topic_ids.insert(name.into(), id);
        self.want_due_metadata(now);
        id
    }

    /// Name of a topic.
    pub fn topic_name(&self, topic: TopicId) -> &str {
        &self.topics[topic.0 as usize].name
    }

    /// Number of a topic's partitions, once it is known.
    pub fn partition_count(&self, topic: TopicId) -> Option<u32> {
        let count = self.topics[topic.0 as usize].partitions.len();
        (count > 0).then_some(count as u32)
    }

    /// Records that wait to be sent: topic, partition (`None`: no metadata yet), count, where that is not 0.
    /// Those on their way are not among them.
    pub fn waiting_records(&self) -> impl Iterator<Item = (&str, Option<u32>, usize)> + '_ {
        let rows =
            self.topics.iter().flat_map(|topic| {
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
        self.topic_ids.get_key_value(name).map(|(name, _)| &**name)
    }

    /// Name of the topic with this id of Kafka's.
    pub fn topic_by_id(&self, id: &[u8; 16]) -> Option<&str> {
        self.topics.iter().find(|topic| topic.id == *id).map(|topic| &*topic.name)
    }

    /// Names of the topics that the Metadata request on its way is about.
    pub fn asked_topics(&self) -> Vec<&str> {
        self.refresh.page.iter().map(|id| self.topic_name(*id)).collect()
    }

    /// The batches of a Produce request that has no outcome yet.
    pub fn request(&self, conn: ConnId, request: RequestId) -> &[Sent] {
        let sink = self.connections.get(&conn).and_then(|broker| self.sinks.get(broker));
        sink.and_then(|sink| sink.in_flight.iter().find(|sent| sent.request == request))
            .map_or(&[], |sent| &sent.batches)
    }

    /// Records on their way to a broker.
    pub fn in_flight_records(&self) -> u64 {
        self.in_flight_records
    }

    /// Records handed in that have no fate yet.
    pub fn held_records(&self) -> u64 {
        self.held_records
    }

    /// Counts since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many more records may come before it is worth looking at them: as many as the one open batch
    /// lacks. When several fill at a time one of them is nearly full always, and to look for each would cost
    /// more than it gains: then half of what they lack together. Their linger bounds the wait.
    pub fn records_to_full_batch(&self) -> usize {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
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
        let record = Record::new(now, &new);
        self.held_records += 1;
        self.route(now, new.topic, record);
    }

    /// A connection is open and its versions are known.
    pub fn handle_connected(&mut self, now: Time, conn: ConnId) {
        let Some(&broker) = self.connections.get(&conn) else { return };
        let Some(sink) = self.sinks.get_mut(&broker) else { return };
        if sink.link != Link::Connecting(conn) {
            return;
        }
        sink.link = Link::Up(conn);
        self.list_sink(broker);
        self.look_at_metadata(now);
        self.look_at_identity(now);
    }

    /// A connection could not be made, or broke.
    pub fn handle_closed(&mut self, now: Time, conn: ConnId) {
        self.counts.broken_connections += 1;
        self.drop_connection(now, conn, Ending::Failed);
    }

    /// A connection could not be made since the broker and we do not accept each other. To try that again soon is
    /// no use, and may lock an account: the next attempt has ten times the usual pause before it.
    pub fn handle_refused(&mut self, now: Time, conn: ConnId) {
        self.counts.broken_connections += 1;
        self.drop_connection(now, conn, Ending::Refused);
    }

    /// Requests with `acks = 0` have no answer: they are done once they are written.
    pub fn handle_written(&mut self, now: Time, conn: ConnId, request: RequestId) {
        if self.rules.acks != 0 {
            return;
        }
        for sent in self.take_in_flight(conn, request) {
            self.settle(now, sent, None);
        }
        self.relist(conn);
    }

    /// An answer to a Produce request.
    pub fn handle_produced(
        &mut self,
        now: Time,
        conn: ConnId,
        request: RequestId,
        response: &ProduceResponse,
    ) {
        let Some(&broker) = self.connections.get(&conn) else { return };
        self.throttle(now, broker, response.throttle_ms);
        let sent = self.take_in_flight(conn, request);
        if let Some(sink) = self.sinks.get_mut(&broker) {
            sink.failures = 0;
        }
        for sent in sent {
            let topic = &self.topics[sent.topic.0 as usize];
            // The first answer for a partition counts; one that was not asked for counts for nothing.
            let told = response
                .topics
                .iter()
                .filter(|told| match &told.topic {
                    ProducedTopicRef::Name(name) => **name == *topic.name,
                    ProducedTopicRef::Id(id) => *id == sent.topic_id && *id != [0; 16],
                })
                .flat_map(|told| &told.partitions)
                .find(|told| told.index == sent.partition as i32);
            match told {
                Some(told) => self.settle(now, sent, Some(told)),
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
        if self.refresh.asked != Some((conn, request)) {
            return;
        }
        self.refresh.asked = None;
        if let Some(&broker) = self.connections.get(&conn) {
            self.throttle(now, broker, response.throttle_ms);
            if let Some(sink) = self.sinks.get_mut(&broker) {
                sink.failures = 0;
            }
        }
        self.refresh.unanswered = 0;
        let brokers_named = self.update_brokers(now, response);
        self.update_page(now, response);
        if !self.topics.iter().any(|topic| topic.is_due) {
            self.end_round(now, brokers_named);
        }
        self.look_at_metadata(now);
    }

    /// Sends what has come so far without waiting for full batches.
    pub fn handle_flush(&mut self, now: Time) {
        self.flushed_at = Some(now);
        self.look_at_all_partitions(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some((at, timer)) = self.timers.pop(now) {
            match timer {
                Timer::Partition(id, index) => {
                    let topic = &mut self.topics[id.0 as usize];
                    if let Some(partition) = topic.partitions.get_mut(index as usize)
                        && partition.scheduled.fired(at)
                    {
                        self.look_at_partition(now, id, index);
                    }
                }
                Timer::Topic(id) => {
                    if self.topics[id.0 as usize].scheduled.fired(at) {
                        self.expire_waiting(now, id);
                    }
                }
                Timer::Sink(broker) => {
                    if let Some(sink) = self.sinks.get_mut(&broker)
                        && sink.scheduled.fired(at)
                    {
                        self.look_at_sink(now, broker);
                    }
                }
                Timer::ProducerId => {
                    if self.identity.scheduled.fired(at) {
                        self.look_at_identity(now);
                    }
                }
                Timer::Metadata => {
                    if self.refresh.scheduled.fired(at) {
                        if self.refresh.periodic <= now {
                            self.refresh.periodic = now + self.rules.metadata_refresh;
                            (self.refresh.wanted, self.refresh.all) = (true, true);
                        }
                        self.look_at_metadata(now);
                    }
                }
            }
        }
    }

    // --------------------------------------------------------------------------------- results out

    /// The next thing to do.
    pub fn poll(&mut self, now: Time) -> Option<Action> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            let broker = *self.listed_sinks.front()?;
            if !self.drive_sink(now, broker) {
                self.listed_sinks.pop_front();
                if let Some(sink) = self.sinks.get_mut(&broker) {
                    sink.listed = false;
                }
            }
        }
    }

    /// The next fate.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        let outcome = self.outcomes.pop_front()?;
        self.held_records -= outcome.records.len() as u64;
        Some(outcome)
    }

    /// The next thing to be written down of a record, with idempotence, before the next action is carried out.
    pub fn poll_mark(&mut self) -> Option<(RecordId, Mark)> {
        self.marks.pop_front()
    }

    /// The next thing worth a log line.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.next()
    }
}
