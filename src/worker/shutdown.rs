//! What ends the producers: a close by name, or the end of the process.
//!
//! The process's end is noticed in two places. nginx closes the Lua VMs just before it calls `exit()`, and has let go
//! of its configuration by then, which tells that close from any other: a request's VM, a reload in a single process.
//! Whatever else ends the process runs the handlers of `exit()`: a script of `resty`, `os.exit()`, a signal that nginx
//! answers with `exit()`. All producers are stopped together, within the limit of one.

use super::error_log::write_line;
use super::handle::Handle;
use super::producer::Producer;
use super::registry::{Registry, registry};
use crate::nginx::{cycle, termination};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::{Duration, Instant};

/// The longest shutdown that is believed, so that a moment can be named for its end.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(24 * 3600);

/// nginx has begun to shut this worker down gracefully and gives it `timeout`, 0 when it set none. What lingers is sent
/// now.
pub fn shuts_down(timeout: Duration) {
    let mut registry = registry();
    if registry.shutdown_by.is_some() {
        return;
    }
    #[allow(clippy::disallowed_methods, reason = "nginx counts from here")]
    let now = Instant::now();
    registry.shutdown_by = Some(now + timeout.min(LONGEST_SHUTDOWN));
    for producer in registry.here().filter(|producer| !producer.ends) {
        producer.driver.leave();
        producer.flush();
    }
}

/// Ends the one producer that `handle` names: its calls answer that it is closed from now on, what is queued is flushed
/// for `exit_timeout_ms`, and the rest goes to the backup. Its name is free again. Blocks as long.
pub fn close(handle: *const Handle) {
    let mut registry = registry();
    let is_meant =
        |producer: &Producer| std::ptr::eq(producer.handle(), handle) && producer.is_here();
    let Some(at) = registry.producers.iter().position(is_meant) else { return };
    let mut producer = registry.producers.remove(at);
    drop(registry);
    begin(&mut producer, None);
    let least = producer.exit_timeout();
    producer.driver.wait(|| termination::is_due().then_some(least));
    write_last_lines(&producer);
    producer.handle().close();
}

/// A Lua VM that served the producer of `handle` is closed. When nginx ends the process this ends all producers and
/// returns true. Otherwise they go on, and whoever calls `init()` next serves that one.
pub fn end_with_process(handle: *const Handle) -> bool {
    let ends = cycle::is_last();
    if ends {
        stop_all();
    } else {
        super::with(handle, |producer| producer.is_served = false);
    }
    ends
}

/// Sees to it that the end of the process is noticed, whatever brings it about.
pub(super) fn watch_exit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler is a function of this library, which is never unloaded (see build.rs). Without the
        // handler only nginx's own end is noticed.
        unsafe { libc::atexit(at_exit) };
    });
}

extern "C" fn at_exit() {
    // There is nobody left who could be told of a panic.
    let _ = catch_unwind(AssertUnwindSafe(stop_all));
}

/// Ends all producers of this process that have not been ended, within one limit: the longest `exit_timeout_ms`, or what
/// is left of nginx's own limit if that is more and nginx was not told to be fast (SIGTERM), also meanwhile. The rest
/// goes to the backup.
fn stop_all() {
    let mut registry = registry();
    let Registry { producers, shutdown_by, .. } = &mut *registry;
    let of_this_end = |producer: &&mut Producer| producer.is_here() && !producer.ends;
    let mut ending: Vec<&mut Producer> = producers.iter_mut().filter(of_this_end).collect();
    for producer in &mut ending {
        producer.driver.leave();
        begin(producer, *shutdown_by);
    }
    // Whoever is waited for first must not hold up the others' word that there is less time.
    for at in 0..ending.len() {
        let (this, others) = ending[at..].split_first_mut().expect("there is one at this place");
        let least = this.exit_timeout();
        this.driver.wait(|| {
            let is_due = termination::is_due();
            if is_due {
                others.iter().for_each(|other| other.driver.begin_stop(other.exit_timeout()));
            }
            is_due.then_some(least)
        });
        write_last_lines(this);
    }
}

/// Begins the end of a producer, which may last until `shutdown_by`, or `exit_timeout_ms` in any case.
fn begin(producer: &mut Producer, shutdown_by: Option<Instant>) {
    producer.ends = true;
    producer.handle().exit();
    let least = producer.exit_timeout();
    #[allow(clippy::disallowed_methods, reason = "nginx's limit is a moment")]
    let left =
        shutdown_by.map_or(Duration::ZERO, |by| by.saturating_duration_since(Instant::now()));
    producer.driver.begin_stop(if termination::is_due() { least } else { left.max(least) });
}

/// Nobody brings the lines of an ended producer to nginx any more.
fn write_last_lines(producer: &Producer) {
    let tag = producer.tag();
    while let Some((level, text)) = producer.shared().log.take() {
        write_line(level, &tag, text.as_bytes());
    }
}
