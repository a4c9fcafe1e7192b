//! HOS-09: a broker that lies while it is authenticated with. It is refused by what it did, does not get the
//! password, and costs neither time nor memory.

use crate::broker::{Lie, Reply};
use crate::case::{Case, Seen};
use crate::counts_everywhere;
use kafka_protocol::messages::SaslAuthenticateResponse;
use kafka_protocol::protocol::StrBytes;
use lkfk::protocol::header::ApiKey;
use std::time::{Duration, Instant};

/// The broker's tokens: its nonce, salt and rounds, and then its signature.
const FIRST: usize = 0;
const FINAL: usize = 1;

/// Logs a few messages past one lie and returns what was seen.
fn past(lie: Lie) -> Seen {
    let mut case = Case::with_sasl(vec![lie]);
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

fn rounds(asked: &'static str) -> Lie {
    token(FIRST, move |honest| honest.replace("i=4096", &format!("i={asked}")))
}

#[test]
fn hos_09_an_honest_broker_is_authenticated_with_in_either_way() {
    let mut case = Case::with_sasl(vec![Lie::mechanisms(|_| {})]);
    case.log(3);
    case.delivers().says("SCRAM-SHA-256 as nginx");
    // Before Kafka 1.0 there is no SaslAuthenticate.
    let seen = past(Lie::versions(|versions| versions.api_keys.retain(|api| api.api_key != 36)));
    seen.says("SCRAM-SHA-256 as nginx");
}

#[test]
fn hos_09_too_few_and_too_many_rounds_are_refused_at_once() {
    for asked in ["1", "4095", "1000001", "4294967295"] {
        let began = Instant::now();
        let seen = past(rounds(asked));
        seen.says(&format!("wants {asked} iterations of SCRAM, not 4096 to 1000000"));
        assert!(began.elapsed() < Duration::from_secs(2), "{asked}: {:?}", began.elapsed());
    }
    for asked in ["0", "-1", "4294967296", "many", "", "4096 ", "1e9"] {
        past(rounds(asked)).says("the broker did not authenticate itself");
    }
}

#[test]
fn hos_09_the_rounds_that_count_are_those_that_are_done() {
    // What stands behind them is an extension, which may be ignored (RFC 5802, section 5.1).
    past(token(FIRST, |honest| format!("{honest},i=1"))).says("connected");
    past(token(FIRST, |honest| honest.replace("i=4096", "i=1,i=4096"))).says("wants 1 iterations");
}

#[test]
fn hos_09_a_nonce_that_is_not_ours_and_more_is_refused() {
    let nonces: [fn(&str) -> String; 4] = [
        |_| "r=".to_owned(),
        |_| "r=another,".to_owned().replace(',', ""),
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
    let long =
        |len: usize| move |honest: String| honest.replace("s=", &format!("s={}", "A".repeat(len)));
    past(token(FIRST, long(12_000))).says("SASL_AUTHENTICATION_FAILED");
    let seen = past(token(FIRST, long(10 << 20)));
    seen.says("an answer of 10485");
    assert!(seen.peak < 1 << 20, "{} bytes", seen.peak);
    past(token(FIRST, |honest| honest.replace("s=", "s=!"))).says("base64");
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
fn hos_09_steps_without_end_are_ended() {
    // Its first token over and over.
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
        let mut case = Case::with_sasl(lies.collect());
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
    let old = || Lie::versions(|versions| versions.api_keys.retain(|api| api.api_key != 36));
    let lies: [(Lie, &str); 4] = [
        (rounds("1"), "wants 1 iterations"),
        (token(FIRST, |_| String::new()), "did not authenticate itself"),
        (token(FINAL, |_| "v=AAAA".to_owned()), "did not authenticate itself"),
        (token(FINAL, |_| "v".repeat(100_000)), "an answer of 100000 bytes"),
    ];
    for (lie, cause) in lies {
        let mut case = Case::with_sasl(vec![old(), lie]);
        case.log(3);
        case.delivers().says(cause);
    }
}

#[test]
fn hos_09_a_broker_that_says_nothing_more_is_left_in_time() {
    let silent = || Lie::bytes(ApiKey::SaslAuthenticate, |_| Reply::Nothing);
    past(silent()).says("authentication took longer than 2000 ms");
    let closes = Lie::bytes(ApiKey::SaslAuthenticate, |_| Reply::RawThenClose(Vec::new()));
    past(closes).says("closed the connection in the middle of authentication");
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

#[test]
fn hos_09_sessions_of_any_length_are_lived_with() {
    for lifetime in [1, -1, i64::MIN, i64::MAX] {
        past(Lie::token(FINAL, move |answer| answer.session_lifetime_ms = lifetime));
    }
}

#[test]
fn hos_02_counts_that_promise_too_much_in_authentication() {
    for (api, len) in [(ApiKey::SaslHandshake, 30), (ApiKey::SaslAuthenticate, 110)] {
        let mut case = Case::with_sasl(counts_everywhere(api, len));
        case.log(3);
        case.wait_until("all lies told", |case| case.broker.lies_left() == 0);
        case.keeps().says(" answer: ");
    }
}
