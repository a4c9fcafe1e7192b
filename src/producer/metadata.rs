//! What is known of topics and their leaders, and when it is asked for again.

use super::accumulator::Partition;
use super::batch::{Batch, Record};
use super::timer::Scheduled;
use super::{ConnId, RequestId, Time, TopicId};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::metadata::TopicMetadata;
use std::collections::VecDeque;
use std::time::Duration;

/// Partitions that a topic may have. A broker that tells more has no topic that works.
const MAX_PARTITIONS: usize = 20_000;

/// Partitions that a topic is taken to have before anything is known of it.
const PARTITIONS_IF_UNKNOWN: usize = 500;

/// Answers with an earlier leader epoch, or with fewer partitions, that are put down to a broker that is behind.
/// After that it is what was known before that was wrong.
const STALE_ANSWERS: u8 = 5;

/// A topic in use.
#[derive(Debug)]
pub(super) struct Topic {
    pub name: Box<str>,
    /// Kafka's id of the topic, zero when the broker does not tell.
    pub id: [u8; 16],
    /// Empty until the first metadata.
    pub partitions: Vec<Partition>,
    /// Records that came before.
    pub waiting: VecDeque<Record>,
    /// Batches of another producer's that came before, with their partitions.
    pub repeats: VecDeque<(u32, Batch)>,
    /// Where records without a key go at the moment.
    pub sticky: Option<u32>,
    /// Answers in a row that named fewer partitions.
    answers_with_fewer: u8,
    /// The last answer's error about the topic as a whole.
    pub error: ErrorCode,
    /// Since when all answers said that there is no such topic.
    unknown_since: Option<Time>,
    /// It is to be asked about.
    pub is_due: bool,
    pub scheduled: Scheduled,
}

/// What an answer changed.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Batches of partitions that are no more, with those partitions, oldest first.
    pub homeless: Vec<(u32, Batch)>,
    /// Numbers of partitions that are no more may be known to a broker.
    pub numbers_lost: bool,
    /// Something is still missing: ask again soon.
    pub incomplete: bool,
}

impl Topic {
    pub fn new(name: &str) -> Topic {
        Topic {
            name: name.into(),
            id: [0; 16],
            partitions: Vec::new(),
            waiting: VecDeque::new(),
            repeats: VecDeque::new(),
            sticky: None,
            answers_with_fewer: 0,
            error: ErrorCode::NONE,
            unknown_since: None,
            is_due: true,
            scheduled: Scheduled::default(),
        }
    }

    /// Partitions that an answer about it is taken to have.
    pub fn expected_partitions(&self) -> usize {
        if self.partitions.is_empty() { PARTITIONS_IF_UNKNOWN } else { self.partitions.len() }
    }

    /// True when no broker knew the topic for `limit`: then there is no log either.
    pub fn is_gone(&self, now: Time, limit: Duration) -> bool {
        self.unknown_since.is_some_and(|since| since + limit <= now)
    }

    /// Takes over what a broker says of this topic. An answer without partitions, or with an error, leaves
    /// what is known as it was: the topic may only be invisible for a while.
    pub fn update(
        &mut self,
        now: Time,
        told: &TopicMetadata,
        is_broker: impl Fn(i32) -> bool,
    ) -> Change {
        let mut change = Change { incomplete: true, ..Change::default() };
        self.error = told.error;
        self.unknown_since = match told.error {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => self.unknown_since.or(Some(now)),
            _ => None,
        };
        let count = told.partitions.iter().filter(|p| p.index >= 0).count();
        // Indices run from 0; anything else is not an answer to build on.
        let whole = told.partitions.iter().all(|p| (p.index as usize) < count);
        if (told.error != ErrorCode::NONE && told.error != ErrorCode::LEADER_NOT_AVAILABLE)
            || count == 0
            || count > MAX_PARTITIONS
            || !whole
        {
            return change;
        }
        change.incomplete = false;
        let recreated = self.id != [0; 16] && told.id != [0; 16] && self.id != told.id;
        // Partitions are only ever added, so a broker that knows fewer is behind, unless the topic is another.
        let behind = !recreated && count < self.partitions.len();
        if behind && self.answers_with_fewer < STALE_ANSWERS {
            self.answers_with_fewer += 1;
            return Change { incomplete: true, ..change };
        }
        self.answers_with_fewer = 0;
        self.id = told.id;
        if recreated {
            self.partitions.iter_mut().for_each(Partition::log_is_new);
        }
        while self.partitions.len() > count {
            let mut gone = self.partitions.pop().expect("longer than count");
            let index = self.partitions.len() as u32;
            change.numbers_lost |= gone.sequence.is_in_use();
            change.homeless.extend(gone.drain().map(|batch| (index, batch)));
        }
        self.partitions.resize_with(count, Partition::default);
        for told in &told.partitions {
            let partition = &mut self.partitions[told.index as usize];
            // A broker that is behind may still name an earlier leader.
            let stale =
                !recreated && told.leader_epoch >= 0 && told.leader_epoch < partition.leader_epoch;
            if stale && partition.stale_answers < STALE_ANSWERS {
                partition.stale_answers += 1;
                change.incomplete = true;
                continue;
            }
            partition.stale_answers = 0;
            let leader = (told.leader >= 0 && is_broker(told.leader)).then_some(told.leader);
            if leader.is_none() {
                change.incomplete = true;
            }
            partition.leader_epoch = told.leader_epoch;
            if partition.leader != leader {
                partition.leader = leader;
                partition.listed = false;
            }
        }
        change
    }
}

/// When metadata is asked for, and how far that has come.
///
/// A round asks about the topics that are due, one page of them after the other: an answer about all of thousands of
/// topics would be larger than one that is read.
#[derive(Debug, Default)]
pub(super) struct Refresh {
    /// Somebody needs an answer.
    pub wanted: bool,
    /// The next round is to be about all topics.
    pub all: bool,
    /// A round has begun and is not over.
    pub in_round: bool,
    /// The request on its way.
    pub asked: Option<(ConnId, RequestId)>,
    /// The topics that it is about.
    pub page: Vec<TopicId>,
    /// Number of the topic behind the last one that was asked about.
    pub next_topic: usize,
    /// Requests in a row that the connection did not survive: their answers may have been too large.
    pub unanswered: u32,
    /// Topics of which this round's answers left something open.
    pub incomplete_topics: Vec<TopicId>,
    /// Rounds in a row that left something open.
    pub incomplete: u32,
    /// Not before this.
    pub not_before: Time,
    /// Unasked at this time.
    pub periodic: Time,
    /// Last time a connection was opened for the sake of metadata.
    pub connect_tried: Option<Time>,
    pub scheduled: Scheduled,
}
