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
    accepted_cnt: Counter, "messages", "Messages that log() took.";
    succ_msg_cnt: Counter, "messages", "Messages that were acknowledged as request_required_acks asks.";
    fail_msg_cnt: Counter, "messages", "Messages that could not be delivered: they were written to a backup file, or handled by failed_cb.";
    fail_in_doubt_cnt: Counter, "messages", "Messages of fail_msg_cnt that may be in Kafka as well, because an answer was lost.";
    evicted_cnt: Counter, "messages", "Messages that were moved out of a queue that filled up, because their partition could not be reached. Each is counted in fail_msg_cnt as well or, with overflow = \"drop_oldest\", in dropped_cnt.";
    dropped_cnt: Counter, "messages", "Messages that overflow = \"drop_oldest\" dropped, because the queue was full and the backup took nothing, or not as fast.";
    resent_in_doubt_cnt: Counter, "messages", "Messages that were sent again as new ones although they may be in Kafka, because the broker had forgotten their producer.";
    adopted_cnt: Counter, "messages", "Messages that were taken over from workers that were killed.";
    rejected_cnt: Counter, "messages", "Messages that log() refused: the queue was full, they were too large, or their topic's name was wrong.";
    headers_left_out_cnt: Counter, "messages", "Messages that were sent without their headers, because the broker is older than Kafka 0.11. One that is sent again counts again.";
    waitbuf: Gauge, "messages", "Messages that are in flight: they are being sent, or were sent and have no answer yet.";
    queue_messages: Gauge, "messages", "Messages in the queue: log() took them, and they are neither acknowledged nor in a backup file.";
    queue_bytes: Gauge, "bytes", "The space of the queue that is in use, in whole segments up to the newest message.";
    queue_segments_by_log: Counter, "segments", "Segments of the queue for which log() itself had to ask the system for memory, because a burst outran the driver thread.";
    replayed_cnt: Counter, "messages", "Messages that were sent again from the backup files and acknowledged.";
    replay_waiting_bytes: Gauge, "bytes", "What is to be sent again from the backup files. The worker that replays tells it; in the others it is 0.";
    replay_poison_cnt: Counter, "lines", "Lines that were moved to a ~bad file, because they are no lines or Kafka will never take them.";
    backup_refused_cnt: Counter, "times", "How often a backup file did not take what was to be written: the disk was full, backup_total_bytes was reached, or the like.";
    spill_waiting: Gauge, "messages", "Messages that could not be delivered and wait for the backup file to take them.";
    batches_sent: Counter, "batches", "Batches in Produce requests, repetitions included.";
    batch_records_max: Gauge, "messages", "The number of messages in the largest batch so far.";
    requests_sent: Counter, "requests", "Produce requests that were sent.";
    request_bytes_sent: Counter, "bytes", "The bytes of Produce requests that were sent.";
    batches_retried: Counter, "batches", "Batches that had to be sent again.";
    metadata_requests_sent: Counter, "requests", "Metadata requests that were sent.";
    connections_opened: Counter, "connections", "Connections that reached a broker.";
    certificate_expires_s: Gauge, "seconds", "The time until the first certificate expires of those in use: the client certificate, and those that brokers have shown. It is 0 without TLS, and when one has expired.";
    connections_broken: Counter, "connections", "Connections that could not be made, or broke.";
    throttle_ms: Counter, "milliseconds", "The pauses that brokers imposed because a quota was used up, those of all brokers together.";
    wakeups: Counter, "times", "How often the driver thread was woken, or a timer was due.";
    driver_restarts: Counter, "times", "How often the driver was restarted after a fault of its own.";
    log_lines_dropped: Counter, "lines", "Log lines that were left out because too many waited for nginx.";
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
