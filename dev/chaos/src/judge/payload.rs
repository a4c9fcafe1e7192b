//! What a message says about itself.
//!
//! ```text
//! payload = run worker seq topic key length crc padding      separated by single spaces
//! worker  = pid "-" milliseconds of its start                seq = 1, 2, 3, ... of this worker
//! key     = "-" when there is none                           length of the whole payload
//! crc     = CRC-32, 8 hex digits, of all the others: the text before it and after its space
//! ```
//! dev/chaos/chaos.lua writes it.

/// A message that is whole, or what it is instead.
#[derive(Debug, PartialEq, Eq)]
pub enum Read<'a> {
    Message {
        worker: &'a str,
        seq: u64,
    },
    /// Ours, and not as it was logged, or not where.
    Damaged,
    /// Not of this run.
    Foreign,
}

/// Reads the payload of a record that stood in `topic` with `key`; an empty key is none.
pub fn read<'a>(run: &str, topic: &str, key: &str, payload: &'a str) -> Read<'a> {
    let Some(rest) = payload.strip_prefix(run).and_then(|rest| rest.strip_prefix(' ')) else {
        return Read::Foreign;
    };
    let mut words = rest.splitn(7, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (worker, seq, own_topic, own_key) = (word(), word(), word(), word());
    let (length, crc, padding) = (word(), word(), word());
    let before_crc = payload.len() - padding.len() - " ".len() - crc.len();
    let whole = crc.len() == 8
        && u32::from_str_radix(crc, 16)
            == Ok(checksum(&payload[..before_crc.min(payload.len())], padding))
        && length.parse() == Ok(payload.len());
    let own_key = if own_key == "-" { "" } else { own_key };
    match seq.parse() {
        Ok(seq) if seq > 0 && whole && own_topic == topic && own_key == key => {
            Read::Message { worker, seq }
        }
        _ => Read::Damaged,
    }
}

fn checksum(head: &str, padding: &str) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head.as_bytes());
    hasher.update(padding.as_bytes());
    hasher.finalize()
}

#[cfg(test)]
pub fn write(run: &str, worker: &str, seq: u64, topic: &str, key: &str, padding: &str) -> String {
    let key = if key.is_empty() { "-" } else { key };
    let length_of = |digits: usize| {
        format!("{run} {worker} {seq} {topic} {key} ").len() + digits + 10 + padding.len()
    };
    let mut length = length_of(2);
    if length > 99 {
        length = length_of(3);
    }
    let head = format!("{run} {worker} {seq} {topic} {key} {length} ");
    format!("{head}{:08x} {padding}", checksum(&head, padding))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_message_says_who_sent_it() {
        for padding in ["", "x", "xx xx", &"x".repeat(300)] {
            let payload = write("r1", "815-99", 17, "chaos-1", "k3", padding);
            let read = read("r1", "chaos-1", "k3", &payload);
            assert_eq!(read, Read::Message { worker: "815-99", seq: 17 }, "{payload}");
        }
        let payload = write("r1", "815-99", 17, "chaos-1", "", "x");
        assert!(matches!(read("r1", "chaos-1", "", &payload), Read::Message { .. }));
    }

    #[test]
    fn every_changed_or_missing_byte_is_seen() {
        let payload = write("r1", "815-99", 17, "chaos-1", "k3", "xxxx");
        for at in 0..payload.len() {
            let mut bytes = payload.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(
                !matches!(read("r1", "chaos-1", "k3", &changed), Read::Message { .. }),
                "{changed}"
            );
            let cut = &payload[..at];
            assert!(!matches!(read("r1", "chaos-1", "k3", cut), Read::Message { .. }), "{cut}");
        }
    }

    #[test]
    fn a_message_of_another_topic_or_key_is_damaged_and_of_another_run_foreign() {
        let payload = write("r1", "815-99", 17, "chaos-1", "k3", "xxxx");
        assert_eq!(read("r1", "chaos-2", "k3", &payload), Read::Damaged);
        assert_eq!(read("r1", "chaos-1", "k4", &payload), Read::Damaged);
        assert_eq!(read("r1", "chaos-1", "", &payload), Read::Damaged);
        assert_eq!(read("r2", "chaos-1", "k3", &payload), Read::Foreign);
        assert_eq!(read("r", "chaos-1", "k3", &payload), Read::Foreign);
        assert_eq!(read("r1", "chaos-1", "k3", ""), Read::Foreign);
    }
}
