//! gzip: one member (RFC 1952).

use super::encode::{Encode, Failed};
use flate2::{Compress, Compression, FlushCompress, Status};

/// The largest window, as all readers know it.
const WINDOW_BITS: u8 = 15;
/// What a gzip member takes besides what is deflated: its header and its end.
const FRAME: usize = 18;
/// Room that is made in the buffer when there is none.
const STEP: usize = 16 << 10;

pub(super) struct Gzip {
    encoder: Compress,
}

impl Gzip {
    /// Levels are 0 (only framed) to 9; another one is the next of those.
    pub fn new(level: Option<i32>) -> Gzip {
        let level = level.map_or_else(Compression::default, |level| {
            Compression::new(level.clamp(0, 9).unsigned_abs())
        });
        Gzip { encoder: Compress::new_gzip(level, WINDOW_BITS) }
    }

    fn run(
        &mut self,
        out: &mut Vec<u8>,
        mut bytes: &[u8],
        flush: FlushCompress,
    ) -> Result<(), Failed> {
        loop {
            if out.capacity() - out.len() < FRAME {
                out.reserve(STEP);
            }
            let before = self.encoder.total_in();
            let status = self.encoder.compress_vec(bytes, out, flush).map_err(|_| Failed)?;
            bytes = &bytes[(self.encoder.total_in() - before) as usize..];
            let is_done = match flush {
                FlushCompress::Finish => status == Status::StreamEnd,
                _ => bytes.is_empty(),
            };
            if is_done {
                return Ok(());
            }
        }
    }
}

impl Encode for Gzip {
    fn begin(&mut self, _: &mut Vec<u8>, _: usize) -> Result<(), Failed> {
        self.encoder.reset();
        Ok(())
    }

    fn put(&mut self, out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Failed> {
        self.run(out, bytes, FlushCompress::None)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Failed> {
        self.run(out, &[], FlushCompress::Finish)
    }
}
