//! A reader of message sets, written from the protocol's guide and sharing nothing with the encoder,
//! not even the checksum. Also used by the fuzz target.

/// A message as it is read back.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    pub offset: i64,
    pub magic: u8,
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// Reads a whole set.
///
/// # Panics
/// If it is none: cut, longer than its messages, compressed, or with a checksum that is wrong.
pub fn read(mut set: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while !set.is_empty() {
        let offset = i64::from_be_bytes(take(&mut set));
        let size = i32::from_be_bytes(take(&mut set));
        let (mut message, rest) = set.split_at(size as usize);
        set = rest;
        let checksum = u32::from_be_bytes(take(&mut message));
        assert_eq!(checksum, crc32(message), "checksum of message {}", messages.len());
        let [magic, attributes] = take(&mut message);
        assert_eq!(attributes, 0);
        let timestamp = match magic {
            0 => None,
            1 => Some(i64::from_be_bytes(take(&mut message))),
            _ => panic!("magic {magic}"),
        };
        let (key, value) = (bytes(&mut message), bytes(&mut message));
        assert!(message.is_empty(), "{} bytes left over", message.len());
        messages.push(Message { offset, magic, timestamp, key, value });
    }
    messages
}

fn bytes(from: &mut &[u8]) -> Option<Vec<u8>> {
    let len = i32::from_be_bytes(take(from));
    if len == -1 {
        return None;
    }
    let (bytes, rest) = from.split_at(len as usize);
    *from = rest;
    Some(bytes.to_vec())
}

fn take<const N: usize>(from: &mut &[u8]) -> [u8; N] {
    let (taken, rest) = from.split_first_chunk().expect("a whole message");
    *from = rest;
    *taken
}

/// CRC-32 as in zlib, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}
