//! What is known of one broker, and what is in flight to it.

use super::batch::Batch;
use super::ids::{BrokerId, ConnId, RequestId, TopicId};
use super::request_limit::RequestLimit;
use super::timer::{Scheduled, Time};
use crate::config::HostPort;
use crate::seeded_bug::{Bug, is_seeded};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;
use uuid::Uuid;

/// Longest pause that a broker may impose, and longest time by which pauses put off a deadline. A quota of 10 kB/s is
/// made good in less by what is sent at once. A broker that says more is not believed: it would hold messages for ever
/// that may be in its log.
pub(super) const MAX_THROTTLE: Duration = Duration::from_secs(600);

/// Where a broker's connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnState {
    Closed,
    Connecting(ConnId),
    Up(ConnId),
}

/// A batch in a request that has no outcome yet.
#[derive(Debug)]
pub struct InFlightBatch {
    /// Topic.
    pub topic: TopicId,
    /// Kafka's id of the topic, as it was when this was sent, and as its answer has it; nil where none was told.
    pub topic_id: Uuid,
    /// Partition.
    pub partition: u32,
    /// The records.
    pub batch: Batch,
}

/// A request that has no outcome yet; without batches it is one for metadata or a producer id.
#[derive(Debug)]
pub(super) struct InFlight {
    pub request: RequestId,
    /// The connection is closed when there is no answer by then.
    pub deadline: Time,
    /// However long the broker says that it pauses, the deadline does not move beyond this.
    pub latest: Time,
    pub batches: Vec<InFlightBatch>,
}

impl InFlight {
    /// Its time begins only now: the answer is due then.
    pub fn begin_anew(&mut self, deadline: Time) {
        self.latest = self.latest.max(deadline + MAX_THROTTLE);
        self.deadline = self.deadline.max(deadline);
    }

    /// Bytes of its batches.
    pub fn bytes(&self) -> usize {
        request_bytes(&self.batches)
    }
}

/// Upper bound of the encoded size of a request's batches.
pub(super) fn request_bytes(batches: &[InFlightBatch]) -> usize {
    batches.iter().map(|sent| sent.batch.encoded_bytes()).sum()
}

/// When a broker may be connected to again. It goes by what connections were good for, and not by whether one was made.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// Failed connects, or connections that broke before they served, in a row.
    pub failures: u32,
    /// No connect before this.
    pub connect_after: Time,
    /// Times in a row that it named brokers of which none was reached since. Of entries of `metadata_broker_list` only.
    pub in_vain: u32,
    /// Not asked for metadata before this: it failed `conn_retry_limit` times.
    pub rests_until: Time,
}

/// The pause that a broker imposes for the sake of its quotas (KIP-219): it answers, says for how long, and reads
/// nothing from the connection until that time is over.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// The pause is over then.
    pub until: Time,
    /// The last Produce answer imposed one: with more than one request in flight, the others would wait at the broker, unread.
    pub one_at_a_time: bool,
}

/// One broker, known by id, or one entry of `metadata_broker_list`, known by a negative id.
#[derive(Debug)]
pub(super) struct Broker {
    pub address: HostPort,
    pub conn_state: ConnState,
    /// Named by the last metadata (always true for entries of the list).
    pub current: bool,
    pub backoff: Backoff,
    pub throttle: Throttle,
    pub request_limit: RequestLimit,
    pub in_flight: VecDeque<InFlight>,
    /// The last request to it that was not to take messages.
    pub last_asked: Option<RequestId>,
    /// Partitions with something to send.
    pub ready: VecDeque<(TopicId, u32)>,
    /// Stands in the list of brokers that may have something to do.
    pub listed: bool,
    pub scheduled: Scheduled,
}

impl Broker {
    pub fn new(address: HostPort) -> Broker {
        Broker {
            address,
            conn_state: ConnState::Closed,
            current: true,
            backoff: Backoff::default(),
            throttle: Throttle::default(),
            request_limit: RequestLimit::default(),
            in_flight: VecDeque::new(),
            last_asked: None,
            ready: VecDeque::new(),
            listed: false,
            scheduled: Scheduled::default(),
        }
    }

    pub fn is_up(&self) -> bool {
        matches!(self.conn_state, ConnState::Up(_))
    }

    /// Notes that a request goes out that is to be answered within `timeout`; returns when its time is over.
    pub fn watch(
        &mut self,
        now: Time,
        request: RequestId,
        timeout: Duration,
        batches: Vec<InFlightBatch>,
    ) -> Time {
        let deadline = now + timeout;
        let latest = deadline + MAX_THROTTLE;
        self.in_flight.push_back(InFlight { request, deadline, latest, batches });
        deadline
    }

    /// The broker reads nothing for so long: what it has not read yet gets that time on top of its own.
    pub fn pause(&mut self, now: Time, pause: Duration) {
        self.throttle.until = self.throttle.until.max(now + pause);
        for sent in &mut self.in_flight {
            if !is_seeded(Bug::IgnorePause) {
                sent.deadline = (sent.deadline + pause).min(sent.latest);
            }
        }
    }

    /// Requests that may be in flight at a time, of the `max` that the configuration allows.
    pub fn window(&self, now: Time, max: usize) -> usize {
        let one_at_a_time = self.throttle.one_at_a_time || self.request_limit.is_open(now);
        if one_at_a_time { 1 } else { max }
    }

    /// True while nothing speaks against a connect at `now`.
    pub fn may_connect(&self, now: Time) -> bool {
        self.conn_state == ConnState::Closed && self.backoff.connect_after <= now
    }
}

/// All brokers, and the connections to them.
#[derive(Debug)]
pub(super) struct Brokers {
    pub known: BTreeMap<BrokerId, Broker>,
    pub connections: HashMap<ConnId, BrokerId>,
    /// Those that may have something to do.
    pub listed: VecDeque<BrokerId>,
    /// It was said that no connection is left.
    pub is_full: bool,
}

impl Brokers {
    /// Those of `metadata_broker_list`.
    pub fn new(bootstrap: &[HostPort]) -> Brokers {
        let listed = bootstrap.iter().enumerate();
        Brokers {
            known: listed
                .map(|(index, address)| (-1 - index as BrokerId, Broker::new(address.clone())))
                .collect(),
            connections: HashMap::new(),
            listed: VecDeque::new(),
            is_full: false,
        }
    }

    /// A broker of the cluster was reached: those of the list have not been asked in vain.
    pub fn reached(&mut self) {
        let listed = self.known.range_mut(..0).map(|(_, broker)| broker);
        for broker in listed.filter(|broker| broker.backoff.in_vain > 0) {
            (broker.backoff.in_vain, broker.backoff.connect_after) = (0, Time(0));
        }
    }

    /// A connected broker that has nothing to do.
    pub fn idle_connection(&self) -> Option<ConnId> {
        self.known.values().find_map(|broker| match broker.conn_state {
            ConnState::Up(conn) if broker.in_flight.is_empty() && broker.ready.is_empty() => {
                Some(conn)
            }
            _ => None,
        })
    }

    /// True when nobody who waits for a connection has more to send.
    pub fn is_busiest(&self, now: Time, node: BrokerId) -> bool {
        let ready = |broker: &Broker| broker.ready.len();
        let ours = self.known.get(&node).map_or(0, ready);
        let waiting = self.known.values().filter(|broker| broker.may_connect(now));
        waiting.map(ready).max().is_none_or(|most| most <= ours)
    }

    /// The one that a connection leads to.
    pub fn of(&mut self, conn: ConnId) -> Option<&mut Broker> {
        self.known.get_mut(self.connections.get(&conn)?)
    }
}
