//! When a producer's event loop sleeps, for how long, and what wakes it.

use super::context::Context;
use crate::config::Config;
use crate::producer::{Producer, Time};
use crate::queue::Reader;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest sleep: how late a wish of nginx's event loop can be noticed if a wake-up were ever missed.
const LONGEST: Duration = Duration::from_secs(1);

pub(super) struct Sleep {
    linger: Duration,
    /// What is worth a wake-up: bytes of a full batch, and records of which the queue holds eight times as many.
    batch_bytes: u64,
    records: u64,
    /// Position up to which everything was flushed.
    flushed: u64,
    /// How far the own queue was read before the last sleep, and when what came since is looked at anyway.
    seen: u64,
    look_at: Time,
}

impl Sleep {
    pub fn new(now: Time, config: &Config) -> Sleep {
        Sleep {
            linger: config.delivery.linger(),
            batch_bytes: config.delivery.batch_size as u64,
            records: (config.queue.queue_buffering_max_messages / 8).max(1),
            flushed: 0,
            seen: 0,
            look_at: now,
        }
    }

    /// Flushes up to where nginx's event loop asked for it, and when stopping all there is.
    pub fn take_flush(&mut self, cx: &Context<'_>, reader: &Reader, producer: &mut Producer) {
        let mut wanted = cx.shared.flush.load(Ordering::Acquire);
        if cx.shared.is_stopping() {
            wanted = wanted.max(reader.tail());
        }
        if wanted > self.flushed && reader.position() >= wanted {
            self.flushed = wanted;
            producer.handle_flush(cx.now);
        }
    }

    /// Tells the writer when to wake us, and returns how long to sleep, up to `deadline` at most. `None` when there is
    /// something to do already. `waits` says that records wait, be it for their batch or for a broker.
    ///
    /// A wake-up costs `log()` a system call. So while records wait, those that come after a look that found some are
    /// left alone for as long as they would linger, which is not over before the next look: one look finds many.
    pub fn fall_asleep(
        &mut self,
        now: Time,
        reader: &Reader,
        producer: &Producer,
        deadline: Time,
        waits: bool,
    ) -> Option<Duration> {
        if deadline <= now {
            return None;
        }
        let linger = self.linger;
        let tail = reader.position();
        if tail != std::mem::replace(&mut self.seen, tail) {
            self.look_at = now + linger;
        }
        let until = deadline.min(now + LONGEST);
        let soon = deadline <= now + linger;
        let Some(read) = reader.read_count().filter(|_| waits && (soon || now < self.look_at))
        else {
            return reader.sleep_unless(tail + 1, u64::MAX).then(|| until.since(now));
        };
        // It is enough to look when a batch may be full, by count or by bytes, or when so much waits that the queue
        // might not hold more.
        let bytes = self.batch_bytes.min(reader.capacity() / 8);
        let records = (producer.records_to_full_batch() as u64).min(self.records);
        let until = if soon { until } else { until.min(self.look_at) };
        reader.sleep_unless(tail + bytes, read + records).then(|| until.since(now))
    }
}
