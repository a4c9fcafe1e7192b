//! Files in directories that others may write to, too: which of them are taken for lkfk's own, and reading them.

use rustix::fs::{self, AtFlags, FileType, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

/// Whether an open file is a regular one of this user's that has one name, or why it is not. Nothing else may be read
/// or written: what has another name, or another owner, is changed by somebody else, too.
pub(crate) fn check_own(stat: &Stat) -> Result<(), &'static str> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err("not a regular file");
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err("belongs to another user");
    }
    if stat.st_nlink > 1 {
        return Err("has another name as well (a hard link)");
    }
    Ok(())
}

/// Whether `file` still has this name in the directory `dir`. Links are not followed.
pub(crate) fn is_named(dir: impl AsFd, file: impl AsFd, name: &str) -> bool {
    let named = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    let (Ok(named), Ok(open)) = (named, fs::fstat(file)) else { return false };
    (named.st_ino, named.st_dev) == (open.st_ino, open.st_dev)
}

/// Reads up to the end of `into` or of the file; returns how much.
pub(crate) fn read_at(file: &File, into: &mut [u8], at: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], at + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(errno(error)),
        }
    }
    Ok(done)
}

/// The system's number of an error. A write of nothing has none: a disk that takes no byte is full.
pub(crate) fn errno(error: io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::WriteZero => Errno::NOSPC,
        _ => Errno::from_io_error(&error).unwrap_or(Errno::IO),
    }
}
