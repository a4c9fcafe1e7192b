//! What is known of the producer id that new sequence numbers belong to, and how far the way to one is.

use super::ids::{ConnId, RequestId};
use super::rules::Idempotence;
use super::timer::{Scheduled, Time};

/// The producer id, or the way to one.
#[derive(Debug)]
pub(super) struct Identity {
    pub mode: Idempotence,
    /// Id and epoch.
    pub known: Option<(i64, i16)>,
    /// The request in flight.
    pub asked: Option<(ConnId, RequestId)>,
    pub attempts: u32,
    pub not_before: Time,
    /// Number of the first record to an unknown partition: 0, or anything in tests.
    pub first_sequence: i32,
    pub scheduled: Scheduled,
}

impl Identity {
    pub fn new(mode: Idempotence) -> Identity {
        Identity {
            mode,
            known: None,
            asked: None,
            attempts: 0,
            not_before: Time(0),
            first_sequence: 0,
            scheduled: Scheduled::default(),
        }
    }

    pub fn is_on(&self) -> bool {
        self.mode != Idempotence::Off
    }

    pub fn is_wanted(&self) -> bool {
        self.is_on() && self.known.is_none()
    }
}
