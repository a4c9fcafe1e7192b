//! All interleavings of what the threads share: cursors, wake-ups, map and places.

use crate::queue::barrier::Barrier;
use crate::queue::cursors::Cursors;
use crate::queue::places::{Places, Want};
use crate::queue::segments::Entry;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// Runs `model` through every interleaving with at most three preemptions, which keeps loom's search
/// to a second; without a bound it did not end in ten minutes.
fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// The eventfd: a flag that stays set until it is waited for.
struct Signal {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn new() -> Self {
        Signal { set: Mutex::new(false), changed: Condvar::new() }
    }
    fn raise(&self) {
        *self.set.lock().unwrap() = true;
        self.changed.notify_one();
    }
    fn wait(&self) {
        let mut set = self.set.lock().unwrap();
        while !*set {
            set = self.changed.wait(set).unwrap();
        }
        *set = false;
    }
}

/// A ring of two cells, each "slot" one position long.
struct Ring {
    cursors: Cursors,
    cells: [UnsafeCell<u64>; 2],
    signal: Signal,
    blocked: AtomicBool,
}

impl Ring {
    fn new() -> Arc<Ring> {
        Arc::new(Ring {
            cursors: Cursors::new(),
            cells: [UnsafeCell::new(0), UnsafeCell::new(0)],
            signal: Signal::new(),
            blocked: AtomicBool::new(false),
        })
    }

    /// Writes `value` if there is room.
    fn push(&self, position: u64, value: u64) -> bool {
        if position - self.cursors.head() >= 2 {
            self.blocked.store(true, Ordering::Relaxed);
            return false;
        }
        // SAFETY (loom checks it): the cell is free, since head is within two positions.
        self.cells[(position % 2) as usize].with_mut(|cell| unsafe { *cell = value });
        if self.cursors.publish(position + 1, position + 1, Barrier::Symmetric) {
            self.signal.raise();
        }
        true
    }
}

/// No record is lost or read torn, and a reader that sleeps whenever it may is always woken: a lost
/// wake-up would leave it waiting for ever, which loom reports as a deadlock.
#[test]
fn loom_sleeping_reader_gets_every_record() {
    explore(|| {
        let ring = Ring::new();
        let writer = {
            let ring = ring.clone();
            thread::spawn(move || {
                assert!(ring.push(0, 10));
                assert!(ring.push(1, 11));
            })
        };
        let mut position = 0;
        while position < 2 {
            if ring.cursors.tail() == position {
                if ring.cursors.sleep_unless(position + 1, u64::MAX, Barrier::Symmetric) {
                    ring.signal.wait();
                }
                continue;
            }
            // SAFETY (loom checks it): the slot is before the tail.
            let value = ring.cells[(position % 2) as usize].with(|cell| unsafe { *cell });
            assert_eq!(value, 10 + position);
            position += 1;
            ring.cursors.release(position, position);
        }
        writer.join().unwrap();
    });
}

/// A reader that waits for two records is woken by the second, through the count alone.
#[test]
fn loom_reader_waiting_for_a_batch_is_woken_by_its_last_record() {
    explore(|| {
        let ring = Ring::new();
        let writer = {
            let ring = ring.clone();
            thread::spawn(move || {
                assert!(ring.push(0, 10));
                assert!(ring.push(1, 11));
            })
        };
        if ring.cursors.sleep_unless(u64::MAX, 2, Barrier::Symmetric) {
            ring.signal.wait();
        }
        assert_eq!(ring.cursors.written(), 2);
        writer.join().unwrap();
        assert_eq!(ring.cursors.tail(), 2);
    });
}

/// Two places for segments, each one position long, and the map that says which is where.
struct Mapped {
    cursors: Cursors,
    map: [AtomicU16; 4],
    places: Places,
    /// What lies there; `None` without memory.
    memory: [UnsafeCell<Option<u64>>; 2],
}

impl Mapped {
    fn new() -> Arc<Mapped> {
        Arc::new(Mapped {
            cursors: Cursors::new(),
            map: [9; 4].map(AtomicU16::new),
            places: Places::new(2),
            memory: [UnsafeCell::new(None), UnsafeCell::new(None)],
        })
    }

    /// Gives a place that is ours memory, or takes it away.
    fn set_memory(&self, place: u32, memory: Option<u64>) {
        // SAFETY (loom checks it): nobody else has the place.
        self.memory[place as usize].with_mut(|at| unsafe { *at = memory });
    }

    /// As [`Writer`](crate::queue::writer) does it, with a segment for each value.
    fn push(&self, position: u64, value: u64, want: Want) -> bool {
        let Some(place) = self.places.lowest(want) else { return false };
        let Some(has_memory) = self.places.take(place) else { return false };
        if !has_memory {
            self.set_memory(place, Some(0));
        }
        self.map[position as usize].store(Entry::At(place).encode(), Ordering::Relaxed);
        // SAFETY (loom checks it): the place is ours, since the reader gave it back.
        self.memory[place as usize].with_mut(|at| unsafe {
            *(*at).as_mut().expect("memory before it is touched") = value;
        });
        let _ = self.cursors.publish(position + 1, position + 1, Barrier::Symmetric);
        true
    }

    /// Reads the segment and gives its place back.
    fn read(&self, position: u64) -> u64 {
        let entry = Entry::decode(self.map[position as usize].load(Ordering::Relaxed));
        let Entry::At(place) = entry else { panic!("{entry:?}") };
        // SAFETY (loom checks it): the position is before the tail and its place not given back.
        let value = self.memory[place as usize].with(|at| unsafe { *at });
        self.map[position as usize].store(Entry::Gone(0).encode(), Ordering::Relaxed);
        self.places.give_back(place);
        value.expect("memory as long as somebody may look")
    }

    /// As [`Provisioner`](crate::queue::provisioner) does it.
    fn fill(&self) {
        if let Some(place) = self.places.begin_fill() {
            self.set_memory(place, Some(0));
            self.places.settle(place, true);
        }
    }

    fn empty(&self) {
        if let Some(place) = self.places.begin_empty() {
            self.set_memory(place, None);
            self.places.settle(place, false);
        }
    }
}

/// A place is given to a new segment only after the reader gave it back, and whoever sees a tail sees the
/// map as it was for all positions before it: loom sees a write that overlaps a read.
#[test]
fn loom_segment_is_not_reused_before_release() {
    explore(|| {
        let queue = Mapped::new();
        assert!(queue.push(0, 10, Want::Free));
        let writer = {
            let queue = queue.clone();
            thread::spawn(move || (1..4).take_while(|n| queue.push(*n, 10 + n, Want::Free)).count())
        };
        let mut position = 0;
        for _ in 0..2 {
            while position < queue.cursors.tail() {
                assert_eq!(queue.read(position), 10 + position);
                position += 1;
            }
        }
        let pushed = 1 + writer.join().unwrap() as u64;
        assert_eq!(queue.cursors.tail(), pushed);
        while position < pushed {
            assert_eq!(queue.read(position), 10 + position);
            position += 1;
        }
    });
}

/// Nobody touches a place without memory, while the driver reads, fills places and takes their memory away: loom sees
/// an access that overlaps the allocation, and the assertions one that comes before it.
#[test]
fn loom_no_place_is_touched_without_memory() {
    explore(|| {
        let queue = Mapped::new();
        queue.fill();
        let writer = {
            let queue = queue.clone();
            thread::spawn(move || {
                (0..3).take_while(|n| queue.push(*n, 10 + n, Want::Free)).count() as u64
            })
        };
        queue.fill();
        let mut position = 0;
        while position < queue.cursors.tail() {
            assert_eq!(queue.read(position), 10 + position);
            position += 1;
        }
        queue.empty();
        let pushed = writer.join().unwrap();
        while position < pushed {
            assert_eq!(queue.read(position), 10 + position);
            position += 1;
        }
        assert!(queue.push(pushed, 10, Want::Free));
        assert_eq!(queue.read(pushed), 10);
        assert!(queue.push(pushed, 11, Want::Ready), "what was given back has memory");
    });
}

/// A page that several places share is given back only while none of them has a segment.
#[test]
fn loom_shared_page_is_not_given_back_under_a_segment() {
    explore(|| {
        let queue = Mapped::new();
        let page = Arc::new(UnsafeCell::new(true));
        let writer = {
            let (queue, page) = (queue.clone(), page.clone());
            thread::spawn(move || {
                let Some(place) = queue.places.lowest(Want::Free) else { return };
                if queue.places.take(place).is_some() {
                    // SAFETY (loom checks it): the place is ours, and so is its part of the page.
                    page.with_mut(|page| unsafe { *page = true });
                    // SAFETY (loom checks it): as above.
                    page.with(|page| assert!(unsafe { *page }));
                    queue.places.put_back(place, false);
                }
            })
        };
        queue.places.while_empty(0..2, || {
            // SAFETY (loom checks it): none of its places is anybody else's.
            page.with_mut(|page| unsafe { *page = false });
        });
        writer.join().unwrap();
    });
}

/// A slot is reused only after the reader released it: loom sees a write that overlaps a read.
#[test]
fn loom_slot_is_not_reused_before_release() {
    explore(|| {
        let ring = Ring::new();
        assert!(ring.push(0, 10));
        assert!(ring.push(1, 11));
        let writer = {
            let ring = ring.clone();
            thread::spawn(move || ring.push(2, 12))
        };
        // SAFETY (loom checks it): position 0 is not released yet.
        let value = ring.cells[0].with(|cell| unsafe { *cell });
        assert_eq!(value, 10);
        ring.cursors.release(1, 1);
        let pushed = writer.join().unwrap();
        assert!(pushed || ring.blocked.load(Ordering::Relaxed));
        if pushed {
            // SAFETY (loom checks it): position 2 was published before the join.
            let value = ring.cells[0].with(|cell| unsafe { *cell });
            assert_eq!(value, 12);
        }
    });
}
