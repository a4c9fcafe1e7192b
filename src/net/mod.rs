//! Bytes to and from brokers: names, sockets, authentication, frames, correlation ids. Decides nothing about
//! retries, partitions or order: it reports what happened and ends the connection at the first thing that is not
//! as it must be.

mod answer_room;
pub mod connection;
mod exchange;
pub mod frame;
pub mod frame_pool;
pub mod handshake;
mod permits;
pub mod sasl;
mod stream;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod transport;

pub use answer_room::AnswerRoom;
pub use connection::{Event, Expected, Outgoing, Settings, run};
pub use handshake::{Handshake, Origin};
pub use permits::ConnectionPermits;
pub use sasl::{Authenticator, SaslError};
pub use tls::{Tls, TlsError};
pub use transport::Resolver;

use crate::config::HostPort;
use crate::protocol::api_versions::NegotiationError;
use crate::protocol::primitives::DecodeError;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a connection could not be made, or ended. The texts are for operators: they name the address and,
/// where there is one, the option to change.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The worker has as many connections as it may have.
    #[error(
        "there is no connection left for it: a worker has at most {most} to brokers, which is an eighth of its \
         descriptors (raise worker_rlimit_nofile) and never more than 256, and keeps some for its other producers"
    )]
    TooMany {
        /// How many that are.
        most: usize,
    },
    /// The name has no address.
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's answer.
        source: io::Error,
    },
    /// No address took the connection; the last refusal.
    #[error("cannot connect ({peer}): {source}")]
    Connect {
        /// As configured or told by metadata.
        address: HostPort,
        /// The address tried last.
        peer: SocketAddr,
        /// The refusal.
        source: io::Error,
    },
    /// Something took longer than `socket_connection_setup_timeout_ms`.
    #[error("{what} took longer than {} ms (socket_connection_setup_timeout_ms)", limit.as_millis())]
    SetupTimeout {
        /// What.
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The peer closed while it was asked for its versions.
    #[error(
        "closed the connection when asked for its versions: a TLS listener, a broker that is starting or \
         stopping, or Kafka 0.8, which is tried next where nothing is authenticated"
    )]
    ClosedInHandshake,
    /// The peer told its versions and closed on the Metadata request that came with the question.
    #[error(
        "told its versions and then closed the connection: it wants authentication first \
         (security_protocol), or to be asked in another way, which is tried next"
    )]
    ClosedOnMetadata,
    /// The peer answered what it was asked first, and closed on the request that followed.
    #[error(
        "closed the connection instead of answering the first request: perhaps the listener wants authentication \
         (security_protocol)"
    )]
    ClosedUnanswered,
    /// The peer closed on what Kafka 0.8 and 0.9 answer and no other release.
    #[error(
        "closed the connection when tried as Kafka 0.8 or 0.9; it is asked for its versions next"
    )]
    NotOld,
    /// No version in common.
    #[error(transparent)]
    Versions(#[from] NegotiationError),
    /// No TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No authentication.
    #[error(transparent)]
    Sasl(#[from] SaslError),
    /// Others needed the memory that an answer took while it was read.
    #[error(
        "a large answer came too slowly, and other brokers' needed its memory: connection closed"
    )]
    TooSlow,
    /// The peer closed.
    #[error("closed by the broker")]
    Closed,
    /// The system's word.
    #[error("connection failed: {0}")]
    Io(io::Error),
    /// The first bytes of an answer are no size a Kafka answer has.
    #[error("{looks_like} (an answer that begins with {size:#010x})")]
    NotKafka {
        /// A guess at what it is.
        looks_like: &'static str,
        /// The four bytes.
        size: u32,
    },
    /// An answer that is larger than one to its request can be.
    #[error("an answer of {size} bytes, where at most {largest} make sense")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The largest that is read.
        largest: usize,
    },
    /// An answer that is not one.
    #[error("{api} answer: {source}")]
    Decode {
        /// Which.
        api: &'static str,
        /// What is wrong.
        source: DecodeError,
    },
    /// An internal fault.
    #[error("internal fault while the connection was served")]
    Fault,
    /// An answer to nothing that was asked, or out of order.
    #[error("answer with correlation id {got}, {}", expected.map_or("none is due".to_owned(), |id| format!("{id} is due")))]
    Correlation {
        /// What came.
        got: i32,
        /// What was due, if anything.
        expected: Option<i32>,
    },
}

/// What TLS says comes by way of its stream, also that the broker does not want us: after the handshake.
impl From<io::Error> for NetError {
    fn from(error: io::Error) -> NetError {
        match tls::of_io(error) {
            Ok(error) => TlsError::Peer(error).into(),
            // A peer that ends the connection without saying so by TLS.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => NetError::Closed,
            Err(error) => NetError::Io(error),
        }
    }
}
