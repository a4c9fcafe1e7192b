//! The statistics of one worker: one table of names, kinds and units, from which the struct, the Lua table
//! and the manual come. Written with relaxed stores by the thread that owns the fact, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering};

/// Whether a value only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Grows until the worker exits.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A value's row in the manual.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Name, also in `kfk.stats()`.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// Unit.
    pub unit: &'static str,
    /// What it says.
    pub text: &'static str,
    read: fn(&Stats) -> &AtomicU64,
}

macro_rules! stats {
    ($( $name:ident: $kind:ident, $unit:literal, $text:literal; )*) => {
        /// The values, described in [`ROWS`].
        #[derive(Debug, Default)]
        #[allow(missing_docs, reason = "the texts are in ROWS, from which the manual is printed")]
        pub struct Stats { $( pub $name: AtomicU64, )* }

        /// Every value, in the manual's order.
        pub const ROWS: &[Row] = &[ $( Row {
            name: stringify!($name),
            kind: Kind::$kind,
            unit: $unit,
            text: $text,
            read: |stats| &stats.$name,
        }, )* ];
    };
}

stats! {
    accepted_cnt: Counter, "messages", "Taken by log().";
    succ_msg_cnt: Counter, "messages", "Acknowledged as request_required_acks asks.";
    fail_msg_cnt: Counter, "messages", "Given up and written to a backup file.";
    fail_in_doubt_cnt: Counter, "messages", "Among those: may be in Kafka as well, because an answer was lost.";
    evicted_cnt: Counter, "messages", "Among those: moved because the queue was filling up and their partition could not be reached.";
    dropped_cnt: Counter, "messages", "Dropped by overflow = \"drop_oldest\", because the queue was full and the backup took nothing, or not as fast.";
    resent_in_doubt_cnt: Counter, "messages", "Sent again although they may be in Kafka, because the broker had forgotten who sent them.";
    adopted_cnt: Counter, "messages", "Taken over from workers that were killed.";
    rejected_cnt: Counter, "messages", "Refused by log(): queue full, too large, bad topic.";
    waitbuf: Gauge, "messages", "In flight: sent, or being sent, and not answered yet.";
    queue_messages: Gauge, "messages", "In the queue: taken, and neither acknowledged nor in a backup file.";
    queue_bytes: Gauge, "bytes", "Space of the queue in use, in whole segments up to the newest message.";
    queue_segments_by_log: Counter, "segments", "Segments of the queue for which log() itself had to ask the system for memory, because a burst outran the driver thread.";
    replayed_cnt: Counter, "messages", "Sent again from the backup files and acknowledged.";
    replay_waiting_bytes: Gauge, "bytes", "In the backup files, to be sent again. Told by the worker that replays; 0 in the others.";
    replay_poison_cnt: Counter, "lines", "Moved to a ~bad file: no lines, or such that Kafka will never take.";
    backup_refused_cnt: Counter, "times", "A backup file did not take what was to be written: disk full, backup_total_bytes reached, or the like.";
    spill_waiting: Gauge, "messages", "Given up, and waiting for the backup file to take them.";
    batches_sent: Counter, "batches", "Batches in Produce requests, repetitions included.";
    batch_records_max: Gauge, "messages", "Largest batch so far.";
    requests_sent: Counter, "requests", "Produce requests.";
    request_bytes_sent: Counter, "bytes", "Bytes of Produce requests.";
    batches_retried: Counter, "batches", "Batches to be sent again.";
    metadata_requests_sent: Counter, "requests", "Metadata requests.";
    connections_opened: Counter, "connections", "Connections that reached a broker.";
    connections_broken: Counter, "connections", "Connections that could not be made, or broke.";
    throttle_ms: Counter, "milliseconds", "Pauses that brokers imposed because a quota was used up, those of all brokers together.";
    wakeups: Counter, "times", "The driver thread was woken or a timer was due.";
    driver_restarts: Counter, "times", "The driver thread was restarted after a fault of its own.";
    log_lines_dropped: Counter, "lines", "Log lines left out because they came too fast.";
}

impl Row {
    /// Its value.
    pub fn value(&self, stats: &Stats) -> u64 {
        (self.read)(stats).load(Ordering::Relaxed)
    }
}

/// Sets a value.
pub fn set(value: &AtomicU64, to: u64) {
    value.store(to, Ordering::Relaxed);
}

/// Adds to a value.
pub fn add(value: &AtomicU64, count: u64) {
    value.fetch_add(count, Ordering::Relaxed);
}
