//! The file behind a queue: made whole before anyone can see it, locked by its owner for life, mapped into memory,
//! and removed by name when it is empty.

use super::directory::QueueDir;
use super::error::{QueueError, system};
use super::layout::{self, Areas, Identity, Names};
use super::mapping::{Format, Mapping};
use super::owner::Owner;
use super::segments::Division;
use crate::rename;
use crate::sys::files;
use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{self, Resource};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// Ending of a finished queue file's name.
pub const SUFFIX: &str = ".queue";
/// Ending while a file is being made.
pub const UNFINISHED_SUFFIX: &str = ".unfinished";

/// A queue file that this process has locked and mapped.
pub struct Queue {
    map: Arc<Mapping>,
    dir: Arc<QueueDir>,
    name: String,
}

impl Queue {
    /// Makes a queue file of `data_len` bytes (rounded up to segments). Its name begins with those of the owner, and
    /// `unique` tells it from the owner's other files. `created_ms` is the wall clock's time.
    pub fn create(
        dir: Arc<QueueDir>,
        owner: Owner<'_>,
        unique: &str,
        data_len: u64,
        created_ms: i64,
    ) -> Result<Queue, QueueError> {
        let mut queue = Self::create_unfinished(dir, owner, unique, data_len, created_ms)?;
        if let Err(error) = queue.finish() {
            // What is left is an empty file of our own making; failing to remove it loses nothing.
            let _ = queue.remove();
            return Err(error);
        }
        Ok(queue)
    }

    /// Makes a queue file that nobody adopts before it is [finished](Self::finish).
    pub fn create_unfinished(
        dir: Arc<QueueDir>,
        owner: Owner<'_>,
        unique: &str,
        data_len: u64,
        created_ms: i64,
    ) -> Result<Queue, QueueError> {
        if !owner.is_valid() {
            return Err(QueueError::InvalidName);
        }
        let division = Division::of_new(data_len.clamp(layout::MIN_DATA_LEN, layout::MAX_DATA_LEN));
        let bytes = Areas::of(division.data_len()).len as u64;
        if let Some(limit) = process::getrlimit(Resource::Fsize).current
            && limit < bytes
        {
            return Err(QueueError::FileSizeLimit { limit, bytes });
        }
        let name = format!("{}{SUFFIX}{UNFINISHED_SUFFIX}", owner.file_name(unique));
        let path = dir.path().join(&name);
        let file = make_locked(&dir, &name, &path)?;
        match fill(file, &path, division, owner, created_ms) {
            Ok(map) => {
                crate::crash_points::crash_point("queue unfinished");
                Ok(Queue { map: Arc::new(map), dir, name })
            }
            Err(error) => {
                // As above.
                let _ = fs::unlinkat(dir.fd(), &name, AtFlags::empty());
                Err(match error {
                    QueueError::System { errno, .. } if is_no_room(errno) => {
                        QueueError::NoRoom { path: dir.path().to_owned(), errno }
                    }
                    other => other,
                })
            }
        }
    }

    /// Gives an unfinished queue file the name under which it is found, unless another file has that.
    pub fn finish(&mut self) -> Result<(), QueueError> {
        let Some(name) = self.name.strip_suffix(UNFINISHED_SUFFIX) else { return Ok(()) };
        rename::to_new_name(self.dir.fd(), &self.name, name)
            .map_err(system("cannot rename", &self.path()))?;
        self.name = name.to_owned();
        crate::crash_points::crash_point("queue made");
        Ok(())
    }

    /// A file that was opened, locked, checked and mapped.
    pub(super) fn from_parts(map: Mapping, dir: Arc<QueueDir>, name: String) -> Queue {
        Queue { map: Arc::new(map), dir, name }
    }

    /// The mapped bytes.
    pub(super) fn map(&self) -> &Arc<Mapping> {
        &self.map
    }

    /// Records that are not done.
    pub fn waiting(&self) -> u64 {
        self.map.cursors().written().saturating_sub(self.map.cursors().done())
    }

    /// Position of the oldest record that is not done.
    pub fn head(&self) -> u64 {
        self.map.cursors().head()
    }

    /// Path of the file, for messages.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join(&self.name)
    }

    /// The directory it lies in.
    pub fn dir(&self) -> &Arc<QueueDir> {
        &self.dir
    }

    /// False when somebody removed the file: then nobody finds it who would go on with it.
    pub fn has_a_name(&self) -> bool {
        fs::fstat(self.map.file()).is_ok_and(|stat| stat.st_nlink > 0)
    }

    /// True while the file has the name by which it was opened.
    pub fn is_named(&self) -> bool {
        files::is_named(self.dir.fd(), self.map.file(), &self.name)
    }

    /// Gives the file a name under which nobody adopts it, for a person to look at.
    pub fn keep_aside(&self) -> Result<(), QueueError> {
        let aside = format!("{}.damaged", self.name);
        fs::renameat(self.dir.fd(), &self.name, self.dir.fd(), aside)
            .map_err(system("cannot rename", &self.path()))
    }

    /// Removes the file's name; the memory goes with the last end of the queue.
    pub fn remove(&self) -> Result<(), QueueError> {
        fs::unlinkat(self.dir.fd(), &self.name, AtFlags::empty())
            .map_err(system("cannot remove", &self.path()))
    }
}

impl Drop for Queue {
    /// Ends of the queue may keep the file open for longer, but only a queue keeps it locked.
    fn drop(&mut self) {
        // Refused it stays locked until the last end goes.
        let _ = fs::flock(self.map.file(), FlockOperation::Unlock);
    }
}

/// Whether there is no room for a file, or for so large a one.
pub(super) fn is_no_room(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::FBIG | Errno::DQUOT)
}

/// A new file that we have locked.
fn make_locked(dir: &QueueDir, name: &str, path: &Path) -> Result<OwnedFd, QueueError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        let file = fs::openat(dir.fd(), name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(system("cannot make", path))?;
        // Somebody who sweeps up may see the file before it is locked: then it is gone, and made anew.
        fs::flock(&file, FlockOperation::LockExclusive).map_err(system("cannot lock", path))?;
        let stat = fs::fstat(&file).map_err(system("cannot stat", path))?;
        if stat.st_nlink > 0 {
            return Ok(file);
        }
    }
}

/// Gives a new file its length, memory for what is touched before there is a record, and its header.
fn fill(
    file: OwnedFd,
    path: &Path,
    division: Division,
    owner: Owner<'_>,
    created_ms: i64,
) -> Result<Mapping, QueueError> {
    let areas = Areas::of(division.data_len());
    fs::ftruncate(&file, areas.len as u64).map_err(system("cannot set the length of", path))?;
    let map = Mapping::new(file, Format::V3, division).map_err(system("cannot map", path))?;
    let first_log = areas.log..areas.log + layout::FIRST_LOG_LEN;
    for range in [0..layout::TOPICS_OFFSET, layout::MAP_OFFSET..layout::DONE_OFFSET, first_log] {
        map.allocate(range).map_err(system("cannot allocate", path))?;
    }
    let identity = Identity {
        magic: layout::MAGIC,
        version: layout::VERSION,
        byte_order: layout::BYTE_ORDER,
        data_len: division.data_len(),
        data_offset: areas.data as u32,
        owner_pid: std::process::id(),
        created_ms,
        topics_used: AtomicU32::new(0),
        segment_len: division.segment_len() as u32,
        names: Names::of(owner),
    };
    // SAFETY: nobody else knows the file yet; offset 0 is inside the mapping and aligned.
    unsafe { map.base().cast::<Identity>().write(identity) };
    map.cursors().reset(0, 0);
    map.cursors().set_log_len(layout::FIRST_LOG_LEN as u64);
    Ok(map)
}
