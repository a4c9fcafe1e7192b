//! Where everything lies in a queue file. The offsets are part of the format: a change here is a new
//! [`VERSION`], and the assertions below fail the build when a field moves by accident.

use super::cursors::Cursors;
use super::segments::{MAP_ENTRIES, MAX_SEGMENT_LEN, MAX_SEGMENTS};
use std::mem::{offset_of, size_of};
use std::sync::atomic::AtomicU32;

/// First eight bytes of every queue file.
pub const MAGIC: u64 = u64::from_le_bytes(*b"lkfkqueu");
/// Format version; a file of another version is left alone.
pub const VERSION: u32 = 2;
/// Reads differently on a machine of the other byte order.
pub const BYTE_ORDER: u32 = 0x0102_0304;

/// Offset of the cursors.
pub const CURSORS_OFFSET: usize = 1024;
/// Offset of the topic table.
pub const TOPICS_OFFSET: usize = 4096;
/// Bytes of the topic table: over 1,000 topics with the longest name, over 8,000 with usual ones.
pub const TOPICS_LEN: usize = 256 * 1024;
/// Offset of the segment map.
pub const MAP_OFFSET: usize = TOPICS_OFFSET + TOPICS_LEN;
/// Bytes of the segment map.
pub const MAP_LEN: usize = MAP_ENTRIES * size_of::<AtomicU32>();
/// Offset of the marks of places that are free again.
pub const RETURNED_OFFSET: usize = MAP_OFFSET + MAP_LEN;
/// Bytes of these marks.
pub const RETURNED_LEN: usize = MAX_SEGMENTS * size_of::<AtomicU32>();
/// Offset of the data area.
pub const DATA_OFFSET: usize = RETURNED_OFFSET + RETURNED_LEN;
/// Smallest data area.
pub const MIN_DATA_LEN: u64 = 64 * 1024;
/// Largest data area: a slot's length must fit 32 bits.
pub const MAX_DATA_LEN: u64 = 1 << 31;

/// Identity of a queue file. Written once by its maker before the file gets its final name, except the
/// use of the topic table.
#[repr(C)]
pub struct Identity {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// [`BYTE_ORDER`].
    pub byte_order: u32,
    /// Bytes of the data area, a multiple of `segment_len`.
    pub data_len: u64,
    /// Offset of the data area.
    pub data_offset: u32,
    /// Process id of the owner. For people: whether the owner lives is what `flock` says.
    pub owner_pid: u32,
    /// When the file was made, milliseconds since 1970.
    pub created_ms: i64,
    /// Bytes of the topic table in use; release-stored after each new entry.
    pub topics_used: AtomicU32,
    /// Bytes of a segment, a power of two.
    pub segment_len: u32,
}

/// Length stored for a null key.
pub const NULL_KEY: u32 = u32::MAX;

/// What a slot holds, or what has become of it.
pub mod state {
    /// A record that still has to be delivered.
    pub const RECORD: u32 = 1;
    /// A record that was delivered or is safe elsewhere.
    pub const DONE: u32 = 2;
    /// Filler up to the end of the segment; only `length` and `state` are valid.
    pub const WRAP: u32 = 3;
}

/// The writer leaves the partition to the reader.
pub const NO_PARTITION: i32 = -1;
/// The writer has a partitioner of its own but did not know the number of partitions yet: ask it.
pub const ASK_PARTITION: i32 = -2;

/// Header of a slot. Up to the partition, and the number, it is the writer's, the rest the reader's: there a batch is
/// written down before it is first sent, so that an adopter can repeat it with the same bounds.
#[repr(C)]
pub struct SlotHeader {
    /// Bytes of the slot with this header, a multiple of 8.
    pub length: u32,
    /// One of [`state`].
    pub state: AtomicU32,
    /// [`check`] over position and the writer's fields: tells a slot from what lay there before.
    pub check: u32,
    /// Topic id.
    pub topic: u16,
    /// 0.
    pub flags: u16,
    /// When `log()` took the record, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Bytes of the key, or [`NULL_KEY`].
    pub key_len: u32,
    /// Bytes of the headers block between key and payload.
    pub headers_len: u32,
    /// Bytes of the payload.
    pub payload_len: u32,
    /// The partition that the writer wishes for, [`NO_PARTITION`] or [`ASK_PARTITION`]; with idempotence the
    /// reader puts the one here that it chose.
    pub partition: i32,
    /// Producer id of the batch.
    pub producer_id: i64,
    /// Sequence number of this record.
    pub sequence: i32,
    /// Records in the batch, on its first slot; 0 on the others.
    pub batch_records: u32,
    /// Producer epoch of the batch.
    pub producer_epoch: i16,
    /// 0.
    pub reserved: u16,
    /// The writer's: low bits of how many records came before.
    pub number: u32,
}

/// Bytes of a slot header.
pub const SLOT_HEADER: usize = size_of::<SlotHeader>();

const _: () = {
    assert!(offset_of!(Identity, version) == 8);
    assert!(offset_of!(Identity, data_len) == 16);
    assert!(offset_of!(Identity, topics_used) == 40);
    assert!(offset_of!(Identity, segment_len) == 44);
    assert!(size_of::<Identity>() == 48);
    assert!(CURSORS_OFFSET.is_multiple_of(128));
    assert!(CURSORS_OFFSET + size_of::<Cursors>() <= TOPICS_OFFSET);
    assert!(size_of::<Cursors>() == 384);
    assert!(TOPICS_OFFSET.is_multiple_of(4096) && MAP_OFFSET.is_multiple_of(4096));
    assert!(DATA_OFFSET.is_multiple_of(4096));
    assert!(MAX_DATA_LEN == MAX_SEGMENTS as u64 * MAX_SEGMENT_LEN);
    assert!(SLOT_HEADER == 64);
    assert!(offset_of!(SlotHeader, state) == 4);
    assert!(offset_of!(SlotHeader, timestamp_ms) == 16);
    assert!(offset_of!(SlotHeader, key_len) == 24);
    assert!(offset_of!(SlotHeader, partition) == 36);
    assert!(offset_of!(SlotHeader, producer_id) == 40);
    assert!(offset_of!(SlotHeader, sequence) == 48);
    assert!(offset_of!(SlotHeader, producer_epoch) == 56);
    assert!(offset_of!(SlotHeader, number) == 60);
};

/// Check word of a slot: a mix of where it lies and what its writer put into its header. It is there to
/// recognise what is not a slot (bytes of an earlier one, a zeroed page), not to guard the payload.
#[inline]
pub fn check(position: u64, length: u32, topic: u16, timestamp_ms: i64, lens: [u32; 3]) -> u32 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let a = (position ^ ((length as u64) << 32) ^ ((topic as u64) << 16)).wrapping_mul(K);
    let b = (timestamp_ms as u64 ^ ((lens[0] as u64) << 32) ^ lens[1] as u64).wrapping_mul(K);
    let mixed = (a.rotate_left(29) ^ b ^ ((lens[2] as u64) << 17)).wrapping_mul(K);
    (mixed >> 32) as u32
}

/// Bytes of the slot of a record, or `None` when they do not fit the format.
#[inline]
pub fn slot_len(key_len: usize, headers_len: usize, payload_len: usize) -> Option<usize> {
    let len =
        SLOT_HEADER.checked_add(key_len)?.checked_add(headers_len)?.checked_add(payload_len)?;
    let len = len.checked_add(7)? & !7;
    (len as u64 <= MAX_DATA_LEN).then_some(len)
}
