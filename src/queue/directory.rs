//! The directory `lkfk-UID` in which queue files lie. It is ours alone (0700, owned by the effective user), and every
//! file in it is opened relative to its descriptor without following links, so that nobody else can put a file in our
//! way.

use super::error::{QueueError, system};
use super::file_system::FileSystem;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use rustix::process;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A directory of queue files that only this user can enter.
pub struct QueueDir {
    fd: OwnedFd,
    path: PathBuf,
    file_system: FileSystem,
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
        let file_system = FileSystem::of(&fd).map_err(system("cannot stat", &path))?;
        Ok(QueueDir { fd, path, file_system })
    }

    /// The same directory, as if it lay on a file system that is not fit for queue files.
    #[cfg(test)]
    pub fn open_unfit(parent: &Path) -> Result<QueueDir, QueueError> {
        Self::open(parent).map(|dir| QueueDir { file_system: FileSystem::UNFIT, ..dir })
    }

    /// Where the directory of this user lies below `parent`.
    pub fn path_below(parent: &Path) -> PathBuf {
        parent.join(format!("lkfk-{}", process::geteuid().as_raw()))
    }

    /// Path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file system that it lies on.
    pub(super) fn file_system(&self) -> FileSystem {
        self.file_system
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}
