//! The file behind a queue: made whole before anyone can see it, locked by its owner for life, mapped into memory,
//! and removed by name when it is empty. Where there is no place that is fit for one the queue is memory without a
//! name.

use super::copy;
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
use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// Ending of a finished queue file's name.
pub const SUFFIX: &str = ".queue";
/// Ending while a file is being made.
pub const UNFINISHED_SUFFIX: &str = ".unfinished";
/// In place of the path of a queue that has no file.
const ANONYMOUS: &str = "(memory)";

/// A queue that this process has mapped. Its file, if it has one, is locked.
pub struct Queue {
    map: Arc<Mapping>,
    dir: Arc<QueueDir>,
    place: Place,
}

/// Where the file of a queue lies.
enum Place {
    /// In the directory, by this name. It is mapped itself.
    Mapped(String),
    /// In the directory, by this name. What is mapped is a copy in memory.
    Copied(String, OwnedFd),
    /// Nowhere: the queue is memory without a name, which goes with this process.
    Anonymous,
}

impl Queue {
    /// Makes a queue file of `data_len` bytes (rounded up to segments). Its name begins with those of the owner, and
    /// `unique` tells it from the owner's other files. `created_ms` is the wall clock's time. Refused where the
    /// [file system](super::file_system) is not fit for it.
    pub fn create(
        dir: Arc<QueueDir>,
        owner: Owner<'_>,
        unique: &str,
        data_len: u64,
        created_ms: i64,
    ) -> Result<Queue, QueueError> {
        let division = checked_division(owner, data_len)?;
        if !dir.file_system().is_fit() {
            let (path, file_system) = (dir.path().to_owned(), dir.file_system());
            return Err(QueueError::UnfitFileSystem { path, file_system });
        }
        let name = format!("{}{SUFFIX}", owner.file_name(unique));
        let unfinished = format!("{name}{UNFINISHED_SUFFIX}");
        let path = dir.path().join(&unfinished);
        let file = make_locked(&dir, &unfinished, &path)?;
        let made = fill(file, &path, division, owner, created_ms).and_then(|map| {
            crate::crash_points::crash_point("queue unfinished");
            // Unless another file has that name.
            rename::to_new_name(dir.fd(), &unfinished, &name)
                .map_err(system("cannot rename", &path))?;
            crate::crash_points::crash_point("queue made");
            Ok(map)
        });
        match made {
            Ok(map) => Ok(Queue { map: Arc::new(map), dir, place: Place::Mapped(name) }),
            Err(error) => {
                // What is left is an empty file of our own making; failing to remove it loses nothing.
                let _ = fs::unlinkat(dir.fd(), &unfinished, AtFlags::empty());
                Err(match error {
                    QueueError::System { errno, .. } if is_no_room(errno) => {
                        QueueError::NoRoom { path: dir.path().to_owned(), errno }
                    }
                    other => other,
                })
            }
        }
    }

    /// Makes a queue in memory without a name, which nobody can adopt. `dir` is where it would lie.
    pub fn anonymous(
        dir: Arc<QueueDir>,
        owner: Owner<'_>,
        data_len: u64,
        created_ms: i64,
    ) -> Result<Queue, QueueError> {
        let division = checked_division(owner, data_len)?;
        let path = PathBuf::from(ANONYMOUS);
        let file = copy::anonymous(0).map_err(system("cannot make", &path))?;
        let map = fill(file, &path, division, owner, created_ms)?;
        Ok(Queue { map: Arc::new(map), dir, place: Place::Anonymous })
    }

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
        let to = make_locked(dir, &unfinished, &path)?;
        let written = self.write_into(&to).map_err(|errno| match errno {
            _ if is_no_room(errno) => QueueError::NoRoom { path: dir.path().to_owned(), errno },
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
        let len = self.map.len() as u64;
        fs::ftruncate(to, len)?;
        copy::copy(self.map.file(), to, len)?;
        // Some file systems find only then that there is no room.
        fs::fsync(to)
    }

    /// A file that was opened, locked, checked and mapped. `original` is the file when a copy of it is mapped.
    pub(super) fn from_parts(
        map: Mapping,
        dir: Arc<QueueDir>,
        name: String,
        original: Option<OwnedFd>,
    ) -> Queue {
        let place = match original {
            None => Place::Mapped(name),
            Some(file) => Place::Copied(name, file),
        };
        Queue { map: Arc::new(map), dir, place }
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

    fn name(&self) -> Option<&str> {
        match &self.place {
            Place::Mapped(name) | Place::Copied(name, _) => Some(name),
            Place::Anonymous => None,
        }
    }

    /// What is locked.
    fn file(&self) -> &OwnedFd {
        match &self.place {
            Place::Copied(_, file) => file,
            Place::Mapped(_) | Place::Anonymous => self.map.file(),
        }
    }

    /// Path of the file, for messages. Of a queue that has none something that says so.
    pub fn path(&self) -> PathBuf {
        self.name().map_or_else(|| PathBuf::from(ANONYMOUS), |name| self.dir.path().join(name))
    }

    /// The directory it lies in, or would lie in.
    pub fn dir(&self) -> &Arc<QueueDir> {
        &self.dir
    }

    /// Whether it has no file: what waits in it goes with this process.
    pub fn is_anonymous(&self) -> bool {
        matches!(self.place, Place::Anonymous)
    }

    /// Whether whatever is marked in it is marked in a file below `dir` that the next worker finds.
    pub fn is_mapped_in(&self, dir: &Path) -> bool {
        let is_mapped = matches!(self.place, Place::Mapped(_));
        is_mapped && self.dir.path() == dir && self.has_a_name()
    }

    /// What becomes of messages in it that nobody saves, for log lines: they are ...
    pub fn fate(&self) -> impl Display {
        match self.is_anonymous() {
            true => {
                "lost, since the queue has no file: see the warning about queue_path".to_owned()
            }
            false => format!("left in {}", self.path().display()),
        }
    }

    /// False when somebody removed the file: then nobody finds it who would go on with it.
    pub fn has_a_name(&self) -> bool {
        fs::fstat(self.file()).is_ok_and(|stat| stat.st_nlink > 0)
    }

    /// True while the file has the name by which it was opened.
    pub fn is_named(&self) -> bool {
        self.name().is_some_and(|name| files::is_named(self.dir.fd(), self.file(), name))
    }

    /// Gives the file a name under which nobody adopts it, for a person to look at.
    pub fn keep_aside(&self) -> Result<(), QueueError> {
        let Some(name) = self.name() else { return Ok(()) };
        let aside = format!("{name}.damaged");
        fs::renameat(self.dir.fd(), name, self.dir.fd(), aside)
            .map_err(system("cannot rename", &self.path()))
    }

    /// Removes the file's name; the memory goes with the last end of the queue.
    pub fn remove(&self) -> Result<(), QueueError> {
        let Some(name) = self.name() else { return Ok(()) };
        fs::unlinkat(self.dir.fd(), name, AtFlags::empty())
            .map_err(system("cannot remove", &self.path()))
    }
}

impl Drop for Queue {
    /// Ends of the queue may keep the file open for longer, but only a queue keeps it locked.
    fn drop(&mut self) {
        // Refused it stays locked until the last end goes.
        let _ = fs::flock(self.file(), FlockOperation::Unlock);
    }
}

/// Whether there is no room for a file, or for so large a one.
pub(super) fn is_no_room(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::FBIG | Errno::DQUOT)
}

/// How a queue of `data_len` bytes of `owner`'s is divided, if there may be one.
fn checked_division(owner: Owner<'_>, data_len: u64) -> Result<Division, QueueError> {
    if !owner.is_valid() {
        return Err(QueueError::InvalidName);
    }
    let division = Division::of_new(data_len.clamp(layout::MIN_DATA_LEN, layout::MAX_DATA_LEN));
    let bytes = Areas::of(division.data_len()).len as u64;
    match process::getrlimit(Resource::Fsize).current {
        Some(limit) if limit < bytes => Err(QueueError::FileSizeLimit { limit, bytes }),
        _ => Ok(division),
    }
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
