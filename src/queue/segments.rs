//! Which segment of the data area holds which stretch of positions: the division, and the writer's book.
//!
//! The writer takes the lowest segment that is free. So a flow that keeps little waiting goes round in few
//! segments, which stay in the processors' caches, and what waits lies together at the start of the file:
//! the rest is one free run, where large records find room. A record that has to wait keeps its own segment
//! and none of those after it. Nothing here touches the file: the book is the writer's own memory, and a
//! damaged map cannot mislead it.
//!
//! # Invariants
//! - Segments that are in use each have a place of their own in the data area; all other places are free.
//! - A place is free again once every slot that reaches into its segment is done, and not before.
//! - Numbers from that of head to that of tail have an entry each in the map.

/// Shortest segment.
pub const MIN_SEGMENT_LEN: u64 = 4 * 1024;
/// Longest segment: two of them, which is what a light load goes round in, fit a processor's cache.
pub const MAX_SEGMENT_LEN: u64 = 256 * 1024;
/// Most segments of a data area.
pub const MAX_SEGMENTS: usize = 8192;
/// Entries of the map, a power of two: how far tail may be ahead of head, in segments, while some between them
/// are free again.
pub const MAP_ENTRIES: usize = 65_536;

/// In an entry of the map: all slots of the segment are done, and its place is free. The other bits say where
/// in the next segment a slot begins, in units of 8 bytes.
const GONE: u32 = 1 << 31;

/// The entry of a segment that is done with; the next slot begins `resume` bytes into the one after it.
pub fn gone(resume: u64) -> u32 {
    GONE | (resume / 8) as u32
}

/// Where the slots go on after a segment that is done with; `None` when it is not.
#[inline]
pub fn resume(entry: u32) -> Option<u64> {
    (entry & GONE != 0).then_some(u64::from(entry & !GONE) * 8)
}

/// Where segment `number` stands in the map.
#[inline]
pub fn entry(number: u64) -> usize {
    number as usize & (MAP_ENTRIES - 1)
}

/// How a data area is divided: into `count` segments of 2^`shift` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Division {
    shift: u32,
    count: u32,
}

impl Division {
    /// Of a new file of about `data_len` bytes: at least 16 segments, in most files 64 to 128 of them.
    pub fn of_new(data_len: u64) -> Division {
        let len = (1u64 << (data_len / 64).max(1).ilog2()).clamp(MIN_SEGMENT_LEN, MAX_SEGMENT_LEN);
        Division::of_parts(len.ilog2(), data_len.div_ceil(len) as u32)
    }

    /// Of a file whose header says `segment_len`, or `None` when that cannot be.
    pub fn of_file(data_len: u64, segment_len: u32) -> Option<Division> {
        let len = u64::from(segment_len);
        let possible = len.is_power_of_two()
            && (MIN_SEGMENT_LEN..=MAX_SEGMENT_LEN).contains(&len)
            && data_len.is_multiple_of(len)
            && data_len / len <= MAX_SEGMENTS as u64;
        possible.then(|| Division::of_parts(len.ilog2(), (data_len / len) as u32))
    }

    pub(super) fn of_parts(shift: u32, count: u32) -> Division {
        Division { shift, count }
    }

    /// Bytes of a segment.
    #[inline]
    pub fn segment_len(self) -> u64 {
        1 << self.shift
    }

    /// Segments of the data area.
    #[inline]
    pub fn count(self) -> u32 {
        self.count
    }

    /// Bytes of the data area.
    pub fn data_len(self) -> u64 {
        u64::from(self.count) << self.shift
    }

    /// Number of the segment that `position` belongs to, counted along the positions.
    #[inline]
    pub fn number(self, position: u64) -> u64 {
        position >> self.shift
    }

    /// Position at which segment `number` begins.
    #[inline]
    pub fn start(self, number: u64) -> u64 {
        number << self.shift
    }

    /// Offset in the data area of `position`, whose segment lies at `place`.
    #[inline]
    pub fn offset(self, place: u32, position: u64) -> u64 {
        (u64::from(place) << self.shift) | (position & (self.segment_len() - 1))
    }
}

/// The writer's book. Nothing is allocated after [`new`](Self::new).
pub struct Book {
    division: Division,
    newest: Option<u32>,
    end: u64,
    /// One bit for each place that is free.
    free: Box<[u64]>,
}

impl Book {
    /// A book in which all places are free; the first segment to be taken holds `position`.
    pub fn new(division: Division, position: u64) -> Book {
        let count = division.count as usize;
        let mut free = vec![u64::MAX; count.div_ceil(64)].into_boxed_slice();
        if !count.is_multiple_of(64) {
            free[count / 64] = (1 << (count % 64)) - 1;
        }
        Book { division, newest: None, end: division.number(position), free }
    }

    /// Number of the next segment that is taken.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Place of the newest segment.
    pub fn newest(&self) -> Option<u32> {
        self.newest
    }

    /// The next segment has no place any more, in a file that another writer began.
    #[cfg(test)]
    pub fn pass(&mut self) {
        self.newest = None;
        self.end += 1;
    }

    /// A place is free again.
    pub fn give_back(&mut self, place: u32) {
        self.free[place as usize / 64] |= 1 << (place % 64);
    }

    /// Places in use.
    pub fn in_use(&self) -> u32 {
        let free: u32 = self.free.iter().map(|word| word.count_ones()).sum();
        self.division.count - free
    }

    /// The lowest free place.
    pub fn lowest(&self) -> Option<u32> {
        let (index, word) = self.free.iter().enumerate().find(|(_, word)| **word != 0)?;
        Some(index as u32 * 64 + word.trailing_zeros())
    }

    /// The lowest place from which on `count` places in a row are free.
    pub fn lowest_run(&self, count: u32) -> Option<u32> {
        let mut length = 0;
        for place in 0..self.division.count {
            length = if self.is_free(place) { length + 1 } else { 0 };
            if length == count {
                return Some(place + 1 - count);
            }
        }
        None
    }

    /// Whether the `count` places from `first` on exist and are free.
    pub fn is_free_run(&self, first: u32, count: u32) -> bool {
        count <= self.division.count
            && first <= self.division.count - count
            && (first..first + count).all(|place| self.is_free(place))
    }

    fn is_free(&self, place: u32) -> bool {
        self.free[place as usize / 64] & (1 << (place % 64)) != 0
    }

    /// Gives `place`, which is free, to the next segment.
    pub fn take(&mut self, place: u32) {
        debug_assert!(self.is_free(place));
        self.free[place as usize / 64] &= !(1 << (place % 64));
        self.newest = Some(place);
        self.end += 1;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::queue::layout::{MAX_DATA_LEN, MIN_DATA_LEN};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_size_has_a_division(bits in 16..=31u32, more in 0..1u64 << 31) {
            let asked = ((1 << bits) + more % (1 << bits)).clamp(MIN_DATA_LEN, MAX_DATA_LEN);
            let division = Division::of_new(asked);
            let (len, count) = (division.segment_len(), division.count());
            prop_assert!(division.data_len() >= asked && division.data_len() - asked < len);
            prop_assert!(count >= 16 && count as usize <= MAX_SEGMENTS);
            prop_assert_eq!(Division::of_file(division.data_len(), len as u32), Some(division));
        }

        #[test]
        fn an_entry_says_where_slots_go_on(resume in 0..=MAX_SEGMENT_LEN / 8, place in 0..MAX_SEGMENTS) {
            prop_assert_eq!(super::resume(gone(resume * 8)), Some(resume * 8));
            prop_assert_eq!(super::resume(place as u32), None);
        }

        #[test]
        fn no_place_is_given_twice_and_none_gets_lost(
            count in 1..200u32,
            steps in proptest::collection::vec((0..4u32, 0..50u64), 1..200),
        ) {
            const SHIFT: u32 = 12;
            let mut book = Book::new(Division::of_parts(SHIFT, count), 0);
            let mut held = Vec::new();
            let mut newest = None;
            for (kind, amount) in steps {
                prop_assert_eq!(book.in_use() as usize, held.len());
                if kind == 0 {
                    if !held.is_empty() {
                        book.give_back(held.swap_remove(amount as usize % held.len()));
                    }
                    continue;
                }
                let run = if kind == 1 { amount as u32 % 8 + 1 } else { 1 };
                let free = |place: &u32| !held.contains(place);
                let first = (0..count).find(|first| {
                    first + run <= count && (*first..first + run).all(|place| free(&place))
                });
                prop_assert_eq!(book.lowest_run(run), first);
                prop_assert_eq!(book.lowest(), (0..count).find(free));
                let Some(first) = first else { continue };
                prop_assert!(book.is_free_run(first, run));
                for place in first..first + run {
                    book.take(place);
                    held.push(place);
                    newest = Some(place);
                }
                prop_assert_eq!(book.newest(), newest);
                prop_assert!(!book.is_free_run(first, run));
            }
        }
    }
}
