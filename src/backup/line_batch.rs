//! Lines that are about to be appended to a backup file.

use super::format::{self, Line};

/// Whole lines of lkfk's own, and what the journal needs to know of each.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LineBatch {
    pub(super) text: Vec<u8>,
    pub(super) marks: Vec<Mark>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub len: u32,
    pub logged_ms: i64,
    pub refused: bool,
}

impl LineBatch {
    /// How many they are.
    pub fn count(&self) -> usize {
        self.marks.len()
    }

    /// Adds a message that `log()` had taken.
    pub fn push(&mut self, line: &Line<'_>) {
        self.put(line, false);
    }

    /// Adds a message that `log()` had refused: its caller knows, so it is not replayed unless everything is.
    pub fn push_refused(&mut self, line: &Line<'_>) {
        self.put(line, true);
    }

    fn put(&mut self, line: &Line<'_>, refused: bool) {
        let before = self.text.len();
        format::put(&mut self.text, line);
        let len = (self.text.len() - before) as u32;
        self.marks.push(Mark { len, logged_ms: line.logged_ms, refused });
    }

    /// Adds other lines behind these.
    pub fn append(&mut self, other: LineBatch) {
        self.text.extend_from_slice(&other.text);
        self.marks.extend_from_slice(&other.marks);
    }

    /// Forgets all lines; keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.marks.clear();
    }

    /// Bytes of all lines.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Bytes of memory that are kept for lines.
    pub fn capacity(&self) -> usize {
        self.text.capacity()
    }
}
