//! `replay_rate = "auto"`: the rate follows what the brokers acknowledge of new messages, and how long they take.
//!
//! ```text
//! idle (any rate) <------ nothing new for a second ------.
//!   |                                                    |
//!   '-- something new --> measuring (floor) --> sharing -'
//!                            ^                     |
//!                            '-- at the floor, or  '
//!                                a minute later
//! ```
//! Measuring finds the 99th percentile of new messages' latency while replay takes next to nothing. Sharing raises the
//! rate step by step, up to what new messages have, and lowers it when too many of them are slower than that by more
//! than a tenth; it then stays below that rate for a while, as each try costs some messages.
//!
//! Invariants: beside new messages the rate is at most theirs, and never less than [`FLOOR`], which wins. A latency
//! that was measured is a minute old at most.

use crate::producer::Time;
use std::time::Duration;

/// The least, in lines a second.
pub(super) const FLOOR: u64 = 1_000;
/// New messages are counted in windows of this length, and their rate is that of the last [`WINDOWS`].
const WINDOW: Duration = Duration::from_millis(200);
const WINDOWS: usize = 5;
/// How long latencies are collected before the rate changes, and before they count as measured.
const STEP: Duration = Duration::from_millis(500);
const MEASURE: Duration = Duration::from_secs(2);
/// When they are measured anew.
const MEASURE_EVERY: Duration = Duration::from_secs(60);
/// How long a rate that was too high is not tried again.
const CAUTION: Duration = Duration::from_secs(60);
/// A latency may exceed the measured one by a tenth, and by what the driver's turns make of it.
const TOLERANCE_US: u64 = 1_000;
/// How many percent of the messages may be slower: one is by definition, more are by chance.
const SLOW_PERCENT: u64 = 3;
/// Batches whose latencies are kept.
const BATCHES: usize = 4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Idle,
    Measuring,
    Sharing,
}

/// The rate, and what it goes by.
#[derive(Debug)]
pub(super) struct AutoRate {
    mode: Mode,
    /// Lines a second; `None`: any number.
    rate: Option<u64>,
    recent: Recent,
    sample: Sample,
    /// Latency above which a message counts as slow, in microseconds, and when that was measured.
    slow_us: u64,
    measured: Time,
    /// A rate that is not exceeded, and until when.
    ceiling: (u64, Time),
}

impl AutoRate {
    pub fn new(now: Time) -> AutoRate {
        AutoRate {
            mode: Mode::Measuring,
            rate: Some(FLOOR),
            recent: Recent { counts: [0; WINDOWS + 1], window: now },
            sample: Sample::new(now),
            slow_us: u64::MAX,
            measured: now,
            ceiling: (u64::MAX, now),
        }
    }

    /// New messages were acknowledged, the oldest of which was logged so long ago.
    pub fn acknowledged(&mut self, now: Time, messages: u64, latency: Duration) {
        self.rate(now);
        self.recent.counts[0] += messages;
        self.sample.add(messages, latency, self.slow_us);
        match self.mode {
            Mode::Idle => self.measure(now),
            // What is too slow for the whole of the step is no better at its end.
            Mode::Sharing if self.is_too_slow() => self.lower(now),
            Mode::Sharing | Mode::Measuring => {}
        }
    }

    /// Lines a second that may be handed over now; `None`: any number.
    pub fn rate(&mut self, now: Time) -> Option<u64> {
        if self.recent.roll(now) {
            self.decide(now);
        }
        self.rate
    }

    /// At the end of each window.
    fn decide(&mut self, now: Time) {
        let new = self.recent.a_second();
        if new == 0 {
            self.mode = Mode::Idle;
            self.rate = None;
            self.sample = Sample::new(now);
            return;
        }
        let age = now.since(self.sample.began);
        match self.mode {
            Mode::Idle => self.measure(now),
            Mode::Measuring if age >= MEASURE => {
                let p99 = self.sample.p99();
                self.slow_us = p99 + p99 / 10 + TOLERANCE_US;
                self.measured = now;
                self.mode = Mode::Sharing;
                self.sample = Sample::new(now);
            }
            Mode::Sharing if now.since(self.measured) >= MEASURE_EVERY => self.measure(now),
            Mode::Sharing if age >= STEP => self.raise(now, new),
            Mode::Measuring | Mode::Sharing => {}
        }
        self.rate = self.rate.map(|rate| rate.min(new).max(FLOOR));
    }

    /// Whether more messages are slow than may be in one step.
    fn is_too_slow(&self) -> bool {
        let messages = self.recent.a_second() * STEP.as_millis() as u64 / 1_000;
        self.sample.slow * 100 > messages.max(self.sample.messages) * SLOW_PERCENT
    }

    fn lower(&mut self, now: Time) {
        let rate = self.rate.unwrap_or(FLOOR);
        self.ceiling = (rate * 9 / 10, now + CAUTION);
        self.rate = Some((rate * 3 / 4).max(FLOOR));
        self.sample = Sample::new(now);
        if self.rate == Some(FLOOR) {
            self.measure(now);
        }
    }

    /// In large steps up to half of what new messages have, and then in small ones: the last one is one too many.
    fn raise(&mut self, now: Time, new: u64) {
        let rate = self.rate.unwrap_or(FLOOR);
        let step = if rate < new / 2 { rate / 4 } else { rate / 16 };
        let ceiling = if now < self.ceiling.1 { self.ceiling.0 } else { u64::MAX };
        self.rate = Some((rate + step + FLOOR / 10).min(ceiling));
        self.sample = Sample::new(now);
    }

    fn measure(&mut self, now: Time) {
        self.mode = Mode::Measuring;
        self.rate = Some(FLOOR);
        self.sample = Sample::new(now);
    }
}

/// New messages that were acknowledged of late.
#[derive(Debug)]
struct Recent {
    /// The current window, which is not over, and those before it.
    counts: [u64; WINDOWS + 1],
    /// When the current one began.
    window: Time,
}

impl Recent {
    /// Goes on to the window of `now`; true when one has ended.
    fn roll(&mut self, now: Time) -> bool {
        let ended = (now.since(self.window).as_micros() / WINDOW.as_micros()) as usize;
        if ended == 0 {
            return false;
        }
        let shift = ended.min(self.counts.len());
        self.counts.rotate_right(shift);
        self.counts[..shift].fill(0);
        self.window = self.window + WINDOW * u32::try_from(ended).unwrap_or(u32::MAX);
        true
    }

    /// Messages a second, in the windows that are over.
    fn a_second(&self) -> u64 {
        let span = WINDOW.as_millis() as u64 * WINDOWS as u64;
        self.counts[1..].iter().sum::<u64>() * 1_000 / span
    }
}

/// Latencies of new messages, since `began`.
#[derive(Debug)]
struct Sample {
    began: Time,
    messages: u64,
    /// Messages that were slow.
    slow: u64,
    /// Of each batch the number of its messages and the latency of the oldest, in microseconds.
    batches: Vec<(u64, u64)>,
}

impl Sample {
    fn new(began: Time) -> Sample {
        Sample { began, messages: 0, slow: 0, batches: Vec::new() }
    }

    fn add(&mut self, messages: u64, latency: Duration, slow_us: u64) {
        let latency_us = latency.as_micros() as u64;
        self.messages += messages;
        if latency_us > slow_us {
            self.slow += messages;
        }
        if self.batches.len() < BATCHES {
            self.batches.push((messages, latency_us));
        }
    }

    /// The latency that one in a hundred exceeds.
    fn p99(&mut self) -> u64 {
        self.batches.sort_unstable_by_key(|(_, latency_us)| std::cmp::Reverse(*latency_us));
        let slowest = self.batches.iter().map(|(messages, _)| messages).sum::<u64>() / 100;
        let mut seen = 0;
        let found = self.batches.iter().find(|(messages, _)| {
            seen += messages;
            seen > slowest
        });
        found.map_or(0, |(_, latency_us)| *latency_us)
    }
}
