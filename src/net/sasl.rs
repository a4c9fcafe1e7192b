//! Authentication at the start of a connection, and again before its session ends (KIP-43, KIP-152, KIP-368).
//!
//! The mechanisms are rsasl's. What it leaves to its user is done here: a broker's token is looked at before it is
//! handed on, the rounds of hashing that it asks for are bounded, and they are done on a thread of their own, since
//! this one has other brokers to serve. With SCRAM a connection counts as authenticated when the *broker* has shown
//! that it knows the password, and not before.

use super::{NetError, frame};
use crate::config::{Credentials, FEWEST_ITERATIONS};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::header::{ApiKey, finish_frame, put_request_header, read_response_header};
use crate::protocol::primitives::{DecodeError, Form, Put, Reader};
use crate::protocol::sasl::{
    SaslAuthenticateResponse, SaslHandshakeResponse, put_sasl_authenticate_request,
    put_sasl_handshake_request,
};
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::properties::Iterations;
use rsasl::prelude::{Mechname, SASLClient, SASLConfig, Session, SessionError, State};
use rsasl::property::{AuthId, Password};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

/// Why a connection was not authenticated.
#[derive(Debug, thiserror::Error)]
pub enum SaslError {
    /// The listener has no SASL.
    #[error("the listener wants no authentication: set security_protocol to \"plaintext\"")]
    NotWanted,
    /// The mechanism is not among the broker's.
    #[error("the broker does not take {mechanism} (sasl_mechanisms), only {offered}")]
    Mechanism {
        /// Ours.
        mechanism: &'static str,
        /// The broker's, with commas.
        offered: String,
    },
    /// The broker's answer is an error.
    #[error("authentication failed (sasl_username, sasl_password): {error}{}", message.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Refused {
        /// Its code.
        error: ErrorCode,
        /// Its words.
        message: Option<String>,
    },
    /// How brokers before 1.0 refuse a password.
    #[error(
        "closed the connection in the middle of authentication: a wrong sasl_username or sasl_password?"
    )]
    Closed,
    /// The broker asks for too few rounds of hashing, or too many.
    #[error(
        "the broker wants {iterations} iterations of SCRAM, not {FEWEST_ITERATIONS} to {most} (scram_max_iterations)"
    )]
    Iterations {
        /// What it asks for.
        iterations: u32,
        /// The most that are done.
        most: u32,
    },
    /// The broker's token is none of the mechanism's, or does not show that it knows the password.
    #[error("the broker did not authenticate itself: {0}")]
    Token(String),
    /// The mechanism failed on this side.
    #[error("cannot authenticate: {0}")]
    Mechanics(String),
}

/// The largest answer here: the largest token has a nonce, a salt and a number.
const LARGEST_ANSWER: usize = 16 * 1024;

/// Correlation ids, which no other request has: they are below 0.
const HANDSHAKE_ID: i32 = -1;
const AUTHENTICATE_ID: i32 = -2;

/// A session is renewed when this many tenths of its lifetime are over.
const RENEWED_AFTER: u64 = 9;
/// And not more often than this, whatever a broker says.
const SHORTEST_SESSION: Duration = Duration::from_secs(1);

/// Authenticates. Returns how long the session is good for, if the broker sets it a limit. `version` is that of
/// SaslAuthenticate, or `None` for tokens without headers.
pub(super) async fn authenticate(
    credentials: &Credentials,
    client_id: &str,
    version: Option<i16>,
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
) -> Result<Option<Duration>, NetError> {
    let (out, frame) = Default::default();
    let mut exchange = Exchange { client_id, version, from, to, out, frame };
    exchange.name_mechanism(credentials.mechanism.name()).await?;
    let mut client = Client::start(credentials)?;
    let mut token = client.step(None)?;
    loop {
        let (theirs, lifetime_ms) = exchange.tell(&token).await?;
        if client.is_done {
            return Ok(renewal(lifetime_ms));
        }
        let stepped = tokio::task::spawn_blocking(move || {
            let ours = client.step(Some(&theirs));
            (client, ours)
        });
        let ours;
        (client, ours) = stepped.await.map_err(|error| SaslError::Mechanics(error.to_string()))?;
        token = ours?;
        // The broker had the last word.
        if client.is_done {
            return Ok(renewal(lifetime_ms));
        }
    }
}

/// When a session of this lifetime is to be renewed; 0 or less: never.
fn renewal(lifetime_ms: i64) -> Option<Duration> {
    let lifetime = u64::try_from(lifetime_ms).ok().filter(|ms| *ms > 0)?;
    Some(Duration::from_millis(lifetime / 10 * RENEWED_AFTER).max(SHORTEST_SESSION))
}

/// The requests and answers that carry tokens.
struct Exchange<'a, R, W> {
    client_id: &'a str,
    /// Of SaslAuthenticate.
    version: Option<i16>,
    from: R,
    to: W,
    /// The request that is sent; there may be a password in it.
    out: Zeroizing<Vec<u8>>,
    /// The answer read last.
    frame: Vec<u8>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Exchange<'_, R, W> {
    async fn name_mechanism(&mut self, mechanism: &'static str) -> Result<(), NetError> {
        let (api, version) = (ApiKey::SaslHandshake, i16::from(self.version.is_some()));
        let start = put_request_header(&mut self.out, api, version, HANDSHAKE_ID, self.client_id);
        put_sasl_handshake_request(&mut self.out, mechanism);
        finish_frame(&mut self.out, start);
        self.ask().await?;
        let mut reader = self.body(api, version, HANDSHAKE_ID)?;
        let answer = SaslHandshakeResponse::decode(version, &mut reader).map_err(wrong(api))?;
        match answer.error {
            ErrorCode::NONE => Ok(()),
            ErrorCode::ILLEGAL_SASL_STATE => Err(SaslError::NotWanted.into()),
            ErrorCode::UNSUPPORTED_SASL_MECHANISM => {
                let offered = answer.mechanisms.join(", ");
                Err(SaslError::Mechanism { mechanism, offered }.into())
            }
            error => Err(SaslError::Refused { error, message: None }.into()),
        }
    }

    /// Sends a token; returns the broker's and the lifetime of the session.
    async fn tell(&mut self, token: &[u8]) -> Result<(Vec<u8>, i64), NetError> {
        let Some(version) = self.version else {
            self.out.put_bytes(Form::Classic, token);
            self.ask().await?;
            return Ok((std::mem::take(&mut self.frame), 0));
        };
        let (api, id) = (ApiKey::SaslAuthenticate, AUTHENTICATE_ID);
        let start = put_request_header(&mut self.out, api, version, id, self.client_id);
        put_sasl_authenticate_request(&mut self.out, version, token);
        finish_frame(&mut self.out, start);
        self.ask().await?;
        let mut reader = self.body(api, version, id)?;
        let answer = SaslAuthenticateResponse::decode(version, &mut reader).map_err(wrong(api))?;
        if answer.error != ErrorCode::NONE {
            let (error, message) = (answer.error, answer.message);
            return Err(SaslError::Refused { error, message }.into());
        }
        Ok((answer.token, answer.session_lifetime_ms))
    }

    /// Sends what is in `out` and reads one frame.
    async fn ask(&mut self) -> Result<(), NetError> {
        self.to.write_all(&self.out).await.map_err(|error| closed(error.into()))?;
        self.out.clear();
        let size = frame::length(&mut self.from).await.map_err(closed)?.ok_or(SaslError::Closed)?;
        let size = size as usize;
        if size > LARGEST_ANSWER {
            return Err(NetError::TooLarge { size, largest: LARGEST_ANSWER });
        }
        frame::body(&mut self.from, &mut self.frame, size).await.map_err(closed)
    }

    /// What follows the header of the answer read last.
    fn body(&self, api: ApiKey, version: i16, id: i32) -> Result<Reader<'_>, NetError> {
        let mut reader = Reader::new(&self.frame);
        let got = read_response_header(&mut reader, api, version).map_err(wrong(api))?;
        if got == id { Ok(reader) } else { Err(NetError::Correlation { got, expected: Some(id) }) }
    }
}

fn wrong(api: ApiKey) -> impl Fn(DecodeError) -> NetError {
    move |source| NetError::Decode { api: api.name(), source }
}

/// A connection that ends here ends for one reason, however it ends.
fn closed(error: NetError) -> NetError {
    match error {
        NetError::Closed => SaslError::Closed.into(),
        NetError::Io(error)
            if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
        {
            SaslError::Closed.into()
        }
        error => error,
    }
}

/// This side of the mechanism.
pub struct Client {
    session: Session,
    is_done: bool,
}

impl Client {
    /// A client that has said nothing yet.
    pub fn start(credentials: &Credentials) -> Result<Client, SaslError> {
        let mechanics = |error: &dyn std::fmt::Display| SaslError::Mechanics(error.to_string());
        let config = SASLConfig::builder()
            .with_default_mechanisms()
            .with_callback(Answers(credentials.clone()))
            .map_err(|error| mechanics(&error))?;
        let name = credentials.mechanism.name().as_bytes();
        let name = Mechname::parse(name).map_err(|error| mechanics(&error))?;
        let session =
            SASLClient::new(config).start_suggested(&[name]).map_err(|error| mechanics(&error))?;
        Ok(Client { session, is_done: false })
    }

    /// Whether it has said, and heard, all that it needs to: then no step is left.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Takes the broker's token, of which there is none at first, and returns the next one. Takes as long as the
    /// rounds of hashing that the token asks for.
    pub fn step(&mut self, theirs: Option<&[u8]>) -> Result<Zeroizing<Vec<u8>>, SaslError> {
        if theirs.is_some_and(|token| !is_well_formed(token)) {
            return Err(SaslError::Token("not a message of SCRAM".to_owned()));
        }
        let mut ours = Zeroizing::default();
        match self.session.step(theirs, &mut *ours) {
            Ok(state) => {
                self.is_done = matches!(state, State::Finished(_));
                Ok(ours)
            }
            Err(SessionError::Boxed(error)) => Err(match error.downcast::<SaslError>() {
                Ok(error) => *error,
                Err(error) => SaslError::Mechanics(error.to_string()),
            }),
            Err(error) if theirs.is_some() => Err(SaslError::Token(error.to_string())),
            Err(error) => Err(SaslError::Mechanics(error.to_string())),
        }
    }
}

/// Whether a token consists of attributes as SCRAM has them: a letter, an equals sign and a value each (RFC 5802,
/// section 7). The mechanism takes that for granted.
fn is_well_formed(token: &[u8]) -> bool {
    token.split(|byte| *byte == b',').all(|attribute| matches!(attribute, [_, b'=', ..]))
}

/// What the mechanism asks its user.
struct Answers(Credentials);

impl SessionCallback for Answers {
    fn callback(
        &self,
        _: &SessionData,
        context: &Context<'_>,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        let Answers(credentials) = self;
        if let Some(iterations) = context.get_ref::<Iterations>() {
            let (iterations, most) = (*iterations, credentials.max_iterations);
            if !(FEWEST_ITERATIONS..=most).contains(&iterations) {
                let refused = SaslError::Iterations { iterations, most };
                return Err(SessionError::Boxed(Box::new(refused)));
            }
        }
        request
            .satisfy::<AuthId>(&credentials.username)?
            .satisfy::<Password>(credentials.password.expose().as_bytes())?;
        Ok(())
    }
}
