//! Making a TCP connection: the name is resolved anew each time, and all its addresses are tried.

use super::NetError;
use crate::config::HostPort;
use rustix::net::sockopt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// Connects to `address`. Name resolution may take `limit`, and so may each address.
pub async fn connect(
    address: &HostPort,
    limit: Duration,
    keepalive: bool,
) -> Result<(TcpStream, SocketAddr), NetError> {
    let host = &address.host;
    let resolved = timeout(limit, lookup_host((host.as_str(), address.port))).await;
    let too_long = |what| NetError::SetupTimeout { what, limit };
    let resolved = resolved
        .map_err(|_| too_long("name resolution"))?
        .map_err(|source| NetError::Resolve { host: host.clone(), source })?;
    let mut failure = NetError::Resolve {
        host: host.clone(),
        source: std::io::Error::other("the name has no address"),
    };
    for peer in resolved {
        match timeout(limit, TcpStream::connect(peer)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                if keepalive {
                    sockopt::set_socket_keepalive(&stream, true).map_err(std::io::Error::from)?;
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
