//! Asking for cache lines ahead of their use. What the writer's thread wrote lies in the other processor's
//! cache or further away: a wait of some 50 nanoseconds for each line, unless it is on its way when it is
//! needed. A hint: it reads and changes nothing, and where there is no such instruction it is nothing.

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
