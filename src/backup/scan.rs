//! One reading of a backup file: which bytes are whose, and which of them are messages.
//!
//! Every byte from where the progress ends belongs to an entry of the journal, and is lkfk's if it has the
//! entry's checksum, or to a gap between entries, which others wrote. Lengths in the journal are believed no
//! further than the file and the longest message go.

use super::format::{self, BadLine, Fields, Writing, longest_line};
use super::journal::{self, Progress};
use crate::sys::files::read_at;
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::File;

/// Bytes of lines in a chunk; a single line may be longer.
const CHUNK: usize = 1 << 20;
/// Lines in a chunk.
pub(super) const LINES: usize = 4096;

/// A message of a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message {
    /// Where its line stands in the file.
    pub(super) line: Stretch,
    /// See [`Place::check`].
    pub(super) check: u32,
    /// What it says, in the chunk's bytes.
    pub(super) fields: Fields,
}

/// Some bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) from: u64,
    pub(super) len: u64,
}

/// Names a line by where it stands and what it says: another line may stand there once the file was cut, or once its
/// inode number was used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    pub(super) inode: u64,
    pub(super) offset: u64,
    /// Of a line of lkfk's the checksum of its entry, else that of its bytes.
    pub(super) check: u32,
}

/// What is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Lines of lkfk's own, of messages that `log()` had taken.
    Own,
    /// Every line.
    All,
}

/// A stretch of a file in memory.
pub(super) struct Window<'a> {
    pub(super) file: &'a File,
    pub(super) bytes: Vec<u8>,
    pub(super) at: u64,
}

impl Window<'_> {
    /// `len` bytes at `at`, or fewer at the file's end.
    fn get(&mut self, at: u64, len: usize) -> Result<&[u8], Errno> {
        let end = at + len as u64;
        if at < self.at || end > self.at + self.bytes.len() as u64 {
            self.bytes.resize(len.max(CHUNK), 0);
            let read = read_at(self.file, &mut self.bytes, at)?;
            self.bytes.truncate(read);
            self.at = at;
        }
        let from = (at - self.at) as usize;
        Ok(&self.bytes[from.min(self.bytes.len())..(from + len).min(self.bytes.len())])
    }
}

/// One reading of a file, from where its progress ends.
pub(super) struct Scan<'a> {
    pub(super) which: Which,
    /// How lines that are in no entry were written.
    pub(super) others_writing: Writing,
    pub(super) topic: &'a str,
    /// Bytes of key, headers and payload that a message may have.
    pub(super) longest: usize,
    /// Lines may still come, so half a line at the end may become a whole one.
    pub(super) growing: bool,
    pub(super) inode: u64,
    pub(super) settled: &'a HashSet<Place>,
    pub(super) size: u64,
    /// The journal has more entries than are at hand.
    pub(super) more_entries: bool,
    pub(super) window: Window<'a>,
    pub(super) at: u64,
    pub(super) progress: Progress,
    pub(super) collected: Collected,
}

/// What a reading has collected.
#[derive(Default)]
pub(super) struct Collected {
    pub(super) messages: Vec<Message>,
    /// Their keys, headers and payloads.
    pub(super) bytes: Vec<u8>,
    /// Lines that are none, or too long to be sent.
    pub(super) bad: Vec<Stretch>,
    /// Why the first of them is none.
    pub(super) why_bad: Option<BadLine>,
}

impl Collected {
    fn lines(&self) -> usize {
        self.messages.len() + self.bad.len()
    }

    /// Adds a line that is no message.
    fn put_bad(&mut self, line: Stretch, why: BadLine) {
        self.bad.push(line);
        self.why_bad.get_or_insert(why);
    }

    /// Adds a line, whose line feed is left out, to the messages, or to the bad ones when it is none. False when it is
    /// a line of another topic.
    fn read(&mut self, stretch: Stretch, line: &[u8], how: &Reading<'_>) -> bool {
        match format::read(line, how.writing, how.longest, &mut self.bytes) {
            Ok((topic, _)) if topic != how.topic => return false,
            Ok((_, mut fields)) => {
                fields.logged_ms = how.logged_ms.unwrap_or(fields.logged_ms);
                self.messages.push(Message { line: stretch, check: how.check, fields });
            }
            Err(why) => self.put_bad(stretch, why),
        }
        true
    }
}

/// How a line is read.
struct Reading<'a> {
    topic: &'a str,
    writing: Writing,
    longest: usize,
    /// When the message was logged, where the journal has it to the millisecond.
    logged_ms: Option<i64>,
    /// See [`Place::check`].
    check: u32,
}

impl Scan<'_> {
    /// Collects lines until the chunk is full or the file ends. False when a line names another topic.
    pub(super) fn run(&mut self, entries: &[journal::Entry]) -> Result<bool, Errno> {
        let begin = self.at;
        let mut entries = entries.iter().peekable();
        loop {
            let lines = self.collected.lines();
            let full = lines >= LINES
                || self.collected.bytes.len() >= CHUNK
                || (self.at - begin >= CHUNK as u64 && lines > 0);
            if full || self.at >= self.size {
                return Ok(true);
            }
            // An entry that claims bytes before another's end is damage, and claims nothing.
            while entries
                .next_if(|entry| entry.offset < self.at || entry.end() > self.size)
                .is_some()
            {}
            let same_topic = match entries.peek() {
                Some(entry) if entry.offset == self.at => {
                    let entry = **entry;
                    entries.next();
                    self.take_entry(&entry)?
                }
                None if self.more_entries => return Ok(true),
                next => {
                    let gap_end = next.map_or(self.size, |entry| entry.offset);
                    match self.take_others(gap_end)? {
                        Some(same_topic) => same_topic,
                        None => return Ok(true),
                    }
                }
            };
            if !same_topic {
                return Ok(false);
            }
        }
    }

    /// Moves past a stretch that is done with, or that the chunk has now.
    fn pass(&mut self, end: u64, own: bool) {
        // The others' progress goes along while nothing of theirs was passed over.
        if self.which == Which::All || own && self.progress.others >= self.at {
            self.progress.others = self.progress.others.max(end);
        }
        self.progress.own = self.progress.own.max(end);
        self.at = end;
    }

    /// A line of lkfk's.
    fn take_entry(&mut self, entry: &journal::Entry) -> Result<bool, Errno> {
        let (end, own) = (entry.end(), !entry.refused);
        let done = if own { end <= self.progress.own } else { end <= self.progress.others };
        let wanted = own || self.which == Which::All;
        if done || !wanted {
            self.pass(end, own);
            return Ok(true);
        }
        let stretch = Stretch { from: entry.offset, len: u64::from(entry.len) };
        // Longer than any line that this configuration could send.
        if entry.len as usize > longest_line(self.longest, Writing::Escaped) {
            self.collected.put_bad(stretch, BadLine::TooLarge);
            self.pass(end, own);
            return Ok(true);
        }
        let line = self.window.get(entry.offset, entry.len as usize)?;
        let place = Place { inode: self.inode, offset: entry.offset, check: entry.check };
        let same_topic = match line.strip_suffix(b"\n").filter(|_| entry.matches(line)) {
            Some(_) if self.settled.contains(&place) => true,
            Some(line) => {
                let (topic, longest) = (self.topic, self.longest);
                let logged_ms = Some(entry.logged_ms);
                let check = entry.check;
                let how = Reading { topic, writing: Writing::Escaped, longest, logged_ms, check };
                self.collected.read(stretch, line, &how)
            }
            None => {
                self.collected.put_bad(stretch, BadLine::Damaged);
                true
            }
        };
        if same_topic {
            self.pass(end, own);
        }
        Ok(same_topic)
    }

    /// The next of the bytes up to `gap_end`, which are not lkfk's. `None` when they are the beginning of a
    /// line that may still be written.
    fn take_others(&mut self, gap_end: u64) -> Result<Option<bool>, Errno> {
        if self.which == Which::Own {
            self.pass(gap_end, false);
            return Ok(Some(true));
        }
        if self.at < self.progress.others {
            self.pass(gap_end.min(self.progress.others), false);
            return Ok(Some(true));
        }
        let (topic, writing, longest) = (self.topic, self.others_writing, self.longest);
        let most = longest_line(longest, writing);
        let want = (gap_end - self.at).min(most as u64) as usize;
        let mut bytes = self.window.get(self.at, want.min(CHUNK))?;
        let mut found = bytes.iter().position(|byte| *byte == b'\n');
        if found.is_none() && want > CHUNK {
            bytes = self.window.get(self.at, want)?;
            found = bytes.iter().position(|byte| *byte == b'\n');
        }
        let stretch = |len: usize| Stretch { from: self.at, len: len as u64 };
        let Some(len) = found else {
            // Cut by somebody while we read it, or half a line.
            if bytes.is_empty() || (bytes.len() < most && gap_end == self.size && self.growing) {
                return Ok(None);
            }
            // Too long for a line, or the end of a file that nobody ends any more.
            let stretch = stretch(bytes.len());
            self.progress.inside_bad = self.at + stretch.len < gap_end;
            self.collected.put_bad(stretch, BadLine::Columns);
            self.pass(self.at + stretch.len, false);
            return Ok(Some(true));
        };
        let stretch = stretch(len + 1);
        let check = crc32c::crc32c(&bytes[..len]);
        let place = Place { inode: self.inode, offset: self.at, check };
        if self.settled.contains(&place) {
            // Sent, and remembered by who asks.
        } else if self.progress.inside_bad {
            self.collected.put_bad(stretch, BadLine::TooLarge);
        } else {
            let how = Reading { topic, writing, longest, logged_ms: None, check };
            if !self.collected.read(stretch, &bytes[..len], &how) {
                return Ok(Some(false));
            }
        }
        self.progress.inside_bad = false;
        self.pass(self.at + stretch.len, false);
        Ok(Some(true))
    }
}
