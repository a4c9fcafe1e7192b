//! Backup files: where messages go that could not be delivered, and from where they are sent again. One file
//! per topic in `backpath`, one line per message, in the original module's columns.
//!
//! # Invariants
//! - A line is whole or not there at all, whatever the disk does and whoever is killed; lines of several
//!   workers do not mix.
//! - Nothing outside the directory is ever opened; no two topics share a file.
//! - Which lines are lkfk's own is said by a journal beside each file, with a checksum of each line. Lines
//!   that others wrote are never taken for them.
//! - A line is removed after Kafka acknowledged it, or after it was moved aside; never before.
//!
//! # Operation
//! [`writer`] appends and rotates, under the file's lock. [`backlog`] reads lines back for replay, a chunk at
//! a time, in one process at a time; it notes its progress in the journal and removes a file of which
//! nothing is left. `names` says what the files are called.

pub mod backlog;
mod chunk;
mod dir;
mod extra;
mod file_id;
pub mod format;
mod journal;
mod line_batch;
mod names;
mod repair;
mod scan;
#[cfg(test)]
mod tests;
pub mod writer;

pub use backlog::{Backlog, Waiting};
pub use chunk::Chunk;
pub use dir::BackupError;
pub use line_batch::LineBatch;
pub use names::directory_of;
pub use writer::{BackupDir, Limits};
