//! Certificates and keys: from files, or from the configuration itself, to what rustls takes.

use super::error::TlsError;
use super::verifier;
use crate::config::{Pem, PemSource, TlsSettings};
use pkcs8::{EncryptedPrivateKeyInfo, SecretDocument};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use x509_cert::der::Decode;
use zeroize::Zeroizing;

/// Longest file that is read. All authorities of a system together have 300 KB.
const LONGEST_FILE: u64 = 4 << 20;

/// What the system trusts is read again after so long; which files that are is the system's affair.
const SYSTEM_HOLDS_FOR: Duration = Duration::from_secs(300);

/// When a certificate ends, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Expiry(pub i64);

impl Expiry {
    /// `None` of something that is no certificate.
    pub fn of(certificate: &[u8]) -> Option<Expiry> {
        let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
        let end = certificate.tbs_certificate.validity.not_after.to_unix_duration();
        i64::try_from(end.as_secs()).ok().map(Expiry)
    }
}

/// What was read, and from which files.
#[derive(Debug)]
pub(super) struct Loaded {
    pub config: Arc<ClientConfig>,
    /// When our own certificate ends.
    pub expiry: Option<Expiry>,
    files: Vec<(PathBuf, Option<Stamp>)>,
    /// When it has to be read again though no file has changed.
    until: Option<Instant>,
}

/// By what a file that has changed is known.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let told: Metadata = std::fs::metadata(path).ok()?;
        let modified = (told.mtime(), told.mtime_nsec());
        Some(Stamp { device: told.dev(), inode: told.ino(), size: told.len(), modified })
    }
}

#[expect(clippy::disallowed_methods, reason = "how old a cache is concerns nobody else")]
fn now() -> Instant {
    Instant::now()
}

impl Loaded {
    /// Whether what was read is what a look at the files would give.
    pub fn is_current(&self) -> bool {
        let is_over = self.until.is_some_and(|until| until <= now());
        !is_over && self.files.iter().all(|(path, stamp)| Stamp::of(path) == *stamp)
    }

    /// Whether it can be used in place of what cannot be read: our own certificate has not ended.
    pub fn is_good_at(&self, now_s: i64) -> bool {
        self.expiry.is_none_or(|expiry| expiry.0 > now_s)
    }

    pub fn read(settings: &TlsSettings) -> Result<Loaded, TlsError> {
        let mut reading = Reading { files: Vec::new() };
        let trusted = match &settings.authorities {
            Some(pem) => reading.authorities(pem)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        if trusted.is_empty() && settings.verifies {
            return Err(match &settings.authorities {
                Some(pem) => TlsError::NoCertificate { key: pem.key },
                None => TlsError::NoAuthority,
            });
        }
        let verifier = verifier::new(settings, trusted)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let (config, expiry) = match (&settings.certificate, &settings.key) {
            (Some(certificate), Some(key)) => {
                let chain = reading.certificates(certificate)?;
                let expiry = chain.first().and_then(|own| Expiry::of(own));
                let key_of = reading.private_key(key, settings.key_password.expose())?;
                let config = config.with_client_auth_cert(chain, key_of);
                let config =
                    config.map_err(|error| TlsError::pair(certificate.key, key.key, error))?;
                (config, expiry)
            }
            _ => (config.with_no_client_auth(), None),
        };
        let holds = settings.authorities.is_none().then(|| now() + SYSTEM_HOLDS_FOR);
        let mut config = config;
        // Connections are few and long, and tickets are memory that brokers decide about.
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        Ok(Loaded { config, expiry, files: reading.files, until: holds })
    }
}

/// Reads, and notes what was read.
struct Reading {
    files: Vec<(PathBuf, Option<Stamp>)>,
}

impl Reading {
    fn text(&mut self, pem: &Pem) -> Result<Zeroizing<Vec<u8>>, TlsError> {
        match &pem.source {
            PemSource::Text(text) => Ok(Zeroizing::new(text.expose().as_bytes().to_vec())),
            PemSource::Path(path) => self.file(pem.key, path),
        }
    }

    fn file(&mut self, key: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
        // The stamp first: what changes while it is read is read again.
        self.files.push((path.to_owned(), Stamp::of(path)));
        let failed = |source| TlsError::Read { key, path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        if len > LONGEST_FILE {
            return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
        }
        // A buffer that grew would leave copies of a key behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(len as usize + 1));
        file.take(len).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    fn certificates(&mut self, pem: &Pem) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found = certificates_in(&self.text(pem)?);
        if found.is_empty() { Err(TlsError::NoCertificate { key: pem.key }) } else { Ok(found) }
    }

    /// The certificates in a file, or in all files of a directory.
    fn authorities(&mut self, pem: &Pem) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let PemSource::Path(directory) = &pem.source else { return self.certificates(pem) };
        if !directory.is_dir() {
            return self.certificates(pem);
        }
        let unreadable = |source| TlsError::Read { key: pem.key, path: directory.clone(), source };
        self.files.push((directory.clone(), Stamp::of(directory)));
        let mut all = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.is_file() {
                all.extend(certificates_in(&self.file(pem.key, &path)?));
            }
        }
        // A directory as OpenSSL wants it has each certificate under two names.
        all.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
        all.dedup();
        if all.is_empty() { Err(TlsError::NoCertificate { key: pem.key }) } else { Ok(all) }
    }

    fn private_key(
        &mut self,
        pem: &Pem,
        password: &str,
    ) -> Result<PrivateKeyDer<'static>, TlsError> {
        let bytes = self.text(pem)?;
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return Err(TlsError::NoKey { key: pem.key });
        };
        if text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(TlsError::OldEncryption { key: pem.key });
        }
        match section(text, "ENCRYPTED PRIVATE KEY") {
            Some(encrypted) => decrypted(pem.key, encrypted, password),
            None => {
                PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| TlsError::NoKey { key: pem.key })
            }
        }
    }
}

/// The certificates in PEM; what is none is passed over.
fn certificates_in(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect()
}

/// The first section of that name, from its first line to its last.
fn section<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let begin = text.find(&format!("-----BEGIN {name}-----"))?;
    let end = format!("-----END {name}-----");
    let len = text[begin..].find(&end)? + end.len();
    Some(&text[begin..begin + len])
}

fn decrypted(
    key: &'static str,
    encrypted: &str,
    password: &str,
) -> Result<PrivateKeyDer<'static>, TlsError> {
    if password.is_empty() {
        return Err(TlsError::NoPassword { key });
    }
    let (_, document) = SecretDocument::from_pem(encrypted).map_err(|_| TlsError::NoKey { key })?;
    let info = EncryptedPrivateKeyInfo::try_from(document.as_bytes())
        .map_err(|_| TlsError::OldEncryption { key })?;
    let decrypted = info.decrypt(password).map_err(|error| match error {
        pkcs8::Error::EncryptedPrivateKey(
            pkcs8::pkcs5::Error::UnsupportedAlgorithm { .. }
            | pkcs8::pkcs5::Error::NoPbes1CryptSupport,
        ) => TlsError::OldEncryption { key },
        _ => TlsError::WrongPassword { key },
    })?;
    Ok(PrivatePkcs8KeyDer::from(decrypted.as_bytes().to_vec()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn settings(authorities: Option<Pem>) -> TlsSettings {
        TlsSettings {
            authorities,
            certificate: None,
            key: None,
            key_password: Secret::default(),
            verifies: true,
            identifies: true,
        }
    }

    fn file(path: &Path) -> Option<Pem> {
        Some(Pem { key: "ssl_ca_location", source: PemSource::Path(path.to_owned()) })
    }

    #[test]
    fn what_is_no_pem_is_an_error_and_is_looked_at_again_when_it_has_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let by_file = settings(file(&path));
        for content in
            [&b""[..], b"\xff\0", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"]
        {
            std::fs::write(&path, content).unwrap();
            let error = Loaded::read(&by_file).unwrap_err();
            assert!(matches!(error, TlsError::NoCertificate { .. }), "{error}");
        }
        // Where nobody is checked nobody has to be trusted.
        let nobody = TlsSettings { verifies: false, ..settings(None) };
        assert!(Loaded::read(&nobody).unwrap().is_current());
        let by_directory = Loaded::read(&settings(file(directory.path())));
        assert!(matches!(by_directory, Err(TlsError::NoCertificate { .. })));
    }

    #[test]
    fn a_section_of_pem_is_found_by_its_name() {
        let text = "a\n-----BEGIN X-----\nb\n-----END X-----\nc";
        assert_eq!(section(text, "X"), Some("-----BEGIN X-----\nb\n-----END X-----"));
        assert_eq!(section(text, "Y"), None);
        assert_eq!(section("-----BEGIN X-----\nb", "X"), None);
    }

    #[test]
    fn a_stamp_tells_a_file_that_was_replaced_by_one_of_the_same_size() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("a"), directory.path().join("b"));
        std::fs::write(&path, "one").unwrap();
        let before = Stamp::of(&path);
        assert_eq!(before, Stamp::of(&path));
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_ne!(before, Stamp::of(&path));
        assert_eq!(Stamp::of(&other), None);
    }
}
