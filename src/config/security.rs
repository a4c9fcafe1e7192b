//! Security: how brokers are spoken to, and who lkfk is to them.
//!
//! A password is never printed: a [`Secret`] has no text, and an error about one does not show what was given.

use super::value::{FromValue, Value};
use std::fmt;
use zeroize::Zeroizing;

/// The fewest rounds of hashing that SCRAM may have, as with Kafka's own (RFC 7677, section 4).
pub const FEWEST_ITERATIONS: u32 = 4096;

/// How brokers are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityProtocol {
    /// As they are.
    Plaintext,
    /// By TLS.
    Ssl,
    /// After authentication.
    SaslPlaintext,
    /// By TLS, and after authentication.
    SaslSsl,
}

impl SecurityProtocol {
    const ALL: [Self; 4] = [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl];

    /// Its name in Kafka's configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    /// Whether connections are encrypted.
    pub const fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Whether connections authenticate by SASL.
    pub const fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    /// The one that has both what this one has and what is asked for.
    const fn with(tls: bool, sasl: bool) -> Self {
        match (tls, sasl) {
            (false, false) => Self::Plaintext,
            (true, false) => Self::Ssl,
            (false, true) => Self::SaslPlaintext,
            (true, true) => Self::SaslSsl,
        }
    }

    /// The same with SASL.
    pub const fn and_sasl(self) -> Self {
        Self::with(self.has_tls(), true)
    }

    /// The same with TLS.
    pub const fn and_tls(self) -> Self {
        Self::with(true, self.has_sasl())
    }
}

/// Against what the name in a broker's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identification {
    /// The host that is connected to.
    Https,
    /// Nothing.
    None,
}

impl FromValue for Identification {
    type Bounds = ();
    fn takes(_: &()) -> String {
        "\"https\" or \"none\"".into()
    }
    fn from_value(value: &Value, _: &()) -> Result<Self, String> {
        match value {
            Value::Text(text) if text.eq_ignore_ascii_case(b"https") => Ok(Self::Https),
            // Java's word for it is no word.
            Value::Text(text) if text.is_empty() || text.eq_ignore_ascii_case(b"none") => {
                Ok(Self::None)
            }
            _ => Err(value.to_string()),
        }
    }
}

/// Mechanisms of authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// Sends name and password (RFC 4616).
    Plain,
    /// Shows that it knows the password, and has the broker show it too (RFC 7677).
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
}

/// A text that is not shown, and zeroed when it is dropped (which Lua's own copy of it is not).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Zeroizing<String>);

/// What a connection authenticates with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `sasl_mechanisms`.
    pub mechanism: Mechanism,
    /// `sasl_username`.
    pub username: String,
    /// `sasl_password`.
    pub password: Secret,
    /// `scram_max_iterations`.
    pub max_iterations: u32,
}

impl Mechanism {
    const ALL: [Self; 3] = [Self::Plain, Self::ScramSha256, Self::ScramSha512];

    /// The name it is registered by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl Secret {
    /// The text, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Secret(Zeroizing::new(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not shown")
    }
}

impl FromValue for SecurityProtocol {
    type Bounds = ();
    fn takes(_: &()) -> String {
        let names: Vec<_> = Self::ALL.iter().map(|one| format!("\"{}\"", one.name())).collect();
        names.join(", ")
    }
    fn from_value(value: &Value, _: &()) -> Result<Self, String> {
        let Value::Text(text) = value else { return Err(value.to_string()) };
        let named = |one: &Self| one.name().as_bytes().eq_ignore_ascii_case(text);
        Self::ALL.into_iter().find(named).ok_or_else(|| value.to_string())
    }
}

impl FromValue for Option<Mechanism> {
    type Bounds = ();
    fn takes(_: &()) -> String {
        "\"PLAIN\", \"SCRAM-SHA-256\" or \"SCRAM-SHA-512\"".into()
    }
    fn from_value(value: &Value, _: &()) -> Result<Self, String> {
        let Value::Text(text) = value else { return Err(value.to_string()) };
        let named = |mechanism: &Mechanism| mechanism.name().as_bytes().eq_ignore_ascii_case(text);
        Mechanism::ALL.into_iter().find(named).map(Some).ok_or_else(|| value.to_string())
    }
}

/// Longest password, or key in PEM, in bytes.
const LONGEST_SECRET: usize = 65_536;

impl FromValue for Secret {
    type Bounds = ();
    fn takes(_: &()) -> String {
        format!("a string of 1 to {LONGEST_SECRET} bytes of UTF-8 without NUL")
    }
    fn from_value(value: &Value, _: &()) -> Result<Self, String> {
        match value {
            Value::Text(text)
                if (1..=LONGEST_SECRET).contains(&text.len()) && !text.contains(&0) =>
            {
                std::str::from_utf8(text).ok().map(Secret::from)
            }
            _ => None,
        }
        .ok_or_else(|| "something else, which is not shown".to_owned())
    }
}
