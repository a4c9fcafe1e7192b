//! What goes wrong with TLS, as one line with the cause and the option to change.

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InconsistentKeys};
use std::io;
use std::path::PathBuf;

/// Why there is no connection by TLS, or no longer. `key` is that of the configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{key}: cannot read {}: {source}{}", path.display(), who_reads(source))]
    Read {
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing of what there should be.
    #[error("{key} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    NoCertificate {
        /// The key.
        key: &'static str,
    },
    /// The system trusts nobody.
    #[error(
        "the system has no certificates of authorities: install the package ca-certificates, or set ssl_ca_location"
    )]
    NoAuthority,
    /// There is no key, or one that is not understood.
    #[error("{key} holds no private key in PEM (-----BEGIN PRIVATE KEY-----) that is understood")]
    NoKey {
        /// The key.
        key: &'static str,
    },
    /// The private key is encrypted.
    #[error("{key} holds an encrypted key: set ssl_key_password")]
    NoPassword {
        /// The key.
        key: &'static str,
    },
    /// The private key does not open.
    #[error("{key} cannot be decrypted: ssl_key_password is wrong, or the key is damaged")]
    WrongPassword {
        /// The key.
        key: &'static str,
    },
    /// The private key is encrypted in a way of old.
    #[error(
        "{key} is encrypted in an old way; convert it with: openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW"
    )]
    OldEncryption {
        /// The key.
        key: &'static str,
    },
    /// The private key is another certificate's.
    #[error("the key in {key} does not belong to the certificate in {certificate}")]
    NotAPair {
        /// The key of the certificate.
        certificate: &'static str,
        /// The key of the key.
        key: &'static str,
    },
    /// The host that is connected to can be in no certificate.
    #[error("{0:?} is no host that a certificate can be for")]
    Name(String),
    /// No versions, or no ciphers.
    #[error("TLS cannot be set up: {0}")]
    Setup(Error),
    /// No verifier.
    #[error("certificates cannot be checked: {0}")]
    Verifier(rustls::client::VerifierBuilderError),
    /// The peer ended the connection in the handshake, without a word.
    #[error(
        "closed the connection in the TLS handshake: perhaps a listener without TLS (security_protocol), or one that has \
         neither TLS 1.2 nor 1.3"
    )]
    ClosedInHandshake,
    /// What came is not TLS.
    #[error(
        "answered the TLS handshake with something else: a listener without TLS? (security_protocol)"
    )]
    NotTls,
    /// We do not believe the broker, or it does not believe us.
    #[error("{}", explain(.0))]
    Peer(Error),
}

impl TlsError {
    /// Why the handshake failed. What is no error of TLS is the connection's.
    pub(super) fn in_handshake(error: io::Error) -> super::NetError {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        // Who does not know TLS may hang up with a reset, since not all of our greeting was read.
        if matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe) {
            return TlsError::ClosedInHandshake.into();
        }
        match of_io(error) {
            Ok(Error::InvalidMessage(_)) => TlsError::NotTls.into(),
            Ok(error) => TlsError::Peer(error).into(),
            Err(error) => super::NetError::Io(error),
        }
    }

    /// Why a certificate and a key are not taken.
    pub(super) fn pair(certificate: &'static str, key: &'static str, error: Error) -> TlsError {
        match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::NotAPair { certificate, key }
            }
            Error::InvalidCertificate(_) => TlsError::NoCertificate { key: certificate },
            _ => TlsError::NoKey { key },
        }
    }
}

/// The error of TLS that an error of a stream is, if it is one.
pub(in crate::net) fn of_io(error: io::Error) -> Result<Error, io::Error> {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => Ok(inner.clone()),
        None => Err(error),
    }
}

fn who_reads(error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return String::new();
    }
    let uid = rustix::process::geteuid().as_raw();
    format!(
        " (nginx's worker runs as user {uid}, which must be able to read it and to enter its directories)"
    )
}

/// What an error of TLS means, and what to do about it.
fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => explain_certificate(error),
        Error::AlertReceived(alert) => explain_alert(*alert),
        Error::PeerIncompatible(why) => {
            format!(
                "the broker has neither TLS 1.2 nor 1.3 with a cipher in common with us: {why:?}"
            )
        }
        error => format!("TLS failed: {error}"),
    }
}

fn explain_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "the broker's certificate is not from an authority that is trusted here \
             (ssl_ca_location, or else the system's), or the broker does not send the certificates in between"
            .into(),
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "the broker's certificate is self-signed, or an authority's, and not one of those in ssl_ca_location: add it \
             there to trust it"
                .into()
        }
        CertificateError::NotValidForNameContext { expected, presented } if presented.is_empty() => format!(
            "the broker's certificate has no subjectAltName (its common name is not looked at), and should have {}",
            expected.to_str()
        ),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the broker's certificate is for {}, and not for {}: connect to it by a name that its certificate has, in \
             metadata_broker_list and in the broker's advertised.listeners",
            presented.iter().map(|name| plain_name(name)).collect::<Vec<_>>().join(", "),
            expected.to_str()
        ),
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the broker's certificate has expired {} ago, by the clock of this machine",
            span(*not_after, *time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the broker's certificate is not valid before {} from now, by the clock of this machine",
            span(*time, *not_before)
        ),
        error => format!("the broker's certificate is not taken: {error}"),
    }
}

/// A name of a certificate without the kind that rustls puts before it: DnsName("host"), IpAddress(1.2.3.4).
fn plain_name(shown: &str) -> &str {
    let inner = shown.split_once('(').map_or(shown, |(_, inner)| inner);
    inner.trim_end_matches(')').trim_matches('"')
}

fn explain_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::BadCertificate | AlertDescription::CertificateRequired => {
            "the broker wants a client certificate (ssl_certificate_location, ssl_key_location), or does not take ours"
                .into()
        }
        AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::UnsupportedCertificate => {
            format!("the broker does not trust our certificate (ssl_certificate_location): {alert:?}")
        }
        AlertDescription::HandshakeFailure
        | AlertDescription::ProtocolVersion
        | AlertDescription::InsufficientSecurity => {
            format!("the broker has no version or cipher of TLS in common with us, who have 1.2 and 1.3: {alert:?}")
        }
        alert => format!("the broker ended TLS: {alert:?}"),
    }
}

/// The time between two moments, in the largest unit that fits.
fn span(from: UnixTime, to: UnixTime) -> String {
    let seconds = to.as_secs().saturating_sub(from.as_secs());
    match seconds {
        0..120 => format!("{seconds} seconds"),
        120..7_200 => format!("{} minutes", seconds / 60),
        7_200..172_800 => format!("{} hours", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::NetError;
    use std::time::Duration;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn names_of_a_certificate_are_shown_as_they_are_written() {
        let error = CertificateError::NotValidForNameContext {
            expected: "kafka-1.example".try_into().unwrap(),
            presented: vec!["DnsName(\"other.example\")".into(), "IpAddress(192.0.2.1)".into()],
        };
        let text = explain_certificate(&error);
        assert!(
            text.contains("is for other.example, 192.0.2.1, and not for kafka-1.example"),
            "{text}"
        );
    }

    #[test]
    fn times_are_told_in_a_unit_that_fits() {
        let now = 1_800_000_000;
        for (seconds, told) in
            [(5, "5 seconds"), (600, "10 minutes"), (90_000, "25 hours"), (864_000, "10 days")]
        {
            let error =
                CertificateError::ExpiredContext { time: at(now), not_after: at(now - seconds) };
            assert!(explain_certificate(&error).contains(told));
            let error = CertificateError::NotValidYetContext {
                time: at(now),
                not_before: at(now + seconds),
            };
            assert!(explain_certificate(&error).contains(told));
        }
    }

    #[test]
    fn an_error_of_tls_is_told_from_one_of_the_socket() {
        let alert = Error::AlertReceived(AlertDescription::BadCertificate);
        let text = NetError::from(io::Error::new(io::ErrorKind::InvalidData, alert)).to_string();
        assert!(text.starts_with("the broker wants a client certificate"), "{text}");
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(matches!(NetError::from(reset()), NetError::Io(_)));
        assert!(matches!(
            TlsError::in_handshake(reset()),
            NetError::Tls(TlsError::ClosedInHandshake)
        ));
        let eof = || io::Error::from(io::ErrorKind::UnexpectedEof);
        assert!(matches!(NetError::from(eof()), NetError::Closed));
        assert!(matches!(
            TlsError::in_handshake(eof()),
            NetError::Tls(TlsError::ClosedInHandshake)
        ));
    }

    #[test]
    fn who_has_to_read_a_file_is_said_when_it_may_not_be_read() {
        let read = |kind: io::ErrorKind| {
            let (key, path) = ("ssl_key_location", "/etc/key.pem".into());
            TlsError::Read { key, path, source: kind.into() }.to_string()
        };
        let denied = read(io::ErrorKind::PermissionDenied);
        assert!(denied.contains("/etc/key.pem") && denied.contains("nginx's worker runs as user"));
        assert!(!read(io::ErrorKind::NotFound).contains("worker"));
    }
}
