//! Giving a file a name that no other file has.

use rustix::fs::{self, AtFlags, RenameFlags};
use rustix::io::Errno;
use std::os::fd::AsFd;

/// Renames within a directory; EEXIST when there is a file `to` already, which is left alone. On file systems that
/// cannot do both in one step somebody may make one in between.
pub fn to_new_name(dir: impl AsFd, from: &str, to: &str) -> Result<(), Errno> {
    match fs::renameat_with(&dir, from, &dir, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => match fs::statat(&dir, to, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => fs::renameat(&dir, from, &dir, to),
            Err(errno) => Err(errno),
            Ok(_) => Err(Errno::EXIST),
        },
        renamed => renamed,
    }
}
