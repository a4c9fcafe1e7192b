//! Log lines from the driver thread for nginx's log. The thread never touches nginx's memory: it leaves lines here
//! and rings, and Lua on the event loop takes them to `ngx.log`.
//!
//! Lines are limited four ways: one per kind and subject in a while (the next one says how many were left
//! out), so many subjects per kind in a while (the last one of those left out is told with their number at its end), a
//! bounded number waiting, and a bounded length. Foreign bytes are escaped.

use super::bell::Bell;
use crate::producer::Time;
use std::collections::{HashMap, VecDeque};
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Lines that may wait for the event loop.
const WAITING: usize = 256;
/// Kinds and subjects that are remembered.
const REMEMBERED: usize = 1024;
/// Subjects of one kind that lines are about in a while.
const SUBJECTS: u32 = 8;
/// Longest line, in bytes, and what is added to one in it.
const LONGEST: usize = 512;
const LONGEST_MORE: usize = 48;
/// Longest subject, in bytes: a host name and a port, or a topic's name and an error code.
const LONGEST_SUBJECT: usize = 300;
/// Pause between lines of one kind about one subject, and the while in which subjects are counted.
const PAUSE: Duration = Duration::from_secs(30);

/// nginx's log levels, with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// `ngx.ERR`
    Error = 4,
    /// `ngx.WARN`
    Warn = 5,
    /// `ngx.NOTICE`
    Notice = 6,
    /// `ngx.INFO`
    Info = 7,
}

#[derive(Debug, Default)]
struct Limit {
    quiet_until: Time,
    left_out: u64,
}

/// Lines of one kind in a while.
#[derive(Debug, Default)]
struct Kind {
    ends: Time,
    subjects: u32,
    left_out: u64,
    /// The last one that was left out.
    last: Option<(Level, String)>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(Level, String)>,
    limits: HashMap<(&'static str, String), Limit>,
    kinds: HashMap<&'static str, Kind>,
    last_warning: Option<String>,
}

/// What becomes of a line.
enum Pass {
    /// It is told, with the number of those before it that were not.
    Told(u64),
    /// It is told at the end of the while if it is the last one of its kind.
    Kept,
    LeftOut,
}

/// The lines. Shared between the driver thread and the event loop; held only to push or pop.
#[derive(Debug, Default)]
pub struct LogBuffer {
    state: Mutex<State>,
    /// When there is something to [settle](Self::settle) at the earliest.
    settle_at: AtomicU64,
    dropped: AtomicU64,
    /// Rung when there is a line.
    bell: Arc<Bell>,
}

impl Level {
    /// nginx's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Notice => "notice",
            Level::Info => "info",
        }
    }
}

impl LogBuffer {
    /// A buffer that rings when there is a line.
    pub fn ringing(bell: Arc<Bell>) -> LogBuffer {
        LogBuffer { bell, ..LogBuffer::default() }
    }

    /// Leaves a line, unless one of the same `kind` about the same `subject` was left a short while ago.
    pub fn put(
        &self,
        now: Time,
        level: Level,
        kind: &'static str,
        subject: impl fmt::Display,
        text: impl fmt::Display,
    ) {
        let key = (kind, clean(subject, LONGEST_SUBJECT));
        // Formatted while the lock is free, which nginx's thread may be waiting for.
        match self.pass(now, key) {
            Pass::LeftOut => {}
            Pass::Told(left_out) => self.tell(level, with_more(text, left_out)),
            Pass::Kept => {
                let line = clean(text, LONGEST - LONGEST_MORE);
                let mut state = self.state();
                let kind = state.kinds.entry(kind).or_default();
                kind.left_out += 1;
                kind.last = Some((level, line));
                self.settle_at.fetch_min(kind.ends.0, Ordering::Relaxed);
            }
        }
    }

    /// Tells the last line of each kind of which there were too many, once their while is over. To be called about
    /// once a second.
    pub fn settle(&self, now: Time) {
        if now.0 < self.settle_at.load(Ordering::Relaxed) {
            return;
        }
        let mut due = Vec::new();
        let mut state = self.state();
        state.kinds.retain(|_, kind| {
            let is_over = kind.ends <= now;
            if is_over && let Some((level, line)) = kind.last.take() {
                due.push((level, line, kind.left_out - 1));
            }
            !is_over
        });
        let kept = state.kinds.values().filter(|kind| kind.last.is_some());
        let next = kept.map(|kind| kind.ends.0).min().unwrap_or(u64::MAX);
        self.settle_at.store(next, Ordering::Relaxed);
        drop(state);
        for (level, line, left_out) in due {
            self.tell(level, with_more(line, left_out));
        }
    }

    /// The last line of [`Level::Warn`] that was told, whoever has taken it since.
    pub fn last_warning(&self) -> Option<String> {
        self.state().last_warning.clone()
    }

    fn tell(&self, level: Level, line: String) {
        let mut state = self.state();
        if level == Level::Warn {
            state.last_warning = Some(line.clone());
        }
        if state.waiting.len() >= WAITING {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.waiting.push_back((level, line));
        drop(state);
        self.bell.ring();
    }

    /// Whether a line of this kind about this subject is due.
    fn pass(&self, now: Time, key: (&'static str, String)) -> Pass {
        let mut state = self.state();
        let State { limits, kinds, .. } = &mut *state;
        if let Some(limit) = limits.get_mut(&key)
            && now < limit.quiet_until
        {
            limit.left_out += 1;
            return Pass::LeftOut;
        }
        let kind = kinds.entry(key.0).or_default();
        if kind.ends <= now && kind.last.is_none() {
            *kind = Kind { ends: now + PAUSE, ..Kind::default() };
        }
        if kind.subjects >= SUBJECTS {
            return Pass::Kept;
        }
        kind.subjects += 1;
        if limits.len() >= REMEMBERED {
            limits.retain(|_, limit| limit.quiet_until > now);
        }
        let limit = limits.entry(key).or_default();
        limit.quiet_until = now + PAUSE;
        Pass::Told(std::mem::take(&mut limit.left_out))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves nothing half-done that matters here.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes the oldest line.
    pub fn take(&self) -> Option<(Level, String)> {
        self.state().waiting.pop_front()
    }

    /// Lines that came too fast to be kept, those of the same kind and subject not counted.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// A line that says how many like it were left out.
fn with_more(text: impl fmt::Display, left_out: u64) -> String {
    let more = if left_out > 0 { format!(" ({left_out} more like this)") } else { String::new() };
    clean(text, LONGEST - more.len()) + &more
}

/// `text` without what moves a terminal's cursor or turns its writing round, at most `longest` bytes.
fn clean(text: impl fmt::Display, longest: usize) -> String {
    let mut cleaned = Cleaned { line: String::new(), longest };
    // It fails when the line is full: what would follow is not even formatted.
    let _ = write!(cleaned, "{text}");
    cleaned.line
}

struct Cleaned {
    line: String,
    longest: usize,
}

impl fmt::Write for Cleaned {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let before = self.line.len();
            if c.is_control() || turns_writing_round(c) {
                self.line.extend(c.escape_default());
            } else {
                self.line.push(c);
            }
            if self.line.len() > self.longest - 3 {
                self.line.truncate(before);
                self.line.push_str("...");
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

/// Ends of lines that are no control characters, and marks that change the direction of what follows.
fn turns_writing_round(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(lines: &LogBuffer) -> Vec<String> {
        std::iter::from_fn(|| lines.take()).map(|(_, line)| line).collect()
    }

    #[test]
    fn a_kind_speaks_once_in_a_while_about_a_subject_and_then_says_how_often_it_was_silent() {
        let lines = LogBuffer::default();
        for second in 0..=31 {
            lines.put(Time(second * 1_000_000), Level::Warn, "down", "b1", "b1 is down");
        }
        lines.put(Time(0), Level::Warn, "down", "b2", "b2 is down");
        assert_eq!(taken(&lines), ["b1 is down", "b1 is down (29 more like this)", "b2 is down"]);
    }

    #[test]
    fn foreign_bytes_are_escaped_and_long_lines_cut() {
        let lines = LogBuffer::default();
        lines.put(Time(0), Level::Warn, "x", 1, "a\nb\x1b[31m");
        lines.put(Time(0), Level::Warn, "x", 2, "ä".repeat(1000));
        lines.put(Time(0), Level::Warn, "x", 3, "a\u{202e}b\u{2028}");
        let taken = taken(&lines);
        assert_eq!(taken[0], "a\\nb\\u{1b}[31m");
        assert!(taken[1].len() <= LONGEST && taken[1].ends_with("..."));
        assert_eq!(taken[2], "a\\u{202e}b\\u{2028}");
    }

    #[test]
    fn flt_27_of_many_subjects_of_a_kind_some_are_told_and_then_how_many_there_were() {
        let lines = LogBuffer::default();
        for subject in 0..6_000 {
            lines.put(Time(subject * 1_000), Level::Warn, "topic", subject, format!("t{subject}"));
            lines.settle(Time(subject * 1_000));
        }
        lines.put(Time(7_000_000), Level::Warn, "other", 0, "other");
        let told = ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "other"];
        assert_eq!(taken(&lines), told);
        lines.settle(Time(29_000_000));
        assert!(lines.take().is_none());
        lines.settle(Time(30_000_000));
        assert_eq!(taken(&lines), ["t5999 (5991 more like this)"]);
        lines.put(Time(31_000_000), Level::Warn, "topic", 9_000, "t9000");
        assert_eq!(taken(&lines), ["t9000"]);
    }

    #[test]
    fn waiting_and_remembered_lines_are_bounded() {
        let lines = LogBuffer::default();
        for kind in 0..1_000 {
            let kind = Box::leak(format!("kind {kind}").into_boxed_str());
            for subject in 0..SUBJECTS {
                lines.put(Time(0), Level::Warn, kind, subject, "text");
            }
        }
        assert_eq!(taken(&lines).len(), WAITING);
        assert_eq!(lines.dropped(), 1_000 * u64::from(SUBJECTS) - WAITING as u64);
    }
}
