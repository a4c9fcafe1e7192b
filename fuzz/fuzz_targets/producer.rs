//! Drives the producer with arbitrary calls, in any order, sensible or not: no panic, no end in sight for
//! nobody, and each record that was handed in comes out exactly once.
//!
//! The input is a list of operations of a byte and what each needs. Run with
//! `cargo +nightly fuzz run producer`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lkfk::internals::config::{Config, HostPort};
use lkfk::internals::producer::{
    Action, ConnId, NewRecord, Producer, Record, RecordId, RequestId, Rules, Time, TopicId,
};
use lkfk::internals::protocol::error_code::ErrorCode;
use lkfk::internals::protocol::metadata::{
    BrokerMetadata, MetadataResponse, PartitionMetadata, TopicMetadata,
};
use lkfk::internals::protocol::produce::{
    LeaderHint, ProduceResponse, ProducedPartition, ProducedTopic, ProducedTopicRef, RecordError,
};
use std::collections::HashSet;
use std::time::Duration;
use uuid::Uuid;

const TOPICS: [&str; 3] = ["a", "b", "c"];
/// Actions that one call may cause before it counts as a loop: a request for each record, and a connection
/// for each broker, several times over.
const ACTIONS: usize = 10_000;

struct Run<'a> {
    input: &'a [u8],
    now: Time,
    producer: Producer,
    records: u64,
    held: HashSet<RecordId>,
    connections: Vec<ConnId>,
    metadata: Vec<(ConnId, RequestId)>,
    requests: Vec<(ConnId, RequestId)>,
}

impl Run<'_> {
    fn byte(&mut self) -> u8 {
        let [byte, rest @ ..] = self.input else { return 0 };
        self.input = rest;
        *byte
    }

    /// One of those there are, or one that never was.
    fn pick<T: Copy>(&mut self, of: impl Fn(&Self) -> &[T], strange: impl Fn(u8) -> T) -> T {
        let byte = self.byte();
        match of(self).len() {
            len if byte < 240 && len > 0 => of(self)[usize::from(byte) % len],
            _ => strange(byte),
        }
    }

    fn connection(&mut self) -> ConnId {
        self.pick(|run| &run.connections, |byte| ConnId(u64::from(byte)))
    }

    fn answered(&mut self, of: fn(&Self) -> &[(ConnId, RequestId)]) -> (ConnId, RequestId) {
        self.pick(of, |byte| (ConnId(u64::from(byte) / 16), RequestId(u64::from(byte) % 16)))
    }

    fn code(&mut self) -> ErrorCode {
        match self.byte() {
            byte @ 0..=160 => ErrorCode(i16::from(byte) - 1),
            // Mostly none.
            _ => ErrorCode::NONE,
        }
    }

    /// A number near zero, and now and then one that is not.
    fn index(&mut self) -> i32 {
        match self.byte() {
            byte @ 0..=250 => i32::from(byte % 6) - 1,
            byte => [i32::MIN, i32::MAX, -2, 1000, 255][usize::from(byte - 251)],
        }
    }

    fn name(&mut self) -> String {
        let byte = usize::from(self.byte());
        TOPICS.get(byte % 4).copied().unwrap_or("other").to_owned()
    }

    fn id(&mut self) -> Uuid {
        Uuid::from_bytes([self.byte() % 4; 16])
    }

    fn list<T>(&mut self, most: u8, mut element: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let len = self.byte() % (most + 1);
        (0..len).map(|_| element(self)).collect()
    }

    fn metadata_answer(&mut self) -> MetadataResponse {
        MetadataResponse {
            error: self.code(),
            throttle_ms: self.index(),
            brokers: self.list(4, |run| BrokerMetadata {
                id: run.index(),
                host: ["h", "", "other", "h\0"][usize::from(run.byte() % 4)].to_owned(),
                port: run.index(),
                rack: None,
            }),
            cluster_id: None,
            controller_id: self.index(),
            topics: self.list(4, |run| TopicMetadata {
                error: run.code(),
                name: run.name(),
                id: run.id(),
                partitions: run.list(5, |run| PartitionMetadata {
                    error: run.code(),
                    index: run.index(),
                    leader: run.index(),
                    leader_epoch: run.index(),
                }),
            }),
        }
    }

    fn produce_answer(&mut self) -> ProduceResponse {
        ProduceResponse {
            throttle_ms: self.index(),
            topics: self.list(4, |run| ProducedTopic {
                topic: match run.byte() % 2 {
                    0 => ProducedTopicRef::Name(run.name()),
                    _ => ProducedTopicRef::Id(run.id()),
                },
                partitions: run.list(4, |run| ProducedPartition {
                    index: run.index(),
                    error: run.code(),
                    base_offset: i64::from(run.index()),
                    log_append_time_ms: -1,
                    error_message: None,
                    record_errors: run
                        .list(3, |run| RecordError { batch_index: run.index(), message: None }),
                    current_leader: match run.byte() % 4 {
                        0 => Some(LeaderHint { id: run.index(), epoch: run.index() }),
                        _ => None,
                    },
                }),
            }),
            node_endpoints: Vec::new(),
        }
    }

    fn record(&mut self) {
        let topic = self.byte() % TOPICS.len() as u8;
        let topic: TopicId = self.producer.topic(self.now, TOPICS[usize::from(topic)]);
        let id = RecordId(self.records);
        self.records += 1;
        let record = Record {
            id,
            key_hash: Some(u32::from(self.byte())).filter(|hash| *hash < 128),
            partition: u32::try_from(self.index()).ok(),
            bytes: u32::from(self.byte()) * 8,
            born: Time(self.now.0.saturating_sub(u64::from(self.byte()) * 10_000)),
        };
        self.held.insert(id);
        self.producer.handle_record(self.now, NewRecord { topic, record });
    }

    fn operate(&mut self) {
        match self.byte() % 12 {
            0 | 1 => self.record(),
            2 => {
                let conn = self.connection();
                self.producer.handle_connected(self.now, conn);
            }
            3 => {
                let conn = self.connection();
                self.connections.retain(|other| *other != conn || conn.0 % 4 == 0);
                self.producer.handle_closed(self.now, conn);
            }
            4 => {
                let (conn, request) = self.answered(|run| &run.requests);
                self.producer.handle_written(self.now, conn, request);
            }
            5 | 6 => {
                let (conn, request) = self.answered(|run| &run.requests);
                let answer = self.produce_answer();
                self.producer.handle_produced(self.now, conn, request, &answer);
            }
            7 | 8 => {
                let (conn, request) = self.answered(|run| &run.metadata);
                let answer = self.metadata_answer();
                self.producer.handle_metadata(self.now, conn, request, &answer);
            }
            9 => self.producer.handle_flush(self.now),
            10 => {
                self.now = self.now + Duration::from_millis(u64::from(self.byte()) * 4);
                self.producer.handle_timeout(self.now);
            }
            _ => {
                if let Some(at) = self.producer.next_deadline() {
                    self.now = self.now.max(at);
                    self.producer.handle_timeout(self.now);
                }
            }
        }
        self.poll();
    }

    fn poll(&mut self) {
        let mut actions = 0;
        while let Some(action) = self.producer.poll(self.now) {
            actions += 1;
            assert!(actions < ACTIONS, "no end to {action:?}");
            match action {
                Action::Connect { conn, address, .. } => {
                    assert!(!address.host.is_empty() && address.port > 0);
                    self.connections.push(conn);
                }
                Action::Close { conn, .. } => self.connections.retain(|other| *other != conn),
                Action::Metadata { conn, request } => self.metadata.push((conn, request)),
                Action::Produce { conn, request } => {
                    let sent = self.producer.request(conn, request);
                    assert!(!sent.is_empty(), "a request without batches");
                    for sent in sent {
                        assert!(!sent.batch.records.is_empty(), "a batch without records");
                        assert!(sent.batch.records.iter().all(|r| self.held.contains(&r.id)));
                    }
                    self.requests.push((conn, request));
                }
                // Others carry nothing that this checks.
                #[allow(unreachable_patterns)]
                _ => {}
            }
        }
        while let Some(outcome) = self.producer.poll_outcome() {
            for record in outcome.records {
                assert!(self.held.remove(&record.id), "{:?} comes out twice", record.id);
            }
        }
        while self.producer.poll_notice().is_some() {}
        assert_eq!(self.producer.held_records(), self.held.len() as u64);
        assert!(self.producer.in_flight_records() <= self.producer.held_records());
    }

    /// Nobody answers any more: what is left is given up when its time is over.
    fn end(&mut self) {
        for _ in 0..1000 {
            if self.held.is_empty() {
                return;
            }
            for conn in std::mem::take(&mut self.connections) {
                self.producer.handle_closed(self.now, conn);
            }
            let next = self.producer.next_deadline().expect("something is due for what is held");
            self.now = self.now.max(next);
            self.producer.handle_timeout(self.now);
            self.poll();
        }
        panic!("{} records are held for ever", self.held.len());
    }
}

fuzz_target!(|input: &[u8]| {
    let mut rules = Rules::from(&Config::default());
    rules.bootstrap = ["x", "y"].map(|host| HostPort { host: host.into(), port: 9092 }).to_vec();
    rules.batch_records = 3;
    rules.batch_bytes = 2_000;
    rules.linger = Duration::from_millis(20);
    rules.message_timeout = Duration::from_secs(2);
    rules.request_timeout = Duration::from_millis(300);
    if let [first, ..] = input {
        rules.acks = [1, 0, -1, 1][usize::from(first % 4)];
        rules.max_retries = u32::from(first / 4 % 4);
        rules.max_in_flight = 1 + usize::from(first / 16 % 3);
    }
    let mut run = Run {
        input: input.get(1..).unwrap_or_default(),
        now: Time(1_000_000),
        producer: Producer::new(rules, 7),
        records: 0,
        held: HashSet::new(),
        connections: Vec::new(),
        metadata: Vec::new(),
        requests: Vec::new(),
    };
    run.poll();
    while !run.input.is_empty() {
        run.operate();
    }
    run.end();
});
