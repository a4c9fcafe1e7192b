//! The queue as a whole, on real mapped files: single behaviours, a plain model under random actions,
//! damaged files.

mod behaviour;
mod damage;
mod model;
mod sent;

use super::*;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that goes with the test.
pub(super) struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lkfk-queue-{}-{count}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a scratch directory");
        Scratch(path)
    }

    pub fn dir(&self) -> Arc<QueueDir> {
        Arc::new(QueueDir::open(&self.0).expect("a queue directory"))
    }

    /// A queue of the smallest size.
    pub fn queue(&self, name: &str) -> Queue {
        Queue::create(self.dir(), name, layout::MIN_DATA_LEN, 0).expect("a queue")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A record taken out: position, topic, key, payload.
type Taken = (u64, u16, Option<Vec<u8>>, Vec<u8>);

/// Reads all there is.
fn drain(reader: &mut Reader) -> Result<Vec<Taken>, Damage> {
    let mut taken = Vec::new();
    while let Some(slot) = reader.read()? {
        let key = slot.record.key.map(<[u8]>::to_vec);
        taken.push((slot.position, slot.topic, key, slot.record.payload.unwrap().to_vec()));
    }
    Ok(taken)
}
