//! Frames: four bytes of size, then that many bytes.

use super::NetError;
use super::answer_room::{AnswerRoom, FREE, Held};
use crate::protocol::header::MAX_FRAME;
use std::ops::Deref;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Smallest answer: a correlation id.
const MIN_FRAME: u32 = 4;

/// Room that a frame gets before any of it came.
const FIRST_ROOM: usize = 4096;

/// Reads the size of the next frame. `None` means that the peer closed between frames. May be dropped while it
/// waits for a frame to begin.
pub async fn size(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<usize>, NetError> {
    let Some(size) = length(from).await? else { return Ok(None) };
    if !(MIN_FRAME..=MAX_FRAME as u32).contains(&size) {
        return Err(NetError::NotKafka { looks_like: looks_like(size), size });
    }
    Ok(Some(size as usize))
}

/// The same, whatever the size: only the tokens of old brokers' authentication may have any.
pub async fn length(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<u32>, NetError> {
    let mut length = [0; 4];
    if from.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[1..]).await?;
    Ok(Some(u32::from_be_bytes(length)))
}

/// The content of a frame, one after the other. Its memory grows with what arrives, not with what a size claims, and
/// never beyond the size; what is large of it comes out of a room that others share.
pub struct FrameBuffer<'a> {
    bytes: Vec<u8>,
    held: Held<'a>,
}

impl<'a> FrameBuffer<'a> {
    /// An empty one.
    pub fn new(room: &'a AnswerRoom) -> FrameBuffer<'a> {
        FrameBuffer { bytes: Vec::new(), held: room.hold() }
    }

    /// Reads the `size` bytes of a frame, which take the place of those of the last one.
    pub async fn read(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        size: usize,
    ) -> Result<(), NetError> {
        self.make_empty();
        let mut from = from.take(size as u64);
        while self.bytes.len() < size {
            if self.bytes.len() == self.bytes.capacity() {
                self.grow(self.bytes.len().max(FIRST_ROOM).min(size - self.bytes.len())).await?;
            }
            let Self { bytes, held } = self;
            tokio::select! {
                biased;
                read = from.read_buf(bytes) => if read? == 0 {
                    return Err(NetError::Closed);
                },
                () = held.is_wanted_by_others() => return Err(NetError::TooSlow),
            }
        }
        Ok(())
    }

    /// Bytes of memory that it takes.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Lets go of the content, and of the memory of a large one.
    pub fn make_empty(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > FREE {
            self.bytes = Vec::new();
            self.held.release();
        }
    }

    /// The content, out of the buffer. To be used of small frames alone.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    async fn grow(&mut self, more: usize) -> Result<(), NetError> {
        let counted = |bytes: usize| bytes.saturating_sub(FREE);
        let has = self.bytes.capacity();
        let more_counted = counted(has + more) - counted(has);
        if more_counted > 0 {
            self.held.grow(more_counted).await?;
        }
        self.bytes.reserve_exact(more);
        Ok(())
    }
}

impl Deref for FrameBuffer<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a peer may be whose answer begins like this.
fn looks_like(size: u32) -> &'static str {
    match size.to_be_bytes() {
        [b'H', b'T', b'T', b'P'] => "an HTTP server, not a Kafka broker",
        [0x15 | 0x16, 0x03, _, _] => {
            "a TLS listener: set security_protocol to \"ssl\" or \"sasl_ssl\""
        }
        [b'S', b'S', b'H', b'-'] => "an SSH server, not a Kafka broker",
        _ => "not a Kafka broker, or an answer larger than 4 MiB",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, NetError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut frames = Vec::new();
            let room = AnswerRoom::default();
            let mut frame = FrameBuffer::new(&room);
            while let Some(size) = size(&mut bytes).await? {
                frame.read(&mut bytes, size).await?;
                frames.push(frame.to_vec());
            }
            Ok(frames)
        })
    }

    #[test]
    fn frames_are_cut_by_their_size() {
        let frames = read_all(b"\0\0\0\x04abcd\0\0\0\x05efghi").unwrap();
        assert_eq!(frames, [b"abcd".to_vec(), b"efghi".to_vec()]);
        assert_eq!(read_all(b"").unwrap().len(), 0);
    }

    #[test]
    fn cut_frames_are_an_error_and_not_an_end() {
        for cut in 1..8 {
            let error = read_all(&b"\0\0\0\x04abcd"[..cut]).unwrap_err();
            assert!(matches!(error, NetError::Closed), "{error}");
        }
    }

    #[test]
    fn impossible_sizes_are_refused_by_name() {
        for (bytes, part) in [
            (b"HTTP/1.1 400 Bad", "HTTP server"),
            (b"\x15\x03\x03\0\x02\x02\x46aaaaaaaaa", "TLS"),
            (b"\xff\xff\xff\xffaaaaaaaaaaaa", "not a Kafka broker"),
            (b"\x7f\xff\xff\xffaaaaaaaaaaaa", "not a Kafka broker"),
            (b"\0\0\0\0aaaaaaaaaaaa", "not a Kafka broker"),
            (b"\0\0\0\x03aaaaaaaaaaaa", "not a Kafka broker"),
        ] {
            let error = read_all(bytes).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_claimed_size_reserves_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let room = AnswerRoom::default();
        let mut frame = FrameBuffer::new(&room);
        let result = runtime.block_on(frame.read(&mut &b"abcd"[..], MAX_FRAME));
        assert!(matches!(result, Err(NetError::Closed)));
        assert!(frame.capacity() <= FIRST_ROOM, "{}", frame.capacity());
    }

    #[test]
    fn a_frame_takes_no_more_room_than_its_size() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for size in [4, FIRST_ROOM - 1, FIRST_ROOM, 100_001] {
            let (bytes, room) = (vec![7; size + 10], AnswerRoom::default());
            let mut frame = FrameBuffer::new(&room);
            runtime.block_on(frame.read(&mut &bytes[..], size)).unwrap();
            assert_eq!((frame.len(), frame.capacity()), (size, size));
        }
    }
}
