//! What the producer makes of the sizes that compression leaves.

use super::stage::{SECOND, Stage, fast, told};
use super::*;
use crate::protocol::record_batch::BATCH_OVERHEAD;

/// Hands in 200 records of 1,000 bytes, of which compression leaves `left` each, and answers what is sent, a batch of more
/// than `most` records as too large; returns how many were in the largest batch.
fn largest_batch(stage: &mut Stage, topic: TopicId, left: usize, most: usize) -> usize {
    for _ in 0..200 {
        stage.log_sized(topic, None, 1000);
    }
    stage.producer.handle_flush(stage.now);
    let mut largest = 0;
    while let Some(request) = stage.requests().pop() {
        let records = request.2[0].2.len();
        let size = BATCH_OVERHEAD + records * left;
        stage.producer.handle_encoded(stage.now, request.0, request.1, &[size]);
        let is_too_large = records > most;
        let error = if is_too_large { ErrorCode::MESSAGE_TOO_LARGE } else { ErrorCode::NONE };
        stage.answer(&request, |p| told(p, error));
        largest = largest.max(records);
    }
    largest
}

#[test]
fn compression_makes_batches_larger_and_not_requests_smaller() {
    let rules = Rules { batch_records: 1000, batch_bytes: 10_000, ..fast() };
    let (mut stage, topic) = Stage::ready(rules, 1);
    assert_eq!(largest_batch(&mut stage, topic, 200, usize::MAX), 9);
    let largest = (0..50).map(|_| largest_batch(&mut stage, topic, 200, usize::MAX)).max();
    // A fifth of each is left, and a twentieth more than that is expected.
    assert_eq!(largest, Some(47));
}

#[test]
fn nothing_is_expected_of_compression_after_a_batch_that_was_too_large() {
    let rules = Rules { batch_records: 1000, batch_bytes: 10_000, ..fast() };
    let (mut stage, topic) = Stage::ready(rules, 1);
    let largest = (0..50).map(|_| largest_batch(&mut stage, topic, 100, usize::MAX)).max();
    assert_eq!(largest, Some(94));
    largest_batch(&mut stage, topic, 100, 50);
    assert!((9..12).contains(&largest_batch(&mut stage, topic, 100, usize::MAX)));
}

#[test]
fn nothing_is_expected_of_compression_where_nobody_says_that_a_batch_is_too_large() {
    let rules = Rules { batch_records: 1000, batch_bytes: 10_000, acks: 0, ..fast() };
    let (mut stage, topic) = Stage::ready(rules, 1);
    for _ in 0..50 {
        (0..100).for_each(|_| {
            stage.log_sized(topic, None, 1000);
        });
        while let Some((conn, request, batches)) = stage.requests().pop() {
            let records = batches[0].2.len();
            assert!(records < 10);
            let size = BATCH_OVERHEAD + records * 100;
            stage.producer.handle_encoded(stage.now, conn, request, &[size]);
            stage.producer.handle_written(stage.now, conn, request);
        }
    }
}

#[test]
fn the_time_for_an_answer_begins_when_compression_has_ended() {
    let (mut stage, topic) = Stage::ready(Rules { batch_records: 1, ..rules() }, 1);
    stage.log(topic, None);
    let (conn, request, _) = stage.requests().remove(0);
    // The loop compresses, and looks at no timer meanwhile.
    stage.now = stage.now + 10 * SECOND;
    stage.producer.handle_encoded(stage.now, conn, request, &[100]);
    stage.producer.handle_timeout(stage.now);
    let closed = |stage: &mut Stage| {
        stage.actions().iter().any(|action| matches!(action, Action::Close { .. }))
    };
    assert!(!closed(&mut stage));
    stage.pass(4 * SECOND);
    assert!(!closed(&mut stage));
    stage.pass(2 * SECOND);
    assert!(closed(&mut stage));
}
