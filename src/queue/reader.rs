//! The reading end: runs on the driver thread. It hands out records in the order they were written,
//! lends their bytes for as long as they are not done, and gives space back to the writer.
//!
//! It looks at a slot when it hands the record out, and whenever its bytes are asked for. What becomes of a record
//! afterwards, that it is sent and that it is done, is written elsewhere, close together: see
//! `batch_log.rs` and `space.rs`.

mod sent;

use super::batch_log::BatchLog;
use super::file::Queue;
use super::slots::{Damage, Kind, Raw, Slot, Slots};
use super::space::Space;
use super::topics::TopicNames;
use crate::crash_points::crash_point;
use crate::seeded_bug::{Bug, is_seeded};

/// The reading end of a [`Queue`].
pub struct Reader {
    slots: Slots,
    /// Next slot to hand out.
    next: u64,
    /// The tail when it was last looked at: slots before it may be read without looking again, which
    /// spares the writer's cache line.
    tail_seen: u64,
    /// What was there when this reader began: an earlier one may have handed it out, and have seen it done.
    inherited: u64,
    /// Records before `next`, as the writer counts them, once one was seen.
    read: Option<u64>,
    /// Oldest slot that is not done.
    head: u64,
    done: u64,
    /// Records handed out and not done.
    outstanding: u64,
    space: Space,
    /// How far [`take_open_batches`](Self::take_open_batches) looked, ahead of `next`.
    scanned: u64,
    batches: BatchLog,
    topics: TopicNames,
}

// SAFETY: a Reader may move to another thread: it alone writes the reader-owned words, wherever it runs, and reads only
// what the writer has released to it.
unsafe impl Send for Reader {}

impl Reader {
    /// The reading end. One at a time; a new one starts at the oldest record that is not done.
    pub fn new(queue: &Queue) -> Reader {
        let map = queue.map();
        let head = map.cursors().head();
        Reader {
            slots: Slots::new(map.clone()),
            next: head,
            tail_seen: head,
            inherited: map.cursors().tail(),
            read: None,
            head,
            done: map.cursors().done(),
            outstanding: 0,
            space: Space::new(map, head),
            scanned: head,
            batches: BatchLog::new(map),
            topics: TopicNames::default(),
        }
    }

    /// Next record that is not done, or `None` when there is none yet. After `Err` the reader stands
    /// still; [`abandon_rest`](Self::abandon_rest) gives the rest up.
    pub fn read(&mut self) -> Result<Option<Slot<'_>>, Damage> {
        while let Some(position) = self.next_slot()? {
            let raw = self.slots.raw(position, self.head, self.tail_seen)?;
            let end = position + raw.length;
            // The slot is checked before the cursor moves, so that damage stays in place.
            if raw.kind == Kind::Wrap {
                self.pass(position, end);
            } else if position < self.inherited && self.slots.is_done(position, raw) {
                self.pass_done(position, raw)?;
            } else if position < self.scanned && self.space.is_held(position) {
                self.slots.slot(position, raw)?;
                self.count(raw);
                self.pass(position, end);
            } else {
                return self.hand_out(position, raw).map(Some);
            }
        }
        Ok(None)
    }

    /// Where the next slot begins, if the writer has got there.
    #[inline]
    fn next_slot(&mut self) -> Result<Option<u64>, Damage> {
        loop {
            if self.next == self.tail_seen {
                self.tail_seen = self.slots.tail();
                if self.next == self.tail_seen {
                    return Ok(None);
                }
            }
            let Some(position) = self.slots.after_gone(self.next) else {
                return Ok(Some(self.next));
            };
            if position > self.tail_seen {
                return Err(Damage { position: self.next, reason: "goes on beyond the tail" });
            }
            self.next = position;
            self.read = None;
        }
    }

    #[inline]
    fn hand_out(&mut self, position: u64, raw: Raw) -> Result<Slot<'_>, Damage> {
        let slot = self.slots.slot(position, raw)?;
        let end = position + raw.length;
        let read = self.read.unwrap_or_else(|| self.slots.number(raw));
        self.read = Some(read + 1);
        if !is_seeded(Bug::FreeSlotEarly) {
            self.space.hold(position, end);
        }
        self.outstanding += 1;
        self.next = end;
        self.space.pass(position, end);
        Ok(slot)
    }

    /// Passes over a record that was delivered before the worker died, or before the driver was restarted.
    fn pass_done(&mut self, position: u64, raw: Raw) -> Result<(), Damage> {
        if self.slots.is_in_one_segment(position, raw.length) {
            self.slots.slot(position, raw)?;
            self.count(raw);
        } else {
            self.read = None;
        }
        self.pass(position, position + raw.length);
        Ok(())
    }

    #[inline]
    fn pass(&mut self, position: u64, end: u64) {
        self.next = end;
        self.space.pass(position, end);
    }

    /// Counts a record that is whole.
    #[inline]
    fn count(&mut self, raw: Raw) {
        let read = self.read.unwrap_or_else(|| self.slots.number(raw));
        self.read = Some(read + 1);
    }

    /// The record at `position`, which was handed out and is not done.
    #[inline]
    pub fn get(&self, position: u64) -> Result<Slot<'_>, Damage> {
        let raw = self.slots.raw(position, self.head, self.handed_out())?;
        self.slots.slot(position, raw)
    }

    /// Slots before this may be looked at.
    #[inline]
    fn handed_out(&self) -> u64 {
        self.next.max(self.scanned)
    }

    /// Says that the header of the record at `position` and the first `len` bytes behind it will be looked at
    /// soon. The position need not be valid.
    #[inline]
    pub fn prefetch(&self, position: u64, len: usize) {
        self.slots.prefetch(position, len);
    }

    /// Marks a record done: delivered, or safe elsewhere. Its bytes may be overwritten once
    /// [`release`](Self::release) ran. The slot is not looked at.
    #[inline]
    pub fn done(&mut self, position: u64) {
        if self.space.let_go(position) {
            self.slots.set_done(position, true);
            crash_point("slot done");
            self.done += 1;
            self.outstanding -= 1;
        }
    }

    /// Gives the space of done records back to the writer, and tells it up to where everything is done.
    pub fn release(&mut self) {
        self.space.free(self.slots.map());
        let held = if self.outstanding > 0 { self.space.first_held(self.head) } else { None };
        // What was claimed ahead does not hold up what lies before it and was not read yet.
        self.head = held.unwrap_or(u64::MAX).min(self.next).max(self.head);
        self.space.forget_before(self.head);
        self.slots.map().cursors().release(self.head, self.done);
        crash_point("slots released");
        self.batches.sweep(&mut self.space);
    }

    /// Gives up everything that was not handed out yet, after [`Damage`]: returns how many bytes. How many
    /// records that were cannot be known; the count of done records is set as if all of them were.
    pub fn abandon_rest(&mut self) -> u64 {
        // In this order: what is written after the tail was read is not given up.
        let written = self.written();
        let tail = self.slots.tail();
        let bytes = tail - self.next;
        if bytes > 0 {
            self.done = written.saturating_sub(self.outstanding).max(self.done);
            self.space.pass(self.next, tail);
        }
        self.next = tail;
        self.tail_seen = tail;
        self.read = None;
        bytes
    }

    /// Name of a topic id; `None` when the table does not have it or its entry is no topic name.
    pub fn topic(&mut self, id: u16) -> Option<&str> {
        self.topics.get(self.slots.map(), id)
    }

    /// Records ever written, counted by the writer.
    pub fn written(&self) -> u64 {
        self.slots.written()
    }

    /// Records handed out or passed over, on the writer's count; `None` until one was seen.
    pub fn read_count(&self) -> Option<u64> {
        self.read
    }

    /// Records marked done.
    pub fn done_count(&self) -> u64 {
        self.done
    }

    /// Position after the last whole slot.
    pub fn tail(&self) -> u64 {
        self.slots.tail()
    }

    /// Position of the oldest slot in use.
    #[inline]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// True when everything that was written, or is to be had of it, was handed out and is done.
    pub fn is_through(&self) -> bool {
        self.next == self.tail() && self.outstanding == 0
    }

    /// Next position to be handed out.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Bytes of the data area.
    pub fn capacity(&self) -> u64 {
        self.slots.capacity()
    }

    /// Bytes of the segments that are in use.
    pub fn bytes_in_use(&self) -> u64 {
        self.space.bytes_in_use(self.slots.map())
    }

    /// Process id of the file's maker.
    pub fn owner_pid(&self) -> u32 {
        self.slots.owner_pid()
    }

    /// See [`Cursors::sleep_unless`](super::cursors::Cursors::sleep_unless).
    #[must_use]
    pub fn sleep_unless(&self, wake_tail: u64, wake_written: u64) -> bool {
        let map = self.slots.map();
        map.cursors().sleep_unless(wake_tail, wake_written, map.barrier())
    }

    /// The driver is awake: no signal is needed.
    pub fn disarm(&self) {
        self.slots.map().cursors().disarm();
    }
}
