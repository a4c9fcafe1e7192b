//! What was sent, on record: stamps are written into the slots before a batch is sent, and found again by the
//! next reader of the file. What they say together is [`stamps`]' business.

use super::{Raw, Reader, SlotHeader, state};
use crate::crash_points::crash_point;
use crate::queue::stamps::{self, OpenBatch, Stamp, Stamped};
use std::sync::atomic::Ordering;

/// Producer id of a slot without a stamp.
const NO_PRODUCER_ID: i64 = -1;

impl Reader {
    /// Writes down which partition the record at `position` goes to. A stamp that it has ends with that: numbers are
    /// those of one partition.
    pub fn assign(&mut self, position: u64, partition: u32) {
        if let Some(header) = self.handed_out_header(position) {
            // SAFETY: see `handed_out_header`. Volatile, since the order of the stores counts.
            unsafe {
                (&raw mut (*header).producer_id).write_volatile(NO_PRODUCER_ID);
                (&raw mut (*header).partition).write_volatile(partition as i32);
            }
        }
    }

    /// Writes down that the record at `position` is about to be sent, and in which batch. A batch that is repeated
    /// keeps what is on record: it may be in the log, so nobody must ever find it without.
    pub fn stamp(&mut self, position: u64, stamp: &Stamp) {
        if let Some(header) = self.handed_out_header(position) {
            // SAFETY: see `handed_out_header`.
            if Stamp::of(unsafe { &*header }) == *stamp {
                return;
            }
            // SAFETY: see `handed_out_header`. Volatile, since the order of the stores counts: one who is killed in
            // between leaves a slot without a stamp, never a mixture of two.
            unsafe {
                (&raw mut (*header).producer_id).write_volatile(NO_PRODUCER_ID);
                crash_point("record half stamped");
                (&raw mut (*header).partition).write_volatile(stamp.partition as i32);
                (&raw mut (*header).sequence).write_volatile(stamp.sequence);
                (&raw mut (*header).batch_records).write_volatile(stamp.batch_records);
                (&raw mut (*header).producer_epoch).write_volatile(stamp.epoch);
                (&raw mut (*header).producer_id).write_volatile(stamp.producer_id);
            }
        }
    }

    /// Takes the stamp of the record at `position` away: it is known not to be in the log.
    pub fn unstamp(&mut self, position: u64) {
        if let Some(header) = self.handed_out_header(position) {
            // SAFETY: see `handed_out_header`.
            unsafe { (&raw mut (*header).producer_id).write_volatile(NO_PRODUCER_ID) };
        }
    }

    /// The header of a record that was handed out and is not done. It lies whole inside the data area, where only
    /// this reader writes to it: the writer is done with the slot.
    fn handed_out_header(&self, position: u64) -> Option<*mut SlotHeader> {
        let raw = self.raw(position, self.handed_out()).ok()?;
        let whole = raw.state == state::RECORD && self.check_record(position, raw).is_ok();
        whole.then_some(raw.header)
    }

    /// Hands out the batches that an earlier reader of the file sent and did not see the end of. Those of
    /// their records that are done are so no longer: a batch is repeated whole. To be called before the first
    /// [`read`](Self::read), which then passes over them.
    pub fn take_open_batches(&mut self) -> Vec<OpenBatch> {
        let tail = self.map.cursors().tail();
        let mut written = None;
        let mut found = Vec::new();
        let mut position = self.next;
        let mut open_records = 0;
        while position < tail {
            if let Some(next) = self.after_gone(position) {
                position = next;
                continue;
            }
            // Damage is met again, and told, when the reader comes to it.
            let Ok(raw) = self.raw(position, tail) else { break };
            if raw.state != state::WRAP {
                let done = raw.state == state::DONE;
                if done && !self.is_in_one_segment(position, raw.length) {
                    // Its segments are given back together with those of the rest of its batch, so that
                    // either none is gone or the batch is done.
                    if !self.is_whole(position, raw) {
                        position += raw.length;
                        continue;
                    }
                } else if !(done || raw.state == state::RECORD)
                    || self.check_record(position, raw).is_err()
                {
                    break;
                }
                // SAFETY: check_record saw that a whole header lies inside the data area.
                let header = unsafe { &*raw.header };
                open_records += u64::from(!done);
                written = Some(self.number(raw) + 1);
                let stamp = Stamp::of(header);
                let numbers = [header.partition, header.sequence, i32::from(stamp.epoch)];
                if stamp.producer_id >= 0 && numbers.iter().all(|number| *number >= 0) {
                    found.push(Stamped { position, topic: header.topic, stamp, done });
                }
            }
            position += raw.length;
        }
        self.scanned = position.min(tail);
        // Who died between a mark and its release did not count it. A writer may be there and go on meanwhile, so
        // the last record says how many there are.
        if position >= tail {
            let written = written.unwrap_or_else(|| self.written());
            self.done = written.saturating_sub(open_records);
        }
        let open = stamps::open_batches(found);
        for position in open.iter().flat_map(|batch| &batch.positions) {
            let Ok(raw) = self.raw(*position, self.scanned) else { continue };
            // SAFETY: raw() saw that the slot lies inside the data area; the state is an atomic.
            let before = unsafe { (*raw.header).state.swap(state::RECORD, Ordering::Relaxed) };
            self.done = self.done.saturating_sub(u64::from(before == state::DONE));
            self.claimed.insert(*position);
            self.space.hold(self.division, *position, position + raw.length);
            self.outstanding += 1;
        }
        open
    }

    /// True when a done slot that reaches into other segments still has all its bytes.
    fn is_whole(&self, position: u64, raw: Raw) -> bool {
        let (first, last) =
            (self.division.number(position), self.division.number(position + raw.length - 1));
        self.place(first).is_some_and(|place| self.is_run(first, place, last))
            && self.check_record(position, raw).is_ok()
    }
}
