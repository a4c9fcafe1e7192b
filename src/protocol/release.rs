//! Kafka's releases, for brokers that are not asked which versions they speak.

use std::str::FromStr;

use super::api_versions::Versions;

/// A release of Kafka, such as 0.10.2.1 or 3.9.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release([u16; 4]);

/// The text is not a release that lkfk can talk to.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a release of Kafka from 0.8 on")]
pub struct UnknownRelease;

/// What is used from a release on, up to the next row: (release, Produce, Metadata). Releases without a
/// row speak what the ones before them spoke.
const TABLE: &[(Release, i16, i16)] = &[
    (Release::V0_8, Versions::OLDEST.produce, Versions::OLDEST.metadata),
    (Release::V0_10, 2, 1),
    (Release([0, 10, 1, 0]), 2, 2),
    (Release::V0_11, 3, 4),
    (Release::V1_0, 5, 5),
    (Release([2, 0, 0, 0]), 6, 6),
    (Release([2, 1, 0, 0]), 7, 7),
    (Release([2, 4, 0, 0]), 8, 9),
    (Release([2, 8, 0, 0]), 9, 11),
    (Release([3, 4, 0, 0]), 9, 12),
    (Release([3, 9, 0, 0]), 11, 12),
    (Release([4, 0, 0, 0]), 12, 13),
    (Release([4, 1, 0, 0]), 13, 13),
];

impl Release {
    /// The oldest that lkfk can talk to.
    pub const V0_8: Self = Self([0, 8, 0, 0]);
    /// The first that authenticates with what lkfk has, and that can be asked for its versions.
    pub const V0_10: Self = Self([0, 10, 0, 0]);
    /// The first with record batches and idempotence. InitProducerId v0, which it has, is in all later ones.
    const V0_11: Self = Self([0, 11, 0, 0]);

    /// The first with SaslAuthenticate.
    const V1_0: Self = Self([1, 0, 0, 0]);
    /// The first whose SaslAuthenticate tells how long a session lasts: v1, which is in all later ones (KIP-368).
    const V2_2: Self = Self([2, 2, 0, 0]);

    /// The versions to use with it.
    pub fn versions(self) -> Versions {
        let rows = TABLE.iter().rev();
        let (_, produce, metadata) =
            rows.copied().find(|(from, ..)| *from <= self).unwrap_or(TABLE[0]);
        let init_producer_id = (self >= Self::V0_11).then_some(0);
        let sasl_authenticate = (self >= Self::V1_0).then_some(i16::from(self >= Self::V2_2));
        Versions { produce, metadata, init_producer_id, sasl_authenticate }
    }
}

impl FromStr for Release {
    type Err = UnknownRelease;

    /// Reads two to four numbers with dots between them.
    fn from_str(text: &str) -> Result<Self, UnknownRelease> {
        let mut numbers = [0; 4];
        let mut count = 0;
        for part in text.split('.') {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            let number = numbers.get_mut(count).filter(|_| digits).ok_or(UnknownRelease)?;
            *number = part.parse().map_err(|_| UnknownRelease)?;
            count += 1;
        }
        let release = Self(numbers);
        if count >= 2 && release >= Self::V0_8 { Ok(release) } else { Err(UnknownRelease) }
    }
}
