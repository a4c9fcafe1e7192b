//! What the examples of idempotence are played with: a producer of one topic that gets what it asks for, and a
//! broker that keeps Kafka's rules for sequence numbers.

use super::cluster::{Answer, Cluster, Faults, ModelBatch, ModelTopic};
use super::sequences::{Memory, Sequences};
use super::stage::{SECOND, Stage, fast, told};
use super::*;
use crate::protocol::init_producer_id::InitProducerIdResponse;
use crate::protocol::produce::ProducedTopic;
use crate::protocol::record_batch::ProducerStamp;

/// A batch on its way: connection, request, stamp and records.
pub type OnWay = (ConnId, RequestId, Option<ProducerStamp>, Vec<u64>);

/// What a broker answers.
pub type Told = ProducedPartition;

/// A dead worker's producer id.
pub const DEAD: i64 = 70;

/// Rules with idempotence, and one record in a batch.
pub fn idempotent() -> Rules {
    let message_timeout = Duration::from_secs(10);
    Rules { idempotence: Idempotence::Required, batch_records: 1, message_timeout, ..fast() }
}

/// A producer that knows one topic of one partition and gets producer ids from 100 on.
pub struct Scene {
    pub stage: Stage,
    pub topic: TopicId,
    next_producer_id: i64,
    pub epoch: i16,
    /// Partitions that metadata shows; 0: it is not answered.
    pub partitions: usize,
}

impl Scene {
    pub fn new(rules: Rules) -> Scene {
        let (stage, topic) = Stage::ready(rules, 1);
        Scene { stage, topic, next_producer_id: 100, epoch: 0, partitions: 1 }
    }

    /// With one record delivered: the broker knows us, and several batches may be on the way.
    pub fn warm(rules: Rules) -> Scene {
        let mut scene = Scene::new(rules);
        let id = scene.log();
        let sent = scene.sent();
        assert_eq!(sent.len(), 1);
        scene.answer(&sent[0], ErrorCode::NONE);
        assert_eq!(scene.outcomes(), [(vec![id], DELIVERED)]);
        scene
    }

    pub fn log(&mut self) -> u64 {
        self.stage.log(self.topic, None)
    }

    /// Lets time pass, and what it asks for come true, except that nothing is answered.
    pub fn wait(&mut self, span: Duration) -> Vec<OnWay> {
        self.stage.pass(span);
        self.sent()
    }

    pub fn sent(&mut self) -> Vec<OnWay> {
        let mut sent = Vec::new();
        loop {
            let actions = self.stage.actions();
            if actions.is_empty() {
                return sent;
            }
            let now = self.stage.now;
            for action in actions {
                let producer = &mut self.stage.producer;
                match action {
                    Action::Connect { conn, .. } => producer.handle_connected(now, conn),
                    Action::Metadata { conn, .. } if self.partitions > 0 => {
                        let leaders = vec![Some(1); self.partitions];
                        self.stage.answer_metadata(conn, &[(1, "b1")], &leaders);
                    }
                    Action::InitProducerId { conn, request } => {
                        let response = InitProducerIdResponse {
                            throttle_ms: 0,
                            error: ErrorCode::NONE,
                            producer_id: self.next_producer_id,
                            epoch: self.epoch,
                        };
                        self.next_producer_id += 1;
                        producer.handle_producer_id(now, conn, request, &response);
                    }
                    Action::Produce { conn, request } => {
                        let batches = producer.request(conn, request);
                        assert_eq!(batches.len(), 1, "there is one partition");
                        let Batch { records, stamp, .. } = &batches[0].batch;
                        let ids = records.iter().map(|record| record.id.0).collect();
                        sent.push((conn, request, *stamp, ids));
                    }
                    _ => {}
                }
            }
        }
    }

    pub fn answer(&mut self, sent: &OnWay, error: ErrorCode) {
        self.answer_with(sent, told(0, error));
    }

    pub fn answer_with(&mut self, (conn, request, ..): &OnWay, told: Told) {
        let topic = ProducedTopicRef::Name("t".into());
        let topics = vec![ProducedTopic { topic, partitions: vec![told] }];
        let response = ProduceResponse { throttle_ms: 0, topics, node_endpoints: Vec::new() };
        self.stage.producer.handle_produced(self.stage.now, *conn, *request, &response);
    }

    /// Its connection breaks; what it asks for after a second is returned.
    pub fn cut(&mut self, (conn, ..): &OnWay) -> Vec<OnWay> {
        self.stage.producer.handle_closed(self.stage.now, *conn);
        self.wait(SECOND)
    }

    pub fn outcomes(&mut self) -> Vec<(Vec<u64>, Delivery)> {
        self.stage.outcomes()
    }

    /// Records that were said to be doubled perhaps.
    pub fn resent_in_doubt(&mut self) -> u64 {
        let notices = std::iter::from_fn(|| self.stage.producer.poll_notice());
        let said = notices.map(|notice| match notice {
            Notice::ResentInDoubt { records, .. } => records as u64,
            _ => 0,
        });
        let said: u64 = said.sum();
        assert_eq!(said, self.stage.producer.counts().resent_in_doubt);
        said
    }

    /// Repeats a dead worker's batch of these records.
    pub fn repeat(&mut self, stamp: ProducerStamp, ids: &[u64]) {
        let (now, topic) = (self.stage.now, self.topic);
        let record = |id: &u64| Record {
            id: RecordId(*id),
            key_hash: None,
            partition: None,
            bytes: 100,
            born: now,
        };
        let records = ids.iter().map(record).collect();
        self.stage.producer.handle_repeat(now, topic, 0, stamp, false, records);
    }

    /// Lets `broker` answer everything until nothing is left to be sent; the records that were delivered.
    pub fn finish(&mut self, broker: &mut Broker, mut sent: Vec<OnWay>) -> Vec<u64> {
        let mut delivered = Vec::new();
        for _ in 0..200 {
            for sent in std::mem::take(&mut sent) {
                let told = broker.take(&sent);
                self.answer_with(&sent, told);
            }
            for (ids, fate) in self.outcomes() {
                assert_eq!(fate, DELIVERED, "{ids:?}");
                delivered.extend(ids);
            }
            if self.stage.producer.held_records() == 0 {
                return delivered;
            }
            sent = self.wait(Duration::from_millis(200));
        }
        panic!("records are left: {delivered:?} were delivered");
    }
}

/// The model broker, leading one partition.
pub struct Broker(Cluster);

impl Broker {
    pub fn new() -> Broker {
        Broker(Cluster {
            random: Random::new(1),
            faults: Faults::default(),
            up: BTreeMap::from([(1, true)]),
            topics: vec![ModelTopic {
                name: "t".into(),
                id: Uuid::from_bytes([1; 16]),
                leaders: vec![(Some(1), 0)],
                logs: vec![Vec::new()],
                producers: vec![Default::default()],
            }],
            max_records: usize::MAX,
            max_request: usize::MAX,
            forgot: false,
            snapshots: false,
            memory: Memory::NEWEST,
            any_error: false,
            graveyard: Vec::new(),
            next_producer_id: 0,
            first_epoch: 0,
            topics_exist_from: Time(0),
        })
    }

    pub fn take(&mut self, (_, _, stamp, ids): &OnWay) -> Told {
        let records = ids.iter().map(|id| RecordId(*id)).collect();
        let batch: ModelBatch = (ProducedTopicRef::Name("t".into()), 0, *stamp, records);
        match self.0.produce(1, &[batch]) {
            Answer::Now(mut response) => response.topics.remove(0).partitions.remove(0),
            _ => panic!("it has no faults"),
        }
    }

    pub fn log(&self) -> Vec<u64> {
        self.0.topics[0].logs[0].iter().map(|id| id.0).collect()
    }

    /// It was stopped and started: of each producer a snapshot has the last batch.
    pub fn restart(&mut self) {
        self.0.memory.batches = 1;
    }

    /// Its producer ids have expired.
    pub fn forget(&mut self) {
        self.0.topics[0].producers[0] = Sequences::default();
    }
}

pub fn stamp(producer_id: i64, epoch: i16, base_sequence: i32) -> ProducerStamp {
    ProducerStamp { producer_id, epoch, base_sequence }
}

pub fn stamps(sent: &[OnWay]) -> Vec<ProducerStamp> {
    sent.iter().map(|(_, _, stamp, _)| stamp.expect("a stamp")).collect()
}
