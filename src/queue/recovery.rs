//! Finding and opening the queue files of workers that are gone.
//!
//! Decides only what a file's header can prove: that it is one of ours, of a version that we read, whole, whom it
//! belongs to, and that its owner is dead. It does not guess: a file that fails here is left as it is for a person to
//! look at. The slots between `head` and `tail` are checked by the [reader](super::reader), one by one.

use super::copy;
use super::directory::QueueDir;
use super::error::{QueueError, system};
use super::file::{Queue, SUFFIX, UNFINISHED_SUFFIX, is_no_room};
use super::layout::{self, Identity, v2};
use super::mapping::{Format, Mapping};
use super::owner::Owner;
use super::segments::{Division, MAP_ENTRIES};
use crate::sys::files;
use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Far behind any position that a writer gets to; no sum of one before it and what a slot or the map says goes beyond
/// 64 bits.
const LAST_POSITION: u64 = u64::MAX - (1 << 40);

/// Names of the queue files in `dir` that may be those of `instance`, of whatever producer, in no order. Files that a
/// dead process left unfinished hold nothing and are removed on the way.
pub fn list(dir: &QueueDir, instance: &str) -> Result<Vec<String>, QueueError> {
    let failed = |errno| system("cannot list", dir.path())(errno);
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir.fd()).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name.strip_prefix(instance).is_none_or(|rest| !rest.starts_with('-')) {
            continue;
        }
        if name.ends_with(SUFFIX) {
            names.push(name.to_owned());
        } else if name.ends_with(UNFINISHED_SUFFIX)
            && let Ok(file) = open(dir, name)
            && lock(dir, &file, name).is_ok()
        {
            // Unlinked while it is locked: a maker that waits for the lock sees that and starts anew.
            let _ = fs::unlinkat(dir.fd(), name, AtFlags::empty());
        }
    }
    Ok(names)
}

/// Opens a finished queue file of `owner`'s whose maker is gone: takes its lock and checks what its header claims. The
/// slots are checked one by one as they are read. Where files are not [mapped](super::file_system) it is read into
/// memory: what is marked there is lost with this process, and whoever adopts the file then repeats all of it.
pub fn adopt(dir: Arc<QueueDir>, name: &str, owner: Owner<'_>) -> Result<Queue, QueueError> {
    let file = open(&dir, name)?;
    let path = dir.path().join(name);
    let refuse = |reason| QueueError::NotAQueue { path: path.clone(), reason };
    // Not locked yet: whoever it belongs to must not find it in use.
    if let Some(identity) = identity(&file)
        && let Ok(format) = format(&identity)
        && is_of_another(&identity, format, name, owner)
    {
        return Err(QueueError::OfAnotherOwner { path });
    }
    lock(&dir, &file, name)?;
    let stat = fs::fstat(&file).map_err(system("cannot stat", &path))?;
    files::check_own(&stat).map_err(refuse)?;
    if !files::is_named(dir.fd(), &file, name) {
        // Its adopter finished and removed it, or put it aside, between our look at the directory and the lock.
        return Err(QueueError::InUse { path });
    }
    let identity = identity(&file).ok_or_else(|| refuse("of a size no queue file has"))?;
    let format = format(&identity).map_err(refuse)?;
    if is_of_another(&identity, format, name, owner) {
        return Err(QueueError::OfAnotherOwner { path });
    }
    let division = division(&identity, format, stat.st_size as u64).map_err(refuse)?;
    let (file, original) = if dir.file_system().is_fit() {
        (file, None)
    } else {
        let len = stat.st_size as u64;
        let memory = copy::anonymous(len).map_err(system("cannot make memory for", &path))?;
        copy::copy(&file, &memory, len).map_err(system("cannot read", &path))?;
        (memory, Some(file))
    };
    let map = Mapping::new(file, format, division).map_err(system("cannot map", &path))?;
    check_cursors(&map).map_err(refuse)?;
    match map.keep_used_allocated() {
        // Where memory cannot be asked for it cannot be missing either, as far as we know.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(errno) if is_no_room(errno) => {
            return Err(QueueError::NoRoom { path: dir.path().to_owned(), errno });
        }
        Err(errno) => return Err(system("cannot allocate", &path)(errno)),
    }
    Ok(Queue::from_parts(map, dir, name.to_owned(), original))
}

fn open(dir: &QueueDir, name: &str) -> Result<OwnedFd, QueueError> {
    let path = dir.path().join(name);
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match fs::openat(dir.fd(), name, flags, Mode::empty()) {
        Ok(file) => Ok(file),
        // Its adopter removed it since we looked at the directory.
        Err(Errno::NOENT) => Err(QueueError::InUse { path }),
        Err(errno) => Err(system("cannot open", &path)(errno)),
    }
}

fn lock(dir: &QueueDir, file: &OwnedFd, name: &str) -> Result<(), QueueError> {
    let path = dir.path().join(name);
    match fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(QueueError::InUse { path }),
        Err(errno) => Err(system("cannot lock", &path)(errno)),
    }
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

fn format(identity: &Identity) -> Result<Format, &'static str> {
    if identity.magic != layout::MAGIC {
        return Err("not a queue file (wrong magic)");
    }
    if identity.byte_order != layout::BYTE_ORDER {
        return Err("written on a machine of the other byte order");
    }
    match identity.version {
        layout::VERSION => Ok(Format::V3),
        v2::VERSION => Ok(Format::V2),
        _ => Err("of another version of lkfk"),
    }
}

/// Whether the file, with this name, belongs to somebody else than `owner`.
fn is_of_another(identity: &Identity, format: Format, name: &str, owner: Owner<'_>) -> bool {
    match format {
        Format::V2 => !owner.owns_version_2(name),
        // Names that are damaged are nobody's.
        Format::V3 => identity.names.owner() != Some(owner),
    }
}

fn division(identity: &Identity, format: Format, len: u64) -> Result<Division, &'static str> {
    let Identity { data_len, data_offset, segment_len, .. } = *identity;
    if !(layout::MIN_DATA_LEN..=layout::MAX_DATA_LEN).contains(&data_len) {
        return Err("damaged: its header disagrees with its size");
    }
    let expected = format.data_offset(data_len) as u64;
    if u64::from(data_offset) != expected || len != expected + data_len {
        return Err("damaged: its header disagrees with its size");
    }
    Division::of_file(data_len, segment_len).ok_or("damaged: its segments are impossible")
}

fn check_cursors(map: &Mapping) -> Result<(), &'static str> {
    let (head, tail) = (map.cursors().head(), map.cursors().tail());
    let (written, done) = (map.cursors().written(), map.cursors().done());
    let division = map.division();
    let apart = division.number(tail).saturating_sub(division.number(head));
    let granule = map.format().granule();
    let is_possible = head <= tail
        && tail <= LAST_POSITION
        && written <= LAST_POSITION
        && done <= LAST_POSITION
        && apart < MAP_ENTRIES as u64
        && head.is_multiple_of(granule)
        && tail.is_multiple_of(granule);
    is_possible.then_some(()).ok_or("damaged: its cursors are impossible")
}
