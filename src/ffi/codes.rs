//! The numbers that stand for a [`Refusal`] in the C ABI. Their texts are the refusals' own.

use crate::queue::{PushError, TopicError};
use crate::record::HeadersError;
use crate::worker::Refusal;

/// Done.
pub const OK: i32 = 0;

/// Declares the codes, and both ways between them and refusals.
macro_rules! codes {
    ($( $name:ident = $value:literal, ($($refusal:tt)+); )*) => {
        $(
            #[doc = concat!("The code of `", stringify!($($refusal)+), "`.")]
            pub const $name: i32 = $value;
        )*

        /// Every code but [`OK`] and [`FAULT`]: its name, its number, and what it stands for.
        pub const CODES: &[(&str, i32, Refusal)] =
            &[ $( (stringify!($name), $value, $($refusal)+), )* ];

        /// The code of a refusal.
        pub const fn code(refusal: Refusal) -> i32 {
            match refusal {
                $( $($refusal)+ => $value, )*
            }
        }
    };
}

codes! {
    TOO_MANY_MESSAGES = -1, (Refusal::Record(PushError::TooManyMessages));
    NO_SPACE = -2, (Refusal::Record(PushError::NoSpace));
    TOO_LARGE = -3, (Refusal::Record(PushError::TooLarge));
    BAD_TOPIC_ID = -4, (Refusal::Record(PushError::UnknownTopic));
    BAD_TOPIC = -5, (Refusal::Topic(TopicError::Invalid));
    TOO_MANY_TOPICS = -6, (Refusal::Topic(TopicError::TableFull));
    TOPIC_UNKNOWN = -7, (Refusal::TopicUnknown);
    EXITING = -8, (Refusal::Exiting);
    CLOSED = -9, (Refusal::Closed);
    BAD_HEADERS = -10, (Refusal::Headers(HeadersError::Lengths));
    BAD_HEADER_NAME = -11, (Refusal::Headers(HeadersError::Name));
    NO_SPACE_FOR_TOPIC = -12, (Refusal::Topic(TopicError::NoSpace));
    BAD_FLAGS = -13, (Refusal::Flags);
}

/// A fault of lkfk's own: a panic was caught.
pub const FAULT: i32 = -99;

/// Text of [`FAULT`].
pub const FAULT_TEXT: &str = "internal fault";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_a_negative_code_of_its_own() {
        let mut seen = std::collections::BTreeSet::from([FAULT]);
        for (name, number, refusal) in CODES {
            assert!(*number < 0 && seen.insert(*number), "{name}");
            assert_eq!(code(*refusal), *number, "{name}");
        }
    }
}
