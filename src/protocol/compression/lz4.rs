//! LZ4: one frame of independent blocks of 64 KiB, without checksums of blocks and content. Kafka's reader refuses blocks
//! that refer to earlier ones, and stops at the end of the first frame.

use super::encode::{Encode, Failed};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use std::io::Write;

/// Where the checksum of a frame's header stands, and what Kafka before 0.10 writes and wants there: it takes the magic
/// bytes into the checksum, against the specification (KAFKA-3160). Our header is always the same, and so are both.
const HEADER_CHECKSUM_AT: usize = 6;
const HEADER_CHECKSUM: u8 = 0x82;
const HEADER_CHECKSUM_BEFORE_0_10: u8 = 0x1a;

/// Makes the frame at the beginning of `frame` one that Kafka 0.8 and 0.9 read, and no others do.
pub(super) fn use_old_header(frame: &mut [u8]) {
    if let Some(checksum) = frame.get_mut(HEADER_CHECKSUM_AT) {
        debug_assert_eq!(*checksum, HEADER_CHECKSUM);
        *checksum = HEADER_CHECKSUM_BEFORE_0_10;
    }
}

/// The encoder holds the buffer while a stream lasts.
pub(super) struct Lz4 {
    encoder: FrameEncoder<Vec<u8>>,
    is_open: bool,
}

impl Default for Lz4 {
    fn default() -> Lz4 {
        let form =
            FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
        Lz4 { encoder: FrameEncoder::with_frame_info(form, Vec::new()), is_open: false }
    }
}

impl Encode for Lz4 {
    fn begin(&mut self, out: &mut Vec<u8>, _: usize) -> Result<(), Failed> {
        if self.is_open {
            // A panic has ended the last stream.
            *self = Lz4::default();
        }
        self.is_open = true;
        std::mem::swap(out, self.encoder.get_mut());
        Ok(())
    }

    fn put(&mut self, _: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Failed> {
        self.encoder.write_all(bytes).map_err(|_| Failed)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Failed> {
        let ended = self.encoder.try_finish();
        std::mem::swap(out, self.encoder.get_mut());
        self.is_open = ended.is_err();
        ended.map_err(|_| Failed)
    }
}
