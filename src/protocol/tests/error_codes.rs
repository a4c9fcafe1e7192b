//! The table of error codes, against kafka-protocol's.

use kafka_protocol::ResponseError;

use crate::protocol::error_code::{ErrorCode, Persistence};

/// The last code of Kafka 4.3.
const LAST: i16 = 133;

#[test]
fn names_and_retries_agree_with_an_independent_table() {
    for code in (-1..=LAST).filter(|&code| code != 0) {
        let theirs = ResponseError::try_from_code(code).expect("an error");
        assert!(!matches!(theirs, ResponseError::Unknown(_)), "{code}");
        let ours = ErrorCode(code);
        assert_eq!(ours.name(), Some(screaming_snake(&format!("{theirs:?}")).as_str()));
        // The Java client of 4.3 retries this one; kafka-protocol 0.18 has not followed yet.
        let retriable = theirs.is_retriable() || ours == ErrorCode::CONCURRENT_TRANSACTIONS;
        assert_eq!(ours.retriable(), retriable, "{ours}");
    }
}

#[test]
fn a_refresh_is_advised_only_where_metadata_is_stale() {
    // What the Java client derives from InvalidMetadataException.
    let stale = [3, 5, 6, 9, 13, 56, 72, 74, 80, 83, 84, 100, 103];
    for code in -1..=LAST {
        let ours = ErrorCode(code);
        assert_eq!(ours.refresh_metadata(), stale.contains(&code), "{ours}");
        assert!(ours.retriable() || !ours.refresh_metadata(), "{ours}");
    }
}

#[test]
fn a_batch_counts_as_written_only_on_success_or_as_a_double() {
    for code in -1..=LAST {
        let ours = ErrorCode(code);
        let success = [ErrorCode::NONE, ErrorCode::DUPLICATE_SEQUENCE_NUMBER].contains(&ours);
        assert_eq!(ours.persistence() == Persistence::Yes, success, "{ours}");
    }
}

#[test]
fn a_batch_may_be_written_whenever_the_error_can_follow_the_append() {
    let after_append = [
        ErrorCode::UNKNOWN_SERVER_ERROR,
        ErrorCode::REQUEST_TIMED_OUT,
        ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        ErrorCode::NOT_LEADER_OR_FOLLOWER,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::KAFKA_STORAGE_ERROR,
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode::UNKNOWN_PRODUCER_ID,
        ErrorCode(9999),
    ];
    for code in after_append {
        assert_eq!(code.persistence(), Persistence::Maybe, "{code}");
    }
    let before_append = [
        ErrorCode::CORRUPT_MESSAGE,
        ErrorCode::MESSAGE_TOO_LARGE,
        ErrorCode::NOT_ENOUGH_REPLICAS,
        ErrorCode::TOPIC_AUTHORIZATION_FAILED,
        ErrorCode::INVALID_TIMESTAMP,
        ErrorCode::INVALID_PRODUCER_EPOCH,
        ErrorCode::INVALID_RECORD,
    ];
    for code in before_append {
        assert_eq!(code.persistence(), Persistence::No, "{code}");
    }
}

#[test]
fn codes_without_a_name_keep_their_number() {
    assert_eq!(ErrorCode(6).to_string(), "NOT_LEADER_OR_FOLLOWER (6)");
    assert_eq!(format!("{:?}", ErrorCode::UNKNOWN_SERVER_ERROR), "UNKNOWN_SERVER_ERROR (-1)");
    for code in [i16::MIN, -2, LAST + 1, i16::MAX] {
        let ours = ErrorCode(code);
        assert_eq!(ours.name(), None);
        assert_eq!(ours.to_string(), format!("unknown error code ({code})"));
        assert!(!ours.retriable() && !ours.refresh_metadata());
    }
}

fn screaming_snake(camel: &str) -> String {
    let mut snake = String::new();
    for letter in camel.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_uppercase());
    }
    snake
}
