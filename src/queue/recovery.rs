//! Finding and opening the queue files of workers that are gone.
//!
//! Decides only what a file's header can prove: that it is one of ours, of this version, whole, and that
//! its owner is dead. It does not guess: a file that fails here is left as it is for a person to look
//! at. The slots between `head` and `tail` are checked by the [reader](super::reader), one by one.

use super::file::{Mapping, Queue, QueueDir, QueueError, SUFFIX, UNFINISHED_SUFFIX, is_named};
use super::layout::{self, Identity};
use super::segments::{Division, MAP_ENTRIES};
use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Far behind any position that a writer gets to; no sum of one before it and what a slot or the map says goes beyond
/// 64 bits.
const LAST_POSITION: u64 = u64::MAX - (1 << 40);

/// Names of the queue files in `dir` that begin with `prefix`, in no order. Files that a dead process left
/// unfinished hold nothing and are removed on the way.
pub fn list(dir: &QueueDir, prefix: &str) -> Result<Vec<String>, QueueError> {
    let failed =
        |errno| QueueError::System { what: "cannot list", path: dir.path().to_owned(), errno };
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir.fd()).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if !name.starts_with(prefix) {
            continue;
        }
        if name.ends_with(SUFFIX) {
            names.push(name.to_owned());
        } else if name.ends_with(UNFINISHED_SUFFIX)
            && let Ok(_locked) = open_and_lock(dir, name)
        {
            // Unlinked while it is locked: a maker that waits for the lock sees that and starts anew.
            let _ = fs::unlinkat(dir.fd(), name, AtFlags::empty());
        }
    }
    Ok(names)
}

fn open_and_lock(dir: &QueueDir, name: &str) -> Result<OwnedFd, QueueError> {
    let path = dir.path().join(name);
    let system = |what: &'static str| {
        let path = path.clone();
        move |errno| QueueError::System { what, path, errno }
    };
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match fs::openat(dir.fd(), name, flags, Mode::empty()) {
        Ok(file) => file,
        // Its adopter removed it since we looked at the directory.
        Err(Errno::NOENT) => return Err(QueueError::InUse { path }),
        Err(errno) => return Err(system("cannot open")(errno)),
    };
    match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(QueueError::InUse { path }),
        Err(errno) => Err(system("cannot lock")(errno)),
    }
}

pub(super) fn open_orphan(dir: Arc<QueueDir>, name: &str) -> Result<Queue, QueueError> {
    let file = open_and_lock(&dir, name)?;
    let path = dir.path().join(name);
    let refuse = |reason| Err(QueueError::NotAQueue { path: path.clone(), reason });
    let stat = fs::fstat(&file).map_err(|errno| QueueError::System {
        what: "cannot stat",
        path: path.clone(),
        errno,
    })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return refuse("not a regular file");
    }
    if stat.st_uid != process::geteuid().as_raw() {
        return refuse("belongs to another user");
    }
    if !is_named(&dir, &file, name) {
        // Its adopter finished and removed it, or put it aside, between our look at the directory and the lock.
        return Err(QueueError::InUse { path });
    }
    if stat.st_nlink > 1 {
        return refuse("has a second name (hard link)");
    }
    let len = stat.st_size as u64;
    if len < layout::DATA_OFFSET as u64 + layout::MIN_DATA_LEN
        || len > layout::DATA_OFFSET as u64 + layout::MAX_DATA_LEN
    {
        return refuse("of a size no queue file has");
    }
    let Some(Identity { magic, version, byte_order, data_len, data_offset, segment_len, .. }) =
        identity(&file)
    else {
        return refuse("of a size no queue file has");
    };
    if magic != layout::MAGIC {
        return refuse("not a queue file (wrong magic)");
    }
    if byte_order != layout::BYTE_ORDER {
        return refuse("written on a machine of the other byte order");
    }
    if version != layout::VERSION {
        return refuse("of another version of lkfk");
    }
    if data_offset as usize != layout::DATA_OFFSET || data_len != len - layout::DATA_OFFSET as u64 {
        return refuse("damaged: its header disagrees with its size");
    }
    let Some(division) = Division::of_file(data_len, segment_len) else {
        return refuse("damaged: its segments are impossible");
    };
    let map = Mapping::new(&file, division).map_err(|errno| QueueError::System {
        what: "cannot map",
        path: path.clone(),
        errno,
    })?;
    let (head, tail) = (map.cursors().head(), map.cursors().tail());
    let apart = division.number(tail).saturating_sub(division.number(head));
    if head > tail
        || tail > LAST_POSITION
        || apart >= MAP_ENTRIES as u64
        || !head.is_multiple_of(8)
        || !tail.is_multiple_of(8)
    {
        return refuse("damaged: its cursors are impossible");
    }
    Ok(Queue::from_parts(map, file, dir, name.to_owned()))
}

/// A copy of the identity block, which nobody changes between our checks; `None` when the file is shorter.
fn identity(file: &OwnedFd) -> Option<Identity> {
    let mut bytes = [0u8; size_of::<Identity>()];
    if rustix::io::pread(file, &mut bytes, 0) != Ok(bytes.len()) {
        return None;
    }
    // SAFETY: as many bytes as an Identity has, for which any bytes are valid.
    Some(unsafe { bytes.as_ptr().cast::<Identity>().read_unaligned() })
}
