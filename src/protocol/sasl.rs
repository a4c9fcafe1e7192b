//! SaslHandshake and SaslAuthenticate: who one is, before anything but ApiVersions is answered (KIP-43, KIP-152).
//!
//! SaslHandshake v0 and v1, which names the mechanism, and SaslAuthenticate v0 to v2, which carries its tokens
//! (<https://kafka.apache.org/protocol#The_Messages_SaslAuthenticate>). Brokers before 1.0 do not know the
//! second: behind a SaslHandshake v0 tokens travel in frames of their own, without any header. What changed in
//! SaslAuthenticate: v1 the lifetime of the session (KIP-368), v2 flexible.

use std::ops::RangeInclusive;

use super::error_code::ErrorCode;
use super::header::ApiKey;
use super::primitives::{DecodeError, Form, Reader};
use super::put::Put;

/// The versions of SaslHandshake. v1 is followed by SaslAuthenticate, v0 by bare tokens.
pub const HANDSHAKE_VERSIONS: RangeInclusive<i16> = 0..=1;

/// The versions of SaslAuthenticate that can be encoded and decoded here.
pub const AUTHENTICATE_VERSIONS: RangeInclusive<i16> = 0..=2;

/// An empty name of a mechanism.
const SMALLEST_NAME: usize = 2;

/// Writes the body of a SaslHandshake request, which is the same in both versions.
pub fn put_sasl_handshake_request(out: &mut Vec<u8>, mechanism: &str) {
    out.put_string(Form::Classic, mechanism);
}

/// Whether the broker takes the mechanism.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaslHandshakeResponse {
    /// Such as [`ErrorCode::UNSUPPORTED_SASL_MECHANISM`], or [`ErrorCode::ILLEGAL_SASL_STATE`] from a listener
    /// that has no SASL.
    pub error: ErrorCode,
    /// The mechanisms that it takes.
    pub mechanisms: Vec<String>,
}

impl SaslHandshakeResponse {
    /// Reads the body of an answer to a request of this version, to its last byte.
    pub fn decode(version: i16, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.check_version(version, HANDSHAKE_VERSIONS, "SaslHandshake answer")?;
        let error = ErrorCode(reader.i16("error code")?);
        let mechanisms = reader.array(Form::Classic, SMALLEST_NAME, "mechanisms", |reader| {
            reader.string(Form::Classic, "mechanism")
        })?;
        reader.finish()?;
        Ok(Self { error, mechanisms })
    }
}

/// Writes the body of a SaslAuthenticate request.
pub fn put_sasl_authenticate_request(out: &mut Vec<u8>, version: i16, token: &[u8]) {
    debug_assert!(AUTHENTICATE_VERSIONS.contains(&version));
    let form = ApiKey::SaslAuthenticate.form(version);
    out.put_bytes(form, token);
    out.put_no_tagged_fields(form);
}

/// The broker's token, or why there is none.
#[derive(Clone, PartialEq, Eq)]
pub struct SaslAuthenticateResponse {
    /// [`ErrorCode::SASL_AUTHENTICATION_FAILED`] for a wrong password.
    pub error: ErrorCode,
    /// The broker's words for the error.
    pub message: Option<String>,
    /// The mechanism's.
    pub token: Vec<u8>,
    /// Milliseconds after which the broker ends the connection, unless authentication was repeated on it; 0: none.
    pub session_lifetime_ms: i64,
}

impl SaslAuthenticateResponse {
    /// Reads the body of an answer to a request of this version, to its last byte.
    pub fn decode(version: i16, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.check_version(version, AUTHENTICATE_VERSIONS, "SaslAuthenticate answer")?;
        let form = ApiKey::SaslAuthenticate.form(version);
        let error = ErrorCode(reader.i16("error code")?);
        let message = reader.nullable_string(form, "error message")?;
        let token = reader.bytes(form, "token")?;
        let session_lifetime_ms = if version >= 1 { reader.i64("session lifetime")? } else { 0 };
        reader.skip_tagged_fields(form)?;
        reader.finish()?;
        Ok(Self { error, message, token, session_lifetime_ms })
    }
}

/// Without the token: a mechanism's tokens may hold secrets.
impl std::fmt::Debug for SaslAuthenticateResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SaslAuthenticateResponse")
            .field("error", &self.error)
            .field("message", &self.message)
            .field("session_lifetime_ms", &self.session_lifetime_ms)
            .finish_non_exhaustive()
    }
}
