//! The producer against the model cluster under faults drawn from a seed. Its owner is killed now and then,
//! also between two stamps or two done marks, and the next one goes on with what the [`Ledger`] has. After
//! every run:
//! - each record that was handed in had exactly one fate;
//! - a delivered record is in the log of a partition of its topic; one that failed without doubt is not;
//! - no log holds a record of another topic;
//! - in each partition, delivered records stand in the order in which they were handed in;
//! - with idempotence no log holds a record twice, nor out of order, unless a broker forgot its producers or a
//!   topic was made anew.
//!
//! An owner that starts after a kill has a file of its own, and adopts its predecessors' while it is at work. It
//! may have other rules than they had.
//!
//! `LKFK_SIM_SEEDS=N` sets how many seeds run, `LKFK_SIM_SEED=N` repeats one and tells what happens.

use super::cluster::{Answer, Cluster, Faults, ModelBatch, ModelTopic};
use super::ledger::{Ledger, number};
use super::*;
use crate::protocol::init_producer_id::InitProducerIdResponse;
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
    ProduceArrives(ConnId, RequestId, Vec<ModelBatch>),
    Produced(ConnId, RequestId, ProduceResponse),
    MetadataArrives(ConnId, RequestId),
    Metadata(ConnId, RequestId, MetadataResponse),
    ProducerIdArrives(ConnId, RequestId),
    ProducerId(ConnId, RequestId, InitProducerIdResponse),
    /// The producer's owner is killed, or its driver starts over.
    Crash,
    /// The owner finds a file that a dead one left.
    Adopt(u16),
    /// A topic is deleted and made anew, with so many partitions.
    Recreate(usize, usize),
    BrokerDown(BrokerId),
    BrokerUp(BrokerId),
    MoveLeader,
    Elect,
    /// All faults end.
    Heal,
}

struct Sim {
    now: Time,
    producer: Producer,
    cluster: Cluster,
    events: BinaryHeap<Reverse<(Time, u64, usize)>>,
    payloads: Vec<Option<Event>>,
    rules: Rules,
    /// How many owners there were.
    lives: u64,
    /// The owner's file, and those that it adopted.
    files: Vec<u16>,
    /// All owners number what they send.
    idempotent: bool,
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
    /// What happens is printed.
    told: bool,
    /// Connections on which nothing arrives any more.
    cut: HashSet<ConnId>,
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
    fn new(seed: u64) -> Sim {
        let mut random = Random::new(seed);
        let pick = |random: &mut Random, of: &[u64]| of[random.below(of.len() as u64) as usize];
        let faults = Faults {
            late: pick(&mut random, &[0, 500]),
            lose_request: pick(&mut random, &[0, 10, 100]),
            lose_answer: pick(&mut random, &[0, 10, 100]),
            swallow_answer: pick(&mut random, &[0, 0, 20]),
            error_before_append: pick(&mut random, &[0, 20, 200]),
            error_after_append: pick(&mut random, &[0, 20, 200]),
            forget_producers: pick(&mut random, &[0, 0, 0, 50]),
            snapshot: pick(&mut random, &[0, 0, 100]),
            metadata_behind: pick(&mut random, &[0, 0, 200, 900]),
            no_producer_id: pick(&mut random, &[0, 300]),
            fatal_error: pick(&mut random, &[0, 0, 10]),
            record_error: pick(&mut random, &[0, 0, 30]),
            metadata_error: pick(&mut random, &[0, 50]),
            metadata_partial: pick(&mut random, &[0, 0, 300]),
            connect_fails: pick(&mut random, &[0, 50, 300]),
            throttle: pick(&mut random, &[0, 0, 100]),
            latency: pick(&mut random, &[500, 20_000, 400_000]),
            slow: pick(&mut random, &[0, 0, 20]),
        };
        let forgetful = faults.forget_producers > 0;
        let topics_stay = faults.metadata_partial + faults.metadata_behind == 0;
        let appends_fail = faults.error_after_append > 0;
        let any_error = random.below(6) == 0;
        let refusals = any_error || faults.fatal_error + faults.record_error > 0;
        let brokers = 1 + random.below(3) as i32;
        let topics = (0..1 + random.below(3)).map(|index| {
            let partitions = 1 + random.below(4) as usize;
            let leaders = (0..partitions)
                .map(|_| (Some(1 + random.below(brokers as u64) as i32), 0))
                .collect();
            ModelTopic {
                name: format!("t{index}"),
                id: [index as u8 + 1; 16],
                leaders,
                logs: vec![Vec::new(); partitions],
                producers: vec![Default::default(); partitions],
            }
        });
        let topics: Vec<ModelTopic> = topics.collect();
        let rules = Rules {
            acks: pick(&mut random, &[0, 1, 1, 1, 1]) as i16,
            linger: Duration::from_millis(pick(&mut random, &[0, 5, 200, 2000])),
            message_timeout: Duration::from_millis(pick(&mut random, &[700, 5000, 60_000])),
            request_timeout: Duration::from_millis(pick(&mut random, &[300, 5000])),
            batch_records: pick(&mut random, &[1, 3, 20, 500]) as usize,
            batch_bytes: pick(&mut random, &[1024, 100_000]) as usize,
            max_retries: pick(&mut random, &[0, 2, 1000]) as u32,
            max_in_flight: pick(&mut random, &[1, 5]) as usize,
            metadata_refresh: Duration::from_millis(pick(&mut random, &[60_000, 300])),
            ..super::rules()
        };
        let acks_none = rules.acks == 0;
        let idempotent = !acks_none && random.below(2) == 0;
        let rules = Rules {
            idempotence: if idempotent { Idempotence::Required } else { Idempotence::Off },
            ..rules
        };
        let mut sim = Sim {
            now: Time(0),
            producer: Producer::new(rules.clone(), seed ^ 1),
            rules,
            lives: 0,
            files: vec![0],
            idempotent,
            torn: false,
            refusals,
            cluster: Cluster {
                max_records: pick(&mut random, &[1, 7, 1000, 1000]) as usize,
                topics_exist_from: Time(pick(&mut random, &[0, 0, 900_000])),
                random: Random::new(seed ^ 2),
                faults,
                forgot: false,
                snapshots: false,
                remembers: pick(&mut random, &[5, 5, 5, 1]) as usize,
                old_rules: forgetful || random.below(3) == 0,
                any_error,
                graveyard: Vec::new(),
                next_producer_id: 100,
                first_epoch: pick(&mut random, &[0, 0, 32_766]) as i16,
                up: (1..=brokers).map(|id| (id, true)).collect(),
                topics,
            },
            events: BinaryHeap::new(),
            payloads: Vec::new(),
            open: HashMap::new(),
            led_to: HashMap::new(),
            arrivals: HashMap::new(),
            ledger: Ledger::default(),
            told: false,
            cut: HashSet::new(),
            mute: HashSet::new(),
            appends_fail,
            topics_stay,
            topics_shrank: false,
            late: false,
            crash_within: pick(&mut random, &[0, 0, 5, 50]),
            crashes_left: 10,
            records_left: 20 + random.below(300),
            gap: pick(&mut random, &[10, 1_000, 50_000]),
            keys: 1 + random.below(20),
            steps: 0,
            acks_none,
        };
        if pick(&mut random, &[0, 0, 1]) == 1 && !sim.cluster.old_rules {
            sim.producer.begin_sequences_at(i32::MAX - 20);
        }
        sim.refusals |= sim.cluster.max_records < sim.rules.batch_records;
        sim.name_topics();
        sim.at(Duration::from_micros(1), Event::Record);
        for _ in 0..random.below(6) {
            let at = Duration::from_micros(random.below(10_000_000));
            let broker = 1 + random.below(brokers as u64) as i32;
            match random.below(6) {
                5 if random.below(4) == 0 => {
                    let topic = random.below(sim.cluster.topics.len() as u64) as usize;
                    sim.at(at, Event::Recreate(topic, 1 + random.below(4) as usize));
                }
                4 | 5 => sim.at(at, Event::Crash),
                0 => sim.at(at, Event::BrokerDown(broker)),
                1 => sim.at(at, Event::Flush),
                _ => sim.at(at, Event::MoveLeader),
            }
        }
        for _ in 0..random.below(4) {
            sim.at(Duration::from_micros(random.below(10_000_000)), Event::Evict);
        }
        sim.at(Duration::from_secs(15), Event::Heal);
        sim
    }

    fn at(&mut self, after: Duration, event: Event) {
        let index = self.payloads.len();
        self.payloads.push(Some(event));
        self.events.push(Reverse((self.now + after, index as u64, index)));
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

    /// The next owner may have another configuration.
    fn change_rules(&mut self) {
        if self.acks_none || self.cluster.chance(500) {
            return;
        }
        let random = &mut self.cluster.random;
        let mut pick = |of: &[u64]| of[random.below(of.len() as u64) as usize];
        self.rules.batch_records = pick(&[1, 3, 20, 500]) as usize;
        self.rules.batch_bytes = pick(&[1024, 100_000]) as usize;
        self.rules.max_in_flight = pick(&[1, 5]) as usize;
        self.rules.max_retries = pick(&[0, 2, 1000]) as u32;
        self.rules.message_timeout = Duration::from_millis(pick(&[700, 5000, 60_000]));
        self.rules.idempotence =
            if pick(&[0, 1, 1, 1]) == 1 { Idempotence::Required } else { Idempotence::Off };
        self.idempotent &= self.rules.idempotence != Idempotence::Off;
        self.refusals |= self.cluster.max_records < self.rules.batch_records;
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
            let deadline = self.producer.next_deadline();
            let Some(next) = [event, deadline].into_iter().flatten().min() else {
                return Err("records wait and nothing is due".into());
            };
            // Each owner gives what it finds all of its time anew.
            if next > Time(200_000_000 + self.lives * 70_000_000) {
                return Err(format!(
                    "{} of {} records have no fate in time",
                    self.ledger.open(),
                    self.ledger.len()
                ));
            }
            self.now = self.now.max(next);
            if event.is_some_and(|at| at <= self.now) {
                let Some(Reverse((_, _, index))) = self.events.pop() else { continue };
                if let Some(event) = self.payloads[index].take() {
                    self.happen(event);
                }
            } else {
                self.producer.handle_timeout(self.now);
            }
        }
        self.judge()
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
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
            Event::Refused(conn) => self.producer.handle_closed(now, conn),
            Event::Broken(conn) => {
                if self.open.remove(&conn).is_some() {
                    self.producer.handle_closed(now, conn);
                }
            }
            Event::ProduceArrives(conn, request, batches) => {
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
                self.tell(|| format!("{conn:?} arrives {batches:?}"));
                let delay = self.cluster.delay();
                match self.cluster.produce(broker, &batches) {
                    Answer::Now(response) if !self.acks_none => {
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
            Event::MetadataArrives(conn, request) => {
                let Some(&broker) = self.open.get(&conn) else { return };
                if self.cluster.up[&broker] {
                    let response = self.cluster.metadata(now, broker);
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
                    self.open.remove(&conn);
                    self.producer.handle_closed(now, conn);
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
            Event::Heal => {
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

    fn hand_in(&mut self) {
        let topic = TopicId(self.cluster.random.below(self.cluster.topics.len() as u64) as u32);
        let file = u64::from(self.files[0]);
        let id = RecordId(file << RecordId::POSITION_BITS | self.ledger.len() as u64);
        let key = self.cluster.random.below(self.keys);
        let key_hash = (key > 0).then_some(key as u32 * 7919);
        let bytes = 20 + self.cluster.random.below(300) as u32;
        let age = self.cluster.random.below(1000).min(self.now.0);
        let born = Time(self.now.0 - age);
        // Now and then a partition is given, also one that does not exist.
        let wish = self.cluster.random.below(20) as u32;
        let partition = (wish < 5).then_some(wish);
        let record = NewRecord { id, topic, key_hash, partition, bytes, born };
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
        while let Some((id, partition)) = self.producer.poll_choice() {
            self.ledger.assign(id, partition);
        }
        loop {
            // First of all, see the contract.
            self.note_outcomes()?;
            let Some(action) = self.producer.poll(self.now) else { break };
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
                Action::Close { conn, .. } => {
                    self.open.remove(&conn);
                }
                Action::Metadata { conn, request } => {
                    let delay = self.cluster.delay();
                    self.on_wire(conn, false, delay, Event::MetadataArrives(conn, request));
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

    fn note_outcomes(&mut self) -> Result<(), String> {
        while let Some(outcome) = self.producer.poll_outcome() {
            let sure = matches!(outcome.fate, Fate::Failed { in_doubt: false, .. });
            for record in outcome.records.iter().filter(|_| sure) {
                if !is_seeded(Bug::KeepFailedStamp) {
                    self.ledger.unstamp(record.id);
                }
            }
            for record in &outcome.records {
                if self.may_crash() {
                    // What was given up, and is not in the backup yet, is sent after what it came before.
                    self.torn |= sure;
                    self.crash();
                    break;
                }
                self.tell(|| format!("{:?} {:?}", record.id, outcome.fate));
                self.ledger.settle(record.id, outcome.fate)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, conn: ConnId, request: RequestId) -> Result<(), String> {
        let sent = self.producer.request(conn, request);
        if sent.is_empty() {
            return Err("an empty Produce request".into());
        }
        let mut partitions = HashSet::new();
        let mut batches = Vec::new();
        for sent in sent {
            if !partitions.insert((sent.topic, sent.partition)) {
                return Err("a partition twice in a request".into());
            }
            let name = self.producer.topic_ref(sent.topic).0.to_owned();
            let records: Vec<RecordId> =
                sent.batch.records.iter().map(|record| record.id).collect();
            batches.push((name, sent.partition, sent.batch.stamp, records));
        }
        self.tell(|| format!("{conn:?} sends {batches:?}"));
        // On record before it is sent.
        for (_, partition, stamp, records) in &batches {
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
                let stamp = Stamp::of_record(*stamp, *partition, index, records.len());
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
            self.on_wire(conn, false, delay, Event::ProduceArrives(conn, request, batches));
        }
        Ok(())
    }

    fn judge(&self) -> Result<(), String> {
        // Where a broker recognises the last batch alone, one in doubt is not told from one that is not there
        // when those that follow it are not in doubt, or lie in a file that another worker has. And what a dead
        // worker sent may arrive after one adopter closed the hole that made another send its part as new.
        let snapshots = self.cluster.snapshots;
        let forgetful = self.cluster.forgot
            || snapshots && (self.lives > 0 || self.appends_fail)
            || self.late && self.ledger.chains_cross();
        // An owner that is killed while it gives a refused batch other numbers or bounds leaves one that is
        // not whole. The next one sends it after those that are.
        let torn = self.torn || self.lives > 0 && self.refusals || self.topics_shrank;
        let mut logged: HashSet<RecordId> = HashSet::new();
        let topics = self.cluster.topics.iter().enumerate();
        let logs = topics.flat_map(|(index, topic)| topic.logs.iter().map(move |log| (index, log)));
        let dead = self.cluster.graveyard.iter().map(|(index, log)| (*index, log));
        for (index, log) in logs.chain(dead) {
            let mut seen = HashSet::new();
            let mut last: HashMap<(Option<i64>, u16), RecordId> = HashMap::new();
            for id in log {
                if self.ledger.topic(*id) != TopicId(index as u32) {
                    return Err(format!("{id:?} is in the log of another topic"));
                }
                let first = seen.insert(*id) && logged.insert(*id);
                let delivered = self.ledger.fate(*id) == Some(Fate::Delivered);
                if !first && !forgetful && !self.ledger.was_sent_plain(*id) {
                    return Err(format!("{id:?} is doubled"));
                }
                let quiet = delivered && !self.acks_none && !self.late && self.lives == 0;
                if !(first && (self.idempotent && !forgetful || quiet)) {
                    continue;
                }
                // Another owner may choose another partition for what was not sent yet, and goes on with its
                // own records meanwhile. So order holds between records of a file that one owner sent first.
                let stream = (self.ledger.first_producer_id(*id), id.queue());
                let last = last.entry(stream).or_insert(*id);
                if number(*last) > number(*id) && !forgetful && !torn {
                    return Err(format!("{id:?} stands after {last:?}"));
                }
                *last = *id;
            }
        }
        // A log that was made anew begins with any number, and then a dead worker's batches are not without gaps.
        let begins_anywhere = !self.cluster.graveyard.is_empty() && !self.cluster.old_rules;
        let anew = begins_anywhere && self.lives > 0;
        for id in self.ledger.ids() {
            match self.ledger.fate(id) {
                Some(Fate::Delivered) if !self.acks_none && !anew && !logged.contains(&id) => {
                    return Err(format!("{id:?} counts as delivered and is in no log"));
                }
                _ if logged.contains(&id)
                    && self.ledger.was_backed_up(id)
                    && !self.ledger.was_sent_plain(id)
                    && !forgetful =>
                {
                    return Err(format!("{id:?} is in a log and in the backup"));
                }
                Some(Fate::Failed { reason, in_doubt: true })
                    if self.idempotent
                        && self.lives == 0
                        && self.topics_stay
                        && !self.refusals
                        && !forgetful
                        && self.cluster.topics_exist_from == Time(0) =>
                {
                    return Err(format!("{id:?} was given up in doubt ({reason})"));
                }
                Some(Fate::Failed { reason, in_doubt: false })
                    if logged.contains(&id) && self.lives == 0 && !forgetful =>
                {
                    return Err(format!("{id:?} failed for sure ({reason}) and is in a log"));
                }
                _ => {}
            }
        }
        if self.producer.held_records() != 0 || self.producer.in_flight_records() != 0 {
            return Err(format!(
                "the producer counts {} held and {} in flight at the end",
                self.producer.held_records(),
                self.producer.in_flight_records()
            ));
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
    const SEEDS: u64 = 10_000;
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
