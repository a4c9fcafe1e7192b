//! Authentication at the start of a connection, and again before its session ends (KIP-43, KIP-152, KIP-368).
//!
//! The mechanisms are rsasl's. What it leaves to its user is done here: a broker's token is looked at before it is
//! handed on, and the rounds of hashing that it asks for are bounded and done on another thread, since this one has
//! other brokers to serve; for one connection at a time, so that brokers that ask for many take one processor at
//! most. With SCRAM a connection counts as authenticated when the *broker* has shown that it knows the password,
//! and not before.

use super::NetError;
use super::answer_room::AnswerRoom;
use super::exchange::{Exchange, instead_of_closed};
use crate::config::{Credentials, FEWEST_ITERATIONS};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::header::ApiKey;
use crate::protocol::primitives::Form;
use crate::protocol::put::Put;
use crate::protocol::sasl::{
    SaslAuthenticateResponse, SaslHandshakeResponse, put_sasl_authenticate_request,
    put_sasl_handshake_request,
};
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::properties::Iterations;
use rsasl::prelude::{Mechname, SASLClient, SASLConfig, Session, SessionError, State};
use rsasl::property::{AuthId, Password};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Why a connection was not authenticated.
#[derive(Debug, thiserror::Error)]
pub enum SaslError {
    /// The listener has no SASL.
    #[error(
        "the listener wants no authentication: set security_protocol to \"plaintext\", or to \"ssl\" with TLS"
    )]
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
    #[error("{}: {error}{}", refusal(*.error), message.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Refused {
        /// Its code.
        error: ErrorCode,
        /// Its words.
        message: Option<String>,
    },
    /// The broker closed the connection.
    #[error("closed the connection during authentication")]
    Closed,
    /// The same before Kafka 1.0, whose brokers have no other way to say no.
    #[error("closed the connection during authentication: wrong sasl_username or sasl_password?")]
    ClosedOnToken,
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
    /// This side failed.
    #[error("cannot authenticate: {0}")]
    Internal(String),
}

fn refusal(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::SASL_AUTHENTICATION_FAILED => {
            "authentication failed (sasl_username, sasl_password)"
        }
        _ => "authentication failed",
    }
}

impl SaslError {
    /// Whether to try again soon is no use, and may do harm: an account that is locked, hashing for nothing.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, SaslError::Closed)
    }
}

/// The largest answer here: the largest token has a nonce, a salt and a number.
const LARGEST_ANSWER: usize = 16 * 1024;

/// Correlation ids, which no other request has: they are below 0.
const HANDSHAKE_ID: i32 = -1;
const AUTHENTICATE_ID: i32 = -2;

/// What a session is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime {
    /// When to authenticate again, counted from now.
    pub renew_after: Duration,
    /// How long that may take.
    pub left: Duration,
}

impl Lifetime {
    /// As the broker tells it, in milliseconds; 0 or less: without an end. A tenth is left for the renewal. It is
    /// not renewed more than once a second, whatever the broker says.
    fn told(ms: i64) -> Option<Lifetime> {
        let tenth = Duration::from_millis(u64::try_from(ms).ok().filter(|ms| *ms > 0)? / 10);
        Some(Lifetime { renew_after: (tenth * 9).max(Duration::from_secs(1)), left: tenth })
    }
}

/// Authenticates the connections of one driver.
#[derive(Debug)]
pub struct Authenticator {
    credentials: Credentials,
    /// One permit, for hashing.
    hashing: Arc<Semaphore>,
}

impl Authenticator {
    /// With these credentials.
    pub fn new(credentials: Credentials) -> Authenticator {
        Authenticator { credentials, hashing: Arc::new(Semaphore::new(1)) }
    }

    /// What it authenticates with.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Authenticates a connection. Returns how long its session lasts, if the broker sets it an end. `version` is
    /// that of SaslAuthenticate, or `None` for tokens without headers.
    pub(super) async fn authenticate(
        &self,
        client_id: &str,
        room: &AnswerRoom,
        version: Option<i16>,
        from: impl AsyncRead + Unpin,
        to: impl AsyncWrite + Unpin,
    ) -> Result<Option<Lifetime>, NetError> {
        let closed = || match version {
            Some(_) => SaslError::Closed.into(),
            None => SaslError::ClosedOnToken.into(),
        };
        let mut exchange = Exchange::new(client_id, room, from, to);
        exchange
            .name_mechanism(self.credentials.mechanism.name(), i16::from(version.is_some()))
            .await
            .map_err(instead_of_closed(SaslError::Closed.into()))?;
        let mut client = Client::start(&self.credentials)?;
        let mut token = client.step(None)?;
        loop {
            let answer = exchange.tell(version, &token).await.map_err(instead_of_closed(closed()));
            let (theirs, lifetime_ms) = answer?;
            if !client.is_done() {
                (client, token) = self.step_beside(client, theirs).await?;
            }
            // With SCRAM the broker has the last word, with PLAIN the client.
            if client.is_done() {
                return Ok(Lifetime::told(lifetime_ms));
            }
        }
    }

    /// A step that may take long, on another thread. The thread goes on when nobody waits any more, and until
    /// then none else begins.
    async fn step_beside(
        &self,
        mut client: Client,
        theirs: Vec<u8>,
    ) -> Result<(Client, Zeroizing<Vec<u8>>), SaslError> {
        // The semaphore is never closed.
        let permit = self.hashing.clone().acquire_owned().await.ok();
        let stepped = tokio::task::spawn_blocking(move || {
            let ours = client.step(Some(&theirs));
            drop(permit);
            ours.map(|ours| (client, ours))
        });
        stepped.await.unwrap_or_else(|fault| Err(SaslError::Internal(fault.to_string())))
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Exchange<'_, R, W> {
    async fn name_mechanism(
        &mut self,
        mechanism: &'static str,
        version: i16,
    ) -> Result<(), NetError> {
        let api = ApiKey::SaslHandshake;
        self.put(api, version, HANDSHAKE_ID, |out| put_sasl_handshake_request(out, mechanism));
        self.send().await?;
        self.receive(LARGEST_ANSWER).await?;
        let answer = self.decode(api, version, HANDSHAKE_ID, SaslHandshakeResponse::decode)?;
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
    async fn tell(
        &mut self,
        version: Option<i16>,
        token: &[u8],
    ) -> Result<(Vec<u8>, i64), NetError> {
        let Some(version) = version else {
            self.out.put_bytes(Form::Classic, token);
            self.send().await?;
            self.receive_bare(LARGEST_ANSWER).await?;
            return Ok((self.frame.take(), 0));
        };
        let (api, id) = (ApiKey::SaslAuthenticate, AUTHENTICATE_ID);
        self.put(api, version, id, |out| put_sasl_authenticate_request(out, version, token));
        self.send().await?;
        self.receive(LARGEST_ANSWER).await?;
        let answer = self.decode(api, version, id, SaslAuthenticateResponse::decode)?;
        if answer.error != ErrorCode::NONE {
            let error = answer.error;
            let message = answer.message.filter(|words| !words.trim().is_empty());
            return Err(SaslError::Refused { error, message }.into());
        }
        Ok((answer.token, answer.session_lifetime_ms))
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
        let internal = |error: &dyn std::fmt::Display| SaslError::Internal(error.to_string());
        let config = SASLConfig::builder()
            .with_default_mechanisms()
            .with_callback(Answers(credentials.clone()))
            .map_err(|error| internal(&error))?;
        let name = credentials.mechanism.name().as_bytes();
        let name = Mechname::parse(name).map_err(|error| internal(&error))?;
        let session =
            SASLClient::new(config).start_suggested(&[name]).map_err(|error| internal(&error))?;
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
                Err(error) => SaslError::Internal(error.to_string()),
            }),
            Err(error) if theirs.is_some() => Err(SaslError::Token(error.to_string())),
            Err(error) => Err(SaslError::Internal(error.to_string())),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_renewed_in_its_last_tenth_and_not_more_than_once_a_second() {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        for forever in [0, -1, i64::MIN] {
            assert_eq!(Lifetime::told(forever), None);
        }
        let of_an_hour = Lifetime::told(3_600_000).unwrap();
        assert_eq!(of_an_hour.renew_after + of_an_hour.left, hour);
        assert_eq!(of_an_hour.left, hour / 10);
        for short in [1, 9, 1_000] {
            assert_eq!(Lifetime::told(short).unwrap().renew_after, second);
        }
        assert!(Lifetime::told(i64::MAX).unwrap().renew_after > hour);
    }

    #[test]
    fn tokens_are_attributes_with_commas_between_them() {
        for token in ["v=x", "r=a,s=b,i=4096", "v="] {
            assert!(is_well_formed(token.as_bytes()), "{token}");
        }
        for token in ["", "v", "vx", ",", "r=a,", "r=a,,i=1", "=x"] {
            assert!(!is_well_formed(token.as_bytes()), "{token}");
        }
    }
}
