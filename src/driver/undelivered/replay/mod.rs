//! Sending backup files again. A chunk of lines of one topic at a time goes through the producer like records
//! of a queue; what became of it is noted on disk before the next one is read. Reading and noting are jobs of the
//! [disk thread](super::disk).
//!
//! Invariants: a line is done with only after Kafka acknowledged it, or alone was refused for good. What fails
//! otherwise stays in its file and is tried again after a pause; it never becomes a new line of the backup.
//! New messages are not held up: lines come at `replay_rate` ([`pace`], [`auto_rate`]), and only for topics that can be
//! delivered.

mod auto_rate;
mod files;
mod pace;
mod progress;

use super::super::context::{Context, Shared, wall_ms};
use super::super::records::name;
use super::super::records::new_record::new_record;
use super::super::records::partitioning::Partitioning;
use super::super::report::backup::ReplayReport;
use super::disk::Offloaded;
use crate::backup::backlog::Place;
use crate::backup::{Backlog, BackupError, Chunk, Waiting};
use crate::config::Config;
use crate::producer::{NewRecord, Outcome, Producer, Reason, RecordId, Time, TopicId};
use crate::record::Record;
use crate::stats;
use files::{Answer, Files};
use pace::Pace;
use progress::{ChunkProgress, State};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

/// Time between looks at the directory. Where there are thousands of files it is longer: a look takes a hundredth of a
/// processor at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(60);
const PAUSE_PER_COST: u32 = 100;
/// Time between requests for metadata for the sake of lines that wait.
const REFRESH_EVERY: Duration = Duration::from_secs(5);
/// Pause after a line of a topic failed; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is known of a topic whose lines wait.
#[derive(Default)]
struct Topic {
    not_before: Time,
    pause: Duration,
    /// Lines that are done with behind one that is not.
    settled: HashSet<Place>,
    sent: u64,
}

/// The chunk in hand.
struct InHand {
    chunk: Chunk,
    /// Number of its first line among all. Numbers are never used twice, so a late answer names nobody.
    first: u64,
    progress: ChunkProgress,
}

/// The replay's state.
pub(in crate::driver) struct Replay {
    files: Option<Offloaded<Files, Answer>>,
    send_key: bool,
    /// The job that it is away with is to note what became of a chunk.
    noting: bool,
    pace: Pace,
    /// The configuration's `topics`.
    configured: HashSet<String>,
    look_at: Time,
    /// When metadata is asked for again for the sake of topics that cannot be delivered.
    refresh_at: Time,
    /// What waits, by topic, at the last look.
    waiting: BTreeMap<String, Waiting>,
    topics: HashMap<String, Topic>,
    last_topic: String,
    /// The number of the next chunk's first line.
    next_line: u64,
    in_hand: Option<InHand>,
}

impl Replay {
    pub fn new(now: Time, config: &Config) -> Replay {
        Replay {
            files: Files::new(&config.backup, config.delivery.message_max_bytes)
                .map(Offloaded::new),
            send_key: config.delivery.send_key,
            noting: false,
            pace: Pace::new(now, config.backup.replay_rate),
            configured: config.brokers.topics.iter().cloned().collect(),
            look_at: Time(0),
            refresh_at: Time(0),
            waiting: BTreeMap::new(),
            topics: HashMap::new(),
            last_topic: String::new(),
            next_line: 0,
            in_hand: None,
        }
    }

    /// When there is something to do. A producer that is `stopping` begins nothing any more. The end of a job wakes
    /// the driver by itself.
    pub fn deadline(&self, stopping: bool) -> Time {
        match &self.in_hand {
            _ if !self.files.as_ref().is_some_and(Offloaded::is_here) => Time::NEVER,
            None if stopping => Time::NEVER,
            None => self.look_at,
            Some(InHand { progress, .. }) if progress.is_over() => Time(0),
            // What goes alone goes when these are answered.
            Some(InHand { progress, .. }) if !progress.has_unsent() && progress.out > 0 => {
                Time::NEVER
            }
            Some(_) => self.pace.next_lot(),
        }
    }

    /// The record of a line of the chunk in hand, if it is one.
    pub fn get(&self, id: RecordId) -> Option<Record<'_>> {
        let InHand { chunk, first, .. } = self.in_hand.as_ref()?;
        chunk.get(name::line_after(id, *first)?).map(|line| line.record)
    }

    /// Takes its own lines out of an outcome; gives back what is left of it.
    pub fn take(&mut self, cx: &Context<'_>, mut outcome: Outcome) -> Outcome {
        let Some(InHand { chunk, first, progress }) = &mut self.in_hand else {
            self.take_latency(cx.now, &outcome);
            return outcome;
        };
        let alone = outcome.records.len() == 1;
        let delivery = outcome.delivery;
        outcome.records.retain(|record| {
            let line = name::line_after(record.id, *first).filter(|line| *line < chunk.len());
            let Some(line) = line else { return true };
            progress.complete(line, delivery, alone);
            if delivery.is_delivered() {
                stats::add(&cx.shared.stats.replayed_cnt, 1);
            }
            false
        });
        self.take_latency(cx.now, &outcome);
        outcome
    }

    /// New messages were acknowledged, perhaps: the pace goes by them.
    fn take_latency(&mut self, now: Time, outcome: &Outcome) {
        if let Some(oldest) = outcome.records.first()
            && outcome.delivery.is_delivered()
        {
            self.pace.acknowledged(now, outcome.records.len(), now.since(oldest.born));
        }
    }

    /// A message of the topic could not be delivered: its lines wait for a moment.
    pub fn topic_failed(&mut self, now: Time, topic: &str) {
        if self.waiting.contains_key(topic) {
            let topic = self.topics.entry(topic.to_owned()).or_default();
            topic.not_before = topic.not_before.max(now + FIRST_PAUSE);
        }
    }

    /// Does what there is to do.
    pub fn turn(
        &mut self,
        cx: &Context<'_>,
        producer: &mut Producer,
        partitioning: &mut Partitioning,
    ) {
        let leaving = !cx.shared.looks_after_others();
        let Some(files) = &mut self.files else { return };
        // After a chunk, and after each look: what cannot be delivered is not tried at every turn.
        let begin = match files.result() {
            Some(answer) => self.take_answer(cx, producer, answer),
            None => false,
        };
        if let Some(in_hand) = &mut self.in_hand {
            if leaving {
                in_hand.progress.stop();
            }
            self.feed(cx, producer, partitioning);
            if self.in_hand.as_ref().is_some_and(|in_hand| in_hand.progress.is_over()) {
                self.note(cx);
            }
            return;
        }
        let Some(files) = self.files.as_mut().and_then(Offloaded::here) else { return };
        if leaving {
            // Another worker's turn.
            files.backlog().into_iter().for_each(Backlog::unlock);
            return;
        }
        if cx.now >= self.look_at {
            self.look(cx);
        } else if begin {
            self.begin_chunk(cx, producer);
        }
    }

    /// True when another chunk may be begun.
    fn take_answer(&mut self, cx: &Context<'_>, producer: &mut Producer, answer: Answer) -> bool {
        match answer {
            Answer::Waiting(waiting, cost) => {
                self.look_at = cx.now + pause_after(cost);
                self.take_waiting(cx, producer, waiting);
            }
            Answer::Read { topic, settled, chunk } => {
                self.topics.entry(topic.clone()).or_default().settled = settled;
                self.take_chunk(cx, producer, topic, chunk);
            }
            Answer::Noted { chunk, progress, open, moved } => {
                self.noting = false;
                self.take_note(cx, &chunk, &progress, open, moved);
            }
        }
        self.in_hand.is_none()
    }

    /// Has the lock taken, and what waits counted.
    fn look(&mut self, cx: &Context<'_>) {
        let Some(files) = &mut self.files else { return };
        let now_s = wall_ms() / 1000;
        files.send(cx.now, cx.disk, move |files| files.look(now_s));
    }

    fn take_waiting(
        &mut self,
        cx: &Context<'_>,
        producer: &mut Producer,
        waiting: Result<Option<BTreeMap<String, Waiting>>, BackupError>,
    ) {
        self.waiting = match waiting {
            Ok(waiting) => waiting.unwrap_or_default(),
            // What is known of the topics holds at the next look.
            Err(error) => {
                self.waiting.clear();
                self.publish_waiting(cx.shared);
                return cx.report(&ReplayReport::Failed { topic: None, error: &error });
            }
        };
        let allowed = &self.configured;
        self.waiting.retain(|topic, _| allowed.is_empty() || allowed.contains(topic));
        // A topic whose file could not be looked at may wait all the same: what is known of it stays.
        if self.backlog().is_some_and(|backlog| backlog.troubles().is_empty()) {
            self.topics.retain(|topic, _| self.waiting.contains_key(topic));
        }
        self.report(cx);
        self.publish_waiting(cx.shared);
        // Whether they can be delivered is known once metadata was asked for.
        let topics = self.waiting.iter();
        let mut topics: Vec<TopicId> = topics
            .map(|(name, waiting)| topic_of(&self.configured, cx.now, producer, name, waiting))
            .collect();
        topics.retain(|id| !producer.is_deliverable(cx.now, *id));
        if !topics.is_empty() && cx.now >= self.refresh_at {
            self.refresh_at = cx.now + REFRESH_EVERY;
            producer.ask_about(cx.now, &topics);
        }
    }

    /// The files, once they were opened, while no job has them.
    fn backlog(&mut self) -> Option<&mut Backlog> {
        self.files.as_mut()?.here()?.backlog()
    }

    /// Logs what a look has found.
    fn report(&mut self, cx: &Context<'_>) {
        let nothing_waits = self.waiting.is_empty();
        let Some(backlog) = self.backlog() else { return };
        if nothing_waits {
            backlog.unlock();
        }
        for error in backlog.troubles() {
            cx.report(&ReplayReport::Failed { topic: None, error });
        }
        for file in backlog.left_alone() {
            cx.report(&ReplayReport::Renamed { file });
        }
        for file in backlog.take_unclaimed() {
            cx.report(&ReplayReport::Unclaimed { file: &file });
        }
    }

    fn publish_waiting(&self, shared: &Shared) {
        let bytes = self.waiting.values().map(|waiting| waiting.bytes).sum();
        stats::set(&shared.stats.replay_waiting_bytes, bytes);
    }

    /// Has lines of the next topic read that can be delivered.
    fn begin_chunk(&mut self, cx: &Context<'_>, producer: &mut Producer) {
        let waiting: Vec<(&String, &Waiting)> = self.waiting.iter().collect();
        let turn = waiting.partition_point(|(name, _)| **name <= self.last_topic);
        for (name, waiting) in waiting[turn..].iter().chain(&waiting[..turn]) {
            let id = topic_of(&self.configured, cx.now, producer, name, waiting);
            let topic = self.topics.entry((*name).clone()).or_default();
            if topic.not_before > cx.now || !producer.is_deliverable(cx.now, id) {
                continue;
            }
            let Some(files) = &mut self.files else { return };
            let (topic, settled) = ((*name).clone(), std::mem::take(&mut topic.settled));
            files.send(cx.now, cx.disk, move |files| files.read(topic, settled));
            return;
        }
    }

    /// Begins with the lines that were read, if there are some.
    fn take_chunk(
        &mut self,
        cx: &Context<'_>,
        producer: &mut Producer,
        name: String,
        chunk: Result<Option<Chunk>, BackupError>,
    ) {
        let topic = self.topics.entry(name.clone()).or_default();
        let chunk = match chunk {
            Ok(Some(chunk)) => chunk,
            Ok(None) => {
                let lines = std::mem::take(&mut topic.sent);
                if lines > 0 {
                    cx.report(&ReplayReport::Done { topic: &name, lines });
                }
                // Until the next look.
                self.waiting.remove(&name);
                return self.publish_waiting(cx.shared);
            }
            Err(error) => {
                topic.wait_longer(cx.now);
                return cx.report(&ReplayReport::Failed { topic: Some(&name), error: &error });
            }
        };
        cx.report(&ReplayReport::Begun { topic: &name, file: chunk.file_name() });
        // It has been asked about before its lines were read.
        let id = producer.topic_if_it_exists(cx.now, &name);
        let progress = ChunkProgress::new(id, chunk.len());
        self.last_topic = name;
        let first = self.next_line;
        self.next_line += chunk.len() as u64;
        self.in_hand = Some(InHand { chunk, first, progress });
    }

    /// Hands lines to the producer, as many as the rate allows.
    fn feed(&mut self, cx: &Context<'_>, producer: &mut Producer, partitioning: &mut Partitioning) {
        let most = self.pace.allowance(cx.now);
        let Some(InHand { chunk, first, progress }) = &mut self.in_hand else { return };
        let lines = progress.next_lines(most);
        if lines.is_empty() {
            return;
        }
        // Another configuration than the one that wrote them may have nobody to ask.
        let ask = partitioning.is_asked(cx);
        for &line in &lines {
            let Some(found) = chunk.get(line) else { continue };
            let id = name::of_line(*first + line as u64);
            let topic = progress.topic;
            let record =
                NewRecord { topic, record: new_record(self.send_key, id, cx.now, found.record) };
            progress.out += 1;
            partitioning.hand_over(cx.now, record, ask, producer);
        }
        if !progress.has_unsent() {
            // The next chunk waits for these.
            producer.handle_flush(cx.now);
        }
        self.pace.spend(lines.len());
    }

    /// Has noted what became of the chunk in hand, so far, and lets go of it.
    fn note(&mut self, cx: &Context<'_>) {
        let (Some(InHand { chunk, progress, .. }), Some(files)) =
            (self.in_hand.take(), &mut self.files)
        else {
            return;
        };
        self.noting = true;
        files.send(cx.now, cx.disk, move |files| files.note(chunk, progress));
    }

    fn take_note(
        &mut self,
        cx: &Context<'_>,
        chunk: &Chunk,
        progress: &ChunkProgress,
        open: Option<usize>,
        moved: Result<usize, BackupError>,
    ) {
        let name = chunk.topic();
        let topic = self.topics.entry(name.to_owned()).or_default();
        let places = |state| progress.numbers(state).filter_map(|index| chunk.place(index));
        topic.sent += progress.numbers(State::Sent).count() as u64;
        topic.settled.extend(places(State::Sent));
        match moved {
            Ok(moved) => {
                topic.settled.extend(places(State::Refused));
                if moved > 0 {
                    stats::add(&cx.shared.stats.replay_poison_cnt, moved as u64);
                    tell_poison(cx, chunk, moved, progress.refusal);
                }
                if open.is_none() {
                    topic.settled.retain(|place| !chunk.is_past(place));
                    topic.pause = Duration::ZERO;
                } else {
                    topic.wait_longer(cx.now);
                }
            }
            Err(error) => {
                topic.wait_longer(cx.now);
                cx.report(&ReplayReport::Failed { topic: Some(name), error: &error });
            }
        }
        if let Some(reason) = progress.failure {
            cx.report(&ReplayReport::Postponed { topic: name, reason });
        }
    }

    /// At the end: has noted what became of the chunk in hand, and waits for that.
    pub async fn finish(&mut self, cx: &Context<'_>) {
        if self.files.as_ref().is_some_and(Offloaded::is_here) {
            self.note(cx);
        }
        if self.noting
            && let Some(files) = &mut self.files
            && let Some(Answer::Noted { chunk, progress, open, moved }) = files.wait().await
        {
            self.take_note(cx, &chunk, &progress, open, moved);
        }
    }
}

impl Topic {
    fn wait_longer(&mut self, now: Time) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.not_before = now + self.pause;
    }
}

/// Time from the end of a look to the next one.
fn pause_after(cost: Duration) -> Duration {
    (cost * PAUSE_PER_COST).clamp(LOOK_EVERY, LOOK_AT_LEAST_EVERY)
}

/// The producer's number for a topic whose lines wait. Where only strangers' lines do, the name of their file may be
/// anybody's, and is no topic's unless the cluster, or the configuration, knows it as one.
fn topic_of(
    configured: &HashSet<String>,
    now: Time,
    producer: &mut Producer,
    name: &str,
    waiting: &Waiting,
) -> TopicId {
    if waiting.known || configured.contains(name) {
        producer.topic(now, name)
    } else {
        producer.topic_if_it_exists(now, name)
    }
}

fn tell_poison(cx: &Context<'_>, chunk: &Chunk, moved: usize, refusal: Option<Reason>) {
    let (topic, file) = (chunk.topic(), chunk.file_name());
    let refusal = refusal.map(|refusal| refusal.to_string());
    let reason = refusal.or_else(|| chunk.why_bad().map(|why| why.to_string()));
    let reason = reason.unwrap_or_else(|| "they are no lines".into());
    cx.report(&ReplayReport::Refused { topic, file, lines: moved, why: &reason });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::LineBatch;
    use crate::backup::backlog::Which;
    use crate::backup::format::Line;
    use crate::backup::{BackupDir, Limits};

    #[test]
    fn flt_27_a_look_takes_a_hundredth_of_a_processor_at_most() {
        assert_eq!(pause_after(Duration::from_millis(1)), LOOK_EVERY);
        assert_eq!(pause_after(Duration::from_millis(80)), Duration::from_secs(8));
        assert_eq!(pause_after(Duration::from_secs(5)), LOOK_AT_LEAST_EVERY);
    }

    #[test]
    fn a_producer_that_stops_is_not_kept_awake_by_what_it_will_not_begin() {
        let scratch = tempfile::tempdir().unwrap();
        let limits = Limits { file: 1 << 20, total: 1 << 20 };
        let mut lines = LineBatch::default();
        lines.push(&Line::new(0, "t", None, Some(b"payload")));
        BackupDir::open(scratch.path(), limits).unwrap().append("t", &lines).unwrap();
        let mut backlog = Backlog::open(scratch.path(), Which::Own, 1000).unwrap();
        assert!(backlog.lock().unwrap());
        backlog.waiting(0).unwrap();
        let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
        let mut replay = Replay::new(Time(0), &Config::default());
        replay.look_at = Time(5);
        assert_eq!(replay.deadline(false), Time(5));
        assert_eq!(replay.deadline(true), Time::NEVER);
        let progress = ChunkProgress::new(TopicId(0), 1);
        replay.in_hand = Some(InHand { chunk, first: 0, progress });
        assert!(replay.deadline(true) < Time::NEVER);
    }
}
