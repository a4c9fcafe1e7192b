//! What the state machine knows, by parts.

use super::api::{Action, Counts, Mark, Notice, Outcome};
use super::broker::Brokers;
use super::identity::Identity;
use super::ids::RecordId;
use super::metadata::{Metadata, Topics};
use super::random::Random;
use super::rules::Rules;
use super::timer::{Time, Timers};
use std::collections::VecDeque;

/// The state machine. See the module for its contract.
pub struct Producer {
    pub(super) rules: Rules,
    pub(super) random: Random,
    pub(super) topics: Topics,
    pub(super) brokers: Brokers,
    pub(super) metadata: Metadata,
    pub(super) identity: Identity,
    pub(super) flushed_at: Option<Time>,
    pub(super) timers: Timers,
    pub(super) out: Out,
    /// Connections and requests are numbered by it.
    pub(super) last_id: u64,
    pub(super) load: Load,
    pub(super) counts: Counts,
}

/// What the caller has not polled yet.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub actions: VecDeque<Action>,
    pub outcomes: VecDeque<Outcome>,
    pub notices: VecDeque<Notice>,
    pub marks: VecDeque<(RecordId, Mark)>,
}

/// How many records there are now.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Handed in, and without an outcome that was polled.
    pub held: u64,
    /// In requests that have no outcome yet.
    pub in_flight: u64,
}

impl Producer {
    /// A producer that knows nothing but its rules.
    pub fn new(rules: Rules, seed: u64) -> Producer {
        Producer {
            random: Random::new(seed),
            topics: Topics::default(),
            brokers: Brokers::new(&rules.bootstrap),
            metadata: Metadata::new(),
            identity: Identity::new(rules.idempotence),
            flushed_at: None,
            timers: Timers::default(),
            out: Out::default(),
            last_id: 0,
            load: Load::default(),
            counts: Counts::default(),
            rules,
        }
    }
}
