//! Appending to the backup files. Runs on the driver thread.
//!
//! A chunk of whole lines is written under the file's lock; when the disk takes only a part of it, the file
//! is cut back to where it was. When a writer was killed before it could do that, the next one ends the
//! half line first, so that no line ever begins in the middle of another.

use crate::topic_name;
use rustix::fs::{self, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Files kept open; the least useful way to spend more descriptors than this is on topics that failed once.
const OPEN_FILES: usize = 64;

/// How often, and after which pauses, a file that another process has locked is tried.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Why messages could not be backed up. They stay in the queue.
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
    /// The path is something a backup must not be written to.
    #[error("{}: {reason}", path.display())]
    Unsafe {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// The directory of the backup files.
pub struct BackupDir {
    fd: OwnedFd,
    path: PathBuf,
    files: HashMap<Box<str>, OwnedFd>,
}

impl BackupDir {
    /// Opens the directory, making it and its parents when missing (mode 0700), and tries whether a file
    /// can be made in it.
    pub fn open(path: &Path) -> Result<BackupDir, BackupError> {
        let system = |what| {
            let path = path.to_owned();
            move |errno| BackupError::System { what, path, errno }
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| {
                let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
                system("backpath: cannot make the parent of")(errno)
            })?;
        }
        match fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => {
                return Err(system("backpath: the worker's user cannot make directory")(errno));
            }
        }
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let fd = fs::open(path, flags, Mode::empty()).map_err(system("backpath: cannot open"))?;
        fs::accessat(&fd, ".", fs::Access::WRITE_OK | fs::Access::EXEC_OK, fs::AtFlags::EACCESS)
            .map_err(system("backpath: the worker's user cannot write to"))?;
        Ok(BackupDir { fd, path: path.to_owned(), files: HashMap::new() })
    }

    /// Path of the directory, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends `lines`, which are whole ones, to the file of `topic`: all of them or none.
    pub fn append(&mut self, topic: &str, lines: &[u8]) -> Result<(), BackupError> {
        let result = self.try_append(topic, lines);
        if result.is_err() {
            // Whatever is wrong with the file, the next attempt starts from its name.
            self.files.remove(topic);
        }
        result
    }

    fn try_append(&mut self, topic: &str, lines: &[u8]) -> Result<(), BackupError> {
        let path = self.path.join(topic);
        let system = |what: &'static str| {
            let path = path.clone();
            move |errno| BackupError::System { what, path, errno }
        };
        if !topic_name::is_valid(topic) {
            return Err(BackupError::Unsafe { path, reason: "not a topic name" });
        }
        // A file that was moved away or removed (log rotation) is made anew.
        if let Some(file) = self.files.get(topic)
            && fs::fstat(file).is_ok_and(|stat| self.is_named(topic, stat))
        {
        } else {
            let file = self.open_file(topic)?;
            if self.files.len() >= OPEN_FILES {
                self.files.clear();
            }
            self.files.insert(topic.into(), file);
        }
        let file = &self.files[topic];
        lock(file).map_err(system("cannot lock"))?;
        let written = write_whole(file, lines);
        // The descriptor is ours and locked, so unlocking it cannot fail.
        let _ = fs::flock(file, FlockOperation::Unlock);
        written.map_err(system("cannot append to"))
    }

    fn is_named(&self, topic: &str, open: fs::Stat) -> bool {
        fs::statat(&self.fd, topic, fs::AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|named| named.st_ino == open.st_ino && named.st_dev == open.st_dev)
    }

    fn open_file(&self, topic: &str) -> Result<OwnedFd, BackupError> {
        let path = self.path.join(topic);
        let flags = OFlags::RDWR
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        let file =
            fs::openat(&self.fd, topic, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| {
                BackupError::System { what: "cannot open", path: path.clone(), errno }
            })?;
        let stat = fs::fstat(&file).map_err(|errno| BackupError::System {
            what: "cannot stat",
            path: path.clone(),
            errno,
        })?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(BackupError::Unsafe { path, reason: "not a regular file" });
        }
        if stat.st_uid != process::geteuid().as_raw() {
            return Err(BackupError::Unsafe { path, reason: "belongs to another user" });
        }
        Ok(file)
    }
}

/// Appends all of `lines` or leaves the file as it was.
fn write_whole(file: &OwnedFd, lines: &[u8]) -> Result<(), Errno> {
    let before = fs::fstat(file)?.st_size as u64;
    if before > 0 {
        let mut last = [0];
        retry(|| rustix::io::pread(file, &mut last, before - 1))?;
        if last != *b"\n" {
            retry(|| rustix::io::write(file, b"\n"))?;
        }
    }
    let mut left = lines;
    #[cfg(feature = "crash_points")]
    if crate::crash_points::is_next("half a chunk written") {
        retry(|| rustix::io::write(file, &lines[..lines.len() / 2]))?;
        let (this, kill) = (process::getpid(), process::Signal::KILL);
        let _ = process::kill_process(this, kill);
    }
    while !left.is_empty() {
        match retry(|| rustix::io::write(file, left)) {
            Ok(0) => return Err(cut_back(file, before, Errno::NOSPC)),
            Ok(count) => left = &left[count..],
            Err(errno) => return Err(cut_back(file, before, errno)),
        }
    }
    crate::crash_points::crash_point("chunk written");
    Ok(())
}

/// Takes the file's lock. Whoever else has it writes a chunk and lets go; a script, or a process that is
/// stopped, may keep it, and must not hold up all other topics.
#[allow(clippy::disallowed_methods, reason = "a bounded wait, on the driver thread")]
fn lock(file: &OwnedFd) -> Result<(), Errno> {
    for _ in 0..LOCK_TRIES {
        match retry(|| fs::flock(file, FlockOperation::NonBlockingLockExclusive)) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            result => return result,
        }
    }
    Err(Errno::WOULDBLOCK)
}

fn cut_back(file: &OwnedFd, len: u64, errno: Errno) -> Errno {
    match retry(|| fs::ftruncate(file, len)) {
        Ok(()) => errno,
        // Worse than the failed write: the file may end in the middle of a line.
        Err(worse) => worse,
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => continue,
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Scratch(PathBuf);
    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path =
                std::env::temp_dir().join(format!("lkfk-backup-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }
    }
    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn directory_and_files_are_made_for_the_owner_alone() {
        let scratch = Scratch::new("modes");
        let path = scratch.0.join("a/b");
        BackupDir::open(&path).unwrap().append("t", b"line\n").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("t"))), (0o700, 0o600));
    }

    #[test]
    fn lines_are_appended_also_after_the_file_was_moved_away() {
        let scratch = Scratch::new("rotate");
        let mut dir = BackupDir::open(&scratch.0).unwrap();
        dir.append("t", b"one\n").unwrap();
        dir.append("t", b"two\n").unwrap();
        std::fs::rename(scratch.0.join("t"), scratch.0.join("t.1")).unwrap();
        dir.append("t", b"three\n").unwrap();
        assert_eq!(std::fs::read(scratch.0.join("t.1")).unwrap(), b"one\ntwo\n");
        assert_eq!(std::fs::read(scratch.0.join("t")).unwrap(), b"three\n");
    }

    #[test]
    fn links_and_names_that_leave_the_directory_are_refused() {
        let scratch = Scratch::new("links");
        let outside = scratch.0.join("outside");
        std::fs::write(&outside, b"untouched").unwrap();
        let mut dir = BackupDir::open(&scratch.0.join("backup")).unwrap();
        symlink(&outside, scratch.0.join("backup/t")).unwrap();
        for topic in ["t", "../outside", "..", "", "a/b"] {
            assert!(dir.append(topic, b"line\n").is_err(), "{topic:?}");
        }
        assert_eq!(std::fs::read(&outside).unwrap(), b"untouched");
    }

    #[test]
    fn half_a_line_that_a_killed_writer_left_is_ended_before_the_next_one() {
        let scratch = Scratch::new("half");
        std::fs::write(scratch.0.join("t"), b"whole\nhal").unwrap();
        let mut dir = BackupDir::open(&scratch.0).unwrap();
        dir.append("t", b"next\n").unwrap();
        assert_eq!(std::fs::read(scratch.0.join("t")).unwrap(), b"whole\nhal\nnext\n");
    }

    #[test]
    fn a_file_that_somebody_else_keeps_locked_is_an_error_and_not_a_wait() {
        let scratch = Scratch::new("locked");
        std::fs::write(scratch.0.join("t"), b"").unwrap();
        let other = std::fs::File::open(scratch.0.join("t")).unwrap();
        fs::flock(&other, FlockOperation::LockExclusive).unwrap();
        let mut dir = BackupDir::open(&scratch.0).unwrap();
        assert!(dir.append("t", b"line\n").is_err());
        drop(other);
        dir.append("t", b"line\n").unwrap();
    }

    #[test]
    fn a_write_that_does_not_fit_leaves_no_half_line() {
        let scratch = Scratch::new("limit");
        let mut dir = BackupDir::open(&scratch.0).unwrap();
        dir.append("t", b"first\n").unwrap();
        // A sealed memfd takes no byte beyond its size: a disk that is full, without one.
        let full = fs::memfd_create("full", fs::MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::io::write(&full, b"first\n").unwrap();
        fs::fcntl_add_seals(&full, fs::SealFlags::GROW).unwrap();
        assert!(write_whole(&full, b"second\n").is_err());
        assert_eq!(fs::fstat(&full).unwrap().st_size, 6);
        dir.append("t", b"third\n").unwrap();
        assert_eq!(std::fs::read(scratch.0.join("t")).unwrap(), b"first\nthird\n");
    }
}
