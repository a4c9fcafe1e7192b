//! Learning the cluster: who is asked, what passes, and many topics, which are asked about in pages so that no answer is
//! larger than what is read (RES-06).

use super::stage::{SECOND, Stage, fast, told};
use super::*;
use crate::protocol::metadata::{BrokerMetadata, PartitionMetadata, TopicMetadata};
use std::collections::BTreeSet;

const TOPICS: usize = 7;

#[test]
fn a_list_that_names_brokers_out_of_reach_is_asked_less_and_less_often() {
    let mut stage = Stage::new(rules());
    let topic = stage.producer.topic(stage.now, "t");
    stage.log(topic, None);
    let mut visits = 0;
    for _ in 0..6_000 {
        for action in stage.actions() {
            match action {
                Action::Connect { conn, broker, .. } if broker >= 0 => {
                    stage.producer.handle_closed(stage.now, conn);
                }
                Action::Connect { conn, .. } => {
                    visits += 1;
                    stage.producer.handle_connected(stage.now, conn);
                }
                Action::Metadata { conn, .. } => {
                    stage.answer_metadata(conn, &[(1, "nowhere")], &[Some(1)]);
                }
                _ => {}
            }
        }
        stage.pass(Duration::from_millis(10));
    }
    assert!((3..=15).contains(&visits), "{visits} in a minute");
}

#[test]
fn no_more_connections_are_asked_for_than_there_may_be_and_the_busiest_broker_goes_first() {
    const BROKERS: i32 = 40;
    let rules = Rules { max_connections: 3, message_timeout: 600 * SECOND, ..fast() };
    let mut stage = Stage::new(rules);
    let topic = stage.producer.topic(stage.now, "t");
    let (boot, _) = stage.connect();
    stage.connect_done(boot);
    let names: Vec<String> = (0..BROKERS).map(|id| format!("b{id}")).collect();
    let brokers: Vec<(i32, &str)> = (0..BROKERS).zip(names.iter().map(|name| &**name)).collect();
    let leaders: Vec<Option<i32>> = (0..BROKERS).map(Some).collect();
    stage.answer_metadata(boot, &brokers, &leaders);
    for partition in 0..BROKERS as u32 {
        let (id, born) = (RecordId(u64::from(partition)), stage.now);
        let record = Record { id, key_hash: None, partition: Some(partition), bytes: 100, born };
        stage.producer.handle_record(stage.now, NewRecord { topic, record });
    }
    let mut open = BTreeSet::new();
    let mut delivered = 0;
    for _ in 0..2_000 {
        for action in stage.actions() {
            match action {
                Action::Connect { conn, .. } => {
                    open.insert(conn);
                    stage.producer.handle_connected(stage.now, conn);
                }
                Action::Close { conn, .. } => drop(open.remove(&conn)),
                Action::Produce { conn, request } => {
                    let sent = stage.producer.request(conn, request);
                    let batches = sent.iter().map(|sent| (sent.topic, sent.partition, vec![]));
                    let seen = (conn, request, batches.collect());
                    stage.answer(&seen, |p| told(p, ErrorCode::NONE));
                }
                _ => {}
            }
            assert!(open.len() <= 3, "{open:?}");
        }
        delivered += stage.outcomes().len();
        stage.pass(Duration::from_millis(50));
    }
    assert_eq!(delivered, BROKERS as usize);
}

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
                        stage.pass(SECOND);
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
        id: Uuid::from_bytes([1; 16]),
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
    stage.pass(60 * SECOND);
    let pages = round(&mut stage, &[]);
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
    assert_eq!(names(&pages).len(), TOPICS);
}

#[test]
fn res_06_a_new_topic_alone_is_asked_about_and_does_not_put_off_the_next_look_at_all() {
    let mut stage = stage();
    round(&mut stage, &[]);
    for index in 0..59 {
        stage.pass(SECOND);
        stage.producer.topic(stage.now, &format!("new{index}"));
        assert_eq!(round(&mut stage, &[]), [[format!("new{index}")]]);
    }
    stage.pass(SECOND);
    assert_eq!(names(&round(&mut stage, &[])).len(), TOPICS + 59);
}

#[test]
fn res_06_what_was_not_answered_is_asked_for_in_smaller_pages() {
    let mut stage = stage();
    round(&mut stage, &[]);
    stage.pass(60 * SECOND);
    let pages = round(&mut stage, &[0, 1]);
    let sizes: Vec<usize> = pages.iter().map(Vec::len).collect();
    assert_eq!(sizes[..3], [3, 1, 1], "{pages:?}");
    assert!(sizes[3..].contains(&3), "an answer ends that: {pages:?}");
    assert_eq!(names(&pages[2..]).len(), TOPICS);
}

#[test]
fn errors_of_a_topic_that_may_pass_are_waited_out() {
    for error in [ErrorCode::INVALID_REPLICATION_FACTOR, ErrorCode::UNKNOWN_SERVER_ERROR] {
        let mut stage = Stage::new(fast());
        let topic = stage.producer.topic(stage.now, "t");
        let id = stage.log(topic, None);
        let (boot, _) = stage.connect();
        stage.connect_done(boot);
        stage.answer_metadata_with(boot, &[(1, "b1")], &[], error, 0);
        assert!(stage.outcomes().is_empty(), "{error}");
        let mut delivered = Vec::new();
        while delivered.is_empty() {
            stage.pass(SECOND / 10);
            for action in stage.actions() {
                match action {
                    Action::Connect { conn, .. } => {
                        stage.producer.handle_connected(stage.now, conn);
                    }
                    Action::Metadata { conn, .. } => {
                        stage.answer_metadata(conn, &[(1, "b1")], &[Some(1)]);
                    }
                    Action::Produce { conn, request } => {
                        let seen = (conn, request, vec![(topic, 0, vec![id])]);
                        stage.answer(&seen, |p| told(p, ErrorCode::NONE));
                    }
                    _ => {}
                }
            }
            delivered = stage.outcomes();
        }
        assert_eq!(delivered, [(vec![id], DELIVERED)], "{error}");
    }
}

/// What a stage asks for within ten seconds, when a broker that is connected answers metadata as `answer` does.
fn asked_of(
    stage: &mut Stage,
    answer: impl Fn(&mut Stage, ConnId),
) -> (Vec<BrokerId>, Vec<ConnId>) {
    let (mut connected, mut asked) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        stage.pass(SECOND / 10);
        for action in stage.actions() {
            match action {
                Action::Connect { conn, broker, .. } => {
                    connected.push(broker);
                    stage.producer.handle_connected(stage.now, conn);
                }
                Action::Metadata { conn, .. } => {
                    asked.push(conn);
                    answer(stage, conn);
                }
                _ => {}
            }
        }
    }
    (connected, asked)
}

#[test]
fn a_broker_that_knows_too_little_is_not_the_only_one_that_is_asked() {
    let (mut stage, topic) = Stage::ready(Rules { message_timeout: 100 * SECOND, ..fast() }, 1);
    stage.producer.topic(stage.now, "other");
    stage.log(topic, None);
    let other = stage.producer.topic(stage.now, "other");
    stage.log(other, None);
    // It names itself alone, and never tells of the other topic.
    let (connected, asked) = asked_of(&mut stage, |stage, conn| {
        stage.answer_metadata(conn, &[(1, "b1")], &[Some(1)]);
    });
    assert!(connected.contains(&1) && connected.contains(&-1), "{connected:?}");
    assert!(connected.len() < 8, "not all the time: {connected:?}");
    assert!(asked.iter().any(|conn| *conn != asked[0]));
}

#[test]
fn brokers_that_are_connected_are_asked_in_turn() {
    let (mut stage, topic) = Stage::ready(Rules { message_timeout: 100 * SECOND, ..fast() }, 1);
    let conn = stage.refresh();
    let brokers = [(1, "b1"), (2, "b2"), (3, "b3")];
    let leaders = [Some(1), Some(2), Some(3)];
    stage.answer_metadata(conn, &brokers, &leaders);
    for key in 0..20u8 {
        stage.log(topic, Some(&[key]));
    }
    let other = stage.producer.topic(stage.now, "other");
    stage.log(other, None);
    let (_, asked) = asked_of(&mut stage, |stage, conn| {
        stage.answer_metadata(conn, &brokers, &leaders);
    });
    let last: BTreeSet<_> = asked.iter().rev().take(3).collect();
    assert_eq!(last.len(), 3, "{asked:?}");
}

#[test]
fn flt_17_a_name_that_may_be_no_topics_is_asked_about_apart_and_is_not_made() {
    let mut stage = Stage::new(rules());
    stage.producer.topic(stage.now, "made");
    stage.producer.topic_if_it_exists(stage.now, "README.txt");
    let boot = stage.connect().0;
    stage.producer.handle_connected(stage.now, boot);
    let mut asked = Vec::new();
    for _ in 0..200 {
        for action in stage.actions() {
            match action {
                Action::Connect { conn, .. } => stage.producer.handle_connected(stage.now, conn),
                Action::Metadata { conn, .. } => {
                    let may_make = stage.producer.may_make_asked_topics();
                    for name in stage.producer.asked_topics() {
                        asked.push((name.to_owned(), may_make));
                    }
                    stage.answer_metadata(conn, &[(1, "b")], &[Some(1)]);
                }
                _ => {}
            }
        }
        stage.pass(Duration::from_millis(50));
    }
    for (name, expected) in [("made", true), ("README.txt", false)] {
        let about: Vec<_> = asked.iter().filter(|(asked, _)| asked == name).collect();
        assert!(!about.is_empty() && about.iter().all(|(_, may_make)| *may_make == expected));
    }
    // Once somebody logs to it, it is a topic like any other.
    stage.producer.topic(stage.now, "README.txt");
    stage.pass(SECOND);
    stage.actions();
    assert!(stage.producer.may_make_asked_topics());
}

#[test]
fn flt_12_nobody_to_ask_and_no_room_for_a_connection_is_waited_out() {
    let hosts = ["a", "b"].map(|host| HostPort { host: host.into(), port: 9092 });
    let rules = Rules { bootstrap: hosts.into(), ..Rules::from(&Config::default()) };
    let mut stage = Stage::new(Rules { max_connections: 1, ..rules });
    stage.producer.topic(stage.now, "t");
    // One of the two is connected to, without end; for the other there is no room.
    stage.connect();
    for _ in 0..20 {
        stage.pass(SECOND);
        assert!(stage.actions().is_empty());
        assert!(stage.producer.next_deadline().is_none_or(|at| at > stage.now));
    }
}

#[test]
fn a_connection_for_which_there_is_no_room_says_nothing_of_its_broker() {
    let (mut stage, topic) = Stage::ready(Rules { conn_retry_limit: 2, ..fast() }, 1);
    stage.log(topic, None);
    let (mut conn, _) = stage.connect();
    for _ in 0..5 {
        stage.producer.handle_no_room(stage.now, conn);
        assert!(stage.actions().is_empty(), "there is a pause");
        stage.pass(stage.producer.rules.reconnect_backoff);
        conn = stage.connect().0;
    }
    assert!(stage.producer.poll_notice().is_none(), "the broker does not rest");
    assert_eq!(stage.producer.counts.broken_connections, 0);
    stage.producer.handle_connected(stage.now, conn);
    assert!(!stage.requests().is_empty());
}

#[test]
fn a_broker_that_pauses_after_it_named_no_broker_is_asked_once_the_pause_is_over() {
    let hosts = vec![HostPort { host: "a".into(), port: 9092 }];
    let mut stage = Stage::new(Rules { bootstrap: hosts, ..fast() });
    let topic = stage.producer.topic(stage.now, "t");
    stage.log(topic, None);
    let (boot, _) = stage.connect();
    stage.connect_done(boot);
    let Refresh::Asked(asked) = &stage.producer.metadata.refresh else { panic!("asked") };
    let request = asked.request;
    let response = MetadataResponse {
        error: ErrorCode::NONE,
        throttle_ms: 30_000,
        brokers: Vec::new(),
        cluster_id: None,
        controller_id: -1,
        topics: Vec::new(),
    };
    stage.producer.handle_metadata(stage.now, boot, request, &response);
    let mut asked = Vec::new();
    for _ in 0..35 {
        assert!(asked.is_empty() || stage.now >= Time(1_000_000) + 30 * SECOND);
        stage.pass(SECOND);
        asked.extend(stage.metadata_asked());
    }
    assert_eq!(asked.first(), Some(&boot));
}

#[test]
fn flt_27_topics_that_nobody_makes_are_asked_about_less_and_less_often() {
    const UNKNOWN: usize = 300;
    let mut stage = Stage::new(rules());
    let ids: Vec<TopicId> =
        (0..UNKNOWN).map(|n| stage.producer.topic(stage.now, &format!("t{n}"))).collect();
    let boot = stage.connect().0;
    stage.producer.handle_connected(stage.now, boot);
    let mut asked: Vec<(u64, String)> = Vec::new();
    let begin = stage.now;
    for step in 0..12_000_u64 {
        if step % 100 == 0 {
            // As replay does while their lines wait.
            stage.producer.ask_about(stage.now, &ids);
        }
        if step == 11_000 {
            // Somebody logs to one more.
            let new = stage.producer.topic(stage.now, "new");
            stage.log(new, None);
        }
        for action in stage.actions() {
            match action {
                Action::Connect { conn, .. } => stage.producer.handle_connected(stage.now, conn),
                Action::Metadata { conn, .. } => {
                    let second = stage.now.since(begin).as_secs();
                    for name in stage.producer.asked_topics() {
                        asked.push((second, name.to_owned()));
                    }
                    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
                    stage.answer_metadata_with(conn, &[(1, "b")], &[], unknown, 0);
                }
                _ => {}
            }
        }
        stage.pass(SECOND / 20);
    }
    let about = |name: &str, from| {
        asked.iter().filter(|(second, asked)| asked == name && *second >= from).count()
    };
    for name in ["t0", "t150", "t299"] {
        // All of them together make a page of real size less than once in ten seconds.
        assert!((10..=30).contains(&about(name, 120)), "{name}: {} times", about(name, 120));
    }
    // What somebody waits for is not put off by the others.
    assert!(asked.contains(&(550, "new".into())));
    assert!(about("new", 550) >= 5);
}
