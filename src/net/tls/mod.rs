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
    /// When our own certificate ends.
    own: Option<Expiry>,
    /// Addresses of brokers and when their certificates end, by the connections that they were shown on.
    brokers: BTreeMap<u64, (String, Expiry)>,
    /// Why files could not be read again, since what was read before goes on being used.
    stale: Option<String>,
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
        let own = state.own.map(|expiry| (None, expiry));
        let brokers = state.brokers.values().map(|(address, expiry)| (Some(address), *expiry));
        let (address, end) = own.into_iter().chain(brokers).min_by_key(|(_, expiry)| *expiry)?;
        let whose = match address {
            Some(address) => format!("the certificate of broker {address}"),
            None => "the client certificate".to_owned(),
        };
        Some((whose, end.0))
    }

    /// Why files could not be read again, once.
    pub fn take_stale(&self) -> Option<String> {
        lock(&self.state).stale.take()
    }

    /// The caller's connection `conn` is over: by the next one the broker's certificate may be another.
    pub fn forget(&self, conn: u64) {
        lock(&self.state).brokers.remove(&conn);
    }

    /// Does the handshake with a broker, in at most `limit`. Until it is begun it may wait for files and for others. What
    /// is noted of the broker's certificate stays until `conn` is to be [forgotten](Self::forget).
    pub(super) async fn connect(
        self: &Arc<Self>,
        conn: u64,
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
        if let Some(expiry) = certificates.first().and_then(|one| Expiry::of(one)) {
            lock(&self.state).brokers.insert(conn, (address.to_string(), expiry));
        }
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
                let mut state = lock(&self.state);
                (state.own, state.stale) = (fresh.expiry, None);
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
}

#[expect(clippy::disallowed_methods, reason = "certificates go by the wall clock")]
fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn the_end_of_a_broker_s_certificate_is_known_while_one_of_its_connections_is_open() {
        let tls = Tls::new(TlsSettings {
            authorities: None,
            certificate: None,
            key: None,
            key_password: Secret::default(),
            verifies: true,
            identifies: true,
        });
        assert_eq!(tls.first_end(), None);
        // The first connection to a cluster leads to an address that is a broker's as well.
        for conn in [1, 2] {
            lock(&tls.state).brokers.insert(conn, ("b:9093".to_owned(), Expiry(70)));
        }
        tls.forget(1);
        assert_eq!(tls.first_end(), Some(("the certificate of broker b:9093".to_owned(), 70)));
        lock(&tls.state).own = Some(Expiry(60));
        assert_eq!(tls.first_end(), Some(("the client certificate".to_owned(), 60)));
        lock(&tls.state).own = None;
        tls.forget(2);
        assert_eq!(tls.first_end(), None);
    }
}
