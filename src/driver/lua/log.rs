//! Log lines from the driver thread for nginx's log. The thread never touches nginx's memory: it leaves
//! [reports](Report) here, which become lines and are counted, and rings, and Lua on the event loop takes them to
//! `ngx.log`.
//!
//! Lines are limited four ways: one per kind and subject in a while (the next one says how many were left
//! out), so many subjects per kind in a while (the last one of those left out is told with their number at its end), a
//! bounded number waiting, and a bounded length. Foreign bytes are escaped.

use super::super::report::Report;
use super::bell::Bell;
use crate::producer::Time;
use crate::report_kind::{Level, ReportCounts, ReportKind};
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

#[derive(Debug, Default)]
struct Limit {
    quiet_until: Time,
    left_out: u64,
}

/// Lines of one kind in a while.
#[derive(Debug, Default)]
struct OfKind {
    ends: Time,
    subjects: u32,
    left_out: u64,
    /// The last one that was left out.
    last: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(Level, String)>,
    limits: HashMap<(ReportKind, String), Limit>,
    kinds: HashMap<ReportKind, OfKind>,
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
    counts: ReportCounts,
    /// Rung when there is a line.
    bell: Arc<Bell>,
}

impl LogBuffer {
    /// A buffer that rings when there is a line.
    pub fn ringing(bell: Arc<Bell>) -> LogBuffer {
        LogBuffer { bell, ..LogBuffer::default() }
    }

    /// Counts a report, and leaves its line, unless one of the same kind about the same subject was left a short while
    /// ago.
    pub(in crate::driver) fn put(&self, now: Time, report: &dyn Report) {
        let kind = report.kind();
        self.counts.add(kind);
        let key = (kind, clean(report.subject(), LONGEST_SUBJECT));
        // Formatted while the lock is free, which nginx's thread may be waiting for.
        match self.pass(now, key) {
            Pass::LeftOut => {}
            Pass::Told(left_out) => self.tell(kind.level(), with_more(report, left_out)),
            Pass::Kept => {
                let line = clean(report, LONGEST - LONGEST_MORE);
                let mut state = self.state();
                let of_kind = state.kinds.entry(kind).or_default();
                of_kind.left_out += 1;
                of_kind.last = Some(line);
                self.settle_at.fetch_min(of_kind.ends.0, Ordering::Relaxed);
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
        state.kinds.retain(|kind, of_kind| {
            let is_over = of_kind.ends <= now;
            if is_over && let Some(line) = of_kind.last.take() {
                due.push((kind.level(), line, of_kind.left_out - 1));
            }
            !is_over
        });
        let kept = state.kinds.values().filter(|of_kind| of_kind.last.is_some());
        let next = kept.map(|of_kind| of_kind.ends.0).min().unwrap_or(u64::MAX);
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
    fn pass(&self, now: Time, key: (ReportKind, String)) -> Pass {
        let mut state = self.state();
        let State { limits, kinds, .. } = &mut *state;
        if let Some(limit) = limits.get_mut(&key)
            && now < limit.quiet_until
        {
            limit.left_out += 1;
            return Pass::LeftOut;
        }
        let of_kind = kinds.entry(key.0).or_default();
        if of_kind.ends <= now && of_kind.last.is_none() {
            *of_kind = OfKind { ends: now + PAUSE, ..OfKind::default() };
        }
        if of_kind.subjects >= SUBJECTS {
            return Pass::Kept;
        }
        of_kind.subjects += 1;
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

    /// How often there was a report of each kind, told or not.
    pub fn counts(&self) -> &ReportCounts {
        &self.counts
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
    use std::borrow::Cow;

    fn taken(lines: &LogBuffer) -> Vec<String> {
        std::iter::from_fn(|| lines.take()).map(|(_, line)| line).collect()
    }

    /// A report of `kind`, subject and text.
    struct Line<S, T>(ReportKind, S, T);

    impl<S: fmt::Display, T: fmt::Display> fmt::Display for Line<S, T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.2.fmt(f)
        }
    }

    impl<S: fmt::Display, T: fmt::Display> Report for Line<S, T> {
        fn kind(&self) -> ReportKind {
            self.0
        }
        fn subject(&self) -> Cow<'_, str> {
            self.1.to_string().into()
        }
    }

    const DOWN: ReportKind = ReportKind::ConnectionFailed;
    const TOPIC: ReportKind = ReportKind::TopicError;

    #[test]
    fn a_kind_speaks_once_in_a_while_about_a_subject_and_then_says_how_often_it_was_silent() {
        let lines = LogBuffer::default();
        for second in 0..=31 {
            lines.put(Time(second * 1_000_000), &Line(DOWN, "b1", "b1 is down"));
        }
        lines.put(Time(0), &Line(DOWN, "b2", "b2 is down"));
        assert_eq!(taken(&lines), ["b1 is down", "b1 is down (29 more like this)", "b2 is down"]);
        assert_eq!((lines.counts().of(DOWN), lines.counts().of(TOPIC)), (33, 0));
    }

    #[test]
    fn a_line_has_the_level_of_its_kind() {
        let lines = LogBuffer::default();
        for kind in ReportKind::ALL {
            lines.put(Time(0), &Line(*kind, "", "text"));
            assert_eq!(lines.take(), Some((kind.level(), "text".to_owned())));
        }
    }

    #[test]
    fn foreign_bytes_are_escaped_and_long_lines_cut() {
        let lines = LogBuffer::default();
        lines.put(Time(0), &Line(DOWN, 1, "a\nb\x1b[31m"));
        lines.put(Time(0), &Line(DOWN, 2, "ä".repeat(1000)));
        lines.put(Time(0), &Line(DOWN, 3, "a\u{202e}b\u{2028}"));
        let taken = taken(&lines);
        assert_eq!(taken[0], "a\\nb\\u{1b}[31m");
        assert!(taken[1].len() <= LONGEST && taken[1].ends_with("..."));
        assert_eq!(taken[2], "a\\u{202e}b\\u{2028}");
    }

    #[test]
    fn flt_27_of_many_subjects_of_a_kind_some_are_told_and_then_how_many_there_were() {
        let lines = LogBuffer::default();
        for subject in 0..6_000 {
            lines.put(Time(subject * 1_000), &Line(TOPIC, subject, format!("t{subject}")));
            lines.settle(Time(subject * 1_000));
        }
        lines.put(Time(7_000_000), &Line(DOWN, 0, "other"));
        let told = ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "other"];
        assert_eq!(taken(&lines), told);
        lines.settle(Time(29_000_000));
        assert!(lines.take().is_none());
        lines.settle(Time(30_000_000));
        assert_eq!(taken(&lines), ["t5999 (5991 more like this)"]);
        lines.put(Time(31_000_000), &Line(TOPIC, 9_000, "t9000"));
        assert_eq!(taken(&lines), ["t9000"]);
    }

    #[test]
    fn waiting_and_remembered_lines_are_bounded() {
        let lines = LogBuffer::default();
        let mut put = 0;
        // Each while has its lines, and nobody takes them.
        for second in (0..3_000).step_by(30) {
            for kind in ReportKind::ALL {
                for subject in 0..SUBJECTS {
                    let subject = format!("{subject} at {second}");
                    lines.put(Time(second * 1_000_000), &Line(*kind, subject, "text"));
                    put += 1;
                }
            }
        }
        assert!(lines.state().limits.len() <= REMEMBERED);
        assert_eq!(taken(&lines).len(), WAITING);
        assert_eq!(lines.dropped(), put - WAITING as u64);
    }
}
