//! The queue between nginx's thread and the driver thread: records in a file that is mapped into memory, so
//! that what `log()` accepted outlives the worker that accepted it.
//!
//! # Invariants
//! - One writer (nginx's thread) and one reader (the driver thread), no locks between them.
//! - A record is visible to the reader only after it is whole: the writer's last act is one release
//!   store of `tail`. What lies beyond `tail` is never read, whoever opens the file.
//! - A record keeps its slot until it is delivered or safe in the backup file. Records are marked done
//!   one by one, in any order; nobody overwrites a slot that a request, a retry or an adopter may still
//!   read.
//! - No length in the file is believed before it is checked against the bytes between `head` and
//!   `tail`. A slot that fails its check ends the file; it never causes a read outside the mapping.
//! - A segment of the data area is given to new positions only after all slots that reach into it are done,
//!   so that one that has to wait keeps its own segment and no other. The map in the file is for readers,
//!   who believe no entry before it is checked.
//! - No byte of the mapping is touched before there is memory behind it. A file system without memory is a full
//!   queue, never SIGBUS. Files are mapped only on [file systems](file_system) that keep what they gave.
//! - The file holds no pointers and says its own version and byte order, and whom it belongs to; `flock` says whether
//!   its owner lives.
//!
//! # Format, version 3
//! Native byte order, stated in the header. Offsets are checked at compile time in [`layout`]. D is the length of the
//! data area.
//! ```text
//! 0        identity: magic, version, byte order, sizes, owner
//! 1024     cursors: three groups, each alone on its pair of cache lines (see below)
//! 4096     topic table: [u16 length, name]*, append only; a topic's id is its place in the table
//! 266240   segment map: u16 for each segment between head and tail: its place, or that it is done with
//! 397312   done bits: for each place one bit per 32 bytes of data, set when the record that begins there is done
//! then     batch log, from 397312 + D/256 on: D/8 bytes, 64 KiB at least: which batches were sent (see [`batch_log`])
//! then     data: segments of equal length, a power of two; in them slots, each a multiple of 32 bytes:
//!          32 bytes of header, then key, headers, payload. With headers, or a time of its own, 16 bytes more.
//! ```
//! Positions count bytes since the file was made and never repeat. Segment number n holds positions from
//! n * segment length on. Where it lies, its *place*, counted in segments from the start of the data area, is entry
//! n % 65536 of the map.
//!
//! A slot may go on into the next segments when these follow its own in the data area, so that its bytes
//! are always in one piece. Where they do not, a *wrap* slot fills the rest of the segment. The writer
//! takes the lowest place that is free ([`places`]): a light load goes round in two of them, touches
//! few pages and stays in the processors' caches, however large the file is.
//!
//! Files of version 2, which lkfk 0.1 made, are adopted, and marked and stamped in their own format ([`layout::v2`]).
//!
//! # Who touches what
//! The writer writes slots, and never looks at one again. The reader looks at a slot twice: when it hands the record
//! out, and when the record is encoded. Slots of one partition lie scattered over the queue, so each look costs a
//! cache line that comes from afar. All that is noted later lies close together, in parts of the file that only the
//! reader writes: a batch in the batch log takes a line for every 50 records or so, and the done bits of 500 records of
//! 400 bytes lie in some 15 lines. The one word of a slot that the reader writes is the partition that it chose, right
//! after it has read the rest of the header.
//!
//! # Cursors and memory ordering
//! | group | field | written by | ordering |
//! |---|---|---|---|
//! | writer | `tail`, `written` | writer | release store after slot and map entry are whole; reader loads acquire |
//! | reader | `head`, `done`, `log_len` | reader | release store after the last read of the slots; writer loads acquire |
//! | wake | `wake_tail`, `wake_written` | both | see [`cursors`]; checked with loom |
//! | map | entry n % 65536 | writer, then reader | writer: relaxed, before the store of a tail beyond the start of segment n; reader: relaxed, when all slots in it are done |
//! | done bits | one of a record | reader | relaxed: only a later reader of the file looks at them; cleared before the place is given back |
//! | batch log | entries | reader | release store of the commit after the rest is written |
//! | places | state of a place; not in the file | writer, reader, provisioner | compare-and-swap, acquire and release: whoever takes a place sees that the one before is done with it |
//!
//! So a reader that has seen a tail sees the entries of all segments between head and tail, a writer that has taken a
//! place writes to no segment that a reader still looks at, and nobody touches a place that has no memory; loom checks
//! all of it.
//!
//! # What a death leaves
//! Each store takes effect in the order of the program, as the kernel ends a process between two instructions, so that
//! the next reader finds a state that this one went through:
//! - A record is there or not: `tail` decides.
//! - A batch is on record or not: the commit of its entry decides, and it is sent after that. Of a batch that is on
//!   record and not wholly done, the done marks are undone: it is repeated whole ([`stamps`]).
//! - A segment is gone or not: its entry in the map decides. Its done bits are cleared after that, since nobody reads
//!   them any more, and before the place is taken again.
//!
//! # Memory
//! The file has its full length from the start, but only what every queue touches has memory: some 150 KiB. The rest
//! of the topic table gets it as topics come, the batch log as batches are in flight, and the data area, with its done
//! bits, a segment at a time: from the driver ahead of the writer, which maps it as well, so that `log()` takes no page
//! fault ([`provisioner`]); where a burst outruns the driver the writer asks the kernel itself. After a peak the driver
//! gives memory back.
//!
//! # Wake-ups
//! The reader says in the wake group at which tail or record count it wants to be woken, then looks at
//! the tail once more before it sleeps on its eventfd. The writer publishes, then looks at the wake
//! group. A full fence between the two acts of each side makes sure that at least one of them sees the
//! other; [`barrier`] says who pays for it. Besides, the writer asks for the driver when it takes the last place that
//! has memory: at most once a segment.

// Under loom only what both threads share is built: its atomics cannot lie in a mapped file.
pub mod barrier;
#[cfg(not(loom))]
mod batch_log;
#[cfg(not(loom))]
mod copy;
pub mod cursors;
#[cfg(not(loom))]
mod directory;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
pub mod file;
#[cfg(not(loom))]
pub mod file_system;
#[cfg(not(loom))]
pub mod layout;
#[cfg(not(loom))]
mod mapping;
#[cfg(not(loom))]
mod owner;
pub mod places;
#[cfg(not(loom))]
mod prefetch;
#[cfg(not(loom))]
pub mod provisioner;
#[cfg(not(loom))]
pub mod reader;
#[cfg(not(loom))]
pub mod recovery;
pub mod segments;
#[cfg(not(loom))]
pub mod slots;
#[cfg(not(loom))]
mod space;
pub mod stamps;
#[cfg(not(loom))]
mod topics;
#[cfg(not(loom))]
pub mod writer;

#[cfg(test)]
mod tests;

#[cfg(not(loom))]
pub use batch_log::NoRoom;
#[cfg(not(loom))]
pub use directory::QueueDir;
#[cfg(not(loom))]
pub use error::QueueError;
#[cfg(not(loom))]
pub use file::Queue;
#[cfg(not(loom))]
pub use layout::Flags;
#[cfg(not(loom))]
pub use owner::Owner;
#[cfg(not(loom))]
pub use provisioner::Provisioner;
#[cfg(not(loom))]
pub use reader::Reader;
#[cfg(not(loom))]
pub use slots::{Damage, Slot};
#[cfg(not(loom))]
pub use topics::TopicError;
#[cfg(not(loom))]
pub use writer::{PushError, Writer};
