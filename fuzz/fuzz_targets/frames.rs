//! Reads frames from a stream that comes in arbitrary pieces: however it is cut, the frames, and where
//! and how the stream ends, are those of the uncut bytes.
//!
//! The input is the lengths of the pieces, ended by 0, and then the stream. A piece of 255 is waited
//! for. Run with `cargo +nightly fuzz run frames`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lkfk::internals::net::frame::{self, FrameBuffer};
use lkfk::internals::net::AnswerRoom;
use lkfk::internals::protocol::header::MAX_FRAME;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, ReadBuf};

struct Pieces<'a> {
    lengths: &'a [u8],
    stream: &'a [u8],
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = match self.lengths {
            [] => usize::MAX,
            [255, rest @ ..] => {
                self.lengths = rest;
                return Poll::Pending;
            }
            [length, rest @ ..] => {
                self.lengths = rest;
                usize::from(*length)
            }
        };
        let (piece, rest) =
            self.stream.split_at(length.min(out.remaining()).min(self.stream.len()));
        self.stream = rest;
        out.put_slice(piece);
        Poll::Ready(Ok(()))
    }
}

/// The frames, and what ended them: nothing, or the error's text.
type Read = (Vec<Vec<u8>>, Option<String>);

async fn read(mut from: Pieces<'_>) -> Read {
    let room = AnswerRoom::default();
    let (mut frames, mut buffer) = (Vec::new(), FrameBuffer::new(&room));
    loop {
        match frame::size(&mut from).await {
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error.to_string())),
            Ok(Some(size)) => {
                assert!((4..=MAX_FRAME).contains(&size));
                if let Err(error) = buffer.read(&mut from, size).await {
                    assert!(buffer.capacity() <= 2 * buffer.len().max(4096), "pays in advance");
                    return (frames, Some(error.to_string()));
                }
                assert_eq!(buffer.len(), size);
                frames.push(buffer.to_vec());
            }
        }
    }
}

fn read_all(lengths: &[u8], stream: &[u8]) -> Read {
    let mut reading = pin!(read(Pieces { lengths, stream }));
    let mut context = Context::from_waker(Waker::noop());
    // Each piece is waited for once at most.
    for _ in 0..=lengths.len() {
        if let Poll::Ready(read) = reading.as_mut().poll(&mut context) {
            return read;
        }
    }
    panic!("waits for what came");
}

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|length| *length == 0).unwrap_or(input.len());
    let (lengths, stream) = input.split_at(end);
    let stream = stream.get(1..).unwrap_or_default();
    let whole = read_all(&[], stream);
    assert_eq!(read_all(lengths, stream), whole);

    let mut rest = stream;
    for frame in &whole.0 {
        let (size, after) = rest.split_at(4);
        assert_eq!(size, (frame.len() as u32).to_be_bytes());
        assert_eq!(after[..frame.len()], frame[..]);
        rest = &after[frame.len()..];
    }
    assert_eq!(rest.is_empty(), whole.1.is_none());
});
