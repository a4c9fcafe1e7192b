//! The values of keys as their users count: times as durations, sizes in bytes.

use super::keys::{BrokerConfig, DeliveryConfig, ExitConfig, QueueConfig};
use super::ranges::{QUEUE_KBYTES, REQUEST_TIMEOUT_MS};
use std::time::Duration;

impl BrokerConfig {
    /// `metadata_refresh_interval_ms`.
    pub fn metadata_refresh(&self) -> Duration {
        Duration::from_millis(self.metadata_refresh_interval_ms)
    }

    /// `socket_connection_setup_timeout_ms`.
    pub fn setup_timeout(&self) -> Duration {
        Duration::from_millis(self.socket_connection_setup_timeout_ms)
    }

    /// `reconnect_backoff_ms`.
    pub fn reconnect_backoff(&self) -> Duration {
        Duration::from_millis(self.reconnect_backoff_ms)
    }

    /// `reconnect_backoff_max_ms`.
    pub fn reconnect_backoff_max(&self) -> Duration {
        Duration::from_millis(self.reconnect_backoff_max_ms)
    }

    /// `conn_retry_timeout`.
    pub fn left_alone_for(&self) -> Duration {
        Duration::from_secs(self.conn_retry_timeout)
    }

    /// `api_version_fallback_ms`.
    pub fn old_broker_memory(&self) -> Duration {
        Duration::from_millis(self.api_version_fallback_ms)
    }
}

impl DeliveryConfig {
    /// `request_timeout_ms`.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// `request_timeout_ms` as requests have it.
    pub fn request_timeout_on_the_wire(&self) -> i32 {
        const { assert!(*REQUEST_TIMEOUT_MS.end() <= i32::MAX as u64) };
        self.request_timeout_ms as i32
    }

    /// `message_timeout_ms`.
    pub fn message_timeout(&self) -> Duration {
        Duration::from_millis(self.message_timeout_ms)
    }

    /// `retry_backoff_ms`.
    pub fn retry_backoff(&self) -> Duration {
        Duration::from_millis(self.retry_backoff_ms)
    }

    /// `retry_backoff_max_ms`.
    pub fn retry_backoff_max(&self) -> Duration {
        Duration::from_millis(self.retry_backoff_max_ms)
    }

    /// `queue_buffering_max_ms`.
    pub fn linger(&self) -> Duration {
        Duration::from_millis(self.queue_buffering_max_ms)
    }
}

impl QueueConfig {
    /// `queue_buffering_max_kbytes` in bytes.
    pub fn bytes(&self) -> u64 {
        const { assert!(*QUEUE_KBYTES.end() <= u64::MAX / 1024) };
        self.queue_buffering_max_kbytes * 1024
    }
}

impl ExitConfig {
    /// `exit_timeout_ms`.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.exit_timeout_ms)
    }
}
