//! Reports of the driver itself: its faults, and what is left at the end of a producer.

use super::{NO_SUBJECT, Report};
use crate::report_kind::ReportKind;
use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

pub(in crate::driver) enum DriverReport<'a> {
    /// A panic's text, or an error that should not be.
    Fault { text: &'a str },
    /// The producer did not end in time. `fate` is what becomes of its messages, see
    /// [`Queue::fate`](crate::queue::Queue::fate).
    NotInTime { fate: &'a dyn Display },
    /// The rest could not be saved: of a queue, or of all.
    Left { path: Option<&'a Path>, fate: &'a dyn Display },
    /// Some of a queue could not be written to the backup.
    NotSaved { path: &'a Path, error: &'a dyn Display },
    /// Batches without an answer stay in a queue that the next worker may not find.
    NotCarriedOver { path: &'a Path, error: &'a dyn Display, fate: &'a dyn Display },
    /// Messages that were not acknowledged are in the backup.
    ToBackup { records: u64, backpath: &'a Path },
    /// Messages that were sent and have no answer lie in these queue files.
    Unacknowledged { records: u64, places: &'a [PathBuf] },
}

impl Report for DriverReport<'_> {
    fn kind(&self) -> ReportKind {
        match self {
            Self::Fault { .. } => ReportKind::DriverFault,
            Self::NotInTime { .. } | Self::Left { .. } => ReportKind::ExitLeft,
            Self::NotSaved { .. } => ReportKind::ExitSaveFailed,
            Self::NotCarriedOver { .. } => ReportKind::ExitCarryFailed,
            Self::ToBackup { .. } => ReportKind::ExitToBackup,
            Self::Unacknowledged { .. } => ReportKind::ExitUnacknowledged,
        }
    }

    fn subject(&self) -> Cow<'_, str> {
        match self {
            Self::Left { path: Some(path), .. }
            | Self::NotSaved { path, .. }
            | Self::NotCarriedOver { path, .. } => path.to_string_lossy(),
            _ => NO_SUBJECT,
        }
    }
}

impl Display for DriverReport<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault { text } => {
                write!(f, "driver fault, starting over from the queue: {text}")
            }
            Self::NotInTime { fate } => write!(
                f,
                "the producer did not end in time, perhaps for its backup's disk: what is not delivered is {fate}"
            ),
            Self::Left { fate, .. } => write!(f, "messages are {fate}"),
            Self::NotSaved { error, .. } => error.fmt(f),
            Self::NotCarriedOver { error, fate, .. } => write!(
                f,
                "messages that were sent and not acknowledged cannot be carried over to backpath ({error}): they are {fate}"
            ),
            Self::ToBackup { records, backpath } => write!(
                f,
                "exit: {records} messages were not acknowledged in time and went to {}",
                backpath.display()
            ),
            Self::Unacknowledged { records, places } => {
                write!(
                    f,
                    "exit: {records} messages were sent and not acknowledged; the next worker with this backpath and \
                     instance repeats them from "
                )?;
                for (number, path) in places.iter().enumerate() {
                    write!(f, "{}{}", if number == 0 { "" } else { ", " }, path.display())?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_named_that_the_next_worker_goes_on_with() {
        let places = [PathBuf::from("/a"), PathBuf::from("/b")];
        let text = DriverReport::Unacknowledged { records: 2, places: &places }.to_string();
        assert!(text.ends_with("repeats them from /a, /b"), "{text}");
    }
}
