//! Frames and headers: which API in which version, and which answer belongs to which request.
//!
//! A frame is a 4-byte size and that many bytes: a header and a body. A request's header is v1, or
//! v2 (with tagged fields) where the body is flexible; an answer's is v0 or v1 alike. The one
//! exception are answers to ApiVersions, whose header is always v0, since the client cannot know
//! yet which versions the broker speaks (KIP-511).

use super::primitives::{DecodeError, Form, Reader};
use super::put::Put;

/// The largest answer that is read: 4 MiB, some 100,000 partitions of three replicas each. A frame that
/// announces more ends the connection. With what it decodes to it takes less than 8 MiB.
pub const MAX_FRAME: usize = 4 * 1024 * 1024;

/// The requests a producer needs.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum ApiKey {
    /// Sends record batches.
    Produce = 0,
    /// Asks for brokers, topics and leaders.
    Metadata = 3,
    /// Names the mechanism of authentication.
    SaslHandshake = 17,
    /// Asks which versions the broker speaks.
    ApiVersions = 18,
    /// Asks for a producer id.
    InitProducerId = 22,
    /// Carries a token of authentication.
    SaslAuthenticate = 36,
}

impl ApiKey {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Its name in Kafka's documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Produce => "Produce",
            Self::Metadata => "Metadata",
            Self::SaslHandshake => "SaslHandshake",
            Self::ApiVersions => "ApiVersions",
            Self::InitProducerId => "InitProducerId",
            Self::SaslAuthenticate => "SaslAuthenticate",
        }
    }

    /// How the bodies of this version, and the request's header, write lengths.
    pub const fn form(self, version: i16) -> Form {
        let flexible_from = match self {
            Self::Produce => 9,
            Self::Metadata => 9,
            Self::ApiVersions => 3,
            Self::InitProducerId => 2,
            Self::SaslHandshake => i16::MAX,
            Self::SaslAuthenticate => 2,
        };
        if version >= flexible_from { Form::Flexible } else { Form::Classic }
    }

    const fn response_header_form(self, version: i16) -> Form {
        match self {
            Self::ApiVersions => Form::Classic,
            _ => self.form(version),
        }
    }
}

/// Begins a request: room for the frame's size, then the header. The body follows, and then
/// [`finish_frame`] with the position that is returned here.
pub fn put_request_header(
    out: &mut Vec<u8>,
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) -> usize {
    let start = out.len();
    out.put_i32(0);
    out.put_i16(api.code());
    out.put_i16(version);
    out.put_i32(correlation_id);
    // The client id stays classic in header v2, so that any broker can read it.
    out.put_string(Form::Classic, client_id);
    out.put_no_tagged_fields(api.form(version));
    start
}

/// Ends the request that began at `start` by filling in its size.
pub fn finish_frame(out: &mut [u8], start: usize) {
    let size = i32::try_from(out.len() - start - 4).expect("a request is far below 2 GiB");
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// Reads the header of an answer to a request of this API and version: its correlation id.
pub fn read_response_header(
    reader: &mut Reader<'_>,
    api: ApiKey,
    version: i16,
) -> Result<i32, DecodeError> {
    let correlation_id = reader.i32("correlation id")?;
    reader.skip_tagged_fields(api.response_header_form(version))?;
    Ok(correlation_id)
}
