//! What a codec does for the compressor.

/// A codec's state, which is used for one stream after the other. A stream that failed leaves nothing behind that the
/// next one would see.
pub(super) trait Encode {
    /// Begins a stream at the end of `out`; `len` is how many bytes it will have.
    fn begin(&mut self, out: &mut Vec<u8>, len: usize) -> Result<(), Failed>;
    /// Takes the next bytes.
    fn put(&mut self, out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Failed>;
    /// Ends the stream, also one that failed.
    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Failed>;
}

/// A codec did not do its work: it had no memory.
#[derive(Debug)]
pub(super) struct Failed;
