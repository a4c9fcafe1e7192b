//! What was sent, on record: stamps are written into the slots before a batch is sent, and found again by the
//! next reader of the file. What they say together is [`stamps`]' business.

use super::{Reader, state};
use crate::queue::stamps::{self, OpenBatch, Stamp, Stamped};
use std::sync::atomic::Ordering;

impl Reader {
    /// Writes down which partition the record at `position` goes to.
    pub fn assign(&mut self, position: u64, partition: u32) {
        if let Ok(raw) = self.raw(position, self.handed_out())
            && raw.state == state::RECORD
            && self.check_record(position, raw).is_ok()
        {
            // SAFETY: check_record saw that a whole header lies inside the data area. The writer is done with
            // the slot.
            unsafe { (*raw.header).partition = partition as i32 };
        }
    }

    /// Writes down that the record at `position` is about to be sent, and in which batch.
    pub fn stamp(&mut self, position: u64, stamp: &Stamp) {
        if let Ok(raw) = self.raw(position, self.handed_out())
            && raw.state == state::RECORD
            && self.check_record(position, raw).is_ok()
        {
            let header = raw.header;
            // SAFETY: check_record saw that a whole header lies inside the data area. These fields are the
            // reader's; the writer is done with the slot.
            unsafe {
                (*header).partition = stamp.partition as i32;
                (*header).producer_id = stamp.producer_id;
                (*header).sequence = stamp.sequence;
                (*header).batch_records = stamp.batch_records;
                (*header).producer_epoch = stamp.epoch;
            }
        }
    }

    /// Hands out the batches that an earlier reader of the file sent and did not see the end of. Those of
    /// their records that are done are so no longer: a batch is repeated whole. To be called before the first
    /// [`read`](Self::read), which then passes over them.
    pub fn take_open_batches(&mut self) -> Vec<OpenBatch> {
        let tail = self.map.cursors().tail();
        let mut found = Vec::new();
        let mut position = self.next;
        while position < tail {
            // Damage is met again, and told, when the reader comes to it.
            let Ok(raw) = self.raw(position, tail) else { break };
            if raw.state != state::WRAP {
                let done = raw.state == state::DONE;
                if !(done || raw.state == state::RECORD)
                    || self.check_record(position, raw).is_err()
                {
                    break;
                }
                // SAFETY: check_record saw that a whole header lies inside the data area.
                let header = unsafe { &*raw.header };
                let stamp = Stamp {
                    producer_id: header.producer_id,
                    epoch: header.producer_epoch,
                    sequence: header.sequence,
                    batch_records: header.batch_records,
                    partition: header.partition as u32,
                };
                let numbers = [header.partition, header.sequence, i32::from(stamp.epoch)];
                if stamp.producer_id >= 0 && numbers.iter().all(|number| *number >= 0) {
                    found.push(Stamped { position, topic: header.topic, stamp, done });
                }
            }
            position += raw.length;
        }
        self.scanned = position;
        let open = stamps::open_batches(found);
        for position in open.iter().flat_map(|batch| &batch.positions) {
            let Ok(raw) = self.raw(*position, self.scanned) else { continue };
            // SAFETY: raw() saw that the slot lies inside the data area; the state is an atomic.
            let before = unsafe { (*raw.header).state.swap(state::RECORD, Ordering::Relaxed) };
            self.done -= u64::from(before == state::DONE);
            self.claimed.insert(*position);
            self.outstanding += 1;
        }
        open
    }
}
