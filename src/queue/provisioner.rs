//! Memory for the queue, ahead of the writer: the driver allocates it and maps it in, so that `log()` takes no page
//! fault and calls no kernel, and gives it back after a peak.
//!
//! There is always a spare of free places with memory: one segment of the largest size, and an eighth of what is in
//! use, together no more than four such segments. What is free beyond that is given back once it was not needed for ten to twenty seconds, so that a
//! steady load, however it swings within that time, allocates nothing and gives nothing back.

use super::file::Queue;
use super::mapping::Mapping;
use super::places::Counts;
use super::segments::{Division, MAX_SEGMENT_LEN};
use std::sync::Arc;

/// Time over which the most that is in use is looked for, in milliseconds.
const WINDOW_MS: u64 = 10_000;
/// Pause after the file system had no memory, in milliseconds.
const PAUSE_MS: u64 = 100;
/// Segments of the largest size that are allocated, or given back, in one turn.
const SEGMENTS_A_TURN: u64 = 4;

/// What a turn did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Provision {
    /// Segments that got memory.
    pub allocated: u32,
    /// Segments whose memory was given back.
    pub given_back: u32,
    /// The file system that the queue lies on has no more.
    pub is_starved: bool,
}

/// Places of an idle queue that are kept ready: a quarter of a MiB of them.
fn spare(division: Division) -> u32 {
    let spare = (MAX_SEGMENT_LEN / division.segment_len()) as u32;
    spare.min(division.count())
}

/// Whether the writer is to signal the driver, with so many places ready.
pub(super) fn is_short(division: Division, ready: u32) -> bool {
    ready * 2 < spare(division)
}

/// Provides for one queue that has a writer in this process.
pub struct Provisioner {
    map: Arc<Mapping>,
    /// The state that was looked at last, while nothing was to be done about it.
    seen: Option<u32>,
    /// The most places that were in use in this window, and in the one before.
    peak: u32,
    last_peak: u32,
    window_end_ms: u64,
    /// Places beyond the spare that nobody needed for a while.
    excess: u32,
    retry_at_ms: u64,
}

impl Provisioner {
    /// For the driver of the queue's maker.
    pub fn new(queue: &Queue) -> Provisioner {
        Provisioner {
            map: queue.map().clone(),
            seen: None,
            peak: 0,
            last_peak: 0,
            window_end_ms: 0,
            excess: 0,
            retry_at_ms: 0,
        }
    }

    /// To be called before the writer is used, and then in each turn of the driver, which must have one when the
    /// writer signals, and once a second in any case. `now_ms` is a clock that only goes forward. Does a bounded amount
    /// of work, which is next to nothing as long as the writer neither takes a segment nor gets one back.
    pub fn turn(&mut self, now_ms: u64) -> Provision {
        let changes = self.map.places().changes();
        let is_waiting = now_ms < self.retry_at_ms;
        if now_ms < self.window_end_ms && (self.seen == Some(changes) || is_waiting) {
            return Provision { is_starved: is_waiting, ..Provision::default() };
        }
        let counts = self.map.places().counts();
        self.peak = self.peak.max(counts.taken);
        let wanted = self.wanted(counts.taken);
        let allocated = self.fill(now_ms, wanted.saturating_sub(counts.ready));
        if now_ms >= self.window_end_ms {
            self.end_window(now_ms, counts);
        }
        let given_back = self.give_back();
        let is_starved = now_ms < self.retry_at_ms;
        let is_settled = self.excess == 0 && counts.ready + allocated >= wanted;
        self.seen = is_settled.then_some(changes);
        Provision { allocated, given_back, is_starved }
    }

    /// Places that are to be ready while so many are taken. The more are in use, the more may come.
    fn wanted(&self, taken: u32) -> u32 {
        let spare = spare(self.map.division());
        (spare + taken / 8).min(spare * 4).min(self.map.division().count() - taken)
    }

    /// Segments that a turn may work on.
    fn a_turn(&self) -> u32 {
        (SEGMENTS_A_TURN * MAX_SEGMENT_LEN / self.map.division().segment_len()) as u32
    }

    /// Gives memory to so many places, the lowest ones first.
    fn fill(&mut self, now_ms: u64, count: u32) -> u32 {
        if now_ms < self.retry_at_ms {
            return 0;
        }
        let places = self.map.places();
        for filled in 0..count.min(self.a_turn()) {
            let Some(place) = places.begin_fill() else { return filled };
            let allocated = self.map.allocate_place(place).is_ok();
            if allocated {
                self.map.populate_place(place);
            }
            places.settle(place, allocated);
            if !allocated {
                self.retry_at_ms = now_ms + PAUSE_MS;
                return filled;
            }
        }
        count.min(self.a_turn())
    }

    /// Decides how much is to be given back.
    fn end_window(&mut self, now_ms: u64, counts: Counts) {
        let peak = self.peak.max(self.last_peak);
        // No two peaks of a load are the same.
        let keep = peak + self.wanted(peak) + peak / 8;
        self.excess = (counts.taken + counts.ready).saturating_sub(keep);
        self.last_peak = self.peak;
        self.peak = counts.taken;
        self.window_end_ms = now_ms + WINDOW_MS;
    }

    /// Gives memory back, that of the highest places first.
    fn give_back(&mut self) -> u32 {
        let places = self.map.places();
        for given_back in 0..self.excess.min(self.a_turn()) {
            let Some(place) = places.begin_empty() else {
                self.excess = 0;
                return given_back;
            };
            // A file system that cannot do this keeps it.
            let is_given_back = self.map.give_back_place(place).is_ok();
            places.settle(place, !is_given_back);
            if !is_given_back {
                self.excess = 0;
                return given_back;
            }
            let (neighbours, page) = self.map.done_page(place);
            places.while_empty(neighbours, || {
                let _ = self.map.give_back(page);
            });
        }
        let given_back = self.excess.min(self.a_turn());
        self.excess -= given_back;
        given_back
    }
}
