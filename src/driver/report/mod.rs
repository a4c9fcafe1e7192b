//! What operators read: every log line of the driver, as data. A report has a [kind](ReportKind), which gives its level
//! and its counter, and a subject; its text says what happened, why, and what can be done about it.
//!
//! | file | what is reported |
//! |---|---|
//! | `brokers` | connections, and brokers that do not answer or throttle |
//! | `delivery` | topics, batches, producer ids |
//! | `queue` | the worker's queue, and those that it adopts |
//! | `backup` | backup files and their replay |
//! | `driver` | the driver's own faults, and what is left at the end |
//!
//! How often lines are told is the business of [`LogBuffer`](super::lua::log::LogBuffer), which takes reports and nothing
//! else. Two kinds of lines do not come through here: what Lua says on nginx's thread (`lua/lkfk`: `init()`, callbacks
//! that throw, statistics) goes to `ngx.log` at once, and its last line to stderr (`worker::write_line`).

pub(super) mod backup;
pub(super) mod brokers;
pub(super) mod delivery;
pub(super) mod driver;
pub(super) mod queue;

use crate::report_kind::ReportKind;
use std::borrow::Cow;
use std::fmt::Display;

/// A log line to be. What it displays is the line.
pub(in crate::driver) trait Report: Display {
    /// What it is of.
    fn kind(&self) -> ReportKind;

    /// What it is about: lines of one kind are limited for each subject.
    fn subject(&self) -> Cow<'_, str>;
}

/// For reports of which one at a time is enough.
const NO_SUBJECT: Cow<'static, str> = Cow::Borrowed("");
