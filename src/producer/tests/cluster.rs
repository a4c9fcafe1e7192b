//! A model of a Kafka cluster, as far as a producer can tell: brokers that come and go, leaders that
//! move, logs that keep what was appended, answers that are late, lost or errors. It judges nothing; the
//! simulation reads its logs.
//!
//! For batches with a stamp it keeps Kafka's rules, see [`sequences`](super::sequences).

use super::sequences::{Memory, Numbers, Sequences};
use super::*;
use crate::protocol::error_code::Persistence;
use crate::protocol::init_producer_id::InitProducerIdResponse;
use crate::protocol::metadata::{BrokerMetadata, PartitionMetadata, TopicMetadata};
use crate::protocol::produce::{ProducedTopic, RecordError};
use crate::protocol::record_batch::ProducerStamp;

/// Chances, each in thousandths, and times in microseconds.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    pub lose_request: u64,
    /// What was sent on a connection that is over arrives all the same.
    pub late: u64,
    pub lose_answer: u64,
    pub swallow_answer: u64,
    /// A broker forgets what it knows of producers.
    pub forget_producers: u64,
    /// A leader was restarted: a snapshot of what it knows of producers holds the last batch of each.
    pub snapshot: u64,
    /// Metadata of a broker that does not know of a topic's last partition yet.
    pub metadata_behind: u64,
    /// InitProducerId is answered with an error that passes.
    pub no_producer_id: u64,
    pub error_before_append: u64,
    pub error_after_append: u64,
    pub fatal_error: u64,
    pub record_error: u64,
    pub metadata_error: u64,
    /// A broker that has just started: it knows itself and no topic.
    pub metadata_partial: u64,
    pub connect_fails: u64,
    /// A quota is used up: the answer says so, and the connection is not read from for so many milliseconds.
    pub throttle: u64,
    pub throttle_ms: u64,
    pub latency: u64,
    pub slow: u64,
}

pub struct ModelTopic {
    pub name: String,
    pub id: Uuid,
    /// Leader and its epoch, per partition.
    pub leaders: Vec<(Option<BrokerId>, i32)>,
    /// What was appended, per partition, in order.
    pub logs: Vec<Vec<RecordId>>,
    /// What is known of producers, per partition.
    pub producers: Vec<Sequences>,
}

/// A batch in a Produce request: topic, partition, stamp, records.
pub type ModelBatch = (ProducedTopicRef, u32, Option<ProducerStamp>, Vec<RecordId>);

/// The cluster's state. A log survives its leader, as with enough in-sync replicas.
pub struct Cluster {
    pub random: Random,
    pub faults: Faults,
    pub up: BTreeMap<BrokerId, bool>,
    pub topics: Vec<ModelTopic>,
    /// Largest batch that is taken, in records.
    pub max_records: usize,
    /// Largest request that is read, in bytes: on others brokers hang up.
    pub max_request: usize,
    /// A broker has forgotten producers at some time.
    pub forgot: bool,
    /// A broker recognises no more than the last batch of a producer.
    pub snapshots: bool,
    /// What it keeps of producers.
    pub memory: Memory,
    /// Errors are drawn from the whole table.
    pub any_error: bool,
    /// Logs of topics that were deleted, and the numbers of those topics.
    pub graveyard: Vec<(usize, Vec<RecordId>)>,
    /// The next producer id.
    pub next_producer_id: i64,
    /// Epoch of new producer ids: high where the end of epochs is to be met.
    pub first_epoch: i16,
    /// Metadata shows the topics only from then on.
    pub topics_exist_from: Time,
}

/// What a broker does with a request.
pub enum Answer<T> {
    /// It answers.
    Now(T),
    /// The connection breaks instead of an answer.
    Break,
    /// Nothing ever comes.
    Silence,
}

impl Cluster {
    pub fn chance(&mut self, thousandths: u64) -> bool {
        self.random.below(1000) < thousandths
    }

    pub fn delay(&mut self) -> Duration {
        let slow = if self.chance(self.faults.slow) { 7_000_000 } else { 0 };
        Duration::from_micros(100 + self.random.below(self.faults.latency + 1) + slow)
    }

    /// Moves one partition to another live broker, or leaves it without a leader.
    pub fn move_leader(&mut self) {
        let topic = self.random.below(self.topics.len() as u64) as usize;
        let count = self.topics[topic].leaders.len() as u64;
        let partition = self.random.below(count) as usize;
        let leader = self.any_live_broker();
        let (old, epoch) = &mut self.topics[topic].leaders[partition];
        *old = leader;
        *epoch += 1;
    }

    fn any_live_broker(&mut self) -> Option<BrokerId> {
        let live: Vec<BrokerId> =
            self.up.iter().filter(|(_, up)| **up).map(|(id, _)| *id).collect();
        if live.is_empty() {
            return None;
        }
        Some(live[self.random.below(live.len() as u64) as usize])
    }

    /// Gives every partition of a broker that went down another leader, now and then none.
    pub fn elect(&mut self) {
        for topic in 0..self.topics.len() {
            for partition in 0..self.topics[topic].leaders.len() {
                let (leader, epoch) = self.topics[topic].leaders[partition];
                if leader.is_none_or(|leader| !self.up[&leader]) {
                    let leader = self.any_live_broker();
                    self.topics[topic].leaders[partition] = (leader, epoch + 1);
                }
            }
        }
    }

    /// Deletes a topic and makes it anew, with `partitions`.
    pub fn recreate(&mut self, topic: usize, partitions: usize) {
        let leaders = (0..partitions).map(|_| (self.any_live_broker(), 0)).collect();
        let ModelTopic { id, leaders: old_leaders, logs, producers, .. } = &mut self.topics[topic];
        *id = Uuid::from_u128(id.as_u128() + 1);
        *old_leaders = leaders;
        *producers = vec![Default::default(); partitions];
        let old = std::mem::replace(logs, vec![Vec::new(); partitions]);
        self.graveyard.extend(old.into_iter().map(|log| (topic, log)));
        self.forgot = true;
    }

    /// An error that says that nothing was written (`No`), or leaves that open (`Maybe`).
    fn any_error(&mut self, usual: ErrorCode, persistence: Persistence) -> ErrorCode {
        loop {
            let drawn = ErrorCode(self.random.below(132) as i16 - 1);
            // 43: the log takes none, which it does not say now and then.
            let about_numbers = [43, 45, 46, 47, 49, 59].contains(&drawn.0);
            match () {
                () if !self.any_error => return usual,
                () if drawn.persistence() == persistence && !about_numbers => return drawn,
                () => {}
            }
        }
    }

    pub fn metadata(&mut self, now: Time, from: BrokerId) -> MetadataResponse {
        let mut topics = Vec::new();
        let partial = self.chance(self.faults.metadata_partial);
        for index in 0..self.topics.len() {
            let failed = self.chance(self.faults.metadata_error);
            let behind = self.chance(self.faults.metadata_behind);
            let topic = &self.topics[index];
            let count = topic.leaders.len().saturating_sub(usize::from(behind)).max(1);
            let unknown = partial || now < self.topics_exist_from;
            let error = match (unknown, failed) {
                (true, _) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                (_, true) => ErrorCode::LEADER_NOT_AVAILABLE,
                _ => ErrorCode::NONE,
            };
            let leaders = topic.leaders.iter().take(count);
            let partitions =
                leaders.enumerate().map(|(index, (leader, epoch))| PartitionMetadata {
                    error: ErrorCode::NONE,
                    index: index as i32,
                    leader: leader.unwrap_or(-1),
                    leader_epoch: *epoch,
                });
            topics.push(TopicMetadata {
                error,
                name: topic.name.clone(),
                id: topic.id,
                partitions: if error == ErrorCode::NONE { partitions.collect() } else { vec![] },
            });
        }
        MetadataResponse {
            throttle_ms: 0,
            brokers: self
                .up
                .keys()
                .filter(|id| !partial || **id == from)
                .map(|id| BrokerMetadata {
                    id: *id,
                    host: format!("b{id}"),
                    port: 9092,
                    rack: None,
                })
                .collect(),
            cluster_id: None,
            controller_id: 1,
            topics,
            error: ErrorCode::NONE,
        }
    }

    /// A broker is asked for a producer id.
    pub fn producer_id(&mut self) -> InitProducerIdResponse {
        let mut answer = InitProducerIdResponse {
            throttle_ms: 0,
            error: ErrorCode::NONE,
            producer_id: self.next_producer_id,
            epoch: self.first_epoch,
        };
        if self.chance(self.faults.no_producer_id) {
            answer.error = ErrorCode::COORDINATOR_LOAD_IN_PROGRESS;
            answer.producer_id = -1;
        } else {
            self.next_producer_id += 1;
        }
        answer
    }

    /// A broker takes a Produce request.
    pub fn produce(&mut self, broker: BrokerId, batches: &[ModelBatch]) -> Answer<ProduceResponse> {
        let throttled = self.chance(self.faults.throttle);
        let throttle_ms = if throttled { self.faults.throttle_ms as i32 } else { 0 };
        let mut response =
            ProduceResponse { throttle_ms, topics: Vec::new(), node_endpoints: Vec::new() };
        for (topic, partition, stamp, records) in batches {
            let told = self.append(broker, topic, *partition, *stamp, records);
            let topic = topic.clone();
            response.topics.push(ProducedTopic { topic, partitions: vec![told] });
        }
        if self.chance(self.faults.lose_answer) {
            return Answer::Break;
        }
        if self.chance(self.faults.swallow_answer) {
            return Answer::Silence;
        }
        Answer::Now(response)
    }

    fn append(
        &mut self,
        broker: BrokerId,
        topic: &ProducedTopicRef,
        partition: u32,
        stamp: Option<ProducerStamp>,
        records: &[RecordId],
    ) -> ProducedPartition {
        let mut told = ProducedPartition {
            index: partition as i32,
            error: ErrorCode::NONE,
            base_offset: -1,
            log_append_time_ms: -1,
            error_message: None,
            record_errors: Vec::new(),
            current_leader: None,
        };
        let topic = self.topics.iter().position(|known| match topic {
            ProducedTopicRef::Name(name) => known.name == *name,
            ProducedTopicRef::Id(id) => known.id == *id,
        });
        let Some(topic) = topic else {
            told.error = ErrorCode::UNKNOWN_TOPIC_ID;
            return told;
        };
        let Some((leader, _)) = self.topics[topic].leaders.get(partition as usize) else {
            told.error = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
            return told;
        };
        if *leader != Some(broker) {
            told.error = ErrorCode::NOT_LEADER_OR_FOLLOWER;
            return told;
        }
        if records.len() > self.max_records {
            told.error = ErrorCode::MESSAGE_TOO_LARGE;
            return told;
        }
        if self.chance(self.faults.record_error) {
            told.error = ErrorCode::INVALID_RECORD;
            let batch_index = self.random.below(records.len() as u64) as i32;
            told.record_errors = vec![RecordError { batch_index, message: None }];
            return told;
        }
        if self.chance(self.faults.error_before_append) {
            told.error = self.any_error(ErrorCode::NOT_ENOUGH_REPLICAS, Persistence::No);
            return told;
        }
        if self.chance(self.faults.fatal_error) {
            told.error = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
            return told;
        }
        if self.chance(self.faults.forget_producers) {
            self.forgot = true;
            self.topics[topic].producers[partition as usize] = Sequences::default();
        }
        let snapshot = self.chance(self.faults.snapshot);
        let remembers = if snapshot { 1 } else { self.memory.batches };
        self.snapshots |= remembers == 1;
        let ModelTopic { logs, producers, .. } = &mut self.topics[topic];
        let known = &mut producers[partition as usize];
        known.keep(remembers);
        let log = &mut logs[partition as usize];
        let offset = log.len() as i64;
        let numbers = stamp.map(|stamp| Numbers {
            producer_id: stamp.producer_id,
            epoch: stamp.epoch,
            first: stamp.base_sequence,
            count: records.len() as i32,
        });
        match numbers.map(|numbers| known.take(self.memory, numbers, offset)) {
            Some(Err(error)) => {
                told.error = ErrorCode(error);
                return told;
            }
            Some(Ok(Some(offset))) => told.base_offset = offset,
            Some(Ok(None)) | None => {
                told.base_offset = offset;
                log.extend(records);
            }
        }
        if self.chance(self.faults.error_after_append) {
            told.error = self.any_error(ErrorCode::REQUEST_TIMED_OUT, Persistence::Maybe);
            told.base_offset = -1;
        }
        told
    }
}
