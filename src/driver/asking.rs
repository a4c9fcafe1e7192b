//! Messages whose partition the user's partitioner has yet to choose: they were logged before the number of
//! partitions was known. Later messages of the topic wait behind them, so that none overtakes.

use super::events::{Events, Question};
use super::sources::Sources;
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
#[derive(Default)]
pub(super) struct Asking {
    held: BTreeMap<TopicId, VecDeque<Held>>,
}

impl Asking {
    /// Takes `record` over when its partition is to be asked for (`ask`) or an earlier one of its topic
    /// waits; gives it back otherwise.
    pub fn hold(&mut self, record: NewRecord, ask: bool) -> Option<NewRecord> {
        if !ask && !self.held.contains_key(&record.topic) {
            return Some(record);
        }
        let choice = if ask { Choice::Open } else { Choice::Made };
        self.held.entry(record.topic).or_default().push_back(Held { record, choice });
        None
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// When the oldest message has waited for `timeout`.
    pub fn expiry(&self, timeout: Duration) -> Time {
        let oldest = self.held.values().filter_map(|held| held.front());
        oldest.map(|held| held.record.record.born + timeout).min().unwrap_or(Time::NEVER)
    }

    /// Takes the oldest messages out that `may_go`, of topics of which nothing is known and asking failed, up
    /// to `records` and `bytes` of them.
    pub fn evict(
        &mut self,
        records: u64,
        bytes: u64,
        producer: &Producer,
        may_go: impl Fn(RecordId) -> bool,
    ) -> Vec<(TopicId, Vec<Record>)> {
        let (mut count, mut size) = (0, 0);
        let mut all = Vec::new();
        for (topic, held) in self.held.iter_mut().filter(|(topic, _)| producer.is_unknown(**topic))
        {
            let mut taken = Vec::new();
            held.retain(|Held { record: NewRecord { record, .. }, choice }| {
                let goes = (count < records || size < bytes)
                    && *choice != Choice::Asked
                    && may_go(record.id);
                if goes {
                    count += 1;
                    size += u64::from(record.bytes);
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
    /// for `timeout` is handed on without one, for the producer to fail it.
    pub fn turn(
        &mut self,
        now: Time,
        timeout: Duration,
        events: &Events,
        sources: &Sources,
        producer: &mut Producer,
    ) {
        if self.held.is_empty() {
            return;
        }
        let answers: BTreeMap<RecordId, Option<u32>> = events.take_answers().into_iter().collect();
        let mut room = events.questions_room();
        for (topic, held) in &mut self.held {
            let partitions = producer.partition_count(*topic);
            let expired = |held: &Held| held.record.record.born + timeout <= now;
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
                    // As in encode::produce: a slot in use is whole, or the thread starts over.
                    let slot = sources.get(held.record.record.id).expect("a slot in use is whole");
                    let key = slot.record.key.map(<[u8]>::to_vec);
                    events.put_question(Question { id: held.record.record.id, key, partitions });
                    held.choice = Choice::Asked;
                    room -= 1;
                }
            }
            while held.front().is_some_and(|held| held.choice == Choice::Made)
                && let Some(held) = held.pop_front()
            {
                producer.handle_record(now, held.record);
            }
        }
        self.held.retain(|_, held| !held.is_empty());
    }
}
