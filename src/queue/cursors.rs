//! The words both ends of the queue share, and the protocol between them. Nothing here touches a slot,
//! so that loom can check every interleaving of it (`RUSTFLAGS="--cfg loom" cargo test loom`).

use super::barrier::Barrier;
#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// "Do not wake me".
const NEVER: u64 = u64::MAX;

/// Written by the writer only.
#[repr(C, align(128))]
pub struct WriterWords {
    /// Position after the last whole slot.
    tail: AtomicU64,
    /// Records ever written.
    written: AtomicU64,
}

/// Written by the reader only.
#[repr(C, align(128))]
pub struct ReaderWords {
    /// Position of the oldest slot that is not done.
    head: AtomicU64,
    /// Records ever marked done, in whatever order.
    done: AtomicU64,
}

/// When the reader wants to be woken.
#[repr(C, align(128))]
pub struct WakeWords {
    wake_tail: AtomicU64,
    wake_written: AtomicU64,
}

/// Three groups, each on cache lines of its own: the writer's, the reader's, and the one that both
/// read on every record and write on a wake-up.
#[repr(C, align(128))]
pub struct Cursors {
    writer: WriterWords,
    reader: ReaderWords,
    wake: WakeWords,
}

impl Cursors {
    /// Cursors of an empty queue whose reader is awake.
    #[cfg(loom)]
    fn new() -> Self {
        Cursors {
            writer: WriterWords { tail: AtomicU64::new(0), written: AtomicU64::new(0) },
            reader: ReaderWords { head: AtomicU64::new(0), done: AtomicU64::new(0) },
            wake: WakeWords {
                wake_tail: AtomicU64::new(NEVER),
                wake_written: AtomicU64::new(NEVER),
            },
        }
    }

    /// Sets a fresh file's cursors: `position`, the start of a segment, and `records` are where counting
    /// starts (0, or something larger in tests).
    pub fn reset(&self, position: u64, records: u64) {
        self.writer.tail.store(position, Ordering::Relaxed);
        self.writer.written.store(records, Ordering::Relaxed);
        self.reader.head.store(position, Ordering::Relaxed);
        self.reader.done.store(records, Ordering::Relaxed);
        self.wake.wake_tail.store(NEVER, Ordering::Relaxed);
        self.wake.wake_written.store(NEVER, Ordering::Release);
    }

    /// Writer: makes all slots before `tail` visible. Returns true when the reader asked to be woken at
    /// this point; the caller must then signal it (once: the request is withdrawn here).
    #[inline]
    #[must_use]
    pub fn publish(&self, tail: u64, written: u64, barrier: Barrier) -> bool {
        self.writer.written.store(written, Ordering::Relaxed);
        self.writer.tail.store(tail, Ordering::Release);
        // Pairs with `sleep_unless`: either we see the reader's wish, or it sees our tail.
        barrier.writer_side();
        if tail < self.wake.wake_tail.load(Ordering::Relaxed)
            && written < self.wake.wake_written.load(Ordering::Relaxed)
        {
            return false;
        }
        // A wish that the reader renews between these stores and the caller's signal is lost here, but
        // the signal that follows wakes the reader, which then states its wish anew.
        self.disarm();
        true
    }

    /// Reader: asks to be woken when `tail` or `written` gets there. Returns false when that is already
    /// the case; the reader must then not sleep.
    #[must_use]
    pub fn sleep_unless(&self, wake_tail: u64, wake_written: u64, barrier: Barrier) -> bool {
        self.wake.wake_tail.store(wake_tail, Ordering::Relaxed);
        self.wake.wake_written.store(wake_written, Ordering::Relaxed);
        barrier.reader_side();
        if self.writer.tail.load(Ordering::Acquire) >= wake_tail
            || self.writer.written.load(Ordering::Relaxed) >= wake_written
        {
            self.disarm();
            return false;
        }
        true
    }

    /// Withdraws the wish to be woken.
    pub fn disarm(&self) {
        self.wake.wake_tail.store(NEVER, Ordering::Relaxed);
        self.wake.wake_written.store(NEVER, Ordering::Relaxed);
    }

    /// Position after the last whole slot; the slots before it may be read afterwards.
    #[inline]
    pub fn tail(&self) -> u64 {
        self.writer.tail.load(Ordering::Acquire)
    }

    /// Records ever written. May run one ahead of [`tail`](Self::tail) while a record is published.
    pub fn written(&self) -> u64 {
        self.writer.written.load(Ordering::Relaxed)
    }

    /// Position of the oldest slot still in use; the bytes before it may be overwritten afterwards.
    #[inline]
    pub fn head(&self) -> u64 {
        self.reader.head.load(Ordering::Acquire)
    }

    /// Records ever done.
    #[inline]
    pub fn done(&self) -> u64 {
        self.reader.done.load(Ordering::Acquire)
    }

    /// Reader: gives all bytes before `head` back to the writer. Nobody may read them afterwards.
    pub fn release(&self, head: u64, done: u64) {
        self.reader.done.store(done, Ordering::Release);
        self.reader.head.store(head, Ordering::Release);
    }
}

#[cfg(loom)]
mod loom_tests {
    use super::super::segments::{Book, Division, gone};
    use super::{Barrier, Cursors};
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
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
        map: [AtomicU32; 4],
        returned: [AtomicU32; 2],
        places: [UnsafeCell<u64>; 2],
    }

    impl Mapped {
        /// As [`Writer`](super::super::writer) does it, with a segment for each value.
        fn push(&self, book: &mut Book, value: u64) -> bool {
            let position = book.end();
            for (place, returned) in self.returned.iter().enumerate() {
                if returned.load(Ordering::Acquire) != 0 {
                    returned.store(0, Ordering::Relaxed);
                    book.give_back(place as u32);
                }
            }
            let Some(place) = book.lowest() else { return false };
            book.take(place);
            self.map[position as usize].store(place, Ordering::Relaxed);
            // SAFETY (loom checks it): the place is free, since the reader gave it back.
            self.places[place as usize].with_mut(|place| unsafe { *place = value });
            let _ = self.cursors.publish(position + 1, position + 1, Barrier::Symmetric);
            true
        }

        /// Reads the segment and gives its place back.
        fn read(&self, position: u64) -> u64 {
            let place = self.map[position as usize].load(Ordering::Relaxed);
            // SAFETY (loom checks it): the position is before the tail and its place not given back.
            let value = self.places[place as usize].with(|place| unsafe { *place });
            self.map[position as usize].store(gone(0), Ordering::Relaxed);
            self.returned[place as usize].store(1, Ordering::Release);
            value
        }
    }

    /// A place is given to a new segment only after the reader gave it back, and whoever sees a tail sees the
    /// map as it was for all positions before it: loom sees a write that overlaps a read.
    #[test]
    fn loom_segment_is_not_reused_before_release() {
        explore(|| {
            let queue = Arc::new(Mapped {
                cursors: Cursors::new(),
                map: [9; 4].map(AtomicU32::new),
                returned: [0; 2].map(AtomicU32::new),
                places: [UnsafeCell::new(0), UnsafeCell::new(0)],
            });
            let mut book = Book::new(Division::of_parts(0, 2), 0);
            assert!(queue.push(&mut book, 10));
            let writer = {
                let queue = queue.clone();
                thread::spawn(move || (1..4).take_while(|n| queue.push(&mut book, 10 + n)).count())
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
}
