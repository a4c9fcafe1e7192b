//! The queue as a whole, on real mapped files: single behaviours, a plain model under random actions,
//! damaged files. Under loom: all interleavings of what both threads share.

#[cfg(not(loom))]
mod adoption;
#[cfg(not(loom))]
mod behaviour;
#[cfg(not(loom))]
mod copies;
#[cfg(not(loom))]
mod damage;
#[cfg(loom)]
mod interleavings;
#[cfg(not(loom))]
mod memory;
#[cfg(not(loom))]
mod model;
#[cfg(not(loom))]
mod segments;
#[cfg(not(loom))]
mod sent;
#[cfg(not(loom))]
mod version_2;

#[cfg(not(loom))]
use on_files::*;

#[cfg(not(loom))]
mod on_files {
    pub use super::super::*;
    pub use crate::record::{HeadersBuf, Record};
    pub use std::path::PathBuf;
    pub use std::sync::Arc;
    pub use std::sync::atomic::Ordering;

    /// Whose files those of the tests are, and the name of the first.
    pub const OWNER: Owner<'static> = Owner { instance: "q", producer: "" };
    pub const NAME: &str = "q-1.queue";

    /// A directory that goes with the test.
    pub struct Scratch(pub tempfile::TempDir);

    impl Scratch {
        pub fn new() -> Scratch {
            // In memory, as queues are, where the system has such a place.
            let scratch = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
            Scratch(scratch.expect("a scratch directory"))
        }

        pub fn dir(&self) -> Arc<QueueDir> {
            Arc::new(QueueDir::open(self.0.path()).expect("a queue directory"))
        }

        /// A queue of the smallest size.
        pub fn queue(&self) -> Queue {
            self.queue_of(layout::MIN_DATA_LEN)
        }

        pub fn queue_of(&self, data_len: u64) -> Queue {
            Queue::create(self.dir(), OWNER, "1", data_len, 0).expect("a queue")
        }
    }

    /// Logs a record as most are: with neither headers nor a time of its own.
    pub fn push(
        writer: &mut Writer,
        topic: u16,
        logged_ms: i64,
        key: Option<&[u8]>,
        payload: &[u8],
    ) -> Result<bool, PushError> {
        let record = Record::new(logged_ms, key, Some(payload));
        writer.push(topic, layout::NO_PARTITION, logged_ms, &record, Flags::NONE)
    }

    /// A record taken out: position, topic, key, payload.
    pub type Taken = (u64, u16, Option<Vec<u8>>, Vec<u8>);

    /// Reads all there is.
    pub fn drain(reader: &mut Reader) -> Result<Vec<Taken>, Damage> {
        let mut taken = Vec::new();
        while let Some(slot) = reader.read()? {
            let key = slot.record.key.map(<[u8]>::to_vec);
            taken.push((slot.position, slot.topic, key, slot.record.payload.unwrap().to_vec()));
        }
        Ok(taken)
    }
}
