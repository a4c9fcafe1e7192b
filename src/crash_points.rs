//! Places at which a test build kills its own process, as `kill -9` would, panics, or hangs, to see that nothing is
//! lost there. Without the feature `crash_points` nothing of it is built.
//!
//! `LKFK_CRASH_AT=name:n` in the environment names one of [`POINTS`] and its n-th passage, from 1;
//! `LKFK_PANIC_AT` likewise. Tests in the same process say `hold(name)`.

/// All places. Each is passed by the name that stands here.
pub const POINTS: &[&str] = &[
    // The writer: what lies beyond the tail is not there.
    "topic copied",
    "slot wrapped",
    "slot begun",
    "slot copied",
    "slot published",
    // A batch with numbers, before and after it goes out.
    "record half stamped",
    "batch half stamped",
    "batch stamped",
    "batch sent",
    // What is left in doubt at exit.
    "half of a batch to be carried over",
    "queue to be carried over",
    "batches carried over",
    // The reader.
    "slot done",
    "slots released",
    // A queue file that is made, or removed by its owner.
    "queue unfinished",
    "queue made",
    "queue to be removed",
    // The backup.
    "chunk to be written",
    "half a chunk written",
    "chunk written",
    "spilled",
    "rest written",
    // A backup file that is sent again.
    "chunk replayed",
    "progress noted",
    "backup file removed",
    // A dead worker's file.
    "adopted",
    "adopted record read",
    "adopted file to be removed",
];

/// Dies here if this is the place and the passage.
#[cfg(not(feature = "crash_points"))]
#[inline(always)]
pub fn crash_point(_name: &'static str) {}

/// Dies here if this is the place and the passage.
#[cfg(feature = "crash_points")]
pub fn crash_point(name: &'static str) {
    drop(CHANGED.wait_while(held(), |held| *held == Some(name)));
    if chosen_by("LKFK_PANIC_AT", &PANIC, name) {
        panic!("told to panic at {name}");
    }
    if is_next(name) {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(feature = "crash_points")]
static HELD: std::sync::Mutex<Option<&'static str>> = std::sync::Mutex::new(None);
#[cfg(feature = "crash_points")]
static CHANGED: std::sync::Condvar = std::sync::Condvar::new();

#[cfg(feature = "crash_points")]
fn held() -> std::sync::MutexGuard<'static, Option<&'static str>> {
    HELD.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Everybody who comes to this place waits there until what this gives is dropped. One place at a time.
#[cfg(feature = "crash_points")]
pub fn hold(name: &'static str) -> Held {
    assert!(POINTS.contains(&name), "{name} is not among the points");
    assert_eq!(held().replace(name), None);
    Held(())
}

/// See [`hold`].
#[cfg(feature = "crash_points")]
pub struct Held(());

#[cfg(feature = "crash_points")]
impl Drop for Held {
    fn drop(&mut self) {
        *held() = None;
        CHANGED.notify_all();
    }
}

/// Counts a passage; true when the process is to die at this one.
#[cfg(feature = "crash_points")]
pub fn is_next(name: &'static str) -> bool {
    chosen_by("LKFK_CRASH_AT", &CRASH, name)
}

/// The place that was chosen, if one was, the passage, and how often it was passed so far.
#[cfg(feature = "crash_points")]
type Chosen = std::sync::OnceLock<Option<(String, u64, std::sync::atomic::AtomicU64)>>;

#[cfg(feature = "crash_points")]
static CRASH: Chosen = Chosen::new();
#[cfg(feature = "crash_points")]
static PANIC: Chosen = Chosen::new();

#[cfg(feature = "crash_points")]
fn chosen_by(variable: &str, chosen: &'static Chosen, name: &'static str) -> bool {
    assert!(POINTS.contains(&name), "{name} is not among the points");
    let chosen = chosen.get_or_init(|| {
        let chosen = std::env::var(variable).ok()?;
        let (name, passage) = chosen.rsplit_once(':').expect("name:n");
        Some((name.to_owned(), passage.parse().expect("a number"), 0.into()))
    });
    chosen.as_ref().is_some_and(|(place, passage, passed)| {
        let order = std::sync::atomic::Ordering::Relaxed;
        place == name && passed.fetch_add(1, order) + 1 == *passage
    })
}
