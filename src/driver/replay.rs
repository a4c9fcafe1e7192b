//! Sending backup files again. A chunk of lines of one topic at a time goes through the producer like records
//! of a queue; what became of it is noted on disk before the next one is read. Reading and noting are errands of the
//! [disk thread](super::disk).
//!
//! Invariants: a line is done with only after Kafka acknowledged it, or alone was refused for good. What fails
//! otherwise stays in its file and is tried again after a pause; it never becomes a new line of the backup.
//! New messages are not held up: lines come at `replay_rate`, and only for topics that can be delivered.

mod fates;
mod pace;

use super::disk::Tool;
use super::intake::new_record;
use super::sources::{ReplayChunk, Sources};
use super::{Level, Run, Shared, wall_ms};
use crate::backup::backlog::{Place, Which};
use crate::backup::{Backlog, BackupError, Chunk, Waiting};
use crate::config::{Config, Replay as Setting};
use crate::producer::{Fate, NewRecord, Outcome, Time};
use crate::protocol::error_code::ErrorCode;
use crate::stats;
use fates::{Current, State};
use pace::Pace;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

/// Time between looks at the directory.
const LOOK_EVERY: Duration = Duration::from_secs(1);
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

/// What came of an errand to the files.
enum Answer {
    /// What waits, by topic; `None` when another process replays.
    Waiting(Result<Option<BTreeMap<String, Waiting>>, BackupError>),
    /// The next lines of a topic, if there are some.
    Read { topic: String, settled: HashSet<Place>, chunk: Result<Option<Chunk>, BackupError> },
    /// What became of a chunk is noted; how many of its lines were moved aside.
    Noted { chunk: Chunk, current: Current, open: Option<usize>, moved: Result<usize, BackupError> },
}

/// The replay's state.
pub(super) struct Replay {
    backlog: Option<Tool<Backlog, Answer>>,
    /// The errand that it is on is to note what became of a chunk.
    noting: bool,
    pace: Pace,
    look_at: Time,
    /// When metadata is asked for again for the sake of topics that cannot be delivered.
    refresh_at: Time,
    /// What waits, by topic, at the last look.
    waiting: BTreeMap<String, Waiting>,
    topics: HashMap<String, Topic>,
    last_topic: String,
    /// The name of the next chunk's first line.
    next_name: u64,
    current: Option<Current>,
}

impl Replay {
    pub fn new(config: &Config, shared: &Shared) -> Replay {
        let which = match config.replay {
            Setting::Off => None,
            Setting::Own => Some(Which::Own),
            Setting::All => Some(Which::All),
        };
        let open = |which| Backlog::open(&config.backpath, which, config.message_max_bytes);
        let backlog = which.map(open).transpose().unwrap_or_else(|error| {
            shared.lines.put(shared.now(), Level::Error, "replay", "", error);
            None
        });
        Self::new_at(shared.now(), config, backlog)
    }

    fn new_at(now: Time, config: &Config, backlog: Option<Backlog>) -> Replay {
        Replay {
            backlog: backlog.map(Tool::new),
            noting: false,
            pace: Pace::new(now, config.replay_rate),
            look_at: Time(0),
            refresh_at: Time(0),
            waiting: BTreeMap::new(),
            topics: HashMap::new(),
            last_topic: String::new(),
            next_name: 0,
            current: None,
        }
    }

    /// When there is something to do. A driver that is `stopping` begins nothing any more. The end of an errand wakes
    /// the driver by itself.
    pub fn deadline(&self, stopping: bool) -> Time {
        match &self.current {
            _ if !self.backlog.as_ref().is_some_and(Tool::is_here) => Time::NEVER,
            None if stopping => Time::NEVER,
            None => self.look_at,
            Some(current) if current.is_over() => Time(0),
            // What goes alone goes when these are answered.
            Some(current) if !current.has_unsent() && current.out > 0 => Time::NEVER,
            Some(_) => self.pace.next_lot(),
        }
    }

    /// Takes the fates of its own lines out of an outcome; gives back what is left of it.
    pub fn take(&mut self, mut outcome: Outcome, sources: &Sources, shared: &Shared) -> Outcome {
        let Some(current) = &mut self.current else { return outcome };
        let alone = outcome.records.len() == 1;
        let fate = outcome.fate;
        outcome.records.retain(|record| {
            let Some(index) = sources.replay_index(record.id) else { return true };
            current.settle(index, fate, alone);
            if fate == Fate::Delivered {
                stats::add(&shared.stats.replayed_cnt, 1);
            }
            false
        });
        outcome
    }

    /// A message of the topic could not be delivered: its lines wait for a moment.
    pub fn topic_failed(&mut self, now: Time, topic: &str) {
        if self.waiting.contains_key(topic) {
            let topic = self.topics.entry(topic.to_owned()).or_default();
            topic.not_before = topic.not_before.max(now + FIRST_PAUSE);
        }
    }
}

impl Run<'_> {
    /// Does what there is to do for the replay.
    pub(super) fn replay(&mut self, now: Time) {
        let leaving = !self.shared.looks_after_others();
        let Some(backlog) = &mut self.replay.backlog else { return };
        // After a chunk, and after each look: what cannot be delivered is not tried at every turn.
        let begin = match backlog.result() {
            Some(answer) => self.take_answer(now, answer),
            None => false,
        };
        if let Some(current) = &mut self.replay.current {
            if leaving {
                current.stop();
            }
            self.feed(now);
            if self.replay.current.as_ref().is_some_and(Current::is_over) {
                self.note(now);
            }
            return;
        }
        let Some(backlog) = self.replay.backlog.as_mut().and_then(Tool::here) else { return };
        if leaving {
            // Another worker's turn.
            return backlog.unlock();
        }
        if now >= self.replay.look_at {
            self.look_at_backlog(now);
        } else if begin {
            self.begin_chunk(now);
        }
    }

    /// True when another chunk may be begun.
    fn take_answer(&mut self, now: Time, answer: Answer) -> bool {
        match answer {
            Answer::Waiting(waiting) => self.take_waiting(now, waiting),
            Answer::Read { topic, settled, chunk } => {
                self.replay.topics.entry(topic.clone()).or_default().settled = settled;
                self.take_chunk(now, topic, chunk);
            }
            Answer::Noted { chunk, current, open, moved } => {
                self.replay.noting = false;
                self.take_note(now, &chunk, &current, open, moved);
            }
        }
        self.replay.current.is_none()
    }

    /// Has the lock taken, and what waits counted.
    fn look_at_backlog(&mut self, now: Time) {
        let Some(backlog) = &mut self.replay.backlog else { return };
        let now_s = wall_ms() / 1000;
        backlog.send(now, self.disk, move |backlog| {
            let locked = backlog.lock();
            Answer::Waiting(match locked {
                Ok(true) => backlog.waiting(now_s).map(Some),
                Ok(false) => Ok(None),
                Err(error) => Err(error),
            })
        });
    }

    fn take_waiting(
        &mut self,
        now: Time,
        waiting: Result<Option<BTreeMap<String, Waiting>>, BackupError>,
    ) {
        let replay = &mut self.replay;
        replay.look_at = now + LOOK_EVERY;
        replay.waiting = match waiting {
            Ok(waiting) => waiting.unwrap_or_default(),
            // What is known of the topics holds at the next look.
            Err(error) => {
                replay.waiting.clear();
                stats::set(&self.shared.stats.replay_waiting_bytes, 0);
                return self.shared.lines.put(now, Level::Error, "replay", "", error);
            }
        };
        let allowed = &self.config.topics;
        replay.waiting.retain(|topic, _| allowed.is_empty() || allowed.contains(topic));
        replay.topics.retain(|topic, _| replay.waiting.contains_key(topic));
        if let Some(backlog) = replay.backlog.as_mut().and_then(Tool::here) {
            if replay.waiting.is_empty() {
                backlog.unlock();
            }
            for error in backlog.troubles() {
                self.shared.lines.put(now, Level::Error, "replay", "", error);
            }
            for name in backlog.left_alone() {
                let text = format_args!(
                    "backup file {name} holds lines of another topic and is not replayed; it was \
                     renamed, perhaps"
                );
                self.shared.lines.put(now, Level::Warn, "left alone", name, text);
            }
            for name in backlog.take_unclaimed() {
                let text = format_args!(
                    "backup file {name} begins with lines that no journal of lkfk's knows, so replay = true does not \
                     send them; if lkfk wrote them (the file is a copy, or its file system changes inode numbers at \
                     each mount) name it TOPIC~redo, and if others did, replay = \"all\" sends them"
                );
                self.shared.lines.put(now, Level::Warn, "unclaimed", &name, text);
            }
        }
        let bytes = replay.waiting.values().map(|waiting| waiting.bytes).sum();
        stats::set(&self.shared.stats.replay_waiting_bytes, bytes);
        // Whether they can be delivered is known once metadata was asked for.
        let mut all = true;
        for topic in replay.waiting.keys() {
            let id = self.producer.topic(now, topic);
            all &= self.producer.is_deliverable(now, id);
        }
        if !all && now >= replay.refresh_at {
            replay.refresh_at = now + REFRESH_EVERY;
            self.producer.refresh_metadata(now);
        }
    }

    /// Has lines of the next topic read that can be delivered.
    fn begin_chunk(&mut self, now: Time) {
        let replay = &mut self.replay;
        let names: Vec<&String> = replay.waiting.keys().collect();
        let turn = names.partition_point(|name| **name <= replay.last_topic);
        for name in names[turn..].iter().chain(&names[..turn]) {
            let id = self.producer.topic(now, name);
            let topic = replay.topics.entry((*name).clone()).or_default();
            if topic.not_before > now || !self.producer.is_deliverable(now, id) {
                continue;
            }
            let Some(backlog) = &mut replay.backlog else { return };
            let (topic, settled) = ((*name).clone(), std::mem::take(&mut topic.settled));
            backlog.send(now, self.disk, move |backlog| {
                let chunk = backlog.read(&topic, &settled);
                Answer::Read { topic, settled, chunk }
            });
            return;
        }
    }

    /// Begins with the lines that were read, if there are some.
    fn take_chunk(&mut self, now: Time, name: String, chunk: Result<Option<Chunk>, BackupError>) {
        let replay = &mut self.replay;
        let topic = replay.topics.entry(name.clone()).or_default();
        let chunk = match chunk {
            Ok(Some(chunk)) => chunk,
            Ok(None) => {
                let sent = std::mem::take(&mut topic.sent);
                if sent > 0 {
                    let text = format_args!(
                        "topic {name}: {sent} messages of its backup files were sent again"
                    );
                    self.shared.lines.put(now, Level::Notice, "replayed", &name, text);
                }
                // Until the next look.
                replay.waiting.remove(&name);
                let left = replay.waiting.values().map(|waiting| waiting.bytes).sum();
                stats::set(&self.shared.stats.replay_waiting_bytes, left);
                return;
            }
            Err(error) => {
                topic.wait_longer(now);
                self.shared.lines.put(now, Level::Error, "replay", &name, error);
                return;
            }
        };
        let text = format_args!("topic {name}: {} is sent again", chunk.file_name());
        self.shared.lines.put(now, Level::Notice, "replay", &name, text);
        let id = self.producer.topic(now, &name);
        replay.last_topic = name;
        replay.current = Some(Current::new(id, chunk.len()));
        let first = replay.next_name;
        replay.next_name += chunk.len() as u64;
        self.sources.replay = Some(ReplayChunk { first, chunk });
    }

    /// Hands lines to the producer, as many as the rate allows.
    fn feed(&mut self, now: Time) {
        let most = self.replay.pace.allowance(now);
        let (Some(current), Some(source)) = (&mut self.replay.current, &self.sources.replay) else {
            return;
        };
        let lines = current.next_lines(most);
        if lines.is_empty() {
            return;
        }
        // Another configuration than the one that wrote them may have nobody to ask.
        let ask = self.config.partitioner.0 && !self.shared.events.has_ended();
        for &index in &lines {
            let Some(line) = source.chunk.get(index) else { continue };
            let record = NewRecord {
                topic: current.topic,
                ..new_record(self.config, source.name(index), now, line.record)
            };
            current.out += 1;
            if let Some(record) = self.asking.hold(record, ask) {
                self.producer.handle_record(now, record);
            }
        }
        if !current.has_unsent() {
            // The next chunk waits for these.
            self.producer.handle_flush(now);
        }
        self.replay.pace.spend(lines.len());
    }

    /// Has noted what became of the chunk in hand, so far, and lets go of it.
    fn note(&mut self, now: Time) {
        let replay = &mut self.replay;
        let (Some(current), Some(ReplayChunk { chunk, .. }), Some(backlog)) =
            (replay.current.take(), self.sources.replay.take(), &mut replay.backlog)
        else {
            return;
        };
        replay.noting = true;
        backlog.send(now, self.disk, move |backlog| {
            let open = current.numbers(State::Open).next();
            let refused: Vec<usize> = current.numbers(State::Refused).collect();
            let moved = backlog.commit(&chunk, open, &refused);
            Answer::Noted { chunk, current, open, moved }
        });
    }

    fn take_note(
        &mut self,
        now: Time,
        chunk: &Chunk,
        current: &Current,
        open: Option<usize>,
        moved: Result<usize, BackupError>,
    ) {
        let name = chunk.topic();
        let topic = self.replay.topics.entry(name.to_owned()).or_default();
        let places = |state| current.numbers(state).filter_map(|index| chunk.place(index));
        topic.sent += current.numbers(State::Sent).count() as u64;
        topic.settled.extend(places(State::Sent));
        match moved {
            Ok(moved) => {
                topic.settled.extend(places(State::Refused));
                if moved > 0 {
                    stats::add(&self.shared.stats.replay_poison_cnt, moved as u64);
                    tell_poison(now, self.shared, chunk, moved, current.refusal);
                }
                if open.is_none() {
                    topic.settled.retain(|place| !chunk.is_past(place));
                    topic.pause = Duration::ZERO;
                } else {
                    topic.wait_longer(now);
                }
            }
            Err(error) => {
                topic.wait_longer(now);
                self.shared.lines.put(now, Level::Error, "replay", name, error);
            }
        }
        if let Some(reason) = current.failure {
            let text = format_args!("topic {name}: {reason}; its backup lines are sent later");
            self.shared.lines.put(now, Level::Warn, "replay failed", name, text);
        }
    }

    /// At the end: has noted what became of the chunk in hand, and waits for that.
    pub(super) fn finish_replay(&mut self) {
        let now = self.shared.now();
        self.note(now);
        if self.replay.noting
            && let Some(answer) = self.replay.backlog.as_mut().and_then(Tool::wait)
        {
            self.take_answer(now, answer);
        }
    }
}

impl Topic {
    fn wait_longer(&mut self, now: Time) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.not_before = now + self.pause;
    }
}

fn tell_poison(
    now: Time,
    shared: &Shared,
    chunk: &Chunk,
    moved: usize,
    refusal: Option<ErrorCode>,
) {
    let (topic, file) = (chunk.topic(), chunk.file_name());
    let refusal = refusal.map(|refusal| refusal.to_string());
    let reason = refusal.or_else(|| chunk.why_bad().map(|why| why.to_string()));
    let reason = reason.unwrap_or_else(|| "they are no lines".into());
    let text = format_args!(
        "{moved} lines of {file} cannot be sent, see {topic}~bad in backpath: {reason}"
    );
    shared.lines.put(now, Level::Error, "poison", topic, text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producer::TopicId;

    #[test]
    fn a_driver_that_stops_is_not_kept_awake_by_what_it_will_not_begin() {
        let path = std::env::temp_dir().join(format!("lkfk-replay-stop-{}", std::process::id()));
        let backlog = Backlog::open(&path, Which::Own, 1000).unwrap();
        let config = Config::default();
        let mut replay = Replay::new_at(Time(0), &config, Some(backlog));
        std::fs::remove_dir_all(&path).unwrap();
        replay.look_at = Time(5);
        assert_eq!(replay.deadline(false), Time(5));
        assert_eq!(replay.deadline(true), Time::NEVER);
        replay.current = Some(Current::new(TopicId(0), 1));
        assert!(replay.deadline(true) < Time::NEVER);
    }
}
