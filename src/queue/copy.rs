//! Memory without a name, and copies of files to and from it that are read and written rather than mapped, so that the
//! files may lie on any file system. A worker that exits writes such a file for the next worker; one that lies where
//! none is [mapped](super::file_system) is read into memory before it is adopted.

use rustix::fs::{self, MemfdFlags, SeekFrom};
use rustix::io::{self, Errno};
use std::ops::Range;
use std::os::fd::OwnedFd;

/// Memory of `len` bytes that is a file to whoever has its descriptor, and has no name.
pub(super) fn anonymous(len: u64) -> Result<OwnedFd, Errno> {
    let file = fs::memfd_create("lkfk-queue", MemfdFlags::CLOEXEC)?;
    fs::ftruncate(&file, len)?;
    Ok(file)
}

/// Copies what `from`, of `len` bytes, holds to `to`, which has that length and holds nothing. Holes stay holes, and
/// so do pages of zeros.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd, len: u64) -> Result<(), Errno> {
    let mut at = 0;
    while let Some(range) = next_data(from, at, len)? {
        copy_range(from, to, range.clone())?;
        at = range.end;
    }
    Ok(())
}

/// The next stretch from `at` on that is no hole.
fn next_data(file: &OwnedFd, at: u64, len: u64) -> Result<Option<Range<u64>>, Errno> {
    if at >= len {
        return Ok(None);
    }
    let start = match fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // It cannot tell: all may be data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(at..len)),
        Err(errno) => return Err(errno),
    };
    let end = fs::seek(file, SeekFrom::Hole(start))?;
    Ok((start < len).then_some(start..end.min(len)))
}

fn copy_range(from: &OwnedFd, to: &OwnedFd, range: Range<u64>) -> Result<(), Errno> {
    const PAGE: usize = super::layout::PAGE;
    let mut buffer = [0; 16 * PAGE];
    let mut at = range.start;
    while at < range.end {
        let most = buffer.len().min((range.end - at) as usize);
        let count = io::retry_on_intr(|| io::pread(from, &mut buffer[..most], at))?;
        if count == 0 {
            // Somebody cut it.
            return Err(Errno::IO);
        }
        for (page, offset) in buffer[..count].chunks(PAGE).zip((at..).step_by(PAGE)) {
            if page.iter().any(|byte| *byte != 0) {
                write_all(to, page, offset)?;
            }
        }
        at += count as u64;
    }
    Ok(())
}

fn write_all(to: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match io::retry_on_intr(|| io::pwrite(to, bytes, at))? {
            0 => return Err(Errno::NOSPC),
            count => (bytes, at) = (&bytes[count..], at + count as u64),
        }
    }
    Ok(())
}
