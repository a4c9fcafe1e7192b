//! What a file is known by: its inode number, and when it was made.
//!
//! Numbers are used again once a file is gone, often by the very next one. The birth time tells the two apart. Not
//! every file system has one, and where inode numbers change at each mount (sshfs, some CIFS) neither says anything.

use rustix::fs::{self, AtFlags, StatxFlags};
use rustix::io::Errno;
use std::fs::File;

/// The identity of a file, as far as its file system has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    pub inode: u64,
    /// When the file was made, nanoseconds since 1970; `None` where the file system does not say.
    pub born_ns: Option<i64>,
}

impl FileId {
    pub fn of(file: &File) -> Result<FileId, Errno> {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        match fs::statx(file, "", AtFlags::EMPTY_PATH, wanted) {
            Ok(stat) => {
                let says_when = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
                let born = stat.stx_btime;
                let born_ns = born.tv_sec.checked_mul(1_000_000_000);
                let born_ns = born_ns.and_then(|ns| ns.checked_add(i64::from(born.tv_nsec)));
                // Some file systems mean by 0 that they do not know.
                let born_ns = born_ns.filter(|ns| says_when && *ns != 0);
                Ok(FileId { inode: stat.stx_ino, born_ns })
            }
            // A kernel, or a filter of system calls, that knows nothing of it.
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
                Ok(FileId { inode: fs::fstat(file)?.st_ino, born_ns: None })
            }
            Err(errno) => Err(errno),
        }
    }
}
