//! The driver: one thread per worker that owns everything between the queue and the sockets.
//!
//! Each turn of its loop does a bounded amount of each kind of work, in this order: records in, network
//! events in, timers, requests out, fates out. Then it sleeps until a record, an event or a deadline comes.
//! A fault in it is caught ([`thread`]); what was not done is read from the queue again.

mod asking;
mod encode;
pub mod events;
mod handover;
pub mod lines;
mod old_brokers;
mod overflow;
mod replay;
mod rest;
mod sources;
mod spill;
pub mod thread;

pub use events::Events;
pub use lines::{Level, Lines};
pub use thread::{Driver, StartError};

use crate::backup::BackupDir;
use crate::config::Config;
use crate::net::frame_pool::FramePool;
use crate::net::{self, Event};
use crate::producer::{
    Action, CloseReason, ConnId, Fate, Idempotence, NewRecord, Notice, Outcome, Producer, RecordId,
    RequestId, Rules, Time, TopicId, idempotence, partitioner,
};
use crate::protocol::api_versions::Versions;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::init_producer_id::InitProducerIdResponse;
use crate::protocol::record_batch::ProducerStamp;
use crate::queue::layout::ASK_PARTITION;
use crate::queue::stamps::Stamp;
use crate::queue::{Queue, Slot};
use crate::stats::{self, Stats};
use asking::Asking;
use handover::{Handover, Refused};
use old_brokers::OldBrokers;
use replay::Replay;
use rustix::fd::OwnedFd;
use sources::{Dirs, Sources};
use spill::Spill;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::AbortHandle;

/// Records taken from the queue in one turn.
const RECORDS_A_TURN: usize = 4096;
/// Network events handled in one turn.
const EVENTS_A_TURN: usize = 256;
/// How many records ahead their slots are asked for before they are marked done.
const PREFETCH_AHEAD: usize = 16;
/// Longest sleep: how late a wish of the event loop's can be noticed if a wake-up were ever missed.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// What the event loop and the driver thread share, besides the queue.
pub struct Shared {
    /// Values for `kfk.stats()`.
    pub stats: Stats,
    /// Lines for `ngx.log`.
    pub lines: Lines,
    /// Work for Lua callbacks, and their answers.
    pub events: Events,
    /// Wakes the driver.
    pub wake: OwnedFd,
    /// Position up to which everything is to be sent without lingering.
    flush: AtomicU64,
    /// Set once to end the driver; from then on the deadline counts.
    stop: AtomicBool,
    /// When a stopping driver gives up, microseconds on its clock.
    stop_by: AtomicU64,
    /// Zero of that clock.
    start: Instant,
}

impl Shared {
    fn now(&self) -> Time {
        Time(self.start.elapsed().as_micros() as u64)
    }

    /// Wakes the driver thread. Never blocks: a full eventfd is a wake-up already.
    pub fn signal(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

struct Connection {
    outgoing: UnboundedSender<net::Outgoing>,
    task: AbortHandle,
    address: String,
    versions: Option<Versions>,
    next_correlation_id: i32,
}

/// The state of one run of the driver.
struct Run<'a> {
    config: &'a Config,
    shared: &'a Shared,
    dirs: &'a mut Dirs,
    instance: &'a str,
    sources: Sources,
    producer: Producer,
    /// When the queue was last seen empty: what is read next was written after that.
    drained_at: Time,
    connections: HashMap<ConnId, Connection>,
    frames: FramePool,
    large_answers: Arc<Semaphore>,
    old_brokers: OldBrokers,
    events_in: UnboundedSender<Event>,
    events: UnboundedReceiver<Event>,
    spill: Spill<'a>,
    handover: Handover,
    asking: Asking,
    replay: Replay,
    flushed: u64,
}

impl<'a> Run<'a> {
    fn new(
        config: &'a Config,
        shared: &'a Shared,
        queue: &Arc<Queue>,
        dirs: &'a mut Dirs,
        instance: &'a str,
        backup: &'a mut BackupDir,
    ) -> Run<'a> {
        let (events_in, events) = mpsc::unbounded_channel();
        shared.events.forget_records();
        let now = shared.now();
        // The address of a heap value and the time differ between workers; nothing secret hangs on it.
        let seed = u64::from(std::process::id()) << 32 ^ now.0 ^ wall_ms() as u64;
        let mut producer = Producer::new(Rules::from(config), seed);
        for topic in &config.topics {
            producer.topic(now, topic);
        }
        Run {
            config,
            shared,
            dirs,
            instance,
            sources: Sources::new(queue.clone()),
            producer,
            drained_at: now,
            connections: HashMap::new(),
            frames: FramePool::default(),
            large_answers: Arc::new(Semaphore::new(1)),
            old_brokers: OldBrokers::new(config),
            events_in,
            events,
            spill: Spill::new(backup),
            handover: Handover::default(),
            asking: Asking::default(),
            replay: Replay::new(config, shared),
            flushed: 0,
        }
    }

    /// Works until it is told to stop, and then until all is delivered or the time is up.
    async fn serve(&mut self) -> std::io::Result<()> {
        let shared = self.shared;
        // SAFETY: the descriptor belongs to Shared, which outlives this future, and is never replaced.
        let wake =
            unsafe { AsyncFd::register_with_interest(shared.wake.as_fd(), Interest::READABLE)? };
        loop {
            let more = self.turn();
            if self.is_over() {
                self.note_replay(self.shared.now());
                return Ok(());
            }
            let deadline = self.next_deadline();
            if more || !self.fall_asleep(deadline) {
                // Connections run in between.
                tokio::task::yield_now().await;
                continue;
            }
            let pause = deadline.since(self.shared.now()).min(LONGEST_SLEEP);
            tokio::select! {
                ready = wake.readable() => {
                    let mut ready = ready?;
                    let mut count = [0; 8];
                    // Empties the eventfd; when it was empty already nothing is lost.
                    let _ = rustix::io::read(shared.wake.as_fd(), &mut count);
                    ready.clear_ready();
                }
                Some(event) = self.events.recv() => self.handle_event(event),
                () = tokio::time::sleep(pause) => {}
            }
            self.sources.own().reader.disarm();
            stats::add(&self.shared.stats.wakeups, 1);
        }
    }

    /// One turn; true when there is more to do at once.
    fn turn(&mut self) -> bool {
        let more_records = self.take_records();
        let mut events = 0;
        while events < EVENTS_A_TURN
            && let Ok(event) = self.events.try_recv()
        {
            self.handle_event(event);
            events += 1;
        }
        let now = self.shared.now();
        // With nobody to ask, what waits for an answer goes on without one.
        let timeout = if self.callbacks_ended() {
            Duration::ZERO
        } else {
            Duration::from_millis(self.config.message_timeout_ms)
        };
        let lua = &self.shared.events;
        self.asking.turn(now, timeout, lua, &self.sources, &mut self.producer);
        self.take_wishes(now);
        let more_lines = self.replay(now);
        self.make_room(now);
        if self.producer.next_deadline().is_some_and(|at| at <= now) {
            self.producer.handle_timeout(now);
        }
        for (record, partition) in self.producer.take_choices() {
            self.sources.assign(record, partition);
        }
        loop {
            // What was acknowledged is marked done before more is sent, see the producer's contract.
            while let Some(outcome) = self.producer.poll_outcome() {
                self.settle(outcome);
            }
            let Some(action) = self.producer.poll(now) else { break };
            self.act(now, action);
        }
        while let Some(notice) = self.producer.poll_notice() {
            self.tell(now, notice);
        }
        // What a callback wrote is on disk before the verdict of that callback frees the message.
        self.spill.write_appends(now, self.shared);
        self.hand_over();
        self.spill.write(now, &mut self.sources, self.shared);
        self.sources.release(now, self.shared);
        self.publish_stats();
        more_records || more_lines || events == EVENTS_A_TURN
    }

    /// True when a stopping driver has nothing left to wait for. What waits for Lua callbacks is not waited
    /// for: they do not run any more.
    fn is_over(&mut self) -> bool {
        if !self.shared.stop.load(Ordering::Acquire) {
            return false;
        }
        let reader = &self.sources.own().reader;
        let all_read = reader.position() == reader.tail();
        let all_done = all_read
            && self.producer.held_records() == 0
            && self.spill.is_empty()
            && !self.shared.events.has_appends();
        all_done || self.shared.now().0 >= self.shared.stop_by.load(Ordering::Relaxed)
    }

    /// Flushes up to where the event loop asked for it, and when stopping all there is.
    fn take_wishes(&mut self, now: Time) {
        let reader = &self.sources.own().reader;
        let mut wanted = self.shared.flush.load(Ordering::Acquire);
        if self.shared.stop.load(Ordering::Acquire) {
            wanted = wanted.max(reader.tail());
        }
        if wanted > self.flushed && reader.position() >= wanted {
            self.flushed = wanted;
            self.producer.handle_flush(now);
        }
    }

    fn next_deadline(&self) -> Time {
        let timeout = Duration::from_millis(self.config.message_timeout_ms);
        let stopping = self.shared.stop.load(Ordering::Acquire);
        let deadline = self
            .producer
            .next_deadline()
            .unwrap_or(Time::NEVER)
            .min(self.spill.retry_at(self.shared))
            .min(self.asking.expiry(timeout))
            .min(self.replay.deadline(stopping));
        // A driver that stops adopts nothing any more.
        deadline.min(if stopping {
            Time(self.shared.stop_by.load(Ordering::Relaxed))
        } else {
            self.sources.look_at()
        })
    }

    /// Tells the writer when to wake us. False when there is something to do already.
    fn fall_asleep(&mut self, deadline: Time) -> bool {
        if deadline <= self.shared.now() {
            return false;
        }
        let reader = &self.sources.own().reader;
        let tail = reader.position();
        // Only what lingers, and will be looked at soon enough, lets a new record wait for a full batch.
        let linger = Duration::from_millis(self.config.queue_buffering_max_ms);
        let soon = deadline.since(self.shared.now()) <= linger;
        let waits = self.producer.held_records() > 0 || !self.asking.is_empty();
        let Some(read) = reader.read_count().filter(|_| soon && waits) else {
            return reader.sleep_unless(tail + 1, u64::MAX);
        };
        // Records linger: it is enough to look when a batch may be full, by count or by bytes, or when
        // so much waits that the queue might not hold more.
        let bytes = (self.config.batch_size as u64).min(reader.capacity() / 8);
        let records = self.producer.records_to_full_batch() as u64;
        reader.sleep_unless(tail + bytes, read + records)
    }

    // ------------------------------------------------------------------------------------- records

    /// Hands records from the queues to the producer; true when they may hold more.
    fn take_records(&mut self) -> bool {
        let now = self.shared.now();
        if !self.shared.stop.load(Ordering::Acquire) {
            self.sources.adopt(now, self.dirs, self.instance, self.shared);
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
                records.push(new_record(self.config, id, now, &slot));
            }
            let stamp = ProducerStamp {
                producer_id: batch.producer_id,
                epoch: batch.epoch,
                base_sequence: batch.base_sequence,
            };
            match self.topic(now, number, batch.topic) {
                Some(topic) => {
                    self.producer.handle_repeat(now, topic, batch.partition, stamp, records);
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
        // The wall clock may have been set meanwhile: no record of our own is older than our last look.
        // What a dead worker left gets all of its time anew.
        let oldest = if number == 0 { now.since(self.drained_at).as_millis() as i64 } else { 0 };
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
            let age = now_ms.saturating_sub(slot.timestamp_ms).clamp(0, oldest) as u64;
            let id = Sources::name(number, slot.position);
            let born = Time(now.0.saturating_sub(age * 1000));
            let record = new_record(self.config, id, born, &slot);
            // Another configuration than the dead worker's may have nobody to ask.
            let ask = self.config.partitioner.0
                && slot.partition == ASK_PARTITION
                && !self.shared.events.has_ended();
            let topic = slot.topic;
            match self.topic(now, number, topic) {
                Some(topic) => {
                    if let Some(record) = self.asking.hold(NewRecord { topic, ..record }, ask) {
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

    // ------------------------------------------------------------------------------------- network

    fn act(&mut self, now: Time, action: Action) {
        match action {
            Action::Connect { conn, address, .. } => {
                let (outgoing, from_us) = mpsc::unbounded_channel();
                let settings = net::Settings {
                    address: address.clone(),
                    client_id: self.config.client_id.clone(),
                    setup_timeout: Duration::from_millis(
                        self.config.socket_connection_setup_timeout_ms,
                    ),
                    keepalive: self.config.socket_keepalive_enable,
                    frames: self.frames.clone(),
                    handshake: self.old_brokers.handshake(now, &address.to_string()),
                    large_answers: self.large_answers.clone(),
                };
                let events = self.events_in.clone();
                let task = tokio::spawn(net::run(conn.0, settings, from_us, events));
                let connection = Connection {
                    outgoing,
                    task: task.abort_handle(),
                    address: address.to_string(),
                    versions: None,
                    next_correlation_id: net::handshake::FIRST_CORRELATION_ID,
                };
                self.connections.insert(conn, connection);
            }
            Action::Close { conn, reason } => {
                if let Some(connection) = self.connections.remove(&conn) {
                    connection.task.abort();
                    let level = match reason {
                        CloseReason::NotNeeded => Level::Info,
                        CloseReason::RequestTimeout => Level::Warn,
                    };
                    let address = connection.address;
                    let text = format_args!("broker {address}: {reason}, connection closed");
                    let kind = match reason {
                        CloseReason::NotNeeded => "not needed",
                        CloseReason::RequestTimeout => "request timeout",
                    };
                    self.shared.lines.put(now, level, kind, &address, text);
                }
            }
            Action::Metadata { conn, request } => self.send_metadata(conn, request),
            Action::InitProducerId { conn, request } => {
                self.send_init_producer_id(now, conn, request);
            }
            Action::Produce { conn, request } => self.send_produce(conn, request),
        }
    }

    fn send_metadata(&mut self, conn: ConnId, request: RequestId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let topics = self.producer.topics();
        connection.send(request, |correlation_id, versions| {
            encode::metadata(self.config, versions, correlation_id, &topics)
        });
    }

    fn send_init_producer_id(&mut self, now: Time, conn: ConnId, request: RequestId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let offered = connection.versions.and_then(|versions| versions.init_producer_id);
        let Some(version) = offered else {
            let response = InitProducerIdResponse {
                throttle_ms: 0,
                error: ErrorCode::UNSUPPORTED_VERSION,
                producer_id: -1,
                epoch: -1,
            };
            return self.producer.handle_producer_id(now, conn, request, &response);
        };
        connection.send(request, |correlation_id, _| {
            encode::init_producer_id(self.config, version, correlation_id)
        });
    }

    fn send_produce(&mut self, conn: ConnId, request: RequestId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        // On record before it is sent, so that whoever finds the file repeats what the broker knows.
        for sent in self.producer.request(conn, request) {
            let Some(ProducerStamp { producer_id, epoch, base_sequence }) = sent.batch.stamp else {
                continue;
            };
            for (index, record) in sent.batch.records.iter().enumerate() {
                let batch_records = if index == 0 { sent.batch.records.len() as u32 } else { 0 };
                let sequence = idempotence::advance(base_sequence, index);
                let partition = sent.partition;
                let stamp = Stamp { producer_id, epoch, sequence, batch_records, partition };
                self.sources.stamp(record.id, &stamp);
            }
        }
        let (config, producer, sources) = (self.config, &self.producer, &self.sources);
        let (frames, sent) = (&self.frames, producer.request(conn, request));
        let bytes = connection.send(request, |correlation_id, versions| {
            encode::produce(config, versions, correlation_id, producer, sources, frames, sent)
        });
        stats::add(&self.shared.stats.request_bytes_sent, bytes as u64);
    }

    fn handle_event(&mut self, event: Event) {
        let now = self.shared.now();
        match event {
            Event::Ready { conn, versions, origin, peer } => {
                let conn = ConnId(conn);
                let Some(connection) = self.connections.get_mut(&conn) else { return };
                connection.versions = Some(versions);
                stats::add(&self.shared.stats.connections_opened, 1);
                let address = &connection.address;
                self.old_brokers.handle_ready(now, address, origin);
                let text = format_args!(
                    "broker {address} connected ({peer}, Produce v{}{origin})",
                    versions.produce
                );
                self.shared.lines.put(now, Level::Notice, "connected", address, text);
                self.producer.handle_connected(now, conn);
            }
            Event::Written { conn, request } => {
                self.producer.handle_written(now, ConnId(conn), RequestId(request));
            }
            Event::Produced { conn, request, response, .. } => {
                self.tell_errors(now, &response);
                self.producer.handle_produced(now, ConnId(conn), RequestId(request), &response);
            }
            Event::Metadata { conn, request, response, .. } => {
                let (conn, request) = (ConnId(conn), RequestId(request));
                self.producer.handle_metadata(now, conn, request, &response);
                if self.config.partitioner.0 {
                    self.publish_partition_counts();
                }
            }
            Event::ProducerId { conn, request, response } => {
                let (conn, request) = (ConnId(conn), RequestId(request));
                self.producer.handle_producer_id(now, conn, request, &response);
            }
            Event::Closed { conn, error } => {
                let conn = ConnId(conn);
                let Some(connection) = self.connections.remove(&conn) else { return };
                let address = &connection.address;
                if connection.versions.is_none() {
                    self.old_brokers.handle_failure(address, &error);
                }
                let text = format_args!("broker {address}: {error}");
                self.shared.lines.put(now, Level::Warn, "closed", address, text);
                self.producer.handle_closed(now, conn);
            }
        }
    }

    // --------------------------------------------------------------------------------------- fates

    fn settle(&mut self, outcome: Outcome) {
        // What is left are messages of the queues.
        let outcome = self.replay.take(outcome, &self.sources, self.shared);
        if outcome.records.is_empty() {
            return;
        }
        match outcome.fate {
            Fate::Delivered => {
                for (n, record) in outcome.records.iter().enumerate() {
                    if let Some(later) = outcome.records.get(n + PREFETCH_AHEAD) {
                        self.sources.prefetch(later.id, 0);
                    }
                    self.sources.done(record.id);
                }
                stats::add(&self.shared.stats.succ_msg_cnt, outcome.records.len() as u64);
            }
            Fate::Failed { reason, in_doubt } => {
                let topic = self.producer.topic_ref(outcome.topic).0.to_owned();
                self.replay.topic_failed(self.shared.now(), &topic);
                if self.config.failed_cb.0 && !self.callbacks_ended() {
                    self.handover.add(topic, outcome.records, reason, in_doubt);
                } else {
                    self.spill.add(topic, outcome.records, reason.to_string(), in_doubt);
                }
            }
        }
    }

    /// Exchanges failed messages and verdicts with the user's `failed_cb`.
    fn hand_over(&mut self) {
        let (events, stats) = (&self.shared.events, &self.shared.stats);
        if self.handover.is_empty() || events.has_appends() {
            return;
        }
        let ended = self.callbacks_ended();
        let (sources, spill) = (&mut self.sources, &mut self.spill);
        let mut refuse = |refused: Refused| {
            let reason = refused.reason.to_string();
            spill.add(refused.topic, vec![refused.record], reason, refused.in_doubt);
        };
        let done = |id, in_doubt| {
            sources.done(id);
            stats::add(&stats.fail_msg_cnt, 1);
            stats::add(&stats.fail_in_doubt_cnt, u64::from(in_doubt));
        };
        self.handover.take_verdicts(events, done, &mut refuse);
        if ended {
            self.handover.take_all(refuse);
        } else {
            self.handover.give(events, &self.sources);
        }
    }

    /// True once the event loop runs no callbacks any more.
    fn callbacks_ended(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire) || self.shared.events.has_ended()
    }

    fn tell(&self, now: Time, notice: Notice) {
        let lines = &self.shared.lines;
        match notice {
            Notice::TopicError { topic, error } => {
                let topic = self.producer.topic_ref(topic).0;
                let text = format_args!("topic {topic}: {error}{}", advice(error));
                lines.put(now, Level::Warn, "topic", topic, text);
            }
            Notice::BrokerRests { address, .. } => {
                let text = format_args!(
                    "broker {address} failed {} times in a row and rests for {} s \
                     (conn_retry_limit, conn_retry_timeout)",
                    self.config.conn_retry_limit, self.config.conn_retry_timeout
                );
                lines.put(now, Level::Warn, "rests", &address, text);
            }
            Notice::NoProducerId { error, mode } => {
                let then = match mode {
                    Idempotence::Required => "nothing is sent, since enable_idempotence is true",
                    _ => "going on without idempotence: lost answers may double messages",
                };
                let text = format_args!(
                    "no producer id: {error}; {then}. Idempotence needs Kafka 0.11 and, below 2.8, the \
                     IdempotentWrite right on the cluster; enable_idempotence = false does without it"
                );
                lines.put(now, Level::Warn, "producer id", "", text);
            }
            Notice::ResentInDoubt { topic, partition, records, error } => {
                let topic = self.producer.topic_ref(topic).0;
                let text = format_args!(
                    "topic {topic} partition {partition}: {error}; {records} messages that may be there \
                     are sent again as new ones, and may be doubled"
                );
                lines.put(now, Level::Warn, "in doubt", topic, text);
            }
            Notice::BatchSplit { topic, records } => {
                let topic = self.producer.topic_ref(topic).0;
                let text = format_args!(
                    "topic {topic}: a batch of {records} messages is too large for the broker and \
                     was split; lower batch_size or batch_num_messages, or raise max.message.bytes"
                );
                lines.put(now, Level::Warn, "split", topic, text);
            }
        }
    }

    /// Errors in answers, one line per topic and error in a while. Topics that are not ours are the broker's
    /// affair: their names would fill the memory of what was said.
    fn tell_errors(&self, now: Time, response: &crate::protocol::produce::ProduceResponse) {
        for topic in &response.topics {
            let name = match &topic.topic {
                crate::protocol::produce::ProducedTopicRef::Name(name) => {
                    self.producer.topics().contains(&name.as_str()).then_some(name.as_str())
                }
                crate::protocol::produce::ProducedTopicRef::Id(id) => self.producer.topic_by_id(id),
            };
            let Some(name) = name else { continue };
            for told in topic.partitions.iter().filter(|told| told.error != ErrorCode::NONE) {
                let message = told.error_message.as_deref().unwrap_or_default();
                let text = format_args!(
                    "topic {name} partition {}: {}{} {message}",
                    told.index,
                    told.error,
                    advice(told.error)
                );
                let subject = format_args!("{name} {}", told.error.0);
                self.shared.lines.put(now, Level::Warn, "produce", subject, text);
            }
        }
    }

    fn publish_partition_counts(&mut self) {
        let count = |topic: &TopicId| self.producer.partition_count(*topic).unwrap_or(0);
        let counts = self.sources.own().topics.iter().map(count).collect();
        self.shared.events.set_partition_counts(counts);
    }

    fn publish_stats(&self) {
        self.shared.events.set_waiting_if_wanted(self.producer.waiting_records());
        let stats = &self.shared.stats;
        let counts = self.producer.counts();
        stats::set(&stats.waitbuf, self.producer.in_flight_records());
        stats::set(&stats.batches_sent, counts.batches);
        stats::set(&stats.batch_records_max, counts.batch_records_max);
        stats::set(&stats.requests_sent, counts.requests);
        stats::set(&stats.batches_retried, counts.retries);
        stats::set(&stats.resent_in_doubt_cnt, counts.resent_in_doubt);
        stats::set(&stats.metadata_requests_sent, counts.metadata_requests);
        stats::set(&stats.connections_broken, counts.broken_connections);
        stats::set(&stats.spill_waiting, self.spill.amount().records);
        stats::set(&stats.log_lines_dropped, self.shared.lines.dropped());
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        for connection in self.connections.values() {
            connection.task.abort();
        }
    }
}

impl Connection {
    /// Encodes a request and hands it to the connection; returns its size. What happens to it there, the
    /// connection's end included, comes back as an event.
    fn send(
        &mut self,
        request: RequestId,
        encode: impl FnOnce(i32, Versions) -> (Vec<u8>, Option<net::Expected>),
    ) -> usize {
        let Some(versions) = self.versions else { return 0 };
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = match correlation_id.checked_add(1) {
            Some(next) => next,
            None => net::handshake::FIRST_CORRELATION_ID,
        };
        let (frame, answer) = encode(correlation_id, versions);
        let bytes = frame.len();
        let _ = self.outgoing.send(net::Outgoing { frame, request: request.0, answer });
        bytes
    }
}

/// What the producer is to know of a record; its topic is still to be named.
fn new_record(config: &Config, id: RecordId, born: Time, slot: &Slot<'_>) -> NewRecord {
    let sent_key_len = if config.send_key { slot.key.map(<[u8]>::len) } else { None };
    NewRecord {
        id,
        topic: TopicId(0),
        partition: u32::try_from(slot.partition).ok(),
        origin: Sources::number(id) as u16,
        key_hash: slot.key.map(partitioner::key_hash),
        bytes: encode::record_size_bound(sent_key_len, slot.payload.len()) as u32,
        born,
    }
}

/// What an operator can do about an error.
fn advice(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
            "; create it, or let the broker do so (auto.create.topics.enable and allow_auto_create_topics)"
        }
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => "; the broker's ACLs do not allow it",
        ErrorCode::MESSAGE_TOO_LARGE => "; see max.message.bytes of the topic",
        _ => "",
    }
}

/// Milliseconds since 1970.
#[allow(clippy::disallowed_methods, reason = "the driver reads the clock for the layers below")]
fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
