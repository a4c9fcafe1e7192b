//! Buffers of requests, used again once they are written. A fresh one of a megabyte costs a page fault for
//! each four kilobytes of it, which is more than encoding into it.

use std::sync::{Arc, Mutex, MutexGuard};

/// Buffers that are kept.
const KEPT: usize = 4;
/// Largest buffer that is kept.
const LARGEST: usize = 2 << 20;

/// The buffers of one driver. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct FramePool(Arc<Mutex<Vec<Vec<u8>>>>);

impl FramePool {
    fn kept(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// An empty buffer with room for at least `capacity` bytes.
    pub fn take(&self, capacity: usize) -> Vec<u8> {
        let mut buffer = self.kept().pop().unwrap_or_default();
        buffer.reserve(capacity);
        buffer
    }

    /// Gives a buffer back.
    pub fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.kept();
        if kept.len() < KEPT && buffer.capacity() <= LARGEST {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_empty_and_large_or_many_ones_are_let_go() {
        let pool = FramePool::default();
        let mut buffer = pool.take(1000);
        buffer.extend_from_slice(b"request");
        let address = buffer.as_ptr();
        pool.give(buffer);
        let again = pool.take(10);
        assert!(again.is_empty() && again.as_ptr() == address);
        pool.give(Vec::with_capacity(LARGEST + 1));
        assert!(pool.kept().is_empty());
        for _ in 0..10 {
            pool.give(Vec::with_capacity(10));
        }
        assert_eq!(pool.kept().len(), KEPT);
    }
}
