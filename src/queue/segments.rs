//! Which segment of the data area holds which stretch of positions: the division, and the writer's book.
//!
//! The writer takes the lowest segment that is free. So a flow that keeps little waiting goes round in few
//! segments, which stay in the processors' caches, and what waits lies together at the start of the file:
//! the rest is one free run, where large records find room. Nothing here touches the file: the book is the
//! writer's own memory, and a damaged map cannot mislead it.
//!
//! # Invariants
//! - Segments `oldest..end`, counted along the positions, each have a place of their own in the data area;
//!   all other places are free.
//! - A place is free again once `head` has passed all of its positions, and not before.

/// Shortest segment.
pub const MIN_SEGMENT_LEN: u64 = 4 * 1024;
/// Longest segment: two of them, which is what a light load goes round in, fit a processor's cache.
pub const MAX_SEGMENT_LEN: u64 = 256 * 1024;
/// Most segments of a data area.
pub const MAX_SEGMENTS: usize = 8192;

/// How a data area is divided: into `count` segments of 2^`shift` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Division {
    shift: u32,
    count: u32,
    /// Entries of the map, less one.
    mask: u32,
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
        Division { shift, count, mask: count.next_power_of_two() - 1 }
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

    /// Entries of the map.
    #[inline]
    pub fn entries(self) -> usize {
        self.mask as usize + 1
    }

    /// Where segment `number` stands in the map: no two of any `count` in a row share an entry.
    #[inline]
    pub fn entry(self, number: u64) -> usize {
        number as usize & self.mask as usize
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
    /// Places of segments `oldest..end`, at [`Division::entry`].
    places: Box<[u32]>,
    oldest: u64,
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
        let number = division.number(position);
        let places = vec![0; division.entries()].into_boxed_slice();
        Book { division, places, oldest: number, end: number, free }
    }

    /// Number of the next segment that is taken.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Place of the newest segment.
    pub fn newest(&self) -> Option<u32> {
        (self.oldest < self.end).then(|| self.places[self.division.entry(self.end - 1)])
    }

    /// Frees the places of all segments that `head` has passed. `head` is at most the writer's tail.
    pub fn reclaim(&mut self, head: u64) {
        let passed = self.division.number(head).min(self.end);
        while self.oldest < passed {
            let place = self.places[self.division.entry(self.oldest)];
            self.free[place as usize / 64] |= 1 << (place % 64);
            self.oldest += 1;
        }
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
        self.places[self.division.entry(self.end)] = place;
        self.end += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::layout::{MAX_DATA_LEN, MIN_DATA_LEN};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_size_has_a_division_and_its_segments_an_entry_each(
            bits in 16..=31u32,
            more in 0..1u64 << 31,
            number: u64,
        ) {
            let asked = ((1 << bits) + more % (1 << bits)).clamp(MIN_DATA_LEN, MAX_DATA_LEN);
            let division = Division::of_new(asked);
            let (len, count) = (division.segment_len(), division.count());
            prop_assert!(division.data_len() >= asked && division.data_len() - asked < len);
            prop_assert!(count >= 16 && count as usize <= MAX_SEGMENTS);
            prop_assert_eq!(Division::of_file(division.data_len(), len as u32), Some(division));
            let number = number % (u64::MAX / len);
            let mut seen = vec![false; division.entries()];
            for number in number..number + u64::from(count) {
                prop_assert!(!std::mem::replace(&mut seen[division.entry(number)], true));
            }
        }

        #[test]
        fn no_place_is_given_twice_and_none_gets_lost(
            count in 1..200u32,
            steps in proptest::collection::vec((0..4u32, 0..50u64), 1..200),
        ) {
            const SHIFT: u32 = 12;
            let mut book = Book::new(Division::of_parts(SHIFT, count), 0);
            let mut held = std::collections::VecDeque::new();
            for (kind, amount) in steps {
                if kind == 0 {
                    let passed = (held.len() as u64).min(amount);
                    let oldest = book.end() - held.len() as u64;
                    // Not quite to the end of one more: that one stays.
                    book.reclaim(((oldest + passed) << SHIFT) + amount);
                    held.drain(..passed as usize);
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
                    held.push_back(place);
                }
                prop_assert_eq!(book.newest(), held.back().copied());
                prop_assert!(!book.is_free_run(first, run));
            }
        }
    }
}
