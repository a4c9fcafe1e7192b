//! Whether and how connections authenticate: the keys of the security group, taken together.

use super::security::{Credentials, Mechanism, Secret, SecurityProtocol};
use super::{Config, ConfigError, SecurityConfig};
use crate::protocol::release::Release;

impl SecurityConfig {
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
    fn check(&self) -> Result<(), ConfigError> {
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
                "sasl_mechanisms = \"PLAIN\" without TLS shows the password to whoever sees the network: \
                 use \"SCRAM-SHA-256\" or \"SCRAM-SHA-512\", or allow it with insecure_plain = true",
            );
        }
        Ok(())
    }
}

impl Config {
    /// Checks that the keys of authentication go together, and with the brokers' release.
    pub(super) fn check_security(&self) -> Result<(), ConfigError> {
        self.security.check()?;
        let brokers = &self.brokers;
        let authenticated = self.security.security_protocol == SecurityProtocol::SaslPlaintext;
        if authenticated
            && !brokers.api_version_request
            && brokers.broker_version_fallback < Release::V0_10
        {
            return Err(ConfigError::Conflict(
                "security_protocol = \"sasl_plaintext\" needs Kafka 0.10: set broker_version_fallback \
                 to the brokers' release, or api_version_request = true"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::Value;
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
        assert_eq!(parse(&[]).unwrap().security.credentials(), None);
        let credentials = parse(&WHOLE).unwrap().security.credentials().unwrap();
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
        let shown = format!("{config:?} {:?}", config.security.credentials());
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
