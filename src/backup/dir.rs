//! The directory of the backup files: what is in it, how much, and how a file in it is opened. Everything is
//! opened relative to the directory's descriptor and no link is followed.

use super::journal;
use super::names::{self, Kind};
use crate::sys::{files, user};
use rustix::fs::{self, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::{Errno, retry_on_intr};
use std::fs::{DirBuilder, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often, and after which pauses, a file that another process has locked is tried.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Why messages could not be backed up, or not be read back. They stay where they are.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
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
    /// The directory itself is not this process's user's to use.
    #[error("backpath: {user} cannot {what} {}: {errno}; {remedy}", path.display())]
    Forbidden {
        /// The user.
        user: String,
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The refusal.
        errno: Errno,
        /// What an operator can do.
        remedy: String,
    },
    /// The path is something a backup must not be written to.
    #[error("{}: {reason}", path.display())]
    Unsafe {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The files have reached their limit.
    #[error("{}: backup_total_bytes ({limit}) are in use", path.display())]
    Full {
        /// The directory.
        path: PathBuf,
        /// The limit, in bytes.
        limit: u64,
    },
}

/// A file in the directory.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub name: String,
    pub topic: String,
    pub kind: Kind,
    pub inode: u64,
    pub size: u64,
}

/// The directory itself.
pub(super) struct Directory {
    pub fd: OwnedFd,
    pub path: PathBuf,
}

impl Directory {
    /// Opens it, making it and its parents when missing (mode 0700), and looks whether a file can be made in it.
    /// Writes nothing to a directory that is there: its disk may hang, and who starts must not.
    pub fn open(path: &Path) -> Result<Directory, BackupError> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let open = || fs::open(path, flags, Mode::empty());
        let opened = match open() {
            Err(Errno::NOENT | Errno::NOTDIR) => {
                make(path)?;
                open()
            }
            opened => opened,
        };
        let fd = opened.map_err(refused("open", path))?;
        fs::accessat(&fd, ".", fs::Access::WRITE_OK | fs::Access::EXEC_OK, AtFlags::EACCESS)
            .map_err(refused("write to", path))?;
        Ok(Directory { fd, path: path.to_owned() })
    }

    /// An error about the file `name`.
    pub fn error(&self, what: &'static str, name: &str) -> impl Fn(Errno) -> BackupError + use<> {
        let path = self.path.join(name);
        move |errno| BackupError::System { what, path: path.clone(), errno }
    }

    /// Opens a file for appending and reading; `None` when it is missing and `make` does not say that it is
    /// to be made.
    pub fn open_file(&self, name: &str, make: bool) -> Result<Option<File>, BackupError> {
        let plain =
            OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let flags = if make { plain | OFlags::CREATE } else { plain };
        let file = match fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::NOENT) if !make => return Ok(None),
            file => File::from(file.map_err(self.error("cannot open", name))?),
        };
        let stat = fs::fstat(&file).map_err(self.error("cannot stat", name))?;
        let refuse = |reason| BackupError::Unsafe { path: self.path.join(name), reason };
        files::check_own(&stat).map_err(refuse)?;
        Ok(Some(file))
    }

    /// What `name` is now, links not followed.
    pub fn stat(&self, name: &str) -> Option<Stat> {
        fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()
    }

    /// Whether `file` still has this name.
    pub fn is_named(&self, file: impl AsFd, name: &str) -> bool {
        files::is_named(&self.fd, file, name)
    }

    /// The backup files, in no order. Nothing of them is read.
    pub fn list(&self) -> Result<Vec<Entry>, Errno> {
        let mut list = Vec::new();
        for name in entry_names(&self.fd)? {
            if let Some((topic, kind)) = names::parse(&name)
                && let Some(stat) = self.stat(&name)
                && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            {
                let (topic, inode) = (topic.to_owned(), stat.st_ino);
                list.push(Entry { topic, kind, inode, size: stat.st_size as u64, name });
            }
        }
        Ok(list)
    }

    /// Bytes of all backup files and their journals.
    pub fn total(&self) -> Result<u64, Errno> {
        let files: u64 = self.list()?.iter().map(|entry| entry.size).sum();
        let journals: u64 = journal::list(&self.fd)?.iter().map(|journal| journal.size).sum();
        Ok(files + journals)
    }
}

/// Makes a directory (mode 0700) and its parents, unless they are there by now.
fn make(path: &Path) -> Result<(), BackupError> {
    if let Some(parent) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(|error| refused("make the parent of", path)(files::errno(error)))?;
    }
    match fs::mkdir(path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(refused("make", path)(errno)),
    }
}

/// The system refused to make or use the directory itself.
fn refused(what: &'static str, path: &Path) -> impl Fn(Errno) -> BackupError {
    move |errno| BackupError::Forbidden {
        user: user::name(),
        what,
        path: path.to_owned(),
        errno,
        remedy: remedy(path, errno, &user::name(), closed_directory(path)),
    }
}

/// What helps, for a user and the directory above `path` that it may not enter, if there is one.
fn remedy(path: &Path, errno: Errno, user: &str, closed: Option<&Path>) -> String {
    let is_about_rights = [Errno::ACCESS, Errno::PERM].contains(&errno);
    match closed {
        Some(above) if is_about_rights => format!(
            "this user may not enter {}: set backpath to a path elsewhere, or let it in (chmod o+x {})",
            above.display(),
            in_a_shell(above)
        ),
        None if is_about_rights => {
            format!("as root, run: install -d -m 700 -o {user} {}", in_a_shell(path))
        }
        _ => "set backpath to a directory that this user can write to".to_owned(),
    }
}

/// The first directory above `path` that this process's user may not enter.
fn closed_directory(path: &Path) -> Option<&Path> {
    let is_closed = |dir: &&Path| {
        fs::accessat(fs::CWD, *dir, fs::Access::EXEC_OK, AtFlags::EACCESS) == Err(Errno::ACCESS)
    };
    // Below one that is closed nothing can be looked at: the outermost of them is meant.
    path.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()).filter(is_closed).last()
}

/// A path as one word of a shell.
fn in_a_shell(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn entry_names(dir: &OwnedFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        if let Ok(name) = entry?.file_name().to_str() {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// A file's lock, held until this is dropped.
pub(super) struct Locked<'a>(&'a File);

impl<'a> Locked<'a> {
    /// Takes the lock, waiting a bounded time. Whoever else has it writes a chunk and lets go; a script, or a
    /// process that is stopped, may keep it, and must not hold up all other topics.
    #[allow(clippy::disallowed_methods, reason = "a bounded wait, on the disk thread")]
    pub fn wait(file: &'a File) -> Result<Locked<'a>, Errno> {
        for _ in 0..LOCK_TRIES {
            match Self::now(file) {
                Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
                result => return result,
            }
        }
        Err(Errno::WOULDBLOCK)
    }

    /// Takes the lock if nobody has it.
    pub fn now(file: &'a File) -> Result<Locked<'a>, Errno> {
        retry_on_intr(|| fs::flock(file, FlockOperation::NonBlockingLockExclusive))?;
        Ok(Locked(file))
    }

    /// Leaves the file locked for as long as its descriptor is open.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // The descriptor is open and locked, so unlocking it cannot fail.
        let _ = fs::flock(self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flt_18_the_remedy_is_a_command_that_a_shell_takes() {
        let plain = remedy(Path::new("/srv/nginx/backup"), Errno::ACCESS, "www-data", None);
        assert_eq!(plain, "as root, run: install -d -m 700 -o www-data /srv/nginx/backup");
        let odd = remedy(Path::new("/srv/it's here"), Errno::PERM, "65534", None);
        assert_eq!(odd, r"as root, run: install -d -m 700 -o 65534 '/srv/it'\''s here'");
    }

    #[test]
    fn flt_18_no_command_is_named_that_would_not_help() {
        let (path, home) = (Path::new("/srv/closed/backup"), Path::new("/srv/closed"));
        assert_eq!(
            remedy(path, Errno::ACCESS, "nobody", Some(home)),
            "this user may not enter /srv/closed: set backpath to a path elsewhere, or let it in (chmod o+x /srv/closed)"
        );
        for errno in [Errno::ROFS, Errno::NOSPC, Errno::NOTDIR] {
            let text = remedy(path, errno, "nobody", Some(home));
            assert_eq!(text, "set backpath to a directory that this user can write to", "{errno}");
        }
    }
}
