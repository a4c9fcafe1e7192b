//! What the examples are played on: a producer, a hand-driven clock, and answers written by hand.

use super::*;
use crate::protocol::metadata::{BrokerMetadata, PartitionMetadata, TopicMetadata};
use crate::protocol::produce::ProducedTopic;

/// A producer and what it asked for so far.
pub struct Stage {
    pub producer: Producer,
    pub now: Time,
    next_record: u64,
}

/// A Produce request as the test sees it: connection, request, topic, partition and record ids per batch.
pub type Seen = (ConnId, RequestId, Vec<(TopicId, u32, Vec<u64>)>);

impl Stage {
    pub fn new(rules: Rules) -> Stage {
        Stage { producer: Producer::new(rules, 1), now: Time(1_000_000), next_record: 0 }
    }

    /// Connected to broker 1, which leads all `partitions` of topic "t".
    pub fn ready(rules: Rules, partitions: i32) -> (Stage, TopicId) {
        let mut stage = Stage::new(rules);
        let topic = stage.producer.topic(stage.now, "t");
        let (boot, _) = stage.connect();
        assert_eq!(stage.connect_done(boot), [boot]);
        stage.answer_metadata(boot, &[(1, "b1")], &vec![Some(1); partitions as usize]);
        (stage, topic)
    }

    pub fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.producer.poll(self.now)).collect()
    }

    /// The connection it wants, and to whom.
    pub fn connect(&mut self) -> (ConnId, BrokerId) {
        let actions = self.actions();
        match &actions[..] {
            [.., Action::Connect { conn, broker, .. }] => (*conn, *broker),
            other => panic!("no connect but {other:?}"),
        }
    }

    /// Completes a connection; returns where metadata is asked for then.
    pub fn connect_done(&mut self, conn: ConnId) -> Vec<ConnId> {
        self.producer.handle_connected(self.now, conn);
        self.metadata_asked()
    }

    pub fn metadata_asked(&mut self) -> Vec<ConnId> {
        let asked = self.actions().into_iter().filter_map(|action| match action {
            Action::Metadata { conn, .. } => Some(conn),
            _ => None,
        });
        asked.collect()
    }

    /// Lets the periodic refresh come, over a new connection if need be; returns where it is asked for.
    pub fn refresh(&mut self) -> ConnId {
        self.refresh_after(Duration::from_secs(60))
    }

    /// The same for one that is due sooner.
    pub fn refresh_after(&mut self, pause: Duration) -> ConnId {
        self.pass(pause);
        for _ in 0..3 {
            for action in self.actions() {
                match action {
                    Action::Connect { conn, .. } => self.producer.handle_connected(self.now, conn),
                    Action::Metadata { conn, .. } => return conn,
                    _ => {}
                }
            }
        }
        panic!("metadata is not asked for");
    }

    /// Where metadata is asked for at the moment.
    pub fn asked(&self) -> Option<ConnId> {
        match &self.producer.metadata.refresh {
            Refresh::Asked(asked) => Some(asked.conn),
            Refresh::Idle | Refresh::Due => None,
        }
    }

    pub fn answer_metadata(
        &mut self,
        conn: ConnId,
        brokers: &[(i32, &str)],
        leaders: &[Option<i32>],
    ) {
        let error = ErrorCode::NONE;
        self.answer_metadata_with(conn, brokers, leaders, error, 0);
    }

    pub fn answer_metadata_with(
        &mut self,
        conn: ConnId,
        brokers: &[(i32, &str)],
        leaders: &[Option<i32>],
        error: ErrorCode,
        epoch: i32,
    ) {
        self.answer_metadata_of(Uuid::from_bytes([1; 16]), conn, brokers, leaders, (error, epoch));
    }

    /// Of a topic with this id.
    pub fn answer_metadata_of(
        &mut self,
        id: Uuid,
        conn: ConnId,
        brokers: &[(i32, &str)],
        leaders: &[Option<i32>],
        (error, epoch): (ErrorCode, i32),
    ) {
        let Refresh::Asked(asked) = &self.producer.metadata.refresh else {
            panic!("metadata is not asked for")
        };
        let request = asked.request;
        let partitions = leaders.iter().enumerate().map(|(index, leader)| PartitionMetadata {
            error: ErrorCode::NONE,
            index: index as i32,
            leader: leader.unwrap_or(-1),
            leader_epoch: epoch,
        });
        let response = MetadataResponse {
            error: ErrorCode::NONE,
            throttle_ms: 0,
            brokers: brokers
                .iter()
                .map(|(id, host)| BrokerMetadata {
                    id: *id,
                    host: (*host).into(),
                    port: 9092,
                    rack: None,
                })
                .collect(),
            cluster_id: None,
            controller_id: 1,
            topics: vec![TopicMetadata {
                error,
                name: "t".into(),
                id,
                partitions: partitions.collect(),
            }],
        };
        self.producer.handle_metadata(self.now, conn, request, &response);
    }

    pub fn log(&mut self, topic: TopicId, key: Option<&[u8]>) -> u64 {
        self.log_sized(topic, key, 100)
    }

    pub fn log_sized(&mut self, topic: TopicId, key: Option<&[u8]>, bytes: u32) -> u64 {
        let id = self.next_record;
        self.next_record += 1;
        let record = NewRecord {
            topic,
            record: Record {
                id: RecordId(id),
                key_hash: key.map(partitioner::key_hash),
                partition: None,
                bytes,
                born: self.now,
            },
        };
        self.producer.handle_record(self.now, record);
        id
    }

    pub fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        self.producer.handle_timeout(self.now);
    }

    /// The Produce requests it wants to send now; connections it asks for are made at once.
    pub fn requests(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        loop {
            let actions = self.actions();
            if actions.is_empty() {
                return seen;
            }
            for action in actions {
                match action {
                    Action::Connect { conn, .. } => self.producer.handle_connected(self.now, conn),
                    Action::Produce { conn, request } => {
                        let sent = self.producer.request(conn, request);
                        let batches = sent.iter().map(|sent| {
                            let ids = sent.batch.records.iter().map(|record| record.id.0);
                            (sent.topic, sent.partition, ids.collect())
                        });
                        seen.push((conn, request, batches.collect()));
                    }
                    _ => {}
                }
            }
        }
    }

    pub fn answer(
        &mut self,
        (conn, request, batches): &Seen,
        told: impl Fn(u32) -> ProducedPartition,
    ) {
        let partitions = batches.iter().map(|(_, partition, _)| told(*partition)).collect();
        self.answer_naming(ProducedTopicRef::Name("t".into()), (conn, request), partitions);
    }

    pub fn answer_naming(
        &mut self,
        topic: ProducedTopicRef,
        (conn, request): (&ConnId, &RequestId),
        partitions: Vec<ProducedPartition>,
    ) {
        let response = ProduceResponse {
            throttle_ms: 0,
            topics: vec![ProducedTopic { topic, partitions }],
            node_endpoints: Vec::new(),
        };
        self.producer.handle_produced(self.now, *conn, *request, &response);
    }

    pub fn outcomes(&mut self) -> Vec<(Vec<u64>, Delivery)> {
        let outcomes = std::iter::from_fn(|| self.producer.poll_outcome());
        outcomes
            .map(|o| {
                let delivery = if o.delivery.is_delivered() { DELIVERED } else { o.delivery };
                (o.records.iter().map(|r| r.id.0).collect(), delivery)
            })
            .collect()
    }
}

pub fn told(index: u32, error: ErrorCode) -> ProducedPartition {
    ProducedPartition {
        index: index as i32,
        error,
        base_offset: if error == ErrorCode::NONE { 0 } else { -1 },
        log_append_time_ms: -1,
        error_message: None,
        record_errors: Vec::new(),
        current_leader: None,
    }
}

pub fn failed(reason: Reason, in_doubt: bool) -> Delivery {
    Delivery::Failed { reason, in_doubt }
}

pub fn fast() -> Rules {
    Rules { linger: Duration::ZERO, ..rules() }
}

pub const SECOND: Duration = Duration::from_secs(1);
