//! What the producer needs of the configuration.

use crate::config::{Config, HostPort};
use std::time::Duration;

/// Whether batches carry sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotence {
    /// No.
    Off,
    /// Yes, unless the brokers do not know it or do not allow it.
    Preferred,
    /// Yes, and nothing is sent without.
    Required,
}

/// What the producer needs of the configuration.
#[derive(Debug, Clone)]
pub struct Rules {
    /// `metadata_broker_list`.
    pub bootstrap: Vec<HostPort>,
    /// `request_required_acks`.
    pub acks: i16,
    /// `enable_idempotence`.
    pub idempotence: Idempotence,
    /// `request_timeout_ms`.
    pub request_timeout: Duration,
    /// `message_timeout_ms`.
    pub message_timeout: Duration,
    /// `queue_buffering_max_ms`.
    pub linger: Duration,
    /// `batch_num_messages`.
    pub batch_records: usize,
    /// `batch_size`.
    pub batch_bytes: usize,
    /// `message_send_max_retries`.
    pub max_retries: u32,
    /// `retry_backoff_ms`.
    pub retry_backoff: Duration,
    /// `retry_backoff_max_ms`.
    pub retry_backoff_max: Duration,
    /// `metadata_refresh_interval_ms`.
    pub metadata_refresh: Duration,
    /// `max_in_flight_requests_per_connection`.
    pub max_in_flight: usize,
    /// `reconnect_backoff_ms`.
    pub reconnect_backoff: Duration,
    /// `reconnect_backoff_max_ms`.
    pub reconnect_backoff_max: Duration,
    /// Connections that are open, or being made, at a time. That is no matter of the configuration: who makes them says
    /// how many there may be.
    pub max_connections: usize,
    /// `conn_retry_limit`.
    pub conn_retry_limit: u32,
    /// `conn_retry_timeout`.
    pub conn_rest: Duration,
}

impl From<&Config> for Rules {
    fn from(config: &Config) -> Rules {
        let Config { brokers, delivery, .. } = config;
        Rules {
            bootstrap: brokers.metadata_broker_list.clone(),
            acks: delivery.request_required_acks,
            idempotence: match delivery.enable_idempotence {
                Some(false) => Idempotence::Off,
                _ if delivery.request_required_acks != -1 => Idempotence::Off,
                Some(true) => Idempotence::Required,
                None => Idempotence::Preferred,
            },
            request_timeout: delivery.request_timeout(),
            message_timeout: delivery.message_timeout(),
            linger: delivery.linger(),
            batch_records: delivery.batch_num_messages,
            batch_bytes: delivery.batch_size,
            max_retries: delivery.message_send_max_retries,
            retry_backoff: delivery.retry_backoff(),
            retry_backoff_max: delivery.retry_backoff_max(),
            metadata_refresh: brokers.metadata_refresh(),
            max_in_flight: delivery.max_in_flight_requests_per_connection,
            reconnect_backoff: brokers.reconnect_backoff(),
            reconnect_backoff_max: brokers.reconnect_backoff_max(),
            max_connections: usize::MAX,
            conn_retry_limit: brokers.conn_retry_limit,
            conn_rest: brokers.left_alone_for(),
        }
    }
}
