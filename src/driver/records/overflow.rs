//! Making room in a queue that is filling up. Above a high mark the oldest messages that were never sent, of
//! partitions that are out of reach, go to the backup. When it fills up all the same, since the backup's disk is
//! full, hangs or is too slow, `overflow` decides. The event loop takes no part in any of this: it finds room, or is
//! refused.

use super::super::context::Context;
use super::super::report::queue::QueueReport;
use super::super::undelivered::failed_callback::FailedCallback;
use super::super::undelivered::spill::Spill;
use super::amount::Amount;
use super::name;
use super::partitioning::Partitioning;
use super::queues::Queues;
use crate::config::{Overflow, QueueConfig};
use crate::producer::Producer;
use crate::stats;

/// Parts of the queue, in eighths: above the high mark room is made, down to the low one.
const HIGH: u64 = 6;
const LOW: u64 = 5;
/// Above this one the backup does not keep up.
const NEARLY_FULL: u64 = 7;

/// What must go for `used` to come down to the low mark of `capacity`; 0 up to `mark` eighths of it.
fn excess(used: u64, capacity: u64, mark: u64) -> u64 {
    // Not in products: a capacity may be any number.
    let part = |eighths: u64| capacity / 8 * eighths + capacity % 8 * eighths / 8;
    if used > part(mark) { used - part(LOW) } else { 0 }
}

/// Makes room in the worker's own queue when it is above the high mark.
pub(in crate::driver) fn make_room(
    cx: &Context<'_>,
    limits: &QueueConfig,
    queues: &mut Queues,
    producer: &mut Producer,
    partitioning: &mut Partitioning,
    failed_callback: &FailedCallback,
    spill: &mut Spill<'_>,
) {
    let own = queues.own();
    let used = Amount { records: own.waiting(), bytes: own.reader.bytes_in_use() };
    let capacity =
        Amount { records: limits.queue_buffering_max_messages, bytes: own.reader.capacity() };
    let excess_of = |used: Amount, mark| Amount {
        records: excess(used.records, capacity.records, mark),
        bytes: excess(used.bytes, capacity.bytes, mark),
    };
    if excess_of(used, HIGH).is_nothing() {
        return;
    }
    // What is about to leave makes room soon.
    let staying = used.without(spill.amount()).without(failed_callback.amount());
    let excess = excess_of(staying, HIGH);
    if !excess.is_nothing() {
        evict(cx, excess, producer, partitioning);
    }
    if limits.overflow == Overflow::DropOldest {
        drop_oldest(cx, excess_of(used, NEARLY_FULL), queues, spill);
    }
}

/// Has the oldest messages fail of which nothing was sent, those first whose topic nobody knows.
fn evict(
    cx: &Context<'_>,
    excess: Amount,
    producer: &mut Producer,
    partitioning: &mut Partitioning,
) {
    let mut gone = Amount::default();
    for (topic, evicted) in partitioning.evict(excess, producer, name::is_own) {
        gone.add(Amount::of(&evicted));
        producer.fail_evicted(topic, evicted);
    }
    let Amount { records, bytes } = excess.without(gone);
    let (evicted, _) = producer.evict(records, bytes, name::is_own);
    stats::add(&cx.shared.stats.evicted_cnt, evicted + gone.records);
}

/// Drops the oldest of what waits for the backup.
fn drop_oldest(cx: &Context<'_>, excess: Amount, queues: &mut Queues, spill: &mut Spill<'_>) {
    let dropped = spill.drop_oldest(cx.now, excess, name::is_own, queues);
    if dropped > 0 {
        stats::add(&cx.shared.stats.dropped_cnt, dropped);
        cx.report(&QueueReport::Dropped { records: dropped });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_from_the_high_mark_down_to_the_low_one() {
        assert_eq!(excess(75, 100, HIGH), 0);
        assert_eq!(excess(76, 100, HIGH), 76 - 62);
        assert_eq!(excess(87, 100, NEARLY_FULL), 0);
        assert_eq!(excess(100, 100, NEARLY_FULL), 38);
        assert_eq!(excess(0, 1, HIGH), 0);
        assert_eq!(excess(1, 1, HIGH), 1);
        assert_eq!(excess(u64::MAX, u64::MAX, HIGH), u64::MAX - u64::MAX / 8 * 5 - 4);
    }
}
