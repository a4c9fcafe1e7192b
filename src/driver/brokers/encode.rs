//! Requests from the producer's lists and the queue's bytes. A payload goes from the queue straight into the request, or
//! into the codec; a repetition encodes it anew, so a record costs memory only while it is being written.

use super::super::lookup::Records;
use super::super::records::new_record::on_the_wire;
use super::compression::Encoding;
use crate::config::Config;
use crate::net::Expected;
use crate::producer::{InFlightBatch, Producer};
use crate::protocol::api_versions::Versions;
use crate::protocol::header::{ApiKey, MAX_FRAME, finish_frame, put_request_header};
use crate::protocol::init_producer_id::put_init_producer_id_request;
use crate::protocol::metadata::{self, put_metadata_request};
use crate::protocol::produce::{self, ProduceEncoder, TopicRef};

/// How many records ahead their bytes are asked for: those of one partition lie scattered over the queue.
const PREFETCH_AHEAD: usize = 4;

/// Room for headers and names around the batches.
const ENVELOPE: usize = 512;

/// An InitProducerId request in `version`, and the answer it gets.
pub(super) fn init_producer_id(
    config: &Config,
    version: i16,
    correlation_id: i32,
) -> (Vec<u8>, Option<Expected>) {
    let mut frame = Vec::with_capacity(ENVELOPE);
    let api = ApiKey::InitProducerId;
    let start =
        put_request_header(&mut frame, api, version, correlation_id, &config.brokers.client_id);
    put_init_producer_id_request(&mut frame, version);
    finish_frame(&mut frame, start);
    (frame, Some(Expected { correlation_id, api, version, largest: 64 * 1024 }))
}

/// The largest answer to a Produce request that makes sense. A partition's takes some 50 bytes and its
/// topic's name; if a broker refuses records it says why for each, in a text that may have that name too.
const fn largest_produce_answer(partitions: usize, records: usize) -> usize {
    let largest = 64 * 1024 + (partitions + records) * 512;
    if largest < MAX_FRAME { largest } else { MAX_FRAME }
}

/// A Metadata request and the answer it gets. Asking about the topics makes them only if that is wanted (`may_make`):
/// brokers that cannot be told so are not asked about them, and then nobody knows them.
pub(super) fn metadata(
    config: &Config,
    versions: Versions,
    correlation_id: i32,
    topics: &[&str],
    may_make: bool,
) -> (Vec<u8>, Option<Expected>) {
    let version = versions.metadata;
    let mut frame = Vec::with_capacity(ENVELOPE);
    let client_id = &config.brokers.client_id;
    let start =
        put_request_header(&mut frame, ApiKey::Metadata, version, correlation_id, client_id);
    let may_ask = may_make || version >= metadata::DECLINES_TO_MAKE_TOPICS;
    let topics = if may_ask { topics } else { &[] };
    let may_make = may_make && config.brokers.allow_auto_create_topics;
    put_metadata_request(&mut frame, version, topics, may_make);
    finish_frame(&mut frame, start);
    let (api, largest) = (ApiKey::Metadata, MAX_FRAME);
    (frame, Some(Expected { correlation_id, api, version, largest }))
}

/// A Produce request with the batches of `sent`, in a buffer of `frame_of` so many bytes, and the answer it gets.
pub(super) fn produce(
    config: &Config,
    version: i16,
    correlation_id: i32,
    producer: &Producer,
    lookup: Records<'_>,
    mut encoding: Encoding<'_>,
    (sent, frame_of): (&[InFlightBatch], impl FnOnce(usize) -> Vec<u8>),
) -> (Vec<u8>, Option<Expected>) {
    let bytes: usize = sent.iter().map(|sent| sent.batch.encoded_bytes()).sum();
    let mut frame = frame_of(bytes + ENVELOPE);
    let by_topic: Vec<&[InFlightBatch]> = sent.chunk_by(|a, b| a.topic == b.topic).collect();
    let mut encoder = ProduceEncoder::begin(
        &mut frame,
        version,
        correlation_id,
        &config.brokers.client_id,
        config.delivery.request_required_acks,
        config.delivery.request_timeout_on_the_wire(),
        by_topic.len(),
    );
    for batches in by_topic {
        let name = producer.topic_name(batches[0].topic);
        encoder.topic(TopicRef { name, id: batches[0].topic_id }, batches.len());
        for sent in batches {
            let hint = sent.batch.encoded_bytes();
            encoder.partition(sent.partition as i32, hint, |out| {
                let list = &sent.batch.records;
                let records = || {
                    list.iter().enumerate().map(|(n, record)| {
                        if let Some(later) = list.get(n + PREFETCH_AHEAD) {
                            lookup.prefetch(later.id, later.bytes as usize);
                        }
                        on_the_wire(config.delivery.send_key, lookup.in_use(record.id))
                    })
                };
                encoding.put(out, sent.batch.stamp, records);
            });
        }
    }
    encoder.finish();
    let records: usize = sent.iter().map(|sent| sent.batch.records.len()).sum();
    let (api, largest) = (ApiKey::Produce, largest_produce_answer(sent.len(), records));
    let expected = Expected { correlation_id, api, version, largest };
    (frame, (config.delivery.request_required_acks != 0).then_some(expected))
}

/// The version in which batches are sent to a broker that offers these.
pub(super) fn produce_version(versions: Versions, sent: &[InFlightBatch]) -> i16 {
    let ids_known = sent.iter().all(|sent| !sent.topic_id.is_nil());
    // A broker that was upgraded a moment ago may offer what the metadata in hand cannot serve.
    if ids_known { versions.produce } else { versions.produce.min(produce::BY_TOPIC_ID - 1) }
}
