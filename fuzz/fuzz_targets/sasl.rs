//! Tells the client of SCRAM arbitrary tokens: no panic, and no authentication without the password.
//!
//! The input is tokens with a line feed behind each; a `%` in one is the client's nonce, so that the second token is
//! reached. Run with `cargo +nightly fuzz run sasl`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lkfk::internals::config::{Credentials, FEWEST_ITERATIONS, Mechanism};
use lkfk::internals::net::sasl::Client;

fuzz_target!(|input: &[u8]| {
    let mechanism = match input.len() % 2 {
        0 => Mechanism::ScramSha256,
        _ => Mechanism::ScramSha512,
    };
    let mut client = Client::start(&Credentials {
        mechanism,
        username: "user".to_owned(),
        password: "password".into(),
        max_iterations: FEWEST_ITERATIONS,
    })
    .expect("a mechanism that there is");
    let first = client.step(None).expect("a first token");
    let nonce = first
        .split(|byte| *byte == b',')
        .find_map(|part| part.strip_prefix(b"r="))
        .expect("a nonce");
    for token in input.split(|byte| *byte == b'\n') {
        let mut told = Vec::new();
        for byte in token {
            match byte {
                b'%' => told.extend_from_slice(nonce),
                byte => told.push(*byte),
            }
        }
        if client.step(Some(&told)).is_err() {
            return;
        }
        assert!(!client.is_done(), "authenticated without the password: {token:?}");
    }
});
