//! Memory that the driver holds: everything that this process allocates, except on threads that say they
//! belong to the test.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

static HELD: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread is the test's, and what it allocates does not count.
pub fn leave_out_this_thread() {
    OURS.set(true);
}

/// Forgets the peak.
pub fn start() -> isize {
    let held = HELD.load(Ordering::Relaxed);
    PEAK.store(held, Ordering::Relaxed);
    held
}

/// The most that was held at one time since [`start`], on top of what it returned.
pub fn peak_since(start: isize) -> isize {
    PEAK.load(Ordering::Relaxed) - start
}

/// The system's allocator, counting.
pub struct Counting;

// SAFETY: every call is passed on to `System` unchanged, which keeps `GlobalAlloc`'s contract. Counting
// touches atomics and a thread-local cell without destructor, so it neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        hold(layout.size() as isize);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(-(layout.size() as isize));
        // SAFETY: the caller keeps `dealloc`'s contract, and `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While the content moves, both are held.
        hold(size as isize);
        hold(-(layout.size() as isize));
        // SAFETY: the caller keeps `realloc`'s contract, and `pointer` came from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn hold(bytes: isize) {
    if !OURS.get() {
        let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
        PEAK.fetch_max(held, Ordering::Relaxed);
    }
}
