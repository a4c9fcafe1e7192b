//! Questions and their answers before a connection is open to requests: what the broker speaks, and who we are.

use super::answer_room::AnswerRoom;
use super::frame::FrameBuffer;
use super::{NetError, frame};
use crate::protocol::header::{ApiKey, finish_frame, put_request_header, read_response_header};
use crate::protocol::primitives::{DecodeError, Reader};
use std::io::ErrorKind;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

/// One side of a conversation. When the peer ends it, in whatever way, that is [`NetError::Closed`].
pub(super) struct Exchange<'a, R, W> {
    client_id: &'a str,
    from: R,
    to: W,
    /// What is to be sent; there may be a password in it.
    pub out: Zeroizing<Vec<u8>>,
    /// The answer read last.
    pub frame: FrameBuffer<'a>,
}

impl<'a, R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Exchange<'a, R, W> {
    pub fn new(client_id: &'a str, room: &'a AnswerRoom, from: R, to: W) -> Self {
        let frame = FrameBuffer::new(room);
        Exchange { client_id, from, to, out: Zeroizing::default(), frame }
    }

    /// Adds a request to what is to be sent; returns where it begins.
    pub fn put(
        &mut self,
        api: ApiKey,
        version: i16,
        id: i32,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        let start = put_request_header(&mut self.out, api, version, id, self.client_id);
        body(&mut self.out);
        finish_frame(&mut self.out, start);
        start
    }

    pub async fn send(&mut self) -> Result<(), NetError> {
        self.to.write_all(&self.out).await.map_err(|error| closed(error.into()))?;
        self.to.flush().await.map_err(|error| closed(error.into()))?;
        self.out.clear();
        Ok(())
    }

    /// Reads an answer, which has at most `largest` bytes.
    pub async fn receive(&mut self, largest: usize) -> Result<(), NetError> {
        let size = frame::size(&mut self.from).await.map_err(closed)?;
        self.receive_rest(size, largest).await
    }

    /// The same of an answer without a header, which may be empty.
    pub async fn receive_bare(&mut self, largest: usize) -> Result<(), NetError> {
        let size = frame::length(&mut self.from).await.map_err(closed)?;
        self.receive_rest(size.map(|size| size as usize), largest).await
    }

    async fn receive_rest(&mut self, size: Option<usize>, largest: usize) -> Result<(), NetError> {
        let size = size.ok_or(NetError::Closed)?;
        if size > largest {
            return Err(NetError::TooLarge { size, largest });
        }
        self.frame.read(&mut self.from, size).await.map_err(closed)
    }

    /// Reads the answer received last as that to request `id`.
    pub fn decode<T>(
        &self,
        api: ApiKey,
        version: i16,
        id: i32,
        decode: impl FnOnce(i16, &mut Reader<'_>) -> Result<T, DecodeError>,
    ) -> Result<T, NetError> {
        let wrong = |source| NetError::Decode { api: api.name(), source };
        let mut reader = Reader::new(&self.frame);
        let got = read_response_header(&mut reader, api, version).map_err(wrong)?;
        if got != id {
            return Err(NetError::Correlation { got, expected: Some(id) });
        }
        decode(version, &mut reader).map_err(wrong)
    }
}

fn closed(error: NetError) -> NetError {
    match error {
        NetError::Io(error)
            if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
        {
            NetError::Closed
        }
        error => error,
    }
}

/// Gives the end of the connection another meaning.
pub(super) fn instead_of_closed(meaning: NetError) -> impl FnOnce(NetError) -> NetError {
    |error| if matches!(error, NetError::Closed) { meaning } else { error }
}
