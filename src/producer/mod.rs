//! The rules of producing, as a state machine: no sockets, no clock, no threads, no payload bytes.
//!
//! # Contract
//! - In go records, connection events, answers and time, through `handle_*`; out come [`Action`]s through
//!   [`poll`](Producer::poll), fates of records through [`poll_outcome`](Producer::poll_outcome), things worth
//!   a log line through [`poll_notice`](Producer::poll_notice), and the next moment something is due through
//!   [`next_deadline`](Producer::next_deadline). After any `handle_*` poll all of them until they are empty.
//! - Time never runs backwards. Chance comes from the seed, so equal calls give equal runs.
//! - Every record handed in comes out exactly once, as delivered or as failed.
//! - Per partition, records are sent in the order they came; a batch that is repeated is not overtaken.
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
mod metadata;
pub mod partitioner;
pub mod random;
mod retry;
mod sink;
#[cfg(test)]
mod tests;
pub mod timer;

pub use batch::{Batch, Record};
pub use sink::Sent;
pub use timer::Time;

use crate::config::{Config, HostPort};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::metadata::MetadataResponse;
use crate::protocol::produce::{ProduceResponse, ProducedPartition, ProducedTopicRef};
use accumulator::{Next, Partition};
use metadata::{Refresh, Topic};
use random::Random;
use retry::Decision;
use sink::{InFlight, Link, Sink};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;
use timer::{Timer, Timers};

/// A record's name with the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(pub u64);

/// A topic, as [`Producer::topic`] numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub u32);

/// A connection. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// A request. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A broker's node id; negative for entries of `metadata_broker_list`, whose node id is not known.
pub type BrokerId = i32;

/// How long after the broker's own limit for an answer (`request_timeout_ms`, which it is told) the
/// connection is given up: the answer that the limit passed needs time to travel too.
const ANSWER_GRACE: Duration = Duration::from_millis(500);

/// Encoded batches that go into one request, unless a single batch is larger.
const REQUEST_BYTES: usize = 1 << 20;

/// Pause before another broker is tried for metadata while a connect is still under way.
const NEXT_BOOTSTRAP_AFTER: Duration = Duration::from_millis(500);

/// Partitions among which the fullest batch is looked for, each time the caller goes to sleep.
const FULLEST_AMONG: usize = 256;

/// Longest pause that a broker may impose.
const MAX_THROTTLE: Duration = Duration::from_secs(60);

/// What the producer needs of the configuration.
#[derive(Debug, Clone)]
pub struct Rules {
    /// `metadata_broker_list`.
    pub bootstrap: Vec<HostPort>,
    /// `request_required_acks`.
    pub acks: i16,
    /// `request_timeout_ms`.
    pub request_timeout: Duration,
    /// `message_timeout_ms`.
    pub message_timeout: Duration,
    /// `queue_buffering_max_ms`.
    pub linger: Duration,
    /// `batch_num_messages`.
    pub batch_records: usize,
    /// `batch_size`.
    pub batch_bytes: usize,
    /// `message_send_max_retries`.
    pub max_retries: u32,
    /// `retry_backoff_ms`.
    pub retry_backoff: Duration,
    /// `retry_backoff_max_ms`.
    pub retry_backoff_max: Duration,
    /// `metadata_refresh_interval_ms`.
    pub metadata_refresh: Duration,
    /// `max_in_flight_requests_per_connection`.
    pub max_in_flight: usize,
    /// `reconnect_backoff_ms`.
    pub reconnect_backoff: Duration,
    /// `reconnect_backoff_max_ms`.
    pub reconnect_backoff_max: Duration,
    /// `conn_retry_limit`.
    pub conn_retry_limit: u32,
    /// `conn_retry_timeout`.
    pub conn_rest: Duration,
}

impl From<&Config> for Rules {
    fn from(config: &Config) -> Rules {
        let ms = Duration::from_millis;
        Rules {
            bootstrap: config.metadata_broker_list.clone(),
            acks: config.request_required_acks,
            request_timeout: ms(config.request_timeout_ms),
            message_timeout: ms(config.message_timeout_ms),
            linger: ms(config.queue_buffering_max_ms),
            batch_records: config.batch_num_messages,
            batch_bytes: config.batch_size,
            max_retries: config.message_send_max_retries,
            retry_backoff: ms(config.retry_backoff_ms),
            retry_backoff_max: ms(config.retry_backoff_max_ms),
            metadata_refresh: ms(config.metadata_refresh_interval_ms),
            max_in_flight: config.max_in_flight_requests_per_connection,
            reconnect_backoff: ms(config.reconnect_backoff_ms),
            reconnect_backoff_max: ms(config.reconnect_backoff_max_ms),
            conn_retry_limit: config.conn_retry_limit,
            conn_rest: Duration::from_secs(config.conn_retry_timeout),
        }
    }
}

/// A record handed in.
#[derive(Debug, Clone, Copy)]
pub struct NewRecord {
    /// Its name with the caller.
    pub id: RecordId,
    /// Its topic.
    pub topic: TopicId,
    /// [`partitioner::key_hash`] of its key, `None` for a null key.
    pub key_hash: Option<u32>,
    /// Where it must go; `None`, or a partition that does not exist, leaves that to the partitioner.
    pub partition: Option<u32>,
    /// Upper bound of its encoded size.
    pub bytes: u32,
    /// When `log()` took it; not after now.
    pub born: Time,
}

/// Something the caller has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a connection; answer with `handle_connected` or `handle_closed`.
    Connect {
        /// Its name.
        conn: ConnId,
        /// Whose connection it is.
        broker: BrokerId,
        /// Where to.
        address: HostPort,
    },
    /// Close a connection and forget it; no answer is expected.
    Close {
        /// Its name.
        conn: ConnId,
        /// Why, for the log.
        reason: CloseReason,
    },
    /// Ask for metadata of the topics that [`Producer::topics`] lists.
    Metadata {
        /// On this connection.
        conn: ConnId,
        /// Its name.
        request: RequestId,
    },
    /// Send the batches that [`Producer::request`] shows.
    Produce {
        /// On this connection.
        conn: ConnId,
        /// Its name.
        request: RequestId,
    },
}

/// Why the producer closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// An answer did not come.
    #[error("no answer within request_timeout_ms")]
    RequestTimeout,
    /// It served to learn the cluster's brokers, or the broker left the cluster or moved.
    #[error("not needed any more")]
    NotNeeded,
}

/// What has become of records.
#[derive(Debug)]
pub struct Outcome {
    /// Their topic.
    pub topic: TopicId,
    /// Their partition, if one was chosen.
    pub partition: Option<u32>,
    /// The records, in order.
    pub records: Vec<Record>,
    /// Delivered, or why not.
    pub fate: Fate,
}

/// Delivered, or why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged as `request_required_acks` asks.
    Delivered,
    /// Given up.
    Failed {
        /// Why.
        reason: Reason,
        /// It may have been written all the same: an answer was lost, or left that open.
        in_doubt: bool,
    },
}

/// Why records were given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// `message_timeout_ms` passed.
    #[error("message_timeout_ms passed")]
    TimedOut,
    /// `message_timeout_ms` passed and no broker knew the topic.
    #[error("topic unknown")]
    TopicUnknown,
    /// A broker refused them.
    #[error("{0}")]
    Broker(ErrorCode),
}

/// Something worth a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A broker's metadata says this of a topic.
    TopicError {
        /// The topic.
        topic: TopicId,
        /// The error.
        error: ErrorCode,
    },
    /// A broker rests for `conn_retry_timeout`.
    BrokerRests {
        /// Which.
        broker: BrokerId,
        /// Its address.
        address: HostPort,
    },
    /// A batch was too large for the broker and was cut in two.
    BatchSplit {
        /// The topic.
        topic: TopicId,
        /// Records in it.
        records: usize,
    },
}

/// Counts since the start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Produce requests sent.
    pub requests: u64,
    /// Batches sent, repetitions included.
    pub batches: u64,
    /// Repetitions among them.
    pub retries: u64,
    /// Most records ever in one batch.
    pub batch_records_max: u64,
    /// Metadata requests sent.
    pub metadata_requests: u64,
    /// Connections that broke or could not be made.
    pub broken_connections: u64,
}

/// The state machine. See the module for its contract.
pub struct Producer {
    rules: Rules,
    random: Random,
    topics: Vec<Topic>,
    topic_ids: HashMap<Box<str>, TopicId>,
    sinks: BTreeMap<BrokerId, Sink>,
    connections: HashMap<ConnId, BrokerId>,
    refresh: Refresh,
    flushed_at: Option<Time>,
    timers: Timers,
    /// Sinks that may have something to do.
    listed_sinks: VecDeque<BrokerId>,
    actions: VecDeque<Action>,
    outcomes: VecDeque<Outcome>,
    notices: VecDeque<Notice>,
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
            rules,
            random: Random::new(seed),
            topics: Vec::new(),
            topic_ids: HashMap::new(),
            sinks,
            connections: HashMap::new(),
            refresh: Refresh { periodic: Time::NEVER, ..Refresh::default() },
            flushed_at: None,
            timers: Timers::default(),
            listed_sinks: VecDeque::new(),
            actions: VecDeque::new(),
            outcomes: VecDeque::new(),
            notices: VecDeque::new(),
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
        self.want_metadata(now);
        id
    }

    /// Name and Kafka's id of a topic.
    pub fn topic_ref(&self, topic: TopicId) -> (&str, [u8; 16]) {
        let topic = &self.topics[topic.0 as usize];
        (&topic.name, topic.id)
    }

    /// Number of a topic's partitions, once it is known.
    pub fn partition_count(&self, topic: TopicId) -> Option<u32> {
        let count = self.topics[topic.0 as usize].partitions.len();
        (count > 0).then_some(count as u32)
    }

    /// Records that wait to be sent: topic, partition (`None`: no metadata yet), count. Those on their way
    /// are not among them.
    pub fn waiting_records(&self) -> impl Iterator<Item = (&str, Option<u32>, usize)> + '_ {
        self.topics.iter().flat_map(|topic| {
            let unassigned = (&*topic.name, None, topic.waiting.len());
            let partitions = topic.partitions.iter().enumerate();
            std::iter::once(unassigned).chain(
                partitions.map(|(index, partition)| {
                    (&*topic.name, Some(index as u32), partition.records())
                }),
            )
        })
    }

    /// Name of the topic with this id of Kafka's.
    pub fn topic_by_id(&self, id: &[u8; 16]) -> Option<&str> {
        self.topics.iter().find(|topic| topic.id == *id).map(|topic| &*topic.name)
    }

    /// Names of all topics in use.
    pub fn topics(&self) -> Vec<&str> {
        self.topics.iter().map(|topic| &*topic.name).collect()
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

    /// How many more records may come before it is worth looking at them: as many as the fullest open
    /// batch lacks, but no fewer than an eighth of a batch, so that many partitions which fill evenly do
    /// not cause a look each.
    pub fn records_to_full_batch(&self) -> usize {
        let eighth = self.rules.batch_records.div_ceil(8);
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        let fullest = partitions.take(FULLEST_AMONG).map(Partition::open_records).max();
        (self.rules.batch_records - fullest.unwrap_or(0)).max(eighth)
    }

    // ---------------------------------------------------------------------------------- events in

    /// Takes a record.
    pub fn handle_record(&mut self, now: Time, new: NewRecord) {
        let record = Record {
            id: new.id,
            born: new.born.min(now),
            bytes: new.bytes,
            key_hash: new.key_hash,
            partition: new.partition,
        };
        self.held_records += 1;
        self.route(now, new.topic, record);
    }

    /// Gives a record its partition, or lets it wait for metadata.
    fn route(&mut self, now: Time, id: TopicId, record: Record) {
        let topic = &mut self.topics[id.0 as usize];
        if topic.partitions.is_empty() {
            let expiry = record.born + self.rules.message_timeout;
            topic.waiting.push_back(record);
            self.timers.schedule(&mut topic.scheduled, Timer::Topic(id), expiry);
            self.want_metadata(now);
            return;
        }
        let index = match record.partition {
            Some(index) if (index as usize) < topic.partitions.len() => index,
            _ => partitioner::choose(topic, record.key_hash, &mut self.random),
        };
        let partition = &mut topic.partitions[index as usize];
        let first = partition.is_empty();
        let closed = partition.append(record, &self.rules);
        if closed && topic.sticky == Some(index) {
            topic.sticky = None;
        }
        // Between the first record and a full batch nothing changes that a timer does not know.
        if first || closed {
            self.look_at_partition(now, id, index);
        }
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
    }

    /// A connection could not be made, or broke.
    pub fn handle_closed(&mut self, now: Time, conn: ConnId) {
        self.counts.broken_connections += 1;
        self.drop_connection(now, conn, true);
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
                    ProducedTopicRef::Id(id) => *id == topic.id && topic.id != [0; 16],
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
        let named = self.update_brokers(now, response);
        let mut incomplete = !named;
        for index in 0..self.topics.len() {
            let id = TopicId(index as u32);
            let topic = &self.topics[index];
            let told = response.topics.iter().find(|told| *told.name == *topic.name);
            incomplete |= match told {
                Some(told) => self.update_topic(now, id, told),
                None => true,
            };
        }
        if incomplete {
            self.refresh.incomplete = self.refresh.incomplete.saturating_add(1);
            let pause = retry::backoff(
                self.rules.retry_backoff,
                self.rules.retry_backoff_max,
                self.refresh.incomplete,
                &mut self.random,
            );
            self.refresh.not_before = now + pause;
        } else {
            self.refresh.incomplete = 0;
            // Errors that come in a bunch cause one refresh, not one each.
            self.refresh.not_before = now + self.rules.retry_backoff;
        }
        // A topic that stays unknown is asked for again only while somebody waits for it.
        self.refresh.wanted |= incomplete && self.something_waits();
        self.refresh.periodic = now + self.rules.metadata_refresh;
        self.look_at_metadata(now);
    }

    /// Sends what has come so far without waiting for full batches.
    pub fn handle_flush(&mut self, now: Time) {
        self.flushed_at = Some(now);
        for topic in 0..self.topics.len() {
            for partition in 0..self.topics[topic].partitions.len() {
                if !self.topics[topic].partitions[partition].is_empty() {
                    self.look_at_partition(now, TopicId(topic as u32), partition as u32);
                }
            }
        }
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
                Timer::Metadata => {
                    if self.refresh.scheduled.fired(at) {
                        if self.refresh.periodic <= now {
                            self.refresh.periodic = now + self.rules.metadata_refresh;
                            self.refresh.wanted = true;
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

    /// The next thing worth a log line.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.next()
    }

    // ---------------------------------------------------------------------------------- partitions

    /// Expires, lists or schedules a partition, whatever its state asks for.
    fn look_at_partition(&mut self, now: Time, id: TopicId, index: u32) {
        let topic = &mut self.topics[id.0 as usize];
        let Some(partition) = topic.partitions.get_mut(index as usize) else { return };
        if partition.in_flight {
            return;
        }
        for (records, in_doubt) in partition.expire(now, &self.rules) {
            let fate = Fate::Failed { reason: Reason::TimedOut, in_doubt };
            self.outcomes.push_back(Outcome { topic: id, partition: Some(index), records, fate });
        }
        let next = partition.next(now, &self.rules, self.flushed_at);
        let timer = Timer::Partition(id, index);
        let expiry = partition.front_born() + self.rules.message_timeout;
        match next {
            Next::At(at) => self.timers.schedule(&mut partition.scheduled, timer, at),
            Next::Ready => {
                self.timers.schedule(&mut partition.scheduled, timer, expiry);
                if partition.listed {
                    return;
                }
                let leader = partition.leader;
                match leader.and_then(|leader| self.sinks.get_mut(&leader)) {
                    None => self.want_metadata(now),
                    Some(sink) => {
                        partition.listed = true;
                        sink.ready.push_back((id, index));
                        self.list_sink(leader.unwrap_or_default());
                    }
                }
            }
        }
    }

    /// Fails the records that waited too long for their topic's metadata.
    fn expire_waiting(&mut self, now: Time, id: TopicId) {
        let topic = &mut self.topics[id.0 as usize];
        let timeout = self.rules.message_timeout;
        let late = topic.waiting.partition_point(|record| record.born + timeout <= now);
        if late > 0 {
            let records = topic.waiting.drain(..late).collect();
            let reason = match topic.error {
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => Reason::TopicUnknown,
                _ => Reason::TimedOut,
            };
            let fate = Fate::Failed { reason, in_doubt: false };
            self.outcomes.push_back(Outcome { topic: id, partition: None, records, fate });
        }
        if let Some(front) = topic.waiting.front() {
            let at = front.born + timeout;
            self.timers.schedule(&mut topic.scheduled, Timer::Topic(id), at);
        }
    }

    // ------------------------------------------------------------------------------------ outcomes

    /// Decides about a batch that was answered; `told` is `None` for `acks = 0`.
    fn settle(&mut self, now: Time, sent: Sent, told: Option<&ProducedPartition>) {
        let error = match told {
            None => ErrorCode::NONE,
            // Success without an offset is no success.
            Some(told) if told.error == ErrorCode::NONE && told.base_offset < 0 => {
                return self.retry_in_doubt(now, sent);
            }
            Some(told) => told.error,
        };
        if let Some(hint) = told.and_then(|told| told.current_leader.as_ref()) {
            self.follow_hint(now, &sent, hint.id, hint.epoch);
        }
        let records = sent.batch.records.len();
        match retry::decide(error, records, sent.batch.attempts, &self.rules) {
            Decision::Delivered => {
                self.finish(now, sent, Fate::Delivered);
            }
            Decision::Split => {
                self.notices.push_back(Notice::BatchSplit { topic: sent.topic, records });
                let (first, second) = sent.batch.split();
                self.release_partition(now, sent.topic, sent.partition, vec![first, second], None);
            }
            Decision::Retry { counted, refresh, in_doubt } => {
                self.retry(now, sent, counted, refresh, in_doubt);
            }
            Decision::Fail { in_doubt } => {
                let in_doubt = in_doubt || sent.batch.in_doubt;
                self.fail(now, sent, error, in_doubt, told);
            }
        }
    }

    /// Fails a batch; when the broker names the records at fault, only those, and sends the rest again.
    fn fail(
        &mut self,
        now: Time,
        mut sent: Sent,
        error: ErrorCode,
        in_doubt: bool,
        told: Option<&ProducedPartition>,
    ) {
        let fate = Fate::Failed { reason: Reason::Broker(error), in_doubt };
        let faulty: Vec<usize> = told
            .iter()
            .flat_map(|told| &told.record_errors)
            .filter_map(|fault| usize::try_from(fault.batch_index).ok())
            .filter(|index| *index < sent.batch.records.len())
            .collect();
        if faulty.is_empty() {
            return self.finish(now, sent, fate);
        }
        let records = sent.batch.extract(|index, _| faulty.contains(&index));
        self.in_flight_records -= records.len() as u64;
        self.outcomes.push_back(Outcome {
            topic: sent.topic,
            partition: Some(sent.partition),
            records,
            fate,
        });
        self.release_partition(now, sent.topic, sent.partition, vec![sent.batch], None);
    }

    /// Puts a batch back to be sent again after a connection broke or an answer made no sense.
    fn retry_in_doubt(&mut self, now: Time, sent: Sent) {
        self.retry(now, sent, false, true, true);
    }

    fn retry(&mut self, now: Time, mut sent: Sent, counted: bool, refresh: bool, in_doubt: bool) {
        sent.batch.attempts += u32::from(counted);
        sent.batch.in_doubt |= in_doubt;
        let pause = retry::backoff(
            self.rules.retry_backoff,
            self.rules.retry_backoff_max,
            sent.batch.attempts.max(1),
            &mut self.random,
        );
        self.counts.retries += 1;
        if refresh {
            self.want_metadata(now);
        }
        let again = vec![sent.batch];
        self.release_partition(now, sent.topic, sent.partition, again, Some(now + pause));
    }

    /// Reports all records of a batch that was on its way.
    fn finish(&mut self, now: Time, sent: Sent, fate: Fate) {
        let Sent { topic, partition, batch } = sent;
        self.in_flight_records -= batch.records.len() as u64;
        let records = batch.records;
        self.outcomes.push_back(Outcome { topic, partition: Some(partition), records, fate });
        self.release_partition(now, topic, partition, Vec::new(), None);
    }

    /// Ends a partition's time in flight, with `again` to be sent first, not before `pause_until`.
    fn release_partition(
        &mut self,
        now: Time,
        id: TopicId,
        index: u32,
        again: Vec<Batch>,
        pause_until: Option<Time>,
    ) {
        self.in_flight_records -= again.iter().map(|b| b.records.len() as u64).sum::<u64>();
        let topic = &mut self.topics[id.0 as usize];
        match topic.partitions.get_mut(index as usize) {
            Some(partition) => {
                partition.put_back(again.into_iter());
                partition.in_flight = false;
                if let Some(at) = pause_until {
                    partition.not_before = at;
                }
                self.look_at_partition(now, id, index);
            }
            // The topic was made anew with fewer partitions while the batch was on its way.
            None => {
                for record in again.into_iter().flat_map(|batch| batch.records) {
                    self.route(now, id, record);
                }
            }
        }
    }

    // --------------------------------------------------------------------------------------- sinks

    fn list_sink(&mut self, broker: BrokerId) {
        if let Some(sink) = self.sinks.get_mut(&broker)
            && !sink.listed
        {
            sink.listed = true;
            self.listed_sinks.push_back(broker);
        }
    }

    fn relist(&mut self, conn: ConnId) {
        if let Some(&broker) = self.connections.get(&conn) {
            self.list_sink(broker);
        }
    }

    /// Does one thing for a sink; false when there is nothing to do for now.
    fn drive_sink(&mut self, now: Time, broker: BrokerId) -> bool {
        let Some(sink) = self.sinks.get_mut(&broker) else { return false };
        match sink.link {
            Link::Connecting(_) => false,
            Link::Closed => {
                if sink.ready.is_empty() {
                    return false;
                }
                if sink.may_connect(now) {
                    self.connect(broker);
                    return true;
                }
                let at = sink.connect_after;
                self.timers.schedule(&mut sink.scheduled, Timer::Sink(broker), at);
                false
            }
            Link::Up(conn) => {
                if !sink.current && sink.in_flight.is_empty() && sink.ready.is_empty() {
                    self.close(now, conn, CloseReason::NotNeeded);
                    self.sinks.remove(&broker);
                    return false;
                }
                if sink.in_flight.len() >= self.rules.max_in_flight {
                    return false;
                }
                if sink.throttled_until > now {
                    let at = sink.throttled_until;
                    self.timers.schedule(&mut sink.scheduled, Timer::Sink(broker), at);
                    return false;
                }
                self.build_request(now, broker, conn)
            }
        }
    }

    /// Fills a request from the sink's list; false when nothing on it is still to be sent from here.
    fn build_request(&mut self, now: Time, broker: BrokerId, conn: ConnId) -> bool {
        let mut batches = Vec::new();
        let mut bytes = 0;
        let Some(sink) = self.sinks.get_mut(&broker) else { return false };
        while let Some(&(id, index)) = sink.ready.front() {
            let topic = &mut self.topics[id.0 as usize];
            let partition = topic.partitions.get_mut(index as usize);
            // A partition that moved away, or was listed twice around a move, is somebody else's.
            let Some(partition) =
                partition.filter(|p| p.listed && !p.in_flight && p.leader == Some(broker))
            else {
                sink.ready.pop_front();
                continue;
            };
            if partition.next(now, &self.rules, self.flushed_at) != Next::Ready {
                sink.ready.pop_front();
                partition.listed = false;
                continue;
            }
            let front = partition.front_bytes();
            if !batches.is_empty() && bytes + front > REQUEST_BYTES {
                break;
            }
            sink.ready.pop_front();
            partition.listed = false;
            let Some(batch) = partition.take() else { continue };
            partition.in_flight = true;
            bytes += front;
            if topic.sticky == Some(index) {
                topic.sticky = None;
            }
            self.in_flight_records += batch.records.len() as u64;
            self.counts.batches += 1;
            self.counts.batch_records_max =
                self.counts.batch_records_max.max(batch.records.len() as u64);
            batches.push(Sent { topic: id, partition: index, batch });
        }
        if batches.is_empty() {
            return false;
        }
        // The encoder writes topic by topic.
        batches.sort_by_key(|sent| (sent.topic, sent.partition));
        self.last_id += 1;
        let request = RequestId(self.last_id);
        let deadline = now + self.rules.request_timeout + ANSWER_GRACE;
        sink.in_flight.push_back(InFlight { request, deadline, batches });
        self.timers.schedule(&mut sink.scheduled, Timer::Sink(broker), deadline);
        self.counts.requests += 1;
        self.actions.push_back(Action::Produce { conn, request });
        true
    }

    fn connect(&mut self, broker: BrokerId) {
        let Some(sink) = self.sinks.get_mut(&broker) else { return };
        self.last_id += 1;
        let conn = ConnId(self.last_id);
        sink.link = Link::Connecting(conn);
        self.connections.insert(conn, broker);
        self.actions.push_back(Action::Connect { conn, broker, address: sink.address.clone() });
    }

    /// Closes a connection of ours and takes back what was on its way.
    fn close(&mut self, now: Time, conn: ConnId, reason: CloseReason) {
        self.actions.push_back(Action::Close { conn, reason });
        self.drop_connection(now, conn, reason == CloseReason::RequestTimeout);
    }

    /// Takes back what was on its way on a connection that is gone. `failed` puts off the next connect.
    fn drop_connection(&mut self, now: Time, conn: ConnId, failed: bool) {
        let Some(broker) = self.connections.remove(&conn) else { return };
        if self.refresh.asked.is_some_and(|(asked, _)| asked == conn) {
            self.refresh.asked = None;
            self.refresh.wanted = true;
        }
        let last_hope = self.is_last_hope(now, broker);
        let Some(sink) = self.sinks.get_mut(&broker) else { return };
        sink.link = Link::Closed;
        let lost: Vec<Sent> = sink.in_flight.drain(..).flat_map(|sent| sent.batches).collect();
        if failed {
            sink.failures = sink.failures.saturating_add(1);
            if sink.failures >= self.rules.conn_retry_limit && !last_hope {
                let address = sink.address.clone();
                self.notices.push_back(Notice::BrokerRests { broker, address });
                sink.failures = 0;
                sink.rests_until = now + self.rules.conn_rest;
            }
            let pause = retry::backoff(
                self.rules.reconnect_backoff,
                self.rules.reconnect_backoff_max,
                sink.failures,
                &mut self.random,
            );
            sink.connect_after = now + pause;
        }
        let gone = !sink.current && sink.ready.is_empty();
        for sent in lost {
            self.retry_in_doubt(now, sent);
        }
        if gone {
            self.sinks.remove(&broker);
        } else {
            self.list_sink(broker);
        }
        if failed {
            // Whoever led there may have moved.
            self.want_metadata(now);
        }
        self.look_at_metadata(now);
    }

    /// True when no other broker is connected or could be tried now. A broker that leads partitions with
    /// something to send is tried for their sake even while it rests.
    fn is_last_hope(&self, now: Time, broker: BrokerId) -> bool {
        !self.sinks.iter().any(|(id, sink)| {
            *id != broker
                && sink.current
                && (sink.is_up()
                    || (sink.failures == 0 && sink.connect_after <= now && sink.rests_until <= now))
        })
    }

    /// Looks after a sink's deadlines.
    fn look_at_sink(&mut self, now: Time, broker: BrokerId) {
        let Some(sink) = self.sinks.get_mut(&broker) else { return };
        let oldest = sink.in_flight.front().map_or(Time::NEVER, |sent| sent.deadline);
        if oldest <= now {
            if let Link::Up(conn) = sink.link {
                self.counts.broken_connections += 1;
                self.close(now, conn, CloseReason::RequestTimeout);
            }
            return;
        }
        self.timers.schedule(&mut sink.scheduled, Timer::Sink(broker), oldest);
        self.list_sink(broker);
    }

    fn take_in_flight(&mut self, conn: ConnId, request: RequestId) -> Vec<Sent> {
        let broker = self.connections.get(&conn);
        let Some(sink) = broker.and_then(|broker| self.sinks.get_mut(broker)) else {
            return Vec::new();
        };
        let place = sink.in_flight.iter().position(|sent| sent.request == request);
        place.and_then(|place| sink.in_flight.remove(place)).map_or(Vec::new(), |sent| sent.batches)
    }

    fn throttle(&mut self, now: Time, broker: BrokerId, throttle_ms: i32) {
        let Some(sink) = self.sinks.get_mut(&broker) else { return };
        if let Ok(pause) = u64::try_from(throttle_ms)
            && pause > 0
        {
            sink.throttled_until = now + Duration::from_millis(pause).min(MAX_THROTTLE);
        }
    }

    // ------------------------------------------------------------------------------------ metadata

    fn want_metadata(&mut self, now: Time) {
        if !self.refresh.wanted {
            self.refresh.wanted = true;
            self.look_at_metadata(now);
        }
    }

    /// True while a record waits for metadata, or for a partition that has no leader.
    fn something_waits(&self) -> bool {
        self.topics.iter().any(|topic| {
            !topic.waiting.is_empty()
                || topic.partitions.iter().any(|p| p.leader.is_none() && !p.is_empty())
        })
    }

    /// Asks for metadata, or sees to it that somebody can be asked.
    fn look_at_metadata(&mut self, now: Time) {
        let refresh = &mut self.refresh;
        if !refresh.wanted {
            let at = refresh.periodic;
            self.timers.schedule(&mut refresh.scheduled, Timer::Metadata, at);
            return;
        }
        if refresh.asked.is_some() {
            return;
        }
        if refresh.not_before > now {
            let at = refresh.not_before;
            self.timers.schedule(&mut refresh.scheduled, Timer::Metadata, at);
            return;
        }
        let up = self.sinks.iter().filter(|(_, sink)| sink.current);
        let up = up.filter_map(|(id, sink)| match sink.link {
            Link::Up(conn) if sink.throttled_until <= now => {
                Some((sink.in_flight.len(), *id, conn))
            }
            _ => None,
        });
        if let Some((_, broker, conn)) = up.min() {
            self.last_id += 1;
            let request = RequestId(self.last_id);
            self.refresh.wanted = false;
            self.refresh.asked = Some((conn, request));
            self.counts.metadata_requests += 1;
            self.actions.push_back(Action::Metadata { conn, request });
            let deadline = now + self.rules.request_timeout + ANSWER_GRACE;
            // No Produce request may be there to watch over the connection, so this one is watched too.
            if let Some(sink) = self.sinks.get_mut(&broker) {
                sink.in_flight.push_back(InFlight { request, deadline, batches: Vec::new() });
                self.timers.schedule(&mut sink.scheduled, Timer::Sink(broker), deadline);
            }
            return;
        }
        self.connect_for_metadata(now);
    }

    /// Opens a connection to somebody who may know, one every half second at most while none answers.
    fn connect_for_metadata(&mut self, now: Time) {
        let connecting = self.sinks.values().any(|sink| matches!(sink.link, Link::Connecting(_)));
        if connecting
            && let Some(tried) = self.refresh.connect_tried
            && now < tried + NEXT_BOOTSTRAP_AFTER
        {
            let at = tried + NEXT_BOOTSTRAP_AFTER;
            self.timers.schedule(&mut self.refresh.scheduled, Timer::Metadata, at);
            return;
        }
        // Known brokers before the list, the least failed first; chance decides between equals.
        let mut best = None;
        let mut earliest = Time::NEVER;
        for (id, sink) in &self.sinks {
            if !sink.current || sink.link != Link::Closed {
                continue;
            }
            earliest = earliest.min(sink.connect_after.max(sink.rests_until));
            if sink.may_connect(now) && sink.rests_until <= now {
                let rank = (sink.failures, *id < 0, self.random.bits(), *id);
                best = Some(best.map_or(rank, |best: (u32, bool, u64, BrokerId)| best.min(rank)));
            }
        }
        if let Some((.., broker)) = best {
            self.refresh.connect_tried = Some(now);
            self.connect(broker);
            earliest = now + NEXT_BOOTSTRAP_AFTER;
        }
        self.timers.schedule(&mut self.refresh.scheduled, Timer::Metadata, earliest);
    }

    /// Takes over the list of brokers. False when it names none: then nothing is changed.
    fn update_brokers(&mut self, now: Time, response: &MetadataResponse) -> bool {
        let mut named: BTreeMap<BrokerId, HostPort> = BTreeMap::new();
        for broker in &response.brokers {
            let port = u16::try_from(broker.port).ok().filter(|port| *port > 0);
            let host = &broker.host;
            if broker.id >= 0
                && let Some(port) = port
                && (1..=255).contains(&host.len())
                && !host.bytes().any(|b| b <= b' ' || b == 0x7f)
            {
                named.entry(broker.id).or_insert(HostPort { host: host.clone(), port });
            }
        }
        if named.is_empty() {
            return false;
        }
        let mut closing = Vec::new();
        for (id, sink) in &mut self.sinks {
            match named.get(id) {
                _ if *id < 0 => {
                    // The list has served; it is tried again when no known broker answers.
                    if let Link::Up(conn) | Link::Connecting(conn) = sink.link {
                        closing.push(conn);
                    }
                }
                None => sink.current = false,
                Some(address) => {
                    sink.current = true;
                    if sink.address != *address {
                        sink.address = address.clone();
                        sink.failures = 0;
                        sink.connect_after = now;
                        if let Link::Up(conn) | Link::Connecting(conn) = sink.link {
                            closing.push(conn);
                        }
                    }
                }
            }
        }
        for (id, address) in named {
            self.sinks.entry(id).or_insert_with(|| Sink::new(address));
        }
        for conn in closing {
            self.close(now, conn, CloseReason::NotNeeded);
        }
        let leaving: Vec<BrokerId> =
            self.sinks.iter().filter(|(_, sink)| !sink.current).map(|(id, _)| *id).collect();
        for broker in leaving {
            let sink = &self.sinks[&broker];
            if sink.link == Link::Closed && sink.ready.is_empty() {
                self.sinks.remove(&broker);
            } else {
                self.list_sink(broker);
            }
        }
        true
    }

    /// Takes over what is said of a topic; true when something is still missing.
    fn update_topic(
        &mut self,
        now: Time,
        id: TopicId,
        told: &crate::protocol::metadata::TopicMetadata,
    ) -> bool {
        let sinks = &self.sinks;
        let topic = &mut self.topics[id.0 as usize];
        let known_error = topic.error;
        let change = topic.update(told, |broker| sinks.get(&broker).is_some_and(|s| s.current));
        if told.error != ErrorCode::NONE && told.error != known_error {
            self.notices.push_back(Notice::TopicError { topic: id, error: told.error });
        }
        if !told.error.retriable() && told.error != ErrorCode::NONE {
            // Nobody will ever tell us more: what waits for it fails with that reason.
            let records: Vec<Record> = topic.waiting.drain(..).collect();
            if !records.is_empty() {
                let fate = Fate::Failed { reason: Reason::Broker(told.error), in_doubt: false };
                self.outcomes.push_back(Outcome { topic: id, partition: None, records, fate });
            }
            return false;
        }
        for index in change.moved {
            self.look_at_partition(now, id, index);
        }
        for record in change.homeless {
            self.route(now, id, record);
        }
        if !self.topics[id.0 as usize].partitions.is_empty() {
            let waiting = std::mem::take(&mut self.topics[id.0 as usize].waiting);
            for record in waiting {
                self.route(now, id, record);
            }
        }
        change.incomplete
    }

    /// A broker that is not the leader any more said who is.
    fn follow_hint(&mut self, now: Time, sent: &Sent, leader: i32, epoch: i32) {
        let known = self.sinks.get(&leader).is_some_and(|sink| sink.current && leader >= 0);
        let topic = &mut self.topics[sent.topic.0 as usize];
        if let Some(partition) = topic.partitions.get_mut(sent.partition as usize)
            && known
            && epoch > partition.leader_epoch
        {
            partition.leader_epoch = epoch;
            partition.leader = Some(leader);
            partition.listed = false;
            self.look_at_partition(now, sent.topic, sent.partition);
        }
    }
}
