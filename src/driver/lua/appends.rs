//! Text from the event loop for backup files: what a `failed_cb` wrote through `kfk.fp`, and lines of messages that
//! `log()` refused. Text of one topic that comes in a row is joined.

use crate::backup::LineBatch;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

/// Bytes that the event loop may be ahead of the disk.
const MOST_BYTES: usize = 8 << 20;
/// Bytes from which on what is written goes to the file by itself.
const TOGETHER: usize = 64 << 10;

/// Text for a backup file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Append {
    /// What a `failed_cb` wrote, as it wrote it.
    Others(Vec<u8>),
    /// Lines of lkfk's own.
    Own(LineBatch),
}

impl Append {
    fn bytes(&self) -> usize {
        match self {
            Append::Others(text) => text.len(),
            Append::Own(lines) => lines.bytes(),
        }
    }

    /// Adds `later` behind this; gives it back when it is of the other kind.
    fn extend(&mut self, later: Append) -> Option<Append> {
        match (self, later) {
            (Append::Others(text), Append::Others(later)) => text.extend_from_slice(&later),
            (Append::Own(lines), Append::Own(later)) => lines.append(later),
            (_, later) => return Some(later),
        }
        None
    }
}

/// Text for a topic's backup file, and the number of the first append in it.
#[derive(Debug)]
struct Waiting {
    topic: String,
    first: u64,
    text: Append,
}

/// What waits to be written. Locked only to push or pop.
#[derive(Debug, Default)]
pub struct Appends {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// Appends ever.
    count: u64,
    /// The first append of the text that was taken and is not written.
    being_written: Option<u64>,
}

impl Appends {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves a queue with an element more or less, nothing torn.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Event loop: leaves text for a topic's backup file; false when too much waits for the disk.
    pub fn put(&self, topic: &str, text: Append) -> bool {
        let mut state = self.state();
        if state.bytes + text.bytes() > MOST_BYTES {
            return false;
        }
        state.bytes += text.bytes();
        let first = state.count;
        state.count += 1;
        let apart = match state.waiting.back_mut() {
            Some(last) if last.topic == topic && last.text.bytes() < TOGETHER => {
                last.text.extend(text)
            }
            _ => Some(text),
        };
        if let Some(text) = apart {
            state.waiting.push_back(Waiting { topic: topic.to_owned(), first, text });
        }
        true
    }

    /// How many there were ever.
    pub(super) fn count(&self) -> u64 {
        self.state().count
    }

    /// All appends before this number are on disk.
    pub(super) fn written(&self) -> u64 {
        let state = self.state();
        let waiting = state.waiting.iter().map(|waiting| waiting.first);
        waiting.chain(state.being_written).min().unwrap_or(u64::MAX)
    }

    /// Driver: takes the text that is to be written next, one at a time: then comes one of the next two.
    pub(in crate::driver) fn take(&self) -> Option<(String, Append)> {
        let mut state = self.state();
        let Waiting { topic, first, text } = state.waiting.pop_front()?;
        state.bytes -= text.bytes();
        state.being_written = Some(first);
        Some((topic, text))
    }

    /// Driver: the text that was taken is on disk.
    pub(in crate::driver) fn set_written(&self) {
        self.state().being_written = None;
    }

    /// Driver: gives the text back that was taken, since the disk did not take it.
    pub(in crate::driver) fn put_back(&self, topic: String, text: Append) {
        let mut state = self.state();
        state.bytes += text.bytes();
        let first = state.being_written.take().unwrap_or_default();
        // Behind the other topics' text, before what was added to its own meanwhile.
        let (own, mut others): (VecDeque<_>, VecDeque<_>) =
            state.waiting.drain(..).partition(|other| other.topic == topic);
        others.push_back(Waiting { topic, first, text });
        others.extend(own);
        state.waiting = others;
    }

    /// Driver: the topic of the text that is to be written next.
    pub(in crate::driver) fn next_topic(&self) -> Option<String> {
        self.state().waiting.front().map(|waiting| waiting.topic.clone())
    }

    pub(in crate::driver) fn is_empty(&self) -> bool {
        self.state().waiting.is_empty()
    }

    /// An earlier run of the driver had taken text, of which nobody knows any more.
    pub(super) fn forget_write(&self) {
        self.state().being_written = None;
    }
}
