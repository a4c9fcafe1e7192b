//! The writing end: runs on nginx's thread, inside `log()`. It never waits, allocates or calls the
//! kernel; the one thing it may ask of its caller is to signal the reader.

use super::barrier::Barrier;
use super::file::{Mapping, Queue};
use super::layout::{self, NULL_KEY, SLOT_HEADER, SlotHeader, state};
use super::prefetch;
use super::segments::{self, Book, MAP_ENTRIES};
use crate::topic_name;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How far ahead of the tail lines are asked for, in bytes: far enough for a line to have come when it is needed, near
/// enough for it to be there still.
const PREFETCH_AHEAD: usize = 4096;

/// Why a record was not taken. Nothing was written in any of these cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// `queue_buffering_max_messages` records are waiting.
    #[error("queue full: queue_buffering_max_messages are waiting")]
    TooManyMessages,
    /// The bytes of the queue are in use.
    #[error("queue full: queue_buffering_max_kbytes are in use")]
    NoSpace,
    /// The record is larger than `message_max_bytes`.
    #[error("message too large: key and payload exceed message_max_bytes")]
    TooLarge,
    /// No such topic id.
    #[error("no such topic id")]
    UnknownTopic,
}

/// Why a topic was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Not a name Kafka takes.
    #[error("not a valid topic name: 1 to 249 of a-z A-Z 0-9 . _ - and neither . nor ..")]
    Invalid,
    /// The table in the file is full.
    #[error("too many topics for one queue")]
    TableFull,
}

/// The writing end of a [`Queue`]. One per queue, used by one thread.
pub struct Writer {
    map: Arc<Mapping>,
    book: Book,
    tail: u64,
    /// Where `tail` lies in the data area, and how many bytes from there to the end of its segment are ours.
    offset: u64,
    rest: u64,
    written: u64,
    /// Last seen count of done records; looked up again only when it does not suffice.
    done_seen: u64,
    max_messages: u64,
    max_bytes: usize,
    barrier: Barrier,
    topics: Vec<Box<str>>,
}

// SAFETY: a Writer may move to another thread: it is the only one that writes through its mapping's
// writer-owned words, wherever it runs, and all shared words are atomics.
unsafe impl Send for Writer {}

impl Writer {
    pub(super) fn new(queue: &Queue, max_messages: u64, max_bytes: usize) -> Writer {
        let map = queue.map.clone();
        let tail = map.cursors().tail();
        Writer {
            book: Book::new(map.division(), tail),
            tail,
            offset: 0,
            rest: 0,
            written: map.cursors().written(),
            done_seen: map.cursors().done(),
            max_messages,
            max_bytes: max_bytes.min(map.division().data_len() as usize / 4),
            barrier: map.barrier(),
            topics: Vec::new(),
            map,
        }
    }

    /// Takes over what the file already holds, for a writer that goes on where another ended.
    #[cfg(test)]
    pub(super) fn take_over(&mut self, mut reader: super::Reader) {
        while let Some(name) = reader.topic(self.topics.len() as u16) {
            self.topics.push(name.into());
        }
        let (division, head) = (self.map.division(), reader.head());
        self.book = Book::new(division, head);
        for number in division.number(head)..self.tail.div_ceil(division.segment_len()) {
            let entry = self.map.segments()[segments::entry(number)].load(Ordering::Relaxed);
            match segments::resume(entry) {
                None => self.book.take(entry),
                Some(_) => self.book.pass(),
            }
        }
        self.rest = self.tail.next_multiple_of(division.segment_len()) - self.tail;
        self.offset =
            self.book.newest().map_or(0, |place| division.offset(place + 1, 0) - self.rest);
    }

    /// Id of `name`, entered into the file's topic table when it is new. Not for the hot path: callers
    /// keep the id.
    pub fn topic(&mut self, name: &str) -> Result<u16, TopicError> {
        if let Some(id) = self.topics.iter().position(|topic| &**topic == name) {
            return Ok(id as u16);
        }
        if !topic_name::is_valid(name) {
            return Err(TopicError::Invalid);
        }
        let id = u16::try_from(self.topics.len()).map_err(|_| TopicError::TableFull)?;
        let used = self.map.identity().topics_used.load(Ordering::Relaxed) as usize;
        let entry = 2 + name.len();
        if used + entry > layout::TOPICS_LEN {
            return Err(TopicError::TableFull);
        }
        // SAFETY: the entry lies inside the topic table (checked above), which only the writer writes
        // and whose bytes from `used` on nobody reads before the store below.
        unsafe {
            let at = self.map.base().add(layout::TOPICS_OFFSET + used);
            at.cast::<u16>().write_unaligned(name.len() as u16);
            at.add(2).copy_from_nonoverlapping(name.as_ptr(), name.len());
        }
        crate::crash_points::crash_point("topic copied");
        self.map.identity().topics_used.store((used + entry) as u32, Ordering::Release);
        self.topics.push(name.into());
        Ok(id)
    }

    /// Copies a record into the queue. `Ok(true)` asks the caller to signal the reader. A null key is
    /// `None`, which is not the same as an empty one. `partition` is a number, or one of
    /// [`NO_PARTITION`](layout::NO_PARTITION) and [`ASK_PARTITION`](layout::ASK_PARTITION).
    #[inline]
    pub fn push_to(
        &mut self,
        topic: u16,
        partition: i32,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        payload: &[u8],
    ) -> Result<bool, PushError> {
        let key_bytes = key.unwrap_or_default();
        if key_bytes.len() > self.max_bytes || payload.len() > self.max_bytes - key_bytes.len() {
            return Err(PushError::TooLarge);
        }
        if topic as usize >= self.topics.len() {
            return Err(PushError::UnknownTopic);
        }
        let length = (SLOT_HEADER + key_bytes.len() + payload.len() + 7) & !7;

        if self.written.saturating_sub(self.done_seen) >= self.max_messages {
            self.done_seen = self.map.cursors().done();
            if self.written.saturating_sub(self.done_seen) >= self.max_messages {
                return Err(PushError::TooManyMessages);
            }
        }
        if length as u64 > self.rest && !self.find_room(length as u64) {
            return Err(PushError::NoSpace);
        }

        let key_len = key.map_or(NULL_KEY, |key| key.len() as u32);
        let payload_len = payload.len() as u32;
        let header = SlotHeader {
            length: length as u32,
            state: AtomicU32::new(state::RECORD),
            check: layout::check(
                self.tail,
                length as u32,
                topic,
                timestamp_ms,
                [key_len, 0, payload_len],
            ),
            topic,
            flags: 0,
            timestamp_ms,
            key_len,
            headers_len: 0,
            payload_len,
            partition,
            producer_id: -1,
            sequence: -1,
            batch_records: 0,
            producer_epoch: -1,
            reserved: 0,
            number: self.written as u32,
        };
        // SAFETY: `length` bytes from `offset` are within `rest`: they lie inside the data area, in
        // segments that are ours and behind the tail, where the reader does not look. The slot starts at
        // a multiple of 8, as the header's alignment asks.
        unsafe {
            let at = self.map.data().add(self.offset as usize);
            at.cast::<SlotHeader>().write(header);
            crate::crash_points::crash_point("slot begun");
            let at = at.add(SLOT_HEADER);
            at.copy_from_nonoverlapping(key_bytes.as_ptr(), key_bytes.len());
            at.add(key_bytes.len()).copy_from_nonoverlapping(payload.as_ptr(), payload.len());
        }
        crate::crash_points::crash_point("slot copied");
        self.tail += length as u64;
        self.offset += length as u64;
        self.rest -= length as u64;
        self.written += 1;
        // As much as this record took: what comes will be much like it. Outside of the data area it is nothing.
        let ahead = self.map.data().wrapping_add(self.offset as usize + PREFETCH_AHEAD);
        prefetch::to_write(ahead, length);
        let signal = self.map.cursors().publish(self.tail, self.written, self.barrier);
        crate::crash_points::crash_point("slot published");
        Ok(signal)
    }

    /// [`push_to`](Self::push_to) whatever partition the reader chooses.
    #[inline]
    pub fn push(
        &mut self,
        topic: u16,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        payload: &[u8],
    ) -> Result<bool, PushError> {
        self.push_to(topic, layout::NO_PARTITION, timestamp_ms, key, payload)
    }

    /// Makes the next `length` bytes of the data area ours, which the rest of the segment does not hold; false
    /// when there is no room, and then nothing has changed.
    #[cold]
    fn find_room(&mut self, length: u64) -> bool {
        let segment_len = self.map.division().segment_len();
        for (place, returned) in self.map.returned().iter().enumerate() {
            // Pairs with the reader's store: it does not look at the segment any more.
            if returned.load(Ordering::Acquire) != 0 {
                returned.store(0, Ordering::Relaxed);
                self.book.give_back(place as u32);
            }
        }
        // A record that waits for long must not meet its own entry again.
        let oldest = self.map.division().number(self.map.cursors().head());
        let span = self.book.end().saturating_sub(oldest) + length.div_ceil(segment_len) + 1;
        if span > MAP_ENTRIES as u64 {
            return false;
        }
        let lowest = self.book.lowest();
        let count = length.div_ceil(segment_len) as u32;
        // A slot goes on into what follows its segment when that is the lowest that is free anyway, or when it
        // takes a run in any case.
        let more = (length - self.rest).div_ceil(segment_len) as u32;
        if let Some(first) = self.book.newest().map(|place| place + 1)
            && (lowest == Some(first) || count > 1)
            && self.book.is_free_run(first, more)
        {
            self.take(first, more);
            self.rest += u64::from(more) * segment_len;
            return true;
        }
        let first = if count == 1 { lowest } else { self.book.lowest_run(count) };
        let Some(first) = first else { return false };
        if self.rest > 0 {
            // SAFETY: `rest` bytes from `offset` are ours and inside the data area; they are at least 8,
            // since slots are multiples of 8.
            unsafe {
                let at = self.map.data().add(self.offset as usize).cast::<SlotHeader>();
                (&raw mut (*at).length).write(self.rest as u32);
                (&raw mut (*at).state).write(AtomicU32::new(state::WRAP));
            }
            self.tail += self.rest;
        }
        crate::crash_points::crash_point("slot wrapped");
        self.take(first, count);
        self.offset = u64::from(first) * segment_len;
        self.rest = u64::from(count) * segment_len;
        true
    }

    /// Enters the places from `first` on into book and map, for the next `count` segments.
    fn take(&mut self, first: u32, count: u32) {
        for place in first..first + count {
            let entry = &self.map.segments()[segments::entry(self.book.end())];
            // The reader looks only after it has seen a tail beyond this segment's start.
            entry.store(place, Ordering::Relaxed);
            self.book.take(place);
        }
    }

    /// Records ever taken.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Records that are not done.
    pub fn waiting(&self) -> u64 {
        self.written.saturating_sub(self.map.cursors().done())
    }

    /// Bytes of the segments in use, up to the newest record.
    pub fn bytes_in_use(&self) -> u64 {
        if self.waiting() == 0 {
            return 0;
        }
        let marks = self.map.returned().iter();
        let returned = marks.filter(|mark| mark.load(Ordering::Relaxed) != 0).count() as u64;
        let in_use = u64::from(self.book.in_use()).saturating_sub(returned);
        (in_use * self.map.division().segment_len()).saturating_sub(self.rest)
    }

    /// Position after the last record taken.
    pub fn tail(&self) -> u64 {
        self.tail
    }
}
