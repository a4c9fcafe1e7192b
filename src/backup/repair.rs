//! Putting a backup file right: what a writer that was killed left half done, what replay cannot send, and what a disk
//! took only a part of. The file is locked.
//!
//! Half a line of lkfk's, which the queue still has whole, goes to `TOPIC~bad`, and so do the bytes that replay sets
//! aside. Nothing is cut off a file before it stands there.

use super::dir::{BackupError, Directory, Locked};
use super::journal::Journal;
use super::names::{self, Kind};
use crate::sys::files::{errno, read_at};
use rustix::fs;
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::io::Write;

/// Bytes that are looked at or copied at a time.
const PIECE: usize = 64 * 1024;

/// Puts right what a writer that was killed left half done; returns the file's size. The file is locked.
pub(super) fn repair(
    dir: &Directory,
    name: &str,
    file: &File,
    journal: Option<&mut Journal>,
) -> Result<u64, BackupError> {
    let size = fs::fstat(file).map_err(dir.error("cannot stat", name))?.st_size as u64;
    let Some(journal) = journal else { return Ok(size) };
    let error = dir.error("cannot read the journal of", name);
    if size == 0 {
        // What an earlier file with this number left says nothing of this one.
        journal.reset().map_err(&error)?;
        return Ok(size);
    }
    let claimed = journal.first_that(|entry| entry.end() > size).map_err(&error)?;
    let Some(first) = journal.entries(claimed, 1).map_err(&error)?.first().copied() else {
        return Ok(size);
    };
    let mut end = size;
    // More than half a line is not what a killed writer leaves: then it is the journal that is damaged.
    if first.offset < size
        && !has_line_feed(file, first.offset, size).map_err(dir.error("cannot read", name))?
    {
        // The queue has the line still, or the operator cut the file: it is kept, not replayed.
        set_aside(dir, name, file, first.offset, size - first.offset)?;
        retry_on_intr(|| fs::ftruncate(file, first.offset))
            .map_err(dir.error("cannot cut", name))?;
        end = first.offset;
    }
    journal.truncate(claimed).map_err(dir.error("cannot cut the journal of", name))?;
    Ok(end)
}

/// Whether the last line of a file of `size` bytes has no line feed.
pub(super) fn ends_within_a_line(file: &File, size: u64) -> Result<bool, Errno> {
    let mut last = [b'\n'];
    if size > 0 {
        read_at(file, &mut last, size - 1)?;
    }
    Ok(last != *b"\n")
}

/// Whether there is a line feed from `from` on.
fn has_line_feed(file: &File, from: u64, size: u64) -> Result<bool, Errno> {
    let mut piece = vec![0; PIECE.min((size - from) as usize)];
    let mut at = from;
    while at < size {
        let read = read_at(file, &mut piece, at)?;
        if read == 0 {
            break;
        }
        if piece[..read].contains(&b'\n') {
            return Ok(true);
        }
        at += read as u64;
    }
    Ok(false)
}

/// Copies a stretch of a file to the end of its topic's `~bad` file, as lines of their own: what stands there already
/// may have no line feed at its end, since a copy that was killed left a part of a line, or an editor none.
pub(super) fn set_aside(
    dir: &Directory,
    name: &str,
    file: &File,
    from: u64,
    len: u64,
) -> Result<(), BackupError> {
    let bad = names::parse(name).and_then(|(topic, _)| names::name(topic, Kind::Bad));
    let bad = bad.ok_or_else(|| dir.error("cannot name", name)(Errno::NAMETOOLONG))?;
    let Some(to) = dir.open_file(&bad, true)? else {
        return Err(dir.error("cannot make", &bad)(Errno::NOENT));
    };
    let _locked = Locked::wait(&to).map_err(dir.error("cannot lock", &bad))?;
    let before = fs::fstat(&to).map_err(dir.error("cannot stat", &bad))?.st_size as u64;
    let mut piece = vec![0; PIECE.min(len as usize)];
    let mut at = from;
    let mut last = b'\n';
    let mut copy = || -> Result<(), Errno> {
        if ends_within_a_line(&to, before)? {
            (&to).write_all(b"\n").map_err(errno)?;
        }
        while at < from + len {
            let want = (from + len - at).min(piece.len() as u64) as usize;
            let read = read_at(file, &mut piece[..want], at)?;
            if read == 0 {
                break;
            }
            (&to).write_all(&piece[..read]).map_err(errno)?;
            last = piece[read - 1];
            at += read as u64;
        }
        if last == b'\n' { Ok(()) } else { (&to).write_all(b"\n").map_err(errno) }
    };
    copy().map_err(|errno| dir.error("cannot append to", &bad)(cut_back(&to, before, errno)))
}

/// Cuts a file back to `len` after an append failed for the reason `errno`; returns what is worse.
pub(super) fn cut_back(file: &File, len: u64, errno: Errno) -> Errno {
    match retry_on_intr(|| fs::ftruncate(file, len)) {
        Ok(()) => errno,
        // Worse than the failed write: the file may end in the middle of a line.
        Err(worse) => worse,
    }
}
