//! What goes into the producer and what comes out of it.

use super::batch::Record;
use super::ids::{BrokerId, ConnId, RequestId, TopicId};
use super::rules::Idempotence;
use crate::config::HostPort;
use crate::protocol::error_code::ErrorCode;
use std::time::Duration;

/// A record handed in: what stays with it until its delivery is known, and the topic that it goes to.
#[derive(Debug, Clone, Copy)]
pub struct NewRecord {
    /// Its topic.
    pub topic: TopicId,
    /// All else.
    pub record: Record,
}

/// Something the caller has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a connection; answer with `handle_connected` or `handle_closed`.
    Connect {
        /// Its name.
        conn: ConnId,
        /// Whose connection it is.
        broker: BrokerId,
        /// Where to.
        address: HostPort,
    },
    /// Close a connection and forget it; no answer is expected.
    Close {
        /// Its name.
        conn: ConnId,
        /// Why, for the log.
        reason: CloseReason,
    },
    /// Ask for metadata of the topics that [`Producer::asked_topics`](super::Producer::asked_topics) lists.
    Metadata {
        /// On this connection.
        conn: ConnId,
        /// Its name.
        request: RequestId,
    },
    /// Ask for a producer id; answer with `handle_producer_id`, also when the broker knows no such request.
    InitProducerId {
        /// On this connection.
        conn: ConnId,
        /// Its name.
        request: RequestId,
    },
    /// Send the batches that [`Producer::request`](super::Producer::request) shows.
    Produce {
        /// On this connection.
        conn: ConnId,
        /// Its name.
        request: RequestId,
    },
}

/// Why the producer closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// An answer did not come.
    #[error("no answer within request_timeout_ms")]
    RequestTimeout,
    /// It served to learn the cluster's brokers, or the broker left the cluster or moved.
    #[error("not needed any more")]
    NotNeeded,
}

/// What is to be on record of a message for whoever goes on in our place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The partition that was chosen: it is not to be sent elsewhere, after what came later.
    Partition(u32),
    /// It is not in the log, and the numbers that it has will not be used.
    Unsent,
}

/// What has become of records.
#[derive(Debug)]
pub struct Outcome {
    /// Their topic.
    pub topic: TopicId,
    /// Their partition, if one was chosen.
    pub partition: Option<u32>,
    /// The records, in order.
    pub records: Vec<Record>,
    /// Delivered, or why not.
    pub delivery: Delivery,
}

impl Outcome {
    /// The offset of record number `index` of this outcome, where the broker said it.
    pub fn offset(&self, index: usize) -> Option<i64> {
        match self.delivery {
            Delivery::Delivered { base_offset, .. } => base_offset.map(|base| base + index as i64),
            Delivery::Failed { .. } => None,
        }
    }
}

/// Delivered, or why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Acknowledged as `request_required_acks` asks.
    Delivered {
        /// The offset of the first record; the others follow it without a gap. `None` where no broker said it: with
        /// `acks = 0`, and for a duplicate that was dropped.
        base_offset: Option<i64>,
        /// When the broker appended them, in milliseconds since 1970, where its topic's timestamps are that time.
        log_append_time_ms: Option<i64>,
    },
    /// Failed for good.
    Failed {
        /// Why.
        reason: Reason,
        /// They may have been written all the same: an answer was lost, or left that open.
        in_doubt: bool,
    },
}

impl Delivery {
    /// Acknowledged by a broker that did not say where the records stand.
    pub const UNPLACED: Delivery =
        Delivery::Delivered { base_offset: None, log_append_time_ms: None };

    /// Whether the records were acknowledged.
    pub fn is_delivered(&self) -> bool {
        matches!(self, Delivery::Delivered { .. })
    }
}

/// Why records failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// `message_timeout_ms` passed.
    #[error("message_timeout_ms passed")]
    TimedOut,
    /// `message_timeout_ms` passed and no broker knew the topic.
    #[error("topic unknown")]
    TopicUnknown,
    /// They made room in a queue that was filling up; see [`Producer::evict`](super::Producer::evict).
    #[error("queue full and partition out of reach")]
    QueueFull,
    /// The broker hangs up on a request that has nothing else in it, each time, while it answers smaller ones.
    #[error("the broker hangs up on it: larger than its socket.request.max.bytes")]
    HungUp,
    /// A broker refused them.
    #[error("{0}")]
    Broker(ErrorCode),
}

/// Something worth a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// There are as many connections as there may be, and none is idle: brokers wait for one. Said once until there are
    /// fewer.
    NoRoom {
        /// How many that are.
        most: usize,
    },
    /// A broker's metadata says this of a topic.
    TopicError {
        /// The topic.
        topic: TopicId,
        /// The error.
        error: ErrorCode,
    },
    /// A broker rests for `conn_retry_timeout`.
    BrokerRests {
        /// Which.
        broker: BrokerId,
        /// Its address.
        address: HostPort,
        /// How many attempts to connect to it failed in a row.
        attempts: u32,
        /// For how long none is made.
        pause: Duration,
    },
    /// There is no producer id to be had.
    NoProducerId {
        /// Why.
        error: ErrorCode,
        /// What that means: [`Idempotence::Preferred`] goes on without, [`Idempotence::Required`] waits.
        mode: Idempotence,
    },
    /// A topic's log is in a format that takes no batch with numbers: lost answers may duplicate its messages.
    LogWithoutNumbers {
        /// The topic.
        topic: TopicId,
    },
    /// Records that may be in the log are sent again in a way that does not keep duplicates out.
    ResentInDoubt {
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: u32,
        /// How many.
        records: usize,
        /// The broker's reason.
        error: ErrorCode,
    },
    /// A broker reads nothing from us for a while, since a quota is used up.
    Throttled {
        /// Which.
        broker: BrokerId,
        /// Its address.
        address: HostPort,
        /// For how long.
        pause: Duration,
    },
    /// A broker hangs up on requests of this size instead of answering them; smaller ones are sent from now on.
    HungUp {
        /// The topic of the largest batch in the last of them.
        topic: TopicId,
        /// The broker.
        broker: BrokerId,
        /// Its address.
        address: HostPort,
        /// Size of that request, about.
        bytes: usize,
    },
    /// A batch was too large for the broker and was cut in two.
    BatchSplit {
        /// The topic.
        topic: TopicId,
        /// Records in it.
        records: usize,
    },
}

/// Counts since the start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Produce requests sent.
    pub requests: u64,
    /// Batches sent, repetitions included.
    pub batches: u64,
    /// Repetitions among them.
    pub retries: u64,
    /// Most records ever in one batch.
    pub batch_records_max: u64,
    /// Metadata requests sent.
    pub metadata_requests: u64,
    /// Records sent again though they may be in the log.
    pub resent_in_doubt: u64,
    /// Milliseconds of pauses that brokers imposed for the sake of quotas, all of them together.
    pub throttled_ms: u64,
    /// Connections that broke or could not be made.
    pub broken_connections: u64,
}
