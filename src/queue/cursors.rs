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
    /// Bytes of the batch log that have memory.
    log_len: AtomicU64,
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
    #[cfg(all(test, loom))]
    pub(super) fn new() -> Self {
        Cursors {
            writer: WriterWords { tail: AtomicU64::new(0), written: AtomicU64::new(0) },
            reader: ReaderWords {
                head: AtomicU64::new(0),
                done: AtomicU64::new(0),
                log_len: AtomicU64::new(0),
            },
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

    /// Bytes of the batch log that have memory. Of the file, and to be checked.
    pub fn log_len(&self) -> u64 {
        self.reader.log_len.load(Ordering::Acquire)
    }

    /// Reader, or who makes the file: so many bytes of the batch log have memory.
    pub fn set_log_len(&self, len: u64) {
        self.reader.log_len.store(len, Ordering::Release);
    }

    /// Reader: gives all bytes before `head` back to the writer. Nobody may read them afterwards.
    pub fn release(&self, head: u64, done: u64) {
        self.reader.done.store(done, Ordering::Release);
        self.reader.head.store(head, Ordering::Release);
    }
}
