//! A running producer, seen from nginx's thread: started in a worker, stopped within a bound.

use super::context::{Shared, wall_ms};
use super::lua::bell::BellError;
use super::own_queue;
use super::records::adoption::QueueDirs;
use super::report::driver::DriverReport;
use super::task::{Finished, ProducerTask};
use super::thread;
use super::undelivered::disk::Offloaded;
use crate::backup::{self, BackupDir, BackupError, Limits};
use crate::config::Config;
use crate::queue::{Owner, Provisioner, Queue, QueueError, Writer};
use rustix::event::{EventfdFlags, eventfd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What writing the rest to the backup may take at exit, beyond the limit of [`Driver::begin_stop`].
const SPILL_GRACE: Duration = Duration::from_secs(5);
/// How often somebody who waits for the end of a producer looks whether there is less time.
const HURRY_EVERY: Duration = Duration::from_millis(50);

/// Why a producer could not be started. Nothing runs and no file is left when this is returned.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The queue file.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The backup directory.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The system has no thread or descriptor for us.
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
}

/// A running producer, seen from nginx's thread.
pub struct Driver {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    finished: Arc<Finished>,
}

impl Driver {
    /// Makes queue and backup directory, and starts the producer on the driver thread of this process. `name` is the
    /// producer's, empty for the default one; `instance` tells nginx instances on one host apart. Returns the producer
    /// and its queue's writing end.
    pub fn start(
        mut config: Config,
        name: &str,
        instance: &str,
    ) -> Result<(Driver, Writer), StartError> {
        config.backup.backpath = backup::directory_of(&config.backup.backpath, name);
        let Config { queue: queue_config, backup: backup_config, delivery, .. } = &config;
        let limits = Limits {
            file: backup_config.backup_max_bytes,
            total: backup_config.backup_total_bytes,
        };
        let backup = BackupDir::open(&backup_config.backpath, limits)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| StartError::System("eventfd", errno.into()))?;
        let shared = Arc::new(Shared::new(wake));
        let owner = Owner { instance, producer: name };
        let queue = Arc::new(own_queue::make(&config, owner, &shared)?);
        // What the first messages need; if there is no memory for it now, there may be later.
        Provisioner::new(&queue).turn(shared.now().0 / 1000);
        // Another worker's queue may lie in the other of the two places.
        let parents = [&queue_config.queue_path, &backup_config.backpath].map(Clone::clone);
        let dirs = QueueDirs::new(&queue, &parents);
        let most = queue_config.queue_buffering_max_messages;
        let writer = Writer::new(&queue, most, delivery.message_max_bytes);
        let finished = Arc::new(Finished::default());
        let task = ProducerTask {
            config,
            shared: shared.clone(),
            queue: queue.clone(),
            dirs,
            instance: instance.to_owned(),
            name: name.to_owned(),
            backup: Offloaded::new(backup),
            finished: finished.clone(),
        };
        match thread::run(task) {
            Ok(()) => Ok((Driver { shared, queue, finished }, writer)),
            Err(error) => {
                // The file is empty; if it cannot be removed the next start will find that out.
                let _ = queue.remove();
                Err(StartError::System("cannot start a thread", error))
            }
        }
    }

    /// What is shared with the driver thread.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The worker begins to leave: others adopt queues and send backup files again from now on, perhaps by another
    /// configuration than ours. Nobody waits for the bell any more: who reads it would hold nginx up.
    pub fn leave(&self) {
        self.shared.leave();
    }

    /// Path of the socket at which the bell of this process is heard.
    pub fn bell_path(&self) -> Result<PathBuf, BellError> {
        let unique = (self.shared.now().0 << 20) ^ wall_ms() as u64;
        self.shared.bell.listen(self.queue.dir().path(), unique)
    }

    /// Sends everything up to `position` without lingering.
    pub fn flush(&self, position: u64) {
        self.shared.flush.fetch_max(position, Ordering::Release);
        self.shared.signal();
    }

    /// True when everything up to `position` was delivered or is in a backup file.
    pub fn is_done(&self, position: u64) -> bool {
        self.queue.head() >= position
    }

    /// Begins the end: what is queued is flushed for at most `limit`, and the rest is written to the backup. Returns at
    /// once. Called again with less than is left it shortens that.
    pub fn begin_stop(&self, limit: Duration) {
        self.shared.stop_within(limit);
    }

    /// Waits for the end that [`begin_stop`](Self::begin_stop) began. `hurry` is asked meanwhile whether less time is
    /// left, and how much. Returns false when the producer did not end in time; its queue file then keeps what is left.
    pub fn wait(&self, hurry: impl Fn() -> Option<Duration>) -> bool {
        loop {
            if self.finished.wait(HURRY_EVERY) {
                return true;
            }
            if self.shared.now() >= self.shared.stop_by() + SPILL_GRACE {
                self.shared.report(&DriverReport::NotInTime { fate: &self.queue.fate() });
                return false;
            }
            if let Some(left) = hurry() {
                self.begin_stop(left);
            }
        }
    }
}
