//! The producer id: when one is asked for, and what the answers mean.
//!
//! Invariants: one request is in flight at a time. Where idempotence is only preferred, a cluster that does not know it
//! or does not allow it ends the asking; where it is required, the asking never ends.

use super::api::{Action, Notice};
use super::ids::{ConnId, RequestId};
use super::retry;
use super::rules::Idempotence;
use super::state::Producer;
use super::timer::{Time, Timer};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::init_producer_id::InitProducerIdResponse;

impl Producer {
    /// Lets the numbers of all partitions begin elsewhere than at 0.
    #[cfg(test)]
    pub(super) fn begin_sequences_at(&mut self, sequence: i32) {
        self.identity.first_sequence = sequence;
    }

    /// An answer to a request for a producer id.
    pub fn handle_producer_id(
        &mut self,
        now: Time,
        conn: ConnId,
        request: RequestId,
        response: &InitProducerIdResponse,
    ) {
        self.take_in_flight(conn, request);
        self.relist(conn);
        if self.identity.asked != Some((conn, request)) {
            return;
        }
        self.identity.asked = None;
        self.throttle(now, conn, response.throttle_ms);
        match response.error {
            ErrorCode::NONE if response.producer_id >= 0 && response.epoch >= 0 => {
                self.identity.known = Some((response.producer_id, response.epoch));
                self.identity.attempts = 0;
                return self.reschedule_all_partitions(now);
            }
            error @ (ErrorCode::UNSUPPORTED_VERSION | ErrorCode::CLUSTER_AUTHORIZATION_FAILED) => {
                self.out
                    .notices
                    .push_back(Notice::NoProducerId { error, mode: self.identity.mode });
                if self.identity.mode == Idempotence::Preferred {
                    self.identity.mode = Idempotence::Off;
                    return self.reschedule_all_partitions(now);
                }
                // It takes a person to change that.
                self.identity.attempts = u32::MAX / 2;
            }
            // Whatever else it is may pass, as may an id that is none.
            _ => {}
        }
        self.identity.attempts = self.identity.attempts.saturating_add(1);
        let pause = retry::backoff(
            self.rules.retry_backoff,
            self.rules.retry_backoff_max,
            self.identity.attempts,
            &mut self.random,
        );
        self.identity.not_before = now + pause;
        self.reschedule_identity(now);
    }

    /// Asks for a producer id, if one is needed and somebody is connected.
    pub(super) fn reschedule_identity(&mut self, now: Time) {
        let identity = &mut self.identity;
        if !identity.is_wanted() || identity.asked.is_some() {
            return;
        }
        if identity.not_before > now {
            let at = identity.not_before;
            return self.timers.schedule(&mut identity.scheduled, Timer::ProducerId, at);
        }
        self.identity.asked =
            self.ask(now, |conn, request| Action::InitProducerId { conn, request });
        // Without a connection the next one asks; those that there are may be throttled.
        if self.identity.asked.is_none() && !self.brokers.connections.is_empty() {
            let at = now + self.rules.retry_backoff;
            self.timers.schedule(&mut self.identity.scheduled, Timer::ProducerId, at);
        }
    }

    /// A connection is gone, and with it perhaps the request for an id. The next one is put off when it `failed`,
    /// and not when it was we who closed it.
    pub(super) fn forget_asked_identity(&mut self, now: Time, conn: ConnId, failed: bool) {
        if self.identity.asked.is_some_and(|(asked, _)| asked == conn) {
            self.identity.asked = None;
            if failed {
                self.identity.not_before = now + self.rules.retry_backoff;
            }
            self.reschedule_identity(now);
        }
    }

    /// Partitions are gone, and with them what is known of their numbers. Should they come back, a broker may
    /// remember them.
    pub(super) fn forget_numbers(&mut self, now: Time) {
        self.identity.known = None;
        self.reschedule_identity(now);
    }
}
