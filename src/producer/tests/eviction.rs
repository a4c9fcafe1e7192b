//! What is taken from stuck partitions, and what is not.

use super::stage::{SECOND, Seen, Stage, failed, fast};
use super::*;

const ALL: fn(RecordId) -> bool = |_| true;

/// Closes the connection of a request, and lets the batch that was on it wait for its next try.
fn break_connection(stage: &mut Stage, request: &Seen) {
    stage.producer.handle_closed(stage.now, request.0);
    stage.pass(Duration::from_millis(1));
}

#[test]
fn nothing_is_taken_while_the_leader_can_be_reached() {
    let (mut stage, topic) = Stage::ready(rules(), 2);
    for _ in 0..10 {
        stage.log(topic, Some(b"key"));
    }
    assert!(stage.producer.is_deliverable(stage.now, topic));
    assert_eq!(stage.producer.evict(100, 100, ALL), (0, 0));
    assert_eq!(stage.producer.held_records(), 10);
}

#[test]
fn rng_08_the_oldest_batches_of_a_lost_leader_go_first_and_what_is_in_doubt_stays() {
    let rules = Rules { batch_records: 2, message_timeout: 60 * SECOND, ..fast() };
    let (mut stage, topic) = Stage::ready(rules, 1);
    let doubtful = stage.log(topic, None);
    let request = stage.requests().remove(0);
    assert_eq!(request.2[0].2, [doubtful]);
    // In flight, and no leader lost yet.
    assert_eq!(stage.producer.evict(1, 0, ALL), (0, 0));
    break_connection(&mut stage, &request);
    let waiting: Vec<u64> = (0..5).map(|_| stage.log(topic, None)).collect();
    assert!(!stage.producer.is_deliverable(stage.now, topic));

    assert_eq!(stage.producer.evict(3, 0, ALL), (4, 400));
    let full = failed(Reason::QueueFull, false);
    assert_eq!(stage.outcomes(), [(waiting[..2].into(), full), (waiting[2..4].into(), full)]);
    assert_eq!(stage.producer.evict(100, 0, ALL), (1, 100));
    assert_eq!(stage.outcomes(), [(waiting[4..].into(), full)]);
    assert_eq!(stage.producer.evict(100, 0, ALL), (0, 0));
    assert_eq!(stage.producer.held_records(), 1);

    // The one in doubt is sent again, alone and first.
    stage.pass(SECOND);
    assert_eq!(stage.requests()[0].2[0].2, [doubtful]);
}

#[test]
fn a_request_that_has_no_answer_yet_keeps_its_records() {
    let (mut stage, topic) = Stage::ready(fast(), 2);
    let ids: Vec<u64> = (0..50u8).map(|key| stage.log(topic, Some(&[key]))).collect();
    let requests = stage.requests();
    assert!(!requests.is_empty());
    let later = stage.log(topic, Some(b"later"));
    assert_eq!(stage.producer.evict(1000, 0, ALL), (0, 0));
    assert!(stage.outcomes().is_empty());
    assert_eq!(stage.producer.held_records(), ids.len() as u64 + 1);
    assert!(later > ids[49]);
}

#[test]
fn only_records_that_may_go_are_taken() {
    let (mut stage, topic) = Stage::ready(fast(), 1);
    stage.log(topic, None);
    let request = stage.requests().remove(0);
    break_connection(&mut stage, &request);
    let waiting: Vec<u64> = (0..6).map(|_| stage.log(topic, None)).collect();
    let even = |id: RecordId| id.0.is_multiple_of(2);
    assert_eq!(stage.producer.evict(1, 0, even).0, 3);
    let taken: Vec<u64> = waiting.into_iter().filter(|id| id % 2 == 0).collect();
    assert_eq!(stage.outcomes(), [(taken, failed(Reason::QueueFull, false))]);
}

#[test]
fn records_of_a_topic_that_no_broker_knows_are_taken_once_that_is_known() {
    let mut stage = Stage::new(rules());
    let topic = stage.producer.topic(stage.now, "t");
    let ids: Vec<u64> = (0..3).map(|_| stage.log(topic, None)).collect();
    let (boot, _) = stage.connect();
    // Nothing speaks against a connect that takes its time.
    assert!(!stage.producer.is_unknown(topic));
    assert_eq!(stage.producer.evict(10, 0, ALL), (0, 0));
    stage.connect_done(boot);
    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    stage.answer_metadata_with(boot, &[(1, "b1")], &[], unknown, 0);
    assert!(stage.producer.is_unknown(topic));
    assert_eq!(stage.producer.evict(10, 0, ALL).0, 3);
    assert_eq!(stage.outcomes(), [(ids, failed(Reason::QueueFull, false))]);
    assert_eq!(stage.producer.held_records(), 0);
}

#[test]
fn a_leader_that_nobody_tried_for_a_while_counts_as_one_that_may_be_back() {
    let (mut stage, topic) = Stage::ready(fast(), 1);
    stage.log(topic, None);
    let request = stage.requests().remove(0);
    stage.producer.handle_closed(stage.now, request.0);
    assert!(!stage.producer.is_deliverable(stage.now, topic));
    let later = stage.now + 10 * SECOND;
    assert!(stage.producer.is_deliverable(later, topic));
}
