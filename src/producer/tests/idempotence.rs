//! Idempotence by example. The names begin with the fault's number in docs/testing.md, where it has one.

use super::scene::{Broker, DEAD, OnWay, Scene, Told, idempotent, stamp, stamps};
use super::stage::{SECOND, Stage, failed, fast, told};
use super::*;
use crate::protocol::init_producer_id::InitProducerIdResponse;
use crate::protocol::produce::{ProducedTopic, RecordError};
use crate::protocol::sequence::advance;

#[test]
fn idm_01_after_a_lost_acknowledgement_the_same_batch_is_sent_and_a_double_is_success() {
    for error in [ErrorCode::NONE, ErrorCode::DUPLICATE_SEQUENCE_NUMBER] {
        let mut scene = Scene::warm(idempotent());
        let id = scene.log();
        let first = scene.sent().remove(0);
        let again = scene.cut(&first).remove(0);
        assert_eq!((&again.2, &again.3), (&Some(stamp(100, 0, 1)), &vec![id]));
        scene.answer(&again, error);
        assert_eq!(scene.outcomes(), [(vec![id], DELIVERED)]);
        assert_eq!(scene.resent_in_doubt(), 0);
    }
}

#[test]
fn brk_19_what_a_broker_hangs_up_on_is_sent_in_smaller_requests_and_that_is_said_once() {
    const LIMIT: usize = 26_000;
    for mode in [Idempotence::Required, Idempotence::Off] {
        let acks = if mode == Idempotence::Off { 1 } else { -1 };
        let linger = SECOND;
        let rules = Rules { idempotence: mode, acks, linger, batch_records: 1000, ..idempotent() };
        let (mut scene, mut broker) = (Scene::new(rules), Broker::new());
        let expected: Vec<u64> = (0..400).map(|_| scene.log()).collect();
        let begin = scene.stage.now;
        let mut sent = scene.wait(SECOND);
        let (mut delivered, mut hang_ups) = (Vec::new(), 0);
        while delivered.len() < expected.len() {
            assert!(scene.stage.now < begin + 10 * SECOND, "{} are delivered", delivered.len());
            for on_way in std::mem::take(&mut sent) {
                if on_way.3.len() * 100 > LIMIT {
                    hang_ups += 1;
                    scene.stage.producer.handle_closed(scene.stage.now, on_way.0);
                } else {
                    let told = broker.take(&on_way);
                    scene.answer_with(&on_way, told);
                }
            }
            for (ids, delivery) in scene.outcomes() {
                assert_eq!(delivery, DELIVERED);
                delivered.extend(ids);
            }
            sent.extend(scene.wait(SECOND / 10));
        }
        assert_eq!((&delivered, &broker.log()), (&expected, &expected), "{mode:?}");
        let notices = std::iter::from_fn(|| scene.stage.producer.poll_notice());
        assert_eq!(notices.filter(|said| matches!(said, Notice::HungUp { .. })).count(), 1);
        assert_eq!(hang_ups, 2);
    }
}

#[test]
fn brk_19_a_part_that_is_out_of_order_is_in_the_log_with_the_whole() {
    let mut scene = Scene::new(Rules { batch_records: 4, ..idempotent() });
    let mut broker = Broker::new();
    let mut expected: Vec<u64> = (0..8).map(|_| scene.log()).collect();
    let first = scene.sent();
    let told = broker.take(&first[0]);
    scene.answer_with(&first[0], told);
    let mut sent = scene.sent();
    // The second batch is appended and its answer lost; then the limit is lowered below its size.
    broker.take(&sent[0]);
    for _ in 0..2 {
        sent = scene.cut(&sent[0]);
    }
    assert_eq!((sent[0].3.len(), stamps(&sent)), (1, vec![stamp(100, 0, 4)]), "a part goes alone");
    expected.push(scene.log());
    scene.stage.producer.handle_flush(scene.stage.now);
    let delivered = scene.finish(&mut broker, sent);
    assert_eq!((&delivered, &broker.log()), (&expected, &expected));
    assert_eq!(scene.resent_in_doubt(), 0);
}

#[test]
fn brk_19_what_even_alone_is_hung_up_on_fails_in_doubt_while_others_pass() {
    let mut scene = Scene::new(Rules { message_timeout: 600 * SECOND, ..idempotent() });
    let (stage, topic) = Stage::ready(Rules { message_timeout: 600 * SECOND, ..fast() }, 2);
    (scene.stage, scene.topic) = (stage, topic);
    let large = {
        let (now, id, partition) = (scene.stage.now, RecordId(5000), Some(0));
        let record = Record { id, key_hash: None, partition, bytes: 5_000, born: now };
        scene.stage.producer.handle_record(now, NewRecord { topic, record });
        id.0
    };
    let (mut given_up, mut small) = (Vec::new(), 0);
    for _ in 0..100 {
        let now = scene.stage.now;
        let id = RecordId(small);
        let record = Record { id, key_hash: None, partition: Some(1), bytes: 100, born: now };
        scene.stage.producer.handle_record(now, NewRecord { topic, record });
        small += 1;
        for request in scene.stage.requests() {
            let is_large = request.2.iter().any(|(.., ids)| ids.contains(&large));
            match is_large {
                true => scene.stage.producer.handle_closed(scene.stage.now, request.0),
                false => scene.stage.answer(&request, |p| told(p, ErrorCode::NONE)),
            }
        }
        let outcomes = scene.stage.outcomes();
        given_up.extend(outcomes.into_iter().filter(|(_, delivery)| *delivery != DELIVERED));
        scene.stage.pass(SECOND);
    }
    assert_eq!(given_up, [(vec![large], failed(Reason::HungUp, true))]);
}

#[test]
fn each_record_s_offset_is_known_unless_the_broker_dropped_a_duplicate() {
    let mut scene = Scene::warm(Rules { batch_records: 2, ..idempotent() });
    for (error, expected) in [
        (ErrorCode::NONE, [Some(7), Some(8)]),
        (ErrorCode::DUPLICATE_SEQUENCE_NUMBER, [None, None]),
    ] {
        let ids = [scene.log(), scene.log()].map(RecordId);
        let sent = scene.sent();
        let told = Told { base_offset: 7, log_append_time_ms: 1_000, ..told(0, error) };
        scene.answer_with(&sent[0], told);
        let outcome = scene.stage.producer.poll_outcome().expect("an outcome");
        assert_eq!([outcome.records[0].id, outcome.records[1].id], ids);
        assert_eq!([outcome.offset(0), outcome.offset(1)], expected);
        let log_append_time_ms = expected[0].map(|_| 1_000);
        let base_offset = expected[0];
        assert_eq!(outcome.delivery, Delivery::Delivered { base_offset, log_append_time_ms });
    }
}

#[test]
fn the_id_for_which_the_bootstrap_connection_closed_too_soon_is_asked_for_without_a_pause() {
    // Metadata came first, and the broker that it named gets the first message at the same moment.
    let mut scene = Scene::new(idempotent());
    let (begin, id) = (scene.stage.now, scene.log());
    let sent = scene.sent();
    assert_eq!((stamps(&sent), &sent[0].3), (vec![stamp(100, 0, 0)], &vec![id]));
    assert_eq!(scene.stage.now, begin);
}

/// A first record that the broker has acknowledged, and then `count` batches of one record on their way: the scene,
/// the broker, the ids of all, and the batches.
fn on_their_way(count: usize) -> (Scene, Broker, Vec<u64>, Vec<OnWay>) {
    let (mut scene, mut broker) = (Scene::new(idempotent()), Broker::new());
    let mut ids = vec![scene.log()];
    let first = scene.sent();
    let told = broker.take(&first[0]);
    scene.answer_with(&first[0], told);
    ids.extend((0..count).map(|_| scene.log()));
    let sent = scene.sent();
    assert_eq!(sent.len(), count);
    (scene, broker, ids, sent)
}

#[test]
fn idm_02_up_to_five_in_doubt_survive_errors_before_and_after() {
    for in_doubt in 1..=5 {
        let (mut scene, mut broker, expected, sent) = on_their_way(in_doubt);
        // All but the last one arrive, and no answer comes back.
        for sent in &sent[..in_doubt - 1] {
            broker.take(sent);
        }
        let again = scene.cut(&sent[0]);
        scene.answer(&again[0], ErrorCode::NOT_ENOUGH_REPLICAS);
        let again = scene.wait(SECOND);
        let delivered = scene.finish(&mut broker, again);
        assert_eq!((delivered, broker.log()), (expected.clone(), expected));
        assert_eq!(scene.resent_in_doubt(), 0);
    }
}

/// All orders of `0..count`.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(count - 1);
    let with_last = shorter.iter().flat_map(|order| {
        (0..count).map(move |place| {
            let mut order = order.clone();
            order.insert(place, count - 1);
            order
        })
    });
    with_last.collect()
}

#[test]
fn idm_03_five_in_flight_survive_an_error_for_any_of_them_answered_in_any_order() {
    const BEFORE: [ErrorCode; 2] =
        [ErrorCode::NOT_ENOUGH_REPLICAS, ErrorCode::NOT_LEADER_OR_FOLLOWER];
    const AFTER: [ErrorCode; 2] =
        [ErrorCode::REQUEST_TIMED_OUT, ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND];
    let orders = orders(5);
    assert_eq!(orders.len(), 120);
    for order in orders {
        for victim in 0..5 {
            for error in BEFORE.iter().chain(&AFTER) {
                let (mut scene, mut broker, expected, sent) = on_their_way(5);
                let answers: Vec<Told> = (0..5)
                    .map(|index| match index == victim {
                        true if BEFORE.contains(error) => told(0, *error),
                        true => {
                            broker.take(&sent[index]);
                            told(0, *error)
                        }
                        false => broker.take(&sent[index]),
                    })
                    .collect();
                for index in &order {
                    scene.answer_with(&sent[*index], answers[*index].clone());
                }
                let again = scene.wait(SECOND);
                let mut delivered = scene.finish(&mut broker, again);
                delivered.sort();
                assert_eq!(delivered, expected[..], "{order:?} {victim} {error}");
                assert_eq!(broker.log(), expected, "{order:?} {victim} {error}");
            }
        }
    }
}

#[test]
fn idm_04_what_was_never_sent_expires_without_a_gap_and_what_is_in_doubt_does_not_expire() {
    let mut scene = Scene::warm(idempotent());
    let in_doubt = scene.log();
    let sent = scene.sent();
    let again = scene.cut(&sent[0]).remove(0);
    let late = scene.log();
    // On its way, it does not expire; what waits behind it does.
    let none = scene.wait(Duration::from_secs(4));
    assert!(none.is_empty());
    let mut again = scene.cut(&again).remove(0);
    for _ in 0..4 {
        let mut next = scene.cut(&again);
        while next.is_empty() {
            next = scene.wait(SECOND / 10);
        }
        again = next.remove(0);
    }
    assert!(scene.wait(Duration::from_secs(4)).is_empty());
    assert_eq!(scene.outcomes(), [(vec![late], failed(Reason::TimedOut, false))]);
    scene.answer(&again, ErrorCode::NONE);
    assert_eq!(scene.outcomes(), [(vec![in_doubt], DELIVERED)]);
    scene.log();
    assert_eq!(stamps(&scene.sent()), [stamp(100, 0, 2)], "no number was left out");
}

#[test]
fn idm_04_numbers_of_a_batch_that_was_refused_for_good_are_followed_by_an_epoch() {
    let mut scene = Scene::warm(idempotent());
    let ids = [scene.log(), scene.log()];
    let sent = scene.sent();
    scene.answer(&sent[0], ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    scene.answer(&sent[1], ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    let reason = Reason::Broker(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    assert_eq!(scene.outcomes(), [(vec![ids[0]], failed(reason, false))]);
    let again = scene.wait(SECOND);
    assert_eq!(stamps(&again), [stamp(100, 1, 0)]);
    scene.answer(&again[0], ErrorCode::NONE);
    assert_eq!(scene.outcomes(), [(vec![ids[1]], DELIVERED)]);
    assert_eq!(scene.resent_in_doubt(), 0);
}

#[test]
fn idm_04_a_batch_in_doubt_that_is_refused_for_good_is_given_up_in_doubt_when_its_time_is_over() {
    // As is one that a dead worker had on its way, or its partition would never be served again.
    for of_dead in [false, true] {
        let mut scene = Scene::warm(idempotent());
        let mut again = if of_dead {
            scene.repeat(stamp(DEAD, 0, 7), &[1000]);
            scene.sent()
        } else {
            scene.log();
            let sent = scene.sent();
            scene.cut(&sent[0])
        };
        let refused = again[0].3.clone();
        let (mut times, mut given_up) = (0, Vec::new());
        while given_up.is_empty() {
            let told = Told { record_errors: Vec::new(), ..told(0, ErrorCode::INVALID_RECORD) };
            scene.answer_with(&again[0], told);
            given_up = scene.outcomes();
            again = scene.wait(2 * SECOND);
            times += 1;
            assert!(times < 20, "it is never given up");
        }
        assert!(times > 3, "it was given up after {times} times");
        let reason = Reason::Broker(ErrorCode::INVALID_RECORD);
        assert_eq!(given_up, [(refused, failed(reason, true))]);
        let next = scene.log();
        let sent = scene.sent();
        assert_eq!(sent[0].3, [next]);
    }
}

#[test]
fn idm_04_a_batch_in_doubt_is_not_cut_in_two() {
    let message_timeout = Duration::from_secs(60);
    let mut scene = Scene::warm(Rules { batch_records: 2, message_timeout, ..idempotent() });
    let ids = vec![scene.log(), scene.log()];
    let sent = scene.sent();
    let mut again = scene.cut(&sent[0]);
    let mut times = 0;
    while let Some(again_whole) = again.first() {
        assert_eq!((&again_whole.2, &again_whole.3), (&sent[0].2, &ids));
        scene.answer(again_whole, ErrorCode::MESSAGE_TOO_LARGE);
        again = scene.wait(2 * SECOND);
        times += 1;
        assert!(times < 100, "it is never given up");
    }
    assert!(times > 10, "it was given up after {times} times");
    let reason = Reason::Broker(ErrorCode::MESSAGE_TOO_LARGE);
    assert_eq!(scene.outcomes(), [(ids, failed(reason, true))]);
}

#[test]
fn idm_04_what_waits_for_a_restart_does_not_hold_up_the_question_that_the_restart_waits_for() {
    let (mut scene, mut broker, mut ids, mut sent) = on_their_way(1);
    let end_of_first = scene.stage.now + idempotent().message_timeout;
    assert!(scene.wait(SECOND * 9 / 10).is_empty());
    ids.extend([scene.log(), scene.log()]);
    sent.extend(scene.sent());
    // In doubt, refused, in doubt; and the first of them, which is the oldest, is given up.
    for (sent, error) in sent.iter().zip([
        ErrorCode::REQUEST_TIMED_OUT,
        ErrorCode::NOT_ENOUGH_REPLICAS,
        ErrorCode::REQUEST_TIMED_OUT,
    ]) {
        scene.answer(sent, error);
    }
    scene.outcomes();
    let mut again = Vec::new();
    while scene.stage.now < end_of_first {
        again.extend(scene.wait(SECOND / 10));
        if scene.stage.now + 2 * SECOND < end_of_first {
            again.drain(..).for_each(|sent| scene.answer(&sent, ErrorCode::REQUEST_TIMED_OUT));
        }
    }
    assert_eq!((again.len(), &again[0].3), (1, &vec![ids[1]]));
    scene.answer(&again[0], ErrorCode::INVALID_RECORD);
    let reason = Reason::Broker(ErrorCode::INVALID_RECORD);
    assert_eq!(scene.outcomes(), [(vec![ids[1]], failed(reason, true))]);
    let asked = scene.sent();
    assert_eq!((asked.len(), &asked[0].3), (1, &vec![ids[3]]));
    assert_eq!(scene.finish(&mut broker, asked), ids[2..]);
    assert_eq!(broker.log(), [ids[0], ids[2], ids[3]]);
    assert_eq!(scene.resent_in_doubt(), 0);
}

#[test]
fn an_id_for_which_a_throttled_broker_cannot_be_asked_is_asked_for_later() {
    let mut scene = Scene::warm(idempotent());
    scene.log();
    let sent = scene.sent();
    let topics = vec![ProducedTopic {
        topic: ProducedTopicRef::Name("t".into()),
        partitions: vec![told(0, ErrorCode::INVALID_PRODUCER_EPOCH)],
    }];
    let response = ProduceResponse { throttle_ms: 3_000, topics, node_endpoints: Vec::new() };
    let (conn, request, ..) = sent[0];
    scene.stage.producer.handle_produced(scene.stage.now, conn, request, &response);
    assert!(scene.wait(SECOND).is_empty(), "it is throttled");
    assert_eq!(stamps(&scene.wait(4 * SECOND)), [stamp(101, 0, 0)]);
}

#[test]
fn idm_05_after_the_broker_forgot_us_nothing_is_lost_and_what_may_be_doubled_is_said() {
    for answered in [true, false] {
        let mut scene = Scene::warm(idempotent());
        let id = scene.log();
        let mut sent = scene.sent();
        if !answered {
            sent = scene.cut(&sent[0]);
        }
        scene.answer(&sent[0], ErrorCode::UNKNOWN_PRODUCER_ID);
        let again = scene.wait(SECOND);
        assert_eq!(stamps(&again), [stamp(100, 1, 0)]);
        scene.answer(&again[0], ErrorCode::NONE);
        assert_eq!(scene.outcomes(), [(vec![id], DELIVERED)]);
        assert_eq!(scene.resent_in_doubt(), u64::from(!answered));
    }
}

#[test]
fn idm_05_after_a_pause_in_which_the_broker_may_have_forgotten_us_one_batch_goes_ahead() {
    let mut scene = Scene::warm(idempotent());
    scene.wait(SECOND);
    for _ in 0..3 {
        scene.log();
    }
    let sent = scene.sent();
    assert_eq!(sent.len(), 1);
    scene.answer(&sent[0], ErrorCode::NONE);
    assert_eq!(scene.sent().len(), 2);
}

#[test]
fn idm_05_an_epoch_that_is_fenced_is_followed_by_another_id() {
    for error in [ErrorCode::INVALID_PRODUCER_EPOCH, ErrorCode::INVALID_PRODUCER_ID_MAPPING] {
        let mut scene = Scene::warm(idempotent());
        scene.log();
        let sent = scene.sent();
        scene.answer(&sent[0], error);
        assert_eq!(stamps(&scene.wait(SECOND)), [stamp(101, 0, 0)]);
    }
}

#[test]
fn idm_06_numbers_go_around_and_the_last_epoch_is_followed_by_another_id() {
    let mut scene = Scene::new(Rules { batch_records: 3, ..idempotent() });
    scene.stage.producer.begin_sequences_at(i32::MAX - 1);
    scene.epoch = i16::MAX;
    let mut broker = Broker::new();
    let mut expected: Vec<u64> = (0..9).map(|_| scene.log()).collect();
    let sent = scene.sent();
    assert_eq!(stamps(&sent), [stamp(100, i16::MAX, i32::MAX - 1)]);
    let told = broker.take(&sent[0]);
    scene.answer_with(&sent[0], told);
    let sent = scene.sent();
    assert_eq!(stamps(&sent), [stamp(100, i16::MAX, 1), stamp(100, i16::MAX, 4)]);
    // The first is refused for good, and the other has no number any more.
    scene.stage.producer.begin_sequences_at(0);
    scene.answer(&sent[0], ErrorCode::INVALID_RECORD);
    scene.answer(&sent[1], ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    expected.drain(3..6);
    scene.outcomes();
    let again = scene.wait(SECOND);
    assert_eq!(stamps(&again), [stamp(101, i16::MAX, 0)]);
    assert_eq!(scene.finish(&mut broker, again), expected[3..]);
    assert_eq!(broker.log(), expected);
}

#[test]
fn idm_08_an_adopter_doubles_nothing_while_the_dead_worker_s_bytes_still_travel() {
    let batches: [(i32, &[u64]); 3] = [(0, &[1000, 1001]), (2, &[1002]), (3, &[1003, 1004])];
    let expected: Vec<u64> = (1000..1005).collect();
    let way = |(base, ids): (i32, &[u64])| {
        (ConnId(0), RequestId(0), Some(stamp(DEAD, 0, base)), ids.to_vec())
    };
    // So many arrive before the adopter begins, and so many of the others after each answer that it gets.
    for before in 0..=3 {
        for after_each in 0..=2 {
            let (mut scene, mut broker) = (Scene::new(idempotent()), Broker::new());
            let mut travelling = batches.iter().copied().map(way);
            for late in travelling.by_ref().take(before) {
                broker.take(&late);
            }
            for (base, ids) in batches {
                scene.repeat(stamp(DEAD, 0, base), ids);
            }
            let mut delivered = Vec::new();
            let mut sent = scene.sent();
            while let Some(on_way) = sent.pop() {
                assert!(sent.is_empty(), "one that is repeated goes alone");
                let told = broker.take(&on_way);
                for late in travelling.by_ref().take(after_each) {
                    broker.take(&late);
                }
                scene.answer_with(&on_way, told);
                delivered.extend(scene.outcomes().into_iter().flat_map(|(ids, _)| ids));
                sent = scene.sent();
            }
            travelling.for_each(|late| drop(broker.take(&late)));
            assert_eq!(delivered, expected);
            assert_eq!(broker.log(), expected, "{before} {after_each}");
            assert_eq!(scene.resent_in_doubt(), 0);
        }
    }
}

#[test]
fn idm_09_a_dead_worker_s_batch_that_the_broker_does_not_know_is_sent_as_new_and_that_is_said() {
    for error in [
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode::UNKNOWN_PRODUCER_ID,
        ErrorCode::INVALID_PRODUCER_EPOCH,
    ] {
        let mut scene = Scene::warm(idempotent());
        scene.repeat(stamp(DEAD, 0, 7), &[1000, 1001]);
        let sent = scene.sent();
        assert_eq!(stamps(&sent), [stamp(DEAD, 0, 7)]);
        scene.answer(&sent[0], error);
        let again = scene.wait(SECOND);
        assert_eq!(stamps(&again), [stamp(100, 0, 1)], "{error}");
        assert_eq!(scene.resent_in_doubt(), 2);
        scene.answer(&again[0], ErrorCode::NONE);
        assert_eq!(scene.outcomes(), [(vec![1000, 1001], DELIVERED)]);
    }
}

#[test]
fn idm_09_an_expired_id_doubles_what_was_in_doubt_and_no_more() {
    let (mut scene, mut broker) = (Scene::new(idempotent()), Broker::new());
    for (base, id) in [(0, 1000), (1, 1001)] {
        broker.take(&(ConnId(0), RequestId(0), Some(stamp(DEAD, 0, base)), vec![id]));
    }
    broker.forget();
    scene.repeat(stamp(DEAD, 0, 1), &[1001]);
    let next = scene.log();
    let sent = scene.sent();
    assert_eq!(scene.finish(&mut broker, sent), [1001, next]);
    assert_eq!(broker.log(), [1000, 1001, 1001, next]);
}

#[test]
fn idm_10_without_idempotence_order_is_kept_and_errors_double_what_was_in_doubt_alone() {
    let rules = Rules { acks: 1, idempotence: Idempotence::Off, ..idempotent() };
    let (mut scene, mut broker) = (Scene::new(rules), Broker::new());
    let expected: Vec<u64> = (0..30).map(|_| scene.log()).collect();
    let (mut delivered, mut in_doubt) = (Vec::new(), Vec::<u64>::new());
    let mut sent = scene.sent();
    let mut count = 0;
    while delivered.len() < expected.len() {
        assert_eq!(sent.len(), 1, "one batch at a time");
        let on_way = sent.remove(0);
        assert_eq!(on_way.2, None);
        count += 1;
        let told_now = match count % 6 {
            3 => told(0, ErrorCode::NOT_ENOUGH_REPLICAS),
            0 => {
                broker.take(&on_way);
                in_doubt.extend(&on_way.3);
                told(0, ErrorCode::REQUEST_TIMED_OUT)
            }
            _ => broker.take(&on_way),
        };
        scene.answer_with(&on_way, told_now);
        delivered.extend(scene.outcomes().into_iter().flat_map(|(ids, _)| ids));
        sent = scene.sent();
        if sent.is_empty() {
            sent = scene.wait(Duration::from_millis(200));
        }
    }
    assert_eq!(delivered, expected);
    let mut log = broker.log();
    assert!(log.is_sorted());
    assert_eq!(log.len(), expected.len() + in_doubt.len());
    log.dedup();
    assert_eq!(log, expected);
}

#[test]
fn a_broker_that_was_restarted_and_knows_the_last_batch_alone_doubles_nothing() {
    for arrived in 0..=5 {
        let (mut scene, mut broker, mut expected, sent) = on_their_way(5);
        for sent in &sent[..arrived] {
            broker.take(sent);
        }
        broker.restart();
        let next = scene.log();
        let again = scene.cut(&sent[0]);
        let delivered = scene.finish(&mut broker, again);
        expected.push(next);
        assert_eq!(delivered, expected, "{arrived}");
        assert_eq!(broker.log(), expected, "{arrived}");
        assert_eq!(scene.resent_in_doubt(), 0);
    }
}

#[test]
fn what_a_dead_worker_left_is_not_sent_as_new_before_our_own_that_is_in_doubt() {
    let (mut scene, mut broker, mut expected, sent) = on_their_way(5);
    // The first of five is appended and its answer leaves that open; the others are acknowledged.
    let told_of: Vec<Told> = sent.iter().map(|sent| broker.take(sent)).collect();
    scene.answer(&sent[0], ErrorCode::REQUEST_TIMED_OUT);
    for (sent, told) in sent.iter().zip(told_of).skip(1) {
        scene.answer_with(sent, told);
    }
    // A dead worker's batch that the broker has not: with one more of ours it would forget the first of five.
    broker.take(&(ConnId(0), RequestId(0), Some(stamp(DEAD, 0, 0)), vec![1000]));
    scene.repeat(stamp(DEAD, 0, 7), &[1001]);
    let again = scene.wait(SECOND);
    scene.outcomes();
    let delivered = scene.finish(&mut broker, again);
    assert_eq!(delivered, [expected[1], 1001]);
    expected.extend([1000, 1001]);
    assert_eq!(broker.log(), expected);
}

#[test]
fn an_adopter_asks_about_later_batches_before_it_sends_one_as_new() {
    for arrived in 0..=4 {
        let (mut scene, mut broker) = (Scene::new(idempotent()), Broker::new());
        let batches: Vec<OnWay> = (0..4)
            .map(|n| (ConnId(0), RequestId(0), Some(stamp(DEAD, 0, n)), vec![1000 + n as u64]))
            .collect();
        for sent in &batches[..arrived] {
            broker.take(sent);
        }
        broker.restart();
        for (_, _, stamp, ids) in &batches {
            scene.repeat(stamp.expect("a stamp"), ids);
        }
        let sent = scene.sent();
        assert_eq!(scene.finish(&mut broker, sent), [1000, 1001, 1002, 1003]);
        assert_eq!(broker.log(), [1000, 1001, 1002, 1003], "{arrived}");
        assert_eq!(scene.resent_in_doubt(), 0);
    }
}

#[test]
fn the_first_batch_of_a_log_tells_nothing_of_those_before_it() {
    let mut scene = Scene::warm(idempotent());
    let ids = [scene.log(), scene.log()];
    let sent = scene.sent();
    let again = scene.cut(&sent[0]);
    scene.answer(&again[0], ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    let passed_over = scene.wait(SECOND);
    assert_eq!(passed_over[0].3, [ids[1]]);
    // The topic was made anew, and its broker takes any number from a producer that it does not know.
    scene.answer_with(&passed_over[0], Told { base_offset: 0, ..told(0, ErrorCode::NONE) });
    assert_eq!(scene.outcomes(), [(vec![ids[1]], DELIVERED)]);
    let again = scene.wait(SECOND);
    assert_eq!(again[0].3, [ids[0]]);
    scene.answer(&again[0], ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    let again = scene.wait(SECOND);
    assert_eq!((stamps(&again), &again[0].3), (vec![stamp(100, 1, 0)], &vec![ids[0]]));
}

#[test]
fn a_batch_has_records_of_one_queue_file() {
    let mut scene = Scene::warm(Rules { batch_records: 100, ..idempotent() });
    let now = scene.stage.now;
    let record = |id| NewRecord {
        topic: scene.topic,
        record: Record {
            id: RecordId(id),
            key_hash: None,
            partition: Some(0),
            bytes: 100,
            born: now,
        },
    };
    let adopted = 1 << RecordId::POSITION_BITS;
    for id in [adopted, adopted + 8, 8, 16, adopted + 16] {
        scene.stage.producer.handle_record(now, record(id));
    }
    scene.stage.producer.handle_flush(now);
    let mut batches = Vec::new();
    for sent in scene.sent() {
        batches.push(sent.3.clone());
        scene.answer(&sent, ErrorCode::NONE);
    }
    assert_eq!(batches, [vec![adopted, adopted + 8], vec![8, 16], vec![adopted + 16]]);
}

#[test]
fn a_partition_that_was_out_of_sight_does_not_use_its_numbers_again() {
    let rules = Rules { message_timeout: Duration::from_secs(600), ..idempotent() };
    let mut scene = Scene::warm(rules);
    scene.partitions = 0;
    let (none, two) = (ErrorCode::NONE, [Some(1), Some(1)]);
    let told_of = |scene: &mut Scene, leaders: &[Option<i32>]| {
        let conn = scene.stage.refresh();
        scene.stage.answer_metadata_with(conn, &[(1, "b1")], leaders, none, 0);
        scene.sent();
    };
    told_of(&mut scene, &two);
    let to_second = |scene: &mut Scene, id| {
        let now = scene.stage.now;
        let (topic, partition) = (scene.topic, Some(1));
        let id = RecordId(id);
        let new = NewRecord {
            topic,
            record: Record { id, key_hash: None, partition, bytes: 100, born: now },
        };
        scene.stage.producer.handle_record(now, new);
        let sent = scene.sent();
        let conn = (sent[0].0, sent[0].1);
        let topics = vec![ProducedTopic {
            topic: ProducedTopicRef::Name("t".into()),
            partitions: vec![told(1, none)],
        }];
        let response = ProduceResponse { throttle_ms: 0, topics, node_endpoints: Vec::new() };
        scene.stage.producer.handle_produced(now, conn.0, conn.1, &response);
        stamps(&sent)
    };
    assert_eq!(to_second(&mut scene, 1000), [stamp(100, 0, 0)]);
    // A broker that is behind is not believed.
    told_of(&mut scene, &two[..1]);
    assert_eq!(to_second(&mut scene, 1001), [stamp(100, 0, 1)]);
    // One that insists is; and when the partition comes back, there is another id.
    for _ in 0..10 {
        told_of(&mut scene, &two[..1]);
    }
    assert_eq!(scene.stage.producer.partition_count(scene.topic), Some(1));
    told_of(&mut scene, &two);
    assert_eq!(to_second(&mut scene, 1002), [stamp(101, 0, 0)]);
}

#[test]
fn a_dead_worker_s_batch_waits_for_a_partition_that_is_not_in_sight_and_is_given_up_in_doubt() {
    let mut scene = Scene::warm(idempotent());
    let (now, topic) = (scene.stage.now, scene.topic);
    let record = |id| NewRecord {
        topic,
        record: Record { id: RecordId(id), key_hash: None, partition: None, bytes: 100, born: now },
    };
    scene.partitions = 0;
    for (partition, id) in [(1, 1000), (7, 1001)] {
        let stamp = stamp(DEAD, 0, 3);
        scene.stage.producer.handle_repeat(
            now,
            topic,
            partition,
            stamp,
            false,
            vec![record(id).record],
        );
    }
    assert!(scene.wait(SECOND).is_empty(), "they are sent nowhere else");
    assert!(scene.outcomes().is_empty());
    let asked = scene.stage.asked();
    let conn = asked.expect("who is behind is asked again");
    let leaders = [Some(1), Some(1)];
    scene.stage.answer_metadata_with(conn, &[(1, "b1")], &leaders, ErrorCode::NONE, 0);
    let sent = scene.sent();
    assert_eq!((sent.len(), &sent[0].2, &sent[0].3), (1, &Some(stamp(DEAD, 0, 3)), &vec![1000]));
    scene.wait(Duration::from_secs(4));
    scene.wait(Duration::from_secs(7));
    let given_up: Vec<_> = scene.outcomes().into_iter().filter(|(ids, _)| ids == &[1001]).collect();
    assert_eq!(given_up, [(vec![1001], failed(Reason::TimedOut, true))]);
}

#[test]
fn records_that_the_broker_names_fail_alone_and_the_rest_gets_other_numbers() {
    let mut scene = Scene::warm(Rules { batch_records: 3, ..idempotent() });
    let ids: Vec<u64> = (0..3).map(|_| scene.log()).collect();
    let sent = scene.sent();
    let faults = vec![RecordError { batch_index: 1, message: None }];
    let refusal = Told { record_errors: faults, ..told(0, ErrorCode::INVALID_RECORD) };
    scene.answer_with(&sent[0], refusal);
    let reason = Reason::Broker(ErrorCode::INVALID_RECORD);
    assert_eq!(scene.outcomes(), [(vec![ids[1]], failed(reason, false))]);
    let again = scene.wait(SECOND);
    assert_eq!((stamps(&again), &again[0].3), (vec![stamp(100, 1, 0)], &vec![ids[0], ids[2]]));
}

#[test]
fn a_repeated_batch_keeps_its_stamp_whatever_the_adopter_s_rules_are() {
    let off = Rules { idempotence: Idempotence::Off, acks: 1, ..idempotent() };
    let small = Rules { batch_bytes: 1024, max_in_flight: 1, ..idempotent() };
    for rules in [off, small] {
        let mut scene = Scene::new(rules);
        let ids: Vec<u64> = (1000..1050).collect();
        scene.repeat(stamp(DEAD, 3, i32::MAX - 1), &ids);
        scene.log();
        let sent = scene.sent();
        assert_eq!(sent.len(), 1, "nothing goes with it");
        assert_eq!((stamps(&sent), &sent[0].3), (vec![stamp(DEAD, 3, i32::MAX - 1)], &ids));
        assert_eq!(advance(i32::MAX - 1, 50), 48);
        scene.answer(&sent[0], ErrorCode::NONE);
        assert_eq!(scene.outcomes(), [(ids, DELIVERED)]);
        assert_eq!(scene.sent().len(), 1);
    }
}

#[test]
fn a_log_without_numbers_gets_messages_without_numbers_unless_idempotence_is_required() {
    let refusal = ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT;
    let mut scene = Scene::new(Rules { idempotence: Idempotence::Preferred, ..idempotent() });
    let ids = [scene.log(), scene.log(), scene.log()];
    let sent = scene.sent();
    scene.answer(&sent[0], refusal);
    // One at a time, as without idempotence.
    for id in ids {
        let sent = scene.wait(SECOND);
        assert_eq!((sent.len(), sent[0].2, &sent[0].3), (1, None, &vec![id]));
        scene.answer(&sent[0], ErrorCode::NONE);
        assert_eq!(scene.outcomes(), [(vec![id], DELIVERED)]);
    }
    let notices: Vec<Notice> = std::iter::from_fn(|| scene.stage.producer.poll_notice()).collect();
    assert_eq!(notices, [Notice::LogWithoutNumbers { topic: scene.topic }]);

    let mut scene = Scene::new(idempotent());
    let id = scene.log();
    let sent = scene.sent();
    scene.answer(&sent[0], refusal);
    assert_eq!(scene.outcomes(), [(vec![id], failed(Reason::Broker(refusal), false))]);
}

#[test]
fn an_error_that_may_pass_does_not_end_idempotence() {
    let mut scene = Scene::new(Rules { idempotence: Idempotence::Preferred, ..idempotent() });
    scene.log();
    let mut refused = 0;
    while refused < 3 {
        scene.stage.pass(SECOND);
        for action in scene.stage.actions() {
            let (producer, now) = (&mut scene.stage.producer, scene.stage.now);
            match action {
                Action::Connect { conn, .. } => producer.handle_connected(now, conn),
                Action::InitProducerId { conn, request } => {
                    let error = ErrorCode::UNKNOWN_SERVER_ERROR;
                    let response = InitProducerIdResponse {
                        throttle_ms: 0,
                        error,
                        producer_id: -1,
                        epoch: -1,
                    };
                    producer.handle_producer_id(now, conn, request, &response);
                    refused += 1;
                }
                Action::Produce { .. } => panic!("without a number"),
                _ => {}
            }
        }
    }
    assert_eq!(stamps(&scene.wait(4 * SECOND)), [stamp(100, 0, 0)]);
}
