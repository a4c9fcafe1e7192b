//! TLS: rustls' protocol over a connection, with certificates and keys that are read again when their files have changed.
//!
//! Files are read on a thread of their own, since this one serves all brokers and a disk may hang; one at a time for each
//! producer, so that a hanging one takes a single thread. A handshake costs processor time on this thread, so that only a
//! few begin at a time: brokers that all come back at once are served one after the other, and one that does not answer
//! holds up nobody.

mod certificates;
mod error;
mod verifier;

pub use error::TlsError;
pub(super) use error::of_io;

use super::NetError;
use crate::config::{HostPort, TlsSettings};
use certificates::{Expiry, Loaded};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Handshakes of one producer that begin at a time, and for how long one of them counts: the rest of it is waiting.
const AT_A_TIME: usize = 4;
const COUNTS_FOR: Duration = Duration::from_millis(250);

/// Brokers whose certificates' ends are remembered. A cluster has fewer.
const REMEMBERED: usize = 1024;

/// The TLS of one producer's connections.
#[derive(Debug)]
pub struct Tls {
    settings: TlsSettings,
    loaded: Mutex<Option<Loaded>>,
    /// One permit, for reading files.
    reading: Arc<Semaphore>,
    handshakes: Semaphore,
    state: Mutex<State>,
}

/// What an operator is to know.
#[derive(Debug, Default)]
struct State {
    /// When the certificates end that were seen last, by whose they are.
    ends: BTreeMap<String, Expiry>,
    /// Why files could not be read again, since what was read before goes on being used.
    stale: Option<String>,
}

/// Whose certificate the own one is, in [`Tls::first_end`].
const OURS: &str = "the client certificate";

fn of_broker(address: &str) -> String {
    format!("the certificate of broker {address}")
}

impl Tls {
    /// With these settings. No file is read yet.
    pub fn new(settings: TlsSettings) -> Tls {
        Tls {
            settings,
            loaded: Mutex::default(),
            reading: Arc::new(Semaphore::new(1)),
            handshakes: Semaphore::new(AT_A_TIME),
            state: Mutex::default(),
        }
    }

    /// The settings.
    pub fn settings(&self) -> &TlsSettings {
        &self.settings
    }

    /// Whose certificate of those in use ends first, and when, in seconds since 1970.
    pub fn first_end(&self) -> Option<(String, i64)> {
        let state = lock(&self.state);
        let first = state.ends.iter().min_by_key(|(_, expiry)| expiry.0)?;
        Some((first.0.clone(), first.1.0))
    }

    /// Why files could not be read again, once.
    pub fn take_stale(&self) -> Option<String> {
        lock(&self.state).stale.take()
    }

    /// The broker at this address is not connected any more: its certificate may be another one by now.
    pub fn forget(&self, address: &str) {
        lock(&self.state).ends.remove(&of_broker(address));
    }

    /// Does the handshake with a broker, in at most `limit`. Until it is begun it may wait for files and for others.
    pub(super) async fn connect(
        self: &Arc<Self>,
        address: &HostPort,
        stream: TcpStream,
        limit: Duration,
    ) -> Result<TlsStream<TcpStream>, NetError> {
        // The dot that ends a complete name is in no certificate.
        let host = &address.host;
        let name = host.strip_suffix('.').unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(|_| TlsError::Name(host.clone()))?;
        let too_long = |what| NetError::SetupTimeout { what, limit };
        let read = timeout(limit, self.read()).await;
        let config = read.map_err(|_| too_long("reading certificates"))??;
        // The semaphore is never closed.
        let permit = self.handshakes.acquire().await.ok();
        let mut handshake = pin!(timeout(limit, TlsConnector::from(config).connect(name, stream)));
        let done = match timeout(COUNTS_FOR, &mut handshake).await {
            Ok(done) => done,
            Err(_) => {
                drop(permit);
                handshake.await
            }
        };
        let stream = done.map_err(|_| too_long("the TLS handshake"))?;
        let stream = stream.map_err(TlsError::in_handshake)?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let expiry = certificates.first().and_then(|one| Expiry::of(one));
        self.note(of_broker(&address.to_string()), expiry);
        Ok(stream)
    }

    /// What connections are made with. The thread keeps its permit when nobody waits for it any more.
    async fn read(self: &Arc<Self>) -> Result<Arc<ClientConfig>, NetError> {
        let permit = self.reading.clone().acquire_owned().await.ok();
        let this = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let config = this.config();
            drop(permit);
            config
        });
        Ok(read.await.map_err(|_| NetError::Fault)??)
    }

    /// The files' content, read again where one has changed. When that fails what was read before goes on being used, as
    /// long as it is good: a certificate and its key are seldom replaced in the same moment.
    fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let mut loaded = lock(&self.loaded);
        if let Some(loaded) = &*loaded
            && loaded.is_current()
        {
            return Ok(loaded.config.clone());
        }
        match (Loaded::read(&self.settings), &*loaded) {
            (Ok(fresh), _) => {
                self.note(OURS.to_owned(), fresh.expiry);
                lock(&self.state).stale = None;
                let config = fresh.config.clone();
                *loaded = Some(fresh);
                Ok(config)
            }
            (Err(error), Some(before)) if before.is_good_at(now_s()) => {
                lock(&self.state).stale = Some(error.to_string());
                Ok(before.config.clone())
            }
            (Err(error), _) => Err(error),
        }
    }

    fn note(&self, whose: String, expiry: Option<Expiry>) {
        let ends = &mut lock(&self.state).ends;
        match expiry {
            Some(expiry) if ends.len() < REMEMBERED || ends.contains_key(&whose) => {
                ends.insert(whose, expiry);
            }
            Some(_) => {}
            None => drop(ends.remove(&whose)),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates go by the wall clock")]
fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
