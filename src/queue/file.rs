//! The file behind a queue: made whole before anyone can see it, locked by its owner for life, mapped
//! into memory, and removed by name when it is empty.
//!
//! The directory `lkfk-UID` is ours alone (0700, owned by the effective user) and every file is opened
//! relative to its descriptor without following links, so that nobody else can put a file in our way.
//! Space is allocated before the mapping is used: a full file system is an error here, not a SIGBUS in
//! `log()`.

use super::barrier::Barrier;
use super::cursors::Cursors;
use super::layout::{self, Identity};
use super::reader::Reader;
use super::segments::{Division, MAP_ENTRIES};
use super::writer::Writer;
use crate::rename;
use rustix::fs::{self, AtFlags, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{self, MapFlags, ProtFlags};
use rustix::process::{self, Resource};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// Ending of a finished queue file's name.
pub const SUFFIX: &str = ".queue";
/// Ending while a file is being made.
pub const UNFINISHED_SUFFIX: &str = ".unfinished";

/// Why a queue file could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The system refused.
    #[error("{what} {}: {errno}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The refusal.
        errno: Errno,
    },
    /// No room for the whole file.
    #[error("{}: no room for a queue of {bytes} bytes ({errno}); lower queue_buffering_max_kbytes or set queue_path", path.display())]
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// Bytes asked for.
        bytes: u64,
        /// ENOSPC, EFBIG or the like.
        errno: Errno,
    },
    /// `ulimit -f` would kill the process.
    #[error(
        "the file size limit of this process (ulimit -f, {limit} bytes) is below the queue's {bytes} bytes"
    )]
    FileSizeLimit {
        /// Soft limit.
        limit: u64,
        /// Bytes asked for.
        bytes: u64,
    },
    /// The directory is not ours alone.
    #[error("{}: {reason}", path.display())]
    UnsafeDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file is not one that this version can read.
    #[error("{}: {reason}", path.display())]
    NotAQueue {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file belongs to a live process.
    #[error("{}: its owner is alive", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
}

fn system(what: &'static str, path: &Path) -> impl FnOnce(Errno) -> QueueError {
    let path = path.to_owned();
    move |errno| QueueError::System { what, path, errno }
}

/// The mapped bytes of a queue file.
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    division: Division,
    barrier: Barrier,
}

// SAFETY: the mapping is plain memory that stays mapped until the last Arc is dropped; who may access
// which part of it is the business of Writer and Reader (see the invariants in `queue`).
unsafe impl Send for Mapping {}
// SAFETY: as above; what both ends share through `&Mapping` are atomics.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a file that is as long as its header and the data area.
    pub(super) fn new(file: impl AsFd, division: Division) -> Result<Mapping, Errno> {
        let len = layout::DATA_OFFSET + division.data_len() as usize;
        // SAFETY: a fresh shared mapping at an address the kernel chooses overlaps nothing of ours.
        let base = unsafe {
            mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )?
        };
        // A child of fork (a user's io.popen, say) must not write to its parent's queue. Kernels and
        // sandboxes that cannot do this leave us as we are.
        // SAFETY: the range is the mapping just made; the advice does not change its contents.
        let _ = unsafe { mm::madvise(base, len, mm::Advice::LinuxDontFork) };
        let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        Ok(Mapping { base, len, division, barrier: Barrier::detect() })
    }

    pub(super) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Start of the data area.
    pub(super) fn data(&self) -> *mut u8 {
        // SAFETY: the mapping is longer than DATA_OFFSET (create and open see to that).
        unsafe { self.base().add(layout::DATA_OFFSET) }
    }

    pub(super) fn division(&self) -> Division {
        self.division
    }

    /// The segment map. What it says is to be checked.
    #[inline]
    pub(super) fn segments(&self) -> &[AtomicU32; MAP_ENTRIES] {
        // SAFETY: the map lies inside the mapping, page-aligned; any bytes are valid atomics.
        unsafe { &*self.base().add(layout::MAP_OFFSET).cast() }
    }

    /// For each place whether the reader has given it back.
    pub(super) fn returned(&self) -> &[AtomicU32] {
        // SAFETY: the marks lie inside the mapping, page-aligned, MAX_SEGMENTS of them, which no division
        // exceeds; any bytes are valid atomics.
        unsafe {
            let marks = self.base().add(layout::RETURNED_OFFSET).cast();
            std::slice::from_raw_parts(marks, self.division.count() as usize)
        }
    }

    /// How the two ends in this process fence.
    pub(super) fn barrier(&self) -> Barrier {
        self.barrier
    }

    /// The identity block. Callers touch only its atomics once the file is shared.
    pub(super) fn identity(&self) -> &Identity {
        // SAFETY: offset 0 is aligned and inside the mapping; any bytes are a valid Identity, and its
        // plain fields are not written after the file got its name.
        unsafe { &*self.base().cast::<Identity>() }
    }

    pub(super) fn cursors(&self) -> &Cursors {
        // SAFETY: the offset is a multiple of 128 on a page-aligned mapping and inside it; Cursors
        // consists of atomics, for which any bytes are valid.
        unsafe { &*self.base().add(layout::CURSORS_OFFSET).cast::<Cursors>() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the last owner goes, so no reference into the mapping is left.
        let _ = unsafe { mm::munmap(self.base().cast(), self.len) };
    }
}

/// A directory of queue files that only this user can enter.
pub struct QueueDir {
    fd: OwnedFd,
    path: PathBuf,
}

impl QueueDir {
    /// Opens `parent/lkfk-UID`, making it when missing. Refuses a directory that others own or can
    /// enter, and a link in its place.
    pub fn open(parent: &Path) -> Result<QueueDir, QueueError> {
        let uid = process::geteuid();
        let path = Self::path_below(parent);
        match fs::mkdir(&path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(system("cannot make directory", &path)(errno)),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let fd = fs::open(&path, flags, Mode::empty())
            .map_err(system("cannot open directory", &path))?;
        let stat = fs::fstat(&fd).map_err(system("cannot stat", &path))?;
        let refuse = |reason| Err(QueueError::UnsafeDirectory { path: path.clone(), reason });
        if stat.st_uid != uid.as_raw() {
            return refuse("belongs to another user");
        }
        if stat.st_mode & 0o077 != 0 {
            return refuse("is open to other users; its mode must be 0700");
        }
        Ok(QueueDir { fd, path })
    }

    /// Where the directory of this user lies below `parent`.
    pub fn path_below(parent: &Path) -> PathBuf {
        parent.join(format!("lkfk-{}", process::geteuid().as_raw()))
    }

    /// Path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

/// A queue file that this process has locked and mapped.
pub struct Queue {
    pub(super) map: Arc<Mapping>,
    dir: Arc<QueueDir>,
    name: String,
    /// Keeps the lock for as long as the queue is open.
    lock: OwnedFd,
}

impl Queue {
    /// Makes a queue file of `data_len` bytes (rounded up to segments) named `name` + [`SUFFIX`]. `created_ms`
    /// is the wall clock's time.
    pub fn create(
        dir: Arc<QueueDir>,
        name: &str,
        data_len: u64,
        created_ms: i64,
    ) -> Result<Queue, QueueError> {
        let mut queue = Queue::create_unfinished(dir, name, data_len, created_ms)?;
        if let Err(error) = queue.finish() {
            // Nothing is in it yet; a name that cannot be removed is swept up by the next worker.
            let _ = queue.remove();
            return Err(error);
        }
        Ok(queue)
    }

    /// Makes a queue file that nobody adopts before it is [finished](Self::finish).
    pub fn create_unfinished(
        dir: Arc<QueueDir>,
        name: &str,
        data_len: u64,
        created_ms: i64,
    ) -> Result<Queue, QueueError> {
        let data_len = data_len.clamp(layout::MIN_DATA_LEN, layout::MAX_DATA_LEN);
        let division = Division::of_new(data_len);
        let len = layout::DATA_OFFSET as u64 + division.data_len();
        if let Some(limit) = process::getrlimit(Resource::Fsize).current
            && limit < len
        {
            return Err(QueueError::FileSizeLimit { limit, bytes: len });
        }
        let name = format!("{name}{SUFFIX}{UNFINISHED_SUFFIX}");
        let path = dir.path.join(&name);
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = loop {
            let file = fs::openat(&dir.fd, &name, flags, Mode::RUSR | Mode::WUSR)
                .map_err(system("cannot make", &path))?;
            // Somebody who sweeps up may see the file before it is locked: then it is gone, and made anew.
            fs::flock(&file, FlockOperation::LockExclusive)
                .map_err(system("cannot lock", &path))?;
            let stat = fs::fstat(&file).map_err(system("cannot stat", &path))?;
            if stat.st_nlink > 0 {
                break file;
            }
        };
        match Self::fill(&file, &path, division, created_ms) {
            Ok(map) => {
                crate::crash_points::crash_point("queue unfinished");
                Ok(Queue { map: Arc::new(map), dir, name, lock: file })
            }
            Err(err) => {
                // What is left is an empty name of our own making; failing to remove it loses nothing.
                let _ = fs::unlinkat(&dir.fd, &name, AtFlags::empty());
                Err(match err {
                    QueueError::System { errno, .. }
                        if matches!(errno, Errno::NOSPC | Errno::FBIG | Errno::DQUOT) =>
                    {
                        QueueError::NoRoom { path: dir.path.clone(), bytes: len, errno }
                    }
                    other => other,
                })
            }
        }
    }

    /// Gives an unfinished queue file the name under which it is found, unless another file has that.
    pub fn finish(&mut self) -> Result<(), QueueError> {
        let Some(name) = self.name.strip_suffix(UNFINISHED_SUFFIX) else { return Ok(()) };
        rename::to_new_name(&self.dir.fd, &self.name, name)
            .map_err(system("cannot rename", &self.path()))?;
        self.name = name.to_owned();
        crate::crash_points::crash_point("queue made");
        Ok(())
    }

    fn fill(
        file: &OwnedFd,
        path: &Path,
        division: Division,
        created_ms: i64,
    ) -> Result<Mapping, QueueError> {
        let len = layout::DATA_OFFSET as u64 + division.data_len();
        allocate(file, len).map_err(system("cannot allocate", path))?;
        let map = Mapping::new(file, division).map_err(system("cannot map", path))?;
        let identity = Identity {
            magic: layout::MAGIC,
            version: layout::VERSION,
            byte_order: layout::BYTE_ORDER,
            data_len: division.data_len(),
            data_offset: layout::DATA_OFFSET as u32,
            owner_pid: std::process::id(),
            created_ms,
            topics_used: AtomicU32::new(0),
            segment_len: division.segment_len() as u32,
        };
        // SAFETY: nobody else knows the file yet; offset 0 is inside the mapping and aligned.
        unsafe { map.base().cast::<Identity>().write(identity) };
        map.cursors().reset(0, 0);
        Ok(map)
    }

    /// Opens a finished queue file whose owner is gone: takes its lock and checks what its header
    /// claims. The slots are checked one by one as they are read.
    pub fn adopt(dir: Arc<QueueDir>, name: &str) -> Result<Queue, QueueError> {
        super::recovery::open_orphan(dir, name)
    }

    pub(super) fn from_parts(
        map: Mapping,
        file: OwnedFd,
        dir: Arc<QueueDir>,
        name: String,
    ) -> Queue {
        Queue { map: Arc::new(map), dir, name, lock: file }
    }

    /// Maps all pages now, so that the writer meets none that is missing. Takes some milliseconds, in which the kernel
    /// lets no other thread change the process's memory: not for when nginx serves requests already. Where the kernel
    /// cannot do it the writer is slower when it first gets to a page.
    pub fn populate(&self) {
        let map = &self.map;
        // SAFETY: the range is our mapping; populating it does not change its contents.
        let _ = unsafe { mm::madvise(map.base().cast(), map.len, mm::Advice::LinuxPopulateWrite) };
    }

    /// The writing end. Taken once, by the maker of the file. `max_bytes` bounds key plus payload of a
    /// record; a quarter of the queue bounds it as well.
    pub fn writer(&self, max_messages: u64, max_bytes: usize) -> Writer {
        Writer::new(self, max_messages, max_bytes)
    }

    /// The reading end. One at a time; a new one starts at the oldest record that is not done.
    pub fn reader(&self) -> Reader {
        Reader::new(self)
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
        self.dir.path.join(&self.name)
    }

    /// The directory it lies in.
    pub fn dir(&self) -> &Arc<QueueDir> {
        &self.dir
    }

    /// False when somebody removed the file: then nobody finds it who would go on with it.
    pub fn has_a_name(&self) -> bool {
        fs::fstat(&self.lock).is_ok_and(|stat| stat.st_nlink > 0)
    }

    /// True while the file has the name by which it was opened.
    pub fn is_named(&self) -> bool {
        is_named(&self.dir, &self.lock, &self.name)
    }

    /// Gives the file a name under which nobody adopts it, for a person to look at.
    pub fn keep_aside(&self) -> Result<(), QueueError> {
        fs::renameat(&self.dir.fd, &self.name, &self.dir.fd, format!("{}.damaged", self.name))
            .map_err(system("cannot rename", &self.path()))
    }

    /// Removes the file's name; the memory goes with the last end of the queue.
    pub fn remove(&self) -> Result<(), QueueError> {
        fs::unlinkat(&self.dir.fd, &self.name, AtFlags::empty())
            .map_err(system("cannot remove", &self.path()))
    }
}

/// Whether `file` has this name in the directory.
pub(super) fn is_named(dir: &QueueDir, file: &OwnedFd, name: &str) -> bool {
    let named = fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW);
    let open = fs::fstat(file);
    matches!((named, open), (Ok(named), Ok(open)) if named.st_ino == open.st_ino)
}

/// Allocates all bytes of the file, by writing zeros where the file system has no better way. In steps, since
/// an interrupted call starts its step over, and nginx may have a timer that interrupts it.
fn allocate(file: &OwnedFd, len: u64) -> Result<(), Errno> {
    const STEP: u64 = 16 << 20;
    let mut done = 0;
    while done < len {
        let step = STEP.min(len - done);
        match fs::fallocate(file, FallocateFlags::empty(), done, step) {
            Ok(()) => done += step,
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return write_zeros(file, len),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn write_zeros(file: &OwnedFd, len: u64) -> Result<(), Errno> {
    let mut file = std::fs::File::from(file.try_clone().map_err(|_| Errno::MFILE)?);
    let zeros = [0u8; 64 * 1024];
    let mut left = len;
    while left > 0 {
        let chunk = left.min(zeros.len() as u64) as usize;
        file.write_all(&zeros[..chunk])
            .map_err(|err| err.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))?;
        left -= chunk as u64;
    }
    Ok(())
}
