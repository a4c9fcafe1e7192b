//! The Kafka wire format: encoders for what a producer asks, bounded decoders for what it is told.
//!
//! Bytes in, bytes out: no sockets, no clock, no threads. Requests are appended to a `Vec<u8>` as
//! whole frames, ready to be sent; answers are decoded from one whole frame, without its size:
//!
//! 1. [`header::read_response_header`], whose correlation id tells which request is answered,
//! 2. `decode` of that request's answer, in that request's version, to the last byte.
//!
//! | module | API | versions |
//! |---|---|---|
//! | [`api_versions`] | ApiVersions, and the choice of versions | requests 0 and 3, answers 0 to 3 |
//! | [`metadata`] | Metadata | 0 to 13 |
//! | [`init_producer_id`] | InitProducerId | 0 to 5 |
//! | [`sasl`] | SaslHandshake, SaslAuthenticate | 0 and 1, 0 to 2 |
//! | [`produce`] with [`message_set`] | Produce | 0 to 2, magic 0 and 1 |
//! | [`produce`] with [`record_batch`] | Produce | 3 to 13, magic 2 |
//!
//! [`compression`] has the codecs of both. [`release`] knows the versions of brokers that do not tell theirs; [`sequence`] counts records as they do.
//!
//! Whatever bytes an answer consists of, decoding it ends with an error or a value, takes time in
//! proportion to its size, and takes at most four times its size plus 512 KiB of memory: see
//! [`primitives`]. What the values say (broker ids, ports, offsets, times to wait) is the broker's
//! claim and still to be judged by whoever acts on it.

pub mod api_versions;
pub mod compression;
pub mod error_code;
pub mod header;
pub mod init_producer_id;
pub mod message_set;
pub mod metadata;
pub mod primitives;
pub mod produce;
pub mod put;
pub mod record_batch;
pub mod release;
pub mod sasl;
pub mod sequence;
mod sink;

#[cfg(all(test, not(loom)))]
mod tests;
