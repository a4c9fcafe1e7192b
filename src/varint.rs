//! Variable-length integers as Kafka's record batches and flexible messages write them: seven bits a byte, the
//! lowest first, signed ones in zigzag form (<https://kafka.apache.org/protocol#protocol_types>).

/// The longest varint: 64 bits.
pub(crate) const MAX_VARINT: usize = 10;

/// Maps small numbers of either sign to small unsigned ones: 0, -1, 1, -2 to 0, 1, 2, 3.
#[inline]
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[inline]
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Bytes that `value` takes as an unsigned varint.
#[inline]
pub(crate) const fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Writes an unsigned varint into `bytes` at `at`, and returns where it ends.
#[inline]
pub(crate) fn write_varint(bytes: &mut [u8], mut at: usize, mut value: u64) -> usize {
    while value >= 0x80 {
        bytes[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    bytes[at] = value as u8;
    at + 1
}

/// Appends an unsigned varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, value: u64) {
    let mut bytes = [0; MAX_VARINT];
    let len = write_varint(&mut bytes, 0, value);
    out.extend_from_slice(&bytes[..len]);
}

/// Takes an unsigned varint of at most 32 bits off the front of `bytes`. `None` when it is cut or longer.
#[inline]
pub(crate) fn take_varint32(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0;
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        // Four bits of the fifth byte are left, and no sixth may follow.
        if shift == 28 && byte > 0x0f {
            return None;
        }
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_and_take_the_bytes_that_were_counted() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 0x0fff_ffff, 0x1000_0000, u32::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, u64::from(value));
            assert_eq!(out.len(), varint_len(u64::from(value)));
            let mut rest = &out[..];
            assert_eq!((take_varint32(&mut rest), rest), (Some(value), &[][..]));
        }
        for value in [0, -1, 1, i64::from(i32::MIN), i64::MAX, i64::MIN] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn what_is_cut_or_longer_than_32_bits_is_refused() {
        for bytes in [&[][..], &[0x80], &[0xff; 4], &[0xff, 0xff, 0xff, 0xff, 0x10], &[0x80; 6]] {
            assert_eq!(take_varint32(&mut &*bytes), None, "{bytes:?}");
        }
    }
}
