//! The producer against the model cluster under faults drawn from a seed. Its owner is frozen now and then, its disk
//! is full, and it is killed, also between two stamps or two done marks; the next one goes on with what the
//! [`Ledger`] has. After every run:
//! - each record that was handed in had exactly one fate;
//! - a delivered record is in the log of a partition of its topic, at the offset that is reported, if one is; one that failed without doubt is not;
//! - no log holds a record of another topic;
//! - in each partition, delivered records stand in the order in which they were handed in;
//! - with idempotence no log holds a record twice, nor out of order, unless a broker forgot its producers or a
//!   topic was made anew.
//!
//! An owner that starts after a kill has a file of its own, and adopts its predecessors' while it is at work. It
//! may have other rules than they had.
//!
//! `LKFK_SIM_SEEDS=N` sets how many seeds run, `LKFK_SIM_SEED=N` repeats one and tells what happens.

mod judge;
mod scenario;

use super::cluster::{Answer, Cluster, Faults, ModelBatch, ModelTopic};
use super::ledger::{Ledger, number};
use super::*;
use crate::producer::broker::request_bytes;
use crate::protocol::init_producer_id::InitProducerIdResponse;
use crate::protocol::record_batch::BATCH_OVERHEAD;
use crate::queue::stamps::Stamp;
use crate::seeded_bug::{self, BUGS, Bug, is_seeded};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

enum Event {
    Record,
    Flush,
    /// The queue is filling up.
    Evict,
    Connected(ConnId),
    Refused(ConnId),
    /// A connection breaks.
    Broken(ConnId),
    /// With so many bytes.
    ProduceArrives(ConnId, RequestId, Vec<ModelBatch>, usize),
    Produced(ConnId, RequestId, ProduceResponse),
    /// About the topics of these names.
    MetadataArrives(ConnId, RequestId, Vec<String>),
    Metadata(ConnId, RequestId, MetadataResponse),
    ProducerIdArrives(ConnId, RequestId),
    ProducerId(ConnId, RequestId, InitProducerIdResponse),
    /// The producer's owner is killed, or its driver starts over.
    Crash,
    /// The owner finds a file that a dead one left.
    Adopt(u16),
    /// The owner does not run for so long: it was stopped, or its machine.
    Freeze(Duration),
    /// It runs again.
    Thaw,
    /// The backup's disk takes nothing any more.
    DiskFull,
    /// And again.
    DiskFree,
    /// A topic is deleted and made anew, with so many partitions.
    Recreate(usize, usize),
    BrokerDown(BrokerId),
    BrokerUp(BrokerId),
    MoveLeader,
    /// The wall clock is set, by so many milliseconds.
    SetClock(i64),
    /// Brokers take batches of so many records at most from now on.
    Limit(usize),
    /// Brokers hang up on requests of more bytes from now on.
    RequestLimit(usize),
    Elect,
    /// All faults end.
    Heal,
}

impl Event {
    /// True for what waits while the owner is frozen.
    fn is_for_the_owner(&self) -> bool {
        use Event::*;
        matches!(
            self,
            Record
                | Flush
                | Evict
                | Connected(_)
                | Refused(_)
                | Broken(_)
                | Produced(..)
                | Metadata(..)
                | ProducerId(..)
                | Adopt(_)
                | Thaw
        )
    }
}

/// A request with one record has so many bytes at most.
const LARGEST_ALONE: usize = 400;

struct Sim {
    now: Time,
    producer: Producer,
    cluster: Cluster,
    /// When they happen, when they were to, and their place in `payloads`.
    events: BinaryHeap<Reverse<(Time, Time, usize)>>,
    payloads: Vec<Option<Event>>,
    rules: Rules,
    /// Milliseconds that the wall clock was set by, since when.
    clock: Vec<(Time, i64)>,
    /// When all that was logged had been read, by record: that was logged after it.
    drained_at: Vec<Time>,
    /// When the event that happens was meant to.
    meant: Time,
    /// How many owners there were.
    lives: u64,
    /// The owner's file, and those that it adopted.
    files: Vec<u16>,
    /// All owners number what they send.
    idempotent: bool,
    /// Topics are named by their ids, as from Produce v13 on.
    by_id: bool,
    /// Batches are compressed.
    compresses: bool,
    /// Killed in the middle of giving a batch other numbers.
    torn: bool,
    /// Brokers refuse batches, or parts of them, for good.
    refusals: bool,
    /// Open connections and the broker behind each. Those of all lives have numbers of their own.
    open: HashMap<ConnId, BrokerId>,
    /// Where every connection ever led to: what was sent may arrive after its end.
    led_to: HashMap<ConnId, BrokerId>,
    /// When the last thing that was sent on a connection arrives, there and back: nothing overtakes.
    arrivals: HashMap<(ConnId, bool), Time>,
    ledger: Ledger,
    /// What was given up and waits for the backup's disk.
    spill: Vec<(RecordId, Delivery)>,
    disk_full: bool,
    frozen_until: Time,
    /// All of that time.
    frozen_for: Duration,
    /// What happens is printed.
    told: bool,
    /// Connections on which nothing arrives any more.
    cut: HashSet<ConnId>,
    /// Nothing takes long on its way.
    wire_is_quick: bool,
    /// Until when a broker does not read from a connection, for the sake of its quota.
    muted: HashMap<ConnId, Time>,
    /// Connections on which no answer comes any more.
    mute: HashSet<ConnId>,
    /// Brokers answer with errors after they appended.
    appends_fail: bool,
    /// Metadata always shows all topics, with all their partitions.
    topics_stay: bool,
    /// Metadata showed a topic with fewer partitions for so long that it was believed.
    topics_shrank: bool,
    /// Something arrived late.
    late: bool,
    /// Chance of a kill in the middle of a write to the ledger, in thousandths.
    crash_within: u64,
    crashes_left: u32,
    records_left: u64,
    gap: u64,
    keys: u64,
    steps: u64,
    acks_none: bool,
}

impl Sim {
    fn at(&mut self, after: Duration, event: Event) {
        let index = self.payloads.len();
        self.payloads.push(Some(event));
        let at = self.now + after;
        self.events.push(Reverse((at, at, index)));
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.told {
            eprintln!("{:>9} {}", self.now.0, what());
        }
    }

    /// Something that is sent on a connection, to the broker or back, after what was sent before.
    fn on_wire(&mut self, conn: ConnId, back: bool, delay: Duration, event: Event) {
        if back && self.mute.contains(&conn) {
            return;
        }
        let last = self.arrivals.entry((conn, back)).or_default();
        *last = (*last).max(self.now + delay);
        let after = last.since(self.now);
        self.at(after, event);
    }

    fn name_topics(&mut self) {
        for topic in &self.cluster.topics {
            self.producer.topic(self.now, &topic.name);
        }
    }

    /// The owner is gone. Another one begins with a file of its own and finds the others by and by; or it is the
    /// driver's thread that starts over, with the file it had.
    fn crash(&mut self) {
        self.lives += 1;
        self.crashes_left = self.crashes_left.saturating_sub(1);
        self.open.clear();
        // What was given up and is not in the backup yet is sent after what it came before.
        let sure =
            |(_, fate): &(_, Delivery)| matches!(fate, Delivery::Failed { in_doubt: false, .. });
        self.torn |= self.spill.drain(..).any(|spilled| sure(&spilled));
        self.frozen_until = self.now;
        let (seed, own) = (self.cluster.random.bits(), self.files[0]);
        let starts_over = self.cluster.chance(300);
        self.tell(|| if starts_over { "starts over".into() } else { "killed".into() });
        if !starts_over {
            self.change_rules();
        }
        self.producer = Producer::new(self.rules.clone(), seed);
        self.producer.last_id = self.lives << 32;
        self.name_topics();
        let mut orphans = std::mem::take(&mut self.files);
        if starts_over {
            orphans.retain(|file| *file != own);
            self.files.push(own);
            self.ledger.hand_over(self.now, own, &mut self.producer);
        } else {
            self.files.push(self.lives as u16);
        }
        for file in orphans {
            let delay = if self.cluster.chance(500) { 0 } else { self.cluster.random.below(3_000) };
            self.at(Duration::from_millis(delay), Event::Adopt(file));
        }
    }

    fn may_crash(&mut self) -> bool {
        self.crashes_left > 0 && self.cluster.chance(self.crash_within)
    }

    /// Runs to the end and returns what is wrong, if anything is.
    fn run(mut self) -> Result<(), String> {
        loop {
            self.settle()?;
            self.steps += 1;
            if self.steps > 200_000 {
                return Err("no end in sight: the producer keeps itself busy".into());
            }
            let done = self.records_left == 0 && self.ledger.is_settled();
            if done {
                break;
            }
            let event = self.events.peek().map(|Reverse((at, ..))| *at);
            let deadline = self.producer.next_deadline().map(|at| at.max(self.frozen_until));
            let Some(next) = [event, deadline].into_iter().flatten().min() else {
                return Err("records wait and nothing is due".into());
            };
            // Each owner gives what it finds all of its time anew. A record that is too large even alone takes ten tries.
            let hung_up = if self.cluster.max_request < usize::MAX { 200_000_000 } else { 0 };
            let end = 200_000_000 + self.lives * 70_000_000 + hung_up;
            if next > Time(end) + self.frozen_for {
                return Err(format!(
                    "{} of {} records have no fate in time",
                    self.ledger.open(),
                    self.ledger.len()
                ));
            }
            self.now = self.now.max(next);
            if event.is_some_and(|at| at <= self.now) {
                let Some(Reverse((_, meant, index))) = self.events.pop() else { continue };
                let frozen = self.frozen_until > self.now;
                let event = &mut self.payloads[index];
                if frozen && event.as_ref().is_some_and(Event::is_for_the_owner) {
                    self.events.push(Reverse((self.frozen_until, meant, index)));
                } else if let Some(event) = event.take() {
                    self.meant = meant;
                    self.happen(event);
                }
            } else {
                self.producer.handle_timeout(self.now);
            }
        }
        self.judge()
    }

    /// How long a broker does not look at what arrives.
    fn unread_until(&self, event: &Event) -> Option<Time> {
        match event {
            Event::ProduceArrives(conn, ..)
            | Event::MetadataArrives(conn, ..)
            | Event::ProducerIdArrives(conn, _) => self.muted.get(conn).copied(),
            _ => None,
        }
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        if let Some(until) = self.unread_until(&event).filter(|until| *until > now) {
            self.payloads.push(Some(event));
            self.events.push(Reverse((until, self.meant, self.payloads.len() - 1)));
            return;
        }
        match event {
            Event::Record => self.hand_in(),
            Event::Flush => self.producer.handle_flush(now),
            Event::Evict => {
                let records = self.cluster.random.below(100);
                self.producer.evict(records, 0, |id| id.0 % 5 != 0);
            }
            Event::Connected(conn) => {
                if self.open.contains_key(&conn) {
                    self.producer.handle_connected(now, conn);
                }
            }
            Event::Refused(conn) if self.cluster.chance(300) => {
                self.producer.handle_refused(now, conn);
            }
            Event::Refused(conn) => self.producer.handle_closed(now, conn),
            Event::Broken(conn) => {
                if self.open.remove(&conn).is_some() {
                    self.producer.handle_closed(now, conn);
                }
            }
            Event::ProduceArrives(conn, request, batches, bytes) => {
                // What was sent on a connection that the producer closed may still arrive.
                let broker = self.led_to[&conn];
                let late = self.cluster.faults.late;
                let closed = !self.open.contains_key(&conn);
                let lost = self.cut.contains(&conn) || closed && !self.cluster.chance(late);
                if lost {
                    self.cut.insert(conn);
                }
                self.late |= !lost && closed;
                if lost || !self.cluster.up[&broker] {
                    return;
                }
                if bytes > self.cluster.max_request {
                    self.tell(|| format!("{conn:?} is hung up on: {bytes} bytes"));
                    self.cut.insert(conn);
                    return self.at(Duration::from_micros(100), Event::Broken(conn));
                }
                self.tell(|| format!("{conn:?} arrives {batches:?}"));
                let delay = self.cluster.delay();
                match self.cluster.produce(broker, &batches) {
                    Answer::Now(response) if !self.acks_none => {
                        let pause = Duration::from_millis(response.throttle_ms as u64);
                        self.muted.insert(conn, now + pause);
                        self.on_wire(conn, true, delay, Event::Produced(conn, request, response));
                    }
                    Answer::Break => self.on_wire(conn, true, delay, Event::Broken(conn)),
                    Answer::Silence => {
                        self.mute.insert(conn);
                    }
                    Answer::Now(_) => {}
                }
            }
            Event::Produced(conn, request, response) => {
                if self.open.contains_key(&conn) {
                    self.tell(|| format!("{conn:?} answer {:?}", response.topics));
                    self.producer.handle_produced(now, conn, request, &response);
                }
            }
            Event::MetadataArrives(conn, request, asked) => {
                let Some(&broker) = self.open.get(&conn) else { return };
                self.tell(|| format!("{conn:?} arrives: metadata of {asked:?}"));
                if self.cluster.up[&broker] {
                    let mut response = self.cluster.metadata(now, broker);
                    response.topics.retain(|topic| asked.contains(&topic.name));
                    let delay = self.cluster.delay();
                    self.on_wire(conn, true, delay, Event::Metadata(conn, request, response));
                }
            }
            Event::Metadata(conn, request, response) => {
                if self.open.contains_key(&conn) {
                    let before = self.partitions();
                    self.producer.handle_metadata(now, conn, request, &response);
                    self.topics_shrank |=
                        self.partitions().iter().zip(before).any(|(now, n)| *now < n);
                }
            }
            Event::ProducerIdArrives(conn, request) => {
                let Some(&broker) = self.open.get(&conn) else { return };
                if self.cluster.up[&broker] {
                    let response = self.cluster.producer_id();
                    let delay = self.cluster.delay();
                    self.on_wire(conn, true, delay, Event::ProducerId(conn, request, response));
                }
            }
            Event::ProducerId(conn, request, response) => {
                if self.open.contains_key(&conn) {
                    self.producer.handle_producer_id(now, conn, request, &response);
                }
            }
            Event::Crash => self.crash(),
            Event::Adopt(file) => {
                self.tell(|| format!("adopts file {file}"));
                self.files.push(file);
                self.ledger.hand_over(now, file, &mut self.producer);
            }
            Event::Freeze(time) => {
                self.tell(|| format!("frozen for {time:?}"));
                self.frozen_until = self.frozen_until.max(now + time);
                self.frozen_for += time;
                // It looks at the clock before what came meanwhile, or after that.
                let meant = if self.cluster.chance(500) { now } else { now + time };
                self.payloads.push(Some(Event::Thaw));
                self.events.push(Reverse((now + time, meant, self.payloads.len() - 1)));
            }
            Event::Thaw => self.producer.handle_timeout(now),
            Event::DiskFull => self.disk_full = true,
            Event::DiskFree => self.disk_full = false,
            Event::Recreate(topic, partitions) => {
                self.tell(|| format!("topic {topic} anew, {partitions} partitions"));
                self.cluster.recreate(topic, partitions);
            }
            Event::BrokerDown(broker) => {
                self.cluster.up.insert(broker, false);
                let broken: Vec<ConnId> =
                    self.open.iter().filter(|(_, at)| **at == broker).map(|(c, _)| *c).collect();
                let mut broken = broken;
                broken.sort();
                for conn in broken {
                    // What is on the wire is lost with its end, also when the owner hears of it later.
                    self.cut.insert(conn);
                    self.at(Duration::ZERO, Event::Broken(conn));
                }
                let down = Duration::from_micros(self.cluster.random.below(5_000_000));
                self.at(down, Event::BrokerUp(broker));
                self.at(Duration::from_millis(300), Event::Elect);
            }
            Event::BrokerUp(broker) => {
                self.cluster.up.insert(broker, true);
                self.cluster.elect();
            }
            Event::Elect => self.cluster.elect(),
            Event::MoveLeader => self.cluster.move_leader(),
            Event::SetClock(ms) => self.clock.push((now, ms)),
            Event::Limit(records) => {
                self.cluster.max_records = records;
                self.refusals |= records < self.rules.batch_records;
            }
            Event::RequestLimit(bytes) => {
                self.tell(|| format!("requests of more than {bytes} bytes are hung up on"));
                self.cluster.max_request = bytes;
                self.refusals |= bytes < LARGEST_ALONE;
            }
            Event::Heal => {
                self.disk_full = false;
                let max = self.cluster.max_records;
                let latency = self.cluster.faults.latency.min(20_000);
                self.cluster.faults = Faults { latency, ..Faults::default() };
                self.cluster.max_records = max;
                for up in self.cluster.up.values_mut() {
                    *up = true;
                }
                self.cluster.elect();
            }
        }
    }

    /// Partitions of each topic, as the producer knows them.
    fn partitions(&self) -> Vec<Option<u32>> {
        let topics = 0..self.cluster.topics.len() as u32;
        topics.map(|id| self.producer.partition_count(TopicId(id))).collect()
    }

    /// The wall clock, as it is or was.
    fn wall_ms(&self, at: Time) -> i64 {
        let set = self.clock.iter().rev().find(|(since, _)| *since <= at);
        1_700_000_000_000 + (at.0 / 1000) as i64 + set.map_or(0, |(_, ms)| *ms)
    }

    fn hand_in(&mut self) {
        let topic = TopicId(self.cluster.random.below(self.cluster.topics.len() as u64) as u32);
        let file = u64::from(self.files[0]);
        let id = RecordId(file << RecordId::POSITION_BITS | self.ledger.len() as u64);
        let key = self.cluster.random.below(self.keys);
        let key_hash = (key > 0).then_some(key as u32 * 7919);
        let bytes = 20 + self.cluster.random.below(300) as u32;
        // It was logged when it was meant to be, or a little before; the owner reads it now.
        let logged = Time(self.meant.0.saturating_sub(self.cluster.random.below(1000)));
        let (wall_ms, stamp_ms) = (self.wall_ms(self.now), self.wall_ms(logged));
        let drained_at = self.drained_at[self.ledger.len()];
        let born = self.now.of_stamp(drained_at, wall_ms, stamp_ms);
        self.drained_at.push(self.now);
        // Now and then a partition is given, also one that does not exist.
        let wish = self.cluster.random.below(20) as u32;
        let partition = (wish < 5).then_some(wish);
        let record = NewRecord { topic, record: Record { id, key_hash, partition, bytes, born } };
        self.ledger.accept(record);
        self.producer.handle_record(self.now, record);
        self.records_left -= 1;
        if self.records_left > 0 {
            let gap = self.cluster.random.below(self.gap + 1);
            self.at(Duration::from_micros(gap), Event::Record);
        }
    }

    /// Notes what the producer reports and carries out what it asks for.
    fn settle(&mut self) -> Result<(), String> {
        let mut actions = 0;
        loop {
            let lives = self.lives;
            let action = self.producer.poll(self.now);
            // First of all, see the contract.
            self.note_outcomes()?;
            self.note_marks();
            if lives != self.lives {
                continue;
            }
            let Some(action) = action else { break };
            actions += 1;
            if actions > 10_000 {
                return Err("poll() never ends".into());
            }
            match action {
                Action::Connect { conn, broker, address } => {
                    let delay = self.cluster.delay();
                    let broker = if broker < 0 {
                        1 + self.cluster.random.below(self.cluster.up.len() as u64) as i32
                    } else {
                        if address.host != format!("b{broker}") {
                            return Err(format!("broker {broker} sought at {address}"));
                        }
                        broker
                    };
                    let refused = self.cluster.chance(self.cluster.faults.connect_fails);
                    if refused || !self.cluster.up[&broker] {
                        self.at(delay, Event::Refused(conn));
                    } else {
                        self.open.insert(conn, broker);
                        self.led_to.insert(conn, broker);
                        self.at(delay, Event::Connected(conn));
                    }
                }
                Action::Close { conn, reason } => {
                    self.tell(|| format!("{conn:?} closed: {reason}"));
                    self.open.remove(&conn);
                    if reason == CloseReason::RequestTimeout && self.muted_alone(conn) {
                        return Err(format!("{conn:?} is closed, and all that it lacks is quota"));
                    }
                }
                Action::Metadata { conn, request } => {
                    let delay = self.cluster.delay();
                    let asked = self.producer.asked_topics().into_iter().map(str::to_owned);
                    let arrives = Event::MetadataArrives(conn, request, asked.collect());
                    self.on_wire(conn, false, delay, arrives);
                }
                Action::InitProducerId { conn, request } => {
                    let delay = self.cluster.delay();
                    self.on_wire(conn, false, delay, Event::ProducerIdArrives(conn, request));
                }
                Action::Produce { conn, request } => self.send(conn, request)?,
            }
        }
        self.note_outcomes()?;
        while self.producer.poll_notice().is_some() {}
        Ok(())
    }

    /// True when nothing but its broker's quota keeps answers on this connection.
    fn muted_alone(&self, conn: ConnId) -> bool {
        let ends_are_there = self.frozen_for.is_zero() && self.cluster.up.values().all(|up| *up);
        let is_whole = !self.cut.contains(&conn) && !self.mute.contains(&conn);
        self.wire_is_quick && ends_are_there && is_whole && self.muted.contains_key(&conn)
    }

    fn note_marks(&mut self) {
        while let Some((id, mark)) = self.producer.poll_mark() {
            if self.may_crash() {
                return self.crash();
            }
            match mark {
                Mark::Partition(partition) => self.ledger.assign(id, partition),
                Mark::Unsent => self.ledger.unstamp(id),
            }
        }
    }

    fn note_outcomes(&mut self) -> Result<(), String> {
        while let Some(outcome) = self.producer.poll_outcome() {
            let sure = matches!(outcome.delivery, Delivery::Failed { in_doubt: false, .. });
            let timed_out = Delivery::Failed { reason: Reason::TimedOut, in_doubt: false };
            let time = self.rules.message_timeout;
            let early = |id| self.now < self.drained_at[number(id)] + time;
            // A batch is given up with its oldest record, and what is in doubt with what it follows.
            if outcome.delivery == timed_out
                && outcome.records.iter().all(|record| early(record.id))
            {
                return Err(format!("given up before its time: {:?}", outcome.records));
            }
            for (index, record) in outcome.records.iter().enumerate() {
                if let Some(offset) = outcome.offset(index)
                    && !self.stands_at(outcome.topic, outcome.partition, offset, record.id)
                {
                    return Err(format!("{:?} does not stand at {offset}", record.id));
                }
            }
            for record in outcome.records.iter().filter(|_| sure) {
                if !is_seeded(Bug::KeepFailedStamp) {
                    self.ledger.unstamp(record.id);
                }
            }
            for record in &outcome.records {
                if self.may_crash() {
                    self.torn |= sure;
                    self.crash();
                    break;
                }
                self.tell(|| format!("{:?} {:?}", record.id, outcome.delivery));
                if outcome.delivery.is_delivered() {
                    self.ledger.settle(record.id, outcome.delivery)?;
                } else {
                    if !sure {
                        self.ledger.give_up(record.id);
                    }
                    self.spill.push((record.id, outcome.delivery));
                }
            }
        }
        self.write_spill()
    }

    /// Whether a record stands there in the partition's log, or stood in one before the topic was made anew.
    fn stands_at(&self, id: TopicId, index: Option<u32>, offset: i64, record: RecordId) -> bool {
        let topic = id.0 as usize;
        let now = index.and_then(|index| self.cluster.topics[topic].logs.get(index as usize));
        let before = self.cluster.graveyard.iter().filter(|(dead, _)| *dead == topic);
        let mut logs = now.into_iter().chain(before.map(|(_, log)| log));
        logs.any(|log| log.get(offset as usize) == Some(&record))
    }

    /// Writes to the backup what was given up, if its disk takes it.
    fn write_spill(&mut self) -> Result<(), String> {
        if self.disk_full || self.frozen_until > self.now {
            return Ok(());
        }
        let mut spill = std::mem::take(&mut self.spill).into_iter();
        while let Some((id, fate)) = spill.next() {
            if self.may_crash() {
                self.spill = std::iter::once((id, fate)).chain(spill).collect();
                self.crash();
                break;
            }
            self.ledger.settle(id, fate)?;
        }
        Ok(())
    }

    /// What a request's batches take once they are compressed, each by a factor of its own; nothing without compression.
    fn compressed_sizes(&self, request: RequestId, sent: &[InFlightBatch]) -> Vec<usize> {
        let sent = sent.iter().filter(|_| self.compresses);
        sent.zip(0..)
            .map(|(sent, place)| {
                let percent = (request.0 * 31 + place).wrapping_mul(0x9e37_79b9) % 101;
                BATCH_OVERHEAD + sent.batch.bytes * percent as usize / 100
            })
            .collect()
    }

    fn send(&mut self, conn: ConnId, request: RequestId) -> Result<(), String> {
        let sent = self.producer.request(conn, request);
        if sent.is_empty() {
            return Err("an empty Produce request".into());
        }
        let mut partitions = HashSet::new();
        let mut batches = Vec::new();
        let sizes = self.compressed_sizes(request, sent);
        self.producer.handle_encoded(self.now, conn, request, &sizes);
        let sent = self.producer.request(conn, request);
        let bytes = request_bytes(sent);
        let parts: Vec<bool> = sent.iter().map(|sent| sent.batch.is_part()).collect();
        for sent in sent {
            if !partitions.insert((sent.topic, sent.partition)) {
                return Err("a partition twice in a request".into());
            }
            let topic = if self.by_id && !sent.topic_id.is_nil() {
                ProducedTopicRef::Id(sent.topic_id)
            } else {
                ProducedTopicRef::Name(self.producer.topic_name(sent.topic).to_owned())
            };
            let records: Vec<RecordId> =
                sent.batch.records.iter().map(|record| record.id).collect();
            batches.push((topic, sent.partition, sent.batch.stamp, records));
        }
        self.tell(|| format!("{conn:?} sends {batches:?}"));
        // On record before it is sent.
        for ((_, partition, stamp, records), is_part) in batches.iter().zip(parts) {
            let Some(stamp) = stamp else {
                records.iter().for_each(|id| self.ledger.sent_plain(*id));
                continue;
            };
            for (index, id) in records.iter().enumerate() {
                if self.may_crash() {
                    self.torn |=
                        records.iter().any(|id| self.ledger.first_producer_id(*id).is_some());
                    self.crash();
                    return Ok(());
                }
                let stamp =
                    Stamp::of_record(*stamp, *partition, index, records.len()).part(is_part);
                if !is_seeded(Bug::StampNotKept) {
                    self.ledger.stamp(*id, stamp);
                }
            }
        }
        if self.may_crash() {
            self.crash();
            return Ok(());
        }
        if self.acks_none {
            self.producer.handle_written(self.now, conn, request);
        }
        let delay = self.cluster.delay();
        if self.cut.contains(&conn) {
            return Ok(());
        }
        if self.cluster.chance(self.cluster.faults.lose_request) {
            // Nothing that is sent after it arrives.
            self.cut.insert(conn);
            self.on_wire(conn, false, delay, Event::Broken(conn));
        } else {
            self.on_wire(conn, false, delay, Event::ProduceArrives(conn, request, batches, bytes));
        }
        Ok(())
    }
}

#[test]
fn every_record_has_one_fate_and_partitions_keep_their_order_under_faults() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let one = number("LKFK_SIM_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..number("LKFK_SIM_SEEDS").unwrap_or(5_000),
    };
    for seed in seeds {
        let sim = Sim { told: one.is_some(), ..Sim::new(seed) };
        if let Err(wrong) = sim.run() {
            panic!("seed {seed}: {wrong}\nrepeat it with: make sim SEED={seed}");
        }
    }
}

#[test]
fn seeded_bugs_are_found() {
    const SEEDS: u64 = 30_000;
    let missed = BUGS.iter().filter(|bug| {
        seeded_bug::seed(Some(**bug));
        let found = (0..SEEDS).find(|seed| {
            let run = std::panic::catch_unwind(|| Sim::new(*seed).run());
            !matches!(run, Ok(Ok(())))
        });
        seeded_bug::seed(None);
        println!("{bug:?}: {}", found.map_or("missed".into(), |seed| format!("seed {seed}")));
        found.is_none()
    });
    assert_eq!(missed.collect::<Vec<_>>(), Vec::<&Bug>::new());
}
