//! Messages whose partition the user's partitioner has yet to choose: they were logged before the number of
//! partitions was known. Later messages of the topic wait behind them, so that none overtakes.

use super::super::context::Context;
use super::super::lua::Question;
use super::amount::Amount;
use super::queues::Queues;
use crate::config::Config;
use crate::producer::{NewRecord, Producer, Record, RecordId, Time, TopicId};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// Nobody was asked yet.
    Open,
    /// The event loop has the question.
    Asked,
    /// Known, or left to the default partitioner.
    Made,
}

struct Held {
    record: NewRecord,
    choice: Choice,
}

/// The messages that wait for their partition, per topic.
pub(in crate::driver) struct Partitioning {
    /// There is a user's partitioner.
    is_users: bool,
    message_timeout: Duration,
    held: BTreeMap<TopicId, VecDeque<Held>>,
}

impl Partitioning {
    pub fn new(config: &Config) -> Partitioning {
        Partitioning {
            is_users: config.callbacks.partitioner.0,
            message_timeout: config.delivery.message_timeout(),
            held: BTreeMap::new(),
        }
    }

    /// True while there is somebody who chooses partitions.
    pub fn is_asked(&self, cx: &Context<'_>) -> bool {
        self.is_users && !cx.shared.lua.callbacks_ended()
    }

    /// Tells the event loop how many partitions the topics of the own queue have, for its partitioner.
    pub fn publish_counts(&self, cx: &Context<'_>, queues: &Queues, producer: &Producer) {
        if self.is_users {
            let count = |topic: &TopicId| producer.partition_count(*topic).unwrap_or(0);
            cx.shared.lua.topics.set_partition_counts(queues.own().topics.iter().map(count));
        }
    }

    /// Hands `record` to the producer, unless its partition is to be asked for (`ask`) or an earlier record of its
    /// topic waits for that.
    pub fn hand_over(&mut self, now: Time, record: NewRecord, ask: bool, producer: &mut Producer) {
        if !ask && !self.held.contains_key(&record.topic) {
            return producer.handle_record(now, record);
        }
        let choice = if ask { Choice::Open } else { Choice::Made };
        self.held.entry(record.topic).or_default().push_back(Held { record, choice });
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// When the oldest message has waited for its time.
    pub fn deadline(&self) -> Time {
        let oldest = self.held.values().filter_map(|held| held.front());
        oldest
            .map(|held| held.record.record.born + self.message_timeout)
            .min()
            .unwrap_or(Time::NEVER)
    }

    /// Takes the oldest messages out that `may_go`, of topics of which nothing is known and asking failed, until they
    /// are as much as is `wanted`.
    pub fn evict(
        &mut self,
        wanted: Amount,
        producer: &Producer,
        may_go: impl Fn(RecordId) -> bool,
    ) -> Vec<(TopicId, Vec<Record>)> {
        let mut gone = Amount::default();
        let mut all = Vec::new();
        for (topic, held) in self.held.iter_mut().filter(|(topic, _)| producer.is_unknown(**topic))
        {
            let mut taken = Vec::new();
            held.retain(|Held { record: NewRecord { record, .. }, choice }| {
                let goes =
                    gone.is_short_of(wanted) && *choice != Choice::Asked && may_go(record.id);
                if goes {
                    gone.add(Amount::of(&[*record]));
                    taken.push(*record);
                }
                !goes
            });
            if !taken.is_empty() {
                all.push((*topic, taken));
            }
        }
        self.held.retain(|_, held| !held.is_empty());
        all
    }

    /// Takes answers, asks what can be asked, and hands on, in order, what has its partition. What has waited
    /// for its time is handed on without one, for the producer to fail it. `key_of` finds a record's key.
    pub fn turn<'k>(
        &mut self,
        cx: &Context<'_>,
        producer: &mut Producer,
        key_of: impl Fn(RecordId) -> Option<&'k [u8]>,
    ) {
        if self.held.is_empty() {
            return;
        }
        // With nobody to ask, what waits for an answer goes on without one.
        let nobody = cx.shared.callbacks_ended();
        let timeout = if nobody { Duration::ZERO } else { self.message_timeout };
        let questions = &cx.shared.lua.questions;
        let answers: BTreeMap<RecordId, Option<u32>> =
            questions.take_answers(|_| true).into_iter().collect();
        let mut room = questions.room();
        for (topic, held) in &mut self.held {
            let partitions = producer.partition_count(*topic);
            let expired = |held: &Held| held.record.record.born + timeout <= cx.now;
            // Nothing can have changed for a topic of which still nothing is known.
            if partitions.is_none() && !held.front().is_some_and(expired) {
                continue;
            }
            for held in held.iter_mut() {
                if expired(held) {
                    held.choice = Choice::Made;
                }
                if held.choice == Choice::Asked
                    && let Some(partition) = answers.get(&held.record.record.id)
                {
                    held.record.record.partition = *partition;
                    held.choice = Choice::Made;
                }
                if held.choice == Choice::Open
                    && room > 0
                    && let Some(partitions) = partitions
                {
                    let id = held.record.record.id;
                    questions.put(Question { id, key: key_of(id).map(<[u8]>::to_vec), partitions });
                    held.choice = Choice::Asked;
                    room -= 1;
                }
            }
            while held.front().is_some_and(|held| held.choice == Choice::Made)
                && let Some(held) = held.pop_front()
            {
                producer.handle_record(cx.now, held.record);
            }
        }
        self.held.retain(|_, held| !held.is_empty());
    }
}
