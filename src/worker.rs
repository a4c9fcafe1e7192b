//! The one producer of this process. It is made by the first `init()` in a worker and outlives the Lua VM
//! that made it, so that with `lua_code_cache off` every request's VM finds it running.

use crate::config::{Config, ConfigError, Value};
use crate::driver::{Driver, Events, StartError};
use crate::ffi::{self, Handle};
use crate::nginx::termination;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The longest shutdown that is believed, so that a moment can be named for its end.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(24 * 3600);

/// Why `init()` failed.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The configuration was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The driver could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It runs already, with other values.
    #[error("already running with another configuration; reload nginx to change it")]
    Different,
    /// It was started in the process that forked this one.
    #[error(
        "started before the fork: init() must be called in init_worker_by_lua, not in init_by_lua"
    )]
    Forked,
    /// It was stopped; the process is about to exit.
    #[error("the worker is exiting")]
    Stopped,
}

/// The running producer.
pub struct Worker {
    pid: u32,
    config: Config,
    driver: Driver,
    handle: &'static Handle,
    stopped: bool,
    /// Until when nginx lets a worker live that shuts down gracefully, once it does.
    shutdown_by: Option<Instant>,
}

static WORKER: Mutex<Option<Worker>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<Worker>> {
    WORKER.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Starts the producer (`true`), or finds it running with the same configuration (`false`).
pub fn init(entries: &[(String, Value)], prefix: &str) -> Result<bool, InitError> {
    let config = Config::parse(entries, prefix)?;
    let mut worker = lock();
    if let Some(worker) = &*worker {
        return match () {
            () if worker.pid != std::process::id() => Err(InitError::Forked),
            () if worker.stopped => Err(InitError::Stopped),
            () if worker.config != config => Err(InitError::Different),
            () => Ok(false),
        };
    }
    let instance = format!("{:08x}", crc32fast::hash(prefix.as_bytes()));
    let (driver, writer) = Driver::start(config.clone(), &instance)?;
    let handle = Handle::leak(writer, driver.shared().clone(), &config.topics);
    let pid = std::process::id();
    *worker = Some(Worker { pid, config, driver, handle, stopped: false, shutdown_by: None });
    Ok(true)
}

/// Calls `f` with the producer, unless there is none or it is another process's: a forked child does not even
/// have the queue's memory.
fn with<T>(f: impl FnOnce(&Worker) -> T) -> Option<T> {
    let worker = lock();
    worker.as_ref().filter(|worker| worker.pid == std::process::id()).map(f)
}

/// What FFI callers need, when the producer runs in this process.
pub fn api() -> Option<&'static ffi::Api> {
    with(|worker| worker.handle.api())
}

/// Asks for everything logged so far to be sent; returns the position to pass to [`is_done`].
pub fn flush() -> Option<u64> {
    with(|worker| {
        let position = worker.handle.tail();
        worker.driver.flush(position);
        (!worker.stopped).then_some(position)
    })
    .flatten()
}

/// True when everything up to `position` was delivered or is in a backup file.
pub fn is_done(position: u64) -> bool {
    with(|worker| worker.driver.is_done(position)).unwrap_or(true)
}

/// Records in the queue.
pub fn waiting() -> u64 {
    with(|worker| worker.handle.waiting()).unwrap_or(0)
}

/// What Lua callbacks exchange with the driver; `None` before `init()`.
pub fn with_events<T>(use_events: impl FnOnce(&Events) -> T) -> Option<T> {
    with(|worker| use_events(&worker.driver.shared().events))
}

/// True when the user's configuration has a partitioner, which only the VM that called `init()` can run.
pub fn has_partitioner() -> bool {
    with(|worker| worker.config.partitioner.0).unwrap_or(false)
}

/// Wakes the driver, after an answer was left for it.
pub fn signal() {
    with(|worker| worker.driver.shared().signal());
}

/// nginx has begun to shut this worker down gracefully and gives it `timeout`, 0 when it set none. What
/// lingers is sent now.
pub fn shuts_down(timeout: Duration) {
    if let Some(worker) = &mut *lock()
        && worker.pid == std::process::id()
        && worker.shutdown_by.is_none()
    {
        #[allow(clippy::disallowed_methods, reason = "nginx counts from here")]
        let now = Instant::now();
        worker.shutdown_by = Some(now + timeout.min(LONGEST_SHUTDOWN));
        worker.driver.leave();
        worker.driver.flush(worker.handle.tail());
    }
}

/// Ends the producer: `log()` refuses from now on, what is queued is flushed for `exit_timeout_ms`, or for
/// what is left of nginx's own limit if that is more and nginx was not told to be fast (SIGTERM), also meanwhile; the
/// rest goes to the backup. In a forked child nothing happens.
pub fn stop() {
    let mut worker = lock();
    if let Some(worker) = &mut *worker
        && worker.pid == std::process::id()
        && !worker.stopped
    {
        worker.stopped = true;
        worker.handle.close();
        #[allow(clippy::disallowed_methods, reason = "nginx's limit is a moment")]
        let left = worker
            .shutdown_by
            .map_or(Duration::ZERO, |by| by.saturating_duration_since(Instant::now()));
        let least = Duration::from_millis(worker.config.exit_timeout_ms);
        let hurry = || termination::is_due().then_some(least);
        worker.driver.stop(hurry().unwrap_or(left.max(least)), hurry);
    }
}
