//! Making a TCP connection: the name is resolved anew each time, and all its addresses are tried.

use super::NetError;
use crate::config::HostPort;
use rustix::net::sockopt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Names that are resolved at a time for one producer. Each takes a thread for as long as the system's resolver likes,
/// and the threads are all producers'.
const AT_A_TIME: usize = 4;

/// Resolves the names of one producer's brokers. Clones share its bound.
#[derive(Debug, Clone)]
pub struct Resolver {
    running: Arc<Semaphore>,
    look_up: fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
}

impl Default for Resolver {
    /// The system's.
    fn default() -> Resolver {
        Resolver::with(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }
}

impl Resolver {
    fn with(look_up: fn(&str, u16) -> io::Result<Vec<SocketAddr>>) -> Resolver {
        Resolver { running: Arc::new(Semaphore::new(AT_A_TIME)), look_up }
    }

    async fn resolve(&self, address: &HostPort) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = (address.host.clone(), address.port);
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        // The semaphore is never closed. The thread keeps its permit when nobody waits for it any more.
        let permit = self.running.clone().acquire_owned().await.ok();
        let look_up = self.look_up;
        let looked_up = tokio::task::spawn_blocking(move || {
            let found = look_up(&host, port);
            drop(permit);
            found
        });
        looked_up.await.unwrap_or_else(|fault| Err(io::Error::other(fault)))
    }
}

/// Connects to `address`. Name resolution may take `limit`, and so may each address.
pub async fn connect(
    address: &HostPort,
    resolver: &Resolver,
    limit: Duration,
    keepalive: bool,
) -> Result<(TcpStream, SocketAddr), NetError> {
    let host = &address.host;
    let resolved = timeout(limit, resolver.resolve(address)).await;
    let too_long = |what| NetError::SetupTimeout { what, limit };
    let resolved = resolved
        .map_err(|_| too_long("name resolution"))?
        .map_err(|source| NetError::Resolve { host: host.clone(), source })?;
    let mut failure = NetError::Resolve {
        host: host.clone(),
        source: io::Error::other("the name has no address"),
    };
    for peer in resolved {
        match timeout(limit, TcpStream::connect(peer)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                if keepalive {
                    sockopt::set_socket_keepalive(&stream, true).map_err(io::Error::from)?;
                }
                return Ok((stream, peer));
            }
            Ok(Err(source)) => {
                failure = NetError::Connect { address: address.clone(), peer, source };
            }
            Err(_) => failure = too_long("connecting"),
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn named(host: &str) -> HostPort {
        HostPort { host: host.to_owned(), port: 9092 }
    }

    #[test]
    fn flt_12_a_producer_whose_names_hang_leaves_threads_to_the_others() {
        static HANGING: Mutex<()> = Mutex::new(());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(AT_A_TIME + 1)
            .build()
            .unwrap();
        // Ends before the runtime, which waits for its threads.
        let hangs = HANGING.lock().unwrap();
        runtime.block_on(async {
            let bad = Resolver::with(|_, _| {
                drop(HANGING.lock());
                Ok(Vec::new())
            });
            for _ in 0..100 {
                let bad = bad.clone();
                tokio::spawn(async move { bad.resolve(&named("hangs")).await });
            }
            tokio::task::yield_now().await;
            let good = Resolver::with(|_, port| Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]));
            assert_eq!(good.resolve(&named("good")).await.unwrap()[0].port(), 9092);
            // Nobody needs a thread, or a permit, for what is an address already.
            assert_eq!(bad.resolve(&named("::1")).await.unwrap()[0].port(), 9092);
        });
        drop(hangs);
    }
}
