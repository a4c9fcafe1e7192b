//! The names by which the producer and its caller speak of records, topics, connections and requests.

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
