//! Reports of topics, batches and producer ids.

use super::{NO_SUBJECT, Report};
use crate::producer::Idempotence;
use crate::protocol::error_code::ErrorCode;
use crate::report_kind::ReportKind;
use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

pub(in crate::driver) enum DeliveryReport<'a> {
    /// A broker's metadata says this of a topic.
    TopicError {
        topic: &'a str,
        error: ErrorCode,
    },
    /// A broker's answer says this of a batch, and perhaps why.
    ProduceError {
        topic: &'a str,
        partition: i32,
        error: ErrorCode,
        words: Option<&'a str>,
    },
    BatchSplit {
        topic: &'a str,
        records: usize,
    },
    NoProducerId {
        error: ErrorCode,
        mode: Idempotence,
    },
    LogWithoutNumbers {
        topic: &'a str,
    },
    ResentInDoubt {
        topic: &'a str,
        partition: u32,
        records: usize,
        error: ErrorCode,
    },
}

impl Report for DeliveryReport<'_> {
    fn kind(&self) -> ReportKind {
        match self {
            Self::TopicError { .. } => ReportKind::TopicError,
            Self::ProduceError { .. } => ReportKind::ProduceError,
            Self::BatchSplit { .. } => ReportKind::BatchSplit,
            Self::NoProducerId { .. } => ReportKind::NoProducerId,
            Self::LogWithoutNumbers { .. } => ReportKind::NoSequenceNumbers,
            Self::ResentInDoubt { .. } => ReportKind::ResentInDoubt,
        }
    }

    fn subject(&self) -> Cow<'_, str> {
        match self {
            Self::ProduceError { topic, error, .. } => format!("{topic} {}", error.0).into(),
            Self::TopicError { topic, .. }
            | Self::BatchSplit { topic, .. }
            | Self::LogWithoutNumbers { topic }
            | Self::ResentInDoubt { topic, .. } => (*topic).into(),
            Self::NoProducerId { .. } => NO_SUBJECT,
        }
    }
}

impl Display for DeliveryReport<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::TopicError { topic, error } => {
                write!(f, "topic {topic}: {error}{}", advice(*error))
            }
            Self::ProduceError { topic, partition, error, words } => {
                write!(f, "topic {topic} partition {partition}: {error}{}", advice(*error))?;
                match words {
                    Some(words) => write!(f, ": {words}"),
                    None => Ok(()),
                }
            }
            Self::BatchSplit { topic, records } => write!(
                f,
                "topic {topic}: a batch of {records} messages is too large for the broker and \
                 was split; lower batch_size or batch_num_messages, or raise max.message.bytes"
            ),
            Self::NoProducerId { error, mode } => {
                let then = match mode {
                    Idempotence::Required => "nothing is sent, since enable_idempotence is true",
                    _ => "going on without idempotence: lost answers may duplicate messages",
                };
                write!(
                    f,
                    "no producer id: {error}; {then}. Idempotence needs Kafka 0.11 and, below 2.8, the \
                     IdempotentWrite right on the cluster; enable_idempotence = false does without it"
                )
            }
            Self::LogWithoutNumbers { topic } => write!(
                f,
                "topic {topic}: its log takes no numbered messages (log.message.format.version below 0.11); going \
                 on without idempotence there: lost answers may duplicate messages"
            ),
            Self::ResentInDoubt { topic, partition, records, error } => write!(
                f,
                "topic {topic} partition {partition}: {error}; {records} messages that may be there \
                 are sent again as new ones, and may be duplicates"
            ),
        }
    }
}

/// What an operator can do about an error.
fn advice(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
            "; create it, or let the broker do so (auto.create.topics.enable and allow_auto_create_topics)"
        }
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => "; the broker's ACLs do not allow it",
        ErrorCode::MESSAGE_TOO_LARGE => "; see max.message.bytes of the topic",
        ErrorCode::UNSUPPORTED_COMPRESSION_TYPE => {
            "; the broker does not take this codec: set another compression_codec (zstd needs Kafka 2.1, its \
             inter.broker.protocol.version included)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_topic_comes_with_what_an_operator_can_do_and_what_the_broker_adds() {
        let error = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
        let words = Some("Topic authorization failed.");
        let report = DeliveryReport::ProduceError { topic: "t", partition: 3, error, words };
        assert!(report.to_string().starts_with("topic t partition 3: "));
        let end = "; the broker's ACLs do not allow it: Topic authorization failed.";
        assert!(report.to_string().ends_with(end), "{report}");
        assert_eq!(report.subject(), "t 29");
    }
}
