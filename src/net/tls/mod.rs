//! TLS: rustls' protocol over a connection, with certificates and keys that are read again when their files have changed.
//!
//! Files are read on a thread of their own, since this one serves all brokers and a disk may hang. A handshake costs
//! processor time on this thread, so that only a few run at a time: brokers that all come back at once are served one after
//! the other.

mod certificates;
mod error;
mod verifier;

pub use error::TlsError;
pub(super) use error::of_io;

use super::NetError;
use crate::config::TlsSettings;
use certificates::{Expiry, Loaded};
use rustls::pki_types::ServerName;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Handshakes of one producer at a time. Most of one is waiting.
const AT_A_TIME: usize = 16;

/// Brokers whose certificates' ends are remembered. A cluster has fewer.
const REMEMBERED: usize = 1024;

/// The TLS of one producer's connections.
#[derive(Debug)]
pub struct Tls {
    settings: TlsSettings,
    loaded: Mutex<Option<Loaded>>,
    handshakes: Semaphore,
    /// When the certificates end that were seen last, by whose they are.
    ends: Mutex<BTreeMap<String, Expiry>>,
}

/// Whose certificate the own one is, in [`Tls::first_end`].
const OURS: &str = "the client certificate";

impl Tls {
    /// With these settings. No file is read yet.
    pub fn new(settings: TlsSettings) -> Tls {
        let handshakes = Semaphore::new(AT_A_TIME);
        Tls { settings, loaded: Mutex::default(), handshakes, ends: Mutex::default() }
    }

    /// The settings.
    pub fn settings(&self) -> &TlsSettings {
        &self.settings
    }

    /// Whose certificate of those that were seen ends first, and when, in seconds since 1970.
    pub fn first_end(&self) -> Option<(String, i64)> {
        let ends = lock(&self.ends);
        let first = ends.iter().min_by_key(|(_, expiry)| expiry.0)?;
        Some((first.0.clone(), first.1.0))
    }

    /// Does the handshake with the broker `host`.
    pub(super) async fn connect(
        self: &Arc<Self>,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, NetError> {
        // The dot that ends a complete name is in no certificate.
        let name = host.strip_suffix('.').unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(|_| TlsError::Name(host.to_owned()))?;
        // The semaphore is never closed.
        let _permit = self.handshakes.acquire().await.ok();
        let this = self.clone();
        let config = tokio::task::spawn_blocking(move || this.config()).await;
        let config = config.map_err(|_| NetError::Fault)??;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        let stream = stream.map_err(TlsError::in_handshake)?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        if let Some(expiry) = certificates.first().and_then(|one| Expiry::of(one)) {
            self.note(format!("the certificate of broker {host}"), Some(expiry));
        }
        Ok(stream)
    }

    /// What connections are made with: the files' content, read again where one has changed.
    fn config(&self) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        let mut loaded = lock(&self.loaded);
        if let Some(loaded) = &*loaded
            && loaded.is_current()
        {
            return Ok(loaded.config.clone());
        }
        let fresh = Loaded::read(&self.settings)?;
        self.note(OURS.to_owned(), fresh.expiry);
        let config = fresh.config.clone();
        *loaded = Some(fresh);
        Ok(config)
    }

    fn note(&self, whose: String, expiry: Option<Expiry>) {
        let mut ends = lock(&self.ends);
        match expiry {
            Some(expiry) if ends.len() < REMEMBERED || ends.contains_key(&whose) => {
                ends.insert(whose, expiry);
            }
            Some(_) => {}
            None => drop(ends.remove(&whose)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
