//! A chunk: some lines of a backup file in memory, while they are being sent again.

use super::format::{BadLine, Line};
use super::journal::Progress;
use super::scan::{Message, Place, Stretch};
use std::fs::File;

/// Some lines of one file, in its order.
#[derive(Debug)]
pub struct Chunk {
    pub(super) topic: String,
    /// The file's name when it was read.
    pub(super) name: String,
    pub(super) file: File,
    pub(super) inode: u64,
    pub(super) messages: Vec<Message>,
    /// What the messages say.
    pub(super) bytes: Vec<u8>,
    /// Lines that are none.
    pub(super) bad: Vec<Stretch>,
    pub(super) why_bad: Option<BadLine>,
    /// How far the file was replayed before the chunk, and how far it is when all of it is done with.
    pub(super) begin: Progress,
    pub(super) end: Progress,
}

impl Chunk {
    /// Topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Name of the file, for messages.
    pub fn file_name(&self) -> &str {
        &self.name
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// True when it has none; it may have bad lines all the same.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Why the first line that is none is none, if there is one.
    pub fn why_bad(&self) -> Option<BadLine> {
        self.why_bad
    }

    /// Bytes of memory that it takes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity() + self.messages.capacity() * size_of::<Message>()
    }

    /// A message: its record, and when it was logged.
    pub fn get(&self, index: usize) -> Option<Line<'_>> {
        Some(self.messages.get(index)?.fields.line(&self.topic, &self.bytes))
    }

    /// True when a line stands before the chunk's end, or in another file.
    pub fn is_past(&self, place: &Place) -> bool {
        place.inode != self.inode || place.offset < self.end.own.max(self.end.others)
    }

    /// Name of a message's line, for [`Backlog::read`](super::Backlog::read).
    pub fn place(&self, index: usize) -> Option<Place> {
        let message = self.messages.get(index)?;
        Some(Place { inode: self.inode, offset: message.line.from, check: message.check })
    }
}
