//! Which partition a record goes to.
//!
//! A record with a key goes to `crc32(key) % count`, as in the original module and librdkafka's
//! `consistent`; while that partition has no leader, to the next one that has. A record without a key
//! sticks to one partition until its batch is closed, then a partition with a leader is drawn anew.

use super::metadata::Topic;
use super::random::Random;

/// Hash of a key: CRC-32 (IEEE).
pub fn key_hash(key: &[u8]) -> u32 {
    crc32fast::hash(key)
}

/// The partition for a record of `topic`, which has at least one.
pub(super) fn choose(topic: &mut Topic, key_hash: Option<u32>, random: &mut Random) -> u32 {
    let count = topic.partitions.len() as u32;
    match key_hash {
        Some(hash) => led_from(topic, hash % count),
        None => {
            if let Some(partition) = topic.sticky
                && partition < count
                && topic.partitions[partition as usize].leader.is_some()
            {
                return partition;
            }
            let partition = led_from(topic, random.below(u64::from(count)) as u32);
            topic.sticky = Some(partition);
            partition
        }
    }
}

/// `start`, or the first partition after it that has a leader; `start` when none has.
fn led_from(topic: &Topic, start: u32) -> u32 {
    let count = topic.partitions.len() as u32;
    (0..count)
        .map(|step| (start + step) % count)
        .find(|partition| topic.partitions[*partition as usize].leader.is_some())
        .unwrap_or(start)
}
