//! Messages that could not be delivered, on their way from the queue to the backup files. Lines of them are made
//! here and written on the disk thread. They keep their place in the queue until that is done; when the disk takes
//! none, they wait and it is tried again.
//!
//! # Invariants
//! - One write is under way at a time, to one file; nobody here waits for it.
//! - A message is done with only after its line is written.

use super::disk::{Disk, Tool};
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
/// Pause after a failed write.
const PAUSE: Duration = Duration::from_secs(1);
/// A write that takes longer than this is told of.
const SLOW: Duration = Duration::from_secs(2);

/// The backup files, which are here or on the disk thread.
pub(super) type Backup = Tool<BackupDir, Written>;

/// What came of a write.
pub(super) struct Written {
    topic: String,
    text: Append,
    result: Result<(), BackupError>,
}

/// Messages of one topic that failed for one reason.
struct Group {
    topic: String,
    records: Vec<Record>,
    reason: String,
    in_doubt: bool,
}

/// Whose text a write is of.
enum UnderWay {
    /// Messages whose lines these are.
    Messages(Vec<Group>),
    /// The event loop's.
    Append,
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
    backup: &'a mut Backup,
    /// In the order in which they came.
    waiting: VecDeque<Group>,
    under_way: Option<UnderWay>,
    /// What waits and what is under way.
    amount: Amount,
    /// Topics whose file took nothing a moment ago, and when it is tried again. The others go on.
    paused: HashMap<String, Time>,
    /// A buffer to be used again.
    lines: Lines,
}

impl<'a> Spill<'a> {
    /// `backup` is here.
    pub fn new(backup: &'a mut Backup) -> Spill<'a> {
        Spill {
            backup,
            waiting: VecDeque::new(),
            under_way: None,
            amount: Amount::default(),
            paused: HashMap::new(),
            lines: Lines::default(),
        }
    }

    /// Takes over messages that failed for `reason`.
    pub fn add(&mut self, topic: String, records: Vec<Record>, reason: String, in_doubt: bool) {
        self.amount.add(Amount::of(&records));
        match self.waiting.back_mut() {
            Some(last)
                if last.topic == topic && last.reason == reason && last.in_doubt == in_doubt =>
            {
                last.records.extend(records);
            }
            _ => self.waiting.push_back(Group { topic, records, reason, in_doubt }),
        }
    }

    /// True when nothing waits and nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_none()
    }

    /// True while text of the event loop's is under way.
    pub fn is_appending(&self) -> bool {
        matches!(self.under_way, Some(UnderWay::Append))
    }

    /// What waits and what is under way.
    pub fn amount(&self) -> Amount {
        self.amount
    }

    /// When there is something to do. The end of a write wakes the driver by itself.
    pub fn retry_at(&self, shared: &Shared) -> Time {
        if self.under_way.is_some() {
            return Time::NEVER;
        }
        let resumes = |topic: &str| self.paused.get(topic).copied().unwrap_or(Time(0));
        let waiting = self.waiting.iter().map(|group| resumes(&group.topic));
        let appends = shared.events.append_topic().map(|topic| resumes(&topic));
        waiting.chain(appends).min().unwrap_or(Time::NEVER)
    }

    fn is_paused(&self, topic: &str, now: Time) -> bool {
        self.paused.get(topic).is_some_and(|until| *until > now)
    }

    /// Takes what came of the write that was under way, and begins the next one.
    pub fn turn(&mut self, now: Time, sources: &mut Sources, shared: &Shared, disk: &Disk) {
        if let Some(written) = self.backup.result() {
            self.settle(now, written, sources, shared);
        }
        if self.under_way.is_some() {
            self.tell_if_slow(now, shared);
            return;
        }
        self.paused.retain(|_, until| *until > now);
        // What a user's failed_cb wrote through kfk.fp, or `log()` refused. First: verdicts wait for it.
        if let Some(topic) = shared.events.append_topic()
            && !self.is_paused(&topic, now)
            && let Some((topic, text)) = shared.events.take_append()
        {
            self.write(now, topic, text, UnderWay::Append, disk);
        } else if let Some((topic, lines, groups)) = self.take_chunk(now, sources) {
            self.write(now, topic, Append::Own(lines), UnderWay::Messages(groups), disk);
        }
    }

    fn write(&mut self, now: Time, topic: String, text: Append, what: UnderWay, disk: &Disk) {
        self.under_way = Some(what);
        self.backup.send(now, disk, move |backup| {
            let result = append(backup, &topic, &text);
            Written { topic, text, result }
        });
    }

    /// The oldest messages of a topic whose file may take them, and their lines.
    fn take_chunk(&mut self, now: Time, sources: &Sources) -> Option<(String, Lines, Vec<Group>)> {
        let limit = chunk_limit(self.backup.here()?);
        let mut topics = self.waiting.iter().map(|group| &group.topic);
        let topic = topics.find(|topic| !self.is_paused(topic, now))?.clone();
        let mut lines = std::mem::take(&mut self.lines);
        let mut groups = Vec::new();
        self.waiting.retain_mut(|group| {
            if group.topic != topic {
                return true;
            }
            let mut count = 0;
            while (lines.bytes() as u64) < limit
                && let Some(record) = group.records.get(count)
            {
                // As in encode::produce: a slot in use is whole, or the thread starts over.
                let slot = sources.get(record.id).expect("a slot in use is whole");
                let (timestamp_ms, key, payload) = (slot.timestamp_ms, slot.key, slot.payload);
                lines.push(&Line { timestamp_ms, topic: &topic, key, payload });
                count += 1;
            }
            if count > 0 {
                let (reason, in_doubt) = (group.reason.clone(), group.in_doubt);
                let records = group.records.drain(..count).collect();
                groups.push(Group { topic: topic.clone(), records, reason, in_doubt });
            }
            !group.records.is_empty()
        });
        Some((topic, lines, groups))
    }

    fn settle(&mut self, now: Time, written: Written, sources: &mut Sources, shared: &Shared) {
        let Written { topic, text, result } = written;
        let under_way = self.under_way.take();
        if let Err(error) = result {
            stats::add(&shared.stats.backup_refused_cnt, 1);
            self.paused.insert(topic.clone(), now + PAUSE);
            let Some(UnderWay::Messages(groups)) = under_way else {
                shared.lines.put(now, Level::Error, "append", &topic, error);
                shared.events.put_append_back(topic, text);
                return;
            };
            let text = format_args!(
                "{error}; {} messages that could not be delivered wait in the queue for it",
                self.amount.records
            );
            shared.lines.put(now, Level::Error, "backup", &topic, text);
            for group in groups.into_iter().rev() {
                self.waiting.push_front(group);
            }
            return;
        }
        if let Append::Own(mut lines) = text
            && lines.capacity() as u64 <= 2 * CHUNK
        {
            lines.clear();
            self.lines = lines;
        }
        let Some(UnderWay::Messages(groups)) = under_way else { return };
        crate::crash_points::crash_point("spilled");
        let path = self.backup.here().map(|backup| backup.path().to_owned()).unwrap_or_default();
        for Group { records, reason, in_doubt, .. } in groups {
            self.amount.subtract(Amount::of(&records));
            let count = records.len() as u64;
            for record in records {
                sources.done(record.id);
            }
            stats::add(&shared.stats.fail_msg_cnt, count);
            stats::add(&shared.stats.fail_in_doubt_cnt, if in_doubt { count } else { 0 });
            let path = path.display();
            let text = format_args!("topic {topic}: {reason}; messages go to {path}/{topic}");
            shared.lines.put(now, Level::Error, "spill", &topic, text);
        }
    }

    fn tell_if_slow(&self, now: Time, shared: &Shared) {
        let taken = self.backup.away_since().map_or(Duration::ZERO, |since| now.since(since));
        if taken >= SLOW {
            let text = format_args!(
                "a write to the backup has taken {} s so far; {} messages that could not be delivered wait in the \
                 queue for the disk of backpath",
                taken.as_secs(),
                self.amount.records
            );
            shared.lines.put(now, Level::Warn, "slow disk", "", text);
        }
    }

    /// Waits for the write that is under way, if one is: its messages would be written again otherwise.
    pub fn finish(&mut self, now: Time, sources: &mut Sources, shared: &Shared) {
        if let Some(written) = self.backup.wait() {
            self.settle(now, written, sources, shared);
        }
    }

    /// Gives up the oldest messages that wait, until `records` and `bytes` of those that `may_go` are gone. Those
    /// in doubt stay: they may be in Kafka, but that is not known. Returns how many went.
    pub fn drop_oldest(
        &mut self,
        Amount { records, bytes }: Amount,
        may_go: impl Fn(RecordId) -> bool,
        sources: &mut Sources,
    ) -> u64 {
        let mut gone = Amount::default();
        for group in self.waiting.iter_mut().filter(|group| !group.in_doubt) {
            group.records.retain(|record| {
                let goes = (gone.records < records || gone.bytes < bytes) && may_go(record.id);
                if goes {
                    gone.records += 1;
                    gone.bytes += u64::from(record.bytes);
                    sources.done(record.id);
                }
                !goes
            });
        }
        self.waiting.retain(|group| !group.records.is_empty());
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
