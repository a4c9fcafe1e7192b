//! What the driver tells: log lines with what an operator can do, statistics, and partition counts for a
//! partitioner in Lua.

use super::{Level, Run};
use crate::producer::{Idempotence, Notice, Time, TopicId};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::produce::{ProduceResponse, ProducedTopicRef};
use crate::stats;

impl Run<'_> {
    pub(super) fn tell(&self, now: Time, notice: Notice) {
        let lines = &self.shared.lines;
        match notice {
            Notice::TopicError { topic, error } => {
                let topic = self.producer.topic_name(topic);
                let text = format_args!("topic {topic}: {error}{}", advice(error));
                lines.put(now, Level::Warn, "topic", topic, text);
            }
            Notice::BrokerRests { address, .. } => {
                let text = format_args!(
                    "broker {address} failed {} times in a row and rests for {} s \
                     (conn_retry_limit, conn_retry_timeout)",
                    self.config.conn_retry_limit, self.config.conn_retry_timeout
                );
                lines.put(now, Level::Warn, "rests", &address, text);
            }
            Notice::NoProducerId { error, mode } => {
                let then = match mode {
                    Idempotence::Required => "nothing is sent, since enable_idempotence is true",
                    _ => "going on without idempotence: lost answers may double messages",
                };
                let text = format_args!(
                    "no producer id: {error}; {then}. Idempotence needs Kafka 0.11 and, below 2.8, the \
                     IdempotentWrite right on the cluster; enable_idempotence = false does without it"
                );
                lines.put(now, Level::Warn, "producer id", "", text);
            }
            Notice::LogWithoutNumbers { topic } => {
                let topic = self.producer.topic_name(topic);
                let text = format_args!(
                    "topic {topic}: its log takes no numbered messages (log.message.format.version below 0.11); going \
                     on without idempotence there: lost answers may double messages"
                );
                lines.put(now, Level::Warn, "no numbers", topic, text);
            }
            Notice::ResentInDoubt { topic, partition, records, error } => {
                let topic = self.producer.topic_name(topic);
                let text = format_args!(
                    "topic {topic} partition {partition}: {error}; {records} messages that may be there \
                     are sent again as new ones, and may be doubled"
                );
                lines.put(now, Level::Warn, "in doubt", topic, text);
            }
            Notice::BatchSplit { topic, records } => {
                let topic = self.producer.topic_name(topic);
                let text = format_args!(
                    "topic {topic}: a batch of {records} messages is too large for the broker and \
                     was split; lower batch_size or batch_num_messages, or raise max.message.bytes"
                );
                lines.put(now, Level::Warn, "split", topic, text);
            }
        }
    }

    /// Errors in answers, one line per topic and error in a while. Topics that are not ours are the broker's
    /// affair: their names would fill the memory of what was said.
    pub(super) fn tell_errors(&self, now: Time, response: &ProduceResponse) {
        for topic in &response.topics {
            for told in topic.partitions.iter().filter(|told| told.error != ErrorCode::NONE) {
                let name = match &topic.topic {
                    ProducedTopicRef::Name(name) => self.producer.topic_by_name(name),
                    ProducedTopicRef::Id(id) => self.producer.topic_by_id(id),
                };
                let Some(name) = name else { break };
                let message = told.error_message.as_deref().unwrap_or_default();
                let text = format_args!(
                    "topic {name} partition {}: {}{} {message}",
                    told.index,
                    told.error,
                    advice(told.error)
                );
                let subject = format_args!("{name} {}", told.error.0);
                self.shared.lines.put(now, Level::Warn, "produce", subject, text);
            }
        }
    }

    pub(super) fn publish_partition_counts(&mut self) {
        let count = |topic: &TopicId| self.producer.partition_count(*topic).unwrap_or(0);
        let topics = &self.sources.own().topics;
        self.shared.events.set_partition_counts(topics.iter().map(count));
    }

    pub(super) fn publish_stats(&self) {
        self.shared.events.set_waiting_if_wanted(self.producer.waiting_records());
        let stats = &self.shared.stats;
        let counts = self.producer.counts();
        stats::set(&stats.waitbuf, self.producer.in_flight_records());
        stats::set(&stats.batches_sent, counts.batches);
        stats::set(&stats.batch_records_max, counts.batch_records_max);
        stats::set(&stats.requests_sent, counts.requests);
        stats::set(&stats.batches_retried, counts.retries);
        stats::set(&stats.resent_in_doubt_cnt, counts.resent_in_doubt);
        stats::set(&stats.metadata_requests_sent, counts.metadata_requests);
        stats::set(&stats.connections_broken, counts.broken_connections);
        stats::set(&stats.spill_waiting, self.spill.amount().records);
        stats::set(&stats.log_lines_dropped, self.shared.lines.dropped());
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
        _ => "",
    }
}
