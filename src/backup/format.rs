//! One line of a backup file.
//!
//! ```text
//! line    = time TAB topic TAB key TAB payload LF
//! time    = YYYY-MM-DD HH:MM:SS, local time of log()
//! key     = \N (null) | text        payload = text
//! text    = any bytes, in which \\ \b \t \n \v \f \r stand for backslash, backspace, tab, line feed,
//!           vertical tab, form feed, carriage return
//! ```
//! These are the original's columns, with the escapes of PostgreSQL's COPY text format, so that any bytes
//! survive and a line without such bytes looks as it did.

use crate::local_time;

/// A message as a backup line holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// When `log()` took it, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Topic.
    pub topic: &'a str,
    /// Key; `None` for null.
    pub key: Option<&'a [u8]>,
    /// Payload.
    pub payload: &'a [u8],
}

/// Appends a line.
pub fn put(out: &mut Vec<u8>, line: &Line<'_>) {
    local_time::put(out, line.timestamp_ms, b'-');
    out.push(b'\t');
    out.extend_from_slice(line.topic.as_bytes());
    out.push(b'\t');
    match line.key {
        None => out.extend_from_slice(b"\\N"),
        Some(key) => put_text(out, key),
    }
    out.push(b'\t');
    put_text(out, line.payload);
    out.push(b'\n');
}

/// The letter that stands for a byte after a backslash.
fn escape(byte: u8) -> Option<u8> {
    Some(match byte {
        b'\\' => b'\\',
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0b => b'v',
        0x0c => b'f',
        b'\r' => b'r',
        _ => return None,
    })
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let mut plain = 0;
    for (index, byte) in text.iter().enumerate() {
        if let Some(letter) = escape(*byte) {
            out.extend_from_slice(&text[plain..index]);
            out.extend_from_slice(&[b'\\', letter]);
            plain = index + 1;
        }
    }
    out.extend_from_slice(&text[plain..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(key: Option<&[u8]>, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, &Line { timestamp_ms: 1_700_000_000_000, topic: "t", key, payload });
        out
    }

    /// What PostgreSQL's COPY makes of a field.
    fn unescape(field: &[u8]) -> Option<Vec<u8>> {
        if field == b"\\N" {
            return None;
        }
        let mut out = Vec::new();
        let mut bytes = field.iter();
        while let Some(byte) = bytes.next() {
            out.push(match byte {
                b'\\' => match bytes.next() {
                    Some(b'b') => 0x08,
                    Some(b't') => b'\t',
                    Some(b'n') => b'\n',
                    Some(b'v') => 0x0b,
                    Some(b'f') => 0x0c,
                    Some(b'r') => b'\r',
                    Some(other) => *other,
                    None => panic!("a backslash at the end"),
                },
                byte => *byte,
            });
        }
        Some(out)
    }

    #[test]
    fn plain_messages_look_as_the_original_wrote_them() {
        let line = text(Some(b"key"), b"{\"a\": 1}");
        assert_eq!(&line[19..], b"\tt\tkey\t{\"a\": 1}\n");
        assert_eq!(line[4], b'-');
        assert_eq!(line[10], b' ');
    }

    #[test]
    fn null_key_differs_from_the_text_that_looks_like_it() {
        assert_eq!(&text(None, b"p")[19..], b"\tt\t\\N\tp\n");
        assert_eq!(&text(Some(b"\\N"), b"p")[19..], b"\tt\t\\\\N\tp\n");
    }

    proptest! {
        #[test]
        fn any_bytes_survive(key in proptest::option::of(any::<Vec<u8>>()), payload: Vec<u8>) {
            let line = text(key.as_deref(), &payload);
            prop_assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
            let fields: Vec<&[u8]> = line[..line.len() - 1].split(|b| *b == b'\t').collect();
            prop_assert_eq!(fields.len(), 4);
            prop_assert_eq!(unescape(fields[2]), key);
            prop_assert_eq!(unescape(fields[3]), Some(payload));
        }
    }
}
