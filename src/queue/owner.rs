//! Whom a queue file belongs to: an instance of nginx and a producer in it. Whoever adopts a dead worker's file must
//! be of the same instance and the same producer, since another one sends to another cluster or with other rules.
//!
//! The header of the file is what counts. The file's name begins with both names as well, so that people find their
//! way, and so that a listing need not open the files of others.

/// Longest name.
pub const MAX_NAME: usize = 64;

/// Whom a queue file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// Tells instances of nginx on one machine apart.
    pub instance: &'a str,
    /// The producer's name; empty for the default one.
    pub producer: &'a str,
}

impl<'a> Owner<'a> {
    /// The default producer of an instance.
    pub fn of_default_producer(instance: &'a str) -> Owner<'a> {
        Owner { instance, producer: "" }
    }

    /// Whether both names can stand in a file and in its name.
    pub fn is_valid(&self) -> bool {
        is_name(self.instance) && (self.producer.is_empty() || is_name(self.producer))
    }

    /// Beginning of the names of this owner's files, without an ending that tells one from the other.
    pub fn file_name(&self, unique: &str) -> String {
        let Owner { instance, producer } = self;
        let between = if producer.is_empty() { "" } else { "-" };
        format!("{instance}-{producer}{between}{unique}")
    }

    /// Whether a file of version 2, whose header has no names, is ours. Such files are those of default producers, and
    /// are named `INSTANCE-PROCESS-MOMENT`, where none of the three has a dash.
    pub(super) fn owns_version_2(&self, name: &str) -> bool {
        let rest = name.strip_prefix(self.instance).and_then(|rest| rest.strip_prefix('-'));
        self.producer.is_empty() && rest.is_some_and(|rest| rest.split('-').count() == 2)
    }
}

/// 1 to 64 of `a-z A-Z 0-9 . _ -`.
fn is_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_begin_with_instance_and_producer() {
        let default = Owner::of_default_producer("1a2b");
        assert_eq!(default.file_name("7-8"), "1a2b-7-8");
        assert_eq!(Owner { producer: "audit", ..default }.file_name("7-8"), "1a2b-audit-7-8");
    }

    #[test]
    fn names_that_could_be_paths_or_do_not_fit_are_refused() {
        let long = "x".repeat(MAX_NAME + 1);
        for bad in ["a/b", "ü", "a b", "a\0", &long] {
            assert!(!Owner::of_default_producer(bad).is_valid(), "{bad}");
            assert!(!Owner { instance: "a", producer: bad }.is_valid(), "{bad}");
        }
        assert!(!Owner::of_default_producer("").is_valid());
        assert!(Owner { instance: "a.b_c-D9", producer: &long[1..] }.is_valid());
    }

    #[test]
    fn files_of_version_2_are_the_default_producer_s() {
        let owner = Owner::of_default_producer("1a2b");
        assert!(owner.owns_version_2("1a2b-77-18c0.queue"));
        assert!(!owner.owns_version_2("1a2b-other-77-18c0.queue"));
        assert!(!owner.owns_version_2("1a2bc-77-18c0.queue"));
        assert!(!Owner { producer: "audit", ..owner }.owns_version_2("1a2b-77-18c0.queue"));
    }
}
