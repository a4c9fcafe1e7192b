//! A sink: everything that goes to one broker.

use super::batch::Batch;
use super::timer::Scheduled;
use super::{ConnId, RequestId, Time, TopicId};
use crate::config::HostPort;
use std::collections::VecDeque;

/// Where a sink's connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Closed,
    Connecting(ConnId),
    Up(ConnId),
}

/// A batch on its way.
#[derive(Debug)]
pub struct Sent {
    /// Topic.
    pub topic: TopicId,
    /// Kafka's id of the topic, as it was when this was sent, and as its answer has it; zeros where none was told.
    pub topic_id: [u8; 16],
    /// Partition.
    pub partition: u32,
    /// The records.
    pub batch: Batch,
}

/// A Produce request that has no outcome yet.
#[derive(Debug)]
pub(super) struct InFlight {
    pub request: RequestId,
    pub deadline: Time,
    pub batches: Vec<Sent>,
}

/// One broker, known by id, or one entry of `metadata_broker_list`, known by a negative id.
#[derive(Debug)]
pub(super) struct Sink {
    pub address: HostPort,
    pub link: Link,
    /// Named by the last metadata (always true for entries of the list).
    pub current: bool,
    /// Failed connects, or connections that broke before they served, in a row.
    pub failures: u32,
    /// No connect before this.
    pub connect_after: Time,
    /// Not asked for metadata before this: it failed `conn_retry_limit` times.
    pub rests_until: Time,
    /// The broker asked for a pause until then.
    pub throttled_until: Time,
    pub in_flight: VecDeque<InFlight>,
    /// The last request to it that was not to take messages.
    pub last_asked: Option<RequestId>,
    /// Partitions with something to send.
    pub ready: VecDeque<(TopicId, u32)>,
    /// Stands in the list of sinks to look at.
    pub listed: bool,
    pub scheduled: Scheduled,
}

impl Sink {
    pub fn new(address: HostPort) -> Sink {
        Sink {
            address,
            link: Link::Closed,
            current: true,
            failures: 0,
            connect_after: Time(0),
            rests_until: Time(0),
            throttled_until: Time(0),
            in_flight: VecDeque::new(),
            last_asked: None,
            ready: VecDeque::new(),
            listed: false,
            scheduled: Scheduled::default(),
        }
    }

    pub fn is_up(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    /// True while nothing speaks against a connect at `now`.
    pub fn may_connect(&self, now: Time) -> bool {
        self.link == Link::Closed && self.connect_after <= now
    }
}
