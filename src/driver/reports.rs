//! What the driver reports of its producer: log lines with what an operator can do, and statistics.

use super::context::Context;
use super::lua::log::Level;
use crate::producer::{Idempotence, Notice, Producer};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::produce::{ProduceResponse, ProducedTopicRef};
use crate::stats;

/// Logs what the producer noticed.
pub(super) fn tell(cx: &Context<'_>, producer: &Producer, notice: Notice) {
    match notice {
        Notice::TopicError { topic, error } => {
            let topic = producer.topic_name(topic);
            let text = format_args!("topic {topic}: {error}{}", advice(error));
            cx.log(Level::Warn, "topic", topic, text);
        }
        Notice::NoRoom { most } => {
            let text = format_args!(
                "all {most} connections to brokers that this producer may have are in use, and more brokers wait for \
                 one: a worker has an eighth of its descriptors for that (raise worker_rlimit_nofile), 256 at most, \
                 and keeps some for its other producers"
            );
            cx.log(Level::Warn, "too many", "", text);
        }
        Notice::BrokerRests { address, .. } => {
            let text = format_args!(
                "broker {address}: {} attempts to connect failed in a row, and none is made for {} s now \
                 (conn_retry_limit, conn_retry_timeout)",
                cx.config.conn_retry_limit, cx.config.conn_retry_timeout
            );
            cx.log(Level::Warn, "rests", &address, text);
        }
        Notice::NoProducerId { error, mode } => {
            let then = match mode {
                Idempotence::Required => "nothing is sent, since enable_idempotence is true",
                _ => "going on without idempotence: lost answers may duplicate messages",
            };
            let text = format_args!(
                "no producer id: {error}; {then}. Idempotence needs Kafka 0.11 and, below 2.8, the \
                     IdempotentWrite right on the cluster; enable_idempotence = false does without it"
            );
            cx.log(Level::Warn, "producer id", "", text);
        }
        Notice::LogWithoutNumbers { topic } => {
            let topic = producer.topic_name(topic);
            let text = format_args!(
                "topic {topic}: its log takes no numbered messages (log.message.format.version below 0.11); going \
                     on without idempotence there: lost answers may duplicate messages"
            );
            cx.log(Level::Warn, "no numbers", topic, text);
        }
        Notice::ResentInDoubt { topic, partition, records, error } => {
            let topic = producer.topic_name(topic);
            let text = format_args!(
                "topic {topic} partition {partition}: {error}; {records} messages that may be there \
                     are sent again as new ones, and may be duplicates"
            );
            cx.log(Level::Warn, "in doubt", topic, text);
        }
        Notice::Throttled { address, pause, .. } => {
            let text = format_args!(
                "broker {address} throttles this client for {} ms, since its quota is used up: messages wait; \
                 raise producer_byte_rate or request_percentage for it in Kafka, or log less",
                pause.as_millis()
            );
            cx.log(Level::Warn, "throttled", &address, text);
        }
        Notice::HungUp { topic, address, bytes, .. } => {
            let topic = producer.topic_name(topic);
            let text = format_args!(
                "topic {topic}: broker {address} closes the connection on requests of some {bytes} bytes instead of \
                 answering them: they are larger than its socket.request.max.bytes, or a proxy's limit. Smaller ones \
                 are sent from now on; raise that, or lower batch_size"
            );
            cx.log(Level::Warn, "hung up", topic, text);
        }
        Notice::BatchSplit { topic, records } => {
            let topic = producer.topic_name(topic);
            let text = format_args!(
                "topic {topic}: a batch of {records} messages is too large for the broker and \
                     was split; lower batch_size or batch_num_messages, or raise max.message.bytes"
            );
            cx.log(Level::Warn, "split", topic, text);
        }
    }
}

/// Errors in answers, one line per topic and error in a while. Topics that are not ours are the broker's
/// affair: their names would fill the memory of what was said.
pub(super) fn tell_errors(cx: &Context<'_>, producer: &Producer, response: &ProduceResponse) {
    for topic in &response.topics {
        for told in topic.partitions.iter().filter(|told| told.error != ErrorCode::NONE) {
            let name = match &topic.topic {
                ProducedTopicRef::Name(name) => producer.topic_by_name(name),
                ProducedTopicRef::Id(id) => producer.topic_by_id(id),
            };
            let Some(name) = name else { break };
            // Most have nothing to add.
            let words =
                told.error_message.as_deref().map(str::trim).filter(|words| !words.is_empty());
            let text = format_args!(
                "topic {name} partition {}: {}{}{}{}",
                told.index,
                told.error,
                advice(told.error),
                if words.is_some() { ": " } else { "" },
                words.unwrap_or_default(),
            );
            let subject = format_args!("{name} {}", told.error.0);
            cx.log(Level::Warn, "produce", subject, text);
        }
    }
}

/// Brings the statistics up to date.
pub(super) fn publish_stats(cx: &Context<'_>, producer: &Producer, spilling: u64) {
    cx.shared.lua.topics.set_waiting_if_wanted(producer.waiting_records());
    let stats = &cx.shared.stats;
    let counts = producer.counts();
    stats::set(&stats.waitbuf, producer.in_flight_records());
    stats::set(&stats.batches_sent, counts.batches);
    stats::set(&stats.batch_records_max, counts.batch_records_max);
    stats::set(&stats.requests_sent, counts.requests);
    stats::set(&stats.batches_retried, counts.retries);
    stats::set(&stats.resent_in_doubt_cnt, counts.resent_in_doubt);
    stats::set(&stats.metadata_requests_sent, counts.metadata_requests);
    stats::set(&stats.throttle_ms, counts.throttled_ms);
    stats::set(&stats.connections_broken, counts.broken_connections);
    stats::set(&stats.spill_waiting, spilling);
    stats::set(&stats.log_lines_dropped, cx.shared.log.dropped());
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
