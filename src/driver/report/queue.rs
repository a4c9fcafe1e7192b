//! Reports of the worker's queue, and of those that it adopts.

use super::{NO_SUBJECT, Report};
use crate::queue::{Damage, NoRoom, QueueError};
use crate::report_kind::ReportKind;
use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::path::Path;

pub(in crate::driver) enum QueueReport<'a> {
    /// It is not where it should be.
    InBackpath {
        error: &'a QueueError,
    },
    /// It lies in memory: what each of the two directories had against a file.
    WithoutFile {
        errors: [&'a QueueError; 2],
    },
    Starved,
    Removed {
        path: &'a Path,
    },
    /// The rest of a queue, of which there may be several, is lost.
    Damaged {
        number: usize,
        path: &'a Path,
        damage: Damage,
        bytes: u64,
    },
    /// A message's topic is not in the file's table.
    WithoutTopic,
    /// There is no room to write down that a batch is sent, so that it is not.
    BatchLogFull {
        error: NoRoom,
    },
    /// `overflow = "drop_oldest"`.
    Dropped {
        records: u64,
    },
    Adoption(AdoptionReport<'a>),
}

/// Of a dead worker's queue, by the name of its file.
pub(in crate::driver) enum AdoptionReport<'a> {
    Adopted {
        name: &'a str,
        worker: u32,
        records: u64,
    },
    /// Messages that were sent longer ago than brokers may know their producer.
    Forgotten {
        name: &'a str,
        worker: u32,
        records: usize,
    },
    /// The directory could not be looked into.
    NotListed {
        error: &'a QueueError,
    },
    NotAdopted {
        name: &'a str,
        error: &'a QueueError,
    },
    /// It is done with, and its file is still there.
    NotRemoved {
        error: &'a QueueError,
    },
    /// It is damaged, and its file has still its name.
    NotKeptAside {
        error: &'a QueueError,
    },
}

impl Report for QueueReport<'_> {
    fn kind(&self) -> ReportKind {
        match self {
            Self::InBackpath { .. } => ReportKind::QueueInBackpath,
            Self::WithoutFile { .. } => ReportKind::QueueWithoutFile,
            Self::Starved => ReportKind::QueueStarved,
            Self::Removed { .. } => ReportKind::QueueRemoved,
            Self::Damaged { .. } | Self::WithoutTopic => ReportKind::QueueDamaged,
            Self::BatchLogFull { .. } => ReportKind::BatchLogFull,
            Self::Dropped { .. } => ReportKind::MessagesDropped,
            Self::Adoption(report) => report.kind(),
        }
    }

    fn subject(&self) -> Cow<'_, str> {
        match self {
            Self::Damaged { number, .. } => number.to_string().into(),
            Self::WithoutTopic => "topic".into(),
            Self::Adoption(report) => report.subject(),
            _ => NO_SUBJECT,
        }
    }
}

impl Display for QueueReport<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::InBackpath { error } => {
                write!(f, "{error}; the queue lies in backpath instead, which is slower")
            }
            Self::WithoutFile { errors: [first, second] } => write!(
                f,
                "the queue has no file: what waits in it is lost when this worker is killed with SIGKILL or crashes, though not \
                 at a reload or a stop. Set queue_path to a directory on tmpfs, ext4 or xfs, such as /dev/shm: {first}; {second}"
            ),
            Self::Starved => f.write_str(
                "the file system of queue_path has no more memory for the queue: log() refuses messages once what it \
                 has is full; a larger file system (/dev/shm), or another queue_path, gives it room",
            ),
            Self::Removed { path } => write!(
                f,
                "queue {} was removed while in use: what waits in it is lost if this worker is killed; a reload \
                 of nginx makes a new one",
                path.display()
            ),
            Self::Damaged { path, damage, bytes, .. } => {
                write!(f, "queue {}: {damage}; {bytes} bytes of messages are lost", path.display())
            }
            Self::WithoutTopic => {
                f.write_str("a message whose topic is not in the queue is lost")
            }
            Self::BatchLogFull { error } => write!(
                f,
                "{error}: there is no more memory where queue_path lies, and sending waits for it"
            ),
            Self::Dropped { records } => write!(
                f,
                "the queue is full and the backup takes no more, or not as fast: the oldest {records} messages are \
                 lost (overflow = \"drop_oldest\")"
            ),
            Self::Adoption(report) => report.fmt(f),
        }
    }
}

impl AdoptionReport<'_> {
    fn kind(&self) -> ReportKind {
        match self {
            Self::Adopted { .. } => ReportKind::QueueAdopted,
            Self::Forgotten { .. } => ReportKind::SequencesForgotten,
            Self::NotListed { .. }
            | Self::NotAdopted { .. }
            | Self::NotRemoved { .. }
            | Self::NotKeptAside { .. } => ReportKind::AdoptionFailed,
        }
    }

    fn subject(&self) -> Cow<'_, str> {
        match self {
            Self::Adopted { name, .. }
            | Self::Forgotten { name, .. }
            | Self::NotAdopted { name, .. } => (*name).into(),
            Self::NotListed { .. } => "list".into(),
            Self::NotRemoved { .. } => "end".into(),
            Self::NotKeptAside { .. } => "aside".into(),
        }
    }
}

impl Display for AdoptionReport<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adopted { worker, records, .. } => {
                write!(f, "adopted the queue of worker {worker}, which is gone: {records} messages")
            }
            Self::Forgotten { worker, records, .. } => write!(
                f,
                "{records} messages that worker {worker} had sent, and that were logged more than a day ago, are sent again: \
                 brokers that have forgotten their numbers (producer.id.expiration.ms) may have them twice then"
            ),
            Self::NotListed { error } => write!(
                f,
                "{error}; the queue files that other workers left there are not adopted, and their messages are not \
                 sent, until that is mended"
            ),
            Self::NotAdopted { error, .. } => {
                write!(f, "a dead worker's queue is left as it is: {error}")
            }
            Self::NotRemoved { error } | Self::NotKeptAside { error } => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_without_a_file_says_what_to_do_before_the_paths_which_may_be_long() {
        let long = |name: &str| QueueError::NoRoom {
            path: format!("/{}", name.repeat(300)).into(),
            errno: rustix::io::Errno::NOSPC,
        };
        let (first, second) = (long("a"), long("b"));
        let text = QueueReport::WithoutFile { errors: [&first, &second] }.to_string();
        let place = |part: &str| text.find(part).expect(part);
        assert!(place("Set queue_path to a directory on tmpfs") < place("/aaa"));
        assert!(place("/aaa") < place("; /bbb"));
    }

    #[test]
    fn what_is_said_of_one_adopted_queue_does_not_limit_what_is_said_of_another() {
        let error = QueueError::InvalidName;
        let report =
            |name| QueueReport::Adoption(AdoptionReport::NotAdopted { name, error: &error });
        assert_ne!(report("one").subject(), report("two").subject());
        assert_eq!(report("one").kind(), ReportKind::AdoptionFailed);
    }
}
