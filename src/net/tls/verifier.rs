//! Whom to believe. rustls' own rules, and three that Kafka's clients have besides: a certificate that is trusted by itself,
//! certificates for any name, and no check at all.

use super::error::TlsError;
use crate::config::TlsSettings;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;
use x509_cert::Version;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::BasicConstraints;

/// The verifier that the settings ask for.
pub(super) fn new(
    settings: &TlsSettings,
    trusted: Vec<CertificateDer<'static>>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    if !settings.verifies {
        return Ok(Arc::new(Verifier { trust: Trust::Anybody, provider }));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().filter(|one| may_sign(one)).cloned());
    let by_authority = match roots.is_empty() {
        true => None,
        false => Some(
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(TlsError::Verifier)?,
        ),
    };
    // The system's authorities sign others, and are no brokers.
    let pinned = if settings.authorities.is_some() { trusted } else { Vec::new() };
    let identifies = settings.identifies;
    Ok(Arc::new(Verifier { trust: Trust::Known { by_authority, pinned, identifies }, provider }))
}

/// Whether a certificate is an authority's. webpki takes every one that it is given for that, so that whoever has the key
/// of a broker whose certificate is trusted could sign for all others.
fn may_sign(certificate: &CertificateDer<'_>) -> bool {
    let Ok(parsed) = x509_cert::Certificate::from_der(certificate) else { return false };
    let body = parsed.tbs_certificate;
    // The first version has no way to say so.
    body.version == Version::V1
        || matches!(body.get::<BasicConstraints>(), Ok(Some((_, constraints))) if constraints.ca)
}

/// Judges certificates by whom is trusted. That the broker has the key of the certificate that it shows is checked in any
/// case.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Trust {
    /// Whoever shows a certificate.
    Anybody,
    /// Those whose certificate is from an authority, or is one of those that were given.
    Known {
        /// `None` where no authority was given.
        by_authority: Option<Arc<WebPkiServerVerifier>>,
        pinned: Vec<CertificateDer<'static>>,
        identifies: bool,
    },
}

/// A certificate that is trusted by itself has to be for that name, and within its time, all the same.
fn verify_pinned(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    let bad = || Error::InvalidCertificate(CertificateError::BadEncoding);
    let parsed = x509_cert::Certificate::from_der(certificate).map_err(|_| bad())?;
    let validity = parsed.tbs_certificate.validity;
    let not_before = UnixTime::since_unix_epoch(validity.not_before.to_unix_duration());
    let not_after = UnixTime::since_unix_epoch(validity.not_after.to_unix_duration());
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
}

fn is_name(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        )
    )
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Trust::Known { by_authority, pinned, identifies } = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        let verified = match by_authority {
            _ if pinned.contains(certificate) => verify_pinned(certificate, name, now),
            Some(verifier) => {
                verifier.verify_server_cert(certificate, intermediates, name, ocsp, now).map(drop)
            }
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        match verified {
            // The name is the last that is looked at.
            Err(error) if *identifies || !is_name(&error) => Err(error),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
