//! The reading end: runs on the driver thread. It hands out records in the order they were written,
//! lends their bytes for as long as they are not done, and gives space back to the writer.
//!
//! Every slot is checked against its bounds each time it is looked at, also in a queue of our own: the
//! file lies where another process of the same user could write to it.

mod sent;
mod space;

use super::file::{Mapping, Queue};
use super::layout::{self, NULL_KEY, SLOT_HEADER, SlotHeader, state};
use super::prefetch;
use super::segments::{self, Division};
use crate::record::Record;
use crate::seeded_bug::{Bug, is_seeded};
use crate::topic_name;
use space::Space;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A record in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot<'a> {
    /// Where it lies; names the record until it is done.
    pub position: u64,
    /// Topic id, to be looked up with [`Reader::topic`].
    pub topic: u16,
    /// The partition that the writer wishes for, or a negative number of [`layout`].
    pub partition: i32,
    /// When `log()` took it, milliseconds since 1970.
    pub logged_ms: i64,
    /// The record.
    pub record: Record<'a>,
}

/// A slot that is not what a slot must be. The records from there on cannot be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged slot at position {position}: {reason}")]
pub struct Damage {
    /// Where.
    pub position: u64,
    /// What is wrong.
    pub reason: &'static str,
}

/// A slot whose bytes all lie in the data area, or, if it is done, at least its length and state.
#[derive(Clone, Copy)]
struct Raw {
    header: *mut SlotHeader,
    length: u64,
    state: u32,
}

/// What [`Reader::check_record`] found.
#[derive(Clone, Copy)]
struct Inner {
    topic: u16,
    partition: i32,
    timestamp_ms: i64,
    key_len: Option<usize>,
    headers_len: usize,
    payload_len: usize,
}

/// The reading end of a [`Queue`].
pub struct Reader {
    map: Arc<Mapping>,
    division: Division,
    /// Next slot to hand out.
    next: u64,
    /// The tail when it was last looked at: slots before it may be read without looking again, which
    /// spares the writer's cache line.
    tail_seen: u64,
    /// Records before `next`, as the writer counts them, once one was seen.
    read: Option<u64>,
    /// Oldest slot that is not done.
    head: u64,
    done: u64,
    /// Records handed out and not done.
    outstanding: u64,
    space: Space,
    /// Records that [`take_open_batches`](Self::take_open_batches) handed out, ahead of `next`.
    claimed: HashSet<u64>,
    /// How far that looked.
    scanned: u64,
    /// Stretches that [`abandon_rest`](Self::abandon_rest) gave up and `head` has yet to pass: from, to.
    abandoned: VecDeque<(u64, u64)>,
    topics: Vec<Box<str>>,
    topics_read: usize,
}

// SAFETY: a Reader may move to another thread: it alone writes the reader-owned words and slot states,
// wherever it runs, and reads only what the writer has released to it.
unsafe impl Send for Reader {}

impl Reader {
    pub(super) fn new(queue: &Queue) -> Reader {
        let map = queue.map.clone();
        let head = map.cursors().head();
        Reader {
            division: map.division(),
            next: head,
            tail_seen: head,
            read: None,
            head,
            done: map.cursors().done(),
            outstanding: 0,
            space: Space::new(map.division().number(head)),
            claimed: HashSet::new(),
            scanned: head,
            abandoned: VecDeque::new(),
            topics: Vec::new(),
            topics_read: 0,
            map,
        }
    }

    /// Next record that is not done, or `None` when there is none yet. After `Err` the reader stands
    /// still; [`abandon_rest`](Self::abandon_rest) gives the rest up.
    pub fn read(&mut self) -> Result<Option<Slot<'_>>, Damage> {
        loop {
            if self.next == self.tail_seen {
                self.tail_seen = self.map.cursors().tail();
                if self.next == self.tail_seen {
                    return Ok(None);
                }
            }
            if let Some(position) = self.after_gone(self.next) {
                if position > self.tail_seen {
                    return Err(Damage { position: self.next, reason: "goes on beyond the tail" });
                }
                self.next = position;
                self.read = None;
                continue;
            }
            let position = self.next;
            let raw = self.raw(position, self.tail_seen)?;
            match raw.state {
                // The slot is checked before the cursor moves, so that damage stays in place.
                state::RECORD => {
                    let inner = self.check_record(position, raw)?;
                    self.count(raw);
                    self.next = position + raw.length;
                    if self.claimed.remove(&position) {
                        self.pass(position, self.next);
                        continue;
                    }
                    if !is_seeded(Bug::FreeSlotEarly) {
                        self.space.hold(self.division, position, self.next);
                    }
                    self.pass(position, self.next);
                    self.outstanding += 1;
                    return Ok(Some(self.slot(position, raw, inner)));
                }
                // Delivered before the worker died, or before the driver was restarted.
                state::DONE => {
                    if self.is_in_one_segment(position, raw.length) {
                        self.check_record(position, raw)?;
                        self.count(raw);
                    } else {
                        self.read = None;
                    }
                    self.next = position + raw.length;
                    self.pass(position, self.next);
                }
                state::WRAP => {
                    self.next = position + raw.length;
                    self.pass(position, self.next);
                }
                _ => return Err(Damage { position, reason: "unknown state" }),
            }
        }
    }

    /// Counts a record that [`check_record`](Self::check_record) found whole.
    #[inline]
    fn count(&mut self, raw: Raw) {
        let read = self.read.unwrap_or_else(|| self.number(raw));
        self.read = Some(read + 1);
    }

    /// How many records came before one that [`check_record`](Self::check_record) found whole.
    fn number(&self, raw: Raw) -> u64 {
        // SAFETY: the whole header lies inside the data area.
        let number = unsafe { (*raw.header).number };
        let written = self.written();
        written - u64::from((written as u32).wrapping_sub(number)).min(written)
    }

    /// The record at `position`, which was handed out and is not done.
    #[inline]
    pub fn get(&self, position: u64) -> Result<Slot<'_>, Damage> {
        let raw = self.raw(position, self.handed_out())?;
        let inner = self.check_record(position, raw)?;
        Ok(self.slot(position, raw, inner))
    }

    /// Slots before this may be looked at.
    #[inline]
    fn handed_out(&self) -> u64 {
        self.next.max(self.scanned)
    }

    #[inline]
    fn slot(&self, position: u64, raw: Raw, inner: Inner) -> Slot<'_> {
        let Inner { topic, partition, timestamp_ms, key_len, headers_len, payload_len } = inner;
        // SAFETY: check_record saw that header, key, headers and payload lie inside the slot, and raw()
        // that the slot lies inside the data area. Between head and tail the writer does not write.
        let (key, payload) = unsafe {
            let start = raw.header.cast::<u8>().add(SLOT_HEADER);
            let key = key_len.map(|len| std::slice::from_raw_parts(start, len));
            let at = start.add(key_len.unwrap_or(0) + headers_len);
            (key, std::slice::from_raw_parts(at, payload_len))
        };
        let record = Record::new(timestamp_ms, key, Some(payload));
        Slot { position, topic, partition, logged_ms: timestamp_ms, record }
    }

    /// Says that the header of the record at `position` and the first `len` bytes behind it will be looked at
    /// soon. The position need not be valid.
    #[inline]
    pub fn prefetch(&self, position: u64, len: usize) {
        if let Some(place) = self.place(self.division.number(position)) {
            let offset = self.division.offset(place, position) as usize;
            prefetch::to_read(self.map.data().wrapping_add(offset), SLOT_HEADER + len);
        }
    }

    /// Place in the data area of segment `number`, or what the map says instead.
    #[inline]
    fn place(&self, number: u64) -> Option<u32> {
        let place = self.entry(number);
        (place < self.division.count()).then_some(place)
    }

    #[inline]
    fn entry(&self, number: u64) -> u32 {
        self.map.segments()[segments::entry(number)].load(Ordering::Relaxed)
    }

    /// The slot at `position`, with its length checked against segments and tail.
    #[inline]
    fn raw(&self, position: u64, tail: u64) -> Result<Raw, Damage> {
        let damage = |reason| Err(Damage { position, reason });
        if !position.is_multiple_of(8) || position < self.head || position >= tail {
            return damage("position outside the queue");
        }
        let number = self.division.number(position);
        let Some(place) = self.place(number) else {
            return damage("a segment outside the file");
        };
        let offset = self.division.offset(place, position) as usize;
        // SAFETY: the place is one of the data area's, so that the offset, a multiple of 8, is below its length.
        let header: *mut SlotHeader = unsafe { self.map.data().add(offset).cast() };
        // SAFETY: at a multiple of 8 inside the data area there are at least 8 bytes, which hold length
        // and state; the writer released them with the tail.
        let (length, state) =
            unsafe { ((*header).length as u64, (*header).state.load(Ordering::Relaxed)) };
        if length < 8 || !length.is_multiple_of(8) {
            return damage("impossible length");
        }
        if length > tail - position {
            return damage("length beyond the tail");
        }
        let last = self.division.number(position + length - 1);
        // Of a slot that is done the segments behind the first may be gone.
        if last != number && state == state::RECORD && !self.is_run(number, place, last) {
            return damage("length beyond the end of its segments");
        }
        Ok(Raw { header, length, state })
    }

    /// Whether the slot does not reach into a second segment.
    fn is_in_one_segment(&self, position: u64, length: u64) -> bool {
        self.division.number(position) == self.division.number(position + length - 1)
    }

    /// Whether the segments after `number`, which lies at `place`, up to `last` follow it in the data area.
    #[cold]
    fn is_run(&self, number: u64, place: u32, last: u64) -> bool {
        (number + 1..=last)
            .zip(place + 1..)
            .all(|(number, expected)| self.place(number) == Some(expected))
    }

    /// Checks the inner lengths of a record slot.
    #[inline]
    fn check_record(&self, position: u64, raw: Raw) -> Result<Inner, Damage> {
        let damage = |reason| Err(Damage { position, reason });
        if raw.length < SLOT_HEADER as u64 {
            return damage("shorter than its header");
        }
        // SAFETY: raw() saw that `length` bytes, and so the whole header, lie inside the data area.
        let (check, topic, partition, timestamp_ms, lens) = unsafe {
            let h = raw.header;
            let lens = [(*h).key_len, (*h).headers_len, (*h).payload_len];
            ((*h).check, (*h).topic, (*h).partition, (*h).timestamp_ms, lens)
        };
        let key_len = if lens[0] == NULL_KEY { 0 } else { lens[0] as usize };
        let (headers_len, payload_len) = (lens[1] as usize, lens[2] as usize);
        if layout::slot_len(key_len, headers_len, payload_len) != Some(raw.length as usize) {
            return damage("inner lengths do not add up");
        }
        if check != layout::check(position, raw.length as u32, topic, timestamp_ms, lens) {
            return damage("header check failed");
        }
        let key_len = (lens[0] != NULL_KEY).then_some(key_len);
        Ok(Inner { topic, partition, timestamp_ms, key_len, headers_len, payload_len })
    }

    /// Marks a record done: delivered, or safe elsewhere. Its bytes may be overwritten once
    /// [`release`](Self::release) ran.
    pub fn done(&mut self, position: u64) {
        if let Ok(raw) = self.raw(position, self.handed_out())
            && raw.state == state::RECORD
        {
            // SAFETY: raw() saw that the slot lies inside the data area; the state is an atomic.
            unsafe { (*raw.header).state.store(state::DONE, Ordering::Relaxed) };
            crate::crash_points::crash_point("slot done");
            self.done += 1;
            self.outstanding -= 1;
            self.let_go(position, position + raw.length);
        }
    }

    /// Gives up everything that was not handed out yet, after [`Damage`]: returns how many bytes. How many
    /// records that were cannot be known; the count of done records is set as if all of them were.
    pub fn abandon_rest(&mut self) -> u64 {
        // In this order: what is written after the tail was read is not given up.
        let written = self.written();
        let tail = self.map.cursors().tail();
        let bytes = tail - self.next;
        if bytes > 0 {
            self.abandoned.push_back((self.next, tail));
            self.done = written.saturating_sub(self.outstanding).max(self.done);
            self.pass(self.next, tail);
        }
        self.next = tail;
        self.tail_seen = tail;
        self.read = None;
        bytes
    }

    /// Name of a topic id; `None` when the table does not have it or its entry is no topic name.
    pub fn topic(&mut self, id: u16) -> Option<&str> {
        if id as usize >= self.topics.len() {
            self.read_topics();
        }
        self.topics.get(id as usize).map(|name| &**name)
    }

    fn read_topics(&mut self) {
        let used = self.map.identity().topics_used.load(Ordering::Acquire) as usize;
        let used = used.min(layout::TOPICS_LEN);
        while self.topics_read + 2 <= used {
            // SAFETY: both reads end before `used`, inside the topic table, whose entries up to there
            // the writer released and never changes.
            let name = unsafe {
                let at = self.map.base().add(layout::TOPICS_OFFSET + self.topics_read);
                let len = at.cast::<u16>().read_unaligned() as usize;
                if self.topics_read + 2 + len > used {
                    return;
                }
                std::slice::from_raw_parts(at.add(2), len)
            };
            let Ok(name) = std::str::from_utf8(name) else { return };
            if !topic_name::is_valid(name) {
                return;
            }
            self.topics_read += 2 + name.len();
            self.topics.push(name.into());
        }
    }

    /// Records ever written, counted by the writer.
    pub fn written(&self) -> u64 {
        self.map.cursors().written()
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
        self.map.cursors().tail()
    }

    /// Position of the oldest slot in use.
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
        self.division.data_len()
    }

    /// When the file was made, milliseconds since 1970.
    pub fn created_ms(&self) -> i64 {
        self.map.identity().created_ms
    }

    /// Process id of the file's maker.
    pub fn owner_pid(&self) -> u32 {
        self.map.identity().owner_pid
    }

    /// See [`Cursors::sleep_unless`](super::cursors::Cursors::sleep_unless).
    #[must_use]
    pub fn sleep_unless(&self, wake_tail: u64, wake_written: u64) -> bool {
        self.map.cursors().sleep_unless(wake_tail, wake_written, self.map.barrier())
    }

    /// The driver is awake: no signal is needed.
    pub fn disarm(&self) {
        self.map.cursors().disarm();
    }
}
