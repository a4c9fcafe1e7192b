//! The codec against an independent one (the kafka-protocol crate), and against damage.
//!
//! kafka-protocol decodes only what was encoded here: its own decoder trusts counts.

mod answers;
mod batches;
mod damage;
mod error_codes;
mod negotiation;
mod oracle;
mod primitives;
mod requests;
