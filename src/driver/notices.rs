//! What the producer notices, and brokers answer, as reports.

use super::context::Context;
use super::report::brokers::BrokerReport;
use super::report::delivery::DeliveryReport;
use crate::producer::{Notice, Producer};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::produce::{ProduceResponse, ProducedTopicRef};

/// Reports what the producer noticed.
pub(super) fn tell(cx: &Context<'_>, producer: &Producer, notice: Notice) {
    let name = |topic| producer.topic_name(topic);
    match notice {
        Notice::TopicError { topic, error } => {
            cx.report(&DeliveryReport::TopicError { topic: name(topic), error });
        }
        Notice::NoRoom { most } => cx.report(&BrokerReport::NoConnectionLeft { most }),
        Notice::BrokerRests { address, attempts, pause, .. } => {
            cx.report(&BrokerReport::LeftAlone { address: &address, attempts, pause });
        }
        Notice::NoProducerId { error, mode } => {
            cx.report(&DeliveryReport::NoProducerId { error, mode });
        }
        Notice::LogWithoutNumbers { topic } => {
            cx.report(&DeliveryReport::LogWithoutNumbers { topic: name(topic) });
        }
        Notice::ResentInDoubt { topic, partition, records, error } => {
            let topic = name(topic);
            cx.report(&DeliveryReport::ResentInDoubt { topic, partition, records, error });
        }
        Notice::Throttled { address, pause, .. } => {
            cx.report(&BrokerReport::Throttled { address: &address, pause });
        }
        Notice::HungUp { topic, address, bytes, .. } => {
            cx.report(&BrokerReport::HungUp { topic: name(topic), address: &address, bytes });
        }
        Notice::BatchSplit { topic, records } => {
            cx.report(&DeliveryReport::BatchSplit { topic: name(topic), records });
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
            let Some(topic) = name else { break };
            // Most have nothing to add.
            let words =
                told.error_message.as_deref().map(str::trim).filter(|words| !words.is_empty());
            let (partition, error) = (told.index, told.error);
            cx.report(&DeliveryReport::ProduceError { topic, partition, error, words });
        }
    }
}
