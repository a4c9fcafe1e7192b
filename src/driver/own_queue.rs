//! The queue file of a worker: where it is made, and what it is called.

use super::context::{Shared, wall_ms};
use super::report::queue::QueueReport;
use crate::config::Config;
use crate::producer::Time;
use crate::queue::{Owner, Queue, QueueDir, QueueError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes the worker's queue file: below `backpath` when `queue_path` cannot hold it, and in memory without a file when
/// only the kind of file system is against it.
pub(super) fn make(
    config: &Config,
    owner: Owner<'_>,
    shared: &Shared,
) -> Result<Queue, QueueError> {
    let (queue_path, backpath) = (&*config.queue.queue_path, &*config.backup.backpath);
    let bytes = config.queue.bytes();
    let make_below = |parent: &Path| -> Result<Queue, QueueError> {
        let dir = Arc::new(QueueDir::open(parent)?);
        Queue::create(dir, owner, &unique(shared.now()), bytes, wall_ms())
    };
    let error = match make_below(queue_path) {
        Err(error) if !matches!(error, QueueError::FileSizeLimit { .. }) => error,
        result => return result,
    };
    let other = match make_below(backpath) {
        Err(other) => other,
        Ok(queue) => {
            shared.report(&QueueReport::InBackpath { error: &error });
            return Ok(queue);
        }
    };
    if ![&error, &other].iter().any(|error| matches!(error, QueueError::UnfitFileSystem { .. })) {
        return Err(error);
    }
    let dir = QueueDir::open(queue_path).or_else(|_| QueueDir::open(backpath))?;
    let queue = Queue::anonymous(Arc::new(dir), owner, bytes, wall_ms())?;
    shared.report(&QueueReport::WithoutFile { errors: [&error, &other] });
    Ok(queue)
}

/// What no other queue file has in its name, ever: process ids repeat, in containers at each start.
pub(super) fn unique(now: Time) -> String {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let made = MADE.fetch_add(1, Ordering::Relaxed);
    let moment = (now.0 << 20) ^ (made << 52) ^ wall_ms() as u64;
    format!("{}-{moment:x}", std::process::id())
}
