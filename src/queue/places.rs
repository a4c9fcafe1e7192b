//! The places of the data area: which have memory behind them, and which hold a segment. Writer, reader and
//! provisioner of one process share this; the file says nothing of it, since whoever adopts a file only reads.
//!
//! The lowest place is taken first. So a flow that keeps little waiting goes round in few places, which stay in the
//! processors' caches, and what waits lies together at the start of the file: the rest is one free run, where large
//! records find room, or needs no memory at all.
//!
//! # Invariants
//! - A place goes from one state to another by one compare-and-swap, so that nobody takes what another one has.
//! - Only a place that is `TAKEN` is written to, and it has memory then: the writer takes one that is `READY`, or one
//!   that is `EMPTY` and allocates it before it uses it.
//! - A place is `READY` again once every slot that reaches into its segment is done, and not before.
//! - Only the provisioner fills and empties places, those that are `BUSY` meanwhile.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, AtomicU32, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Free, without memory.
const EMPTY: u8 = 0;
/// Free, with memory that is mapped in.
const READY: u8 = 1;
/// Holds a segment.
const TAKEN: u8 = 2;
/// The provisioner is at work on it.
const BUSY: u8 = 3;

/// How many places there are of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Free, without memory.
    pub empty: u32,
    /// Free, with memory.
    pub ready: u32,
    /// Holding a segment.
    pub taken: u32,
}

/// Which places a writer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Any that is free.
    Free,
    /// Only such as have memory: there is no more to be had.
    Ready,
}

/// The states of all places.
pub struct Places {
    states: Box<[AtomicU8]>,
    /// Goes up when a place is taken or given back.
    changes: AtomicU32,
}

impl Places {
    /// Places without memory.
    pub fn new(count: u32) -> Places {
        let states = (0..count).map(|_| AtomicU8::new(EMPTY)).collect();
        Places { states, changes: AtomicU32::new(0) }
    }

    fn state(&self, place: u32) -> u8 {
        self.states.get(place as usize).map_or(BUSY, |state| state.load(Ordering::Relaxed))
    }

    /// Takes `place` from one state to another. Acquires what the last one did with it, releases what we did.
    fn change(&self, place: u32, from: u8, to: u8) -> bool {
        let order = (Ordering::AcqRel, Ordering::Relaxed);
        let state = self.states.get(place as usize);
        state.is_some_and(|state| state.compare_exchange(from, to, order.0, order.1).is_ok())
    }

    fn all(&self) -> impl DoubleEndedIterator<Item = (u32, u8)> {
        let states = self.states.iter().enumerate();
        states.map(|(place, state)| (place as u32, state.load(Ordering::Relaxed)))
    }

    /// How many there are of each kind.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (_, state) in self.all() {
            match state {
                EMPTY => counts.empty += 1,
                READY => counts.ready += 1,
                TAKEN => counts.taken += 1,
                _ => {}
            }
        }
        counts
    }

    /// Changes when a place was taken or given back since.
    pub fn changes(&self) -> u32 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Whether a place is free and has no memory.
    #[cfg(all(test, not(loom)))]
    pub fn is_empty(&self, place: u32) -> bool {
        self.state(place) == EMPTY
    }

    // ----------------------------------------------------------------------------------- writer's side

    fn is_free(&self, place: u32, want: Want) -> bool {
        match self.state(place) {
            READY => true,
            EMPTY => want == Want::Free,
            _ => false,
        }
    }

    /// The lowest place that is ready, or else the lowest that is free.
    pub fn lowest(&self, want: Want) -> Option<u32> {
        let mut lowest_empty = None;
        for (place, state) in self.all() {
            match state {
                READY => return Some(place),
                EMPTY if want == Want::Free && lowest_empty.is_none() => lowest_empty = Some(place),
                _ => {}
            }
        }
        lowest_empty
    }

    /// The lowest place from which on `count` places in a row are free.
    pub fn lowest_run(&self, count: u32, want: Want) -> Option<u32> {
        let mut length = 0;
        for place in 0..self.states.len() as u32 {
            length = if self.is_free(place, want) { length + 1 } else { 0 };
            if length == count {
                return Some(place + 1 - count);
            }
        }
        None
    }

    /// Whether the `count` places from `first` on exist and are free.
    pub fn is_free_run(&self, first: u32, count: u32, want: Want) -> bool {
        let all = self.states.len() as u32;
        let exist = count <= all && first <= all - count;
        exist && (first..first + count).all(|place| self.is_free(place, want))
    }

    /// Takes a place; says whether it has memory. `None` when somebody else has it.
    pub fn take(&self, place: u32) -> Option<bool> {
        let taken = if self.change(place, READY, TAKEN) {
            Some(true)
        } else {
            self.change(place, EMPTY, TAKEN).then_some(false)
        };
        self.changes.fetch_add(1, Ordering::Relaxed);
        taken
    }

    /// Puts a place back that was taken and not used.
    pub fn put_back(&self, place: u32, has_memory: bool) {
        self.change(place, TAKEN, if has_memory { READY } else { EMPTY });
    }

    // ----------------------------------------------------------------------------------- reader's side

    /// All slots that reach into the segment at this place are done, and nobody will look at it again. A place that
    /// no writer of ours took is left alone: a damaged map may name any.
    pub fn give_back(&self, place: u32) {
        if self.change(place, TAKEN, READY) {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    // ------------------------------------------------------------------------------ provisioner's side

    /// The lowest place without memory, to be filled; nobody takes it before it is [settled](Self::settle).
    pub fn begin_fill(&self) -> Option<u32> {
        let mut empty = self.all().filter(|(_, state)| *state == EMPTY).map(|(place, _)| place);
        empty.find(|place| self.change(*place, EMPTY, BUSY))
    }

    /// The provisioner has done with a place, which has memory now or has none.
    pub fn settle(&self, place: u32, has_memory: bool) {
        self.change(place, BUSY, if has_memory { READY } else { EMPTY });
    }

    /// The highest place that is free and has memory, to be emptied; nobody takes it before it is
    /// [settled](Self::settle).
    pub fn begin_empty(&self) -> Option<u32> {
        let mut ready =
            self.all().rev().filter(|(_, state)| *state == READY).map(|(place, _)| place);
        ready.find(|place| self.change(*place, READY, BUSY))
    }

    /// Keeps all of `places` from being taken, if none of them has memory, while `what` is done.
    pub fn while_empty(&self, places: std::ops::Range<u32>, what: impl FnOnce()) {
        let mut held = places.start;
        while held < places.end && self.change(held, EMPTY, BUSY) {
            held += 1;
        }
        if held == places.end {
            what();
        }
        for place in places.start..held {
            self.change(place, BUSY, EMPTY);
        }
    }
}
