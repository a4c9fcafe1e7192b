//! Which segment of the data area holds which stretch of positions: how the area is divided, and what an entry of the
//! map says. Nothing here touches the file.

/// Shortest segment.
pub const MIN_SEGMENT_LEN: u64 = 4 * 1024;
/// Longest segment: two of them, which is what a light load goes round in, fit a processor's cache.
pub const MAX_SEGMENT_LEN: u64 = 256 * 1024;
/// Most segments of a data area.
pub const MAX_SEGMENTS: usize = 8192;
/// Entries of the map, a power of two: how far tail may be ahead of head, in segments, while some between them
/// are free again.
pub const MAP_ENTRIES: usize = 65_536;

/// In an entry of the map: all slots of the segment are done, and its place is free. The other bits say where
/// in the next segment a slot begins, in units of [`RESUME_UNIT`].
const GONE: u16 = 1 << 15;
const RESUME_UNIT: u64 = 32;

/// What the map says of a segment. To be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It lies at this place, if there is one.
    At(u32),
    /// It is done with; the next slot begins so many bytes into the one after it.
    Gone(u64),
}

impl Entry {
    /// As it stands in the map.
    pub fn encode(self) -> u16 {
        match self {
            Entry::At(place) => place as u16,
            Entry::Gone(resume) => GONE | (resume / RESUME_UNIT) as u16,
        }
    }

    /// What stands in the map.
    #[inline]
    pub fn decode(word: u16) -> Entry {
        match word & GONE {
            0 => Entry::At(u32::from(word)),
            _ => Entry::Gone(u64::from(word & !GONE) * RESUME_UNIT),
        }
    }
}

/// Where segment `number` stands in the map.
#[inline]
pub fn entry(number: u64) -> usize {
    number as usize & (MAP_ENTRIES - 1)
}

/// How a data area is divided: into `count` segments of 2^`shift` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Division {
    shift: u32,
    count: u32,
}

impl Division {
    /// Of a new file of about `data_len` bytes: at least 16 segments, in most files 64 to 128 of them.
    pub fn of_new(data_len: u64) -> Division {
        let len = (1u64 << (data_len / 64).max(1).ilog2()).clamp(MIN_SEGMENT_LEN, MAX_SEGMENT_LEN);
        Division::of_parts(len.ilog2(), data_len.div_ceil(len) as u32)
    }

    /// Of a file whose header says `segment_len`, or `None` when that cannot be.
    pub fn of_file(data_len: u64, segment_len: u32) -> Option<Division> {
        let len = u64::from(segment_len);
        let possible = len.is_power_of_two()
            && (MIN_SEGMENT_LEN..=MAX_SEGMENT_LEN).contains(&len)
            && data_len.is_multiple_of(len)
            && data_len / len <= MAX_SEGMENTS as u64;
        possible.then(|| Division::of_parts(len.ilog2(), (data_len / len) as u32))
    }

    /// Of `count` segments of 2^`shift` bytes.
    pub(super) fn of_parts(shift: u32, count: u32) -> Division {
        Division { shift, count }
    }

    /// Bytes of a segment.
    #[inline]
    pub fn segment_len(self) -> u64 {
        1 << self.shift
    }

    /// Segments of the data area.
    #[inline]
    pub fn count(self) -> u32 {
        self.count
    }

    /// Bytes of the data area.
    pub fn data_len(self) -> u64 {
        u64::from(self.count) << self.shift
    }

    /// Number of the segment that `position` belongs to, counted along the positions.
    #[inline]
    pub fn number(self, position: u64) -> u64 {
        position >> self.shift
    }

    /// Position at which segment `number` begins.
    #[inline]
    pub fn start(self, number: u64) -> u64 {
        number << self.shift
    }

    /// Offset in the data area of `position`, whose segment lies at `place`.
    #[inline]
    pub fn offset(self, place: u32, position: u64) -> u64 {
        (u64::from(place) << self.shift) | (position & (self.segment_len() - 1))
    }
}

const _: () = {
    assert!(MAX_SEGMENTS <= GONE as usize);
    assert!(MAX_SEGMENT_LEN / RESUME_UNIT <= GONE as u64);
};
