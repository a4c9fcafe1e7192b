//! The first exchange on a connection: what the broker speaks.
//!
//! | Kafka | ApiVersions, and Metadata v0 behind it | Metadata in a version there never was |
//! |---|---|---|
//! | 0.8 | closes | answers, as to v0 |
//! | 0.9 | leaves out the first, answers the second | answers, as to v0 |
//! | 0.10 and later | answers both | closes |
//!
//! So a broker shows in milliseconds what it is, and none is taken for an old one only because it
//! closed a connection. All of it is tried with the releases from 0.8.2.2 to 4.4.0.

use super::NetError;
use super::answer_room::AnswerRoom;
use super::exchange::{Exchange, instead_of_closed};
use crate::protocol::api_versions::{ApiVersionsResponse, Versions, put_api_versions_request};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::header::ApiKey;
use crate::protocol::metadata::{MetadataResponse, put_metadata_request};
use std::fmt;
use tokio::io::{AsyncRead, AsyncWrite};

/// The largest answer here: the versions of a hundred APIs take some 700 bytes, and Metadata v0 about no
/// topic names the brokers, 30 bytes or so each.
const LARGEST_ANSWER: usize = 64 * 1024;

/// Correlation ids from this on are not used here.
pub const FIRST_CORRELATION_ID: i32 = 3;

const API_VERSIONS_ID: i32 = 0;
const METADATA_ID: i32 = 1;
const API_VERSIONS_AGAIN_ID: i32 = 2;

/// A version that no release will have. 0.8 and 0.9 do not look at it.
const NO_VERSION: i16 = i16::MAX;

/// How to find out what a broker speaks.
///
/// Brokers close a connection on Metadata before authentication: with SASL only [`AskAlone`] and
/// [`Assume`] work.
///
/// [`AskAlone`]: Self::AskAlone
/// [`Assume`]: Self::Assume
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// Ask, in a way that 0.9 can be told by.
    Ask,
    /// Ask a broker that is known to be 0.10 or later.
    AskAlone,
    /// Make sure that it is 0.8 or 0.9.
    Recognise,
    /// Say nothing; it speaks these.
    Assume(Versions),
}

/// How the versions of a connection came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The broker told them.
    Told,
    /// It behaves as 0.8 and 0.9 do.
    Recognised,
    /// It was not asked.
    Assumed,
}

/// What stands behind the version in a log line.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Told => "",
            Origin::Recognised => ", Kafka 0.8 or 0.9",
            Origin::Assumed => ", not asked",
        })
    }
}

/// Finds out what to speak on a connection that was made just now.
pub(super) async fn perform(
    handshake: Handshake,
    client_id: &str,
    room: &AnswerRoom,
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
) -> Result<(Versions, Origin), NetError> {
    let mut exchange = Exchange::new(client_id, room, from, to);
    match handshake {
        Handshake::Ask => exchange.ask(true).await,
        Handshake::AskAlone => exchange.ask(false).await,
        Handshake::Recognise => exchange.recognise().await,
        Handshake::Assume(versions) => Ok((versions, Origin::Assumed)),
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Exchange<'_, R, W> {
    /// Asks for the broker's versions in the newest form and, when that is too new for it, in the
    /// oldest. `or_0_9`: it may be one that answers only the other question.
    async fn ask(&mut self, or_0_9: bool) -> Result<(Versions, Origin), NetError> {
        self.put_api_versions(3, API_VERSIONS_ID);
        if or_0_9 {
            self.put_metadata(0);
        }
        self.send().await.map_err(instead_of_closed(NetError::ClosedInHandshake))?;
        self.receive(LARGEST_ANSWER)
            .await
            .map_err(instead_of_closed(NetError::ClosedInHandshake))?;
        if or_0_9 && self.frame.first_chunk() == Some(&METADATA_ID.to_be_bytes()) {
            self.check_metadata()?;
            return Ok((Versions::OLDEST, Origin::Recognised));
        }
        let mut response = self.api_versions(3, API_VERSIONS_ID)?;
        let ask_again = response.error == ErrorCode::UNSUPPORTED_VERSION;
        if !ask_again {
            // Who speaks no version of ours need not answer the other question.
            Versions::negotiate(&response)?;
        } else {
            self.put_api_versions(0, API_VERSIONS_AGAIN_ID);
            self.send().await?;
        }
        if or_0_9 {
            let closed = instead_of_closed(NetError::ClosedOnMetadata);
            self.receive(LARGEST_ANSWER).await.map_err(closed)?;
            self.check_metadata()?;
        }
        if ask_again {
            self.receive(LARGEST_ANSWER).await?;
            response = self.api_versions(0, API_VERSIONS_AGAIN_ID)?;
        }
        Ok((Versions::negotiate(&response)?, Origin::Told))
    }

    async fn recognise(&mut self) -> Result<(Versions, Origin), NetError> {
        self.put_metadata(NO_VERSION);
        self.send().await.map_err(instead_of_closed(NetError::ClosedInHandshake))?;
        self.receive(LARGEST_ANSWER).await.map_err(instead_of_closed(NetError::NotOld))?;
        self.check_metadata()?;
        Ok((Versions::OLDEST, Origin::Recognised))
    }

    fn put_api_versions(&mut self, version: i16, id: i32) {
        self.put(ApiKey::ApiVersions, version, id, |out| put_api_versions_request(out, version));
    }

    /// A request of v0 about no topic, whatever its header says.
    fn put_metadata(&mut self, version: i16) {
        let body = |out: &mut Vec<u8>| put_metadata_request(out, 0, &[], false);
        let start = self.put(ApiKey::Metadata, 0, METADATA_ID, body);
        self.out[start + 6..start + 8].copy_from_slice(&version.to_be_bytes());
    }

    fn api_versions(&self, version: i16, id: i32) -> Result<ApiVersionsResponse, NetError> {
        self.decode(ApiKey::ApiVersions, version, id, ApiVersionsResponse::decode)
    }

    fn check_metadata(&self) -> Result<(), NetError> {
        self.decode(ApiKey::Metadata, 0, METADATA_ID, MetadataResponse::decode).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::api_versions::NegotiationError;
    use crate::protocol::primitives::Reader;
    use crate::protocol::put::Put;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    /// API, version and correlation id.
    type Request = (i16, i16, i32);
    const ASKED: [Request; 2] = [(18, 3, 0), (3, 0, 1)];

    /// What a peer does when all that is to come has come.
    enum Does {
        Answer(&'static [&'static [u8]]),
        Close,
    }
    use Does::{Answer, Close};

    const VERSIONS_V3: &[u8] =
        &[0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 11, 0, 0, 3, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0];
    const NOT_V3: &[u8] = &[0, 0, 0, 0, 0, 35, 0, 0, 0, 0];
    const VERSIONS_V0: &[u8] = &[0, 0, 0, 2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 1];
    const NO_BROKERS: &[u8] = &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];

    /// Performs a handshake with a peer that goes through `script`: each step waits for so many
    /// requests and then does its part. Returns what came of it, and the requests.
    fn with_peer(
        handshake: Handshake,
        script: &[(usize, Does)],
    ) -> (Result<(Versions, Origin), NetError>, Vec<Request>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (ours, theirs) = duplex(4096);
            let (from, to) = tokio::io::split(ours);
            let room = AnswerRoom::default();
            tokio::join!(perform(handshake, "client", &room, from, to), play(theirs, script))
        })
    }

    async fn play(mut peer: DuplexStream, script: &[(usize, Does)]) -> Vec<Request> {
        let mut requests = Vec::new();
        for (count, does) in script {
            for _ in 0..*count {
                let size = peer.read_i32().await.unwrap();
                let mut frame = vec![0; size as usize];
                peer.read_exact(&mut frame).await.unwrap();
                let mut reader = Reader::new(&frame);
                let head = (reader.i16("").unwrap(), reader.i16("").unwrap());
                requests.push((head.0, head.1, reader.i32("").unwrap()));
            }
            match does {
                Close => return requests,
                Answer(answers) => {
                    for answer in *answers {
                        let mut frame = Vec::new();
                        frame.put_i32(answer.len() as i32);
                        frame.extend_from_slice(answer);
                        peer.write_all(&frame).await.unwrap();
                    }
                }
            }
        }
        // Stays open until we are done: nothing more is sent.
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
        requests
    }

    fn error(handshake: Handshake, script: &[(usize, Does)]) -> NetError {
        with_peer(handshake, script).0.unwrap_err()
    }

    #[test]
    fn a_broker_that_answers_both_requests_is_spoken_to_as_it_says() {
        let (result, requests) =
            with_peer(Handshake::Ask, &[(2, Answer(&[VERSIONS_V3, NO_BROKERS]))]);
        let versions =
            Versions { produce: 11, metadata: 12, init_producer_id: None, sasl_authenticate: None };
        assert_eq!(result.unwrap(), (versions, Origin::Told));
        assert_eq!(requests, ASKED);
    }

    #[test]
    fn a_broker_too_old_for_the_newest_form_is_asked_in_the_oldest() {
        let script = [(2, Answer(&[NOT_V3, NO_BROKERS])), (1, Answer(&[VERSIONS_V0]))];
        let (result, requests) = with_peer(Handshake::Ask, &script);
        let versions =
            Versions { produce: 2, metadata: 1, init_producer_id: None, sasl_authenticate: None };
        assert_eq!(result.unwrap(), (versions, Origin::Told));
        assert_eq!(requests, [ASKED[0], ASKED[1], (18, 0, 2)]);
    }

    #[test]
    fn a_broker_known_to_tell_is_asked_for_its_versions_only() {
        let (result, requests) = with_peer(Handshake::AskAlone, &[(1, Answer(&[VERSIONS_V3]))]);
        assert_eq!(result.unwrap().1, Origin::Told);
        assert_eq!(requests, ASKED[..1]);
        let script = [(1, Answer(&[NOT_V3])), (1, Answer(&[VERSIONS_V0]))];
        let (result, requests) = with_peer(Handshake::AskAlone, &script);
        assert_eq!(result.unwrap().1, Origin::Told);
        assert_eq!(requests, [ASKED[0], (18, 0, 2)]);
    }

    #[test]
    fn a_broker_that_answers_only_the_second_request_is_0_9() {
        let (result, _) = with_peer(Handshake::Ask, &[(2, Answer(&[NO_BROKERS]))]);
        assert_eq!(result.unwrap(), (Versions::OLDEST, Origin::Recognised));
    }

    #[test]
    fn a_broker_that_closes_when_it_is_asked_may_be_anything() {
        for (handshake, requests) in [(Handshake::Ask, 2), (Handshake::AskAlone, 1)] {
            assert!(matches!(error(handshake, &[(requests, Close)]), NetError::ClosedInHandshake));
        }
    }

    #[test]
    fn a_broker_that_closes_after_it_told_its_versions_is_told_apart() {
        let told = error(Handshake::Ask, &[(2, Answer(&[VERSIONS_V3])), (0, Close)]);
        assert!(matches!(told, NetError::ClosedOnMetadata));
        let refused = error(Handshake::AskAlone, &[(1, Answer(&[NOT_V3])), (1, Close)]);
        assert!(matches!(refused, NetError::Closed));
    }

    #[test]
    fn flt_26_a_controllers_listener_is_called_one_and_not_one_that_wants_authentication() {
        // Fetch, ApiVersions, Vote, BrokerRegistration.
        const OF_A_CONTROLLER: &[u8] = &[
            0, 0, 0, 0, 0, 0, 5, 0, 1, 0, 0, 0, 17, 0, 0, 18, 0, 0, 0, 4, 0, 0, 52, 0, 0, 0, 2, 0,
            0, 62, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0,
        ];
        for (handshake, requests) in [(Handshake::Ask, 2), (Handshake::AskAlone, 1)] {
            let error = error(handshake, &[(requests, Answer(&[OF_A_CONTROLLER])), (0, Close)]);
            assert!(matches!(error, NetError::Versions(NegotiationError::Controller)), "{error}");
            assert!(error.to_string().contains("metadata_broker_list"), "{error}");
        }
    }

    #[test]
    fn a_broker_that_does_not_look_at_the_version_is_old_and_one_that_closes_is_not() {
        let handshake = Handshake::Recognise;
        let (result, requests) = with_peer(handshake, &[(1, Answer(&[NO_BROKERS]))]);
        assert_eq!(result.unwrap(), (Versions::OLDEST, Origin::Recognised));
        assert_eq!(requests, [(3, i16::MAX, 1)]);
        assert!(matches!(error(handshake, &[(1, Close)]), NetError::NotOld));
    }

    #[test]
    fn versions_that_are_assumed_cost_no_request() {
        let versions =
            Versions { produce: 2, metadata: 1, init_producer_id: None, sasl_authenticate: None };
        let (result, requests) = with_peer(Handshake::Assume(versions), &[]);
        assert_eq!(result.unwrap(), (versions, Origin::Assumed));
        assert_eq!(requests, []);
    }

    #[test]
    fn answers_that_are_none_end_the_connection() {
        let ask = Handshake::Ask;
        let other_id: &[&[u8]] = &[&[0, 0, 0, 9, 0, 0, 0, 0, 0, 0]];
        assert!(matches!(
            error(ask, &[(2, Answer(other_id))]),
            NetError::Correlation { got: 9, expected: Some(0) }
        ));
        let twice: &[&[u8]] = &[VERSIONS_V3, VERSIONS_V3];
        assert!(matches!(
            error(ask, &[(2, Answer(twice))]),
            NetError::Correlation { got: 0, expected: Some(1) }
        ));
        const CUT: &[&[u8]] = &[NO_BROKERS.split_at(11).0];
        for handshake in [ask, Handshake::Recognise] {
            let requests = if handshake == ask { 2 } else { 1 };
            let error = error(handshake, &[(requests, Answer(CUT))]);
            assert!(matches!(error, NetError::Decode { api: "Metadata", .. }), "{error}");
        }
    }
}
