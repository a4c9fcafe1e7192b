//! What the values of keys may be: the least and the most, in the key's unit.

use super::security::FEWEST_ITERATIONS;
use super::value::Length;
use std::ops::RangeInclusive;

pub(super) const CLIENT_ID: Length = Length(0, 255);
pub(super) const METADATA_REFRESH_MS: RangeInclusive<u64> = 100..=3_600_000;
pub(super) const SETUP_TIMEOUT_MS: RangeInclusive<u64> = 100..=300_000;
pub(super) const RECONNECT_BACKOFF_MS: RangeInclusive<u64> = 1..=3_600_000;
pub(super) const CONNECT_ATTEMPTS: RangeInclusive<u32> = 1..=1_000_000;
pub(super) const LEFT_ALONE_S: RangeInclusive<u64> = 1..=86_400;
pub(super) const OLD_BROKER_MEMORY_MS: RangeInclusive<u64> = 0..=604_800_000;

pub(super) const REQUEST_TIMEOUT_MS: RangeInclusive<u64> = 1..=900_000;
pub(super) const MESSAGE_TIMEOUT_MS: RangeInclusive<u64> = 1..=2_147_483_647;
pub(super) const RETRIES: RangeInclusive<u32> = 0..=10_000_000;
pub(super) const RETRY_BACKOFF_MS: RangeInclusive<u64> = 1..=300_000;
pub(super) const LINGER_MS: RangeInclusive<u64> = 0..=900_000;
pub(super) const BATCH_MESSAGES: RangeInclusive<usize> = 1..=1_000_000;
pub(super) const BATCH_BYTES: RangeInclusive<usize> = 1_024..=1_000_000_000;
pub(super) const COMPRESSION_LEVEL: RangeInclusive<i32> = -1..=22;
pub(super) const MESSAGE_BYTES: RangeInclusive<usize> = 1_000..=268_435_456;
pub(super) const IN_FLIGHT: RangeInclusive<usize> = 1..=1_000;

pub(super) const QUEUE_MESSAGES: RangeInclusive<u64> = 1..=100_000_000;
pub(super) const QUEUE_KBYTES: RangeInclusive<u64> = 64..=2_097_152;
pub(super) const INSTANCE: Length = Length(1, 255);

pub(super) const BACKUP_FILE_BYTES: RangeInclusive<u64> = 65_536..=1_099_511_627_776;
pub(super) const BACKUP_TOTAL_BYTES: RangeInclusive<u64> = 65_536..=1_125_899_906_842_624;
pub(super) const REPLAY_RATE: RangeInclusive<u64> = 0..=10_000_000;

pub(super) const USERNAME: Length = Length(1, 255);
pub(super) const SCRAM_ITERATIONS: RangeInclusive<u32> = FEWEST_ITERATIONS..=10_000_000;

pub(super) const EXIT_TIMEOUT_MS: RangeInclusive<u64> = 0..=300_000;
