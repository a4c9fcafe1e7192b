//! Names in the backup directory. What is not a topic's own file has a `~` in its name, which no topic has,
//! so that no two topics' files ever collide: not those of `a` and `a.1`, nor of `a` and `a.offset`.
//!
//! ```text
//! TOPIC          lines are appended here; what the original module, scripts and people know
//! TOPIC~1        rotated files, the oldest first
//! TOPIC~bad      lines that replay could not send, for a person to look at
//! TOPIC~redo     lines of lkfk's format that a person wants sent, whoever wrote them
//! TOPIC~file     lines are appended here where TOPIC is a directory
//! ~journal/N     journal of the file with inode number N
//! ~lock          locked by the process that replays; holds inode numbers of files that were told of
//! ~p/NAME/       the backup directory of the producer of that name, with all of the above
//! ```

use crate::topic_name;
use std::path::{Path, PathBuf};

/// Directory of the journals.
pub(super) const JOURNALS: &str = "~journal";
/// The lock of the process that replays.
pub(super) const LOCK: &str = "~lock";

/// Directory of the backup directories of producers that have a name.
const PRODUCERS: &str = "~p";

/// Longest name that file systems take.
const MAX_LEN: usize = 255;

/// What a file in the backup directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A person wants it sent.
    Redo,
    /// Number so and so of the rotated ones.
    Rotated(u32),
    /// Appended to in place of the current one, whose name a directory has.
    Displaced,
    /// The one that is appended to.
    Current,
    /// Lines moved aside.
    Bad,
}

/// The topic and kind of a file, if it is one of ours.
pub(super) fn parse(name: &str) -> Option<(&str, Kind)> {
    let (topic, kind) = match name.split_once('~') {
        None => (name, Kind::Current),
        Some((topic, "bad")) => (topic, Kind::Bad),
        Some((topic, "redo")) => (topic, Kind::Redo),
        Some((topic, "file")) => (topic, Kind::Displaced),
        Some((topic, number)) => {
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            if !digits || number.starts_with('0') {
                return None;
            }
            (topic, Kind::Rotated(number.parse().ok()?))
        }
    };
    topic_name::is_valid(topic).then_some((topic, kind))
}

/// The name of a file; `None` when it would be too long, which takes a topic of some 245 characters and more
/// rotated files than it has room for.
pub(super) fn name(topic: &str, kind: Kind) -> Option<String> {
    let name = match kind {
        Kind::Current => topic.to_owned(),
        Kind::Rotated(number) => format!("{topic}~{number}"),
        Kind::Displaced => format!("{topic}~file"),
        Kind::Bad => format!("{topic}~bad"),
        Kind::Redo => format!("{topic}~redo"),
    };
    (name.len() <= MAX_LEN).then_some(name)
}

/// Where the backup files lie of the producer that has this [name](crate::producer_name): in a directory of its own
/// below `backpath`, whose name no topic has. Those of the default producer, which has the empty name, lie in
/// `backpath` itself.
pub fn directory_of(backpath: &Path, producer: &str) -> PathBuf {
    if producer.is_empty() { backpath.to_owned() } else { backpath.join(PRODUCERS).join(producer) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn longest_topic_has_room_for_its_rotated_files() {
        let topic = "x".repeat(topic_name::MAX_LEN);
        assert!(name(&topic, Kind::Rotated(99_999)).is_some());
        let others = [Kind::Bad, Kind::Redo, Kind::Displaced];
        assert!(others.into_iter().all(|kind| name(&topic, kind).is_some()));
        assert_eq!(name(&topic, Kind::Rotated(100_000)), None);
    }

    #[test]
    fn names_that_are_not_ours_are_nobody_s() {
        for other in [
            "",
            "~lock",
            "~journal",
            "~p",
            "~queue-0",
            "~file",
            "a~",
            "a~01",
            "a~1~2",
            "a~x",
            "a~99999999999",
            "a b~1",
        ] {
            assert_eq!(parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_producer_s_directory_lies_below_backpath_under_a_name_that_no_topic_has() {
        let path = Path::new("/b");
        assert_eq!(directory_of(path, ""), path);
        assert_eq!(directory_of(path, "a-B_9.x"), path.join("~p/a-B_9.x"));
        assert!(!topic_name::is_valid(PRODUCERS));
    }

    proptest! {
        #[test]
        fn dsk_11_names_of_two_topics_never_collide(
            a in "[a.1_-]{1,6}", b in "[a.1_-]{1,6}", x in 1u32..20, y in 1u32..20,
        ) {
            prop_assume!(a != b && topic_name::is_valid(&a) && topic_name::is_valid(&b));
            let kinds = |n| [Kind::Current, Kind::Displaced, Kind::Rotated(n), Kind::Bad, Kind::Redo];
            for one in kinds(x) {
                let first = name(&a, one).unwrap();
                prop_assert_eq!(parse(&first), Some((&*a, one)));
                for other in kinds(y) {
                    prop_assert_ne!(&first, &name(&b, other).unwrap());
                }
            }
        }
    }
}
