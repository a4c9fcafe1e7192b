//! What goes between the driver thread and Lua. The thread never calls Lua and never touches nginx's memory: it leaves
//! things here, the event loop takes them, runs the user's functions, and leaves the answers.
//!
//! Everything is bounded. A message whose callback has not run keeps its place in the queue; if the worker ends first
//! it goes to the backup like everything else that is left.

pub mod appends;
pub mod bell;
pub mod log;
mod mailbox;
pub mod topics;

pub use appends::{Append, Appends};
pub use mailbox::{Mailbox, Weigh};
pub use topics::Topics;

use crate::producer::RecordId;
use bell::Bell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Failures that may wait for the event loop; the others wait in the driver.
const FAILURES: usize = 1024;
/// Questions that may wait for the event loop.
const QUESTIONS: usize = 1024;
/// Bytes of messages that may wait for the event loop, of each of the two.
const MESSAGE_BYTES: usize = 8 << 20;

/// A message for `failed_cb`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its name, to be given back with the verdict.
    pub id: RecordId,
    /// Topic.
    pub topic: String,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Payload; `None` for a null payload.
    pub payload: Option<Vec<u8>>,
    /// Headers, as [`Headers`](crate::record::Headers) has them.
    pub headers: Vec<u8>,
    /// The time on the wire, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Why it failed.
    pub reason: String,
    /// Kafka's error code, when a broker refused it.
    pub code: Option<i16>,
}

impl Weigh for Failure {
    fn bytes(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        len(&self.key) + len(&self.payload) + self.headers.len()
    }
}

/// What a callback said of its message. It counts once all that was appended before it is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The message.
    pub id: RecordId,
    /// The callback returned; otherwise the message goes to the backup.
    pub handled: bool,
    /// How many appends there had been.
    appends: u64,
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

impl Weigh for Question {
    fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len)
    }
}

/// Everything that one producer exchanges with Lua.
#[derive(Debug)]
pub struct LuaPorts {
    /// Messages for `failed_cb`, and its verdicts.
    pub failures: Mailbox<Failure, Verdict>,
    /// Messages for the partitioner, and the partition that it chose; `None` leaves that to the default one.
    pub questions: Mailbox<Question, (RecordId, Option<u32>)>,
    /// Text for backup files.
    pub appends: Appends,
    /// What is known of topics.
    pub topics: Topics,
    /// Nobody runs callbacks any more.
    ended: AtomicBool,
}

impl LuaPorts {
    /// Ports that ring `bell` when there is work for the callbacks.
    pub fn new(bell: &Arc<Bell>) -> LuaPorts {
        LuaPorts {
            failures: Mailbox::new(FAILURES, MESSAGE_BYTES, bell.clone()),
            questions: Mailbox::new(QUESTIONS, MESSAGE_BYTES, bell.clone()),
            appends: Appends::default(),
            topics: Topics::default(),
            ended: AtomicBool::new(false),
        }
    }

    /// Event loop: says what became of a failed message.
    pub fn give_verdict(&self, id: RecordId, handled: bool) {
        self.failures.answer(Verdict { id, handled, appends: self.appends.count() });
    }

    /// Event loop: nobody begins a callback any more, since nginx lets no timer run once a worker shuts down. What was
    /// handed to a callback is still answered; what was not is the driver's again.
    pub fn end_callbacks(&self) {
        self.failures.close();
        self.questions.close();
        self.ended.store(true, Ordering::Release);
    }

    pub(in crate::driver) fn callbacks_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Verdicts that count by now: what their callbacks had appended is on disk.
    pub(in crate::driver) fn take_verdicts(&self) -> Vec<Verdict> {
        let written = self.appends.written();
        self.failures.take_answers(|verdict| verdict.appends <= written)
    }

    /// Forgets what an earlier run of the driver left: its records are read from the queue again.
    pub(in crate::driver) fn forget_records(&self) {
        self.failures.clear();
        self.questions.clear();
        self.appends.forget_write();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Append {
        Append::Others(text.into())
    }

    fn failure(id: u64) -> Failure {
        let (topic, reason) = ("t".to_owned(), "why".to_owned());
        Failure {
            id: RecordId(id),
            topic,
            key: None,
            payload: None,
            headers: Vec::new(),
            timestamp_ms: 0,
            reason,
            code: None,
        }
    }

    #[test]
    fn a_verdict_counts_once_what_its_callback_wrote_is_on_disk() {
        let lua = LuaPorts::new(&Arc::default());
        let verdict = |id| lua.give_verdict(RecordId(id), true);
        let taken = || -> Vec<u64> { lua.take_verdicts().iter().map(|said| said.id.0).collect() };
        verdict(1);
        lua.appends.put("a", text("2"));
        verdict(2);
        assert_eq!(taken(), [1]);
        // What comes later does not hold it up.
        assert!(lua.appends.take().is_some());
        lua.appends.put("a", text("3"));
        lua.appends.put("b", text("4"));
        verdict(4);
        assert!(taken().is_empty());
        lua.appends.set_written();
        assert_eq!(taken(), [2]);
        // What the disk did not take goes behind the other topics' text, and is waited for all the same.
        let (topic, refused) = lua.appends.take().unwrap();
        lua.appends.put_back(topic, refused);
        assert_eq!(lua.appends.next_topic().as_deref(), Some("b"));
        lua.appends.take();
        lua.appends.set_written();
        assert!(taken().is_empty() && lua.failures.has_answers());
        lua.appends.take();
        lua.appends.set_written();
        assert_eq!(taken(), [4]);
        assert!(!lua.failures.has_answers());
    }

    /// What a callback may have begun with is the callback's; what it has not seen is the backup's.
    #[test]
    fn once_callbacks_have_ended_no_message_is_both_handed_out_and_taken_back() {
        let lua = LuaPorts::new(&Arc::default());
        (1..=3).for_each(|id| lua.failures.put(failure(id)));
        assert_eq!(lua.failures.take().unwrap().id, RecordId(1));
        lua.end_callbacks();
        assert_eq!(lua.failures.take(), None);
        let back: Vec<u64> = lua.failures.withdraw().iter().map(|failure| failure.id.0).collect();
        assert_eq!(back, [2, 3]);
        lua.give_verdict(RecordId(1), true);
        assert_eq!(lua.take_verdicts().len(), 1);
    }
}
