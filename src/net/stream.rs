//! The two directions of a connection, with TLS or without.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::client::TlsStream;

/// What comes from a broker.
pub(super) enum FromBroker {
    Plain(OwnedReadHalf),
    Tls(ReadHalf<TlsStream<TcpStream>>),
}

/// What goes to a broker. With TLS bytes may be held back until they are flushed.
pub(super) enum ToBroker {
    Plain(OwnedWriteHalf),
    Tls(WriteHalf<TlsStream<TcpStream>>),
}

/// Both directions without TLS.
pub(super) fn plain(stream: TcpStream) -> (FromBroker, ToBroker) {
    let (from, to) = stream.into_split();
    (FromBroker::Plain(from), ToBroker::Plain(to))
}

/// Both directions by TLS.
pub(super) fn tls(stream: TlsStream<TcpStream>) -> (FromBroker, ToBroker) {
    let (from, to) = tokio::io::split(stream);
    (FromBroker::Tls(from), ToBroker::Tls(to))
}

impl AsyncRead for FromBroker {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            FromBroker::Plain(from) => Pin::new(from).poll_read(cx, into),
            FromBroker::Tls(from) => Pin::new(from).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for ToBroker {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            ToBroker::Plain(to) => Pin::new(to).poll_write(cx, bytes),
            ToBroker::Tls(to) => Pin::new(to).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ToBroker::Plain(to) => Pin::new(to).poll_flush(cx),
            ToBroker::Tls(to) => Pin::new(to).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ToBroker::Plain(to) => Pin::new(to).poll_shutdown(cx),
            ToBroker::Tls(to) => Pin::new(to).poll_shutdown(cx),
        }
    }
}
