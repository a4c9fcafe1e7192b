//! Sequence numbers of a partition's records (KIP-98): they run from 0 to 2^31 - 1 and around.

use crate::seeded_bug::{Bug, is_seeded};

/// The number that comes `count` after `sequence`.
pub fn advance(sequence: i32, count: usize) -> i32 {
    if is_seeded(Bug::NoWrap) {
        return sequence.saturating_add(count as i32);
    }
    ((sequence as u32).wrapping_add(count as u32) & 0x7fff_ffff) as i32
}

/// Steps from one number to another.
pub fn distance(from: i32, to: i32) -> u32 {
    (to as u32).wrapping_sub(from as u32) & 0x7fff_ffff
}

/// True when number `a` comes before `b`, which is less than half a round away.
pub fn precedes(a: i32, b: i32) -> bool {
    (1..0x4000_0000).contains(&distance(a, b))
}
