//! Why a queue file could not be made, opened or adopted.

use super::file_system::FileSystem;
use rustix::io::Errno;
use std::path::{Path, PathBuf};

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
    /// No room for the file.
    #[error("{}: no room for a queue file ({errno}); make room there, or set queue_path", path.display())]
    NoRoom {
        /// The directory.
        path: PathBuf,
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
    /// A mapped file there could end the process with SIGBUS.
    #[error(
        "{} lies on {file_system}, where a queue file is not safe: a full disk would end nginx's worker", path.display()
    )]
    UnfitFileSystem {
        /// The directory.
        path: PathBuf,
        /// Of what kind it is.
        file_system: FileSystem,
    },
    /// Names that cannot stand in a queue file.
    #[error(
        "the names of a queue file's instance and producer are 1 to 64 of a-z A-Z 0-9 . _ - (the default producer has none)"
    )]
    InvalidName,
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
    /// The file belongs to another instance of nginx, or to another producer of this one. That is no fault: whoever
    /// it belongs to adopts it.
    #[error("{}: it belongs to another producer", path.display())]
    OfAnotherOwner {
        /// The file.
        path: PathBuf,
    },
}

/// Makes a refusal of the system's an error.
pub(super) fn system(what: &'static str, path: &Path) -> impl FnOnce(Errno) -> QueueError {
    let path = path.to_owned();
    move |errno| QueueError::System { what, path, errno }
}
