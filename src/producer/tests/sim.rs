//! The producer against the model cluster under faults drawn from a seed. After every run:
//! - each record that was handed in had exactly one fate;
//! - a delivered record is in the log of a partition of its topic; one that failed without doubt is not;
//! - no log holds a record of another topic;
//! - in each partition, delivered records stand in the order in which they were handed in.
//!
//! `LKFK_SIM_SEEDS=N` sets how many seeds run, `LKFK_SIM_SEED=N` repeats one.

use super::cluster::{Answer, Cluster, Faults, ModelTopic};
use super::*;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};

enum Event {
    Record,
    Flush,
    Connected(ConnId),
    Refused(ConnId),
    /// A connection breaks.
    Broken(ConnId),
    ProduceArrives(ConnId, RequestId, Vec<(String, u32, Vec<RecordId>)>),
    Produced(ConnId, RequestId, ProduceResponse),
    MetadataArrives(ConnId, RequestId),
    Metadata(ConnId, RequestId, MetadataResponse),
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
    /// Open connections and the broker behind each; `None` once broken.
    open: HashMap<ConnId, BrokerId>,
    topics: Vec<TopicId>,
    handed_in: Vec<(RecordId, TopicId)>,
    fates: HashMap<RecordId, (u32, Fate)>,
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
            lose_request: pick(&mut random, &[0, 10, 100]),
            lose_answer: pick(&mut random, &[0, 10, 100]),
            swallow_answer: pick(&mut random, &[0, 0, 20]),
            error_before_append: pick(&mut random, &[0, 20, 200]),
            error_after_append: pick(&mut random, &[0, 20, 200]),
            fatal_error: pick(&mut random, &[0, 0, 10]),
            record_error: pick(&mut random, &[0, 0, 30]),
            metadata_error: pick(&mut random, &[0, 50]),
            metadata_partial: pick(&mut random, &[0, 0, 300]),
            connect_fails: pick(&mut random, &[0, 50, 300]),
            throttle: pick(&mut random, &[0, 0, 100]),
            latency: pick(&mut random, &[500, 20_000, 400_000]),
            slow: pick(&mut random, &[0, 0, 20]),
        };
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
            }
        });
        let topics: Vec<ModelTopic> = topics.collect();
        let rules = Rules {
            acks: if random.below(10) == 0 { 0 } else { 1 },
            linger: Duration::from_millis(pick(&mut random, &[0, 5, 200, 2000])),
            message_timeout: Duration::from_millis(pick(&mut random, &[700, 5000, 60_000])),
            request_timeout: Duration::from_millis(pick(&mut random, &[300, 5000])),
            batch_records: pick(&mut random, &[1, 3, 20, 500]) as usize,
            batch_bytes: pick(&mut random, &[1024, 100_000]) as usize,
            max_retries: pick(&mut random, &[0, 2, 1000]) as u32,
            max_in_flight: pick(&mut random, &[1, 5]) as usize,
            ..super::rules()
        };
        let acks_none = rules.acks == 0;
        let mut sim = Sim {
            now: Time(0),
            producer: Producer::new(rules, seed ^ 1),
            cluster: Cluster {
                max_records: pick(&mut random, &[1, 7, 1000, 1000]) as usize,
                topics_exist_from: Time(pick(&mut random, &[0, 0, 900_000])),
                random: Random::new(seed ^ 2),
                faults,
                up: (1..=brokers).map(|id| (id, true)).collect(),
                topics,
            },
            events: BinaryHeap::new(),
            payloads: Vec::new(),
            open: HashMap::new(),
            topics: Vec::new(),
            handed_in: Vec::new(),
            fates: HashMap::new(),
            records_left: 20 + random.below(300),
            gap: pick(&mut random, &[10, 1_000, 50_000]),
            keys: 1 + random.below(20),
            steps: 0,
            acks_none,
        };
        let names: Vec<String> = sim.cluster.topics.iter().map(|t| t.name.clone()).collect();
        sim.topics = names.iter().map(|name| sim.producer.topic(Time(0), name)).collect();
        sim.at(Duration::from_micros(1), Event::Record);
        for _ in 0..random.below(6) {
            let at = Duration::from_micros(random.below(10_000_000));
            let broker = 1 + random.below(brokers as u64) as i32;
            match random.below(4) {
                0 => sim.at(at, Event::BrokerDown(broker)),
                1 => sim.at(at, Event::Flush),
                _ => sim.at(at, Event::MoveLeader),
            }
        }
        sim.at(Duration::from_secs(15), Event::Heal);
        sim
    }

    fn at(&mut self, after: Duration, event: Event) {
        let index = self.payloads.len();
        self.payloads.push(Some(event));
        self.events.push(Reverse((self.now + after, index as u64, index)));
    }

    /// Runs to the end and returns what is wrong, if anything is.
    fn run(mut self) -> Result<(), String> {
        loop {
            self.settle()?;
            self.steps += 1;
            if self.steps > 200_000 {
                return Err("no end in sight: the producer keeps itself busy".into());
            }
            let done = self.records_left == 0 && self.fates.len() == self.handed_in.len();
            if done {
                break;
            }
            let event = self.events.peek().map(|Reverse((at, ..))| *at);
            let deadline = self.producer.next_deadline();
            let Some(next) = [event, deadline].into_iter().flatten().min() else {
                return Err("records wait and nothing is due".into());
            };
            if next > Time(200_000_000) {
                return Err(format!(
                    "{} of {} records have no fate after 200 s",
                    self.handed_in.len() - self.fates.len(),
                    self.handed_in.len()
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
                let Some(&broker) = self.open.get(&conn) else { return };
                if !self.cluster.up[&broker] {
                    return;
                }
                let delay = self.cluster.delay();
                match self.cluster.produce(broker, &batches) {
                    Answer::Now(response) if !self.acks_none => {
                        self.at(delay, Event::Produced(conn, request, response));
                    }
                    Answer::Break => self.at(delay, Event::Broken(conn)),
                    _ => {}
                }
            }
            Event::Produced(conn, request, response) => {
                if self.open.contains_key(&conn) {
                    self.producer.handle_produced(now, conn, request, &response);
                }
            }
            Event::MetadataArrives(conn, request) => {
                let Some(&broker) = self.open.get(&conn) else { return };
                if self.cluster.up[&broker] {
                    let response = self.cluster.metadata(now, broker);
                    let delay = self.cluster.delay();
                    self.at(delay, Event::Metadata(conn, request, response));
                }
            }
            Event::Metadata(conn, request, response) => {
                if self.open.contains_key(&conn) {
                    self.producer.handle_metadata(now, conn, request, &response);
                }
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

    fn hand_in(&mut self) {
        let topic = self.topics[self.cluster.random.below(self.topics.len() as u64) as usize];
        let id = RecordId(self.handed_in.len() as u64);
        let key = self.cluster.random.below(self.keys);
        let key_hash = (key > 0).then_some(key as u32 * 7919);
        let bytes = 20 + self.cluster.random.below(300) as u32;
        let age = self.cluster.random.below(1000).min(self.now.0);
        let born = Time(self.now.0 - age);
        self.handed_in.push((id, topic));
        // Now and then a partition is given, also one that does not exist.
        let wish = self.cluster.random.below(20) as u32;
        let partition = (wish < 5).then_some(wish);
        let record = NewRecord { id, topic, key_hash, partition, bytes, born };
        self.producer.handle_record(self.now, record);
        self.records_left -= 1;
        if self.records_left > 0 {
            let gap = self.cluster.random.below(self.gap + 1);
            self.at(Duration::from_micros(gap), Event::Record);
        }
    }

    /// Carries out what the producer asks for and notes what it reports.
    fn settle(&mut self) -> Result<(), String> {
        let mut actions = 0;
        while let Some(action) = self.producer.poll(self.now) {
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
                        self.at(delay, Event::Connected(conn));
                    }
                }
                Action::Close { conn, .. } => {
                    self.open.remove(&conn);
                }
                Action::Metadata { conn, request } => {
                    let delay = self.cluster.delay();
                    self.at(delay, Event::MetadataArrives(conn, request));
                }
                Action::Produce { conn, request } => self.send(conn, request)?,
            }
        }
        while let Some(outcome) = self.producer.poll_outcome() {
            for record in &outcome.records {
                let first = self.fates.insert(record.id, (outcome.topic.0, outcome.fate));
                if first.is_some() {
                    return Err(format!("{:?} has two fates", record.id));
                }
            }
        }
        while self.producer.poll_notice().is_some() {}
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
            let records = sent.batch.records.iter().map(|record| record.id).collect();
            batches.push((name, sent.partition, records));
        }
        if self.acks_none {
            self.producer.handle_written(self.now, conn, request);
        }
        let delay = self.cluster.delay();
        if self.cluster.chance(self.cluster.faults.lose_request) {
            self.at(delay, Event::Broken(conn));
        } else {
            self.at(delay, Event::ProduceArrives(conn, request, batches));
        }
        Ok(())
    }

    fn judge(&self) -> Result<(), String> {
        let mut logged: HashMap<RecordId, u32> = HashMap::new();
        for (index, topic) in self.cluster.topics.iter().enumerate() {
            for log in &topic.logs {
                let mut seen = HashSet::new();
                let mut last: BTreeMap<u32, RecordId> = BTreeMap::new();
                for id in log {
                    if self.handed_in[id.0 as usize].1 != self.topics[index] {
                        return Err(format!("{id:?} is in the log of another topic"));
                    }
                    logged.insert(*id, index as u32);
                    let delivered = matches!(self.fates[id].1, Fate::Delivered);
                    if !seen.insert(*id) || !delivered || self.acks_none {
                        continue;
                    }
                    if let Some(last) = last.insert(0, *id)
                        && last > *id
                    {
                        return Err(format!("{id:?} stands after {last:?}"));
                    }
                }
            }
        }
        for (id, _) in &self.handed_in {
            match self.fates[id].1 {
                Fate::Delivered if !self.acks_none && !logged.contains_key(id) => {
                    return Err(format!("{id:?} counts as delivered and is in no log"));
                }
                Fate::Failed { reason, in_doubt: false } if logged.contains_key(id) => {
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
    let seeds = match number("LKFK_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LKFK_SIM_SEEDS").unwrap_or(2_000),
    };
    for seed in seeds {
        if let Err(wrong) = Sim::new(seed).run() {
            panic!(
                "seed {seed}: {wrong}\nrepeat it with: LKFK_SIM_SEED={seed} cargo test \
                 --no-default-features --lib producer::tests::sim"
            );
        }
    }
}
