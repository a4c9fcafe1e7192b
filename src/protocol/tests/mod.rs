//! The codec against an independent one (the kafka-protocol crate), and against damage.
//!
//! kafka-protocol decodes only what was encoded here: its own decoder trusts counts. Message sets and
//! Produce below v3 it does not know; for these there are a reader written from the protocol's guide,
//! and bytes that real brokers sent.

mod answers;
mod batches;
mod captured;
mod damage;
mod error_codes;
mod message_reader;
mod message_sets;
mod negotiation;
mod oracle;
mod primitives;
mod requests;
