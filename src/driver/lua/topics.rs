//! What the event loop may know of topics: how many partitions they have, and how many messages wait for each.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// Topic ids that there may be: a slot has 16 bits for one.
const TOPICS: usize = 1 << 16;

/// Messages that wait: topic, partition (-1: no metadata yet), count.
pub type Row = (Arc<str>, i64, u64);

#[derive(Debug, Default)]
struct Waiting {
    rows: Arc<Vec<Row>>,
    /// Those before, which Lua may still be reading: many are freed on the driver's thread.
    before: Arc<Vec<Row>>,
}

/// The exchange.
#[derive(Debug, Default)]
pub struct Topics {
    /// Partition counts by the queue's topic ids, 0 when unknown. Not under a lock, since `log()` asks for them.
    partitions: OnceLock<Box<[AtomicU32]>>,
    waiting: Mutex<Waiting>,
    waiting_wanted: AtomicBool,
}

impl Topics {
    fn rows(&self) -> MutexGuard<'_, Waiting> {
        // Replaced whole, so that a panic leaves nothing torn.
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Event loop: the number of partitions of the topic with this id of the queue's, when it is known. Waits for
    /// nothing.
    pub fn partition_count(&self, topic: usize) -> Option<u32> {
        let count = self.partitions.get()?.get(topic)?.load(Ordering::Relaxed);
        (count > 0).then_some(count)
    }

    /// Event loop: the messages that waited when the driver last looked, which it does again after each call.
    /// There may be many partitions: nothing of them is copied.
    pub fn waiting(&self) -> Arc<Vec<Row>> {
        self.waiting_wanted.store(true, Ordering::Release);
        self.rows().rows.clone()
    }

    pub(in crate::driver) fn set_partition_counts(&self, counts: impl Iterator<Item = u32>) {
        let all = || (0..TOPICS).map(|_| AtomicU32::new(0)).collect();
        for (known, count) in self.partitions.get_or_init(all).iter().zip(counts) {
            known.store(count, Ordering::Relaxed);
        }
    }

    pub(in crate::driver) fn set_waiting_if_wanted<'a>(
        &self,
        waiting: impl Iterator<Item = (&'a str, Option<u32>, usize)>,
    ) {
        if self.waiting_wanted.swap(false, Ordering::AcqRel) {
            let mut rows: Vec<Row> = Vec::new();
            for (topic, partition, count) in waiting {
                // A topic's partitions come one after the other, and share its name.
                let before = rows.last().map(|(name, ..)| name).filter(|name| ***name == *topic);
                let name = before.cloned().unwrap_or_else(|| topic.into());
                rows.push((name, partition.map_or(-1, i64::from), count as u64));
            }
            let rows = Arc::new(rows);
            // There may be many partitions: nothing is made or freed under the lock.
            let mut waiting = self.rows();
            let before = std::mem::replace(&mut waiting.rows, rows);
            let unused = std::mem::replace(&mut waiting.before, before);
            drop(waiting);
            drop(unused);
        }
    }
}
