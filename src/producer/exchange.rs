//! What goes into the producer and what comes out of it.

use super::Time;
use super::batch::Record;
use super::idempotence::Idempotence;
use crate::config::HostPort;
use crate::protocol::error_code::ErrorCode;

/// A record's name with the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(pub u64);

impl RecordId {
    /// Low bits of a name that say where in its queue the record lies; the rest says which queue.
    pub const POSITION_BITS: u32 = 48;

    /// The queue that the record lies in.
    pub fn queue(self) -> u16 {
        (self.0 >> Self::POSITION_BITS) as u16
    }
}

/// A topic, as [`Producer::topic`](super::Producer::topic) numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub u32);

/// A connection. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// A request. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A broker's node id; negative for entries of `metadata_broker_list`, whose node id is not known.
pub type BrokerId = i32;

/// A record handed in.
#[derive(Debug, Clone, Copy)]
pub struct NewRecord {
    /// Its name with the caller.
    pub id: RecordId,
    /// Its topic.
    pub topic: TopicId,
    /// [`key_hash`](super::partitioner::key_hash) of its key, `None` for a null key.
    pub key_hash: Option<u32>,
    /// Where it must go; `None`, or a partition that does not exist, leaves that to the partitioner.
    pub partition: Option<u32>,
    /// Upper bound of its encoded size.
    pub bytes: u32,
    /// When `log()` took it; not after now.
    pub born: Time,
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
    pub fate: Fate,
}

/// Delivered, or why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged as `request_required_acks` asks.
    Delivered,
    /// Given up.
    Failed {
        /// Why.
        reason: Reason,
        /// It may have been written all the same: an answer was lost, or left that open.
        in_doubt: bool,
    },
}

/// Why records were given up.
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
    /// A broker refused them.
    #[error("{0}")]
    Broker(ErrorCode),
}

/// Something worth a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
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
    },
    /// There is no producer id to be had.
    NoProducerId {
        /// Why.
        error: ErrorCode,
        /// What that means: [`Idempotence::Preferred`] goes on without, [`Idempotence::Required`] waits.
        mode: Idempotence,
    },
    /// A topic's log is in a format that takes no batch with numbers: lost answers may double its messages.
    LogWithoutNumbers {
        /// The topic.
        topic: TopicId,
    },
    /// Records that may be in the log are sent again in a way that does not keep them from being doubled.
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
    /// Connections that broke or could not be made.
    pub broken_connections: u64,
}
