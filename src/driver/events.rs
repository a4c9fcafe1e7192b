//! What goes between the driver thread and Lua callbacks. The thread never calls Lua: it leaves failures and
//! questions here and rings; Lua on the event loop takes them, runs the user's function, and leaves the answers.
//!
//! Everything is bounded. A message whose callback has not run keeps its place in the queue; if the worker
//! ends first it goes to the backup like everything else that is left.

use super::bell::Bell;
use crate::backup::Lines;
use crate::producer::RecordId;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// Topic ids that there may be: a slot has 16 bits for one.
const TOPICS: usize = 1 << 16;
/// Failures that may wait for the event loop; the others wait in the driver.
const FAILURES: usize = 1024;
/// Questions that may wait for the event loop.
const QUESTIONS: usize = 1024;
/// Bytes of messages that may wait for the event loop, of each of the two.
const MESSAGE_BYTES: usize = 8 << 20;
/// Bytes that `kfk.fp[topic]:write()` may be ahead of the disk.
const APPEND_BYTES: usize = 8 << 20;
/// Bytes from which on what is written goes to the file by itself.
const APPEND_TOGETHER: usize = 64 << 10;

/// A message for `failed_cb`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its name, to be given back with the verdict.
    pub id: RecordId,
    /// Topic.
    pub topic: String,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Payload.
    pub payload: Vec<u8>,
    /// Why it failed.
    pub reason: String,
    /// Kafka's error code, when a broker refused it.
    pub code: Option<i16>,
}

/// A message for the user's partitioner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its name, to be given back with the answer.
    pub id: RecordId,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Partitions of its topic.
    pub partitions: u32,
}

/// Text for a backup file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Append {
    /// What a `failed_cb` wrote, as it wrote it.
    Others(Vec<u8>),
    /// Lines of lkfk's own.
    Own(Lines),
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

fn bytes_of(key: &Option<Vec<u8>>) -> usize {
    key.as_ref().map_or(0, Vec::len)
}

/// What a callback said of its message. It counts once all that was appended before it is on disk.
struct Verdict {
    id: RecordId,
    handled: bool,
    appends: u64,
}

/// Text for a topic's backup file, and the number of the first append in it.
struct Waiting {
    topic: String,
    first: u64,
    text: Append,
}

#[derive(Default)]
struct State {
    failures: VecDeque<Failure>,
    verdicts: Vec<Verdict>,
    questions: VecDeque<Question>,
    answers: Vec<(RecordId, Option<u32>)>,
    appends: VecDeque<Waiting>,
    append_bytes: usize,
    /// Appends ever, and the first of those that were taken and are not written.
    append_count: u64,
    being_written: Option<u64>,
    /// Waiting messages per topic and partition.
    waiting: Vec<(String, i64, u64)>,
    waiting_wanted: bool,
    /// Nobody runs callbacks any more.
    ended: bool,
}

/// The exchange. Locked only to push or pop.
#[derive(Default)]
pub struct Events {
    state: Mutex<State>,
    /// Partition counts by the queue's topic ids, 0 when unknown. Not under the lock: `log()` asks for them.
    partitions: OnceLock<Box<[AtomicU32]>>,
    /// Rung when there is work for the callbacks.
    bell: Arc<Bell>,
}

impl Events {
    /// An exchange that rings when there is work for the callbacks.
    pub fn ringing(bell: Arc<Bell>) -> Events {
        Events { bell, ..Events::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves a queue with an element more or less, nothing torn.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    // ------------------------------------------------------------------------------- event loop's side

    /// Takes a message for `failed_cb`.
    pub fn take_failure(&self) -> Option<Failure> {
        self.state().failures.pop_front()
    }

    /// Says what became of one: `handled` means that the callback returned, otherwise it goes to the backup.
    pub fn give_verdict(&self, id: RecordId, handled: bool) {
        let mut state = self.state();
        let appends = state.append_count;
        state.verdicts.push(Verdict { id, handled, appends });
    }

    /// Takes a message for the partitioner.
    pub fn take_question(&self) -> Option<Question> {
        self.state().questions.pop_front()
    }

    /// Says what the partitioner said; `None` leaves it to the default one.
    pub fn give_answer(&self, id: RecordId, partition: Option<u32>) {
        self.state().answers.push((id, partition));
    }

    /// Text for a topic's backup file; false when too much waits for the disk.
    pub fn append(&self, topic: &str, text: Append) -> bool {
        let mut state = self.state();
        if state.append_bytes + text.bytes() > APPEND_BYTES {
            return false;
        }
        state.append_bytes += text.bytes();
        let first = state.append_count;
        state.append_count += 1;
        let apart = match state.appends.back_mut() {
            Some(last) if last.topic == topic && last.text.bytes() < APPEND_TOGETHER => {
                last.text.extend(text)
            }
            _ => Some(text),
        };
        if let Some(text) = apart {
            state.appends.push_back(Waiting { topic: topic.to_owned(), first, text });
        }
        true
    }

    /// Number of partitions of the topic with this id of the queue's, when it is known. Waits for nothing.
    pub fn partition_count(&self, topic: usize) -> Option<u32> {
        let count = self.partitions.get()?.get(topic)?.load(Ordering::Relaxed);
        (count > 0).then_some(count)
    }

    /// Messages that waited per topic and partition (-1: no metadata yet) when the driver last looked, which
    /// it does again after each call.
    pub fn waiting(&self) -> Vec<(String, i64, u64)> {
        let mut state = self.state();
        state.waiting_wanted = true;
        state.waiting.clone()
    }

    /// Nobody runs callbacks any more: nginx lets no timer run once a worker shuts down.
    pub fn end(&self) {
        self.state().ended = true;
    }

    // ------------------------------------------------------------------------------------ driver's side

    pub(super) fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// True while one more failure may be left here.
    pub(super) fn has_room_for_failure(&self) -> bool {
        let failures = &self.state().failures;
        let bytes = |failure: &Failure| failure.payload.len() + bytes_of(&failure.key);
        failures.len() < FAILURES && failures.iter().map(bytes).sum::<usize>() < MESSAGE_BYTES
    }

    pub(super) fn put_failure(&self, failure: Failure) {
        self.state().failures.push_back(failure);
        self.bell.ring();
    }

    /// Verdicts that count by now, and whether the callbacks had handled their messages: what they had appended is
    /// written.
    pub(super) fn take_verdicts(&self) -> Vec<(RecordId, bool)> {
        let mut state = self.state();
        let waiting = state.appends.iter().map(|waiting| waiting.first);
        let written = waiting.chain(state.being_written).min().unwrap_or(u64::MAX);
        let verdicts = state.verdicts.extract_if(.., |verdict| verdict.appends <= written);
        verdicts.map(|verdict| (verdict.id, verdict.handled)).collect()
    }

    /// True when there are verdicts that do not count yet.
    pub(super) fn has_verdicts(&self) -> bool {
        !self.state().verdicts.is_empty()
    }

    /// How many more questions may be left here.
    pub(super) fn questions_room(&self) -> usize {
        let questions = &self.state().questions;
        let bytes: usize = questions.iter().map(|question| bytes_of(&question.key)).sum();
        if bytes < MESSAGE_BYTES { QUESTIONS.saturating_sub(questions.len()) } else { 0 }
    }

    pub(super) fn put_question(&self, question: Question) {
        self.state().questions.push_back(question);
        self.bell.ring();
    }

    pub(super) fn take_answers(&self) -> Vec<(RecordId, Option<u32>)> {
        std::mem::take(&mut self.state().answers)
    }

    /// Takes the text that is to be written next, one at a time: then comes one of the next two.
    pub(super) fn take_append(&self) -> Option<(String, Append)> {
        let mut state = self.state();
        let Waiting { topic, first, text } = state.appends.pop_front()?;
        state.append_bytes -= text.bytes();
        state.being_written = Some(first);
        Some((topic, text))
    }

    /// The text that was taken is on disk.
    pub(super) fn append_written(&self) {
        self.state().being_written = None;
    }

    /// Gives the text back that was taken: the disk did not take it.
    pub(super) fn put_append_back(&self, topic: String, text: Append) {
        let mut state = self.state();
        state.append_bytes += text.bytes();
        let first = state.being_written.take().unwrap_or_default();
        // Behind the other topics' text, before what was added to its own meanwhile.
        let (own, mut others): (VecDeque<_>, VecDeque<_>) =
            state.appends.drain(..).partition(|other| other.topic == topic);
        others.push_back(Waiting { topic, first, text });
        others.extend(own);
        state.appends = others;
    }

    /// Topic of the text that is to be written next.
    pub(super) fn append_topic(&self) -> Option<String> {
        self.state().appends.front().map(|waiting| waiting.topic.clone())
    }

    pub(super) fn has_appends(&self) -> bool {
        !self.state().appends.is_empty()
    }

    pub(super) fn set_partition_counts(&self, counts: impl Iterator<Item = u32>) {
        let all = || (0..TOPICS).map(|_| AtomicU32::new(0)).collect();
        for (known, count) in self.partitions.get_or_init(all).iter().zip(counts) {
            known.store(count, Ordering::Relaxed);
        }
    }

    pub(super) fn set_waiting_if_wanted<'a>(
        &self,
        waiting: impl Iterator<Item = (&'a str, Option<u32>, usize)>,
    ) {
        if std::mem::take(&mut self.state().waiting_wanted) {
            let rows = waiting.map(|(topic, partition, count)| {
                (topic.to_owned(), partition.map_or(-1, i64::from), count as u64)
            });
            // Not under the lock: there may be many partitions.
            let rows = rows.collect();
            self.state().waiting = rows;
        }
    }

    /// Forgets what an earlier run of the driver left: its records are read from the queue again.
    pub(super) fn forget_records(&self) {
        let mut state = self.state();
        state.failures.clear();
        state.verdicts.clear();
        state.questions.clear();
        state.answers.clear();
        state.being_written = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Append {
        Append::Others(text.into())
    }

    #[test]
    fn a_verdict_counts_once_what_its_callback_wrote_is_on_disk() {
        let events = Events::default();
        let verdict = |id| events.give_verdict(RecordId(id), true);
        verdict(1);
        events.append("a", text("2"));
        verdict(2);
        assert_eq!(events.take_verdicts(), [(RecordId(1), true)]);
        // What comes later does not hold it up.
        assert!(events.take_append().is_some());
        events.append("a", text("3"));
        events.append("b", text("4"));
        verdict(4);
        assert_eq!(events.take_verdicts(), []);
        events.append_written();
        assert_eq!(events.take_verdicts(), [(RecordId(2), true)]);
        // What the disk did not take goes behind the other topics' text, and is waited for all the same.
        let (topic, taken) = events.take_append().unwrap();
        events.put_append_back(topic, taken);
        assert_eq!(events.append_topic().as_deref(), Some("b"));
        events.take_append();
        events.append_written();
        assert!(events.take_verdicts().is_empty() && events.has_verdicts());
        events.take_append();
        events.append_written();
        assert_eq!(events.take_verdicts(), [(RecordId(4), true)]);
        assert!(!events.has_verdicts());
    }
}
