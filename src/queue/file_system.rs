//! On which file systems a queue file is mapped. What `fallocate` gave to a file must stay its own when it is written
//! to again, or a full disk ends nginx's worker with SIGBUS: that holds on tmpfs, ramfs, ext4 and xfs. File systems
//! that copy on write (btrfs, ZFS) or that are not on this machine (NFS, SMB) promise nothing of the kind, and of those
//! that nobody has looked at it is not known.

use rustix::fs;
use rustix::io::Errno;
use std::fmt::{self, Display};
use std::os::fd::AsFd;

/// The kind of a file system: `f_type` of `statfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem(u32);

/// tmpfs, ramfs, ext2 to ext4, xfs.
const FIT: [u32; 4] = [0x0102_1994, 0x8584_58f6, 0xef53, 0x5846_5342];

/// Names for messages, as `linux/magic.h` and the file systems themselves have the numbers.
const NAMES: [(u32, &str); 12] = [
    (0x9123_683e, "btrfs"),
    (0x794c_7630, "overlayfs"),
    (0x2fc1_2fc1, "ZFS"),
    (0x6969, "NFS"),
    (0xf2f5_2010, "f2fs"),
    (0xca45_1a4e, "bcachefs"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
    (0xff53_4d42, "SMB"),
    (0xfe53_4d42, "SMB"),
    (0x00c3_6400, "Ceph"),
    (0x0102_1994, "tmpfs"),
];

impl FileSystem {
    /// That which an open file or directory lies on.
    pub fn of(file: impl AsFd) -> Result<FileSystem, Errno> {
        // The kernel's type of the number has another width and sign on some machines.
        Ok(FileSystem(fs::fstatfs(file)?.f_type as u32))
    }

    /// Whether queue files may be mapped there.
    pub fn is_fit(self) -> bool {
        FIT.contains(&self.0)
    }

    /// One that is not fit, for tests on machines that have none.
    #[cfg(test)]
    pub const UNFIT: FileSystem = FileSystem(NAMES[0].0);
}

impl Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "a file system of type {:#x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn flt_04_what_is_not_known_to_keep_its_space_is_not_fit() {
        let shm = FileSystem::of(File::open("/dev/shm").unwrap()).unwrap();
        assert!(shm.is_fit(), "{shm}");
        let proc = FileSystem::of(File::open("/proc").unwrap()).unwrap();
        assert!(!proc.is_fit());
        assert_eq!(proc.to_string(), "a file system of type 0x9fa0");
        assert!(!FileSystem::UNFIT.is_fit());
        assert_eq!(FileSystem::UNFIT.to_string(), "btrfs");
    }
}
