//! Queues in memory without a name, and copies of queue files that are read and written rather than mapped, so that
//! they may lie on any file system. A worker that exits writes one for the next worker; a file that lies where none is
//! [mapped](super::file_system) is read into memory before it is adopted.

use super::directory::QueueDir;
use super::error::{QueueError, system};
use super::file::{self, Queue, SUFFIX, UNFINISHED_SUFFIX};
use super::owner::Owner;
use crate::rename;
use rustix::fs::{self, AtFlags, MemfdFlags, SeekFrom};
use rustix::io::{self, Errno};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

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

impl Queue {
    /// Writes the queue, which neither end uses meanwhile, to a new file in `dir`, for whoever of `owner`'s adopts it,
    /// and sees it on the disk. Returns its path. What could not be written whole is removed.
    pub fn write_to(
        &self,
        dir: &QueueDir,
        owner: Owner<'_>,
        unique: &str,
    ) -> Result<PathBuf, QueueError> {
        let name = format!("{}{SUFFIX}", owner.file_name(unique));
        let unfinished = format!("{name}{UNFINISHED_SUFFIX}");
        let path = dir.path().join(&name);
        let to = file::make_locked(dir, &unfinished, &path)?;
        let written = self.write_into(&to).map_err(|errno| match errno {
            _ if file::is_no_room(errno) => {
                QueueError::NoRoom { path: dir.path().to_owned(), errno }
            }
            _ => system("cannot write", &path)(errno),
        });
        let named = written.and_then(|()| {
            crate::crash_points::crash_point("queue to be carried over");
            rename::to_new_name(dir.fd(), &unfinished, &name)
                .map_err(system("cannot rename", &path))
        });
        if named.is_err() {
            // An empty or half a file of our own making, which nobody adopts; the next look removes it otherwise.
            let _ = fs::unlinkat(dir.fd(), &unfinished, AtFlags::empty());
        }
        named.map(|()| path)
    }

    fn write_into(&self, to: &OwnedFd) -> Result<(), Errno> {
        let len = self.map().len() as u64;
        fs::ftruncate(to, len)?;
        copy(self.map().file(), to, len)?;
        // Some file systems find only then that there is no room.
        fs::fsync(to)
    }
}
