//! What was sent, on record: a batch is written down before it is sent, and found again by the next reader of the
//! file. What the records of it say together is [`stamps`]' business.

use super::Reader;
use crate::protocol::record_batch::ProducerStamp;
use crate::queue::batch_log::NoRoom;
use crate::queue::layout::v2;
use crate::queue::mapping::Format;
use crate::queue::slots::{Kind, Raw};
use crate::queue::stamps::{self, OpenBatch, Stamp, Stamped};

impl Reader {
    /// Writes down which partition the record at `position`, which was handed out, goes to. A stamp that it has ends
    /// with that: sequence numbers are those of one partition. To be called soon after [`read`](Self::read), while the
    /// slot is in the cache.
    pub fn assign(&mut self, position: u64, partition: u32) {
        self.unstamp(position);
        if self.space.is_held(position) {
            self.slots.set_partition(position, partition);
        }
    }

    /// Writes down that the records at `positions`, in the order of their sequence numbers, are about to be sent as
    /// one batch. A batch that is repeated keeps what is on record: it may be in the log, so nobody must ever find it
    /// without. When the batch `is_part` of another one on record, which may be in the log as a whole, the rest of that is
    /// on record as a part, too, from then on. After an error nothing has changed, and the batch must not be sent: once
    /// others are done there is room again.
    pub fn stamp(
        &mut self,
        partition: u32,
        stamp: ProducerStamp,
        is_part: bool,
        positions: impl IntoIterator<Item = u64>,
    ) -> Result<(), NoRoom> {
        let positions: Vec<u64> = positions.into_iter().collect();
        match self.slots.format() {
            Format::V3 => self.batches.put(&mut self.space, partition, stamp, is_part, &positions),
            Format::V2 => {
                for (index, position) in positions.iter().enumerate() {
                    let stamp =
                        Stamp::of_record(stamp, partition, index, positions.len()).part(is_part);
                    self.stamp_slot(*position, &stamp);
                    if index == 0 {
                        crate::crash_points::crash_point("batch half stamped");
                    }
                }
                Ok(())
            }
        }
    }

    fn stamp_slot(&mut self, position: u64, stamp: &Stamp) {
        if let Some(header) = self.held_header_of_v2(position) {
            // SAFETY: see `held_header_of_v2`.
            unsafe {
                if (*header).stamp() != Some(*stamp) {
                    v2::SlotHeader::put_stamp(header, stamp);
                }
            }
        }
    }

    /// Takes the stamp of the record at `position` away: it is known not to be in the log. Its batch, of which it was
    /// a part, is no longer one that was sent.
    pub fn unstamp(&mut self, position: u64) {
        match self.slots.format() {
            Format::V3 => self.batches.forget(&mut self.space, position),
            Format::V2 => {
                if let Some(header) = self.held_header_of_v2(position) {
                    // SAFETY: see `held_header_of_v2`.
                    unsafe { v2::SlotHeader::remove_stamp(header) };
                }
            }
        }
    }

    /// The header of a record of version 2 that was handed out and is not done. It lies whole inside the data area,
    /// where only this reader writes to it: the writer is done with the slot.
    fn held_header_of_v2(&self, position: u64) -> Option<*mut v2::SlotHeader> {
        let is_held = self.space.is_held(position) && self.get(position).is_ok();
        is_held.then(|| self.slots.header_of_v2(position))?
    }

    /// Hands out the batches that an earlier reader of the file sent and did not see the end of. Those of
    /// their records that are done are so no longer: a batch is repeated whole. To be called before the first
    /// [`read`](Self::read), which then passes over them.
    pub fn take_open_batches(&mut self) -> Vec<OpenBatch> {
        let tail = self.slots.tail();
        let Scan { end, found, written, waiting } = self.scan(tail);
        self.scanned = end.min(tail);
        // Who died between a mark and its release did not count it. A writer may be there and go on meanwhile, so
        // the last record says how many there are.
        if end >= tail {
            let written = written.unwrap_or_else(|| self.written());
            self.done = written.saturating_sub(waiting);
        }
        let open = stamps::open_batches(found);
        for position in open.iter().flat_map(|batch| &batch.positions) {
            self.claim(*position);
        }
        self.batches.keep_open(&mut self.space, &open);
        open
    }

    /// Looks at all slots from `next` to `tail`, or to the first that is damaged, which is met again, and told, when
    /// the reader comes to it.
    fn scan(&self, tail: u64) -> Scan {
        let mut scan = Scan { end: self.next, ..Scan::default() };
        let logged = self.batches.stamps();
        while scan.end < tail {
            let position = scan.end;
            if let Some(next) = self.slots.after_gone(position) {
                scan.end = next;
                continue;
            }
            let Ok(raw) = self.slots.raw(position, self.head, tail) else { break };
            if raw.kind == Kind::Record {
                let is_done = self.slots.is_done(position, raw);
                // The segments of one that reaches into several are given back together with those of the rest of
                // its batch, so that either none is gone or the batch is done.
                let is_left = !is_done || self.slots.is_in_one_segment(position, raw.length);
                if is_left || self.slots.is_whole(position, raw) {
                    let logged = logged.get(&position).copied();
                    let Some(stamped) = self.look(position, raw, is_done, logged) else { break };
                    scan.written = Some(self.slots.number(raw) + 1);
                    scan.waiting += u64::from(!is_done);
                    scan.found.extend(stamped);
                }
            }
            scan.end = position + raw.length;
        }
        scan
    }

    /// The stamp of a record, if it has one; `None` when the record is damaged.
    fn look(
        &self,
        position: u64,
        raw: Raw,
        done: bool,
        logged: Option<Stamp>,
    ) -> Option<Option<Stamped>> {
        let slot = self.slots.slot(position, raw).ok()?;
        let in_slot = self.slots.header_of_v2(position).and_then(|header| {
            // SAFETY: slot() saw that the whole header lies inside the data area.
            unsafe { (*header).stamp() }
        });
        let stamp = logged.or(in_slot).filter(Stamp::is_possible);
        Some(stamp.map(|stamp| Stamped { position, topic: slot.topic, stamp, done }))
    }

    /// Hands out a record of an open batch, ahead of its turn.
    fn claim(&mut self, position: u64) {
        let Ok(raw) = self.slots.raw(position, self.head, self.scanned) else { return };
        if self.slots.is_done(position, raw) {
            self.slots.set_done(position, false);
            self.done = self.done.saturating_sub(1);
        }
        self.space.hold(position, position + raw.length);
        self.outstanding += 1;
    }
}

/// What a look at all slots found.
#[derive(Default)]
struct Scan {
    /// How far it came.
    end: u64,
    /// The records with stamps.
    found: Vec<Stamped>,
    /// Records ever written up to there, once one was seen.
    written: Option<u64>,
    /// Records that are not done.
    waiting: u64,
}
