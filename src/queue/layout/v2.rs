//! What queue files of version 2 have in other places. They are adopted, and marked and stamped in their own way, but
//! never made: lkfk 0.1 made them.
//!
//! Slots begin at multiples of 8 bytes, with a header of 64. Its second half is the reader's: state, partition and
//! stamp of a record stand in its own slot. The map has 32 bits for each segment.

use crate::queue::segments::{MAP_ENTRIES, MAX_SEGMENTS};
use crate::queue::stamps::Stamp;
use std::mem::{offset_of, size_of};
use std::sync::atomic::AtomicU32;

/// Number of this version.
pub const VERSION: u32 = 2;
/// Slots begin at multiples of this.
pub const GRANULE: u64 = 8;
/// Offset of the segment map.
pub const MAP_OFFSET: usize = super::MAP_OFFSET;
/// Offset of the data area; before it lies a mark for each place, which only the writer needed.
pub const DATA_OFFSET: usize = MAP_OFFSET + (MAP_ENTRIES + MAX_SEGMENTS) * size_of::<AtomicU32>();

/// In an entry of the map: the segment is done with. The other bits say where in the next one a slot begins, in units
/// of 8 bytes.
const GONE: u32 = 1 << 31;

/// The entry of a segment that is done with; the next slot begins `resume` bytes into the one after it.
pub fn gone(resume: u64) -> u32 {
    GONE | (resume / GRANULE) as u32
}

/// Where the slots go on after a segment that is done with; `None` when it is not.
pub fn resume(entry: u32) -> Option<u64> {
    (entry & GONE != 0).then_some(u64::from(entry & !GONE) * GRANULE)
}

/// What a slot holds, or what has become of it.
pub mod state {
    /// A record that still has to be delivered.
    pub const RECORD: u32 = 1;
    /// A record that was delivered or is safe elsewhere.
    pub const DONE: u32 = 2;
    /// Filler up to the end of the segment; only `length` and `state` are valid.
    pub const WRAP: u32 = 3;
}

/// Producer id of a slot without a stamp.
const NO_PRODUCER_ID: i64 = -1;

/// Header of a slot.
#[repr(C)]
pub struct SlotHeader {
    /// Bytes of the slot with this header, a multiple of 8.
    pub length: u32,
    /// One of [`state`].
    pub state: AtomicU32,
    /// [`check`] over position and the writer's fields.
    pub check: u32,
    /// Topic id.
    pub topic: u16,
    /// 0.
    pub flags: u16,
    /// When `log()` took the record, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Bytes of the key, or [`NULL_KEY`](super::NULL_KEY).
    pub key_len: u32,
    /// Bytes of a headers block between key and payload, which no version wrote.
    pub headers_len: u32,
    /// Bytes of the payload.
    pub payload_len: u32,
    /// As in version 3.
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
    /// Low bits of how many records came before.
    pub number: u32,
}

/// Bytes of a slot header.
pub const SLOT_HEADER: usize = size_of::<SlotHeader>();

const _: () = {
    assert!(DATA_OFFSET == 561_152 && SLOT_HEADER == 64);
    assert!(offset_of!(SlotHeader, timestamp_ms) == 16);
    assert!(offset_of!(SlotHeader, partition) == 36);
    assert!(offset_of!(SlotHeader, producer_id) == 40);
    assert!(offset_of!(SlotHeader, number) == 60);
};

/// Check word of a slot.
pub fn check(position: u64, header: &SlotHeader) -> u32 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let SlotHeader { length, topic, timestamp_ms, key_len, headers_len, payload_len, .. } = *header;
    let a = position ^ (u64::from(length) << 32) ^ (u64::from(topic) << 16);
    let b = timestamp_ms as u64 ^ (u64::from(key_len) << 32) ^ u64::from(headers_len);
    let mixed = a.wrapping_mul(K).rotate_left(29) ^ b.wrapping_mul(K);
    ((mixed ^ (u64::from(payload_len) << 17)).wrapping_mul(K) >> 32) as u32
}

impl SlotHeader {
    /// The stamp that stands here; `None` without one.
    pub(in crate::queue) fn stamp(&self) -> Option<Stamp> {
        let SlotHeader { producer_id, producer_epoch, sequence, batch_records, partition, .. } =
            *self;
        (producer_id >= 0).then_some(Stamp {
            producer_id,
            epoch: producer_epoch,
            sequence,
            batch_records,
            partition: partition as u32,
        })
    }

    /// Writes a stamp. Volatile, since the order of the stores counts: whoever is killed in between leaves a slot
    /// without a stamp, never a mixture of two.
    ///
    /// # Safety
    /// `header` points to a slot header that only the caller writes to.
    pub(in crate::queue) unsafe fn put_stamp(header: *mut SlotHeader, stamp: &Stamp) {
        // SAFETY: the caller's promise.
        unsafe {
            Self::remove_stamp(header);
            crate::crash_points::crash_point("record half stamped");
            (&raw mut (*header).partition).write_volatile(stamp.partition as i32);
            (&raw mut (*header).sequence).write_volatile(stamp.sequence);
            (&raw mut (*header).batch_records).write_volatile(stamp.batch_records);
            (&raw mut (*header).producer_epoch).write_volatile(stamp.epoch);
            (&raw mut (*header).producer_id).write_volatile(stamp.producer_id);
        }
    }

    /// Takes the stamp away.
    ///
    /// # Safety
    /// As for [`put_stamp`](Self::put_stamp).
    pub(in crate::queue) unsafe fn remove_stamp(header: *mut SlotHeader) {
        // SAFETY: the caller's promise.
        unsafe { (&raw mut (*header).producer_id).write_volatile(NO_PRODUCER_ID) };
    }
}
