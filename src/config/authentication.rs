//! Whether and how connections authenticate: the keys of the security group, taken together.

use super::security::{Credentials, Mechanism, Secret};
use super::{Config, ConfigError, SecurityConfig};
use crate::protocol::release::Release;

impl SecurityConfig {
    /// What connections authenticate with, if they do.
    pub fn credentials(&self) -> Option<Credentials> {
        let mechanism = self.sasl_mechanisms?;
        self.security_protocol.has_sasl().then(|| Credentials {
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
        let protocol = self.security_protocol;
        if !protocol.has_sasl() {
            let Some((name, _)) = given.iter().find(|(_, given)| *given) else { return Ok(()) };
            return conflict(&format!(
                "{name} is set, but nothing is authenticated with security_protocol = \"{}\": set it to \"{}\"",
                protocol.name(),
                protocol.and_sasl().name()
            ));
        }
        if let Some((name, _)) = given.iter().find(|(_, given)| !given) {
            return conflict(&format!("security_protocol = \"{}\" needs {name}", protocol.name()));
        }
        if self.sasl_username.contains('\0') {
            return conflict("sasl_username: no user's name has a NUL in it");
        }
        let is_plain = self.sasl_mechanisms == Some(Mechanism::Plain);
        let is_safe = protocol.has_tls() && self.enable_ssl_certificate_verification;
        if is_plain && !is_safe && !self.insecure_plain {
            return conflict(
                "sasl_mechanisms = \"PLAIN\" without TLS, or without enable_ssl_certificate_verification, shows the \
                 password to others: set security_protocol to \"sasl_ssl\", use \"SCRAM-SHA-256\" or \
                 \"SCRAM-SHA-512\", or allow it with insecure_plain = true",
            );
        }
        Ok(())
    }
}

impl Config {
    /// Checks that the keys of TLS and of authentication go together, and with the brokers' release.
    pub(super) fn check_security(&self) -> Result<(), ConfigError> {
        self.security.check_tls()?;
        self.security.check()?;
        let brokers = &self.brokers;
        let protocol = self.security.security_protocol;
        if protocol.has_sasl()
            && !brokers.api_version_request
            && brokers.broker_version_fallback < Release::V0_10
        {
            return Err(ConfigError::Conflict(format!(
                "security_protocol = \"{}\" needs Kafka 0.10: set broker_version_fallback to the brokers' release, or \
                 api_version_request = true",
                protocol.name()
            )));
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
    fn with_tls_a_password_may_be_sent_and_files_go_together() {
        let mut entries = WHOLE.to_vec();
        entries[0] = ("security.protocol", "SASL_SSL");
        entries[1] = ("sasl_mechanism", "PLAIN");
        let config = parse(&entries).unwrap();
        assert!(config.security.credentials().is_some());
        let unchecked = [("enable_ssl_certificate_verification", Value::Bool(false))];
        let text = parse_with(&entries, &unchecked).unwrap_err().to_string();
        assert!(text.contains("insecure_plain = true"), "{text}");
        let tls = config.security.tls().unwrap();
        assert!(tls.authorities.is_none() && tls.verifies && tls.identifies);
        let text = error(&[("security_protocol", "ssl"), ("sasl_username", "nginx")]);
        assert!(text.ends_with("set it to \"sasl_ssl\""), "{text}");
        let text = error(&[("ssl_ca_location", "ca.pem")]);
        assert_eq!(
            text,
            "ssl_ca_location is set, but security_protocol = \"plaintext\" has no TLS: set it to \"ssl\""
        );
        let ssl = ("security_protocol", "ssl");
        let text = error(&[ssl, ("ssl_certificate_location", "a.pem")]);
        assert!(text.ends_with("set ssl_key_location or ssl_key_pem"), "{text}");
        let text = error(&[ssl, ("ssl_key_password", "sesame")]);
        assert!(text.starts_with("ssl_key_password is set without a key"), "{text}");
        let text = error(&[ssl, ("ssl_key_pem", "a key")]);
        assert!(text.ends_with("set ssl_certificate_location or ssl_certificate_pem"), "{text}");
        let text = error(&[ssl, ("ssl_ca_pem", "a"), ("ssl_ca_location", "b")]);
        assert_eq!(text, "ssl_ca_location and ssl_ca_pem are both set: one of them has to go");
        let tls = parse(&[ssl, ("ssl_ca_location", "ca.pem")]).unwrap().security.tls().unwrap();
        let source = tls.authorities.unwrap().source;
        assert_eq!(source, crate::config::PemSource::Path("/prefix/ca.pem".into()));
    }

    #[test]
    fn a_mechanism_that_is_none_is_refused() {
        let text = error(&[("sasl_mechanisms", "GSSAPI")]);
        assert!(
            text.starts_with("sasl_mechanisms: expected \"PLAIN\", \"SCRAM-SHA-256\""),
            "{text}"
        );
        let text = error(&[("security_protocol", "tls")]);
        assert!(
            text.contains("expected \"plaintext\", \"ssl\", \"sasl_plaintext\", \"sasl_ssl\""),
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
