//! Single behaviours, by example: a producer, a hand-driven clock, and answers written by hand.

use super::stage::{SECOND, Seen, Stage, failed, fast, told};
use super::*;
use crate::protocol::produce::{LeaderHint, ProducedTopic, RecordError};

#[test]
fn a_batch_is_sent_when_it_is_full_or_its_linger_is_over_or_on_flush() {
    let (mut stage, topic) = Stage::ready(Rules { batch_records: 3, ..rules() }, 1);
    let two = [stage.log(topic, None), stage.log(topic, None)];
    assert!(stage.requests().is_empty());
    let three = stage.log(topic, None);
    let requests = stage.requests();
    assert_eq!(requests[0].2, [(topic, 0, vec![two[0], two[1], three])]);
    stage.answer(&requests[0], |p| told(p, ErrorCode::NONE));
    stage.log(topic, None);
    stage.pass(SECOND);
    assert!(stage.requests().is_empty());
    stage.pass(SECOND);
    let requests = stage.requests();
    assert_eq!(requests.len(), 1);
    stage.answer(&requests[0], |p| told(p, ErrorCode::NONE));
    stage.log(topic, None);
    stage.producer.handle_flush(stage.now);
    assert_eq!(stage.requests().len(), 1);
}

#[test]
fn several_partitions_share_a_request_and_one_partition_has_one_batch_on_the_way() {
    let (mut stage, topic) = Stage::ready(fast(), 8);
    for key in 0..64u8 {
        stage.log(topic, Some(&[key]));
    }
    let requests = stage.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].2.len(), 8);
    for key in 0..64u8 {
        stage.log(topic, Some(&[key]));
    }
    assert!(stage.requests().is_empty(), "all partitions are on their way");
    stage.answer(&requests[0], |p| told(p, ErrorCode::NONE));
    assert_eq!(stage.requests().len(), 1);
}

#[test]
fn keys_choose_crc32_modulo_count_and_the_next_partition_with_a_leader() {
    let (mut stage, topic) = Stage::ready(fast(), 4);
    let key = b"some key";
    let home = crc32fast::hash(key) % 4;
    stage.log(topic, Some(key));
    let request = stage.requests().remove(0);
    assert_eq!(request.2[0].1, home);
    stage.answer(&request, |p| told(p, ErrorCode::NONE));
    let mut leaders = vec![Some(1); 4];
    leaders[home as usize] = None;
    let conn = stage.refresh();
    stage.answer_metadata_with(conn, &[(1, "b1")], &leaders, ErrorCode::NONE, 1);
    stage.log(topic, Some(key));
    assert_eq!(stage.requests()[0].2[0].1, (home + 1) % 4);
}

#[test]
fn records_without_a_key_stay_together_and_move_on_with_the_next_batch() {
    let (mut stage, topic) = Stage::ready(Rules { batch_records: 5, ..rules() }, 16);
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..20 {
        for _ in 0..5 {
            stage.log(topic, None);
        }
        for request in stage.requests() {
            assert_eq!(request.2[0].2.len(), 5);
            used.insert(request.2[0].1);
            stage.answer(&request, |p| told(p, ErrorCode::NONE));
        }
    }
    assert!(used.len() > 4, "{used:?}");
}

#[test]
fn a_moved_leader_is_followed_by_its_hint_without_counting_a_try() {
    let (mut stage, topic) = Stage::ready(Rules { max_retries: 0, ..fast() }, 1);
    let conn = stage.refresh();
    stage.answer_metadata(conn, &[(1, "b1"), (2, "b2")], &[Some(1)]);
    let id = stage.log(topic, None);
    let request = stage.requests().remove(0);
    stage.answer(&request, |p| ProducedPartition {
        current_leader: Some(LeaderHint { id: 2, epoch: 7 }),
        ..told(p, ErrorCode::NOT_LEADER_OR_FOLLOWER)
    });
    stage.pass(SECOND);
    let again = stage.requests().remove(0);
    assert_eq!(again.2, [(topic, 0, vec![id])]);
    assert_ne!(again.0, request.0, "it goes to the other broker");
}

#[test]
fn errors_that_may_pass_are_counted_and_then_final() {
    let (mut stage, topic) = Stage::ready(Rules { max_retries: 2, ..fast() }, 1);
    let id = stage.log(topic, None);
    for _ in 0..3 {
        let request = stage.requests().remove(0);
        stage.answer(&request, |p| told(p, ErrorCode::NOT_ENOUGH_REPLICAS));
        assert!(stage.requests().is_empty(), "there is a pause first");
        stage.pass(SECOND);
    }
    let reason = Reason::Broker(ErrorCode::NOT_ENOUGH_REPLICAS);
    assert_eq!(stage.outcomes(), [(vec![id], failed(reason, false))]);
}

#[test]
fn a_batch_too_large_for_the_broker_is_halved_until_only_the_large_record_fails() {
    let (mut stage, topic) = Stage::ready(Rules { batch_records: 8, ..rules() }, 1);
    let ids: Vec<u64> = (0..8).map(|_| stage.log(topic, None)).collect();
    let large = ids[5];
    let mut steps = 0;
    while let Some(request) = stage.requests().pop() {
        let too_large = request.2[0].2.contains(&large);
        let error = if too_large { ErrorCode::MESSAGE_TOO_LARGE } else { ErrorCode::NONE };
        stage.answer(&request, |p| told(p, error));
        steps += 1;
    }
    assert!(steps <= 8, "{steps}");
    let (delivered, lost): (Vec<_>, Vec<_>) =
        stage.outcomes().into_iter().partition(|(_, fate)| *fate == DELIVERED);
    let delivered: Vec<u64> = delivered.into_iter().flat_map(|(ids, _)| ids).collect();
    assert_eq!(delivered, ids.iter().copied().filter(|id| *id != large).collect::<Vec<_>>());
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].0, [large]);
}

#[test]
fn reg_02_the_parts_of_a_batch_that_was_cut_are_held_until_each_has_its_answer() {
    let (mut stage, topic) = Stage::ready(Rules { batch_records: 4, ..rules() }, 1);
    let ids: Vec<u64> = (0..4).map(|_| stage.log(topic, None)).collect();
    let whole = stage.requests().remove(0);
    stage.answer(&whole, |p| told(p, ErrorCode::MESSAGE_TOO_LARGE));
    for part in [&ids[..2], &ids[2..]] {
        let request = stage.requests().remove(0);
        assert_eq!(request.2[0].2, part);
        // Who flushes waits for as long as something is held.
        assert_eq!(stage.producer.held_records(), if part[0] == ids[0] { 4 } else { 2 });
        stage.answer(&request, |p| told(p, ErrorCode::NONE));
        assert_eq!(stage.outcomes(), [(part.to_vec(), DELIVERED)]);
    }
    assert_eq!(stage.producer.held_records(), 0);
}

#[test]
fn reg_04_an_answer_is_read_with_the_topic_s_id_as_it_was_when_it_was_asked() {
    let patient = Duration::from_secs(300);
    let rules = Rules { request_timeout: patient, message_timeout: patient, ..fast() };
    let (mut stage, topic) = Stage::ready(rules, 1);
    let id = stage.log(topic, None);
    let request = stage.requests().remove(0);
    // Meanwhile the topic is deleted and made anew.
    let conn = stage.refresh();
    let leaders = [Some(1)];
    stage.answer_metadata_of(
        Uuid::from_bytes([2; 16]),
        conn,
        &[(1, "b1")],
        &leaders,
        (ErrorCode::NONE, 0),
    );
    let answer = ProducedTopicRef::Id(Uuid::from_bytes([1; 16]));
    stage.answer_naming(answer, (&request.0, &request.1), vec![told(0, ErrorCode::NONE)]);
    assert_eq!(stage.outcomes(), [(vec![id], DELIVERED)]);
    assert!(stage.requests().is_empty());
}

#[test]
fn records_that_the_broker_names_fail_alone() {
    let (mut stage, topic) = Stage::ready(Rules { batch_records: 4, ..rules() }, 1);
    let ids: Vec<u64> = (0..4).map(|_| stage.log(topic, None)).collect();
    let request = stage.requests().remove(0);
    stage.answer(&request, |p| ProducedPartition {
        record_errors: vec![
            RecordError { batch_index: 2, message: None },
            RecordError { batch_index: 99, message: None },
            RecordError { batch_index: -1, message: None },
        ],
        ..told(p, ErrorCode::INVALID_RECORD)
    });
    let reason = Reason::Broker(ErrorCode::INVALID_RECORD);
    assert_eq!(stage.outcomes(), [(vec![ids[2]], failed(reason, false))]);
    assert_eq!(stage.requests()[0].2[0].2, [ids[0], ids[1], ids[3]]);
}

#[test]
fn a_broken_connection_leaves_the_batch_in_doubt_and_it_is_sent_again() {
    let (mut stage, topic) = Stage::ready(fast(), 1);
    let id = stage.log(topic, None);
    let request = stage.requests().remove(0);
    stage.producer.handle_closed(stage.now, request.0);
    stage.pass(SECOND);
    let again = stage.requests().remove(0);
    assert_eq!(again.2[0].2, [id]);
    stage.producer.handle_closed(stage.now, again.0);
    stage.pass(Duration::from_secs(5));
    assert_eq!(stage.outcomes(), [(vec![id], failed(Reason::TimedOut, true))]);
}

#[test]
fn an_answer_that_does_not_come_closes_the_connection() {
    let (mut stage, topic) = Stage::ready(fast(), 1);
    stage.log(topic, None);
    let request = stage.requests().remove(0);
    stage.pass(Duration::from_millis(5_400));
    assert!(stage.actions().is_empty());
    stage.pass(Duration::from_millis(200));
    let closed = Action::Close { conn: request.0, reason: CloseReason::RequestTimeout };
    assert!(stage.actions().contains(&closed));
    // The answer of the closed connection changes nothing any more.
    stage.answer(&request, |p| told(p, ErrorCode::NONE));
    assert!(stage.outcomes().iter().all(|(_, fate)| *fate != DELIVERED));
}

#[test]
fn success_without_an_offset_and_a_missing_partition_are_no_success() {
    let (mut stage, topic) = Stage::ready(fast(), 1);
    let id = stage.log(topic, None);
    let request = stage.requests().remove(0);
    stage.answer(&request, |p| ProducedPartition { base_offset: -1, ..told(p, ErrorCode::NONE) });
    stage.pass(SECOND);
    let request = stage.requests().remove(0);
    stage.answer(&request, |p| told(p + 1, ErrorCode::NONE));
    stage.pass(SECOND);
    assert!(stage.outcomes().is_empty());
    let request = stage.requests().remove(0);
    stage.answer(&request, |p| told(p, ErrorCode::NONE));
    assert_eq!(stage.outcomes(), [(vec![id], DELIVERED)]);
}

#[test]
fn a_known_topic_that_vanishes_for_a_while_keeps_its_records_and_leaders() {
    let (mut stage, topic) = Stage::ready(fast(), 2);
    let conn = stage.refresh();
    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    stage.answer_metadata_with(conn, &[(1, "b1")], &[], unknown, 0);
    let id = stage.log(topic, None);
    assert_eq!(stage.requests()[0].2[0].2, [id]);
}

#[test]
fn an_older_epoch_does_not_bring_an_earlier_leader_back() {
    let (mut stage, topic) = Stage::ready(fast(), 1);
    for (leader, epoch) in [(2, 5), (1, 4)] {
        let conn = stage.refresh();
        let brokers = [(1, "b1"), (2, "b2")];
        stage.answer_metadata_with(conn, &brokers, &[Some(leader)], ErrorCode::NONE, epoch);
    }
    stage.log(topic, None);
    let request = stage.requests().remove(0);
    assert_eq!(stage.producer.brokers.connections[&request.0], 2);
}

#[test]
fn an_unknown_topic_fails_by_that_name_and_an_unauthorized_one_at_once() {
    let mut stage = Stage::new(rules());
    let topic = stage.producer.topic(stage.now, "t");
    let id = stage.log(topic, None);
    let (conn, _) = stage.connect();
    stage.connect_done(conn);
    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    stage.answer_metadata_with(conn, &[(1, "b1")], &[], unknown, 0);
    stage.pass(Duration::from_secs(5));
    assert_eq!(stage.outcomes(), [(vec![id], failed(Reason::TopicUnknown, false))]);

    let mut stage = Stage::new(rules());
    let topic = stage.producer.topic(stage.now, "t");
    let id = stage.log(topic, None);
    let (conn, _) = stage.connect();
    stage.connect_done(conn);
    let denied = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    stage.answer_metadata_with(conn, &[(1, "b1")], &[], denied, 0);
    assert_eq!(stage.outcomes(), [(vec![id], failed(Reason::Broker(denied), false))]);
}

#[test]
fn flt_19_a_topic_is_called_unknown_once_it_has_been_for_a_while() {
    let (none, unknown) = (ErrorCode::NONE, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let answer = |stage: &mut Stage, conn, error| {
        let leaders: &[_] = if error == none { &[Some(1)] } else { &[] };
        stage.answer_metadata_with(conn, &[(1, "b1")], leaders, error, 0);
        std::iter::from_fn(|| stage.producer.poll_notice()).collect::<Vec<_>>()
    };
    // A message waits for its topic; the first answer does not know it, and says nothing yet.
    let start = || {
        let mut stage = Stage::new(Rules { message_timeout: 60 * SECOND, ..fast() });
        let topic = stage.producer.topic(stage.now, "t");
        stage.log(topic, None);
        let (conn, _) = stage.connect();
        stage.connect_done(conn);
        assert_eq!(answer(&mut stage, conn, unknown), []);
        (stage, topic)
    };
    let asked_after = |stage: &mut Stage, pause: Duration, error| {
        let conn = stage.refresh_after(pause);
        answer(stage, conn, error)
    };
    // The broker makes it, and a moment later knows it.
    let (mut stage, _) = start();
    assert_eq!(asked_after(&mut stage, 2 * SECOND, unknown), []);
    assert_eq!(asked_after(&mut stage, 2 * SECOND, none), []);

    let (mut stage, topic) = start();
    let news = |error| [Notice::TopicError { topic, error }];
    assert_eq!(asked_after(&mut stage, 3 * SECOND, unknown), news(unknown));
    assert_eq!(asked_after(&mut stage, 2 * SECOND, unknown), [], "it was said");
    // Any other error is said at once.
    let invalid = ErrorCode::INVALID_REPLICATION_FACTOR;
    assert_eq!(asked_after(&mut stage, 2 * SECOND, invalid), news(invalid));
    assert_eq!(asked_after(&mut stage, 2 * SECOND, unknown), [], "its time begins anew");
    assert_eq!(asked_after(&mut stage, 3 * SECOND, unknown), news(unknown));
}

#[test]
fn throttling_is_obeyed_and_capped() {
    let (mut stage, topic) = Stage::ready(fast(), 2);
    stage.log(topic, Some(b"a"));
    let request = stage.requests().remove(0);
    let response = ProduceResponse {
        throttle_ms: i32::MAX,
        topics: vec![ProducedTopic {
            topic: ProducedTopicRef::Name("t".into()),
            partitions: vec![told(request.2[0].1, ErrorCode::NONE)],
        }],
        node_endpoints: Vec::new(),
    };
    stage.producer.handle_produced(stage.now, request.0, request.1, &response);
    stage.pass(Duration::from_secs(596));
    stage.log(topic, Some(b"a"));
    assert!(stage.requests().is_empty());
    stage.pass(Duration::from_secs(4));
    assert_eq!(stage.requests().len(), 1);
}

/// An answer to one partition's batch that imposes a pause.
fn throttled(request: &Seen, pause: Duration) -> ProduceResponse {
    ProduceResponse {
        throttle_ms: pause.as_millis() as i32,
        topics: vec![ProducedTopic {
            topic: ProducedTopicRef::Name("t".into()),
            partitions: vec![told(request.2[0].1, ErrorCode::NONE)],
        }],
        node_endpoints: Vec::new(),
    }
}

#[test]
fn brk_10_a_pause_for_a_quota_does_not_count_against_requests_in_flight() {
    let rules = Rules { message_timeout: 300 * SECOND, ..fast() };
    let (mut stage, topic) = Stage::ready(rules, 4);
    let mut requests: Vec<Seen> = Vec::new();
    for key in 0..=u8::MAX {
        stage.log(topic, Some(&[key]));
        requests.extend(stage.requests());
    }
    assert_eq!(requests.len(), 4, "one for each partition");
    let pause = 9 * SECOND;
    for (n, request) in requests.iter().enumerate() {
        let throttled = throttled(request, pause);
        stage.producer.handle_produced(stage.now, request.0, request.1, &throttled);
        assert!(matches!(stage.outcomes()[..], [(_, DELIVERED)]), "request {n}");
        let said = stage.producer.poll_notice();
        assert!(
            matches!(said, Some(Notice::Throttled { broker: 1, pause: told, .. }) if told == pause)
        );
        // What follows is not read before the pause is over, and the answer takes its usual time then.
        stage.pass(pause - SECOND);
        assert!(stage.actions().is_empty(), "nothing is sent meanwhile, and nothing closed");
        stage.pass(2 * SECOND);
        // While the rest is still in flight nothing is added to it.
        assert_eq!(stage.actions().len(), usize::from(n == 3));
    }
    assert_eq!(stage.producer.counts().throttled_ms, 36_000);
}

#[test]
fn a_broker_that_keeps_failing_rests_unless_it_is_the_last_hope() {
    let boot = |host: &str| HostPort { host: host.into(), port: 9092 };
    let two = Rules { bootstrap: vec![boot("x"), boot("y")], conn_retry_limit: 2, ..rules() };
    let mut stage = Stage::new(two);
    stage.producer.topic(stage.now, "t");
    let mut tries = std::collections::BTreeMap::new();
    // One of the two never lets anybody in, the other one always breaks after that.
    for _ in 0..400 {
        for action in stage.actions() {
            if let Action::Connect { conn, broker, .. } = action {
                *tries.entry(broker).or_insert(0) += 1;
                stage.producer.handle_closed(stage.now, conn);
            }
        }
        stage.pass(Duration::from_millis(50));
    }
    assert!(tries.values().all(|count| *count >= 5), "both are the last hope: {tries:?}");

    let (mut stage, _) = Stage::ready(Rules { conn_retry_limit: 2, ..fast() }, 1);
    stage.producer.brokers.known.insert(-2, broker::Broker::new(boot("dead")));
    stage.producer.brokers.known.get_mut(&1).expect("known").backoff.failures = 1;
    let mut dead = 0;
    for _ in 0..200 {
        stage.producer.want_metadata(stage.now);
        for action in stage.actions() {
            if let Action::Connect { conn, broker, .. } = action {
                dead += i32::from(broker == -2);
                if broker == -2 {
                    stage.producer.handle_closed(stage.now, conn);
                }
            }
        }
        stage.pass(Duration::from_millis(50));
    }
    assert!(dead <= 3, "{dead} attempts in 10 s, with others to try");
    let told =
        std::iter::from_fn(|| stage.producer.poll_notice()).find_map(|notice| match notice {
            Notice::BrokerRests { attempts, pause, .. } => Some((attempts, pause)),
            _ => None,
        });
    assert_eq!(told, Some((2, fast().conn_rest)));
}

#[test]
fn a_broker_that_does_not_let_us_in_is_tried_again_after_a_longer_pause() {
    let attempts = |refuses: bool| {
        let mut stage = Stage::new(Rules { conn_retry_limit: u32::MAX, ..rules() });
        stage.producer.topic(stage.now, "t");
        let mut attempts = 0;
        for _ in 0..1200 {
            for action in stage.actions() {
                if let Action::Connect { conn, .. } = action {
                    attempts += 1;
                    match refuses {
                        true => stage.producer.handle_refused(stage.now, conn),
                        false => stage.producer.handle_closed(stage.now, conn),
                    }
                }
            }
            stage.pass(Duration::from_millis(50));
        }
        attempts
    };
    let (closed, refused) = (attempts(false), attempts(true));
    assert!(closed >= 5 * refused && refused >= 5, "in a minute: {closed}, {refused}");
}

#[test]
fn connections_to_brokers_that_left_are_closed_once_they_are_idle() {
    let (mut stage, topic) = Stage::ready(fast(), 1);
    stage.log(topic, None);
    let request = stage.requests().remove(0);
    stage.pass(Duration::from_secs(1));
    stage.producer.want_metadata(stage.now);
    let asked = stage.metadata_asked();
    stage.answer_metadata_with(asked[0], &[(2, "b2")], &[Some(2)], ErrorCode::NONE, 1);
    assert!(!stage.actions().iter().any(|action| matches!(action, Action::Close { .. })));
    stage.answer(&request, |p| told(p, ErrorCode::NONE));
    assert!(matches!(stage.outcomes()[..], [(_, DELIVERED)]));
    let closed = Action::Close { conn: request.0, reason: CloseReason::NotNeeded };
    assert!(stage.actions().contains(&closed));
}

#[test]
fn a_partition_whose_closed_batch_was_evicted_is_sent_when_the_next_one_has_lingered() {
    let message_timeout = 100 * SECOND;
    let (mut stage, topic) =
        Stage::ready(Rules { batch_records: 2, message_timeout, ..rules() }, 1);
    for _ in 0..2 {
        stage.log(topic, None);
    }
    let (conn, _) = stage.connect();
    stage.producer.handle_closed(stage.now, conn);
    // The linger of the first one is over: from here on its expiry alone is looked after.
    stage.pass(3 * SECOND);
    let left = stage.log(topic, None);
    assert_eq!(stage.producer.evict(2, 0, |_| true).0, 2);
    stage.outcomes();
    // Metadata is not answered: nothing but its linger is there to remind of it.
    stage.pass(SECOND / 2);
    let sent_at = |stage: &mut Stage| {
        stage.requests().into_iter().flat_map(|seen| seen.2).map(|(.., ids)| ids).next()
    };
    assert_eq!(sent_at(&mut stage), None);
    stage.pass(2 * SECOND);
    assert_eq!(sent_at(&mut stage), Some(vec![left]));
}

#[test]
fn a_batch_may_be_larger_than_what_is_put_together_into_a_request() {
    let rules = Rules { batch_records: 100, batch_bytes: 4_000_000, ..fast() };
    let (mut stage, topic) = Stage::ready(rules, 1);
    for number in 0..30 {
        let (id, born) = (RecordId(number), stage.now);
        let record = Record { id, key_hash: None, partition: Some(0), bytes: 100_000, born };
        stage.producer.handle_record(stage.now, NewRecord { topic, record });
    }
    stage.producer.handle_flush(stage.now);
    let (conn, _) = stage.connect();
    stage.producer.handle_connected(stage.now, conn);
    let requests = stage.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].2[0].2.len(), 30, "nobody has hung up");
}
