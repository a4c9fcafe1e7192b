//! What the reader remembers of each segment: which records were handed out and are not done, and whether the segment
//! is free. Marking a record done looks at this memory and at the done bits of the file, never at the slot.
//!
//! Space is given back segment by segment, as soon as all slots that reach into one are done, in whatever order that
//! happens. What lies before a record that has to wait, and what lies after it, is free for the writer. Nothing is
//! given back before `Reader::release`, when all marks of a batch are made: one of which only a part
//! is done may have to be repeated whole.

use super::mapping::{Format, Mapping};
use super::segments::{Division, Entry};
use std::collections::VecDeque;
use std::sync::atomic::{Ordering, compiler_fence};

/// One bit for each granule of a segment.
type Bits = Box<[u64]>;

/// What is known of a segment.
#[derive(Debug, Default)]
struct Segment {
    /// Records that reach into it, were handed out and are not done.
    held: u32,
    /// Where the last slot that was read and reaches into it ends.
    end: u64,
    /// The record that begins here, reaches into other segments and is held, and where it ends.
    spanning: Option<(u64, u64)>,
    /// Where records begin that were handed out and are not done.
    out: Option<Bits>,
    /// Where records begin that have a stamp.
    stamped: Option<Bits>,
}

/// The segments from that of head to that of the last record handed out.
pub(super) struct Space {
    division: Division,
    granule: u64,
    first: u64,
    segments: VecDeque<Segment>,
    /// Stretches of segments among which some may be free.
    emptied: Vec<(u64, u64)>,
    /// Bits that are all zero, to be used again.
    spare: Vec<Bits>,
}

impl Space {
    pub fn new(map: &Mapping, head: u64) -> Space {
        let division = map.division();
        Space {
            division,
            granule: map.format().granule(),
            first: division.number(head),
            segments: VecDeque::new(),
            emptied: Vec::new(),
            spare: Vec::new(),
        }
    }

    fn segment(&mut self, number: u64) -> Option<&mut Segment> {
        let index = number.checked_sub(self.first)? as usize;
        if index >= self.segments.len() {
            self.segments.resize_with(index + 1, Segment::default);
        }
        self.segments.get_mut(index)
    }

    /// The segment that `position` lies in, if it is known.
    #[inline]
    fn known(&self, position: u64) -> Option<&Segment> {
        let index = self.division.number(position).checked_sub(self.first)?;
        self.segments.get(index as usize)
    }

    #[inline]
    fn known_mut(&mut self, position: u64) -> Option<&mut Segment> {
        let index = self.division.number(position).checked_sub(self.first)?;
        self.segments.get_mut(index as usize)
    }

    /// Index of the word, and bit in it, of the granule that `position` lies in.
    #[inline]
    fn bit(&self, position: u64) -> (usize, u64) {
        let granule = self.division.offset(0, position) / self.granule;
        (granule as usize / 64, 1 << (granule % 64))
    }

    fn new_bits(&mut self) -> Bits {
        let words = self.division.segment_len() / self.granule / 64;
        self.spare.pop().unwrap_or_else(|| vec![0; words as usize].into_boxed_slice())
    }

    // ------------------------------------------------------------------------------------- records

    /// A record from `position` to `end` was handed out.
    #[inline]
    pub fn hold(&mut self, position: u64, end: u64) {
        let (first, last) = (self.division.number(position), self.division.number(end - 1));
        for number in first..=last {
            if let Some(segment) = self.segment(number) {
                segment.held += 1;
            }
        }
        let (word, bit) = self.bit(position);
        if self.known(position).is_some_and(|segment| segment.out.is_none()) {
            let bits = self.new_bits();
            self.known_mut(position).expect("just seen").out = Some(bits);
        }
        if let Some(segment) = self.known_mut(position) {
            if let Some(out) = &mut segment.out {
                out[word] |= bit;
            }
            if last > first {
                segment.spanning = Some((position, end));
            }
        }
    }

    /// Whether the record at `position` was handed out and is not done.
    #[inline]
    pub fn is_held(&self, position: u64) -> bool {
        let (word, bit) = self.bit(position);
        let out = self.known(position).and_then(|segment| segment.out.as_ref());
        out.is_some_and(|out| out[word] & bit != 0)
    }

    /// The record at `position` is done; false when it was not held.
    #[inline]
    pub fn let_go(&mut self, position: u64) -> bool {
        let (word, bit) = self.bit(position);
        let first = self.division.number(position);
        let Some(segment) = self.known_mut(position) else { return false };
        let Some(out) = &mut segment.out else { return false };
        if out[word] & bit == 0 {
            return false;
        }
        out[word] &= !bit;
        segment.held = segment.held.saturating_sub(1);
        let mut empty = segment.held == 0;
        let mut last = first;
        if let Some((_, end)) = segment.spanning.take_if(|(spanning, _)| *spanning == position) {
            last = self.division.number(end - 1);
            for number in first + 1..=last {
                if let Some(segment) = self.segment(number) {
                    segment.held = segment.held.saturating_sub(1);
                    empty |= segment.held == 0;
                }
            }
        }
        if empty {
            self.emptied.push((first, last));
        }
        true
    }

    /// Slots from `position` to `end` were read.
    #[inline]
    pub fn pass(&mut self, position: u64, end: u64) {
        let (first, last) = (self.division.number(position), self.division.number(end - 1));
        for number in first..=last {
            if let Some(segment) = self.segment(number) {
                segment.end = segment.end.max(end);
            }
        }
        // Only at the end of a segment something may have become free.
        if self.division.number(end) > first {
            self.emptied.push((first, last));
        }
    }

    /// Position of the oldest record that was handed out and is not done, to the granule, which in version 3 is the
    /// record itself. None lies before `from`.
    pub fn first_held(&self, from: u64) -> Option<u64> {
        let first = self.division.number(from).checked_sub(self.first)? as usize;
        let (mut word, _) = self.bit(from);
        for (segment, number) in self.segments.iter().skip(first).zip(self.division.number(from)..)
        {
            let words = segment.out.iter().flat_map(|out| out.iter().enumerate().skip(word));
            if let Some((index, bits)) = words.into_iter().find(|(_, bits)| **bits != 0) {
                let granule = index as u64 * 64 + u64::from(bits.trailing_zeros());
                return Some(self.division.start(number) + granule * self.granule);
            }
            word = 0;
        }
        None
    }

    // -------------------------------------------------------------------------------------- stamps

    /// Whether the record at `position` has a stamp.
    #[inline]
    pub fn is_stamped(&self, position: u64) -> bool {
        let (word, bit) = self.bit(position);
        let stamped = self.known(position).and_then(|segment| segment.stamped.as_ref());
        stamped.is_some_and(|stamped| stamped[word] & bit != 0)
    }

    /// Remembers whether the record at `position` has a stamp.
    #[inline]
    pub fn set_stamped(&mut self, position: u64, is_stamped: bool) {
        let (word, bit) = self.bit(position);
        let without = self.known(position).is_some_and(|segment| segment.stamped.is_none());
        if without && is_stamped {
            let bits = self.new_bits();
            self.known_mut(position).expect("just seen").stamped = Some(bits);
        }
        if let Some(stamped) = self.known_mut(position).and_then(|segment| segment.stamped.as_mut())
        {
            stamped[word] = if is_stamped { stamped[word] | bit } else { stamped[word] & !bit };
        }
    }

    // --------------------------------------------------------------------------------------- space

    /// Gives those segments back to the writer that no record needs any more.
    pub fn free(&mut self, map: &Mapping) {
        for (first, last) in std::mem::take(&mut self.emptied) {
            // The last one first: whoever finds a segment gone finds those gone, too, that its last slot filled.
            for number in (first..=last).rev() {
                self.free_one(map, number);
            }
        }
    }

    fn free_one(&mut self, map: &Mapping, number: u64) {
        let after = self.division.start(number + 1);
        let Some(Segment { held: 0, end, .. }) = self.segment(number) else { return };
        // Of a segment that is gone already the map has no place.
        if *end >= after
            && let Some(place) = map.place(number)
        {
            let resume = *end - after;
            let resume = if resume < self.division.segment_len() { resume } else { 0 };
            map.set_entry(number, Entry::Gone(resume));
            // Whoever finds the file after a kill finds the first store where it finds the others.
            compiler_fence(Ordering::SeqCst);
            if map.format() == Format::V3 {
                // Whoever is killed here leaves bits of a segment that is gone, which nobody reads.
                map.clear_done(place);
            }
            map.places().give_back(place);
            self.keep_bits(number);
        }
    }

    /// Keeps the bits of a segment that holds nothing any more for another one.
    fn keep_bits(&mut self, number: u64) {
        let Some(segment) = self.segment(number) else { return };
        let (out, stamped) = (segment.out.take(), segment.stamped.take());
        for mut bits in out.into_iter().chain(stamped) {
            bits.fill(0);
            if self.spare.len() < 8 {
                self.spare.push(bits);
            }
        }
    }

    /// Forgets the segments before that of `head`.
    pub fn forget_before(&mut self, head: u64) {
        let first = self.division.number(head);
        while self.first < first {
            self.segments.pop_front();
            self.first += 1;
        }
    }

    /// Bytes of the segments that are in use.
    pub fn bytes_in_use(&self, map: &Mapping) -> u64 {
        let segments = self.segments.iter().zip(self.first..);
        let in_use = segments.filter(|(_, number)| map.place(*number).is_some()).count() as u64;
        in_use * self.division.segment_len()
    }
}
