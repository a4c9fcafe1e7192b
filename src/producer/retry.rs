//! What an answer means for a batch: the one place where errors become decisions.
//!
//! | class | decision | counted |
//! |---|---|---|
//! | none, duplicate sequence | delivered | |
//! | refused for its sequence number | see [`idempotence`](super::idempotence) | |
//! | batch too large for the broker | split in two and send again; a single record fails | no |
//! | leader moved, partition or topic not known there | send again after a metadata refresh | no |
//! | retriable otherwise | send again after a pause | yes, without idempotence |
//! | anything else | fail | |
//!
//! What is not counted is bounded by `message_timeout_ms`. A connection that breaks belongs to the third
//! class and leaves the batch in doubt. A batch in doubt that has a sequence number does not fail, nor is it cut
//! in two: it is sent again until the broker says what has become of it. Only an error that is final, and stays
//! for `message_timeout_ms`, ends that.

use super::batch::InLog;
use super::random::Random;
use super::rules::Rules;
use crate::protocol::error_code::{ErrorCode, Persistence};
use std::time::Duration;

/// How a batch is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retry {
    /// It is one of the `message_send_max_retries`.
    pub counted: bool,
    /// What is known of its leader may be wrong.
    pub refresh: bool,
    /// What the answer says of the log.
    pub in_log: InLog,
}

impl Retry {
    /// Nothing is wrong with it: its turn has not come, or it gets another number.
    pub const QUIETLY: Retry = Retry { counted: false, refresh: false, in_log: InLog::No };
    /// There was no answer, or none that makes sense.
    pub const UNANSWERED: Retry =
        Retry { counted: false, refresh: true, in_log: InLog::Unanswered };
}

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Delivered,
    Split,
    Retry(Retry),
    OutOfSequence,
    Fail { in_doubt: bool },
}

/// Decides about a batch of `records`, with sequence numbers or without, that failed `attempts` times before.
pub(super) fn decide(
    error: ErrorCode,
    stamped: bool,
    records: usize,
    attempts: u32,
    rules: &Rules,
) -> Decision {
    match error {
        ErrorCode::NONE => return Decision::Delivered,
        // Only what has a number can be there already.
        ErrorCode::DUPLICATE_SEQUENCE_NUMBER if stamped => return Decision::Delivered,
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER
        | ErrorCode::UNKNOWN_PRODUCER_ID
        | ErrorCode::INVALID_PRODUCER_EPOCH
        | ErrorCode::INVALID_PRODUCER_ID_MAPPING
            if stamped =>
        {
            return Decision::OutOfSequence;
        }
        ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE if records > 1 => {
            return Decision::Split;
        }
        _ => {}
    }
    let in_doubt = error.persistence() != Persistence::No;
    let in_log = if in_doubt { InLog::Maybe } else { InLog::No };
    if !error.retriable() {
        return Decision::Fail { in_doubt };
    }
    let refresh = error.refresh_metadata();
    let counted = !refresh;
    // With a number it comes to no harm, and to fail it costs its partition a restart.
    if counted && attempts >= rules.max_retries && !stamped {
        return Decision::Fail { in_doubt };
    }
    Decision::Retry(Retry { counted, refresh, in_log })
}

/// Pause before try number `attempt` (1 is the first repetition): doubled each time from `first` up to
/// `longest`, with a jitter of 20%.
pub(super) fn backoff(
    first: Duration,
    longest: Duration,
    attempt: u32,
    random: &mut Random,
) -> Duration {
    let doubled = first.saturating_mul(1 << attempt.saturating_sub(1).min(20));
    random.jitter(doubled.min(longest))
}
