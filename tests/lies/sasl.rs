//! HOS-09: a broker that lies while it is authenticated with. It is refused by what it did, does not get the
//! password, and costs neither time nor memory.

use super::case::{Case, Seen};
use crate::counts_everywhere;
use crate::support::broker::{Lie, Reply};
use kafka_protocol::messages::SaslAuthenticateResponse;
use kafka_protocol::protocol::StrBytes;
use lkfk::internals::protocol::header::ApiKey;
use std::time::Duration;

/// The broker's tokens: its nonce, salt and rounds, and then its signature.
const FIRST: usize = 0;
const FINAL: usize = 1;

const SCRAM: &str = "SCRAM-SHA-256";

/// Connections that it takes without any lie: to the address that was given, and to the broker it leads to.
const CONNECTIONS: usize = 2;

/// Logs a few messages past one lie and returns what was seen.
fn past(lie: Lie) -> Seen {
    let mut case = Case::with_sasl(SCRAM, vec![lie]);
    case.log(3);
    case.delivers()
}

/// The answer to this token, with other content.
fn token(number: usize, mut change: impl FnMut(String) -> String + Send + 'static) -> Lie {
    Lie::token(number, move |answer| {
        let honest = String::from_utf8(answer.auth_bytes.to_vec()).unwrap();
        answer.auth_bytes = change(honest).into_bytes().into();
    })
}

/// Its rounds, or with `s` its salt, begin with something else. The nonce before them has no comma.
fn attribute(name: char, begins: String) -> Lie {
    token(FIRST, move |honest| {
        let (was, is) = (format!(",{name}="), format!(",{name}={begins}"));
        honest.replacen(&was, &is, 1)
    })
}

fn rounds(asked: &'static str) -> Lie {
    token(FIRST, move |honest| {
        let (rest, _) = honest.rsplit_once("i=").unwrap();
        format!("{rest}i={asked}")
    })
}

/// Kafka before 1.0, which has no SaslAuthenticate.
fn old() -> Lie {
    Lie::versions(|versions| versions.api_keys.retain(|api| api.api_key != 36))
}

#[test]
fn hos_09_an_honest_broker_is_authenticated_with_at_once_in_each_way() {
    for mechanism in [SCRAM, "PLAIN"] {
        for lies in [vec![], vec![old().times(CONNECTIONS)]] {
            let mut case = Case::with_sasl(mechanism, lies);
            case.log(3);
            let seen = case.delivers();
            seen.says(&format!("{mechanism} as nginx"));
            assert_eq!(seen.connections, CONNECTIONS, "{mechanism}: {:?}", seen.lines);
        }
    }
}

#[test]
fn hos_09_too_few_and_too_many_rounds_are_refused() {
    // To do the last of them would take a quarter of an hour.
    for asked in ["1", "4095", "65537", "4294967295"] {
        past(rounds(asked)).says(&format!("wants {asked} iterations of SCRAM, not 4096 to 65536"));
    }
    for asked in ["0", "-1", "4294967296", "many", "", "4096 ", "1e9"] {
        past(rounds(asked)).says("the broker did not authenticate itself");
    }
}

#[test]
fn hos_09_the_rounds_that_count_are_those_that_are_done() {
    past(attribute('i', "1,i=".to_owned())).says("wants 1 iterations");
}

#[test]
fn hos_09_a_nonce_that_is_not_ours_and_more_is_refused() {
    let nonces: [fn(&str) -> String; 4] = [
        |_| "r=".to_owned(),
        |_| "r=another".to_owned(),
        |honest| honest.replace("the-broker-s-nonce", ""),
        |honest| honest.replacen("r=", "r=x", 1),
    ];
    for nonce in nonces {
        let lie = token(FIRST, move |honest| {
            let (first, rest) = honest.split_once(',').unwrap();
            format!("{},{rest}", nonce(first))
        });
        past(lie).says("SCRAM protocol error: returned server nonce is invalid");
    }
}

#[test]
fn hos_09_a_salt_of_any_size_takes_little_memory() {
    let long = |len: usize| attribute('s', "A".repeat(len));
    past(long(12_000)).says("SASL_AUTHENTICATION_FAILED");
    for (len, cause) in [(1 << 20, "an answer of 10486"), (10 << 20, "larger than 4 MiB")] {
        let seen = past(long(len));
        seen.says(cause);
        assert!(seen.peak < 1 << 20, "{} bytes", seen.peak);
    }
    past(attribute('s', "!".to_owned())).says("base64");
}

#[test]
fn hos_09_a_broker_that_does_not_know_the_password_is_refused() {
    let wrong: [fn(String) -> String; 5] = [
        |_| String::new(),
        |_| "v=".to_owned(),
        |_| "v=bm90IHRoZSBzaWduYXR1cmU=".to_owned(),
        |honest| honest.replace("v=", "v=AAAA"),
        |_| "e=other-error".to_owned(),
    ];
    for wrong in wrong {
        past(token(FINAL, wrong)).says("the broker did not authenticate itself");
    }
}

#[test]
fn hos_09_a_first_token_in_place_of_the_last_one_ends_it() {
    let again = token(FINAL, |_| "r=anything,s=c2FsdA==,i=4096".to_owned());
    past(again).says("the broker did not authenticate itself");
}

#[test]
fn hos_09_tokens_cut_at_each_byte_are_refused() {
    for number in [FIRST, FINAL] {
        let lies = (0..120).map(|len| {
            token(number, move |honest| {
                let len = len.min(honest.len().saturating_sub(5));
                honest[..len].to_owned()
            })
        });
        let mut case = Case::with_sasl(SCRAM, lies.collect());
        case.log(3);
        case.wait_until("all lies told", |case| case.broker.lies_left() == 0);
        case.keeps().says("the broker did not authenticate itself");
    }
}

#[test]
fn hos_09_attributes_that_are_none_are_refused() {
    for text in [",", ",,", "r", "r=,s", "=", "v", "m=ext,r=x,s=eA==,i=4096", "r=x,,i=4096", "\0"] {
        for number in [FIRST, FINAL] {
            past(token(number, move |_| text.to_owned())).says("did not authenticate itself");
        }
    }
}

#[test]
fn hos_09_bare_tokens_are_held_to_the_same() {
    let lies: [(Lie, &str); 4] = [
        (rounds("1"), "wants 1 iterations"),
        (token(FIRST, |_| String::new()), "did not authenticate itself"),
        (token(FINAL, |_| "v=AAAA".to_owned()), "did not authenticate itself"),
        (token(FINAL, |_| "v".repeat(100_000)), "an answer of 100000 bytes"),
    ];
    for (lie, cause) in lies {
        let mut case = Case::with_sasl(SCRAM, vec![old(), lie]);
        case.log(3);
        case.delivers().says(cause);
    }
}

#[test]
fn hos_09_a_broker_that_says_nothing_more_is_left_in_time() {
    let silent = || Lie::bytes(ApiKey::SaslAuthenticate, |_| Reply::Nothing);
    past(silent()).says("authentication took longer than 2000 ms");
    let closes = Lie::bytes(ApiKey::SaslAuthenticate, |_| Reply::RawThenClose(Vec::new()));
    past(closes).says("closed the connection during authentication");
}

#[test]
fn hos_09_errors_are_told_as_they_are() {
    let refused = |answer: &mut SaslAuthenticateResponse| {
        answer.error_code = 58;
        answer.error_message = Some(StrBytes::from_static_str("no\n\x1b[31mway %s"));
    };
    past(Lie::token(FIRST, refused)).says("SASL_AUTHENTICATION_FAILED");
    past(Lie::token(FINAL, refused)).says("SASL_AUTHENTICATION_FAILED");
    past(Lie::mechanisms(|answer| answer.error_code = 34)).says("wants no authentication");
    let others = Lie::mechanisms(|answer| {
        answer.error_code = 33;
        answer.mechanisms = vec![StrBytes::from_static_str("GSSAPI\n"); 500];
    });
    past(others).says("does not take SCRAM-SHA-256 (sasl_mechanisms), only GSSAPI");
}

/// A session that ends so many milliseconds after its begin; the first one alone, or all.
fn session(ms: i64) -> Lie {
    Lie::token(FINAL, move |answer| answer.session_lifetime_ms = ms)
}

#[test]
fn hos_09_sessions_of_any_length_are_lived_with() {
    for lifetime in [-1, i64::MIN, i64::MAX] {
        assert_eq!(past(session(lifetime)).connections, CONNECTIONS, "{lifetime}");
    }
}

/// Goes on logging for so long, in which sessions of a millisecond end.
fn log_for(case: &mut Case, time: Duration) {
    let pause = Duration::from_millis(50);
    for _ in 0..time.as_millis() / pause.as_millis() {
        case.log(1);
        std::thread::sleep(pause);
    }
}

#[test]
fn hos_09_a_session_is_renewed_on_its_connection_once_a_second_at_most() {
    let mut case = Case::with_sasl(SCRAM, vec![session(1).times(1000)]);
    log_for(&mut case, Duration::from_millis(2300));
    let authentications = case.broker.authentications();
    case.broker.tell_the_truth();
    assert!((4..=5).contains(&authentications), "{authentications}");
    assert_eq!(case.delivers().connections, CONNECTIONS);
}

#[test]
fn hos_09_a_renewal_that_fails_costs_a_connection_and_no_message() {
    let refuses = || Lie::mechanisms(|answer| answer.error_code = 58);
    let silent = || Lie::bytes(ApiKey::SaslHandshake, |_| Reply::Nothing);
    let closes = || Lie::bytes(ApiKey::SaslHandshake, |_| Reply::RawThenClose(Vec::new()));
    let lies: [(Lie, &str); 3] = [
        (refuses(), "authentication failed"),
        // What waits for it is the first to lose patience.
        (silent(), "no answer within request_timeout_ms"),
        (closes(), "closed the connection during authentication"),
    ];
    for (lie, cause) in lies {
        let mut case = Case::with_sasl(SCRAM, vec![session(1).times(CONNECTIONS), lie]);
        log_for(&mut case, Duration::from_millis(1300));
        case.delivers().says(cause);
    }
}

#[test]
fn hos_02_counts_that_promise_too_much_in_authentication() {
    for (api, len) in [(ApiKey::SaslHandshake, 30), (ApiKey::SaslAuthenticate, 110)] {
        let mut case = Case::with_sasl(SCRAM, counts_everywhere(api, len));
        case.log(3);
        case.wait_until("all lies told", |case| case.broker.lies_left() == 0);
        case.keeps().says(" answer: ");
    }
}
