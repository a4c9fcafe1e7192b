//! Making room in a queue that is filling up. Above a high mark the oldest messages that were never sent, of
//! partitions that are out of reach, go to the backup. When it fills up all the same, since the backup's disk is
//! full, hangs or is too slow, `overflow` decides. The event loop takes no part in any of this: it finds room, or is
//! refused.

use super::sources::Sources;
use super::spill::Amount;
use super::{Level, Run};
use crate::config::Overflow;
use crate::producer::{RecordId, Time};
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

fn is_own(id: RecordId) -> bool {
    Sources::is_own(id)
}

impl Run<'_> {
    /// Makes room in the worker's own queue when it is above the high mark.
    pub(super) fn make_room(&mut self, now: Time) {
        let reader = &self.sources.own().reader;
        let used = Amount {
            records: reader.written().saturating_sub(reader.done_count()),
            bytes: reader.bytes_in_use(),
        };
        let capacity =
            Amount { records: self.config.queue_buffering_max_messages, bytes: reader.capacity() };
        let excess_of = |used: Amount, mark| Amount {
            records: excess(used.records, capacity.records, mark),
            bytes: excess(used.bytes, capacity.bytes, mark),
        };
        if excess_of(used, HIGH) == Amount::default() {
            return;
        }
        // What is on its way out leaves room soon.
        let (spilled, handed) = (self.spill.amount(), self.handover.amount());
        let staying = Amount {
            records: used.records.saturating_sub(spilled.records + handed.records),
            bytes: used.bytes.saturating_sub(spilled.bytes + handed.bytes),
        };
        let staying = excess_of(staying, HIGH);
        if staying != Amount::default() {
            let (records, bytes) = (staying.records, staying.bytes);
            let asked = self.asking.evict(records, bytes, &self.producer, is_own);
            let mut gone = Amount::default();
            for (topic, evicted) in asked {
                gone.add(Amount::of(&evicted));
                self.producer.fail_evicted(topic, evicted);
            }
            let (records, bytes) =
                (records.saturating_sub(gone.records), bytes.saturating_sub(gone.bytes));
            let (evicted, _) = self.producer.evict(records, bytes, is_own);
            stats::add(&self.shared.stats.evicted_cnt, evicted + gone.records);
        }
        if self.config.overflow == Overflow::DropOldest {
            self.drop_oldest(now, excess_of(used, NEARLY_FULL));
        }
    }

    /// Drops the oldest of what waits for the backup.
    fn drop_oldest(&mut self, now: Time, excess: Amount) {
        let dropped = self.spill.drop_oldest(now, excess, is_own, &mut self.sources);
        if dropped > 0 {
            stats::add(&self.shared.stats.dropped_cnt, dropped);
            let text = format_args!(
                "the queue is full and the backup takes no more, or not as fast: the oldest {dropped} messages are \
                 lost (overflow = \"drop_oldest\")"
            );
            self.shared.lines.put(now, Level::Error, "dropped", "", text);
        }
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
