//! TLS: the keys of the security group that are about it, taken together.

use super::security::{Identification, Secret};
use super::{ConfigError, SecurityConfig};
use std::path::{Path, PathBuf};

/// What TLS needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// Whom the certificates of brokers are trusted for; the system's authorities when there is nothing.
    pub authorities: Option<Pem>,
    /// Our own certificate, with those between it and an authority.
    pub certificate: Option<Pem>,
    /// Its key; there is one when there is a certificate.
    pub key: Option<Pem>,
    /// The password of that key, empty when it needs none.
    pub key_password: Secret,
    /// Whether brokers have to show a certificate that is trusted.
    pub verifies: bool,
    /// Whether that has to name the host that is connected to.
    pub identifies: bool,
}

/// Something in PEM, and the key that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pem {
    /// The key of the configuration.
    pub key: &'static str,
    /// Where it is.
    pub source: PemSource,
}

/// Where something in PEM is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PemSource {
    /// In a file, or in the files of a directory.
    Path(PathBuf),
    /// In the configuration itself.
    Text(Secret),
}

impl Pem {
    /// Of the two keys for one thing, the one that is set.
    fn of(path: (&'static str, &Path), text: (&'static str, &Secret)) -> Option<Pem> {
        if *text.1 != Secret::default() {
            return Some(Pem { key: text.0, source: PemSource::Text(text.1.clone()) });
        }
        let is_set = !path.1.as_os_str().is_empty();
        is_set.then(|| Pem { key: path.0, source: PemSource::Path(path.1.to_owned()) })
    }
}

impl SecurityConfig {
    /// What TLS needs to know, if connections have it.
    pub fn tls(&self) -> Option<TlsSettings> {
        self.security_protocol.has_tls().then(|| TlsSettings {
            authorities: Pem::of(
                ("ssl_ca_location", &self.ssl_ca_location),
                ("ssl_ca_pem", &self.ssl_ca_pem),
            ),
            certificate: Pem::of(
                ("ssl_certificate_location", &self.ssl_certificate_location),
                ("ssl_certificate_pem", &self.ssl_certificate_pem),
            ),
            key: Pem::of(
                ("ssl_key_location", &self.ssl_key_location),
                ("ssl_key_pem", &self.ssl_key_pem),
            ),
            key_password: self.ssl_key_password.clone(),
            verifies: self.enable_ssl_certificate_verification,
            identifies: self.ssl_endpoint_identification_algorithm == Identification::Https,
        })
    }

    /// Checks that the keys of TLS go together.
    pub(super) fn check_tls(&self) -> Result<(), ConfigError> {
        let conflict = |text: String| Err(ConfigError::Conflict(text));
        let path = |path: &Path| !path.as_os_str().is_empty();
        let text = |text: &Secret| *text != Secret::default();
        let ca = [
            ("ssl_ca_location", path(&self.ssl_ca_location)),
            ("ssl_ca_pem", text(&self.ssl_ca_pem)),
        ];
        let certificate = [
            ("ssl_certificate_location", path(&self.ssl_certificate_location)),
            ("ssl_certificate_pem", text(&self.ssl_certificate_pem)),
        ];
        let key = [
            ("ssl_key_location", path(&self.ssl_key_location)),
            ("ssl_key_pem", text(&self.ssl_key_pem)),
        ];
        let protocol = self.security_protocol;
        if !protocol.has_tls() {
            let given = ca.iter().chain(&certificate).chain(&key).find(|(_, given)| *given);
            let Some((name, _)) = given else { return Ok(()) };
            return conflict(format!(
                "{name} is set, but security_protocol = \"{}\" has no TLS: set it to \"{}\"",
                protocol.name(),
                protocol.and_tls().name()
            ));
        }
        if text(&self.ssl_key_password) && !key.iter().any(|(_, given)| *given) {
            return conflict(
                "ssl_key_password is set without a key: set ssl_key_location or ssl_key_pem".into(),
            );
        }
        for [one, other] in [ca, certificate, key] {
            if one.1 && other.1 {
                return conflict(format!(
                    "{} and {} are both set: one of them has to go",
                    one.0, other.0
                ));
            }
        }
        let has = |pair: [(&str, bool); 2]| pair.iter().any(|(_, given)| *given);
        match (has(certificate), has(key)) {
            (true, false) => conflict(
                "a certificate is set without its key: set ssl_key_location or ssl_key_pem".into(),
            ),
            (false, true) => conflict(
                "a key is set without its certificate: set ssl_certificate_location or \
                 ssl_certificate_pem"
                    .into(),
            ),
            _ => Ok(()),
        }
    }
}
