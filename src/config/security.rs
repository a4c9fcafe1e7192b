//! Security: how brokers are spoken to, and who lkfk is to them.
//!
//! A password is never printed: a [`Secret`] has no text, and an error about one does not show what was given.

use super::value::{FromValue, Value, shown};
use super::{Config, ConfigError};
use crate::protocol::release::Release;
use std::fmt;
use zeroize::Zeroizing;

/// The fewest rounds of hashing that SCRAM may have, as with Kafka's own (RFC 7677, section 4).
pub const FEWEST_ITERATIONS: u32 = 4096;

/// How brokers are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityProtocol {
    /// As they are.
    Plaintext,
    /// After authentication.
    SaslPlaintext,
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

impl Config {
    /// What connections authenticate with, if they do.
    pub fn credentials(&self) -> Option<Credentials> {
        let mechanism = self.sasl_mechanisms?;
        (self.security_protocol == SecurityProtocol::SaslPlaintext).then(|| Credentials {
            mechanism,
            username: self.sasl_username.clone(),
            password: self.sasl_password.clone(),
            max_iterations: self.scram_max_iterations,
        })
    }

    /// Checks that the keys of authentication go together.
    pub(super) fn check_security(&self) -> Result<(), ConfigError> {
        let conflict = |text: &str| Err(ConfigError::Conflict(text.to_owned()));
        let given = [
            ("sasl_mechanisms", self.sasl_mechanisms.is_some()),
            ("sasl_username", !self.sasl_username.is_empty()),
            ("sasl_password", self.sasl_password != Secret::default()),
        ];
        if self.security_protocol == SecurityProtocol::Plaintext {
            let Some((name, _)) = given.iter().find(|(_, given)| *given) else { return Ok(()) };
            return conflict(&format!(
                "{name} is set, but nothing is authenticated with security_protocol = \
                 \"plaintext\": set it to \"sasl_plaintext\""
            ));
        }
        if let Some((name, _)) = given.iter().find(|(_, given)| !given) {
            return conflict(&format!("security_protocol = \"sasl_plaintext\" needs {name}"));
        }
        if self.sasl_username.contains('\0') {
            return conflict("sasl_username: no user's name has a NUL in it");
        }
        if self.sasl_mechanisms == Some(Mechanism::Plain) && !self.insecure_plain {
            return conflict(
                "sasl_mechanisms = \"PLAIN\" without TLS shows the password to everybody on the way: \
                 use \"SCRAM-SHA-256\" or \"SCRAM-SHA-512\", or allow it with insecure_plain = true",
            );
        }
        if !self.api_version_request && self.broker_version_fallback < Release::V0_10 {
            return conflict(
                "security_protocol = \"sasl_plaintext\" needs Kafka 0.10: set broker_version_fallback \
                 to the brokers' release, or api_version_request = true",
            );
        }
        Ok(())
    }
}

impl FromValue for SecurityProtocol {
    type Bounds = ();
    fn takes(_: &()) -> String {
        "\"plaintext\" or \"sasl_plaintext\"".into()
    }
    fn from_value(value: &Value, _: &()) -> Result<Self, String> {
        match value {
            Value::Text(text) if text.eq_ignore_ascii_case(b"plaintext") => Ok(Self::Plaintext),
            Value::Text(text) if text.eq_ignore_ascii_case(b"sasl_plaintext") => {
                Ok(Self::SaslPlaintext)
            }
            Value::Text(text)
                if [&b"ssl"[..], b"sasl_ssl"].iter().any(|tls| text.eq_ignore_ascii_case(tls)) =>
            {
                Err(format!("\"{}\", which needs TLS: this version has none", shown(text)))
            }
            _ => Err(value.to_string()),
        }
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

/// Longest password, in bytes.
const LONGEST_SECRET: usize = 4096;

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

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: [(&str, &str); 4] = [
        ("security_protocol", "SASL_PLAINTEXT"),
        ("sasl_mechanism", "SCRAM-SHA-256"),
        ("sasl_username", "nginx"),
        ("sasl.password", "open sesame"),
    ];

    fn parse(entries: &[(&str, &str)]) -> Result<Config, ConfigError> {
        parse_with(entries, &[])
    }

    /// With values that are no text besides.
    fn parse_with(entries: &[(&str, &str)], more: &[(&str, Value)]) -> Result<Config, ConfigError> {
        let texts = [("metadata_broker_list", "b:1")].into_iter().chain(entries.iter().copied());
        let texts = texts.map(|(key, text)| (key, Value::Text(text.as_bytes().to_vec())));
        let entries = texts.chain(more.iter().cloned());
        let entries: Vec<_> = entries.map(|(key, value)| (key.to_owned(), value)).collect();
        Config::parse(&entries, "/prefix")
    }

    fn error(entries: &[(&str, &str)]) -> String {
        parse(entries).unwrap_err().to_string()
    }

    #[test]
    fn keys_of_authentication_are_given_together_or_not_at_all() {
        assert_eq!(parse(&[]).unwrap().credentials(), None);
        let credentials = parse(&WHOLE).unwrap().credentials().unwrap();
        assert_eq!(credentials.mechanism, Mechanism::ScramSha256);
        assert_eq!(
            (&*credentials.username, credentials.password.expose()),
            ("nginx", "open sesame")
        );
        for missing in 1..WHOLE.len() {
            let mut entries = WHOLE.to_vec();
            let (key, _) = entries.remove(missing);
            let key = key.replace("mechanism", "mechanisms").replace('.', "_");
            let text = format!("security_protocol = \"sasl_plaintext\" needs {key}");
            assert_eq!(error(&entries), text);
        }
        for entry in &WHOLE[1..] {
            let text = error(&[*entry]);
            assert!(text.ends_with("set it to \"sasl_plaintext\""), "{text}");
        }
    }

    #[test]
    fn a_password_is_sent_in_the_clear_only_when_that_is_allowed() {
        let mut entries = WHOLE.to_vec();
        entries[1] = ("sasl_mechanism", "PLAIN");
        assert!(error(&entries).contains("insecure_plain = true"));
        assert!(parse_with(&entries, &[("insecure_plain", Value::Bool(true))]).is_ok());
    }

    #[test]
    fn a_name_with_a_nul_is_refused() {
        let mut entries = WHOLE.to_vec();
        entries[2] = ("sasl_username", "ngi\0nx");
        assert_eq!(error(&entries), "sasl_username: no user's name has a NUL in it");
    }

    #[test]
    fn protocols_with_tls_are_refused_by_that_reason() {
        for protocol in ["ssl", "SASL_SSL"] {
            let text = error(&[("security_protocol", protocol)]);
            assert!(text.ends_with("which needs TLS: this version has none"), "{text}");
        }
        let text = error(&[("sasl_mechanisms", "GSSAPI")]);
        assert!(
            text.starts_with("sasl_mechanisms: expected \"PLAIN\", \"SCRAM-SHA-256\""),
            "{text}"
        );
    }

    #[test]
    fn a_password_is_never_shown() {
        let config = parse(&WHOLE).unwrap();
        let shown = format!("{config:?} {:?}", config.credentials());
        assert!(shown.contains("sasl_password: not shown") && !shown.contains("sesame"), "{shown}");
        for value in [Value::Int(31337), Value::Text(b"31337\0".to_vec()), Value::Text(vec![0xff])]
        {
            let text = parse_with(&[], &[("sasl_password", value)]).unwrap_err().to_string();
            assert!(text.contains("not shown") && !text.contains("31337"), "{text}");
        }
    }

    #[test]
    fn brokers_too_old_for_authentication_are_refused() {
        let unasked = [("api_version_request", Value::Bool(false))];
        let text = parse_with(&WHOLE, &unasked).unwrap_err().to_string();
        assert!(text.contains("needs Kafka 0.10"), "{text}");
        let mut entries = WHOLE.to_vec();
        entries.push(("broker_version_fallback", "0.10.2"));
        assert!(parse_with(&entries, &unasked).is_ok());
    }
}
