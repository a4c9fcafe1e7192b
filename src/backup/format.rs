//! One line of a backup file.
//!
//! ```text
//! line    = time TAB topic TAB key TAB payload [TAB extra] LF
//! time    = YYYY-MM-DD HH:MM:SS, local time of log()
//! key     = \N (null) | text        payload = \N (null) | text
//! extra   = text, in which JSON is: see the module of that name. Only where the record has headers, or a time other
//!           than that of log()
//! text    = any bytes, in which \\ \b \t \n \v \f \r stand for backslash, backspace, tab, line feed,
//!           vertical tab, form feed, carriage return
//! ```
//! The first four are the original's columns, with the escapes of PostgreSQL's COPY text format, so that any bytes
//! survive and a line without such bytes looks as it did.

use super::extra::{self, Extra};
use crate::record::{Headers, Record};
use crate::{local_time, topic_name};

/// A message as a backup line holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// When `log()` took it, milliseconds since 1970. Of a line that was read without a journal: the second.
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
    if let Some(json) = extra::json(line.logged_ms, &line.record) {
        out.push(b'\t');
        put_text(out, &json);
    }
    out.push(b'\n');
}

fn put_nullable(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        None => out.extend_from_slice(NULL),
        Some(text) => put_text(out, text),
    }
}

/// What stands for null. Text that has these bytes is written with its backslash escaped.
const NULL: &[u8] = b"\\N";

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

/// How a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// By lkfk, with escapes, and perhaps a fifth column.
    Escaped,
    /// Four columns as they were, by the original module or a user's `failed_cb`: a payload may hold tabs, a
    /// backslash is one, and no payload is null. `\N` is a null key here as well.
    Raw,
}

/// The longest line whose key, headers and payload take `longest` bytes together: each byte of key and payload may
/// have a backslash in front, and headers in JSON take more.
pub(super) fn longest_line(longest: usize, writing: Writing) -> usize {
    let ratio = match writing {
        Writing::Escaped => extra::LONGEST_RATIO,
        Writing::Raw => 1,
    };
    longest.saturating_mul(ratio).saturating_add(1024)
}

/// Bytes of the front of a line: time, topic and the tabs behind them.
pub(super) const LONGEST_FRONT: usize = 19 + 1 + topic_name::MAX_LEN + 1;

/// Whether these bytes begin as a line of the topic does, whoever wrote it.
pub(super) fn has_front_of_line(bytes: &[u8], topic: &str) -> bool {
    let mut columns = bytes.splitn(3, |byte| *byte == b'\t');
    let time = columns.next().and_then(local_time::parse);
    time.is_some() && columns.next() == Some(topic.as_bytes()) && columns.next().is_some()
}

/// A line that was read, without its topic. Its fields lie in a buffer, which many lines may share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields {
    /// When `log()` took the message, or, in the original's files, when it was written; milliseconds since 1970, of
    /// which the line holds the seconds.
    pub logged_ms: i64,
    /// The record's own time, if it has one.
    timestamp_ms: Option<i64>,
    key: Option<Span>,
    headers: Span,
    payload: Option<Span>,
}

/// Where a field begins and ends in the buffer.
type Span = (usize, usize);

impl Fields {
    /// The line, whose topic and buffer these are.
    pub fn line<'a>(&self, topic: &'a str, buffer: &'a [u8]) -> Line<'a> {
        let slice = |(from, to): Span| &buffer[from..to];
        let record = Record {
            timestamp_ms: self.timestamp_ms.unwrap_or(self.logged_ms),
            key: self.key.map(slice),
            // They were put there by who makes headers.
            headers: Headers::check(slice(self.headers)).unwrap_or(Headers::NONE),
            payload: self.payload.map(slice),
        };
        Line { logged_ms: self.logged_ms, topic, record }
    }

    /// Bytes of key, headers and payload.
    pub(super) fn len(&self) -> usize {
        let all = [self.key, Some(self.headers), self.payload];
        all.iter().flatten().map(|(from, to)| to - from).sum()
    }
}

/// Why bytes are not a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// There are not four columns, nor five.
    #[error("not four columns, nor five")]
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
    /// The fifth column is not what lkfk writes there.
    #[error("a fifth column that is not JSON of a timestamp and headers")]
    Extra,
    /// The journal has another checksum of the line.
    #[error("damaged: the bytes are not those that were written")]
    Damaged,
    /// Key, headers and payload take more than a message may.
    #[error("key, headers and payload are larger than a message may be")]
    TooLarge,
}

/// Reads a line, without its line feed, and appends its fields to `buffer`, of `longest` bytes at most; returns the
/// topic and where the fields are. Takes any bytes. Of a line that is none nothing is appended.
pub fn read<'a>(
    line: &'a [u8],
    writing: Writing,
    longest: usize,
    buffer: &mut Vec<u8>,
) -> Result<(&'a str, Fields), BadLine> {
    let begin = buffer.len();
    let read = read_fields(line, writing, buffer).and_then(|(topic, fields)| {
        if fields.len() > longest { Err(BadLine::TooLarge) } else { Ok((topic, fields)) }
    });
    if read.is_err() {
        buffer.truncate(begin);
    }
    read
}

fn read_fields<'a>(
    line: &'a [u8],
    writing: Writing,
    buffer: &mut Vec<u8>,
) -> Result<(&'a str, Fields), BadLine> {
    let escaped = writing == Writing::Escaped;
    let mut columns = line.splitn(if escaped { 6 } else { 4 }, |byte| *byte == b'\t');
    let mut column = || columns.next().ok_or(BadLine::Columns);
    let (time, topic, key, payload) = (column()?, column()?, column()?, column()?);
    let extra = columns.next();
    if columns.next().is_some() {
        return Err(BadLine::Columns);
    }
    let logged_ms = local_time::parse(time).ok_or(BadLine::Time)?;
    let topic = std::str::from_utf8(topic).ok().filter(|name| topic_name::is_valid(name));
    let topic = topic.ok_or(BadLine::Topic)?;
    let key = if key == NULL { None } else { Some(take_text(key, writing, buffer)?) };
    let null_payload = escaped && payload == NULL;
    let payload = if null_payload { None } else { Some(take_text(payload, writing, buffer)?) };
    let Extra { timestamp_ms, headers } = match extra {
        None => Extra::default(),
        Some(extra) => read_extra(extra, buffer)?,
    };
    let headers = append(buffer, &headers);
    Ok((topic, Fields { logged_ms, timestamp_ms, key, headers, payload }))
}

/// The fifth column. PostgreSQL's own lines have one always, which is null where there is nothing to say.
fn read_extra(column: &[u8], scratch: &mut Vec<u8>) -> Result<Extra, BadLine> {
    if column == NULL {
        return Ok(Extra::default());
    }
    let (from, to) = take_text(column, Writing::Escaped, scratch)?;
    let extra = Extra::read(&scratch[from..to]).ok_or(BadLine::Extra);
    scratch.truncate(from);
    extra
}

fn append(buffer: &mut Vec<u8>, bytes: &[u8]) -> Span {
    let from = buffer.len();
    buffer.extend_from_slice(bytes);
    (from, buffer.len())
}

/// Appends a field to the buffer, with its escapes undone.
fn take_text(text: &[u8], writing: Writing, buffer: &mut Vec<u8>) -> Result<Span, BadLine> {
    if writing == Writing::Raw {
        return Ok(append(buffer, text));
    }
    let from = buffer.len();
    buffer.reserve(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        buffer.extend_from_slice(&rest[..at]);
        buffer.push(match rest.get(at + 1) {
            Some(b'\\') => b'\\',
            Some(b'b') => 0x08,
            Some(b't') => b'\t',
            Some(b'n') => b'\n',
            Some(b'v') => 0x0b,
            Some(b'f') => 0x0c,
            Some(b'r') => b'\r',
            _ => return Err(BadLine::Escape),
        });
        rest = &rest[at + 2..];
    }
    buffer.extend_from_slice(rest);
    Ok((from, buffer.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::HeadersBuf;
    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::*;

    const TIME: i64 = 1_700_000_000_000;

    /// Name and value.
    type Header<'a> = (&'a str, Option<&'a [u8]>);

    fn text(line: &Line<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, line);
        out
    }

    /// A line of the topic `t` without a fifth column.
    fn plain(key: Option<&[u8]>, payload: Option<&[u8]>) -> Vec<u8> {
        text(&Line::new(TIME, "t", key, payload))
    }

    fn block(headers: &[Header<'_>]) -> Vec<u8> {
        let mut buf = HeadersBuf::default();
        headers.iter().for_each(|(name, value)| buf.push(name, *value));
        buf.into_block()
    }

    /// What stands behind the payload of a record with these headers.
    fn column(timestamp_ms: i64, headers: &[Header<'_>]) -> String {
        let block = block(headers);
        let headers = Headers::check(&block).unwrap();
        let record = Record { timestamp_ms, headers, ..Record::new(0, None, Some(b"p")) };
        let line = text(&Line { logged_ms: TIME, topic: "t", record });
        let line = String::from_utf8(line).unwrap();
        line.strip_suffix('\n').unwrap().split_once("\tp").unwrap().1.to_owned()
    }

    fn read_plain(line: &[u8], writing: Writing) -> Result<(), BadLine> {
        read(line, writing, usize::MAX, &mut Vec::new()).map(drop)
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
        let text = b"2016-03-01 10:20:30\torders\tk1\t{\"path\": \"C:\\\\new\ttab\"}";
        let mut buffer = Vec::new();
        let (topic, fields) = read(text, Writing::Raw, 100, &mut buffer).unwrap();
        let line = fields.line(topic, &buffer);
        assert_eq!((line.topic, line.record.key), ("orders", Some(&b"k1"[..])));
        assert_eq!(line.record.payload, Some(&b"{\"path\": \"C:\\\\new\ttab\"}"[..]));
        assert_eq!(
            (line.record.timestamp_ms, line.record.headers),
            (line.logged_ms, Headers::NONE)
        );
        let mut time = Vec::new();
        local_time::put(&mut time, line.logged_ms, b'-');
        assert_eq!(time, b"2016-03-01 10:20:30");
    }

    /// Of the original's line what looks like a null payload is the text `\N`, and a fifth column is payload.
    #[test]
    fn dsk_13_payloads_of_the_original_are_never_null_and_have_no_headers() {
        for payload in ["\\N", "p\t{\"timestamp\":1}"] {
            let text = format!("2016-03-01 10:20:30\tt\t\\N\t{payload}");
            let mut buffer = Vec::new();
            let (topic, fields) = read(text.as_bytes(), Writing::Raw, 100, &mut buffer).unwrap();
            let record = fields.line(topic, &buffer).record;
            assert_eq!((record.key, record.payload), (None, Some(payload.as_bytes())));
            assert!(record.headers.is_empty());
        }
    }

    #[test]
    fn dsk_06_what_is_no_line_is_refused_with_a_reason() {
        let good = "2024-01-01 00:00:00\tt\tk\tp";
        assert_eq!(read_plain(good.as_bytes(), Writing::Escaped), Ok(()));
        for (bad, reason) in [
            ("", BadLine::Columns),
            ("2024-01-01 00:00:00\tt\tk", BadLine::Columns),
            ("2024-01-01 00:00:00\tt\tk\tp\t{}\tmore", BadLine::Columns),
            ("yesterday\tt\tk\tp", BadLine::Time),
            ("2024-01-01 00:00:00\t../t\tk\tp", BadLine::Topic),
            ("2024-01-01 00:00:00\t\tk\tp", BadLine::Topic),
            ("2024-01-01 00:00:00\tt\tk\tp\\", BadLine::Escape),
            ("2024-01-01 00:00:00\tt\t\\N.\tp", BadLine::Escape),
            ("2024-01-01 00:00:00\tt\tk\t\\.", BadLine::Escape),
            ("2024-01-01 00:00:00\tt\tk\tp\t{}\\", BadLine::Escape),
            ("2024-01-01 00:00:00\tt\tk\tp\tmore", BadLine::Extra),
        ] {
            assert_eq!(read_plain(bad.as_bytes(), Writing::Escaped), Err(reason), "{bad:?}");
        }
    }

    #[test]
    fn dsk_06_a_fifth_column_that_lkfk_does_not_write_is_refused() {
        for good in [
            "\\N",
            "{}",
            r#" {"headers": [["a", "b"], ["a", null]], "timestamp": -1} "#,
            r#"{"headers":[[{"base64":"YQ=="},{"base64":""}]]}"#,
        ] {
            let line = format!("2024-01-01 00:00:00\tt\tk\tp\t{good}");
            assert_eq!(read_plain(line.as_bytes(), Writing::Escaped), Ok(()), "{good}");
        }
        for bad in [
            "",
            "null",
            "[]",
            "7",
            r#"{"time":1}"#,
            r#"{"timestamp":1,"timestamp":1}"#,
            r#"{"timestamp":null}"#,
            r#"{"timestamp":"1"}"#,
            r#"{"timestamp":1.5}"#,
            r#"{"timestamp":9223372036854775808}"#,
            r#"{"headers":null}"#,
            r#"{"headers":{"a":"b"}}"#,
            r#"{"headers":["a"]}"#,
            r#"{"headers":[["a"]]}"#,
            r#"{"headers":[["a","b","c"]]}"#,
            r#"{"headers":[[null,"b"]]}"#,
            r#"{"headers":[["a",1]]}"#,
            r#"{"headers":[["a",["b"]]]}"#,
            r#"{"headers":[["a",{}]]}"#,
            r#"{"headers":[["a",{"hex":"00"}]]}"#,
            r#"{"headers":[["a",{"base64":"AA==","more":1}]]}"#,
            r#"{"headers":[["a",{"base64":{"base64":"AA=="}}]]}"#,
            r#"{"headers":[["a",{"base64":"AA"}]]}"#,
            r#"{"headers":[["a",{"base64":"A*=="}]]}"#,
            r#"{"headers":[[{"base64":"/w=="},"b"]]}"#,
            r#"{"headers":[]} {}"#,
        ] {
            let line = format!("2024-01-01 00:00:00\tt\tk\tp\t{bad}");
            let mut buffer = b"before".to_vec();
            let read = read(line.as_bytes(), Writing::Escaped, 1000, &mut buffer);
            assert_eq!(read, Err(BadLine::Extra), "{bad}");
            assert_eq!(buffer, b"before");
        }
        let deep = format!("{{\"headers\":{}", "[".repeat(1_000_000));
        let line = format!("2024-01-01 00:00:00\tt\tk\tp\t{deep}");
        assert_eq!(read_plain(line.as_bytes(), Writing::Escaped), Err(BadLine::Extra));
    }

    #[test]
    fn dsk_06_a_line_is_too_large_when_key_headers_and_payload_are_together() {
        let headers = block(&[("name", Some(b"value"))]);
        let record = Record {
            headers: Headers::check(&headers).unwrap(),
            ..Record::new(TIME, Some(b"key"), Some(b"\t\t\t"))
        };
        let line = text(&Line { logged_ms: TIME, topic: "t", record });
        let line = &line[..line.len() - 1];
        let all = 3 + 3 + headers.len();
        assert!(read(line, Writing::Escaped, all, &mut Vec::new()).is_ok());
        let too_large = read(line, Writing::Escaped, all - 1, &mut Vec::new());
        assert_eq!(too_large, Err(BadLine::TooLarge));
    }

    #[test]
    fn plain_messages_look_as_the_original_wrote_them() {
        let line = plain(Some(b"key"), Some(b"{\"a\": 1}"));
        assert_eq!(&line[19..], b"\tt\tkey\t{\"a\": 1}\n");
        assert_eq!(line[4], b'-');
        assert_eq!(line[10], b' ');
    }

    #[test]
    fn null_key_and_null_payload_differ_from_the_text_that_looks_like_them() {
        assert_eq!(&plain(None, Some(b"p"))[19..], b"\tt\t\\N\tp\n");
        assert_eq!(&plain(Some(b"\\N"), Some(b"p"))[19..], b"\tt\t\\\\N\tp\n");
        assert_eq!(&plain(Some(b"k"), None)[19..], b"\tt\tk\t\\N\n");
        assert_eq!(&plain(Some(b"k"), Some(b"\\N"))[19..], b"\tt\tk\t\\\\N\n");
    }

    #[test]
    fn headers_and_a_time_of_its_own_stand_in_a_fifth_column() {
        assert_eq!(column(TIME, &[]), "");
        assert_eq!(column(TIME + 123, &[]), "\t{\"timestamp\":1700000000123}");
        let headers: [Header<'_>; 5] = [
            ("name", Some(b"text value")),
            ("bin", Some(&[0, 1, 2])),
            ("nothing", None),
            ("quotes \"and\" \t\\", Some("ü".as_bytes())),
            ("\0", Some(b"")),
        ];
        let json = concat!(
            r#"{"timestamp":1700000000123,"headers":[["name","text value"],["bin",{"base64":"AAEC"}],["#,
            r#""nothing",null],["quotes \\"and\\" \\t\\\\","ü"],[{"base64":"AA=="},""]]}"#
        );
        assert_eq!(column(TIME + 123, &headers), format!("\t{json}"));
        let alone = column(TIME, &headers[..1]);
        assert_eq!(alone, "\t{\"headers\":[[\"name\",\"text value\"]]}");
    }

    /// The bound for lines that are looked for is the longest that is written.
    #[test]
    fn no_line_is_longer_than_the_bound_says() {
        let worst: [&[Header<'_>]; 5] = [
            &[("\0", Some(&[0]))],
            &[("\u{1}", Some(&[1]))],
            &[("\\", Some(b"\\"))],
            &[("", None)],
            &[("\0", None)],
        ];
        for header in worst {
            let headers = block(&header.repeat(1000));
            let headers = Headers::check(&headers).unwrap();
            let record =
                Record { headers, ..Record::new(i64::MIN, Some(&[b'\\'; 9]), Some(&[b'\n'; 99])) };
            let topic = "x".repeat(topic_name::MAX_LEN);
            let line = text(&Line { logged_ms: TIME, topic: &topic, record });
            let longest = headers.block().len() + 9 + 99;
            assert!(line.len() <= longest_line(longest, Writing::Escaped), "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn dsk_10_any_record_survives(
            key in of(any::<Vec<u8>>()),
            payload in of(any::<Vec<u8>>()),
            names_and_values in vec((any::<String>(), of(any::<Vec<u8>>())), 0..5),
            own_time in of(any::<i64>()),
        ) {
            let mut headers = HeadersBuf::default();
            names_and_values.iter().for_each(|(name, value)| headers.push(name, value.as_deref()));
            let headers = headers.into_block();
            let record = Record {
                timestamp_ms: own_time.unwrap_or(TIME),
                key: key.as_deref(),
                headers: Headers::check(&headers).unwrap(),
                payload: payload.as_deref(),
            };
            let written = Line { logged_ms: TIME, topic: "t", record };
            let line = text(&written);
            prop_assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
            let line = &line[..line.len() - 1];

            let fields: Vec<&[u8]> = line.split(|b| *b == b'\t').collect();
            let needs_extra = !headers.is_empty() || own_time.is_some_and(|own| own != TIME);
            prop_assert_eq!(fields.len(), if needs_extra { 5 } else { 4 });
            prop_assert_eq!(copy_text(fields[2]), key.clone());
            prop_assert_eq!(copy_text(fields[3]), payload.clone());
            if needs_extra {
                let json = copy_text(fields[4]).unwrap();
                let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
                prop_assert!(json.is_object());
                prop_assert!(!json.to_string().contains("\\u0000"), "jsonb refuses it");
            }

            let mut buffer = b"what was read before".to_vec();
            let (topic, fields) = read(line, Writing::Escaped, usize::MAX, &mut buffer).unwrap();
            prop_assert_eq!(fields.line(topic, &buffer), written);
        }

        /// T9: the reader takes any bytes, also ones that are nearly a line.
        #[test]
        fn dsk_10_reading_hostile_bytes_never_panics(
            bytes: Vec<u8>,
            tail in "[\\\\NtnbQ\\t]{0,20}",
            extra in r#"\{?("(timestamp|headers|base64|x)":|\[|\]|\{|\}|"a"|null|1|,){0,12}\}?"#,
        ) {
            for writing in [Writing::Escaped, Writing::Raw] {
                let _ = read_plain(&bytes, writing);
                let front = b"2024-01-01 00:00:00\tt\t";
                for nearly in [
                    [&front[..], tail.as_bytes(), &bytes].concat(),
                    [&front[..], b"k\tp\t", extra.as_bytes()].concat(),
                    [&front[..], b"k\tp\t", &bytes].concat(),
                ] {
                    let mut buffer = Vec::new();
                    match read(&nearly, writing, 50, &mut buffer) {
                        Ok((topic, fields)) => {
                            prop_assert_eq!(topic, "t");
                            prop_assert!(buffer.len() <= 50);
                            let _ = fields.line(topic, &buffer);
                        }
                        Err(_) => prop_assert!(buffer.is_empty()),
                    }
                }
            }
        }
    }
}
