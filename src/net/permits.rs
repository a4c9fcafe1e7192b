//! How many connections the producers of a worker may have open together. How many brokers there are to connect to is
//! the peer's word, and the descriptors are nginx's as well: it accepts nobody when none is left.
//!
//! Invariant: all producers together have at most `most`. One of them has at most seven times as many as are free
//! (dynamic thresholds, Choudhury and Hahne, 1998), so whatever its cluster names, it leaves an eighth to the others.

use rustix::process::{Resource, getrlimit};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most that a worker has, however many descriptors it may have.
const MOST: usize = 256;
/// One of so many descriptors is for connections to brokers.
const SHARE: u64 = 8;
/// What one producer may have, in terms of what is free.
const TIMES_FREE: usize = 7;

/// Open connections of this process.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// The permits of one producer's connections. Clones are the same producer's.
#[derive(Debug, Clone)]
pub struct ConnectionPermits {
    most: usize,
    own: Arc<AtomicUsize>,
    all: &'static AtomicUsize,
}

/// Leave to have a connection, for as long as it is kept.
#[derive(Debug)]
pub(super) struct ConnectionPermit(ConnectionPermits);

impl ConnectionPermits {
    /// Those of a new producer of this process.
    pub fn of_this_process() -> ConnectionPermits {
        // A process without a limit counts as one with a high limit.
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let most = usize::try_from(descriptors / SHARE).unwrap_or(MOST).clamp(1, MOST);
        ConnectionPermits::sharing(most, &OPEN)
    }

    fn sharing(most: usize, all: &'static AtomicUsize) -> ConnectionPermits {
        ConnectionPermits { most, own: Arc::default(), all }
    }

    /// The most that all producers of the worker have together.
    pub fn most(&self) -> usize {
        self.most
    }

    /// The most that this producer has, when no other has one.
    pub fn most_of_one(&self) -> usize {
        (self.most * TIMES_FREE).div_ceil(TIMES_FREE + 1)
    }

    /// Leave to have one connection more, if there is.
    pub(super) fn take(&self) -> Option<ConnectionPermit> {
        let own = self.own.load(Ordering::Relaxed);
        let one_more = |all: usize| {
            let free = self.most.saturating_sub(all);
            (own < free * TIMES_FREE).then_some(all + 1)
        };
        self.all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        self.own.fetch_add(1, Ordering::Relaxed);
        Some(ConnectionPermit(self.clone()))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.own.fetch_sub(1, Ordering::Relaxed);
        self.0.all.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(permits: &ConnectionPermits) -> Vec<ConnectionPermit> {
        std::iter::from_fn(|| permits.take()).collect()
    }

    #[test]
    fn flt_12_a_producer_leaves_connections_to_the_others_and_all_keep_to_the_limit() {
        static ALL: AtomicUsize = AtomicUsize::new(0);
        let producers: Vec<_> = (0..20).map(|_| ConnectionPermits::sharing(256, &ALL)).collect();
        let greedy = take_all(&producers[0]);
        assert_eq!((greedy.len(), producers[0].most_of_one()), (224, 224));
        let others: Vec<_> = producers[1..].iter().map(take_all).collect();
        // Each of those is as greedy: what they leave is an eighth of what was left to them.
        assert_eq!([others[0].len(), others[1].len()], [28, 4]);
        assert!(ALL.load(Ordering::Relaxed) <= 256);
        drop(others);
        drop(greedy);
        assert_eq!(ALL.load(Ordering::Relaxed), 0);
        assert_eq!(take_all(&producers[1]).len(), 224);
    }

    #[test]
    fn a_worker_with_hardly_any_descriptors_has_one_connection() {
        static ALL: AtomicUsize = AtomicUsize::new(0);
        for most in 1..20 {
            let permits = ConnectionPermits::sharing(most, &ALL);
            assert_eq!(take_all(&permits).len(), permits.most_of_one());
        }
        assert_eq!(take_all(&ConnectionPermits::sharing(1, &ALL)).len(), 1);
    }
}
