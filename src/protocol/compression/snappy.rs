//! snappy in the framing of snappy-java: a header, then blocks, each with its length before it. Readers take blocks
//! without that framing as well, but some old ones mistake the first bytes for it.

use super::encode::{Encode, Failed};
use snap::raw::{Encoder, max_compress_len};

/// The magic bytes, the version, and the oldest version that can read it.
const HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];

/// Bytes of a block before compression, as snappy-java makes them.
const BLOCK: usize = 32 << 10;

pub(super) struct Snappy {
    encoder: Encoder,
    /// What the next block consists of so far.
    block: Vec<u8>,
}

impl Default for Snappy {
    fn default() -> Snappy {
        Snappy { encoder: Encoder::new(), block: Vec::new() }
    }
}

impl Snappy {
    fn put_block(&mut self, out: &mut Vec<u8>) -> Result<(), Failed> {
        let len_at = out.len();
        let at = len_at + size_of::<u32>();
        out.resize(at + max_compress_len(self.block.len()), 0);
        let len = self.encoder.compress(&self.block, &mut out[at..]).map_err(|_| Failed)?;
        out.truncate(at + len);
        // A block is 32 KiB, and grows by a sixth at most.
        out[len_at..at].copy_from_slice(&(len as u32).to_be_bytes());
        self.block.clear();
        Ok(())
    }
}

impl Encode for Snappy {
    fn begin(&mut self, out: &mut Vec<u8>, _: usize) -> Result<(), Failed> {
        self.block.clear();
        self.block.reserve_exact(BLOCK);
        out.extend_from_slice(&HEADER);
        Ok(())
    }

    fn put(&mut self, out: &mut Vec<u8>, mut bytes: &[u8]) -> Result<(), Failed> {
        while !bytes.is_empty() {
            let (taken, rest) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(taken);
            bytes = rest;
            if self.block.len() == BLOCK {
                self.put_block(out)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Failed> {
        if self.block.is_empty() { Ok(()) } else { self.put_block(out) }
    }
}
