//! Messages that could not be delivered go from the queue to the backup files. Their lines are made here and written
//! on the disk thread. They keep their place in the queue until that is done; when the disk takes none, they wait and
//! it is tried again.
//!
//! # Invariants
//! - One write is under way at a time, to one file. Nobody here waits for it, but at the end of a run.
//! - A message is done with only after its line is written.

use super::super::context::{Context, Shared};
use super::super::lua::Append;
use super::super::records::amount::Amount;
use super::super::records::queues::Queues;
use super::super::report::backup::BackupReport;
use super::disk::Offloaded;
use crate::backup::format::Line;
use crate::backup::{BackupDir, BackupError, LineBatch};
use crate::producer::{Reason, Record, RecordId, Time};
use crate::stats;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Bytes of lines that go into one write, unless files may not become that large.
const CHUNK: u64 = 1 << 20;
/// Lines of a chunk. Who is killed behind its writing leaves them in the queue, too.
pub(super) const CHUNK_LINES: usize = 4096;
/// Pause after a failed write.
const PAUSE: Duration = Duration::from_secs(1);
/// A write that takes longer than this is told of.
const SLOW: Duration = Duration::from_secs(2);
/// A write that takes longer hangs, and messages that have waited longer wait for a disk that does not keep up.
const STUCK: Duration = Duration::from_millis(250);
/// Messages that come within this time may be one group.
const TOGETHER: Duration = Duration::from_millis(50);

/// The backup files, which are here or on the disk thread.
pub(in crate::driver) type Backup = Offloaded<BackupDir, Written>;

/// What came of a write.
pub(in crate::driver) struct Written {
    topic: String,
    text: Append,
    result: Result<(), BackupError>,
}

/// Messages of one topic that failed for one reason.
struct Group {
    since: Time,
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

/// The messages that wait for the backup.
pub(in crate::driver) struct Spill<'a> {
    backup: &'a mut Backup,
    /// In the order in which they came; first those that the disk did not take.
    waiting: VecDeque<Group>,
    under_way: Option<UnderWay>,
    /// The last write was text of the event loop's.
    appended: bool,
    /// What waits and what is under way.
    amount: Amount,
    /// Topics whose file took nothing a moment ago, and when it is tried again. The others go on.
    paused: HashMap<String, Time>,
    /// A buffer to be used again.
    lines: LineBatch,
}

impl<'a> Spill<'a> {
    /// `backup` is here.
    pub fn new(backup: &'a mut Backup) -> Spill<'a> {
        Spill {
            backup,
            waiting: VecDeque::new(),
            under_way: None,
            appended: false,
            amount: Amount::default(),
            paused: HashMap::new(),
            lines: LineBatch::default(),
        }
    }

    /// Takes over messages that failed for `reason`.
    pub fn add(
        &mut self,
        now: Time,
        topic: String,
        records: Vec<Record>,
        reason: String,
        in_doubt: bool,
    ) {
        self.amount.add(Amount::of(&records));
        if let Some(last) = self.waiting.back_mut()
            && (&last.topic, &last.reason, last.in_doubt) == (&topic, &reason, in_doubt)
            && now.since(last.since) < TOGETHER
        {
            last.records.extend(records);
            return;
        }
        self.waiting.push_back(Group { since: now, topic, records, reason, in_doubt });
    }

    /// True when nothing waits and nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_none()
    }

    /// What waits and what is under way.
    pub fn amount(&self) -> Amount {
        self.amount
    }

    /// When there is something to do. The end of a write wakes the driver by itself.
    pub fn deadline(&self, shared: &Shared) -> Time {
        if self.under_way.is_some() {
            return Time::NEVER;
        }
        let resumes = |topic: &str| self.paused.get(topic).copied().unwrap_or(Time(0));
        let waiting = self.waiting.iter().map(|group| resumes(&group.topic));
        let appends = shared.lua.appends.next_topic().map(|topic| resumes(&topic));
        waiting.chain(appends).min().unwrap_or(Time::NEVER)
    }

    fn is_paused(&self, topic: &str, now: Time) -> bool {
        self.paused.get(topic).is_some_and(|until| *until > now)
    }

    /// Takes what came of the write that was under way, and begins the next one.
    pub fn turn(&mut self, cx: &Context<'_>, queues: &mut Queues) {
        if let Some(written) = self.backup.result() {
            self.take_result(cx, written, queues);
        }
        if self.under_way.is_some() {
            return self.tell_if_slow(cx);
        }
        self.paused.retain(|_, until| *until > cx.now);
        // In turns, so that none of the two waits for an end of the other.
        if !self.appended && self.write_append(cx) {
            return;
        }
        if !self.write_messages(cx, queues) {
            self.write_append(cx);
        }
    }

    /// Begins to write what a user's failed_cb wrote through kfk.fp, or `log()` refused, if there is something.
    fn write_append(&mut self, cx: &Context<'_>) -> bool {
        let appends = &cx.shared.lua.appends;
        if let Some(topic) = appends.next_topic()
            && !self.is_paused(&topic, cx.now)
            && let Some((topic, text)) = appends.take()
        {
            self.appended = true;
            self.write(cx, topic, text, UnderWay::Append);
            return true;
        }
        false
    }

    /// Begins to write a chunk of messages, if there are some.
    fn write_messages(&mut self, cx: &Context<'_>, queues: &Queues) -> bool {
        let Some((topic, lines, groups)) = self.take_chunk(cx.now, queues) else { return false };
        self.appended = false;
        self.write(cx, topic, Append::Own(lines), UnderWay::Messages(groups));
        true
    }

    fn write(&mut self, cx: &Context<'_>, topic: String, text: Append, what: UnderWay) {
        self.under_way = Some(what);
        self.backup.send(cx.now, cx.disk, move |backup| {
            let result = append(backup, &topic, &text);
            Written { topic, text, result }
        });
    }

    /// The oldest messages of a topic whose file may take them, and their lines.
    fn take_chunk(
        &mut self,
        now: Time,
        queues: &Queues,
    ) -> Option<(String, LineBatch, Vec<Group>)> {
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
                && lines.count() < CHUNK_LINES
                && let Some(record) = group.records.get(count)
            {
                let slot = queues.in_use(record.id);
                lines.push(&Line { logged_ms: slot.logged_ms, topic: &topic, record: slot.record });
                count += 1;
            }
            if count > 0 {
                let records = group.records.drain(..count).collect();
                let (topic, reason) = (topic.clone(), group.reason.clone());
                groups.push(Group { topic, records, reason, ..*group });
            }
            !group.records.is_empty()
        });
        Some((topic, lines, groups))
    }

    fn take_result(&mut self, cx: &Context<'_>, written: Written, queues: &mut Queues) {
        let Written { topic, text, result } = written;
        let under_way = self.under_way.take();
        let stats = &cx.shared.stats;
        if let Err(error) = result {
            stats::add(&stats.backup_refused_cnt, 1);
            self.paused.insert(topic.clone(), cx.now + PAUSE);
            let Some(UnderWay::Messages(groups)) = under_way else {
                cx.report(&BackupReport::NotAppended { topic: &topic, error: &error });
                return cx.shared.lua.appends.put_back(topic, text);
            };
            let waiting = self.amount.records;
            cx.report(&BackupReport::Refused { topic: &topic, error: &error, waiting });
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
        let Some(UnderWay::Messages(groups)) = under_way else {
            return cx.shared.lua.appends.set_written();
        };
        crate::crash_points::crash_point("spilled");
        let path = self.backup.here().map(|backup| backup.path().to_owned()).unwrap_or_default();
        for Group { records, reason, in_doubt, .. } in groups {
            self.amount.subtract(Amount::of(&records));
            let count = records.len() as u64;
            for record in records {
                queues.done(record.id);
            }
            stats::add(&stats.fail_msg_cnt, count);
            stats::add(&stats.fail_in_doubt_cnt, if in_doubt { count } else { 0 });
            // At nginx's default level this line is all there is.
            let timed_out = reason == Reason::TimedOut.to_string();
            let last_warning = timed_out.then(|| cx.shared.log.last_warning()).flatten();
            let (path, topic, reason) = (&*path, &*topic, &*reason);
            cx.report(&BackupReport::Written { path, topic, reason, last_warning });
        }
    }

    fn tell_if_slow(&self, cx: &Context<'_>) {
        let taken = self.backup.away_since().map_or(Duration::ZERO, |since| cx.now.since(since));
        if taken >= SLOW {
            cx.report(&BackupReport::Slow { taken, waiting: self.amount.records });
        }
    }

    /// Waits for the write that is under way, if one is: its messages would be written again otherwise.
    pub async fn finish(&mut self, cx: &Context<'_>, queues: &mut Queues) {
        if let Some(written) = self.backup.wait().await {
            self.take_result(cx, written, queues);
        }
    }

    /// Drops the oldest messages whose disk is full, hangs, or does not keep up, until as much as is `wanted` of those
    /// that `may_go` is gone. Those in doubt stay: they may be in Kafka, but that is not known. Returns how many went.
    pub fn drop_oldest(
        &mut self,
        now: Time,
        wanted: Amount,
        may_go: impl Fn(RecordId) -> bool,
        queues: &mut Queues,
    ) -> u64 {
        let mut gone = Amount::default();
        let hangs = self.backup.away_since().is_some_and(|since| now.since(since) >= STUCK);
        let paused = &self.paused;
        let stuck = |group: &&mut Group| {
            let is_paused = paused.get(&group.topic).is_some_and(|until| *until > now);
            !group.in_doubt && (hangs || is_paused || now.since(group.since) >= STUCK)
        };
        for group in self.waiting.iter_mut().filter(stuck) {
            group.records.retain(|record| {
                let goes = gone.is_short_of(wanted) && may_go(record.id);
                if goes {
                    gone.add(Amount::of(&[*record]));
                    queues.done(record.id);
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

#[cfg(test)]
mod tests {
    use super::super::super::records::name::{self, OWN};
    use super::*;
    use crate::backup::Limits;
    use crate::queue::layout::NO_PARTITION;
    use crate::queue::{Flags, Owner, Queue, QueueDir, Writer};
    use std::sync::Arc;

    #[test]
    fn drop_oldest_takes_what_the_disk_does_not_and_nothing_in_doubt() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path();
        let dir = Arc::new(QueueDir::open(path).unwrap());
        let queue =
            Arc::new(Queue::create(dir, Owner::of_default_producer("spill"), "1", 0, 0).unwrap());
        let mut writer = Writer::new(&queue, 100, 100);
        let topic = writer.topic("t").unwrap();
        let mut queues = Queues::new(queue);
        let mut record = || {
            let logged = crate::record::Record::new(0, None, Some(b"payload"));
            writer.push(topic, NO_PARTITION, 0, &logged, Flags::NONE).unwrap();
            let own = queues.source(OWN).unwrap();
            let position = own.reader.read().unwrap().unwrap().position;
            let id = name::of_slot(OWN, position);
            Record { id, born: Time(0), bytes: 50, key_hash: None, partition: None }
        };
        let groups = [0, 1, 2, 3].map(|_| vec![record(), record()]);
        let limits = Limits { file: 1 << 20, total: 1 << 20 };
        let mut backup = Offloaded::new(BackupDir::open(path, limits).unwrap());
        let mut spill = Spill::new(&mut backup);
        let [in_doubt, old, also_old, new] = groups;
        let (long_ago, just_now) = (Time(0), Time(STUCK.as_micros() as u64));
        let mut add = |when, records, in_doubt| {
            spill.add(when, "t".into(), records, "out of reach".into(), in_doubt);
        };
        add(long_ago, in_doubt, true);
        add(long_ago, old, false);
        add(long_ago, also_old, false);
        add(just_now, new, false);
        let mut drop_oldest = |now, records| {
            spill.drop_oldest(now, Amount { records, bytes: 0 }, |_| true, &mut queues)
        };
        let dropped = [
            drop_oldest(Time(just_now.0 - 1), 1),
            drop_oldest(just_now, 1),
            drop_oldest(just_now, 100),
        ];
        assert_eq!(dropped, [0, 1, 3]);
        assert_eq!(spill.amount(), Amount { records: 4, bytes: 200 });
        // Whatever their age, when the disk takes nothing.
        spill.paused.insert("t".into(), Time(just_now.0 + 1));
        let dropped =
            spill.drop_oldest(just_now, Amount { records: 1, bytes: 0 }, |_| true, &mut queues);
        assert_eq!(dropped, 1);
    }
}
