//! The mapped bytes of a queue file, and the memory behind them.
//!
//! The file has its full length from the start and is mapped whole, but most of it has no memory at first. Memory is
//! allocated before anybody touches it: a file system that is full is an error then, where touching would be SIGBUS.

use super::barrier::Barrier;
use super::cursors::Cursors;
use super::layout::{self, Areas, Identity, v2};
use super::places::Places;
use super::segments::{self, Division, Entry, MAP_ENTRIES};
use rustix::fs::{self, FallocateFlags};
use rustix::io::Errno;
use rustix::mm::{self, MapFlags, ProtFlags};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Which version of the format a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Adopted, never made.
    V2,
    /// What is made.
    V3,
}

impl Format {
    /// Slots begin at multiples of this.
    #[inline]
    pub(super) fn granule(self) -> u64 {
        match self {
            Format::V2 => v2::GRANULE,
            Format::V3 => layout::GRANULE,
        }
    }

    /// Where the data area of `data_len` bytes begins.
    pub(super) fn data_offset(self, data_len: u64) -> usize {
        match self {
            Format::V2 => v2::DATA_OFFSET,
            Format::V3 => Areas::of(data_len).data,
        }
    }
}

/// The mapped bytes of a queue file.
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    data: usize,
    format: Format,
    division: Division,
    barrier: Barrier,
    places: Places,
    file: OwnedFd,
}

// SAFETY: the mapping is plain memory that stays mapped until the last Arc is dropped; who may access
// which part of it is the business of Writer and Reader (see the invariants in `queue`).
unsafe impl Send for Mapping {}
// SAFETY: as above; what both ends share through `&Mapping` are atomics.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a file that is as long as its header and the data area.
    pub fn new(file: OwnedFd, format: Format, division: Division) -> Result<Mapping, Errno> {
        let data = format.data_offset(division.data_len());
        let len = data + division.data_len() as usize;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh shared mapping at an address the kernel chooses overlaps nothing of ours.
        let base =
            unsafe { mm::mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, &file, 0)? };
        // A child of fork (a user's io.popen, say) must not write to its parent's queue. Kernels and
        // sandboxes that cannot do this leave us as we are.
        // SAFETY: the range is the mapping just made; the advice does not change its contents.
        let _ = unsafe { mm::madvise(base, len, mm::Advice::LinuxDontFork) };
        let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        let places = Places::new(division.count());
        let barrier = Barrier::detect();
        Ok(Mapping { base, len, data, format, division, barrier, places, file })
    }

    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Bytes of the file.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Start of the data area.
    #[inline]
    pub fn data(&self) -> *mut u8 {
        // SAFETY: the mapping is longer than its header.
        unsafe { self.base().add(self.data) }
    }

    #[inline]
    pub fn division(&self) -> Division {
        self.division
    }

    #[inline]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The file, which the mapping keeps open.
    pub fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// How the two ends in this process fence.
    pub fn barrier(&self) -> Barrier {
        self.barrier
    }

    /// Whose the places of the data area are.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The identity block. Callers touch only its atomics once the file is shared, and only what the format has.
    pub fn identity(&self) -> &Identity {
        // SAFETY: offset 0 is aligned and inside the mapping; any bytes are a valid Identity, and its
        // plain fields are not written after the file got its name.
        unsafe { &*self.base().cast::<Identity>() }
    }

    #[inline]
    pub fn cursors(&self) -> &Cursors {
        // SAFETY: the offset is a multiple of 128 on a page-aligned mapping and inside it; Cursors
        // consists of atomics, for which any bytes are valid.
        unsafe { &*self.base().add(layout::CURSORS_OFFSET).cast::<Cursors>() }
    }

    // ------------------------------------------------------------------------------------- the map

    fn map(&self) -> &[AtomicU16; MAP_ENTRIES] {
        // SAFETY: the map lies inside the mapping, page-aligned; any bytes are valid atomics.
        unsafe { &*self.base().add(layout::MAP_OFFSET).cast() }
    }

    fn map_of_v2(&self) -> &[AtomicU32; MAP_ENTRIES] {
        // SAFETY: as above.
        unsafe { &*self.base().add(v2::MAP_OFFSET).cast() }
    }

    /// What the map says of segment `number`. To be checked.
    #[inline]
    pub fn entry(&self, number: u64) -> Entry {
        let index = segments::entry(number);
        match self.format {
            Format::V3 => Entry::decode(self.map()[index].load(Ordering::Relaxed)),
            Format::V2 => {
                let entry = self.map_of_v2()[index].load(Ordering::Relaxed);
                v2::resume(entry).map_or(Entry::At(entry), Entry::Gone)
            }
        }
    }

    /// Enters segment `number` into the map.
    pub fn set_entry(&self, number: u64, entry: Entry) {
        let index = segments::entry(number);
        match (self.format, entry) {
            (Format::V3, _) => self.map()[index].store(entry.encode(), Ordering::Relaxed),
            (Format::V2, Entry::Gone(resume)) => {
                self.map_of_v2()[index].store(v2::gone(resume), Ordering::Relaxed);
            }
            (Format::V2, Entry::At(place)) => {
                self.map_of_v2()[index].store(place, Ordering::Relaxed);
            }
        }
    }

    /// Place in the data area of segment `number`, if the map names one that exists.
    #[inline]
    pub fn place(&self, number: u64) -> Option<u32> {
        match self.entry(number) {
            Entry::At(place) if place < self.division.count() => Some(place),
            _ => None,
        }
    }

    // ---------------------------------------------------------------- which records are done (version 3)

    /// The bits of the segment at `place`, one for each granule: whether the record that begins there is done.
    #[inline]
    pub fn done_bits(&self, place: u32) -> &[AtomicU64] {
        assert!(place < self.division.count());
        let Range { start, end } = self.done_range(place);
        // SAFETY: the range lies inside the mapping, since the place exists; it begins at a multiple of 16, as the
        // shortest segment has 16 bytes of bits; any bytes are valid atomics.
        unsafe {
            let first = self.base().add(start).cast::<AtomicU64>();
            std::slice::from_raw_parts(first, (end - start) / size_of::<AtomicU64>())
        }
    }

    /// Where these bits lie in the file.
    #[inline]
    fn done_range(&self, place: u32) -> Range<usize> {
        let len = (self.division.segment_len() / layout::DATA_PER_DONE_BYTE) as usize;
        let start = layout::DONE_OFFSET + place as usize * len;
        start..start + len
    }

    /// Forgets what is done in the segment at `place`, before it holds another one.
    pub fn clear_done(&self, place: u32) {
        self.done_bits(place).iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    // --------------------------------------------------------------------------------------- memory

    fn data_range(&self, place: u32) -> Range<usize> {
        let start = self.data + self.division.offset(place, 0) as usize;
        start..start + self.division.segment_len() as usize
    }

    /// Allocates memory behind `range`, which nobody uses yet. In steps, since an interrupted call starts its step
    /// over, and nginx may have a timer that interrupts it. By writing zeros where the file system has no better way.
    pub fn allocate(&self, range: Range<usize>) -> Result<(), Errno> {
        match self.keep_allocated(range.clone()) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write_zeros(range),
            result => result,
        }
    }

    /// Makes sure that `range`, which may hold something, can be touched.
    pub fn keep_allocated(&self, range: Range<usize>) -> Result<(), Errno> {
        const STEP: usize = 16 << 20;
        let mut at = range.start;
        while at < range.end {
            let step = STEP.min(range.end - at);
            match fs::fallocate(&self.file, FallocateFlags::empty(), at as u64, step as u64) {
                Ok(()) => at += step,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn write_zeros(&self, range: Range<usize>) -> Result<(), Errno> {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        let mut at = range.start;
        while at < range.end {
            let step = ZEROS.len().min(range.end - at);
            match rustix::io::pwrite(&self.file, &ZEROS[..step], at as u64) {
                Ok(0) => return Err(Errno::NOSPC),
                Ok(written) => at += written,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Maps `range`, which has memory, so that touching it takes no page fault. Where the kernel cannot do that the
    /// first touch is slower.
    pub fn populate(&self, range: Range<usize>) {
        let start = range.start & !(layout::PAGE - 1);
        // SAFETY: the range is part of our mapping; populating it does not change its contents.
        let _ = unsafe {
            let at = self.base().add(start).cast();
            mm::madvise(at, range.end - start, mm::Advice::LinuxPopulateWrite)
        };
    }

    /// Gives the memory behind `range`, of whole pages that nobody uses, back to the file system.
    pub fn give_back(&self, range: Range<usize>) -> Result<(), Errno> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let (start, len) = (range.start as u64, range.len() as u64);
        rustix::io::retry_on_intr(|| fs::fallocate(&self.file, flags, start, len))
    }

    /// Allocates what a segment at `place` needs.
    pub fn allocate_place(&self, place: u32) -> Result<(), Errno> {
        self.allocate(self.done_range(place))?;
        self.allocate(self.data_range(place))
    }

    /// Maps what a segment at `place` needs.
    pub fn populate_place(&self, place: u32) {
        self.populate(self.done_range(place));
        self.populate(self.data_range(place));
    }

    /// Gives the memory of the segment at `place` back, but for its bits.
    pub fn give_back_place(&self, place: u32) -> Result<(), Errno> {
        self.give_back(self.data_range(place))
    }

    /// The places whose bits lie in the same page as those of `place`, and that page.
    pub fn done_page(&self, place: u32) -> (Range<u32>, Range<usize>) {
        let bits = self.done_range(place);
        let start = bits.start & !(layout::PAGE - 1);
        let of_page = (layout::PAGE / bits.len()) as u32;
        let first = place / of_page * of_page;
        let last = (first + of_page).min(self.division.count());
        (first..last, start..start + layout::PAGE)
    }

    /// Makes sure that whoever adopts the file can touch what it has to: the header, and the segments between head
    /// and tail. The files that we make have all of it; one that was copied with holes may not.
    pub fn keep_used_allocated(&self) -> Result<(), Errno> {
        let topics = self.identity().topics_used.load(Ordering::Relaxed) as usize;
        self.keep_allocated(0..layout::TOPICS_OFFSET + topics.min(layout::TOPICS_LEN))?;
        if self.format == Format::V2 {
            self.keep_allocated(v2::MAP_OFFSET..v2::DATA_OFFSET)?;
        } else {
            self.keep_allocated(layout::MAP_OFFSET..layout::DONE_OFFSET)?;
            let areas = Areas::of(self.division.data_len());
            let log_len = (self.cursors().log_len() as usize).min(areas.log_len);
            self.keep_allocated(areas.log..areas.log + log_len)?;
        }
        for run in self.used_runs() {
            let (first, last) = (self.data_range(run.start), self.data_range(run.end - 1));
            self.keep_allocated(first.start..last.end)?;
            if self.format == Format::V3 {
                let (first, last) = (self.done_range(run.start), self.done_range(run.end - 1));
                self.keep_allocated(first.start..last.end)?;
            }
        }
        Ok(())
    }

    /// The places of the segments between head and tail, those that lie together in one range.
    fn used_runs(&self) -> Vec<Range<u32>> {
        let (head, tail) = (self.cursors().head(), self.cursors().tail());
        let numbers = self.division.number(head)..=self.division.number(tail);
        let mut places: Vec<u32> = numbers.filter_map(|number| self.place(number)).collect();
        places.sort_unstable();
        places.dedup();
        let runs = places.chunk_by(|place, next| place + 1 == *next);
        runs.map(|run| run[0]..run[0] + run.len() as u32).collect()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the last owner goes, so no reference into the mapping is left.
        let _ = unsafe { mm::munmap(self.base().cast(), self.len) };
    }
}
