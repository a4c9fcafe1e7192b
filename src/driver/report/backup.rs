//! Reports of backup files and of their replay.

use super::{NO_SUBJECT, Report};
use crate::backup::BackupError;
use crate::producer::Reason;
use crate::report_kind::ReportKind;
use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::time::Duration;

pub(in crate::driver) enum BackupReport<'a> {
    /// Messages were written there; `last_warning` may say why they could not be delivered.
    Written {
        path: &'a Path,
        topic: &'a str,
        reason: &'a str,
        last_warning: Option<String>,
    },
    /// What could not be delivered, `waiting` messages in all, was not written.
    Refused {
        topic: &'a str,
        error: &'a BackupError,
        waiting: u64,
    },
    Slow {
        taken: Duration,
        waiting: u64,
    },
    /// What nginx's event loop left for a file was not written, and will be.
    NotAppended {
        topic: &'a str,
        error: &'a BackupError,
    },
    /// The same at the end, when nobody tries it again.
    AppendLost {
        topic: &'a str,
        error: &'a BackupError,
    },
}

pub(in crate::driver) enum ReplayReport<'a> {
    Begun {
        topic: &'a str,
        file: &'a str,
    },
    Done {
        topic: &'a str,
        lines: u64,
    },
    Postponed {
        topic: &'a str,
        reason: Reason,
    },
    /// Lines were moved to the ~bad file.
    Refused {
        topic: &'a str,
        file: &'a str,
        lines: usize,
        why: &'a dyn Display,
    },
    /// Of one topic's files, or of the directory.
    Failed {
        topic: Option<&'a str>,
        error: &'a BackupError,
    },
    Renamed {
        file: &'a str,
    },
    Unclaimed {
        file: &'a str,
    },
}

impl Report for BackupReport<'_> {
    fn kind(&self) -> ReportKind {
        match self {
            Self::Written { .. } => ReportKind::MessagesToBackup,
            Self::Refused { .. } => ReportKind::BackupRefused,
            Self::Slow { .. } => ReportKind::BackupSlow,
            Self::NotAppended { .. } | Self::AppendLost { .. } => ReportKind::AppendFailed,
        }
    }

    fn subject(&self) -> Cow<'_, str> {
        match self {
            Self::Written { topic, .. }
            | Self::Refused { topic, .. }
            | Self::NotAppended { topic, .. }
            | Self::AppendLost { topic, .. } => (*topic).into(),
            Self::Slow { .. } => NO_SUBJECT,
        }
    }
}

impl Display for BackupReport<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written { path, topic, reason, last_warning } => {
                let path = path.display();
                write!(f, "topic {topic}: {reason}; messages go to {path}/{topic}")?;
                match last_warning {
                    Some(line) => write!(f, "; the last warning: {line}"),
                    None => Ok(()),
                }
            }
            Self::Refused { error, waiting, .. } => write!(
                f,
                "{error}; {waiting} messages that could not be delivered wait in the queue for it"
            ),
            Self::Slow { taken, waiting } => write!(
                f,
                "a write to the backup has taken {} s so far; {waiting} messages that could not be delivered wait in the \
                 queue for the disk of backpath",
                taken.as_secs(),
            ),
            Self::NotAppended { error, .. } => error.fmt(f),
            Self::AppendLost { topic, error } => {
                write!(f, "topic {topic}: lines for its backup file are lost: {error}")
            }
        }
    }
}

impl Report for ReplayReport<'_> {
    fn kind(&self) -> ReportKind {
        match self {
            Self::Begun { .. } => ReportKind::ReplayBegun,
            Self::Done { .. } => ReportKind::ReplayDone,
            Self::Postponed { .. } => ReportKind::ReplayPostponed,
            Self::Refused { .. } => ReportKind::ReplayRefused,
            Self::Failed { .. } => ReportKind::ReplayFailed,
            Self::Renamed { .. } => ReportKind::BackupFileRenamed,
            Self::Unclaimed { .. } => ReportKind::BackupFileUnclaimed,
        }
    }

    fn subject(&self) -> Cow<'_, str> {
        match self {
            Self::Begun { topic, .. }
            | Self::Done { topic, .. }
            | Self::Postponed { topic, .. }
            | Self::Refused { topic, .. } => (*topic).into(),
            Self::Failed { topic, .. } => topic.unwrap_or_default().into(),
            Self::Renamed { file } | Self::Unclaimed { file } => (*file).into(),
        }
    }
}

impl Display for ReplayReport<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun { topic, file } => write!(f, "topic {topic}: {file} is sent again"),
            Self::Done { topic, lines } => {
                write!(f, "topic {topic}: {lines} messages of its backup files were sent again")
            }
            Self::Postponed { topic, reason } => {
                write!(f, "topic {topic}: {reason}; its backup lines are sent later")
            }
            Self::Refused { topic, file, lines, why } => write!(
                f,
                "{lines} lines of {file} cannot be sent, see {topic}~bad in backpath: {why}"
            ),
            Self::Failed { error, .. } => error.fmt(f),
            Self::Renamed { file } => write!(
                f,
                "backup file {file} holds lines of another topic and is not replayed; it was \
                 renamed, perhaps"
            ),
            Self::Unclaimed { file } => write!(
                f,
                "backup file {file} begins with lines that no journal of lkfk's knows, so replay = true does not \
                 send them; if lkfk wrote them (the file is a copy, or its file system changes inode numbers at \
                 each mount) name it TOPIC~redo, and if others did, replay = \"all\" sends them"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_a_file_is_sent_again_keeps_no_error_of_its_topic_out_of_the_log() {
        let error = BackupError::Full { path: "/backup".into(), limit: 1 };
        let begun = ReplayReport::Begun { topic: "t", file: "t~1" };
        let failed = ReplayReport::Failed { topic: Some("t"), error: &error };
        assert_eq!(begun.subject(), failed.subject());
        assert_ne!(begun.kind(), failed.kind());
    }

    #[test]
    fn messages_that_go_to_a_file_are_reported_with_its_path_and_the_last_warning() {
        let mut report = BackupReport::Written {
            path: Path::new("/backup"),
            topic: "t",
            reason: "message_timeout_ms passed",
            last_warning: None,
        };
        let text = "topic t: message_timeout_ms passed; messages go to /backup/t";
        assert_eq!(report.to_string(), text);
        if let BackupReport::Written { last_warning, .. } = &mut report {
            *last_warning = Some("broker b: no answer".to_owned());
        }
        assert_eq!(report.to_string(), format!("{text}; the last warning: broker b: no answer"));
    }
}
