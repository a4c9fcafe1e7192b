//! InitProducerId: the producer id that an idempotent producer stamps its batches with (KIP-98).
//!
//! Requests and answers v0 to v5 (<https://kafka.apache.org/protocol#The_Messages_InitProducerId>). lkfk
//! has no transactions, so it never names a transactional id nor, from v3 on, an id that it has already:
//! any broker gives it a new one, with epoch 0. What changed: v2 flexible, v3 an id to be kept (KIP-360),
//! v4 PRODUCER_FENCED; v6 is for two-phase commit alone.

use std::ops::RangeInclusive;

use super::error_code::ErrorCode;
use super::header::ApiKey;
use super::primitives::{DecodeError, Reader};
use super::put::Put;

/// The versions that can be encoded and decoded here.
pub const VERSIONS: RangeInclusive<i16> = 0..=5;

/// Limit for a transaction, which there is none of; brokers check it only beside a transactional id.
const TRANSACTION_TIMEOUT_MS: i32 = 60_000;

/// Writes the body of a request for a new id.
pub fn put_init_producer_id_request(out: &mut Vec<u8>, version: i16) {
    debug_assert!(VERSIONS.contains(&version));
    let form = ApiKey::InitProducerId.form(version);
    out.put_null_string(form); // transactional id
    out.put_i32(TRANSACTION_TIMEOUT_MS);
    if version >= 3 {
        out.put_i64(-1); // no id so far
        out.put_i16(-1);
    }
    out.put_no_tagged_fields(form);
}

/// A producer id, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitProducerIdResponse {
    /// How long the broker wants no more requests.
    pub throttle_ms: i32,
    /// Such as [`ErrorCode::COORDINATOR_LOAD_IN_PROGRESS`] from a broker that has just started.
    pub error: ErrorCode,
    /// The id, as sent; valid only from 0 on.
    pub producer_id: i64,
    /// Its epoch, as sent.
    pub epoch: i16,
}

impl InitProducerIdResponse {
    /// Reads the body of an answer to a request of this version, to its last byte.
    pub fn decode(version: i16, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.check_version(version, VERSIONS, "InitProducerId answer")?;
        let form = ApiKey::InitProducerId.form(version);
        let throttle_ms = reader.i32("throttle time")?;
        let response = Self {
            // Before that the broker has paused already (KIP-219).
            throttle_ms: if version >= 1 { throttle_ms } else { 0 },
            error: ErrorCode(reader.i16("error code")?),
            producer_id: reader.i64("producer id")?,
            epoch: reader.i16("producer epoch")?,
        };
        reader.skip_tagged_fields(form)?;
        reader.finish()?;
        Ok(response)
    }
}
