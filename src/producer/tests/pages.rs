//! Many topics: asked about in pages, so that no answer is larger than what is read (RES-06).

use super::behaviour::{Stage, fast};
use super::*;
use crate::protocol::metadata::{BrokerMetadata, PartitionMetadata, TopicMetadata};
use std::collections::BTreeSet;

const TOPICS: usize = 7;
const PARTITIONS: i32 = 2;

/// Requests for metadata until none is wanted: the topics of each. They are answered, those of `silent` excepted: there
/// the connection breaks.
fn round(stage: &mut Stage, silent: &[usize]) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let actions = stage.actions();
        if actions.is_empty() {
            return pages;
        }
        for action in actions {
            let (producer, now) = (&mut stage.producer, stage.now);
            match action {
                Action::Connect { conn, .. } => producer.handle_connected(now, conn),
                Action::Metadata { conn, request } => {
                    let page: Vec<String> =
                        producer.asked_topics().into_iter().map(str::to_owned).collect();
                    pages.push(page.clone());
                    if silent.contains(&(pages.len() - 1)) {
                        producer.handle_closed(now, conn);
                        stage.pass(Duration::from_secs(1));
                    } else {
                        producer.handle_metadata(now, conn, request, &answer(page));
                    }
                }
                _ => {}
            }
        }
    }
}

fn answer(topics: Vec<String>) -> MetadataResponse {
    let partition =
        |index| PartitionMetadata { error: ErrorCode::NONE, index, leader: 1, leader_epoch: 0 };
    let topics = topics.into_iter().map(|name| TopicMetadata {
        error: ErrorCode::NONE,
        name,
        id: [1; 16],
        partitions: (0..PARTITIONS).map(partition).collect(),
    });
    let broker = BrokerMetadata { id: 1, host: "b1".into(), port: 9092, rack: None };
    MetadataResponse {
        error: ErrorCode::NONE,
        throttle_ms: 0,
        brokers: vec![broker],
        cluster_id: None,
        controller_id: 1,
        topics: topics.collect(),
    }
}

fn stage() -> Stage {
    let mut stage = Stage::new(fast());
    for index in 0..TOPICS {
        stage.producer.topic(stage.now, &format!("t{index}"));
    }
    stage
}

fn names(pages: &[Vec<String>]) -> BTreeSet<&str> {
    pages.iter().flatten().map(String::as_str).collect()
}

#[test]
fn res_06_each_topic_is_asked_about_once_in_a_round_and_few_at_a_time() {
    let mut stage = stage();
    let pages = round(&mut stage, &[]);
    // The limit in tests is below what a topic is taken to have of which nothing is known.
    assert!(pages.iter().all(|page| page.len() == 1), "{pages:?}");
    assert_eq!((names(&pages).len(), pages.len()), (TOPICS, TOPICS));
    // Three of two partitions are what one request may be about.
    stage.pass(Duration::from_secs(60));
    let pages = round(&mut stage, &[]);
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
    assert_eq!(names(&pages).len(), TOPICS);
}

#[test]
fn res_06_a_new_topic_alone_is_asked_about_and_does_not_put_off_the_next_look_at_all() {
    let mut stage = stage();
    round(&mut stage, &[]);
    for index in 0..59 {
        stage.pass(Duration::from_secs(1));
        stage.producer.topic(stage.now, &format!("new{index}"));
        assert_eq!(round(&mut stage, &[]), [[format!("new{index}")]]);
    }
    stage.pass(Duration::from_secs(1));
    assert_eq!(names(&round(&mut stage, &[])).len(), TOPICS + 59);
}

#[test]
fn res_06_what_was_not_answered_is_asked_for_in_smaller_pages() {
    let mut stage = stage();
    round(&mut stage, &[]);
    stage.pass(Duration::from_secs(60));
    let pages = round(&mut stage, &[0, 1]);
    let sizes: Vec<usize> = pages.iter().map(Vec::len).collect();
    assert_eq!(sizes[..3], [3, 1, 1], "{pages:?}");
    assert!(sizes[3..].contains(&3), "an answer ends that: {pages:?}");
    assert_eq!(names(&pages[2..]).len(), TOPICS);
}
