//! The broker's side of authentication, for one user: SCRAM-SHA-256 as RFC 5802 has it, and PLAIN.

use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, Mac};
use kafka_protocol::messages::{SaslAuthenticateResponse, SaslHandshakeResponse};
use kafka_protocol::protocol::StrBytes;
use sha2::{Digest, Sha256};

pub const USER: &str = "nginx";
pub const PASSWORD: &str = "open sesame";

const MECHANISMS: [&str; 2] = ["SCRAM-SHA-256", "PLAIN"];
const NONCE: &str = "the-broker-s-nonce";
const SALT: &[u8] = b"salt and pepper";
const ROUNDS: u32 = 4096;
const AUTHENTICATION_FAILED: i16 = 58;

/// Where the authentication of one connection is.
#[derive(Default)]
pub struct Scram {
    bare: bool,
    plain: bool,
    /// Tokens that are still to come.
    due: usize,
    tokens: usize,
    /// The first message of each side, as they are signed.
    first: String,
    times: usize,
}

impl Scram {
    /// The answer to SaslHandshake of this version.
    pub fn begin(&mut self, version: i16, mechanism: &str) -> SaslHandshakeResponse {
        let plain = mechanism == "PLAIN";
        let (due, times) = (if plain { 1 } else { 2 }, self.times);
        *self = Scram { bare: version == 0, plain, due, times, ..Scram::default() };
        let mechanisms = MECHANISMS.map(StrBytes::from_static_str);
        SaslHandshakeResponse::default().with_mechanisms(mechanisms.into())
    }

    /// Whether the next frame has no header.
    pub fn expects_bare_tokens(&self) -> bool {
        self.bare && self.due > 0
    }

    /// Whether the password is in what comes next, and is to be.
    pub fn expects_password(&self) -> bool {
        self.plain && self.due > 0
    }

    /// Tokens that were answered.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// How often it was authenticated.
    pub fn times(&self) -> usize {
        self.times
    }

    /// The answer to a token.
    pub fn answer(&mut self, token: &[u8]) -> SaslAuthenticateResponse {
        self.due = self.due.checked_sub(1).expect("a token that is due");
        self.tokens += 1;
        let answer = match (self.plain, self.tokens) {
            (true, _) => (token == format!("\0{USER}\0{PASSWORD}").as_bytes()).then(String::new),
            (false, 1) => Some(self.challenge(token)),
            (false, _) => self.signature(token).map(|signature| format!("v={signature}")),
        };
        self.times += usize::from(self.due == 0 && answer.is_some());
        match answer {
            Some(token) => {
                SaslAuthenticateResponse::default().with_auth_bytes(token.into_bytes().into())
            }
            None => SaslAuthenticateResponse::default().with_error_code(AUTHENTICATION_FAILED),
        }
    }

    fn challenge(&mut self, token: &[u8]) -> String {
        let first = std::str::from_utf8(token).expect("the first token is text");
        let first = first.strip_prefix("n,,").expect("no channel binding");
        let nonce = first.strip_prefix(&format!("n={USER},r=")).expect("the user and a nonce");
        let salt = BASE64_STANDARD.encode(SALT);
        let challenge = format!("r={nonce}{NONCE},s={salt},i={ROUNDS}");
        self.first = format!("{first},{challenge}");
        challenge
    }

    /// The broker's proof, if the client's is right.
    fn signature(&self, token: &[u8]) -> Option<String> {
        let token = std::str::from_utf8(token).ok()?;
        let (unproved, proof) = token.rsplit_once(",p=")?;
        let signed = format!("{},{unproved}", self.first);
        let salted = salted_password();
        let client_key = hmac(&salted, b"Client Key");
        let client_signature = hmac(&Sha256::digest(client_key), signed.as_bytes());
        let expected: Vec<u8> =
            client_key.iter().zip(client_signature).map(|(key, bits)| key ^ bits).collect();
        let server_signature = hmac(&hmac(&salted, b"Server Key"), signed.as_bytes());
        (BASE64_STANDARD.decode(proof).ok()? == expected)
            .then(|| BASE64_STANDARD.encode(server_signature))
    }
}

/// `Hi` of RFC 5802, section 2.2.
fn salted_password() -> [u8; 32] {
    let mut round = hmac(PASSWORD.as_bytes(), &[SALT, &[0, 0, 0, 1]].concat());
    let mut salted = round;
    for _ in 1..ROUNDS {
        round = hmac(PASSWORD.as_bytes(), &round);
        salted.iter_mut().zip(round).for_each(|(sum, bits)| *sum ^= bits);
    }
    salted
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("keys of any length");
    mac.chain_update(text).finalize().into_bytes().into()
}
