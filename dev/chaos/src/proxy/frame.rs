//! The head of a frame: all that the proxy reads of Kafka's protocol.
//!
//! ```text
//! request = length int32, api key int16, api version int16, correlation id int32, ...
//! answer  = length int32, correlation id int32, ...
//! ```
//! <https://kafka.apache.org/protocol.html#protocol_messages>

use super::fault::Api;
use tokio::io::{AsyncRead, AsyncReadExt};

const LENGTH_BYTES: usize = 4;
const REQUEST_HEAD: usize = 12;
const ANSWER_HEAD: usize = 8;

/// A frame whose head was read, and nothing else of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    pub bytes: Vec<u8>,
    /// Bytes that follow the head.
    pub rest: u64,
    pub correlation_id: i32,
    /// `Any` in an answer, which does not say.
    pub api: Api,
}

impl Head {
    /// Of the whole frame, its length field included.
    pub fn frame_bytes(&self) -> u64 {
        self.bytes.len() as u64 + self.rest
    }
}

/// `None`: the stream ended, or this is not a frame.
pub async fn read_request(from: &mut (impl AsyncRead + Unpin)) -> Option<Head> {
    let bytes = read_head(from, REQUEST_HEAD).await?;
    let api = Api::of(i16::from_be_bytes([bytes[4], bytes[5]]));
    head(bytes, REQUEST_HEAD - 4, api)
}

/// As [`read_request`].
pub async fn read_answer(from: &mut (impl AsyncRead + Unpin)) -> Option<Head> {
    let bytes = read_head(from, ANSWER_HEAD).await?;
    head(bytes, ANSWER_HEAD - 4, Api::Any)
}

async fn read_head(from: &mut (impl AsyncRead + Unpin), len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}

fn head(bytes: Vec<u8>, correlation_id_at: usize, api: Api) -> Option<Head> {
    let int32 =
        |at: usize| i32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (length, correlation_id) = (int32(0), int32(correlation_id_at));
    let rest = u64::try_from(length).ok()?.checked_sub((bytes.len() - LENGTH_BYTES) as u64)?;
    Some(Head { bytes, rest, correlation_id, api })
}
