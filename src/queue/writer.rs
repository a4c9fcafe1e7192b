//! The writing end: runs on nginx's thread, inside `log()`. It never waits, and as long as the driver keeps up it never
//! calls the kernel or meets a page that is not mapped: the [provisioner] sees to that. The one
//! thing it may ask of its caller is to signal the driver.

use super::barrier::Barrier;
use super::file::Queue;
use super::layout::{self, EXTENSION, Extension, Flags, NULL_KEY, SLOT_HEADER, SlotHeader, kind};
use super::mapping::Mapping;
use super::places::Want;
use super::prefetch;
use super::provisioner;
use super::segments::{Entry, MAP_ENTRIES};
use super::topics::{TopicError, TopicTable};
use crate::record::Record;
use std::sync::Arc;

/// How far ahead of the tail lines are asked for, in bytes: far enough for a line to have come when it is needed, near
/// enough for it to be there still.
const PREFETCH_AHEAD: usize = 4096;

/// Why a record was not taken. Nothing was written in any of these cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// `queue_buffering_max_messages` records are waiting.
    #[error("queue full: queue_buffering_max_messages are waiting")]
    TooManyMessages,
    /// The bytes of the queue are in use, or there is no more memory where it lies.
    #[error(
        "queue full: queue_buffering_max_kbytes are in use, or there is no more memory where queue_path lies"
    )]
    NoSpace,
    /// The record is larger than `message_max_bytes`.
    #[error("message too large: key, headers and payload exceed message_max_bytes")]
    TooLarge,
    /// No such topic id.
    #[error("no such topic id")]
    UnknownTopic,
}

/// The writing end of a [`Queue`]. One per queue, used by one thread.
pub struct Writer {
    map: Arc<Mapping>,
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
    topics: TopicTable,
    /// Place of the newest segment, and number of the next one.
    newest: Option<u32>,
    next_segment: u64,
    /// Where the queue lies there was no memory when we last asked for some.
    is_starved: bool,
    /// The driver is to be signalled with the next record: it has to provide memory.
    needs_places: bool,
    allocated: u64,
}

// SAFETY: a Writer may move to another thread: it is the only one that writes through its mapping's
// writer-owned words, wherever it runs, and all shared words are atomics.
unsafe impl Send for Writer {}

impl Writer {
    /// The writing end. Taken once, by the maker of the file. `max_bytes` bounds key, headers and payload of a
    /// record together; a quarter of the queue bounds them as well.
    pub fn new(queue: &Queue, max_messages: u64, max_bytes: usize) -> Writer {
        let map = queue.map().clone();
        let tail = map.cursors().tail();
        Writer {
            tail,
            offset: 0,
            rest: 0,
            written: map.cursors().written(),
            done_seen: map.cursors().done(),
            max_messages,
            max_bytes: max_bytes.min(map.division().data_len() as usize / 4),
            barrier: map.barrier(),
            topics: TopicTable::default(),
            newest: None,
            next_segment: map.division().number(tail),
            is_starved: false,
            needs_places: false,
            allocated: 0,
            map,
        }
    }

    /// Takes over what the file already holds, for a writer that goes on where another ended.
    #[cfg(test)]
    pub(super) fn take_over(&mut self, mut reader: super::Reader) {
        let names: Vec<Box<str>> = (0..).map_while(|id| reader.topic(id).map(Into::into)).collect();
        self.topics = TopicTable::of(names);
        let (division, head) = (self.map.division(), reader.head());
        for number in division.number(head)..self.tail.div_ceil(division.segment_len()) {
            self.newest = match self.map.entry(number) {
                Entry::At(place) => {
                    self.map.allocate_place(place).expect("it has memory");
                    self.map.places().take(place);
                    Some(place)
                }
                Entry::Gone(_) => None,
            };
            self.next_segment = number + 1;
        }
        for place in 0..division.count() {
            if self.map.places().is_empty(place) {
                self.map.allocate_place(place).expect("room");
                self.map.clear_done(place);
            }
        }
        self.rest = self.tail.next_multiple_of(division.segment_len()) - self.tail;
        self.offset = self.newest.map_or(0, |place| division.offset(place + 1, 0) - self.rest);
    }

    /// Id of `name`, entered into the file's topic table when it is new. Not for the hot path: callers
    /// keep the id.
    pub fn topic(&mut self, name: &str) -> Result<u16, TopicError> {
        self.topics.id(&self.map, name)
    }

    /// Copies a record into the queue. `Ok(true)` asks the caller to signal the driver. `partition` is a number, or
    /// one of [`NO_PARTITION`](layout::NO_PARTITION) and [`ASK_PARTITION`](layout::ASK_PARTITION); `logged_ms` is the
    /// wall clock's time. A record without headers whose own time is that one costs nothing for either.
    #[inline]
    pub fn push(
        &mut self,
        topic: u16,
        partition: i32,
        logged_ms: i64,
        record: &Record<'_>,
        flags: Flags,
    ) -> Result<bool, PushError> {
        let key = record.key.unwrap_or_default();
        let payload = record.payload.unwrap_or_default();
        let headers = record.headers.block();
        let bytes = key.len().saturating_add(payload.len()).saturating_add(headers.len());
        if bytes > self.max_bytes {
            return Err(PushError::TooLarge);
        }
        if topic as usize >= self.topics.len() {
            return Err(PushError::UnknownTopic);
        }
        let is_extended = record.timestamp_ms != logged_ms || !headers.is_empty();
        let length = layout::slot_len(bytes, is_extended);

        if self.written.saturating_sub(self.done_seen) >= self.max_messages {
            self.done_seen = self.map.cursors().done();
            if self.written.saturating_sub(self.done_seen) >= self.max_messages {
                return Err(PushError::TooManyMessages);
            }
        }
        if length as u64 > self.rest && !self.find_room(length as u64) {
            return Err(PushError::NoSpace);
        }

        let extension = if is_extended { EXTENSION } else { 0 };
        let unused = length - SLOT_HEADER - extension - bytes;
        let mut kinds = flags.0 | (unused as u16) << kind::UNUSED_SHIFT;
        if record.payload.is_none() {
            kinds |= kind::NULL_PAYLOAD;
        }
        if is_extended {
            kinds |= kind::EXTENDED;
        }
        let mut header = SlotHeader {
            length: length as u32,
            check: 0,
            topic,
            flags: kinds,
            partition,
            logged_ms,
            key_len: record.key.map_or(NULL_KEY, |key| key.len() as u32),
            number: self.written as u32,
        };
        header.check = layout::check(self.tail, &header);
        // SAFETY: `length` bytes from `offset` are within `rest`: they lie inside the data area, in
        // segments that are ours, have memory and lie behind the tail, where the reader does not look. The slot
        // starts at a multiple of 32, as the header's alignment asks.
        unsafe {
            let at = self.map.data().add(self.offset as usize);
            at.cast::<SlotHeader>().write(header);
            crate::crash_points::crash_point("slot begun");
            let mut at = at.add(SLOT_HEADER);
            if is_extended {
                at = write_extension(at, self.tail, record);
            }
            at.copy_from_nonoverlapping(key.as_ptr(), key.len());
            let at = at.add(key.len());
            if is_extended {
                at.copy_from_nonoverlapping(headers.as_ptr(), headers.len());
            }
            at.add(headers.len()).copy_from_nonoverlapping(payload.as_ptr(), payload.len());
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
        Ok(signal | std::mem::take(&mut self.needs_places))
    }

    /// Makes the next `length` bytes of the data area ours, which the rest of the segment does not hold; false
    /// when there is no room, and then nothing has changed.
    #[cold]
    fn find_room(&mut self, length: u64) -> bool {
        // A record that waits for long must not meet its own entry again.
        let division = self.map.division();
        let oldest = division.number(self.map.cursors().head());
        let count = length.div_ceil(division.segment_len());
        if self.next_segment.saturating_sub(oldest) + count + 1 > MAP_ENTRIES as u64 {
            return false;
        }
        let found = self.take_room(length) || self.is_starved && self.take_room(length);
        if found {
            let ready = self.map.places().counts().ready;
            self.needs_places |= provisioner::is_short(division, ready);
        }
        found
    }

    /// As [`find_room`](Self::find_room). Where it fails for want of memory, `is_starved` is set, and the next try is
    /// content with places that have some.
    fn take_room(&mut self, length: u64) -> bool {
        let want = if self.is_starved { Want::Ready } else { Want::Free };
        let segment_len = self.map.division().segment_len();
        let places = self.map.places();
        let lowest = places.lowest(want);
        let count = length.div_ceil(segment_len) as u32;
        // A slot goes on into what follows its segment when that is the lowest that is free anyway, or when it
        // takes a run in any case.
        let more = (length - self.rest).div_ceil(segment_len) as u32;
        if let Some(first) = self.newest.map(|place| place + 1)
            && (lowest == Some(first) || count > 1)
            && places.is_free_run(first, more, want)
            && self.take(first, more)
        {
            self.rest += u64::from(more) * segment_len;
            return true;
        }
        let first = if count == 1 { lowest } else { self.map.places().lowest_run(count, want) };
        // What is left of the segment is no part of the new run: its filler comes first.
        let Some(first) = first.filter(|first| self.reserve(*first, count)) else { return false };
        if self.rest > 0 {
            self.write_wrap();
        }
        crate::crash_points::crash_point("slot wrapped");
        self.enter(first, count);
        self.offset = u64::from(first) * segment_len;
        self.rest = u64::from(count) * segment_len;
        true
    }

    /// Fills the rest of the segment.
    fn write_wrap(&mut self) {
        let mut header = SlotHeader {
            length: self.rest as u32,
            check: 0,
            topic: 0,
            flags: kind::WRAP,
            partition: layout::NO_PARTITION,
            logged_ms: 0,
            key_len: 0,
            number: self.written as u32,
        };
        header.check = layout::check(self.tail, &header);
        // SAFETY: `rest` bytes from `offset` are ours and inside the data area; they are at least 32, since slots are
        // multiples of that.
        unsafe {
            self.map.data().add(self.offset as usize).cast::<SlotHeader>().write(header);
        }
        self.tail += self.rest;
    }

    /// Takes the places from `first` on and enters them into the map, for the next `count` segments.
    fn take(&mut self, first: u32, count: u32) -> bool {
        let reserved = self.reserve(first, count);
        if reserved {
            self.enter(first, count);
        }
        reserved
    }

    /// Takes the places from `first` on, and gets memory for those that have none: all of them, or none.
    fn reserve(&mut self, first: u32, count: u32) -> bool {
        for place in first..first + count {
            let Some(has_memory) = self.map.places().take(place) else {
                self.put_back(first..place);
                return false;
            };
            if has_memory {
                self.is_starved = false;
                continue;
            }
            if self.map.allocate_place(place).is_err() {
                self.is_starved = true;
                self.map.places().put_back(place, false);
                self.put_back(first..place);
                return false;
            }
            self.allocated += 1;
        }
        true
    }

    fn put_back(&self, places: std::ops::Range<u32>) {
        places.for_each(|place| self.map.places().put_back(place, true));
    }

    /// Enters the places from `first` on into the map, for the next `count` segments.
    fn enter(&mut self, first: u32, count: u32) {
        for place in first..first + count {
            // The reader looks only after it has seen a tail beyond this segment's start.
            self.map.set_entry(self.next_segment, Entry::At(place));
            self.next_segment += 1;
            self.newest = Some(place);
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
        let in_use = u64::from(self.map.places().counts().taken);
        (in_use * self.map.division().segment_len()).saturating_sub(self.rest)
    }

    /// Segments for which `log()` had to get memory from the kernel itself, since a burst outran the driver.
    pub fn allocated_by_writer(&self) -> u64 {
        self.allocated
    }

    /// Position after the last record taken.
    pub fn tail(&self) -> u64 {
        self.tail
    }
}

/// Writes what follows the header of a record with headers or a time of its own; returns where its key belongs.
///
/// # Safety
/// `at` points to room for it, where nobody looks.
#[cold]
unsafe fn write_extension(at: *mut u8, position: u64, record: &Record<'_>) -> *mut u8 {
    let (timestamp_ms, headers_len) = (record.timestamp_ms, record.headers.block().len() as u32);
    let check = layout::check_extension(position, timestamp_ms, headers_len);
    // SAFETY: the caller's promise.
    unsafe {
        at.cast::<Extension>().write_unaligned(Extension { timestamp_ms, headers_len, check });
        at.add(EXTENSION)
    }
}
