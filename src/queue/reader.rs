//! The reading end: runs on the driver thread. It hands out records in the order they were written,
//! lends their bytes for as long as they are not done, and gives space back to the writer.
//!
//! Every slot is checked against its bounds each time it is looked at, also in a queue of our own: the
//! file lies where another process of the same user could write to it.

use super::file::{Mapping, Queue};
use super::layout::{self, NULL_KEY, SLOT_HEADER, SlotHeader, state};
use super::stamps::{self, OpenBatch, Stamp, Stamped};
use crate::topic_name;
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
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its payload.
    pub payload: &'a [u8],
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

struct Raw {
    length: u64,
    state: u32,
}

/// The reading end of a [`Queue`].
pub struct Reader {
    map: Arc<Mapping>,
    data_len: u64,
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
    /// Records that [`take_open_batches`](Self::take_open_batches) handed out, ahead of `next`.
    claimed: HashSet<u64>,
    /// Slots before this, or before `next`, may be looked at.
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
            data_len: map.data_len(),
            next: head,
            tail_seen: head,
            read: None,
            head,
            done: map.cursors().done(),
            outstanding: 0,
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
            let position = self.next;
            let raw = self.raw(position, self.tail_seen)?;
            match raw.state {
                // The slot is checked before the cursor moves, so that damage stays in place.
                state::RECORD => {
                    self.check_record(position, raw.length)?;
                    self.count(position);
                    self.next = position + raw.length;
                    if self.claimed.remove(&position) {
                        continue;
                    }
                    self.outstanding += 1;
                    return self.get(position).map(Some);
                }
                // Delivered before the worker died, or before the driver was restarted.
                state::DONE => {
                    self.check_record(position, raw.length)?;
                    self.count(position);
                    self.next = position + raw.length;
                }
                state::WRAP => self.next = position + raw.length,
                _ => return Err(Damage { position, reason: "unknown state" }),
            }
        }
    }

    /// Counts the record at `position`, whose header is inside the data area.
    fn count(&mut self, position: u64) {
        let read = self.read.unwrap_or_else(|| {
            // SAFETY: the caller checked the slot.
            let number = unsafe { (*self.header(position)).number };
            let written = self.written();
            written - u64::from((written as u32).wrapping_sub(number)).min(written)
        });
        self.read = Some(read + 1);
    }

    /// The record at `position`, which was handed out and is not done.
    pub fn get(&self, position: u64) -> Result<Slot<'_>, Damage> {
        let raw = self.raw(position, self.next.max(self.scanned))?;
        let (key_len, headers_len, payload_len) = self.check_record(position, raw.length)?;
        let header = self.header(position);
        // SAFETY: check_record saw that header, key, headers and payload lie inside the slot, and raw()
        // that the slot lies inside the data area. Between head and tail the writer does not write.
        let (key, payload) = unsafe {
            let start = header.cast::<u8>().add(SLOT_HEADER);
            let key = key_len.map(|len| std::slice::from_raw_parts(start, len));
            let at = start.add(key_len.unwrap_or(0) + headers_len);
            (key, std::slice::from_raw_parts(at, payload_len))
        };
        // SAFETY: the header is inside the data area, see above.
        let (topic, partition, timestamp_ms) =
            unsafe { ((*header).topic, (*header).partition, (*header).timestamp_ms) };
        Ok(Slot { position, topic, partition, timestamp_ms, key, payload })
    }

    fn header(&self, position: u64) -> *mut SlotHeader {
        // SAFETY: the offset is below the length of the data area; slots start at multiples of 8.
        unsafe { self.map.data().add((position % self.data_len) as usize).cast() }
    }

    /// Length and state of the slot at `position`, with the length checked against lap and tail.
    fn raw(&self, position: u64, tail: u64) -> Result<Raw, Damage> {
        let damage = |reason| Err(Damage { position, reason });
        if !position.is_multiple_of(8) || position < self.head || position >= tail {
            return damage("position outside the queue");
        }
        let header = self.header(position);
        // SAFETY: at a multiple of 8 inside the data area there are at least 8 bytes, which hold length
        // and state; the writer released them with the tail.
        let (length, state) =
            unsafe { ((*header).length as u64, (*header).state.load(Ordering::Relaxed)) };
        if length < 8 || !length.is_multiple_of(8) {
            return damage("impossible length");
        }
        if length > self.data_len - position % self.data_len {
            return damage("length beyond the end of the file");
        }
        if length > tail - position {
            return damage("length beyond the tail");
        }
        Ok(Raw { length, state })
    }

    /// Checks the inner lengths of a record slot; returns key, headers and payload length.
    fn check_record(
        &self,
        position: u64,
        length: u64,
    ) -> Result<(Option<usize>, usize, usize), Damage> {
        let damage = |reason| Err(Damage { position, reason });
        if length < SLOT_HEADER as u64 {
            return damage("shorter than its header");
        }
        let header = self.header(position);
        // SAFETY: raw() saw that `length` bytes, and so the whole header, lie inside the data area.
        let (check, topic, timestamp_ms, lens) = unsafe {
            let h = &*header;
            (h.check, h.topic, h.timestamp_ms, [h.key_len, h.headers_len, h.payload_len])
        };
        let key_len = if lens[0] == NULL_KEY { 0 } else { lens[0] as usize };
        let expected = layout::slot_len(key_len, lens[1] as usize, lens[2] as usize);
        if expected != Some(length as usize) {
            return damage("inner lengths do not add up");
        }
        if check != layout::check(position, length as u32, topic, timestamp_ms, lens) {
            return damage("header check failed");
        }
        let key = (lens[0] != NULL_KEY).then_some(key_len);
        Ok((key, lens[1] as usize, lens[2] as usize))
    }

    /// Marks a record done: delivered, or safe elsewhere. Its bytes may be overwritten once
    /// [`release`](Self::release) ran.
    pub fn done(&mut self, position: u64) {
        let end = self.next.max(self.scanned);
        if self.raw(position, end).is_ok_and(|raw| raw.state == state::RECORD) {
            // SAFETY: raw() saw that the header lies inside the data area; the state is an atomic.
            unsafe { (*self.header(position)).state.store(state::DONE, Ordering::Relaxed) };
            self.done += 1;
            self.outstanding -= 1;
        }
    }

    /// Writes down that the record at `position` is about to be sent, and in which batch.
    pub fn stamp(&mut self, position: u64, stamp: &Stamp) {
        if self
            .raw(position, self.next.max(self.scanned))
            .is_ok_and(|raw| raw.state == state::RECORD)
        {
            let header = self.header(position);
            // SAFETY: raw() saw that the slot lies inside the data area, and a record's slot has a whole
            // header (it was checked when the record was handed out). These fields are the reader's.
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
            let done = match raw.state {
                state::RECORD => false,
                state::DONE => true,
                state::WRAP => {
                    position += raw.length;
                    continue;
                }
                _ => break,
            };
            if self.check_record(position, raw.length).is_err() {
                break;
            }
            // SAFETY: check_record saw that the header lies inside the data area.
            let header = unsafe { &*self.header(position) };
            let stamp = Stamp {
                producer_id: header.producer_id,
                epoch: header.producer_epoch,
                sequence: header.sequence,
                batch_records: header.batch_records,
                partition: header.partition as u32,
            };
            let valid = header.partition >= 0
                && stamp.producer_id >= 0
                && stamp.epoch >= 0
                && stamp.sequence >= 0;
            if valid {
                found.push(Stamped { position, topic: header.topic, stamp, done });
            }
            position += raw.length;
        }
        self.scanned = position;
        let open = stamps::open_batches(found);
        for position in open.iter().flat_map(|batch| &batch.positions) {
            // SAFETY: the scan above saw that the slot, and so its header, lies inside the data area.
            let state = unsafe { &(*self.header(*position)).state };
            if state.swap(state::RECORD, Ordering::Relaxed) == state::DONE {
                self.done -= 1;
            }
            self.claimed.insert(*position);
            self.outstanding += 1;
        }
        open
    }

    /// Gives the space of done records back to the writer, up to the oldest one that is not done.
    pub fn release(&mut self) {
        while self.head < self.next {
            if let Some(&(from, to)) = self.abandoned.front()
                && from == self.head
            {
                self.head = to;
                self.abandoned.pop_front();
                continue;
            }
            match self.raw(self.head, self.next) {
                Ok(raw) if raw.state != state::RECORD => self.head += raw.length,
                _ => break,
            }
        }
        self.map.cursors().release(self.head, self.done);
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

    /// Next position to be handed out.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Bytes of the data area.
    pub fn capacity(&self) -> u64 {
        self.data_len
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

    /// Maps all pages of the queue ahead of the writer's first lap.
    pub fn populate(&self) {
        self.map.populate();
    }

    /// The driver is awake: no signal is needed.
    pub fn disarm(&self) {
        self.map.cursors().disarm();
    }
}
