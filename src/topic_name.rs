//! Kafka's rule for topic names. What passes it is also safe as a file name: no separator, no control
//! character, never `.` or `..`.

/// Longest topic name.
pub const MAX_LEN: usize = 249;

/// True for a name that a broker takes (`Topic.validate` in Kafka).
pub fn is_valid(name: &str) -> bool {
    (1..=MAX_LEN).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn names_that_kafka_refuses_are_refused() {
        for bad in ["", ".", "..", "a/b", "a b", "a\0", "ä", &"x".repeat(250)] {
            assert!(!is_valid(bad), "{bad:?}");
        }
        for good in ["a", "...", "a.b_c-D9", &"x".repeat(249)] {
            assert!(is_valid(good), "{good:?}");
        }
    }
}
