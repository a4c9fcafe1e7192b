//! A broker that lies to an idempotent producer, about its producer id and about its numbers: HOS-02 to HOS-04 and
//! HOS-08. However that ends, what was logged arrives, and nothing twice that the broker could tell.

use super::case::{Case, Seen};
use crate::counts_everywhere;
use crate::support::broker::{Lie, Reply};
use lkfk::internals::protocol::header::ApiKey;
use std::collections::HashSet;

const NEWEST: (i16, i16) = (13, 13);
const API: ApiKey = ApiKey::InitProducerId;
/// Bytes of its answer, about.
const LEN: usize = 24;

/// Logs a few messages past the lies.
fn past(lies: Vec<Lie>) -> Seen {
    let mut case = Case::idempotent(NEWEST, lies);
    case.log(5);
    case.wait_until("all lies told", |case| case.broker.lies_left() == 0);
    once(case.delivers(), 5)
}

/// Everything arrived, and once.
fn once(seen: Seen, count: usize) -> Seen {
    let payloads: HashSet<_> = seen.arrived.iter().map(|record| &record.payload).collect();
    assert_eq!((payloads.len(), seen.arrived.len()), (count, count), "{:?}", seen.lines);
    seen
}

#[test]
fn hos_02_counts_that_promise_too_much_in_the_answer_with_the_producer_id() {
    // Some make another valid answer, after which none is asked for.
    for lie in counts_everywhere(API, LEN) {
        past(vec![lie]);
    }
}

#[test]
fn hos_03_answers_with_the_producer_id_that_are_cut_or_too_long() {
    let cut = (0..LEN).map(|len| {
        Lie::bytes(API, move |mut frame| {
            frame.truncate(len.min(frame.len() - 1));
            Reply::Frame(frame)
        })
    });
    past(cut.collect());
    past(vec![Lie::bytes(API, |frame| Reply::Frame([&frame[..], b"more"].concat()))]);
}

#[test]
fn hos_04_an_answer_with_the_producer_id_to_another_question() {
    let other = Lie::bytes(API, |mut frame| {
        frame[3] ^= 1;
        Reply::Frame(frame)
    });
    // The first connection may be closed before it hears the answer.
    past(vec![other.times(3)]).says("correlation id");
}

#[test]
fn hos_08_a_producer_id_that_cannot_be_is_not_used() {
    for (id, epoch) in [(-1, 0), (-1, -1), (i64::MIN, 0), (7, -1), (7, i16::MIN)] {
        past(vec![Lie::producer_id(move |answer| {
            answer.producer_id = id.into();
            answer.producer_epoch = epoch;
        })]);
    }
}

#[test]
fn hos_08_the_largest_producer_ids_are_used() {
    for (id, epoch) in [(i64::MAX, 0), (0, i16::MAX), (i64::MAX, i16::MAX)] {
        past(vec![Lie::producer_id(move |answer| {
            answer.producer_id = id.into();
            answer.producer_epoch = epoch;
        })]);
    }
}

#[test]
fn hos_08_no_error_in_place_of_a_producer_id_loses_a_message() {
    for error in (-1..=130).filter(|error| *error != 0) {
        let mut case = Case::idempotent(
            NEWEST,
            vec![Lie::producer_id(move |answer| {
                answer.error_code = error;
                answer.producer_id = (-1).into();
                answer.producer_epoch = -1;
            })],
        );
        case.log(2);
        // Without an id there may be no numbers: then they go out without.
        case.keeps();
    }
}

#[test]
fn hos_08_what_is_said_of_a_batch_s_numbers_is_no_reason_to_lose_it() {
    for (error, appends) in
        [(45, false), (45, true), (46, true), (47, false), (59, false), (59, true)]
    {
        let lie = Lie::produce(move |answer| {
            for topic in &mut answer.responses {
                for partition in &mut topic.partition_responses {
                    partition.error_code = error;
                    partition.base_offset = -1;
                }
            }
        });
        let lie = if appends { lie.but_append() } else { lie };
        let mut case = Case::idempotent(NEWEST, vec![lie]);
        case.log(3);
        let seen = case.delivers();
        assert!((0..3).all(|number| seen.times(number) >= 1), "{error}: {:?}", seen.lines);
    }
}
