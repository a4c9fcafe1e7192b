//! The driver, whole and with real sockets, against a broker that lies: HOS-01 to HOS-10 of the
//! catalogue of faults. After every lie `case.rs` checks that nothing faulted, that it took at most
//! 8 MiB, that each log line is clean, and that what was logged arrived once the lies were over.
//! HOS-09, which is about authentication, has a file of its own, and so have lies to an idempotent producer, more topics
//! than one answer can tell of, and files that are not what they seem.

#![allow(clippy::disallowed_methods, reason = "the broker waits, and a deadline is kept")]

mod lies {
    pub mod case;
    mod many_brokers;
    mod many_topics;
    mod numbers;
    mod orphans;
    mod sasl;
}
mod support {
    pub mod broker;
    pub mod memory;
}

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, MetadataResponse, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use lies::case::{Case, Seen, case};
use lkfk::internals::protocol::header::{ApiKey, read_response_header};
use lkfk::internals::protocol::metadata::MetadataResponse as MetadataAnswer;
use lkfk::internals::protocol::primitives::Reader;
use lkfk::internals::protocol::produce::ProduceResponse as ProduceAnswer;
use std::time::Duration;
use support::broker::{Lie, NODE, Reply, sized};
use support::memory;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

const APIS: [ApiKey; 3] = [ApiKey::ApiVersions, ApiKey::Metadata, ApiKey::Produce];

/// Pairs of highest versions that cover the forms of answers there are.
const VERSIONS: [(i16, i16); 3] = [(13, 13), (12, 12), (3, 1)];

/// Logs a few messages past one lie and returns what was seen.
fn past(lie: Lie) -> Seen {
    let mut case = case(vec![lie]);
    case.log(3);
    case.delivers()
}

// ------------------------------------------------------------------------------------------- HOS-01

#[test]
fn hos_01_a_size_that_no_answer_has_closes_the_connection_and_takes_no_memory() {
    let sizes: [(&[u8], &str); 6] = [
        (b"\xff\xff\xff\xffrest of it", "not a Kafka broker"),
        (b"\0\0\0\0rest of it", "not a Kafka broker"),
        (b"\0\0\0\x03rest of it", "not a Kafka broker"),
        (b"\x7f\xff\xff\xffrest of it", "not a Kafka broker, or an answer larger than"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP server"),
        (b"\x15\x03\x03\0\x02\x02\x46", "TLS listener"),
    ];
    for api in APIS {
        for (bytes, who) in sizes {
            let seen = past(Lie::bytes(api, |_| Reply::Raw(bytes.to_vec())));
            seen.says(who);
            assert!(seen.peak < 512 * 1024, "{api:?}, {who}: {} bytes", seen.peak);
        }
    }
}

#[test]
fn hos_01_the_largest_size_takes_memory_only_for_what_comes() {
    for api in APIS {
        let seen = past(Lie::bytes(api, |frame| {
            Reply::RawThenClose([&0x3f_ffff_u32.to_be_bytes()[..], &frame].concat())
        }));
        assert!(seen.peak < 512 * 1024, "{api:?}: {} bytes", seen.peak);
    }
}

// ------------------------------------------------------------------------------------------- HOS-02

/// Counts and lengths that promise too much, as integers and as varints.
const COUNTS: [&[u8]; 6] = [
    &[0xff, 0xff, 0xff, 0xfe],       // -2
    &[0x7f, 0xff, 0xff, 0xff],       // 2^31 - 1
    &[0xff, 0xfe],                   // -2, of a string
    &[0x7f, 0xff],                   // 2^15 - 1, of a string
    &[0xff, 0xff, 0xff, 0xff, 0x07], // 2^31 - 1
    &[0xff, 0xff, 0xff, 0xff, 0x0f], // 2^32 - 1
];

/// The throttle time in an answer that can be read; 0 also when it cannot.
fn throttle(api: ApiKey, version: i16, frame: &[u8]) -> i32 {
    let mut reader = Reader::new(frame);
    if read_response_header(&mut reader, api, version).is_err() {
        return 0;
    }
    match api {
        ApiKey::Produce => ProduceAnswer::decode(version, &mut reader).map(|a| a.throttle_ms),
        ApiKey::Metadata => MetadataAnswer::decode(version, &mut reader).map(|a| a.throttle_ms),
        _ => Ok(0),
    }
    .unwrap_or(0)
}

/// The answers of one API with each of the counts at each place: one is read as a length wherever there
/// is one.
fn counts_everywhere(api: ApiKey, answer_len: usize) -> Vec<Lie> {
    let places = (4..answer_len).flat_map(|place| COUNTS.map(|count| (place, count)));
    let lies = places.map(|(place, count)| {
        Lie::at(api, move |version, mut frame| {
            let honest = frame.clone();
            let end = frame.len().min(place + count.len());
            frame.splice(place.min(end)..end, count.iter().copied());
            // A throttle time is no length, and would be obeyed.
            Reply::Frame(if throttle(api, version, &frame) == 0 { frame } else { honest })
        })
        .but_append()
    });
    lies.collect()
}

#[test]
fn hos_02_counts_that_promise_too_much_in_metadata() {
    for versions in [(13, 13), (3, 1)] {
        let lies = counts_everywhere(ApiKey::Metadata, 110);
        let mut case = Case::start(versions, lies, &[]);
        case.log_until_all_is_told();
        case.keeps().says("Metadata answer: ");
    }
}

#[test]
fn hos_02_counts_that_promise_too_much_in_produce() {
    for versions in VERSIONS {
        let lies = counts_everywhere(ApiKey::Produce, 70);
        let mut case = Case::start(versions, lies, &[]);
        case.log_until_all_is_told();
        case.keeps().says("Produce answer: ");
    }
}

#[test]
fn hos_02_counts_that_promise_too_much_in_api_versions() {
    // The answer may be a good one all the same: another lie ends such a connection.
    let lies = counts_everywhere(ApiKey::ApiVersions, 33)
        .into_iter()
        .flat_map(|lie| [lie, Lie::bytes(ApiKey::Metadata, |_| Reply::RawThenClose(Vec::new()))]);
    let mut case = case(lies.collect());
    case.log(3);
    case.delivers().says("ApiVersions answer: ");
}

#[test]
fn hos_02_answers_full_of_small_elements_take_bounded_memory() {
    // About the largest answer that is read, and smaller ones, which may decode to more than they take.
    for len in [4 << 20, 1 << 20, 1 << 19] {
        past_metadata(move |answer| {
            answer.brokers.extend((0..len / 20).map(|at| {
                MetadataResponseBroker::default()
                    .with_node_id(BrokerId(at + 10))
                    .with_host(StrBytes::from_string(format!("n{at}")))
                    .with_port(9092)
            }));
        });
        past_metadata(move |answer| {
            let honest = answer.topics[0].clone();
            answer.topics.extend((0..len / 40).map(|at| {
                let name = StrBytes::from_string(format!("n{at}"));
                honest.clone().with_name(Some(TopicName(name))).with_partitions(Vec::new())
            }));
        });
        past_metadata(move |answer| {
            answer.topics[0].partitions.extend((2..len / 20).map(|at| {
                MetadataResponsePartition::default()
                    .with_partition_index(at)
                    .with_leader_id(BrokerId(NODE))
            }));
        });
        past(Lie::versions(move |answer| {
            let offers = (0..len / 8).map(|at| ApiVersion::default().with_api_key(at as i16));
            answer.api_keys.splice(0..0, offers);
        }));
    }
    for len in [4 << 20, 60_000] {
        let lie = Lie::produce(move |answer| {
            let honest = answer.responses[0].clone();
            answer.responses.extend((0..len / 60).map(|at| {
                honest.clone().with_name(TopicName(StrBytes::from_string(format!("n{at}"))))
            }));
        });
        past(lie.but_append());
    }
}

// ------------------------------------------------------------------------------------------- HOS-03

#[test]
fn hos_03_answers_cut_at_each_byte() {
    for (api, len) in [(ApiKey::ApiVersions, 36), (ApiKey::Metadata, 110), (ApiKey::Produce, 70)] {
        let cuts = (0..len).map(|cut| {
            Lie::bytes(api, move |frame| {
                let frame = sized(&frame);
                let end = cut.min(frame.len() - 1);
                Reply::RawThenClose(frame[..end].to_vec())
            })
        });
        let mut case = case(cuts.collect());
        case.log(3);
        case.delivers().says("closed");
    }
}

#[test]
fn hos_03_answers_that_drip() {
    for (api, text) in [
        (ApiKey::ApiVersions, "took longer than 300 ms"),
        (ApiKey::Metadata, "no answer within request_timeout_ms"),
        (ApiKey::Produce, "no answer within request_timeout_ms"),
    ] {
        let drip = |frame| Reply::Drip(frame, Duration::from_millis(40));
        // The first Metadata request is the handshake's.
        let mut lies = vec![Lie::bytes(api, drip)];
        if api == ApiKey::Metadata {
            lies.insert(0, Lie::bytes(api, Reply::Frame));
        }
        let mut case = case(lies);
        case.log(3);
        let seen = case.delivers();
        seen.says(text);
    }
}

#[test]
fn hos_03_answers_with_bytes_left_over() {
    for api in APIS {
        for extra in [1, 4, 1000] {
            let lie = Lie::bytes(api, move |mut frame| {
                frame.extend(vec![0; extra]);
                Reply::Frame(frame)
            });
            past(lie).says(&format!("{extra} bytes left over"));
        }
    }
}

// ------------------------------------------------------------------------------------------- HOS-04

fn with_id(mut frame: Vec<u8>, change: i32) -> Vec<u8> {
    let id = i32::from_be_bytes(frame[..4].try_into().unwrap());
    frame[..4].copy_from_slice(&id.wrapping_add(change).to_be_bytes());
    frame
}

#[test]
fn hos_04_a_correlation_id_that_is_not_due_closes_the_connection() {
    for api in APIS {
        for change in [-1, 100, i32::MIN] {
            past(Lie::bytes(api, move |frame| Reply::Frame(with_id(frame, change))))
                .says("correlation id");
        }
    }
    // In the handshake the next id is that of the other question.
    past(Lie::bytes(ApiKey::ApiVersions, |frame| Reply::Frame(with_id(frame, 1))))
        .says("Metadata answer: ");
}

#[test]
fn hos_04_an_answer_that_is_repeated_ends_the_connection_and_no_message_twice() {
    let mut case = case(vec![
        Lie::bytes(ApiKey::Produce, |frame| Reply::Raw([sized(&frame), sized(&frame)].concat()))
            .but_append(),
    ]);
    case.log(1);
    case.wait_until("the lie told", |case| case.broker.lies_left() == 0);
    case.log(3);
    let seen = case.delivers();
    seen.says("none is due");
    assert_eq!(seen.times(0), 1);
}

#[test]
fn hos_04_an_answer_to_nothing_closes_the_connection() {
    for api in [ApiKey::ApiVersions, ApiKey::Produce] {
        for extra in [0, 7, -7] {
            let lie = Lie::bytes(api, move |frame| {
                Reply::Raw([sized(&frame), sized(&with_id(frame, extra))].concat())
            });
            past(lie.but_append()).says("correlation id");
        }
    }
}

#[test]
fn hos_04_swapped_answers_close_the_connection_and_both_requests_are_sent_again() {
    let (give, take) = std::sync::mpsc::channel();
    let mut case = case(Vec::new());
    // So that nothing but the two requests is on the way then.
    case.log_to("a");
    case.log_to("b");
    case.wait_until("two messages", |case| case.broker.arrived().len() == 2);
    case.broker.tell(vec![
        Lie::bytes(ApiKey::Produce, move |frame| {
            give.send(frame).unwrap();
            Reply::Nothing
        }),
        Lie::bytes(ApiKey::Produce, move |frame| {
            Reply::Raw([sized(&frame), sized(&take.recv().unwrap())].concat())
        }),
    ]);
    case.log_to("a");
    case.wait_until("the first request", |case| case.broker.lies_left() == 1);
    case.log_to("b");
    let seen = case.delivers();
    seen.says("correlation id");
    assert_eq!((seen.times(2), seen.times(3)), (1, 1));
}

// ------------------------------------------------------------------------------------------- HOS-05

fn partitions(answer: &mut ProduceResponse) -> &mut Vec<PartitionProduceResponse> {
    &mut answer.responses[0].partition_responses
}

#[test]
fn hos_05_a_partition_that_is_not_answered_is_sent_again() {
    assert_eq!(past(Lie::produce(|answer| partitions(answer).clear())).times(0), 1);
    assert_eq!(past(Lie::produce(|answer| answer.responses.clear())).times(0), 1);
    past(Lie::produce(|answer| partitions(answer)[0].index += 1));
    past(Lie::produce(|answer| partitions(answer)[0].index = -1));
    past(Lie::produce(|answer| {
        answer.responses[0].name = TopicName(StrBytes::from_static_str("other"));
    }));
}

#[test]
fn hos_05_of_two_answers_for_a_partition_one_counts() {
    // 7 is REQUEST_TIMED_OUT. Taken by the broker in both cases, so a repetition shows.
    for (codes, times) in [([0, 7], 1), ([7, 0], 2), ([0, 0], 1)] {
        let lie = Lie::produce(move |answer| {
            let honest = partitions(answer)[0].clone();
            *partitions(answer) = codes.map(|code| honest.clone().with_error_code(code)).to_vec();
        });
        let mut case = case(vec![lie.but_append()]);
        case.log(1);
        assert_eq!(case.delivers().times(0), times, "{codes:?}");
    }
}

#[test]
fn hos_05_answers_for_what_was_not_asked_count_for_nothing_and_are_not_remembered() {
    let lies = (0..60).map(|lie| {
        Lie::produce(move |answer| {
            let foreign = |at| {
                let name = format!("{lie} {at} {}", "n".repeat(3000));
                TopicProduceResponse::default()
                    .with_name(TopicName(StrBytes::from_string(name)))
                    .with_partition_responses(vec![
                        PartitionProduceResponse::default().with_error_code(29),
                    ])
            };
            answer.responses.extend((0..30).map(foreign));
        })
        .but_append()
    });
    let mut case = case(lies.collect());
    case.log_until_all_is_told();
    let seen = case.delivers();
    assert!(seen.peak < 2 << 20, "{} bytes", seen.peak);
    assert!(!seen.lines.iter().any(|line| line.contains("nnn")), "{:?}", seen.lines);
}

// ------------------------------------------------------------------------------------------- HOS-06

/// Tells this of the cluster three times, the handshake not counted, then the truth.
fn past_metadata(change: impl Fn(&mut MetadataResponse) + Send + 'static) -> Seen {
    let mut case = case(vec![
        Lie::metadata(|_| ()),
        Lie::metadata(move |answer| {
            if !answer.topics.is_empty() {
                change(answer);
            }
        })
        .times(3),
    ]);
    case.log(3);
    case.delivers()
}

fn leaders(answer: &mut MetadataResponse, leader: i32) {
    for partition in &mut answer.topics[0].partitions {
        partition.leader_id = BrokerId(leader);
    }
}

#[test]
fn hos_06_leaders_that_nobody_knows_are_waited_for() {
    for leader in [-1, 99, i32::MIN, i32::MAX] {
        past_metadata(move |answer| leaders(answer, leader));
    }
}

#[test]
fn hos_06_brokers_that_cannot_be_are_ignored() {
    let hosts = ["", "a\0b", "a\nb", "a b", "\x1b[31m"].map(str::to_owned);
    for host in hosts.into_iter().chain(["h".repeat(64 * 1024 - 1)]) {
        past_metadata(move |answer| {
            answer.brokers[0].host = StrBytes::from_string(host.clone());
        });
    }
    for port in [0, -1, 65_536, i32::MAX] {
        past_metadata(move |answer| answer.brokers[0].port = port);
    }
    for id in [-1, i32::MIN] {
        past_metadata(move |answer| answer.brokers[0].node_id = BrokerId(id));
    }
    past_metadata(|answer| answer.brokers.clear());
}

#[test]
fn hos_06_the_first_of_two_brokers_with_one_id_counts() {
    past_metadata(|answer| {
        let other = answer.brokers[0].clone().with_port(1);
        answer.brokers.push(other);
    });
    past_metadata(|answer| {
        let other = answer.brokers[0].clone().with_port(1);
        answer.brokers.insert(0, other);
    })
    .says("127.0.0.1:1: cannot connect");
}

#[test]
fn hos_06_leader_epochs_that_go_back_do_not_lock_out_the_truth() {
    for epoch in [1, i32::MAX, i32::MIN] {
        // With a leader that is none, and with the one that is.
        for leader in [99, NODE] {
            past_metadata(move |answer| {
                leaders(answer, leader);
                for partition in &mut answer.topics[0].partitions {
                    partition.leader_epoch = epoch;
                }
            });
        }
    }
}

#[test]
fn hos_06_partitions_that_do_not_add_up_are_not_built_upon() {
    past_metadata(|answer| answer.topics[0].partitions.clear());
    past_metadata(|answer| answer.topics.clear());
    for index in [-1, 1, 2, i32::MAX, i32::MIN] {
        past_metadata(move |answer| answer.topics[0].partitions[0].partition_index = index);
    }
    past_metadata(|answer| {
        let twice = answer.topics[0].clone();
        answer.topics.push(twice);
    });
    past_metadata(|answer| answer.topics[0].name = None);
}

#[test]
fn hos_06_every_error_that_a_topic_may_have_passes() {
    for code in [3, 5, 7, 17, 29, 103, 1000, -1, i16::MAX, i16::MIN] {
        let mut case = case(vec![
            Lie::metadata(|_| ()),
            Lie::metadata(move |answer| {
                for topic in &mut answer.topics {
                    topic.error_code = code;
                }
            }),
        ]);
        case.log(3);
        case.keeps();
    }
}

// ------------------------------------------------------------------------------------------- HOS-07

fn past_versions(text: &str, change: impl Fn(&mut ApiVersionsResponse) + Send + 'static) -> Seen {
    let mut case = case(vec![Lie::versions(change).times(4)]);
    case.log(3);
    let seen = case.delivers();
    seen.says(text);
    assert!(seen.connections < 20, "{} connections", seen.connections);
    seen
}

#[test]
fn hos_07_versions_that_cannot_be_are_named() {
    past_versions("does not offer Metadata", |answer| answer.api_keys.clear());
    past_versions("no version (lowest 9, highest 3)", |answer| {
        for offer in &mut answer.api_keys {
            (offer.min_version, offer.max_version) = (9, 3);
        }
    });
    past_versions("versions 14 to 20", |answer| {
        (answer.api_keys[0].min_version, answer.api_keys[0].max_version) = (14, 20);
    });
    past_versions("versions -5 to -1", |answer| {
        (answer.api_keys[0].min_version, answer.api_keys[0].max_version) = (-5, -1);
    });
    past_versions("no version", |answer| {
        let other = answer.api_keys[1].clone().with_min_version(13).with_max_version(13);
        answer.api_keys.push(other);
    });
    past_versions("refused to tell its versions", |answer| answer.error_code = 41);
}

#[test]
fn hos_07_a_hint_to_ask_in_an_older_version_is_followed_once() {
    // 35 is UNSUPPORTED_VERSION, whose answer is always of version 0.
    let hint = || {
        Lie::bytes(ApiKey::ApiVersions, |frame| {
            Reply::Frame([&frame[..4], &[0, 35, 0, 0, 0, 0]].concat())
        })
    };
    let mut case = case(vec![hint().times(8)]);
    case.log(3);
    let seen = case.delivers();
    seen.says("UNSUPPORTED_VERSION");
    assert!(seen.connections < 20, "{} connections", seen.connections);
}

#[test]
fn flt_26_a_listener_that_tells_its_versions_and_refuses_all_else_is_not_called_connected() {
    let refuses = Lie::bytes(ApiKey::Metadata, |_| Reply::RawThenClose(Vec::new()));
    let options = [("message_timeout_ms", 500)];
    let mut case = Case::start((12, 12), vec![refuses.times(usize::MAX)], &options);
    case.log(1);
    let seen = case.keeps();
    assert!(seen.connections > 2, "{} connections", seen.connections);
    seen.says("security_protocol");
    assert!(!seen.lines.iter().any(|line| line.contains(" connected")), "{:?}", seen.lines);
}

#[test]
fn flt_26_an_error_without_words_ends_with_its_code() {
    let seen = past(Lie::produce(|answer| partitions(answer)[0].error_code = 7));
    let line = seen.lines.iter().find(|line| line.contains("REQUEST_TIMED_OUT")).unwrap();
    assert!(line.ends_with("REQUEST_TIMED_OUT (7)"), "{line:?}");
}

// ------------------------------------------------------------------------------------------- HOS-08

#[test]
fn hos_08_offsets_that_cannot_be_are_no_success() {
    for offset in [-1, i64::MIN, i64::MAX, i64::MAX - 1] {
        // Three records in the batch: the highest two offsets have no room for them.
        let lie = Lie::produce(move |answer| partitions(answer)[0].base_offset = offset);
        let mut case = Case::start((12, 12), vec![lie], &[("queue_buffering_max_ms", 50)]);
        for _ in 0..3 {
            case.log_without_hurry("t");
        }
        let seen = case.delivers();
        assert_eq!(seen.times(0), 1);
    }
}

#[test]
fn hos_08_a_throttle_of_weeks_neither_blocks_the_end_nor_loses_anything() {
    for throttle in [i32::MAX, i32::MIN, -1] {
        for api in [ApiKey::Metadata, ApiKey::Produce] {
            let lies = match api {
                ApiKey::Metadata => {
                    vec![
                        Lie::metadata(|_| ()),
                        Lie::metadata(move |a| a.throttle_time_ms = throttle),
                    ]
                }
                _ => vec![Lie::produce(move |a| a.throttle_time_ms = throttle).but_append()],
            };
            let mut case = Case::start((12, 12), lies, &[("message_timeout_ms", 200)]);
            case.log(1);
            case.wait_until("the lies told", |case| case.broker.lies_left() == 0);
            case.log(2);
            let seen = case.keeps();
            // The Metadata answer slows down a connection that is not needed any more.
            if throttle == i32::MAX && api == ApiKey::Produce {
                assert!(!seen.backed_up.is_empty(), "{:?}", seen.lines);
            } else {
                assert!(seen.backed_up.is_empty(), "{:?}", seen.lines);
            }
        }
    }
}

#[test]
fn hos_08_no_error_is_success() {
    let codes = (-2..=140).filter(|code| *code != 0).chain([i16::MIN, i16::MAX]);
    for retries in [0, 1000] {
        let lies = codes.clone().map(|code| {
            Lie::produce(move |answer| {
                for topic in &mut answer.responses {
                    for partition in &mut topic.partition_responses {
                        partition.error_code = code;
                    }
                }
            })
        });
        let options = [("message_send_max_retries", retries)];
        let mut case = Case::start((12, 12), lies.collect(), &options);
        case.log_until_all_is_told();
        assert!(!case.keeps().backed_up.is_empty());
    }
}

// ------------------------------------------------------------------------------------------- HOS-10

#[test]
fn hos_10_what_brokers_say_is_logged_clean_and_cut() {
    let texts = [
        "two\nlines\r\n2026/01/01 00:00:00 [emerg] 1#1: forged".to_owned(),
        "\x1b[2J\x1b[31mred\x07\u{9b}31m".to_owned(),
        "%s%n%x%1000000d".to_owned(),
        "right \u{202e}tfel\u{2066} \u{2028}line".to_owned(),
        "\0".to_owned(),
        "long ".repeat(10_000),
        "\u{1F980}".repeat(5_000),
    ];
    for text in texts {
        let said = StrBytes::from_string(text.clone());
        let lie = Lie::produce(move |answer| {
            let partition = &mut partitions(answer)[0];
            partition.error_code = 7;
            partition.error_message = Some(said.clone());
        });
        let seen = past(lie);
        seen.says("REQUEST_TIMED_OUT");
        for part in ["\u{202e}", "\u{2066}", "\u{2028}"] {
            assert!(!seen.lines.iter().any(|line| line.contains(part)), "{:?}", seen.lines);
        }
    }
}

#[test]
fn hos_10_a_text_of_a_megabyte_takes_no_more_than_a_short_one() {
    let said = StrBytes::from_string("m".repeat(1 << 20));
    let seen = past(Lie::produce(move |answer| {
        let partition = &mut partitions(answer)[0];
        partition.error_code = 7;
        partition.error_message = Some(said.clone());
    }));
    assert!(seen.lines.iter().any(|line| line.contains("Produce") || line.contains("REQUEST")));
}
