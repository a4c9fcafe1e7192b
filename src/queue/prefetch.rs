//! Asking for cache lines ahead of their use. What the other end's thread wrote or read last lies in the other
//! processor's cache or further away: a wait of some 50 nanoseconds for each line, unless it is on its way when it
//! is needed. A hint: it reads and changes nothing, and where there is no such instruction it is nothing.

const LINE: usize = 64;
/// Bytes that are asked for at most. The processor sees by itself where a longer copy goes.
const MOST: usize = 1024;

/// `len` bytes from `at` on will be read.
#[inline]
pub(super) fn to_read(at: *const u8, len: usize) {
    for offset in (0..len.min(MOST)).step_by(LINE) {
        line(at.wrapping_add(offset));
    }
}

/// `len` bytes from `at` on will be written.
#[inline]
pub(super) fn to_write(at: *const u8, len: usize) {
    for offset in (0..len.min(MOST)).step_by(LINE) {
        own_line(at.wrapping_add(offset));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn line(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: every x86_64 processor has it, and it has no effect that a program can see, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn line(_: *const u8) {}

// The intrinsic of that name is the one above, unless the target is known to have the instruction.
#[cfg(target_arch = "x86_64")]
#[inline]
fn own_line(at: *const u8) {
    // SAFETY: where it is not a prefetch it is a no-operation; it has no effect that a program can see, whatever
    // the address.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn own_line(_: *const u8) {}
