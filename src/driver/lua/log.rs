//! Log lines from the driver thread for nginx's log. The thread never touches nginx's memory: it leaves lines here
//! and rings, and Lua on the event loop takes them to `ngx.log`.
//!
//! Lines are limited three ways: one per kind and subject in a while (the next one says how many were left
//! out), a bounded number waiting, and a bounded length. Foreign bytes are escaped.

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
/// Longest line, in bytes.
const LONGEST: usize = 512;
/// Longest subject, in bytes: a host name and a port, or a topic's name and an error code.
const LONGEST_SUBJECT: usize = 300;
/// Pause between lines of one kind about one subject.
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

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(Level, String)>,
    limits: HashMap<(&'static str, String), Limit>,
}

/// The lines. Shared between the driver thread and the event loop; held only to push or pop.
#[derive(Debug, Default)]
pub struct LogBuffer {
    state: Mutex<State>,
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
        let Some(left_out) = self.pass(now, key) else { return };
        // Formatted before the lock is taken again, which nginx's thread may be waiting for.
        let more =
            if left_out > 0 { format!(" ({left_out} more like this)") } else { String::new() };
        let line = clean(text, LONGEST - more.len()) + &more;
        let mut state = self.state();
        if state.waiting.len() >= WAITING {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.waiting.push_back((level, line));
        drop(state);
        self.bell.ring();
    }

    /// Whether a line of this kind about this subject is due, and how many were left out since the last one.
    fn pass(&self, now: Time, key: (&'static str, String)) -> Option<u64> {
        let mut state = self.state();
        if state.limits.len() >= REMEMBERED && !state.limits.contains_key(&key) {
            state.limits.retain(|_, limit| limit.quiet_until > now);
            if state.limits.len() >= REMEMBERED {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        }
        let limit = state.limits.entry(key).or_default();
        if now < limit.quiet_until {
            limit.left_out += 1;
            return None;
        }
        limit.quiet_until = now + PAUSE;
        Some(std::mem::take(&mut limit.left_out))
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
    fn waiting_and_remembered_lines_are_bounded() {
        let lines = LogBuffer::default();
        for subject in 0..5_000 {
            lines.put(Time(0), Level::Warn, "x", subject, "text");
        }
        assert_eq!(taken(&lines).len(), WAITING);
        assert_eq!(lines.dropped(), 5_000 - WAITING as u64);
    }
}
