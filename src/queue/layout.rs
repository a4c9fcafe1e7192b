//! Where everything lies in a queue file of version 3, which is the one that is made. The offsets are part of the
//! format: a change here is a new [`VERSION`], and the assertions below fail the build when a field moves by accident.
//! What version 2 has in other places is in [`v2`].

pub mod v2;

use super::cursors::Cursors;
use super::owner::{MAX_NAME, Owner};
use super::segments::{MAP_ENTRIES, MAX_SEGMENT_LEN, MAX_SEGMENTS};
use std::mem::{offset_of, size_of};
use std::ops::BitOr;
use std::sync::atomic::{AtomicU16, AtomicU32};

/// First eight bytes of every queue file.
pub const MAGIC: u64 = u64::from_le_bytes(*b"lkfkqueu");
/// Format version of the files that are made. Version 2 is read as well; a file of another version is left alone.
pub const VERSION: u32 = 3;
/// Reads differently on a machine of the other byte order.
pub const BYTE_ORDER: u32 = 0x0102_0304;

/// Bytes of a page, in which memory is allocated and given back.
pub const PAGE: usize = 4096;
/// Slots begin at multiples of this, and take whole ones.
pub const GRANULE: u64 = 32;

/// Offset of the cursors.
pub const CURSORS_OFFSET: usize = 1024;
/// Offset of the topic table.
pub const TOPICS_OFFSET: usize = 4096;
/// Bytes of the topic table: over 1,000 topics with the longest name, over 8,000 with usual ones.
pub const TOPICS_LEN: usize = 256 * 1024;
/// Offset of the segment map.
pub const MAP_OFFSET: usize = TOPICS_OFFSET + TOPICS_LEN;
/// Bytes of the segment map.
pub const MAP_LEN: usize = MAP_ENTRIES * size_of::<AtomicU16>();
/// Offset of the bits that say which records are done.
pub const DONE_OFFSET: usize = MAP_OFFSET + MAP_LEN;
/// Bytes of data for which these take one byte.
pub const DATA_PER_DONE_BYTE: u64 = 8 * GRANULE;
/// Bytes of the batch log that are there from the start.
pub const FIRST_LOG_LEN: usize = 16 * 1024;
/// Smallest batch log.
pub const MIN_LOG_LEN: u64 = 64 * 1024;
/// Smallest data area.
pub const MIN_DATA_LEN: u64 = 64 * 1024;
/// Largest data area: a slot's length must fit 32 bits.
pub const MAX_DATA_LEN: u64 = 1 << 31;

/// Where the parts lie whose place follows from the length of the data area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Areas {
    /// Offset of the batch log.
    pub log: usize,
    /// Bytes of it.
    pub log_len: usize,
    /// Offset of the data area.
    pub data: usize,
    /// Bytes of the file.
    pub len: usize,
}

impl Areas {
    /// Those of a data area of `data_len` bytes.
    pub const fn of(data_len: u64) -> Areas {
        let done_len = (data_len / DATA_PER_DONE_BYTE).next_multiple_of(PAGE as u64);
        let log = DONE_OFFSET + done_len as usize;
        let log_len = (data_len / 8).next_multiple_of(PAGE as u64);
        let log_len = if log_len < MIN_LOG_LEN { MIN_LOG_LEN } else { log_len } as usize;
        let data = log + log_len;
        Areas { log, log_len, data, len: data + data_len as usize }
    }
}

/// Identity of a queue file. Written once by its maker before the file gets its final name, except the
/// use of the topic table. Version 2 has the fields before `names`.
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
    /// Whom the file belongs to.
    pub names: Names,
}

/// The names of an [`Owner`], as they stand in a file.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Names {
    instance_len: u8,
    producer_len: u8,
    instance: [u8; MAX_NAME],
    producer: [u8; MAX_NAME],
}

impl Names {
    /// Those of a valid owner.
    pub fn of(owner: Owner<'_>) -> Names {
        let mut names = Names {
            instance_len: owner.instance.len() as u8,
            producer_len: owner.producer.len() as u8,
            instance: [0; MAX_NAME],
            producer: [0; MAX_NAME],
        };
        names.instance[..owner.instance.len()].copy_from_slice(owner.instance.as_bytes());
        names.producer[..owner.producer.len()].copy_from_slice(owner.producer.as_bytes());
        names
    }

    /// The owner; `None` when these are no names.
    pub fn owner(&self) -> Option<Owner<'_>> {
        let name = |bytes, len: u8| std::str::from_utf8(<[u8]>::get(bytes, ..len.into())?).ok();
        let owner = Owner {
            instance: name(&self.instance, self.instance_len)?,
            producer: name(&self.producer, self.producer_len)?,
        };
        owner.is_valid().then_some(owner)
    }
}

/// Length stored for a null key.
pub const NULL_KEY: u32 = u32::MAX;
/// The writer leaves the partition to the reader.
pub const NO_PARTITION: i32 = -1;
/// The writer has a partitioner of its own but did not know the number of partitions yet: ask it.
pub const ASK_PARTITION: i32 = -2;

/// How a record is to be treated until it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub(super) u16);

impl Flags {
    /// As usual.
    pub const NONE: Flags = Flags(0);
    /// It is to be sent without linger. The file keeps this; the driver does not act on it yet.
    pub const NO_LINGER: Flags = Flags(1);
    /// Somebody waits for the answer. The file keeps this; the driver does not act on it yet.
    pub const AWAITED: Flags = Flags(2);
    /// All of them.
    pub(super) const ALL: Flags = Flags(3);

    /// The flags that have these bits; `None` when there are none such.
    pub fn from_bits(bits: u32) -> Option<Flags> {
        u16::try_from(bits).ok().map(Flags).filter(|flags| Flags::ALL.contains(*flags))
    }

    /// Whether all of `flags` are set.
    #[inline]
    pub fn contains(self, flags: Flags) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// What else stands in the flags of a slot.
pub mod kind {
    /// The payload is null.
    pub const NULL_PAYLOAD: u16 = 1 << 2;
    /// An [`Extension`](super::Extension) follows the header.
    pub const EXTENDED: u16 = 1 << 3;
    /// Filler up to the end of the segment; only `length`, `check` and the flags are valid.
    pub const WRAP: u16 = 1 << 4;
    /// From this bit on: how many bytes at the end of the slot are not used.
    pub const UNUSED_SHIFT: u32 = 8;
    /// Bits that may be set.
    pub const KNOWN: u16 = 0x1f00 | 0x1f;
}

/// Header of a slot: half a cache line, and never in two of them. The writer's, except that the reader puts the
/// partition here that it chose, right after it has read the rest.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SlotHeader {
    /// Bytes of the slot with this header, a multiple of [`GRANULE`].
    pub length: u32,
    /// [`check`] over the position and the other fields but the partition: tells a slot from what lay there before.
    pub check: u32,
    /// Topic id.
    pub topic: u16,
    /// [`Flags`] and [`kind`].
    pub flags: u16,
    /// The partition that the writer wishes for, [`NO_PARTITION`] or [`ASK_PARTITION`]; with idempotence the one that
    /// the reader chose.
    pub partition: i32,
    /// When `log()` took the record, milliseconds since 1970.
    pub logged_ms: i64,
    /// Bytes of the key, or [`NULL_KEY`].
    pub key_len: u32,
    /// Low bits of how many records came before.
    pub number: u32,
}

/// What follows the header of a record that has headers, or a time of its own.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Extension {
    /// The time that the record carries, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Bytes of the headers block between key and payload.
    pub headers_len: u32,
    /// [`check_extension`].
    pub check: u32,
}

/// Bytes of a slot header.
pub const SLOT_HEADER: usize = size_of::<SlotHeader>();
/// Bytes of an extension.
pub const EXTENSION: usize = size_of::<Extension>();

const _: () = {
    assert!(offset_of!(Identity, version) == 8);
    assert!(offset_of!(Identity, data_len) == 16);
    assert!(offset_of!(Identity, topics_used) == 40);
    assert!(offset_of!(Identity, segment_len) == 44);
    assert!(offset_of!(Identity, names) == 48);
    assert!(size_of::<Names>() == 130 && size_of::<Identity>() <= CURSORS_OFFSET);
    assert!(CURSORS_OFFSET.is_multiple_of(128));
    assert!(CURSORS_OFFSET + size_of::<Cursors>() <= TOPICS_OFFSET);
    assert!(size_of::<Cursors>() == 384);
    assert!(TOPICS_OFFSET.is_multiple_of(PAGE) && MAP_OFFSET.is_multiple_of(PAGE));
    assert!(DONE_OFFSET.is_multiple_of(PAGE) && FIRST_LOG_LEN.is_multiple_of(PAGE));
    assert!(MAX_DATA_LEN == MAX_SEGMENTS as u64 * MAX_SEGMENT_LEN);
    assert!(SLOT_HEADER == GRANULE as usize && EXTENSION == 16);
    assert!(offset_of!(SlotHeader, topic) == 8);
    assert!(offset_of!(SlotHeader, partition) == 12);
    assert!(offset_of!(SlotHeader, logged_ms) == 16);
    assert!(offset_of!(SlotHeader, key_len) == 24);
};

const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Check word of a slot: a mix of where it lies and what its writer put into its header. It is there to
/// recognise what is not a slot (bytes of an earlier one, a zeroed page), not to guard the payload.
#[inline]
pub fn check(position: u64, header: &SlotHeader) -> u32 {
    let SlotHeader { length, topic, flags, logged_ms, key_len, number, .. } = *header;
    let kind = u64::from(topic) << 16 | u64::from(flags);
    let a = (position ^ u64::from(length) << 32 ^ kind << 8).wrapping_mul(MIX);
    let b = (logged_ms as u64 ^ u64::from(key_len) << 32 ^ u64::from(number)).wrapping_mul(MIX);
    ((a.rotate_left(29) ^ b).wrapping_mul(MIX) >> 32) as u32
}

/// Check word of an extension.
pub fn check_extension(position: u64, timestamp_ms: i64, headers_len: u32) -> u32 {
    let a = (position ^ u64::from(headers_len) << 32).wrapping_mul(MIX);
    ((a.rotate_left(29) ^ timestamp_ms as u64).wrapping_mul(MIX) >> 32) as u32
}

/// Bytes of the slot of a record whose key, headers and payload take `bytes`.
#[inline]
pub fn slot_len(bytes: usize, is_extended: bool) -> usize {
    let extension = if is_extended { EXTENSION } else { 0 };
    (SLOT_HEADER + extension + bytes).next_multiple_of(GRANULE as usize)
}
