//! ApiVersions: which versions a broker speaks, and which of them lkfk uses.
//!
//! Requests v0 and v3, answers v0 to v3 (<https://kafka.apache.org/protocol#The_Messages_ApiVersions>).
//!
//! v3 names the client, so it is asked first. A broker too old for it (below 2.4) answers error 35,
//! UNSUPPORTED_VERSION, in the v0 form and keeps the connection; the list is then empty or holds
//! ApiVersions alone. The caller asks again with v0. Brokers below 0.10 do not know the request at
//! all: 0.8 closes the connection and 0.9 never answers. Their versions are those of their
//! [release](super::release).

use std::ops::RangeInclusive;

use thiserror::Error;

use super::error_code::ErrorCode;
use super::header::ApiKey;
use super::primitives::{DecodeError, Form, Reader};
use super::put::Put;
use super::{init_producer_id, metadata, produce, sasl};

/// The versions that can be encoded and decoded here.
pub const VERSIONS: RangeInclusive<i16> = 0..=3;

const SOFTWARE_NAME: &str = "lkfk";
const SOFTWARE_VERSION: &str = env!("CARGO_PKG_VERSION");

// Brokers refuse a request whose name or version has other characters (INVALID_REQUEST).
const _: () = assert!(is_software_word(SOFTWARE_NAME) && is_software_word(SOFTWARE_VERSION));

/// The first version that tells topic ids in Metadata.
const METADATA_WITH_TOPIC_IDS: i16 = 10;

/// What a KRaft controller's listener alone offers: Vote and BrokerRegistration.
const OF_CONTROLLERS: [i16; 2] = [52, 62];

/// A (key, lowest, highest) element of the answer, in any version.
const SMALLEST_RANGE: usize = 6;

/// Writes the body of a request.
pub fn put_api_versions_request(out: &mut Vec<u8>, version: i16) {
    debug_assert!(VERSIONS.contains(&version));
    let form = ApiKey::ApiVersions.form(version);
    if form == Form::Flexible {
        out.put_compact_string(SOFTWARE_NAME);
        out.put_compact_string(SOFTWARE_VERSION);
        out.put_no_tagged_fields(form);
    }
}

/// What a broker says it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiVersionsResponse {
    /// [`ErrorCode::UNSUPPORTED_VERSION`] asks for the same request in v0.
    pub error: ErrorCode,
    /// One per API, in the broker's order, unchecked.
    pub ranges: Vec<ApiRange>,
    /// How long the broker wants no more requests; 0 in v0.
    pub throttle_ms: i32,
}

/// The versions a broker offers for one API.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct ApiRange {
    /// The API's number.
    pub key: i16,
    /// The lowest version.
    pub min: i16,
    /// The highest version.
    pub max: i16,
}

impl ApiVersionsResponse {
    /// Reads the body of an answer to a request of this version, to its last byte.
    pub fn decode(version: i16, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.check_version(version, VERSIONS, "ApiVersions answer")?;
        let error = ErrorCode(reader.i16("error code")?);
        let version = if error == ErrorCode::UNSUPPORTED_VERSION { 0 } else { version };
        let form = ApiKey::ApiVersions.form(version);
        let ranges = reader.array(form, SMALLEST_RANGE, "api keys", |reader| {
            let range = ApiRange {
                key: reader.i16("api key")?,
                min: reader.i16("lowest version")?,
                max: reader.i16("highest version")?,
            };
            reader.skip_tagged_fields(form)?;
            Ok(range)
        })?;
        let throttle_ms = if version >= 1 { reader.i32("throttle time")? } else { 0 };
        // Supported and finalized features: nothing a producer acts on.
        reader.skip_tagged_fields(form)?;
        reader.finish()?;
        Ok(Self { error, ranges, throttle_ms })
    }

    /// Whether the listener is one for controllers, who take no messages.
    fn is_a_controllers(&self) -> bool {
        let offers = |key| self.ranges.iter().any(|range| range.key == key);
        !offers(ApiKey::Produce.code()) && OF_CONTROLLERS.into_iter().any(offers)
    }

    /// The versions of `api` that every mention of it allows; a mention may allow none.
    fn offered(&self, api: ApiKey) -> Option<(i16, i16)> {
        self.ranges
            .iter()
            .filter(|range| range.key == api.code())
            .map(|range| (range.min, range.max))
            .reduce(|one, other| (one.0.max(other.0), one.1.min(other.1)))
    }
}

/// The versions to use with one broker.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Versions {
    /// Version of Produce requests.
    pub produce: i16,
    /// Version of Metadata requests.
    pub metadata: i16,
    /// Version of InitProducerId requests; `None`: the broker knows no idempotence.
    pub init_producer_id: Option<i16>,
    /// Version of SaslAuthenticate requests; `None`: the broker takes tokens without headers alone.
    pub sasl_authenticate: Option<i16>,
}

impl Versions {
    /// What Kafka 0.8 and 0.9 speak. 0.8 does not look at versions: asked in Produce v1 it appends, and
    /// answers in v0. The little that v1 adds in 0.9 is not worth telling the two apart.
    pub const OLDEST: Self =
        Self { produce: 0, metadata: 0, init_producer_id: None, sasl_authenticate: None };

    /// Picks the highest versions that both sides speak.
    ///
    /// Kafka 4 offers Produce from 0 but closes the connection on 0 to 2: those are right only where
    /// they are the highest. Produce 13 names topics by id and is used only where Metadata tells the
    /// ids.
    pub fn negotiate(response: &ApiVersionsResponse) -> Result<Self, NegotiationError> {
        if response.error != ErrorCode::NONE {
            return Err(NegotiationError::Refused { error: response.error });
        }
        if response.is_a_controllers() {
            return Err(NegotiationError::Controller);
        }
        let metadata = pick(response, ApiKey::Metadata, metadata::VERSIONS)?;
        let produce_needs = if metadata >= METADATA_WITH_TOPIC_IDS {
            produce::VERSIONS
        } else {
            *produce::VERSIONS.start()..=produce::BY_TOPIC_ID - 1
        };
        let produce = pick(response, ApiKey::Produce, produce_needs)?;
        let init_producer_id =
            pick(response, ApiKey::InitProducerId, init_producer_id::VERSIONS).ok();
        let sasl_authenticate =
            pick(response, ApiKey::SaslAuthenticate, sasl::AUTHENTICATE_VERSIONS).ok();
        Ok(Self { produce, metadata, init_producer_id, sasl_authenticate })
    }
}

/// Why lkfk cannot talk to a broker.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NegotiationError {
    /// The broker answered with an error instead of its versions.
    #[error("the broker refused to tell its versions: {error}")]
    Refused {
        /// What it answered.
        error: ErrorCode,
    },
    /// The listener belongs to a controller.
    #[error(
        "this is the listener of a KRaft controller, which takes no messages (it does not offer Produce): \
         metadata_broker_list must name listeners of brokers"
    )]
    Controller,
    /// The broker does not have the API at all.
    #[error("the broker does not offer {api:?}, lkfk needs it in {}", words(.needed))]
    Missing {
        /// Which API.
        api: ApiKey,
        /// The versions lkfk could use.
        needed: (i16, i16),
    },
    /// The broker has the API, in no version that lkfk can use.
    #[error("the broker offers {api:?} in {}, lkfk needs it in {}", words(.offered), words(.needed))]
    NoCommonVersion {
        /// Which API.
        api: ApiKey,
        /// What the broker offers, lowest and highest; in the wrong order it offers none.
        offered: (i16, i16),
        /// The versions lkfk could use.
        needed: (i16, i16),
    },
}

fn pick(
    response: &ApiVersionsResponse,
    api: ApiKey,
    needed: RangeInclusive<i16>,
) -> Result<i16, NegotiationError> {
    let needed = (*needed.start(), *needed.end());
    let Some(offered) = response.offered(api) else {
        return Err(NegotiationError::Missing { api, needed });
    };
    let (lowest, highest) = (offered.0.max(needed.0), offered.1.min(needed.1));
    if lowest <= highest {
        Ok(highest)
    } else {
        Err(NegotiationError::NoCommonVersion { api, offered, needed })
    }
}

fn words(&(lowest, highest): &(i16, i16)) -> String {
    if lowest > highest {
        format!("no version (lowest {lowest}, highest {highest})")
    } else {
        format!("versions {lowest} to {highest}")
    }
}

/// Letters, digits, dots and dashes, neither dot nor dash at the ends.
const fn is_software_word(word: &str) -> bool {
    let word = word.as_bytes();
    if word.is_empty() {
        return false;
    }
    let mut index = 0;
    while index < word.len() {
        let at_end = index == 0 || index == word.len() - 1;
        let byte = word[index];
        let dot_or_dash = byte == b'.' || byte == b'-';
        if !byte.is_ascii_alphanumeric() && (at_end || !dot_or_dash) {
            return false;
        }
        index += 1;
    }
    true
}
