//! Names of producers. What passes is also safe as a file name and in a log line. The default producer has the empty
//! name, which is none of these.

use crate::topic_name;

/// Longest name.
pub const MAX_LEN: usize = 64;

/// True for a name that a producer may have: 1 to 64 letters, digits, `.`, `_` and `-`, but not `.` or `..`, which are
/// directories.
pub fn is_valid(name: &str) -> bool {
    name.len() <= MAX_LEN && topic_name::is_valid(name)
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn a_name_is_short_and_of_characters_that_a_path_and_a_log_line_can_hold() {
        for name in ["a", "payments", "eu-west.1_b", &"x".repeat(64)] {
            assert!(is_valid(name), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "ü", "a\n", "a\0", "~p", &"x".repeat(65)] {
            assert!(!is_valid(name), "{name}");
        }
    }
}
