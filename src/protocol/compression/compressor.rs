//! A compressor takes the records of a batch piece by piece, from wherever they lie, and appends what becomes of them to the
//! request: there is no copy of the whole batch in between. It keeps each codec's state and buffers from batch to batch.
//! What it makes of equal pieces depends on nothing before them.

use super::codec::Codec;
use super::encode::{Encode, Failed};
use super::gzip::Gzip;
use super::lz4::Lz4;
use super::snappy::Snappy;
use super::zstd::Zstd;
use crate::protocol::sink::Sink;

/// Pieces that are shorter are put together before a codec gets them: each call of one costs as much as some bytes.
const SHORT: usize = 64;
const STAGED: usize = 512;

/// All codecs, of which only those hold memory that were used.
pub struct Compressor {
    level: Option<i32>,
    gzip: Option<Gzip>,
    snappy: Option<Snappy>,
    lz4: Option<Lz4>,
    zstd: Option<Zstd>,
    staged: Vec<u8>,
}

impl Compressor {
    /// With this level, as far as a codec has it, and its default one without.
    pub fn new(level: Option<i32>) -> Compressor {
        let staged = Vec::with_capacity(STAGED);
        Compressor { level, gzip: None, snappy: None, lz4: None, zstd: None, staged }
    }

    /// Begins a stream at the end of `out`, of `len` bytes.
    pub(in crate::protocol) fn begin<'a>(
        &'a mut self,
        codec: Codec,
        out: &'a mut Vec<u8>,
        len: usize,
    ) -> Stream<'a> {
        let level = self.level;
        let encoder: &mut dyn Encode = match codec {
            Codec::Gzip => self.gzip.get_or_insert_with(|| Gzip::new(level)),
            Codec::Snappy => self.snappy.get_or_insert_default(),
            Codec::Lz4 => self.lz4.get_or_insert_default(),
            Codec::Zstd => self.zstd.get_or_insert_with(|| Zstd::new(level)),
        };
        self.staged.clear();
        let result = encoder.begin(out, len);
        Stream { encoder, staged: &mut self.staged, out, result }
    }
}

/// One stream. What goes wrong shows at its end.
pub(in crate::protocol) struct Stream<'a> {
    encoder: &'a mut dyn Encode,
    staged: &'a mut Vec<u8>,
    out: &'a mut Vec<u8>,
    result: Result<(), Failed>,
}

impl Stream<'_> {
    fn put_staged(&mut self) {
        let Stream { encoder, staged, out, .. } = self;
        if self.result.is_ok() && !staged.is_empty() {
            self.result = encoder.put(out, staged);
        }
        staged.clear();
    }

    /// Ends it; false when what stands in the buffer is no stream.
    pub fn end(mut self) -> bool {
        self.put_staged();
        let ended = self.encoder.end(self.out);
        self.result.is_ok() && ended.is_ok()
    }
}

impl Sink for Stream<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let is_short = bytes.len() <= SHORT;
        if !is_short || self.staged.len() + bytes.len() > STAGED {
            self.put_staged();
        }
        if is_short {
            self.staged.extend_from_slice(bytes);
        } else if self.result.is_ok() {
            self.result = self.encoder.put(self.out, bytes);
        }
    }
}
