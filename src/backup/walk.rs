//! One reading of a backup file: which bytes are whose, and which of them are messages.
//!
//! Every byte from where the progress ends belongs to an entry of the journal, and is lkfk's if it has the
//! entry's checksum, or to a gap between entries, which others wrote. Lengths in the journal are believed no
//! further than the file and the longest message go.

use super::format::{self, Read, Writing};
use super::journal::{self, Progress, read_at};
use rustix::io::Errno;
use std::collections::HashSet;
use std::os::fd::OwnedFd;

/// Bytes of lines in a chunk; a single line may be longer.
const CHUNK: usize = 1 << 20;
/// Lines in a chunk.
pub(super) const LINES: usize = 4096;

/// A message of a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message {
    /// Its line in the file.
    pub(super) line: Stretch,
    pub(super) timestamp_ms: i64,
    /// Where key and payload lie in the chunk's bytes.
    pub(super) key: Option<(usize, usize)>,
    pub(super) payload: (usize, usize),
}

/// Some bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) from: u64,
    pub(super) len: u64,
}

/// Names a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    pub(super) inode: u64,
    pub(super) offset: u64,
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
    pub(super) file: &'a OwnedFd,
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
pub(super) struct Walk<'a> {
    pub(super) which: Which,
    /// How lines that are in no entry were written.
    pub(super) others_writing: Writing,
    pub(super) topic: &'a str,
    /// Bytes of key and payload that a message may have.
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
    /// Their keys and payloads.
    pub(super) bytes: Vec<u8>,
    /// Lines that are none, or too long to be sent.
    pub(super) bad: Vec<Stretch>,
}

impl Collected {
    fn lines(&self) -> usize {
        self.messages.len() + self.bad.len()
    }

    /// Adds a line: to the messages when it was read and has at most `longest` bytes, else to the bad ones.
    fn put(&mut self, line: Stretch, longest: usize, read: Option<Read<'_>>, time: Option<i64>) {
        let size = |read: &Read<'_>| read.payload.len() + read.key.as_ref().map_or(0, |k| k.len());
        let Some(read) = read.filter(|read| size(read) <= longest) else {
            return self.bad.push(line);
        };
        let mut add = |text: &[u8]| {
            let from = self.bytes.len();
            self.bytes.extend_from_slice(text);
            (from, self.bytes.len())
        };
        let key = read.key.as_deref().map(&mut add);
        let payload = add(&read.payload);
        let timestamp_ms = time.unwrap_or(read.timestamp_ms);
        self.messages.push(Message { line, timestamp_ms, key, payload });
    }
}

impl Walk<'_> {
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
        let place = Place { inode: self.inode, offset: entry.offset };
        let wanted = own || self.which == Which::All;
        if done || !wanted || self.settled.contains(&place) {
            self.pass(end, own);
            return Ok(true);
        }
        let stretch = Stretch { from: entry.offset, len: u64::from(entry.len) };
        // Longer than any line that this configuration could send.
        if entry.len as usize > longest_line(self.longest) {
            self.collected.bad.push(stretch);
            self.pass(end, own);
            return Ok(true);
        }
        let line = self.window.get(entry.offset, entry.len as usize)?;
        let good = entry.matches(line) && line.ends_with(b"\n");
        let read = good.then(|| format::read(&line[..line.len() - 1], Writing::Escaped));
        let read = read.and_then(Result::ok);
        let same_topic = read.as_ref().is_none_or(|read| read.topic == self.topic);
        if same_topic {
            let time = Some(entry.timestamp_ms);
            self.collected.put(stretch, self.longest, read, time);
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
        let most = longest_line(self.longest);
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
            self.collected.bad.push(stretch);
            self.pass(self.at + stretch.len, false);
            return Ok(Some(true));
        };
        let stretch = stretch(len + 1);
        let place = Place { inode: self.inode, offset: self.at };
        let read =
            (!self.progress.inside_bad).then(|| format::read(&bytes[..len], self.others_writing));
        let read = read.and_then(Result::ok);
        if read.as_ref().is_some_and(|read| read.topic != self.topic) {
            return Ok(Some(false));
        }
        if !self.settled.contains(&place) {
            self.collected.put(stretch, self.longest, read, None);
        }
        self.progress.inside_bad = false;
        self.pass(self.at + stretch.len, false);
        Ok(Some(true))
    }
}

/// The longest line of a message whose key and payload take `longest` bytes: every byte may be escaped.
fn longest_line(longest: usize) -> usize {
    2 * longest + 1024
}
