//! The broker's side of SCRAM-SHA-256 (RFC 5802), for one user, with the hashing that rsasl has. That it is what
//! Kafka does is `spec/sasl_spec.lua`'s concern.

use base64::prelude::{BASE64_STANDARD, Engine};
use kafka_protocol::messages::{SaslAuthenticateResponse, SaslHandshakeResponse};
use kafka_protocol::protocol::StrBytes;
use rsasl::mechanisms::scram::tools;
use sha2::{Digest, Sha256};

pub const USER: &str = "nginx";
pub const PASSWORD: &str = "open sesame";

const NONCE: &str = "the-broker-s-nonce";
const SALT: &str = "c2FsdCBhbmQgcGVwcGVy";
const ROUNDS: u32 = 4096;
/// Without channel binding: "n,,".
const CHANNEL_BINDING: &str = "biws";

const AUTHENTICATION_FAILED: i16 = 58;

/// Where the authentication of one connection is.
#[derive(Default)]
pub struct Scram {
    bare: bool,
    tokens: usize,
    client_nonce: String,
    authenticated: bool,
}

impl Scram {
    /// The answer to SaslHandshake of this version.
    pub fn begin(&mut self, version: i16) -> SaslHandshakeResponse {
        *self = Scram { bare: version == 0, authenticated: self.authenticated, ..Scram::default() };
        let mechanism = StrBytes::from_static_str("SCRAM-SHA-256");
        SaslHandshakeResponse::default().with_mechanisms(vec![mechanism])
    }

    /// Whether the next frame has no header.
    pub fn expects_bare_tokens(&self) -> bool {
        self.bare && self.tokens < 2
    }

    /// Tokens that were answered.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// The answer to a token.
    pub fn answer(&mut self, token: &[u8]) -> SaslAuthenticateResponse {
        self.tokens += 1;
        let answer = match self.tokens {
            1 => {
                let token = std::str::from_utf8(token).expect("the first token is text");
                let (_, nonce) = token.split_once(",r=").expect("a nonce");
                nonce.clone_into(&mut self.client_nonce);
                Some(format!("r={nonce}{NONCE},s={SALT},i={ROUNDS}"))
            }
            2 => self.signature(token).map(|signature| format!("v={signature}")),
            _ => panic!("a token too many: {token:?}"),
        };
        match answer {
            Some(answer) => {
                SaslAuthenticateResponse::default().with_auth_bytes(answer.into_bytes().into())
            }
            None => SaslAuthenticateResponse::default().with_error_code(AUTHENTICATION_FAILED),
        }
    }

    /// The broker's proof, if the client's is right.
    fn signature(&mut self, token: &[u8]) -> Option<String> {
        let nonce = &self.client_nonce;
        let head = format!("c={CHANNEL_BINDING},r={nonce}{NONCE},p=");
        let proof = BASE64_STANDARD.decode(token.strip_prefix(head.as_bytes())?).unwrap();
        let salt = BASE64_STANDARD.decode(SALT).unwrap();
        let (mut salted, mut client, mut server) = Default::default();
        tools::hash_password::<Sha256>(PASSWORD.as_bytes(), ROUNDS, &salt, &mut salted);
        let (client_key, server_key) = tools::derive_keys::<Sha256>(&salted);
        tools::compute_signatures::<Sha256>(
            &Sha256::digest(client_key),
            &server_key,
            USER,
            nonce.as_bytes(),
            NONCE.as_bytes(),
            SALT.as_bytes(),
            ROUNDS.to_string().as_bytes(),
            CHANNEL_BINDING.as_bytes(),
            &mut client,
            &mut server,
        );
        let expected: Vec<u8> = client_key.iter().zip(client).map(|(key, bit)| key ^ bit).collect();
        self.authenticated = proof == expected;
        self.authenticated.then(|| BASE64_STANDARD.encode(server))
    }
}
