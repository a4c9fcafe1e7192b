//! The queue between nginx's thread and the driver thread: records in a file that is mapped into memory, so
//! that what `log()` accepted outlives the worker that accepted it.
//!
//! # Invariants
//! - One writer (nginx's thread) and one reader (the driver thread), no locks between them.
//! - A record is visible to the reader only after it is whole: the writer's last act is one release
//!   store of `tail`. What lies beyond `tail` is never read, whoever opens the file.
//! - A record keeps its slot until it is delivered or safe in the backup file. Slots are marked done
//!   one by one, in any order; nobody overwrites a slot that a request, a retry or an adopter may still
//!   read.
//! - No length in the file is believed before it is checked against the bytes between `head` and
//!   `tail`. A slot that fails its check ends the file; it never causes a read outside the mapping.
//! - A segment of the data area is given to new positions only after all slots that reach into it are done,
//!   so that one that has to wait keeps its own segment and no other. The map in the file is for readers,
//!   who believe no entry before it is checked.
//! - The file holds no pointers and says its own version and byte order; `flock` says whether its owner
//!   lives.
//!
//! # Format, version 2
//! Native byte order, stated in the header. Offsets are checked at compile time in [`layout`].
//! ```text
//! 0        identity: magic, version, byte order, sizes, owner
//! 1024     cursors: three groups, each alone on its pair of cache lines (see below)
//! 4096     topic table: [u16 length, name]*, append only; a topic's id is its place in the table
//! 266240   segment map: u32 for each segment between head and tail: its place, or that it is done with
//! 528384   marks: u32 for each place, set while the reader has given it back
//! 561152   data: segments of equal length, a power of two; in them slots, each a multiple of 8 bytes:
//!          64 bytes of header, then key, headers, payload
//! ```
//! Positions count bytes since the file was made and never repeat. Segment number n holds positions from
//! n * segment length on. Where it lies, counted in segments from the start of the data area, is entry
//! n % 65536 of the map.
//!
//! A slot may go on into the next segments when these follow its own in the data area, so that its bytes
//! are always in one piece. Where they do not, a *wrap* slot fills the rest of the segment. The writer
//! takes the lowest segment that is free ([`segments`]): a light load goes round in two of them, touches
//! few pages and stays in the processors' caches, however large the file is.
//!
//! # Cursors and memory ordering
//! | group | field | written by | ordering |
//! |---|---|---|---|
//! | writer | `tail`, `written` | writer | release store after slot and map entry are whole; reader loads acquire |
//! | reader | `head`, `done` | reader | release store after the last read of the slots; writer loads acquire |
//! | wake | `wake_tail`, `wake_written` | both | see [`cursors`]; checked with loom |
//! | map | entry n % 65536 | writer, then reader | writer: relaxed, before the store of a tail beyond the start of segment n; reader: relaxed, when all slots in it are done |
//! | marks | one of a place | reader sets, writer clears | release store after the last read of the segment; writer loads acquire before it takes the place again |
//!
//! So a reader that has seen a tail sees the entries of all segments between head and tail, and a writer
//! that has seen a mark writes to no segment that a reader still looks at; loom checks both.
//!
//! # Wake-ups
//! The reader says in the wake group at which tail or record count it wants to be woken, then looks at
//! the tail once more before it sleeps on its eventfd. The writer publishes, then looks at the wake
//! group. A full fence between the two acts of each side makes sure that at least one of them sees the
//! other; [`barrier`] says who pays for it.

// Under loom only the cursors are built: its atomics cannot lie in a mapped file.
pub mod barrier;
pub mod cursors;
#[cfg(not(loom))]
pub mod file;
#[cfg(not(loom))]
pub mod layout;
#[cfg(not(loom))]
mod prefetch;
#[cfg(not(loom))]
pub mod reader;
#[cfg(not(loom))]
pub mod recovery;
pub mod segments;
pub mod stamps;
#[cfg(not(loom))]
pub mod writer;

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(not(loom))]
pub use file::{Queue, QueueDir, QueueError};
#[cfg(not(loom))]
pub use reader::{Damage, Reader, Slot};
#[cfg(not(loom))]
pub use writer::{PushError, TopicError, Writer};
