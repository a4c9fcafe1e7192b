//! What is known of topics and their leaders, and when it is asked for again.

use super::accumulator::Partition;
use super::batch::{Batch, Record};
use super::compression_ratio::Estimate;
use super::ids::{ConnId, RequestId, TopicId};
use super::timer::{Scheduled, Time};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::metadata::TopicMetadata;
use std::collections::{HashMap, VecDeque};
use std::ops::{Index, IndexMut};
use std::time::Duration;
use uuid::Uuid;

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
    /// Kafka's id of the topic, nil when the broker does not tell.
    pub id: Uuid,
    /// Empty until the first metadata.
    pub partitions: Vec<Partition>,
    /// Records that came before.
    pub waiting: VecDeque<Record>,
    /// Batches of another producer's that came before, with their partitions.
    pub repeats: VecDeque<(u32, Batch)>,
    /// Where records without a key go at the moment.
    pub sticky: Option<u32>,
    /// What compression leaves of its batches.
    pub compression: Estimate,
    /// Answers in a row that named fewer partitions.
    answers_with_fewer: u8,
    /// The last answer's error about the topic as a whole.
    pub error: ErrorCode,
    /// Since when all answers said that there is no such topic.
    unknown_since: Option<Time>,
    /// The last error that was made known, until an answer has none.
    pub told_error: ErrorCode,
    /// It is to be asked about.
    pub is_due: bool,
    /// Answers in a row that told of no partitions, and until when it is not asked about again for that.
    pub vain_answers: u32,
    pub rests_until: Time,
    /// Asking about it may make it, if broker and configuration allow that.
    pub may_be_made: bool,
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
            id: Uuid::nil(),
            partitions: Vec::new(),
            waiting: VecDeque::new(),
            repeats: VecDeque::new(),
            sticky: None,
            compression: Estimate::default(),
            answers_with_fewer: 0,
            error: ErrorCode::NONE,
            unknown_since: None,
            told_error: ErrorCode::NONE,
            is_due: true,
            vain_answers: 0,
            rests_until: Time(0),
            may_be_made: true,
            scheduled: Scheduled::default(),
        }
    }

    /// Partitions that an answer about it is taken to have.
    pub fn expected_partitions(&self) -> usize {
        if self.partitions.is_empty() { PARTITIONS_IF_UNKNOWN } else { self.partitions.len() }
    }

    /// Whether it is to be asked about, and may be now.
    pub fn is_due_at(&self, now: Time) -> bool {
        self.is_due && self.rests_until <= now
    }

    /// True when no broker knew the topic for `limit`: then there is no log either.
    pub fn is_gone(&self, now: Time, limit: Duration) -> bool {
        self.unknown_since.is_some_and(|since| since + limit <= now)
    }

    /// True for an error that is worth a line: a new one. A topic that a broker makes when it is first asked for is
    /// unknown for a moment, which is none.
    pub fn is_news(&self, now: Time, error: ErrorCode, patience: Duration) -> bool {
        let passes = error == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION && !self.is_gone(now, patience);
        error != ErrorCode::NONE && error != self.told_error && !passes
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
        let recreated = !self.id.is_nil() && !told.id.is_nil() && self.id != told.id;
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

/// The topics in use, by number and by name.
#[derive(Debug, Default)]
pub(super) struct Topics {
    pub list: Vec<Topic>,
    pub by_name: HashMap<Box<str>, TopicId>,
}

impl Topics {
    /// Adds a topic that is not there yet.
    pub fn add(&mut self, name: &str) -> TopicId {
        let id = TopicId(self.list.len() as u32);
        self.list.push(Topic::new(name));
        self.by_name.insert(name.into(), id);
        id
    }

    /// Whether a topic is to be asked about, and may be now.
    pub fn any_due(&self, now: Time) -> bool {
        self.list.iter().any(|topic| topic.is_due_at(now))
    }

    /// When the first of those that are to be asked about may be. At once where there is none: then it is about the
    /// brokers.
    pub fn earliest_due(&self) -> Time {
        let due = self.list.iter().filter(|topic| topic.is_due);
        due.map(|topic| topic.rests_until).min().unwrap_or(Time(0))
    }

    /// Topics of which no partition is known.
    pub fn count_unknown(&self) -> u32 {
        self.list.iter().filter(|topic| topic.partitions.is_empty()).count() as u32
    }
}

impl Index<TopicId> for Topics {
    type Output = Topic;
    fn index(&self, id: TopicId) -> &Topic {
        &self.list[id.0 as usize]
    }
}

impl IndexMut<TopicId> for Topics {
    fn index_mut(&mut self, id: TopicId) -> &mut Topic {
        &mut self.list[id.0 as usize]
    }
}

/// Where the next request for metadata stands.
#[derive(Debug)]
pub(super) enum Refresh {
    /// Nobody needs an answer before the periodic refresh.
    Idle,
    /// A request is to be sent as soon as it may be, and somebody is there to be asked.
    Due,
    /// A request is in flight.
    Asked(Asked),
}

/// A request for metadata that is in flight.
#[derive(Debug)]
pub(super) struct Asked {
    pub conn: ConnId,
    pub request: RequestId,
    /// The topics that it is about: all of them may be made by asking, or none.
    pub page: Vec<TopicId>,
    /// Another one is to follow.
    pub more: bool,
}

/// What is asked about between the first page and the last one.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Topics of which the answers so far left something open.
    pub incomplete_topics: Vec<TopicId>,
}

/// When metadata is asked for, and how far that has come.
///
/// A round asks about the topics that are due, one page of them after the other: an answer about all of thousands of
/// topics would be larger than one that is read.
#[derive(Debug)]
pub(super) struct Metadata {
    pub refresh: Refresh,
    /// The round that has begun and is not over.
    pub round: Option<Round>,
    /// The next round is to be about all topics.
    pub all: bool,
    /// Number of the topic behind the last one that was asked about.
    pub next_topic: usize,
    /// Requests in a row that the connection did not survive: their answers may have been too large.
    pub lost_answers: u32,
    /// Rounds in a row that left something open.
    pub incomplete_rounds: u32,
    /// No request before this.
    pub not_before: Time,
    /// All topics are asked about at this time, though nobody needs it.
    pub periodic: Time,
    /// Last time a connection was opened for the sake of metadata.
    pub connect_tried: Option<Time>,
    pub scheduled: Scheduled,
}

impl Metadata {
    pub fn new() -> Metadata {
        Metadata {
            refresh: Refresh::Idle,
            round: None,
            all: true,
            next_topic: 0,
            lost_answers: 0,
            incomplete_rounds: 0,
            not_before: Time(0),
            periodic: Time::NEVER,
            connect_tried: None,
            scheduled: Scheduled::default(),
        }
    }

    /// Makes a request due. False when one was already.
    pub fn want(&mut self) -> bool {
        match &mut self.refresh {
            Refresh::Idle => self.refresh = Refresh::Due,
            Refresh::Due => return false,
            Refresh::Asked(Asked { more, .. }) => return !std::mem::replace(more, true),
        }
        true
    }

    /// Takes the request in flight if it is this one, which has its answer.
    pub fn answered(&mut self, conn: ConnId, request: RequestId) -> Option<Asked> {
        self.take_asked(|asked| (asked.conn, asked.request) == (conn, request))
    }

    /// Takes the request in flight if it was on this connection, which is gone.
    pub fn lost(&mut self, conn: ConnId) -> Option<Asked> {
        self.take_asked(|asked| asked.conn == conn)
    }

    fn take_asked(&mut self, is_it: impl FnOnce(&Asked) -> bool) -> Option<Asked> {
        match std::mem::replace(&mut self.refresh, Refresh::Idle) {
            Refresh::Asked(asked) if is_it(&asked) => {
                if asked.more {
                    self.refresh = Refresh::Due;
                }
                Some(asked)
            }
            other => {
                self.refresh = other;
                None
            }
        }
    }
}
