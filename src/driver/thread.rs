//! The driver's thread: started in a worker, restarted after a fault, stopped within a bound.
//!
//! All signals are blocked in it, since nginx's handlers expect to run on nginx's thread, and it may run on
//! every processor, since nginx may have pinned the worker to one. Nothing here runs before the fork: the
//! thread would not survive it.

#![allow(clippy::disallowed_methods, reason = "this is the thread that has a clock and may wait")]

use super::disk::{Disk, Tool};
use super::sources::Dirs;
use super::spill::{self, Backup};
use super::{Events, Level, Lines, Run, Shared, rest};
use crate::backup::{BackupDir, BackupError, Limits};
use crate::config::Config;
use crate::queue::{Owner, Provisioner, Queue, QueueDir, QueueError, Reader, Writer};
use crate::stats::{self, Stats};
use rustix::event::{EventfdFlags, eventfd};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pause before the first restart; doubled each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A run that lasted this long starts the pauses anew.
const GOOD_RUN: Duration = Duration::from_secs(60);
/// What writing the rest to the backup may take at exit, beyond `exit_timeout_ms`.
const SPILL_GRACE: Duration = Duration::from_secs(5);

/// How often somebody who waits for the end of the thread looks whether there is less time.
const HURRY_EVERY: Duration = Duration::from_millis(50);

/// Why the driver could not be started. Nothing runs and no file is left when this is returned.
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

/// A running driver, seen from nginx's thread.
pub struct Driver {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
    finished: Arc<(Mutex<bool>, Condvar)>,
}

impl Driver {
    /// Makes queue and backup directory and starts the thread. `instance` tells nginx instances on one host
    /// apart. Returns the driver and the queue's writing end.
    pub fn start(config: Config, instance: &str) -> Result<(Driver, Writer), StartError> {
        let limits = Limits { file: config.backup_max_bytes, total: config.backup_total_bytes };
        let backup = BackupDir::open(&config.backpath, limits)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| StartError::System("eventfd", errno.into()))?;
        let shared = Arc::new(Shared {
            stats: Stats::default(),
            lines: Lines::default(),
            events: Events::default(),
            wake,
            flush: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            stop_by: AtomicU64::new(u64::MAX),
            start: Instant::now(),
        });
        let queue = Arc::new(make_queue(&config, instance, &shared)?);
        // What the first messages need; if there is no memory for it now, there may be later.
        Provisioner::new(&queue).turn(shared.now_ms());
        // Another worker's queue may lie in the other of the two places.
        let parents = [&config.queue_path, &config.backpath].map(Clone::clone);
        let dirs = Dirs::new(queue.dir().clone(), &parents);
        let writer =
            Writer::new(&queue, config.queue_buffering_max_messages, config.message_max_bytes);
        let finished = Arc::new((Mutex::new(false), Condvar::new()));
        let thread = spawn(Body {
            config,
            shared: shared.clone(),
            queue: queue.clone(),
            dirs,
            instance: instance.to_owned(),
            backup: Tool::new(backup),
            finished: finished.clone(),
        });
        match thread {
            Ok(thread) => Ok((Driver { shared, queue, thread: Some(thread), finished }, writer)),
            Err(error) => {
                // The file is empty; if it cannot be removed the next start will find that out.
                let _ = queue.remove();
                Err(StartError::System("cannot start a thread", error))
            }
        }
    }

    /// What is shared with the thread.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Sets when a stopping driver gives up; returns when that is, on its clock.
    fn stop_within(&self, limit: Duration) -> Duration {
        let by = self.shared.start.elapsed() + limit;
        self.shared.stop_by.store(by.as_micros() as u64, Ordering::Relaxed);
        by
    }

    /// The worker begins to leave: others adopt queues and send backup files again from now on, perhaps by another
    /// configuration than ours.
    pub fn leave(&self) {
        self.shared.leaving.store(true, Ordering::Release);
        self.shared.signal();
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

    /// Flushes for at most `limit`, writes the rest to the backup and ends the thread. `hurry` is asked meanwhile
    /// whether less than that is left, and how much. Returns false when the thread did not end in time; its queue file
    /// then keeps what is left.
    pub fn stop(&mut self, limit: Duration, hurry: impl Fn() -> Option<Duration>) -> bool {
        let mut by = self.stop_within(limit);
        self.shared.stop.store(true, Ordering::Release);
        self.shared.signal();
        let (finished, changed) = &*self.finished;
        let mut ended = finished.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while !*ended && self.shared.start.elapsed() < by + SPILL_GRACE {
            let waited = changed.wait_timeout(ended, HURRY_EVERY);
            ended = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
            if let Some(left) = hurry()
                && self.shared.start.elapsed() + left < by
            {
                by = self.stop_within(left);
                self.shared.signal();
            }
        }
        let has_ended = *ended;
        drop(ended);
        if has_ended && let Some(thread) = self.thread.take() {
            // The thread has said its last word; it cannot have panicked after that.
            let _ = thread.join();
        }
        has_ended
    }
}

/// Makes the worker's queue file, below `backpath` when `queue_path` cannot hold it.
fn make_queue(config: &Config, instance: &str, shared: &Shared) -> Result<Queue, StartError> {
    let bytes = config.queue_buffering_max_kbytes * 1024;
    let make = |parent: &Path| -> Result<Queue, QueueError> {
        let dir = Arc::new(QueueDir::open(parent)?);
        let owner = Owner::of_default_producer(instance);
        Queue::create(dir, owner, &unique_name(shared), bytes, super::wall_ms())
    };
    match make(&config.queue_path) {
        Ok(queue) => Ok(queue),
        Err(error @ QueueError::FileSizeLimit { .. }) => Err(error.into()),
        Err(error) => {
            let Ok(queue) = make(&config.backpath) else { return Err(error.into()) };
            let text = format_args!("{error}; the queue lies in backpath instead, which is slower");
            shared.lines.put(shared.now(), Level::Warn, "queue_path", "", text);
            Ok(queue)
        }
    }
}

/// What no other queue file has in its name, ever: process ids repeat, in containers at each start.
fn unique_name(shared: &Shared) -> String {
    let moment = shared.start.elapsed().as_nanos() as u64 ^ super::wall_ms() as u64;
    format!("{}-{moment:x}", std::process::id())
}

/// What the thread owns.
struct Body {
    config: Config,
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    dirs: Dirs,
    instance: String,
    backup: Backup,
    finished: Arc<(Mutex<bool>, Condvar)>,
}

/// Starts the thread with all signals blocked.
fn spawn(body: Body) -> std::io::Result<JoinHandle<()>> {
    // SAFETY: an all-zero sigset_t is a valid value to be filled by the calls below.
    let (mut all, mut before): (libc::sigset_t, libc::sigset_t) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    // SAFETY: both sets are live locals. The thread inherits the full mask, so no signal can reach it
    // between its start and a mask of its own; this thread's mask is put back right after.
    unsafe {
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
    }
    let thread = std::thread::Builder::new().name("lkfk".into()).spawn(move || body.live());
    // SAFETY: `before` is what the first call stored.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
    }
    thread
}

impl Body {
    fn live(mut self) {
        let mut everywhere = CpuSet::new();
        for cpu in 0..CpuSet::MAX_CPU {
            everywhere.set(cpu);
        }
        // Where this is forbidden the thread shares nginx's processor.
        let _ = sched_setaffinity(None, &everywhere);
        let shared = self.shared.clone();
        let disk = Disk::start(move || shared.signal());

        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            // What a fault leaves behind is dropped whole; queue and backup are built to be read anew.
            let result = catch_unwind(AssertUnwindSafe(|| self.run(&disk)));
            let fault = match result {
                Ok(Ok(())) => break,
                Ok(Err(error)) => error.to_string(),
                Err(panic) => panic_text(&*panic),
            };
            stats::add(&self.shared.stats.driver_restarts, 1);
            let text = format_args!("driver fault, starting over from the queue: {fault}");
            self.shared.lines.put(self.shared.now(), Level::Error, "fault", "", text);
            if self.shared.stop.load(Ordering::Acquire) {
                break;
            }
            if began.elapsed() > GOOD_RUN {
                pause = FIRST_PAUSE;
            }
            let until = Instant::now() + pause;
            while Instant::now() < until && !self.shared.stop.load(Ordering::Acquire) {
                std::thread::sleep(FIRST_PAUSE / 4);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        // The rest is nobody's but the backup's; a fault here leaves it in the queue file.
        let saved = catch_unwind(AssertUnwindSafe(|| self.save_rest()));
        if !matches!(saved, Ok(true)) {
            let path = self.queue.path();
            let text = format_args!("messages are left in {}", path.display());
            self.shared.lines.put(self.shared.now(), Level::Error, "left", "", text);
        }
        let (finished, changed) = &*self.finished;
        *finished.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = true;
        changed.notify_all();
    }

    fn run(&mut self, disk: &Disk) -> std::io::Result<()> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (dirs, instance) = (&mut self.dirs, &self.instance);
        // Caught here as well, so that the runtime is not dropped by the panic: that would wait for a name
        // resolution that hangs.
        let result = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(async {
                let (config, queue) = (&self.config, &self.queue);
                let backup = &mut self.backup;
                Run::new(config, &self.shared, queue, dirs, instance, disk, backup).serve().await
            })
        }));
        runtime.shutdown_background();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Writes what is left in the queue to the backup and removes the file. False when something could not
    /// be saved: then the file stays.
    fn save_rest(&mut self) -> bool {
        let Some(backup) = self.backup.here() else { return false };
        let mut appended = true;
        while let Some((topic, text)) = self.shared.events.take_append() {
            if let Err(error) = spill::append(backup, &topic, &text) {
                self.shared.lines.put(self.shared.now(), Level::Error, "append", &topic, error);
                appended = false;
            }
        }
        let mut rest = rest::Rest::new(Reader::new(&self.queue), backup);
        let result = rest.save();
        let (saved, open) = (rest.saved(), rest.open());
        let carried = match open {
            0 => Ok(()),
            // In place, unless that goes with the machine and backpath does not, or nobody would find it.
            _ if self.queue.has_a_name()
                && self.queue.dir().path() == QueueDir::path_below(&self.config.backpath) =>
            {
                Ok(())
            }
            _ => QueueDir::open(&self.config.backpath).map_err(rest::CarryError::from).and_then(
                |dir| {
                    let owner = Owner::of_default_producer(&self.instance);
                    let unique = unique_name(&self.shared);
                    rest.carry_over(Arc::new(dir), owner, &unique, super::wall_ms())
                },
            ),
        };
        let (now, lines) = (self.shared.now(), &self.shared.lines);
        if saved > 0 {
            stats::add(&self.shared.stats.fail_msg_cnt, saved);
            let text = format_args!(
                "exit: {saved} messages were not acknowledged in time and went to {}",
                self.config.backpath.display()
            );
            lines.put(now, Level::Warn, "exit", "", text);
        }
        if open > 0 {
            let text = format_args!(
                "exit: {open} messages were sent and not acknowledged; the next worker repeats them"
            );
            lines.put(now, Level::Warn, "open", "", text);
        }
        if let Err(error) = result {
            lines.put(now, Level::Error, "save", "", error);
            return false;
        }
        if let Err(error) = carried {
            let path = self.queue.path();
            let text = format_args!("{error}; they stay in {}", path.display());
            lines.put(now, Level::Warn, "carry", "", text);
            return appended;
        }
        if self.queue.waiting() > 0 {
            return appended;
        }
        crate::crash_points::crash_point("queue to be removed");
        (!self.queue.has_a_name() || self.queue.remove().is_ok()) && appended
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".into())
}
