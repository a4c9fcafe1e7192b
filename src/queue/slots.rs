//! A view of the slots of a queue file that only reads, takes no lock, and believes nothing that it has not checked:
//! both formats of slots stand behind it. The [reader](super::Reader) looks through it, and so may a tool that shows
//! what a file holds.
//!
//! Every slot is checked against its bounds each time it is looked at, also in a queue of our own: the file lies where
//! another process of the same user could write to it.

use super::layout::{self, EXTENSION, Extension, Flags, NULL_KEY, SlotHeader, kind, v2};
use super::mapping::{Format, Mapping};
use super::prefetch;
use super::segments::{Division, Entry};
use crate::record::{Headers, Record};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// A record in the queue. All that routing asks for comes from this one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot<'a> {
    /// Where it lies; names the record until it is done.
    pub position: u64,
    /// Topic id, to be looked up with [`Reader::topic`](super::Reader::topic).
    pub topic: u16,
    /// The partition that the writer wishes for or the reader chose, or a negative number of [`layout`].
    pub partition: i32,
    /// How it is to be treated.
    pub flags: Flags,
    /// When `log()` took it, milliseconds since 1970.
    pub logged_ms: i64,
    /// The record.
    pub record: Record<'a>,
}

impl Slot<'_> {
    /// Bytes of a slot that holds this, in the queue files that are made.
    pub fn bytes_in_queue(&self) -> usize {
        let Record { timestamp_ms, key, headers, payload } = self.record;
        let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let is_extended = timestamp_ms != self.logged_ms || !headers.is_empty();
        layout::slot_len(len(key) + headers.block().len() + len(payload), is_extended)
    }
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

/// A slot whose bytes all lie in the data area, or, if it is done, at least its header.
#[derive(Clone, Copy)]
pub(super) struct Raw {
    header: *mut u8,
    pub length: u64,
    pub kind: Kind,
}

/// What a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A record.
    Record,
    /// Filler up to the end of the segment.
    Wrap,
}

/// The view. Whoever holds one holds the file's mapping.
#[derive(Clone)]
pub struct Slots {
    map: Arc<Mapping>,
    division: Division,
    format: Format,
}

impl Slots {
    pub(super) fn new(map: Arc<Mapping>) -> Slots {
        Slots { division: map.division(), format: map.format(), map }
    }

    pub(super) fn map(&self) -> &Arc<Mapping> {
        &self.map
    }

    #[inline]
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Position after the last whole slot.
    #[inline]
    pub fn tail(&self) -> u64 {
        self.map.cursors().tail()
    }

    /// Records ever written, counted by the writer.
    pub fn written(&self) -> u64 {
        self.map.cursors().written()
    }

    /// Bytes of the data area.
    pub fn capacity(&self) -> u64 {
        self.division.data_len()
    }

    /// Process id of the file's maker.
    pub fn owner_pid(&self) -> u32 {
        self.map.identity().owner_pid
    }

    // ----------------------------------------------------------------------------------- segments

    /// Where slots go on when the segment of `position` is gone.
    #[inline]
    pub(super) fn after_gone(&self, position: u64) -> Option<u64> {
        let number = self.division.number(position);
        match self.map.entry(number) {
            Entry::Gone(resume) => Some(self.division.start(number + 1) + resume),
            Entry::At(_) => None,
        }
    }

    /// Whether the slot does not reach into a second segment.
    pub(super) fn is_in_one_segment(&self, position: u64, length: u64) -> bool {
        self.division.number(position) == self.division.number(position + length - 1)
    }

    /// Whether the segments after `number`, which lies at `place`, up to `last` follow it in the data area.
    #[cold]
    fn is_run(&self, number: u64, place: u32, last: u64) -> bool {
        (number + 1..=last)
            .zip(place + 1..)
            .all(|(number, expected)| self.map.place(number) == Some(expected))
    }

    /// True when a slot that is done still has all its bytes.
    pub(super) fn is_whole(&self, position: u64, raw: Raw) -> bool {
        let (first, last) =
            (self.division.number(position), self.division.number(position + raw.length - 1));
        self.map.place(first).is_some_and(|place| self.is_run(first, place, last))
            && self.slot(position, raw).is_ok()
    }

    /// Says that the header of the record at `position` and the first `len` bytes behind it will be looked at
    /// soon. The position need not be valid.
    #[inline]
    pub(super) fn prefetch(&self, position: u64, len: usize) {
        if let Some(place) = self.map.place(self.division.number(position)) {
            let offset = self.division.offset(place, position) as usize;
            prefetch::to_read(self.map.data().wrapping_add(offset), layout::SLOT_HEADER + len);
        }
    }

    // -------------------------------------------------------------------------------------- slots

    /// The slot at `position`, with its header checked, and its length against segments, `head` and `tail`.
    #[inline]
    pub(super) fn raw(&self, position: u64, head: u64, tail: u64) -> Result<Raw, Damage> {
        let damage = |reason| Err(Damage { position, reason });
        if !position.is_multiple_of(self.format.granule()) || position < head || position >= tail {
            return damage("position outside the queue");
        }
        let number = self.division.number(position);
        let Some(place) = self.map.place(number) else {
            return damage("a segment outside the file");
        };
        let offset = self.division.offset(place, position) as usize;
        // SAFETY: the place is one of the data area's, so that the offset is below its length.
        let header = unsafe { self.map.data().add(offset) };
        // SAFETY: the header, or in version 2 at least its first eight bytes, lies inside the data area, since it
        // begins at a multiple of its granule; the writer released it with the tail.
        let (length, kind) = unsafe {
            match self.format {
                Format::V3 => read_v3(position, header.cast()),
                Format::V2 => read_v2(header.cast()),
            }
        }
        .map_err(|reason| Damage { position, reason })?;
        if length > tail - position {
            return damage("length beyond the tail");
        }
        let raw = Raw { header, length, kind };
        let last = self.division.number(position + length - 1);
        // Of a slot that is done the segments behind the first may be gone.
        if last != number && !self.is_done(position, raw) && !self.is_run(number, place, last) {
            return damage("length beyond the end of its segments");
        }
        Ok(raw)
    }

    /// Whether the record at `position` is done.
    #[inline]
    pub(super) fn is_done(&self, position: u64, raw: Raw) -> bool {
        match self.format {
            Format::V3 => self
                .done_bit(position)
                .is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0),
            // SAFETY: raw() saw that at least eight bytes of the header, which hold the state, lie inside the data
            // area.
            Format::V2 => unsafe {
                let state = &(*raw.header.cast::<v2::SlotHeader>()).state;
                state.load(Ordering::Relaxed) == v2::state::DONE
            },
        }
    }

    /// The bit that says whether the record at `position` is done, and the word that it stands in.
    #[inline]
    fn done_bit(&self, position: u64) -> Option<(&AtomicU64, u64)> {
        let place = self.map.place(self.division.number(position))?;
        let granule = self.division.offset(0, position) / layout::GRANULE;
        let word = self.map.done_bits(place).get(granule as usize / 64)?;
        Some((word, 1 << (granule % 64)))
    }

    /// How many records came before this one, on the writer's count.
    pub(super) fn number(&self, raw: Raw) -> u64 {
        // SAFETY: slot() saw that the whole header lies inside the data area.
        let number = unsafe {
            match self.format {
                Format::V3 => (*raw.header.cast::<SlotHeader>()).number,
                Format::V2 => (*raw.header.cast::<v2::SlotHeader>()).number,
            }
        };
        let written = self.written();
        written - u64::from((written as u32).wrapping_sub(number)).min(written)
    }

    /// What is in a slot that is whole.
    #[inline]
    pub(super) fn slot(&self, position: u64, raw: Raw) -> Result<Slot<'_>, Damage> {
        let slot = match self.format {
            Format::V3 => self.slot_of_v3(position, raw),
            Format::V2 => self.slot_of_v2(position, raw),
        };
        slot.map_err(|reason| Damage { position, reason })
    }

    #[inline]
    fn slot_of_v3(&self, position: u64, raw: Raw) -> Result<Slot<'_>, &'static str> {
        // SAFETY: raw() saw that `length` bytes, and so the whole header, lie inside the data area. Between head and
        // tail the writer does not write.
        let (header, bytes) = unsafe {
            let bytes = std::slice::from_raw_parts(raw.header, raw.length as usize);
            (*raw.header.cast::<SlotHeader>(), bytes)
        };
        let unused = usize::from(header.flags >> kind::UNUSED_SHIFT);
        let rest = &bytes[layout::SLOT_HEADER..];
        let rest = rest.get(..rest.len().wrapping_sub(unused)).ok_or(NO_SUM)?;
        let (timestamp_ms, headers_len, rest) = if header.flags & kind::EXTENDED == 0 {
            (header.logged_ms, 0, rest)
        } else {
            read_extension(position, rest)?
        };
        let key_len = if header.key_len == NULL_KEY { 0 } else { header.key_len as usize };
        let (key, rest) = rest.split_at_checked(key_len).ok_or(NO_SUM)?;
        let (headers, payload) = rest.split_at_checked(headers_len).ok_or(NO_SUM)?;
        let is_null = header.flags & kind::NULL_PAYLOAD != 0;
        if is_null && !payload.is_empty() {
            return Err(NO_SUM);
        }
        let record = Record {
            timestamp_ms,
            key: (header.key_len != NULL_KEY).then_some(key),
            headers: Headers::check(headers).map_err(|_| "impossible headers")?,
            payload: (!is_null).then_some(payload),
        };
        let SlotHeader { topic, partition, logged_ms, flags, .. } = header;
        let flags = Flags(flags & Flags::ALL.0);
        Ok(Slot { position, topic, partition, flags, logged_ms, record })
    }

    fn slot_of_v2(&self, position: u64, raw: Raw) -> Result<Slot<'_>, &'static str> {
        if raw.length < v2::SLOT_HEADER as u64 {
            return Err("shorter than its header");
        }
        // SAFETY: raw() saw that `length` bytes lie inside the data area; between head and tail the writer does not
        // write.
        let (header, bytes) = unsafe {
            let bytes = std::slice::from_raw_parts(raw.header, raw.length as usize);
            (&*raw.header.cast::<v2::SlotHeader>(), bytes)
        };
        let key_len = if header.key_len == NULL_KEY { 0 } else { header.key_len as usize };
        let (headers_len, payload_len) = (header.headers_len as usize, header.payload_len as usize);
        let len = v2::SLOT_HEADER + key_len + headers_len + payload_len;
        if len.next_multiple_of(8) as u64 != raw.length {
            return Err(NO_SUM);
        }
        if header.check != v2::check(position, header) {
            return Err("header check failed");
        }
        let (key, rest) = bytes[v2::SLOT_HEADER..len].split_at(key_len);
        let key = (header.key_len != NULL_KEY).then_some(key);
        let record = Record::new(header.timestamp_ms, key, Some(&rest[headers_len..]));
        let (topic, partition, logged_ms) = (header.topic, header.partition, header.timestamp_ms);
        Ok(Slot { position, topic, partition, flags: Flags::NONE, logged_ms, record })
    }

    // -------------------------------------------------------------- what the reader alone may change

    /// Says whether the record at `position` is done.
    #[inline]
    pub(super) fn set_done(&self, position: u64, is_done: bool) {
        match self.format {
            Format::V3 => {
                if let Some((word, bit)) = self.done_bit(position) {
                    // The reader alone writes here, so that two steps are as good as one.
                    let bits = word.load(Ordering::Relaxed);
                    word.store(if is_done { bits | bit } else { bits & !bit }, Ordering::Relaxed);
                }
            }
            Format::V2 => {
                if let Some(header) = self.header_of_v2(position) {
                    let state = if is_done { v2::state::DONE } else { v2::state::RECORD };
                    // SAFETY: the header lies inside the data area; the state is an atomic.
                    unsafe { (*header).state.store(state, Ordering::Relaxed) };
                }
            }
        }
    }

    /// Writes down which partition the record at `position`, which is whole, goes to.
    #[inline]
    pub(super) fn set_partition(&self, position: u64, partition: u32) {
        let Some(header) = self.header_at(position) else { return };
        // SAFETY: the header of a slot that is whole lies inside the data area, and of its fields only the reader
        // writes this one, once the writer has released the slot; both are aligned for it.
        unsafe {
            let at = match self.format {
                Format::V3 => &raw mut (*header.cast::<SlotHeader>()).partition,
                Format::V2 => &raw mut (*header.cast::<v2::SlotHeader>()).partition,
            };
            AtomicI32::from_ptr(at).store(partition as i32, Ordering::Relaxed);
        }
    }

    /// The header of the slot of version 2 at `position`.
    pub(super) fn header_of_v2(&self, position: u64) -> Option<*mut v2::SlotHeader> {
        let is_v2 = self.format == Format::V2;
        is_v2.then(|| self.header_at(position).map(|header| header.cast()))?
    }

    /// Where the header of the slot at `position` lies in the mapping, whatever it holds.
    #[inline]
    fn header_at(&self, position: u64) -> Option<*mut u8> {
        let place = self.map.place(self.division.number(position))?;
        let position = position & !(self.format.granule() - 1);
        let offset = self.division.offset(place, position);
        let header_len = match self.format {
            Format::V3 => layout::SLOT_HEADER,
            Format::V2 => v2::SLOT_HEADER,
        };
        if offset + header_len as u64 > self.division.data_len() {
            return None;
        }
        // SAFETY: the whole header lies inside the data area.
        Some(unsafe { self.map.data().add(offset as usize) })
    }
}

const NO_SUM: &str = "inner lengths do not add up";

/// Length and kind of a slot of version 3, whose header is checked.
///
/// # Safety
/// `header` points to a whole header.
#[inline]
unsafe fn read_v3(position: u64, header: *const SlotHeader) -> Result<(u64, Kind), &'static str> {
    // SAFETY: the caller's promise; any bytes are a valid header.
    let header = unsafe { *header };
    let length = u64::from(header.length);
    if length == 0 || !length.is_multiple_of(layout::GRANULE) {
        return Err("impossible length");
    }
    if header.check != layout::check(position, &header) {
        return Err("header check failed");
    }
    if header.flags & !kind::KNOWN != 0 {
        return Err("unknown flags");
    }
    let is_wrap = header.flags & kind::WRAP != 0;
    Ok((length, if is_wrap { Kind::Wrap } else { Kind::Record }))
}

/// Length and kind of a slot of version 2.
///
/// # Safety
/// `header` points to at least the first eight bytes of a header.
unsafe fn read_v2(header: *const v2::SlotHeader) -> Result<(u64, Kind), &'static str> {
    // SAFETY: the caller's promise; both fields lie in the first eight bytes.
    let (length, state) =
        unsafe { (u64::from((*header).length), (*header).state.load(Ordering::Relaxed)) };
    if length < 8 || !length.is_multiple_of(v2::GRANULE) {
        return Err("impossible length");
    }
    match state {
        v2::state::RECORD | v2::state::DONE if length < v2::SLOT_HEADER as u64 => {
            Err("shorter than its header")
        }
        v2::state::RECORD | v2::state::DONE => Ok((length, Kind::Record)),
        v2::state::WRAP => Ok((length, Kind::Wrap)),
        _ => Err("unknown state"),
    }
}

/// Time and length of the headers out of an extension, and what follows it.
#[cold]
fn read_extension(position: u64, bytes: &[u8]) -> Result<(i64, usize, &[u8]), &'static str> {
    let (extension, rest) = bytes.split_at_checked(EXTENSION).ok_or(NO_SUM)?;
    // SAFETY: as many bytes as an Extension has, for which any bytes are valid.
    let extension = unsafe { extension.as_ptr().cast::<Extension>().read_unaligned() };
    let Extension { timestamp_ms, headers_len, check } = extension;
    if check != layout::check_extension(position, timestamp_ms, headers_len) {
        return Err("extension check failed");
    }
    Ok((timestamp_ms, headers_len as usize, rest))
}
