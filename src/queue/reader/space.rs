//! Giving space back: segment by segment, as soon as all slots that reach into one are done, in whatever order
//! that happens. What lies before a record that has to wait, and what lies after it, is free for the writer.
//!
//! Nothing is given back before [`release`](Reader::release), when all marks of a batch are made: one of which
//! only a part is done may have to be repeated whole.

use super::{Reader, state};
use crate::queue::segments::{self, Division};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

/// What is known of a segment.
#[derive(Debug, Clone, Copy, Default)]
struct Segment {
    /// Records that reach into it and are not done, as far as they were handed out.
    held: u32,
    /// Where the last slot that was read and reaches into it ends.
    end: u64,
}

/// The segments from that of head to that of the last record handed out.
pub(super) struct Space {
    first: u64,
    segments: VecDeque<Segment>,
    /// Stretches of segments among which some may be free.
    emptied: Vec<(u64, u64)>,
}

impl Space {
    pub fn new(first: u64) -> Space {
        Space { first, segments: VecDeque::new(), emptied: Vec::new() }
    }

    fn segment(&mut self, number: u64) -> Option<&mut Segment> {
        let index = number.checked_sub(self.first)? as usize;
        if index >= self.segments.len() {
            self.segments.resize(index + 1, Segment::default());
        }
        self.segments.get_mut(index)
    }

    /// A record from `position` to `end` was handed out.
    #[inline]
    pub fn hold(&mut self, division: Division, position: u64, end: u64) {
        for number in division.number(position)..=division.number(end - 1) {
            if let Some(segment) = self.segment(number) {
                segment.held += 1;
            }
        }
    }
}

impl Reader {
    /// Slots from `position` to `end` were read.
    #[inline]
    pub(super) fn pass(&mut self, position: u64, end: u64) {
        let (first, last) = (self.division.number(position), self.division.number(end - 1));
        for number in first..=last {
            if let Some(segment) = self.space.segment(number) {
                segment.end = segment.end.max(end);
            }
        }
        // Only at the end of a segment something may have become free.
        if self.division.number(end) > first {
            self.space.emptied.push((first, last));
        }
    }

    /// The record from `position` to `end` is done.
    #[inline]
    pub(super) fn let_go(&mut self, position: u64, end: u64) {
        let (first, last) = (self.division.number(position), self.division.number(end - 1));
        let mut empty = false;
        for number in first..=last {
            if let Some(segment) = self.space.segment(number) {
                segment.held = segment.held.saturating_sub(1);
                empty |= segment.held == 0;
            }
        }
        if empty {
            self.space.emptied.push((first, last));
        }
    }

    /// Frees those of these segments that no record needs any more. The last one first: whoever finds a segment
    /// gone finds those gone, too, that its last slot filled.
    fn free(&mut self, first: u64, last: u64) {
        for number in (first..=last).rev() {
            let after = self.division.start(number + 1);
            let Some(Segment { held: 0, end }) = self.space.segment(number).copied() else {
                continue;
            };
            // Of a segment that is gone already the map has no place.
            if end >= after
                && let Some(place) = self.place(number)
            {
                let resume = end - after;
                let resume = if resume < self.division.segment_len() { resume } else { 0 };
                let entry = &self.map.segments()[segments::entry(number)];
                entry.store(segments::gone(resume), Ordering::Relaxed);
                // Pairs with the writer's load: all that we read there was read before.
                self.map.returned()[place as usize].store(1, Ordering::Release);
            }
        }
    }

    /// Where slots go on when the segment of `position` is gone.
    #[inline]
    pub(super) fn after_gone(&self, position: u64) -> Option<u64> {
        let number = self.division.number(position);
        let resume = segments::resume(self.entry(number))?;
        Some(self.division.start(number + 1) + resume)
    }

    /// Gives the space of done records back to the writer, and tells it up to where everything is done.
    pub fn release(&mut self) {
        for (first, last) in std::mem::take(&mut self.space.emptied) {
            self.free(first, last);
        }
        while self.head < self.next {
            if let Some(&(from, to)) = self.abandoned.front()
                && from <= self.head
            {
                self.head = self.head.max(to);
                self.abandoned.pop_front();
                continue;
            }
            if let Some(position) = self.after_gone(self.head) {
                // An entry that says otherwise is damaged; the head then stays where it is.
                if position > self.next {
                    break;
                }
                self.head = position;
                continue;
            }
            match self.raw(self.head, self.next) {
                Ok(raw) if raw.state != state::RECORD => self.head += raw.length,
                _ => break,
            }
        }
        let first = self.division.number(self.head);
        while self.space.first < first {
            self.space.segments.pop_front();
            self.space.first += 1;
        }
        self.map.cursors().release(self.head, self.done);
        crate::crash_points::crash_point("slots released");
    }

    /// Bytes of the segments that are in use.
    pub fn bytes_in_use(&self) -> u64 {
        let segments = self.space.segments.iter().zip(self.space.first..);
        let in_use = segments.filter(|(_, number)| self.place(*number).is_some()).count() as u64;
        in_use * self.division.segment_len()
    }
}
