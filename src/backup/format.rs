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

use crate::record::Record;
use crate::{local_time, topic_name};
use std::borrow::Cow;

/// A message as a backup line holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// When `log()` took it, milliseconds since 1970.
    pub logged_ms: i64,
    /// Topic.
    pub topic: &'a str,
    /// The record.
    pub record: Record<'a>,
}

impl<'a> Line<'a> {
    /// The line of a message that carries the time at which it was logged, and no headers.
    pub fn new(
        logged_ms: i64,
        topic: &'a str,
        key: Option<&'a [u8]>,
        payload: Option<&'a [u8]>,
    ) -> Line<'a> {
        Line { logged_ms, topic, record: Record::new(logged_ms, key, payload) }
    }
}

/// Appends a line.
pub fn put(out: &mut Vec<u8>, line: &Line<'_>) {
    local_time::put(out, line.logged_ms, b'-');
    out.push(b'\t');
    out.extend_from_slice(line.topic.as_bytes());
    out.push(b'\t');
    put_nullable(out, line.record.key);
    out.push(b'\t');
    put_nullable(out, line.record.payload);
    out.push(b'\n');
}

fn put_nullable(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        None => out.extend_from_slice(b"\\N"),
        Some(text) => put_text(out, text),
    }
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

/// How the key and payload of a line were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// By lkfk, with escapes.
    Escaped,
    /// As they were, by the original module or a user's `failed_cb`: a payload may hold tabs, and a backslash
    /// is one. `\N` is a null key here as well.
    Raw,
}

/// A line, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<'a> {
    /// When the message was taken, or, in the original's files, written; milliseconds since 1970, of which
    /// the line holds the seconds.
    pub timestamp_ms: i64,
    /// Topic.
    pub topic: &'a str,
    /// Key; `None` for null.
    pub key: Option<Cow<'a, [u8]>>,
    /// Payload.
    pub payload: Cow<'a, [u8]>,
}

/// Why bytes are not a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// There are not four columns.
    #[error("not four columns")]
    Columns,
    /// The first column is not a local time.
    #[error("no local time in front")]
    Time,
    /// The second column is not a topic's name.
    #[error("no topic's name in the second column")]
    Topic,
    /// A backslash that stands for nothing.
    #[error("an escape that does not exist")]
    Escape,
}

/// Reads a line, without its line feed. Takes any bytes.
pub fn read(line: &[u8], writing: Writing) -> Result<Read<'_>, BadLine> {
    let columns = if writing == Writing::Escaped { usize::MAX } else { 4 };
    let mut fields = line.splitn(columns, |byte| *byte == b'\t');
    let (Some(time), Some(topic), Some(key), Some(payload), None) =
        (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(BadLine::Columns);
    };
    let timestamp_ms = local_time::parse(time).ok_or(BadLine::Time)?;
    let topic = std::str::from_utf8(topic).ok().filter(|name| topic_name::is_valid(name));
    let topic = topic.ok_or(BadLine::Topic)?;
    let text = |text| match writing {
        Writing::Escaped => unescape(text),
        Writing::Raw => Ok(Cow::Borrowed(text)),
    };
    let key = if key == b"\\N" { None } else { Some(text(key)?) };
    Ok(Read { timestamp_ms, topic, key, payload: text(payload)? })
}

fn unescape(text: &[u8]) -> Result<Cow<'_, [u8]>, BadLine> {
    let Some(first) = text.iter().position(|byte| *byte == b'\\') else {
        return Ok(Cow::Borrowed(text));
    };
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(&text[..first]);
    let mut bytes = text[first..].iter();
    while let Some(&byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'\\') => b'\\',
                Some(b'b') => 0x08,
                Some(b't') => b'\t',
                Some(b'n') => b'\n',
                Some(b'v') => 0x0b,
                Some(b'f') => 0x0c,
                Some(b'r') => b'\r',
                _ => return Err(BadLine::Escape),
            },
            byte => byte,
        });
    }
    Ok(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(key: Option<&[u8]>, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, &Line::new(1_700_000_000_000, "t", key, Some(payload)));
        out
    }

    /// What PostgreSQL's COPY makes of a field.
    fn copy_text(field: &[u8]) -> Option<Vec<u8>> {
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
    fn dsk_13_lines_of_the_original_are_read_as_they_stand() {
        let line = b"2016-03-01 10:20:30\torders\tk1\t{\"path\": \"C:\\\\new\ttab\"}";
        let read = read(line, Writing::Raw).unwrap();
        assert_eq!((read.topic, read.key.as_deref()), ("orders", Some(&b"k1"[..])));
        assert_eq!(&*read.payload, b"{\"path\": \"C:\\\\new\ttab\"}");
        let mut time = Vec::new();
        local_time::put(&mut time, read.timestamp_ms, b'-');
        assert_eq!(time, b"2016-03-01 10:20:30");
    }

    #[test]
    fn dsk_06_what_is_no_line_is_refused_with_a_reason() {
        let good = "2024-01-01 00:00:00\tt\tk\tp";
        assert!(super::read(good.as_bytes(), Writing::Escaped).is_ok());
        for (bad, reason) in [
            ("", BadLine::Columns),
            ("2024-01-01 00:00:00\tt\tk", BadLine::Columns),
            ("2024-01-01 00:00:00\tt\tk\tp\tmore", BadLine::Columns),
            ("yesterday\tt\tk\tp", BadLine::Time),
            ("2024-01-01 00:00:00\t../t\tk\tp", BadLine::Topic),
            ("2024-01-01 00:00:00\t\tk\tp", BadLine::Topic),
            ("2024-01-01 00:00:00\tt\tk\tp\\", BadLine::Escape),
            ("2024-01-01 00:00:00\tt\t\\N.\tp", BadLine::Escape),
            ("2024-01-01 00:00:00\tt\tk\t\\.", BadLine::Escape),
        ] {
            assert_eq!(super::read(bad.as_bytes(), Writing::Escaped), Err(reason), "{bad:?}");
        }
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
        fn dsk_10_any_bytes_survive(key in proptest::option::of(any::<Vec<u8>>()), payload: Vec<u8>) {
            let line = text(key.as_deref(), &payload);
            prop_assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
            let fields: Vec<&[u8]> = line[..line.len() - 1].split(|b| *b == b'\t').collect();
            prop_assert_eq!(fields.len(), 4);
            prop_assert_eq!(copy_text(fields[2]), key.clone());
            prop_assert_eq!(copy_text(fields[3]), Some(payload.clone()));
            let read = read(&line[..line.len() - 1], Writing::Escaped).unwrap();
            prop_assert_eq!(read.key.as_deref(), key.as_deref());
            prop_assert_eq!(&*read.payload, &payload[..]);
            prop_assert_eq!((read.timestamp_ms, read.topic), (1_700_000_000_000, "t"));
        }

        /// T9: the reader takes any bytes, also ones that are nearly a line.
        #[test]
        fn dsk_10_reading_hostile_bytes_never_panics(
            bytes: Vec<u8>,
            tail in "[\\\\NtnbQ\\t]{0,20}",
        ) {
            for writing in [Writing::Escaped, Writing::Raw] {
                let _ = read(&bytes, writing);
                let nearly = [b"2024-01-01 00:00:00\tt\t", tail.as_bytes(), &bytes].concat();
                if let Ok(read) = read(&nearly, writing) {
                    prop_assert_eq!(read.topic, "t");
                }
            }
        }
    }
}
