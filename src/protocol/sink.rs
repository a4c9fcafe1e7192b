//! Where encoders of records put their bytes: into a buffer, or into a codec.

/// Takes bytes, one piece after the other.
pub(super) trait Sink {
    /// Takes a piece.
    fn put(&mut self, bytes: &[u8]);

    /// Takes the first `len` bytes of a small array.
    #[inline]
    fn put_short<const N: usize>(&mut self, bytes: &[u8; N], len: usize) {
        self.put(&bytes[..len]);
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    /// A copy of constant size and a cut cost less than a copy of any other size.
    #[inline]
    fn put_short<const N: usize>(&mut self, bytes: &[u8; N], len: usize) {
        let end = self.len() + len;
        self.extend_from_slice(bytes);
        self.truncate(end);
    }
}
