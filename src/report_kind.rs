//! The kinds of reports, which are log lines of the driver thread: one table of names, levels and meanings, from which the
//! counters in `kfk.stats()`, the limits of the log and the manual come. What a report says is in `driver/report`.

use std::sync::atomic::{AtomicU64, Ordering};

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

impl Level {
    /// nginx's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Notice => "notice",
            Level::Info => "info",
        }
    }
}

macro_rules! kinds {
    ($( $variant:ident = $name:literal, $level:ident, $text:literal; )*) => {
        /// What a report is of. Lines of one kind about one subject are told once in a while.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the texts are in text(), from which the manual is printed")]
        pub enum ReportKind { $( $variant, )* }

        impl ReportKind {
            /// Every kind, in the manual's order.
            pub const ALL: &[ReportKind] = &[ $( ReportKind::$variant, )* ];

            /// Its counter in `kfk.stats()`. It stays as it is from one version to the next.
            pub const fn counter(self) -> &'static str {
                match self { $( ReportKind::$variant => concat!("reported_", $name), )* }
            }

            /// The level of its lines.
            pub const fn level(self) -> Level {
                match self { $( ReportKind::$variant => Level::$level, )* }
            }

            /// What its lines say.
            pub const fn text(self) -> &'static str {
                match self { $( ReportKind::$variant => $text, )* }
            }
        }
    };
}

kinds! {
    BrokerConnected = "broker_connected", Notice, "A broker has answered its first request on a new connection.";
    ConnectionFailed = "connection_failed", Warn, "A connection could not be made, or broke.";
    TooManyConnections = "too_many_connections", Warn, "All connections that a producer may have are in use, and more brokers wait for one.";
    RequestTimeout = "request_timeout", Warn, "A broker did not answer within request_timeout_ms, and its connection was closed.";
    ConnectionNotNeeded = "connection_not_needed", Info, "A connection was closed because it is not needed any more.";
    BrokerLeftAlone = "broker_left_alone", Warn, "conn_retry_limit attempts to connect to a broker failed, and none is made for conn_retry_timeout.";
    CodecPassedOver = "codec_passed_over", Notice, "A broker does not take the codec that compression_codec names first.";
    HeadersLeftOut = "headers_left_out", Warn, "Messages are sent without their headers, because a broker is older than Kafka 0.11.";
    CertificateExpires = "certificate_expires", Warn, "A certificate in use expires within fourteen days, or has expired.";
    CertificatesNotRead = "certificates_not_read", Warn, "A file of certificates or keys has changed and cannot be read: what was read before is used.";
    TlsUnsafe = "tls_unsafe", Warn, "An option of TLS lets others pose as a broker.";
    Throttled = "throttled", Warn, "A broker throttles this client, since its quota is used up.";
    RequestTooLarge = "request_too_large", Warn, "A broker closes the connection on requests of some size instead of answering them.";

    TopicError = "topic_error", Warn, "A broker's metadata has an error for a topic.";
    ProduceError = "produce_error", Warn, "A broker answered a batch with an error.";
    BatchSplit = "batch_split", Warn, "A batch was too large for its broker, and was split.";
    NoProducerId = "no_producer_id", Warn, "The brokers give out no producer id, which idempotence needs.";
    NoSequenceNumbers = "no_sequence_numbers", Warn, "A topic's log takes no sequence numbers: it is written to without idempotence.";
    ResentInDoubt = "resent_in_doubt", Warn, "Messages that may be in Kafka were sent again as new ones.";

    QueueInBackpath = "queue_in_backpath", Warn, "queue_path could not hold the queue file, which lies in backpath instead.";
    QueueWithoutFile = "queue_without_file", Warn, "The queue has no file, since neither directory lies on a file system that is fit for one.";
    QueueStarved = "queue_starved", Warn, "The file system of queue_path has no more memory for the queue.";
    QueueRemoved = "queue_removed", Error, "Somebody removed the queue file while it was in use.";
    QueueDamaged = "queue_damaged", Error, "A queue file is damaged, and messages in it are lost.";
    BatchLogFull = "batch_log_full", Error, "There is no memory left to write down which batches are sent, and sending waits for it.";
    MessagesDropped = "messages_dropped", Error, "overflow = \"drop_oldest\" dropped messages.";
    QueueAdopted = "queue_adopted", Notice, "A dead worker's queue was adopted.";
    AdoptionFailed = "adoption_failed", Error, "A dead worker's queue could not be adopted, or its file not be put away.";
    SequencesForgotten = "sequence_numbers_forgotten", Warn, "Messages of an adopted queue are so old that brokers may have forgotten their sequence numbers.";

    MessagesToBackup = "messages_to_backup", Error, "Messages could not be delivered, and go to the backup file of their topic.";
    BackupRefused = "backup_refused", Error, "A backup file did not take messages that could not be delivered: they wait in the queue.";
    BackupSlow = "backup_slow", Warn, "A write to a backup file takes long.";
    AppendFailed = "append_failed", Error, "A backup file did not take what failed_cb wrote, or log() refused.";
    ReplayBegun = "replay_begun", Notice, "A backup file is being sent again.";
    ReplayDone = "replay_done", Notice, "A topic's backup files were sent again.";
    ReplayPostponed = "replay_postponed", Warn, "Lines of a backup file were not delivered: they are sent later.";
    ReplayRefused = "replay_refused", Error, "Kafka will never take some lines of a backup file: they were moved to a ~bad file.";
    ReplayFailed = "replay_failed", Error, "Backup files could not be read, or what became of their lines not be noted.";
    BackupFileRenamed = "backup_file_renamed", Warn, "A backup file holds lines of another topic, and is not sent.";
    BackupFileUnclaimed = "backup_file_unclaimed", Warn, "A backup file begins with lines that lkfk did not write, and replay = true does not send them.";

    DriverFault = "driver_fault", Error, "The driver had a fault of its own, and starts over from the queue.";
    ExitToBackup = "exit_to_backup", Warn, "Messages were not acknowledged before the exit, and went to the backup.";
    ExitUnacknowledged = "exit_unacknowledged", Warn, "Messages were sent and not acknowledged before the exit: the next worker repeats them.";
    ExitSaveFailed = "exit_save_failed", Error, "Messages could not be written to the backup at exit.";
    ExitCarryFailed = "exit_carry_failed", Warn, "Messages that were sent and not acknowledged could not be carried over to backpath at exit.";
    ExitLeft = "exit_left", Error, "Messages were neither delivered nor written to the backup at exit.";
}

/// How often there was a report of each kind, lines that were left out included.
#[derive(Debug)]
pub struct ReportCounts([AtomicU64; ReportKind::ALL.len()]);

impl Default for ReportCounts {
    fn default() -> Self {
        ReportCounts([const { AtomicU64::new(0) }; ReportKind::ALL.len()])
    }
}

impl ReportCounts {
    /// Counts one.
    pub fn add(&self, kind: ReportKind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often there was one of this kind.
    pub fn of(&self, kind: ReportKind) -> u64 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_kind_has_a_counter_of_its_own() {
        let names: HashSet<&str> = ReportKind::ALL.iter().map(|kind| kind.counter()).collect();
        assert_eq!(names.len(), ReportKind::ALL.len());
        let counts = ReportCounts::default();
        for (number, kind) in ReportKind::ALL.iter().enumerate() {
            (0..=number).for_each(|_| counts.add(*kind));
        }
        for (number, kind) in ReportKind::ALL.iter().enumerate() {
            assert_eq!(counts.of(*kind), number as u64 + 1, "{}", kind.counter());
        }
    }

    #[test]
    fn every_kind_says_what_it_means_in_a_sentence() {
        for kind in ReportKind::ALL {
            let text = kind.text();
            assert!(text.ends_with('.') && !text.contains('|'), "{text}");
        }
    }
}
