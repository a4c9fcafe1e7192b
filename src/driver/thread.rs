//! The driver thread: one in a worker, on which each producer is a task. It is started with the first producer and
//! ends with the last one.
//!
//! All signals are blocked in it, since nginx's handlers expect to run on nginx's thread, and it may run on every
//! processor that nginx's master may run on, since nginx may have pinned the worker to one. Nothing here runs before the
//! fork: the thread would not survive it.

use super::task::ProducerTask;
use super::undelivered::disk::{Disk, DiskThreads};
use crate::nginx::affinity;
use std::io;
use std::sync::Mutex;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::{JoinSet, LocalSet};

/// Threads on which names are resolved and passwords hashed; further ones wait for them. A producer has at most four
/// for names and one for passwords ([`Resolver`](crate::net::Resolver), [`Authenticator`](crate::net::Authenticator)),
/// so one whose names hang takes none from another, and a thread ends when nothing was to do for a moment.
const BLOCKING_THREADS: usize = 128;

/// The way to the thread, and the process that has it: a child of fork has no thread.
struct Running {
    pid: u32,
    tasks: UnboundedSender<ProducerTask>,
}

static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

/// Has a producer run on the thread, which is started when there is none.
pub(super) fn run(task: ProducerTask) -> io::Result<()> {
    let mut running = RUNNING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let pid = std::process::id();
    let task = match &*running {
        // A thread that is about to end gives the task back.
        Some(there) if there.pid == pid => match there.tasks.send(task) {
            Ok(()) => return Ok(()),
            Err(refused) => refused.0,
        },
        _ => task,
    };
    let (tasks, given) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    tasks.send(task).map_err(io::Error::other)?;
    spawn(move || {
        runtime.block_on(LocalSet::new().run_until(serve(given)));
        // A name resolution that hangs is not waited for.
        runtime.shutdown_background();
    })?;
    *running = Some(Running { pid, tasks });
    Ok(())
}

/// Starts the thread with all signals blocked.
#[expect(clippy::disallowed_methods, reason = "the driver thread is started here, after the fork")]
fn spawn(live: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // SAFETY: an all-zero sigset_t is a valid value to be filled by the calls below.
    let (mut all, mut before): (libc::sigset_t, libc::sigset_t) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    // SAFETY: both sets are live locals. The thread inherits the full mask, so no signal can reach it
    // between its start and a mask of its own; this thread's mask is put back right after.
    unsafe {
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
    }
    let thread = std::thread::Builder::new().name("lkfk".into()).spawn(|| {
        affinity::run_where_the_master_may();
        live();
    });
    // SAFETY: `before` is what the first call stored.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
    }
    // Nobody joins it: a producer says itself when it has ended.
    thread.map(drop)
}

/// Runs producers until the last one has ended and no other was given meanwhile.
async fn serve(mut given: UnboundedReceiver<ProducerTask>) {
    let mut disks = DiskThreads::default();
    let mut producers = JoinSet::new();
    loop {
        tokio::select! {
            task = given.recv(), if !given.is_closed() || !given.is_empty() => {
                let Some(task) = task else { continue };
                let shared = task.shared.clone();
                let disk = Disk::new(disks.of(&task.config.backup.backpath), move || shared.signal());
                producers.spawn_local(task.live(disk));
            }
            // Faults are caught in the task.
            Some(_) = producers.join_next() => {
                if producers.is_empty() {
                    given.close();
                }
            }
            else => return,
        }
    }
}
