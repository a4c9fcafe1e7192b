//! Backup files: where messages go that could not be delivered. One file per topic in `backpath`, one line
//! per message, in the original module's columns.
//!
//! Invariants: a line is whole or not there at all, whatever the disk does; lines of several workers do not
//! mix; nothing outside the directory is ever opened.

pub mod format;
pub mod writer;

pub use writer::{BackupDir, BackupError};
