//! Messages that could not be delivered, on their way from the queue to the backup files. They keep their
//! place in the queue until their line is written; when the disk takes none, they wait and it is tried again.

use super::events::Append;
use super::sources::Sources;
use super::{Level, Shared};
use crate::backup::format::Line;
use crate::backup::{BackupDir, BackupError, Lines};
use crate::producer::{Record, RecordId, Time};
use crate::stats;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Bytes of lines that go into one write, unless files may not become that large.
const CHUNK: u64 = 1 << 20;
/// Messages written in one turn of the driver.
const RECORDS_A_TURN: usize = 20_000;
/// Pause after a failed write.
const PAUSE: Duration = Duration::from_secs(1);

struct Waiting {
    topic: String,
    records: Vec<Record>,
    reason: String,
    in_doubt: bool,
}

/// Messages and their bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Amount {
    pub records: u64,
    pub bytes: u64,
}

impl Amount {
    pub fn of(records: &[Record]) -> Amount {
        let bytes = records.iter().map(|record| u64::from(record.bytes)).sum();
        Amount { records: records.len() as u64, bytes }
    }

    pub fn add(&mut self, other: Amount) {
        self.records += other.records;
        self.bytes += other.bytes;
    }

    pub fn subtract(&mut self, other: Amount) {
        self.records -= other.records;
        self.bytes -= other.bytes;
    }
}

/// The messages that wait for the backup.
pub(super) struct Spill<'a> {
    backup: &'a mut BackupDir,
    waiting: VecDeque<Waiting>,
    amount: Amount,
    /// Topics whose file took nothing a moment ago, and when it is tried again. The others go on.
    paused: HashMap<String, Time>,
    chunk: Lines,
}

impl<'a> Spill<'a> {
    pub fn new(backup: &'a mut BackupDir) -> Spill<'a> {
        let (waiting, paused) = (VecDeque::new(), HashMap::new());
        Spill { backup, waiting, amount: Amount::default(), paused, chunk: Lines::default() }
    }

    /// Takes over messages that failed for `reason`.
    pub fn add(&mut self, topic: String, records: Vec<Record>, reason: String, in_doubt: bool) {
        self.amount.add(Amount::of(&records));
        self.waiting.push_back(Waiting { topic, records, reason, in_doubt });
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What waits here.
    pub fn amount(&self) -> Amount {
        self.amount
    }

    /// When there is something to do.
    pub fn retry_at(&self, shared: &Shared) -> Time {
        let resumes = |topic: &str| self.paused.get(topic).copied().unwrap_or(Time(0));
        let waiting = self.waiting.iter().map(|waiting| resumes(&waiting.topic));
        let appends = shared.events.append_topic().map(|topic| resumes(&topic));
        waiting.chain(appends).min().unwrap_or(Time::NEVER)
    }

    /// Writes what the event loop left for the files: a user's failed_cb wrote it through kfk.fp, or `log()`
    /// refused it.
    pub fn write_appends(&mut self, now: Time, shared: &Shared) {
        while let Some(topic) = shared.events.append_topic()
            && !self.is_paused(&topic, now)
            && let Some((topic, text)) = shared.events.take_append()
        {
            if let Err(error) = append(self.backup, &topic, &text) {
                stats::add(&shared.stats.backup_refused_cnt, 1);
                shared.lines.put(now, Level::Error, "append", &topic, error);
                shared.events.put_append_back(topic.clone(), text);
                self.paused.insert(topic, now + PAUSE);
            }
        }
    }

    fn is_paused(&self, topic: &str, now: Time) -> bool {
        self.paused.get(topic).is_some_and(|until| *until > now)
    }

    /// Writes what waits, a bounded amount at a time.
    pub fn write(&mut self, now: Time, sources: &mut Sources, shared: &Shared) {
        self.paused.retain(|_, until| *until > now);
        let mut left = RECORDS_A_TURN;
        for _ in 0..self.waiting.len() {
            let Some(mut waiting) = self.waiting.pop_front() else { return };
            if left > 0 && !self.is_paused(&waiting.topic, now) {
                left -= self.write_one(now, &mut waiting, left, sources, shared);
            }
            if !waiting.records.is_empty() {
                self.waiting.push_back(waiting);
            }
        }
        if self.chunk.capacity() as u64 > 2 * CHUNK {
            self.chunk = Lines::default();
        }
    }

    /// Writes up to `most` of one group; returns how many.
    fn write_one(
        &mut self,
        now: Time,
        waiting: &mut Waiting,
        most: usize,
        sources: &mut Sources,
        shared: &Shared,
    ) -> usize {
        let mut written = 0;
        while written < most && !waiting.records.is_empty() {
            self.chunk.clear();
            let mut count = 0;
            for record in waiting.records.iter().take(most - written) {
                // As in encode::produce: a slot in use is whole, or the thread starts over.
                let slot = sources.get(record.id).expect("a slot in use is whole");
                self.chunk.push(&Line {
                    timestamp_ms: slot.timestamp_ms,
                    topic: &waiting.topic,
                    key: slot.key,
                    payload: slot.payload,
                });
                count += 1;
                if self.chunk.bytes() as u64 >= chunk_limit(self.backup) {
                    break;
                }
            }
            if let Err(error) = self.backup.append(&waiting.topic, &self.chunk) {
                let text = format_args!(
                    "{error}; {} messages that could not be delivered wait in the queue for it",
                    waiting.records.len()
                );
                stats::add(&shared.stats.backup_refused_cnt, 1);
                shared.lines.put(now, Level::Error, "backup", &waiting.topic, text);
                self.paused.insert(waiting.topic.clone(), now + PAUSE);
                break;
            }
            crate::crash_points::crash_point("spilled");
            self.amount.subtract(Amount::of(&waiting.records[..count]));
            for record in waiting.records.drain(..count) {
                sources.done(record.id);
            }
            stats::add(&shared.stats.fail_msg_cnt, count as u64);
            if waiting.in_doubt {
                stats::add(&shared.stats.fail_in_doubt_cnt, count as u64);
            }
            let text = format_args!(
                "topic {}: {}; messages go to {}/{0}",
                waiting.topic,
                waiting.reason,
                self.backup.path().display()
            );
            shared.lines.put(now, Level::Error, "spill", &waiting.topic, text);
            written += count;
        }
        written
    }
}

impl Spill<'_> {
    /// Gives up the oldest messages whose file takes none at the moment, until `records` and `bytes` of those
    /// that `may_go` are gone. Those in doubt stay: they may be in Kafka, but that is not known. Returns how
    /// many went.
    pub fn drop_oldest(
        &mut self,
        now: Time,
        Amount { records, bytes }: Amount,
        may_go: impl Fn(RecordId) -> bool,
        sources: &mut Sources,
    ) -> u64 {
        let mut gone = Amount::default();
        for waiting in &mut self.waiting {
            let paused = self.paused.get(&waiting.topic).is_some_and(|until| *until > now);
            if !paused || waiting.in_doubt {
                continue;
            }
            waiting.records.retain(|record| {
                let goes = (gone.records < records || gone.bytes < bytes) && may_go(record.id);
                if goes {
                    gone.records += 1;
                    gone.bytes += u64::from(record.bytes);
                    sources.done(record.id);
                }
                !goes
            });
        }
        self.waiting.retain(|waiting| !waiting.records.is_empty());
        self.amount.subtract(gone);
        gone.records
    }
}

/// How long a chunk is when it is written. One that is larger than all files may be together would wait for
/// ever.
pub(super) fn chunk_limit(backup: &BackupDir) -> u64 {
    CHUNK.min(backup.limits().file / 2)
}

/// Writes what the event loop left for a topic's file.
pub(super) fn append(
    backup: &mut BackupDir,
    topic: &str,
    text: &Append,
) -> Result<(), BackupError> {
    match text {
        Append::Own(lines) => backup.append(topic, lines),
        Append::Others(text) => backup.append_others(topic, text),
    }
}
