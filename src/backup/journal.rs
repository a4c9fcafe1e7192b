//! The journal of a backup file: which lines in it are lkfk's own, and how far it was replayed.
//!
//! # Invariants
//! - A line is lkfk's when, and only when, an entry says where it stands and the bytes there have the entry's
//!   checksum. Nothing else counts: not the file's name, its owner or the look of a line. So lines of a
//!   user's `failed_cb`, of the original module, of a script or an editor are never taken for lkfk's.
//! - The journal is named after the file's inode number and so follows it through every renaming. That of a file that
//!   is gone gets another name, and its own again when the file comes back.
//! - A number is used again, so it says little. A journal is a file's when that was born at the time that the journal
//!   has (where both are known), and when at least one of the lines that are looked at has its checksum. A file of
//!   which no line matches is somebody else's, and not a damaged one of lkfk's: nothing in it is moved.
//! - Entries are written before their lines, under the file's lock; what a killed writer claimed and did not
//!   write is taken back by the next one. Entries never overlap and stand in the file's order.
//! - Progress is written into one of two places in turn, with a checksum, so that one is whole always.
//!
//! # Format, little-endian
//! ```text
//! 0     magic "lkfkbak1", inode number u64, birth of the file in nanoseconds i64 (0: not known), length u64 of what
//!       was in the file before the journal was made, zeros
//! 64    progress: sequence u64, own u64, others u64, before u32, flags u32, zeros, check u32   (48 bytes)
//! 112   progress, the other place
//! 160   entries: offset u64, time in milliseconds i64, length u32 (highest bit: refused), check u32
//! ```

use super::file_id::FileId;
use super::names::JOURNALS;
use crate::rename;
use crate::sys::files::{self, errno, read_at};
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// What the name of a journal ends in whose file is gone.
const GONE: &str = ".gone";
const MAGIC: &[u8; 8] = b"lkfkbak1";
const PROGRESS_AT: [u64; 2] = [64, 112];
const PROGRESS_LEN: usize = 48;
const ENTRIES_AT: u64 = 160;
/// Bytes of an entry.
pub(super) const ENTRY_LEN: usize = 24;
/// Highest bit of an entry's length: `log()` had refused the message.
const REFUSED: u32 = 1 << 31;
/// The others' bytes before `Progress::others` end in the middle of a line that is no line.
const INSIDE_BAD: u32 = 1;
/// Lines at either end of a file that are looked at to learn whether the journal is the file's.
const COMPARED: usize = 8;
/// Bytes of a line that are looked at at a time.
const PIECE: usize = 64 * 1024;
/// Longest line that an entry can describe.
pub(super) const LONGEST_LINE: usize = (REFUSED - 1) as usize;

/// A line of lkfk's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where it begins in the file.
    pub offset: u64,
    /// When `log()` took the message, milliseconds since 1970, of which the line holds the seconds.
    pub logged_ms: i64,
    /// Bytes, with its line feed.
    pub len: u32,
    /// `log()` had refused the message, so it is not replayed with `replay = true`.
    pub refused: bool,
    /// CRC-32C of the fields above and the line.
    pub check: u32,
}

impl Entry {
    /// The entry of `line`, which is to stand at `offset`.
    pub fn new(offset: u64, logged_ms: i64, refused: bool, line: &[u8]) -> Entry {
        let entry = Entry { offset, logged_ms, len: line.len() as u32, refused, check: 0 };
        Entry { check: entry.sum(line), ..entry }
    }

    /// Whether `line` is the line it was made for.
    pub fn matches(&self, line: &[u8]) -> bool {
        line.len() == self.len as usize && self.sum(line) == self.check
    }

    /// Where the line ends; saturating, since the file may be damaged.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }

    fn len_word(&self) -> u32 {
        self.len | if self.refused { REFUSED } else { 0 }
    }

    /// Whether the line that it was made for stands in the file. The length of a damaged entry sizes no buffer.
    fn is_in(&self, file: &File) -> Result<bool, Errno> {
        let mut piece = vec![0; PIECE.min(self.len as usize)];
        let (mut sum, mut at) = (self.sum_of_fields(), self.offset);
        while at < self.end() {
            let want = (self.end() - at).min(PIECE as u64) as usize;
            let read = read_at(file, &mut piece[..want], at)?;
            if read == 0 {
                return Ok(false);
            }
            sum = crc32c::crc32c_append(sum, &piece[..read]);
            at += read as u64;
        }
        Ok(sum == self.check)
    }

    fn sum_of_fields(&self) -> u32 {
        let sum = crc32c::crc32c(&self.offset.to_le_bytes());
        let sum = crc32c::crc32c_append(sum, &self.logged_ms.to_le_bytes());
        crc32c::crc32c_append(sum, &self.len_word().to_le_bytes())
    }

    fn sum(&self, line: &[u8]) -> u32 {
        crc32c::crc32c_append(self.sum_of_fields(), line)
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.logged_ms.to_le_bytes());
        out.extend_from_slice(&self.len_word().to_le_bytes());
        out.extend_from_slice(&self.check.to_le_bytes());
    }

    fn get(bytes: &[u8; ENTRY_LEN]) -> Entry {
        let word = u32_at(bytes, 16);
        Entry {
            offset: u64_at(bytes, 0),
            logged_ms: u64_at(bytes, 8) as i64,
            len: word & !REFUSED,
            refused: word & REFUSED != 0,
            check: u32_at(bytes, 20),
        }
    }
}

/// How far a file was replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// lkfk's lines before this are done with.
    pub own: u64,
    /// All other bytes before this are done with.
    pub others: u64,
    /// `others` lies inside a line that was too long to be one; the rest of it goes the same way.
    pub inside_bad: bool,
    /// CRC-32C of the bytes that stood before the greater of the two, up to [`BEFORE`] of them: tells this
    /// file from a later one with the same inode number.
    pub before: u32,
}

/// Bytes that [`Progress::before`] is the checksum of.
pub(super) const BEFORE: u64 = 64;

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// A journal. All calls that write are made under the lock of the file it belongs to, but for
/// [`set_progress`](Self::set_progress), which only the process that replays calls.
pub(super) struct Journal {
    file: File,
    /// When the file was made that it belongs to, if that is known.
    born_ns: Option<i64>,
    /// What stood in that file before the journal was made, in bytes: nobody noted who wrote it.
    unknown: u64,
}

/// The directory of the journals, without following a link in its place; `None` when it is missing and not
/// to be made.
fn directory(dir: impl AsFd, make: bool) -> Result<Option<OwnedFd>, Errno> {
    if make {
        match fs::mkdirat(&dir, JOURNALS, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    match fs::openat(dir, JOURNALS, flags, Mode::empty()) {
        Err(Errno::NOENT) if !make => Ok(None),
        dir => dir.map(Some),
    }
}

/// A journal in the directory.
pub(super) struct Listed {
    /// Inode number of its file.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// When its file was found to be gone, in seconds since 1970.
    pub gone_since: Option<i64>,
}

/// Whether one of the lines stands in the file, which has `size` bytes.
fn any_is_in(entries: &[Entry], file: &File, size: u64) -> Result<bool, Errno> {
    for entry in entries.iter().filter(|entry| entry.end() <= size) {
        if entry.is_in(file)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// All journals.
pub(super) fn list(dir: impl AsFd) -> Result<Vec<Listed>, Errno> {
    let Some(dir) = directory(dir, false)? else { return Ok(Vec::new()) };
    let mut list = Vec::new();
    for entry in fs::Dir::read_from(&dir)? {
        let entry = entry?;
        let name = entry.file_name().to_str().unwrap_or_default();
        let number = name.strip_suffix(GONE).unwrap_or(name);
        if let Ok(inode) = number.parse()
            && let Ok(stat) = fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)
        {
            // The last that happened to it is that it got this name.
            let gone_since = (number != name).then_some(stat.st_ctime);
            list.push(Listed { inode, size: stat.st_size as u64, gone_since });
        }
    }
    Ok(list)
}

impl Journal {
    /// The journal of a file, if there is one that is whole and not that of an earlier file with its number.
    pub fn open(dir: impl AsFd, of: &File) -> Result<Option<Journal>, Errno> {
        let id = FileId::of(of)?;
        let Some(journal) = Self::open_numbered(dir, id.inode)? else { return Ok(None) };
        Ok(if journal.is_of(of, &id)? { Some(journal) } else { None })
    }

    /// Whether there is one of this number, whosever it is.
    pub fn is_there(dir: impl AsFd, inode: u64) -> Result<bool, Errno> {
        let Some(dir) = directory(dir, false)? else { return Ok(false) };
        Ok(fs::statat(dir, inode.to_string(), AtFlags::SYMLINK_NOFOLLOW).is_ok())
    }

    /// Whether it belongs to this file, which has its number.
    fn is_of(&self, file: &File, id: &FileId) -> Result<bool, Errno> {
        let births = (self.born_ns, id.born_ns);
        if let (Some(noted), Some(born)) = births
            && noted != born
        {
            return Ok(false);
        }
        let size = fs::fstat(file)?.st_size as u64;
        let first = self.entries(0, COMPARED)?;
        if first.is_empty() || size == 0 {
            return Ok(true);
        }
        if any_is_in(&first, file, size)? {
            return Ok(true);
        }
        let there = self.first_that(|entry| entry.end() > size)?;
        if there == 0 {
            // It claims what a killed writer did not write, unless the number was used again.
            return Ok(births.0.is_some() && births.1.is_some());
        }
        let last = self.entries(there.saturating_sub(COMPARED as u64), COMPARED)?;
        any_is_in(&last, file, size)
    }

    fn open_numbered(dir: impl AsFd, inode: u64) -> Result<Option<Journal>, Errno> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Some(dir) = directory(dir, false)? else { return Ok(None) };
        let name = inode.to_string();
        let mut file = fs::openat(&dir, &name, flags, Mode::empty());
        // Its file was away.
        if matches!(file, Err(Errno::NOENT))
            && rename::to_new_name(&dir, &format!("{name}{GONE}"), &name).is_ok()
        {
            file = fs::openat(&dir, &name, flags, Mode::empty());
        }
        let file = match file {
            Err(Errno::NOENT) => return Ok(None),
            file => File::from(file?),
        };
        let stat = fs::fstat(&file)?;
        let mut head = [0; 32];
        let whole = files::check_own(&stat).is_ok()
            && stat.st_size as u64 >= ENTRIES_AT
            && read_at(&file, &mut head, 0)? == head.len()
            && head[..8] == *MAGIC
            && u64_at(&head, 8) == inode;
        if !whole {
            return Ok(None);
        }
        let born_ns = Some(u64_at(&head, 16) as i64).filter(|born| *born != 0);
        Ok(Some(Journal { file, born_ns, unknown: u64_at(&head, 24) }))
    }

    /// As [`open`](Self::open); makes one where there is none, and a new one where it is not whole.
    pub fn open_or_make(dir: impl AsFd, of: &File) -> Result<Journal, Errno> {
        if let Some(journal) = Self::open(&dir, of)? {
            return Ok(journal);
        }
        let FileId { inode, born_ns } = FileId::of(of)?;
        let unknown = fs::fstat(of)?.st_size as u64;
        let Some(inside) = directory(&dir, true)? else { return Err(Errno::NOENT) };
        Self::forget(&dir, inode)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(inside, inode.to_string(), flags, Mode::RUSR | Mode::WUSR)?;
        let file = File::from(file);
        let mut head = [0; ENTRIES_AT as usize];
        head[..8].copy_from_slice(MAGIC);
        head[8..16].copy_from_slice(&inode.to_le_bytes());
        head[16..24].copy_from_slice(&born_ns.unwrap_or(0).to_le_bytes());
        head[24..32].copy_from_slice(&unknown.to_le_bytes());
        if let Err(errno) = file.write_all_at(&head, 0).map_err(errno) {
            // A cut head is not whole, and made anew the next time; without it nothing is left over.
            let _ = Self::forget(&dir, inode);
            return Err(errno);
        }
        Ok(Journal { file, born_ns, unknown })
    }

    /// Bytes at the file's beginning of which nobody noted who wrote them. Journals of versions that did not count
    /// them say 0.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Forgets everything, for a file that is empty. The journal is not made anew, since others have it open.
    pub fn reset(&mut self) -> Result<(), Errno> {
        self.truncate(0)?;
        if self.progress()? != Progress::default() {
            self.set_progress(Progress::default())?;
        }
        Ok(())
    }

    /// Removes the journal of a file that is no more.
    pub fn forget(dir: impl AsFd, inode: u64) -> Result<(), Errno> {
        let Some(dir) = directory(dir, false)? else { return Ok(()) };
        for name in [inode.to_string(), format!("{inode}{GONE}")] {
            match fs::unlinkat(&dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Notes that the file of a journal is gone. It may come back: an operator has moved it away.
    pub fn file_is_gone(dir: impl AsFd, inode: u64) -> Result<(), Errno> {
        let Some(dir) = directory(dir, false)? else { return Ok(()) };
        match fs::renameat(&dir, inode.to_string(), &dir, format!("{inode}{GONE}")) {
            Err(Errno::NOENT) => Ok(()),
            result => result,
        }
    }

    /// Number of entries.
    pub fn len(&self) -> Result<u64, Errno> {
        let size = fs::fstat(&self.file)?.st_size as u64;
        Ok(size.saturating_sub(ENTRIES_AT) / ENTRY_LEN as u64)
    }

    /// Up to `most` entries from number `first` on.
    pub fn entries(&self, first: u64, most: usize) -> Result<Vec<Entry>, Errno> {
        let left = self.len()?.saturating_sub(first);
        let count = left.min(most as u64) as usize;
        let mut bytes = vec![0; count * ENTRY_LEN];
        let read = read_at(&self.file, &mut bytes, ENTRIES_AT + first * ENTRY_LEN as u64)?;
        let (whole, _) = bytes[..read].as_chunks::<ENTRY_LEN>();
        Ok(whole.iter().map(Entry::get).collect())
    }

    /// Number of the first entry for which `wanted` says so, when it says so for all after it as well.
    pub fn first_that(&self, wanted: impl Fn(&Entry) -> bool) -> Result<u64, Errno> {
        let (mut low, mut high) = (0, self.len()?);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entries(middle, 1)?.first() {
                Some(entry) if !wanted(entry) => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// Adds entries behind the others: all or none.
    pub fn append(&mut self, entries: impl Iterator<Item = Entry>) -> Result<(), Errno> {
        let mut bytes = Vec::with_capacity(entries.size_hint().0 * ENTRY_LEN);
        entries.for_each(|entry| entry.put(&mut bytes));
        let count = self.len()?;
        let result = self.file.write_all_at(&bytes, ENTRIES_AT + count * ENTRY_LEN as u64);
        if result.is_err() {
            self.truncate(count)?;
        }
        result.map_err(errno)
    }

    /// Takes back all entries but the first `count`.
    pub fn truncate(&self, count: u64) -> Result<(), Errno> {
        fs::ftruncate(&self.file, ENTRIES_AT + count * ENTRY_LEN as u64)
    }

    /// How far the file was replayed.
    pub fn progress(&self) -> Result<Progress, Errno> {
        Ok(self.newest()?.map_or(Progress::default(), |(_, progress)| progress))
    }

    fn newest(&self) -> Result<Option<(u64, Progress)>, Errno> {
        let mut newest = None;
        for at in PROGRESS_AT {
            let mut bytes = [0; PROGRESS_LEN];
            let whole = read_at(&self.file, &mut bytes, at)? == PROGRESS_LEN
                && crc32c::crc32c(&bytes[..PROGRESS_LEN - 4]) == u32_at(&bytes, PROGRESS_LEN - 4);
            let sequence = u64_at(&bytes, 0);
            if whole && newest.is_none_or(|(newest, _)| newest < sequence) {
                let progress = Progress {
                    own: u64_at(&bytes, 8),
                    others: u64_at(&bytes, 16),
                    before: u32_at(&bytes, 24),
                    inside_bad: u32_at(&bytes, 28) & INSIDE_BAD != 0,
                };
                newest = Some((sequence, progress));
            }
        }
        Ok(newest)
    }

    /// Notes how far the file was replayed.
    pub fn set_progress(&mut self, progress: Progress) -> Result<(), Errno> {
        let sequence = self.newest()?.map_or(0, |(sequence, _)| sequence) + 1;
        let mut bytes = Vec::with_capacity(PROGRESS_LEN);
        bytes.extend_from_slice(&sequence.to_le_bytes());
        bytes.extend_from_slice(&progress.own.to_le_bytes());
        bytes.extend_from_slice(&progress.others.to_le_bytes());
        bytes.extend_from_slice(&progress.before.to_le_bytes());
        bytes.extend_from_slice(&u32::from(progress.inside_bad).to_le_bytes());
        bytes.resize(PROGRESS_LEN - 4, 0);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        self.file.write_all_at(&bytes, PROGRESS_AT[(sequence % 2) as usize]).map_err(errno)
    }
}
