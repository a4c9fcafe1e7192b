//! A broker that answers ApiVersions, Metadata and Produce as Kafka does, except for the lies it is told
//! to tell, and remembers what it got. Any topic that it is asked for exists, with two partitions. Batches with numbers
//! are held to them: see `src/producer/tests/sequences.rs`. It may want authentication first: see `scram.rs`.

pub mod scram;
#[path = "../../src/producer/tests/sequences.rs"]
#[allow(dead_code, reason = "this broker is a new one")]
mod sequences;

use super::memory;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, InitProducerIdResponse, MetadataRequest, MetadataResponse,
    ProduceRequest, ProduceResponse, ProducerId, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeRequest, SaslHandshakeResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use kafka_protocol::records::{Record, RecordBatchDecoder};
use lkfk::internals::protocol::error_code::ErrorCode;
use lkfk::internals::protocol::header::ApiKey;
use scram::Scram;
use sequences::{Memory, Numbers, Sequences};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Partitions of each topic.
const PARTITIONS: i32 = 2;
/// The broker's id.
pub const NODE: i32 = 1;

/// What goes over the wire instead of an answer.
pub enum Reply {
    /// A frame with this content: correlation id, header, body.
    Frame(Vec<u8>),
    /// These bytes, without a size before them.
    Raw(Vec<u8>),
    /// These bytes, and the end of the connection.
    RawThenClose(Vec<u8>),
    /// One byte of this frame at a time.
    Drip(Vec<u8>, Duration),
    /// Nothing, and the connection stays.
    Nothing,
}

/// A request that is being answered.
pub struct Request {
    pub version: i16,
    pub correlation_id: i32,
}

type Tell = Box<dyn FnMut(&Request, &mut Answer) -> Reply + Send>;

/// What to do with one request of one API.
pub struct Lie {
    pub api: ApiKey,
    /// Of SaslAuthenticate: only in answer to this token, counted from 0.
    token: Option<usize>,
    /// Whether a Produce request's records are taken all the same.
    appends: bool,
    /// Answers in a row that it is told in.
    times: usize,
    tell: Tell,
}

/// An honest answer, before it is encoded.
pub enum Answer {
    ApiVersions(ApiVersionsResponse),
    Metadata(MetadataResponse),
    Produce(ProduceResponse),
    SaslHandshake(SaslHandshakeResponse),
    SaslAuthenticate(SaslAuthenticateResponse),
    InitProducerId(InitProducerIdResponse),
}

/// The version of a token that came without a header.
const BARE: i16 = -1;

impl Answer {
    /// The frame's content.
    pub fn encode(&self, request: &Request) -> Vec<u8> {
        let version = request.version;
        if let (Answer::SaslAuthenticate(answer), BARE) = (self, version) {
            return answer.auth_bytes.to_vec();
        }
        let mut out = request.correlation_id.to_be_bytes().to_vec();
        let flexible = match self {
            Answer::ApiVersions(_) | Answer::SaslHandshake(_) => false,
            Answer::SaslAuthenticate(_) | Answer::InitProducerId(_) => version >= 2,
            Answer::Metadata(_) | Answer::Produce(_) => version >= 9,
        };
        if flexible {
            out.push(0);
        }
        match self {
            Answer::ApiVersions(answer) => answer.encode(&mut out, version),
            Answer::Metadata(answer) => answer.encode(&mut out, version),
            Answer::Produce(answer) => answer.encode(&mut out, version),
            Answer::SaslHandshake(answer) => answer.encode(&mut out, version),
            Answer::SaslAuthenticate(answer) => answer.encode(&mut out, version),
            Answer::InitProducerId(answer) => answer.encode(&mut out, version),
        }
        .expect("an answer of that version");
        out
    }
}

/// For each API what tells a changed answer. Records of a Produce request are not taken then.
macro_rules! changed {
    ($($name:ident: $api:ident($answer:ty);)*) => { $(
        pub fn $name(mut change: impl FnMut(&mut $answer) + Send + 'static) -> Lie {
            Lie::new(ApiKey::$api, move |request, answer| {
                let Answer::$api(honest) = answer else { unreachable!() };
                change(honest);
                Reply::Frame(answer.encode(request))
            })
        }
    )* };
}

impl Lie {
    fn new(api: ApiKey, tell: impl FnMut(&Request, &mut Answer) -> Reply + Send + 'static) -> Lie {
        Lie { api, token: None, appends: false, times: 1, tell: Box::new(tell) }
    }

    /// Other bytes than those of the honest frame's content.
    pub fn bytes(api: ApiKey, mut tell: impl FnMut(Vec<u8>) -> Reply + Send + 'static) -> Lie {
        Lie::new(api, move |request, answer| tell(answer.encode(request)))
    }

    /// The same, of a frame whose version matters.
    pub fn at(api: ApiKey, mut tell: impl FnMut(i16, Vec<u8>) -> Reply + Send + 'static) -> Lie {
        Lie::new(api, move |request, answer| tell(request.version, answer.encode(request)))
    }

    changed! {
        versions: ApiVersions(ApiVersionsResponse);
        metadata: Metadata(MetadataResponse);
        produce: Produce(ProduceResponse);
        producer_id: InitProducerId(InitProducerIdResponse);
        mechanisms: SaslHandshake(SaslHandshakeResponse);
        any_token: SaslAuthenticate(SaslAuthenticateResponse);
    }

    /// A changed answer to a token, counted from 0.
    pub fn token(
        number: usize,
        change: impl FnMut(&mut SaslAuthenticateResponse) + Send + 'static,
    ) -> Lie {
        Lie { token: Some(number), ..Lie::any_token(change) }
    }

    /// The records are taken, whatever the answer says.
    pub fn but_append(self) -> Lie {
        Lie { appends: true, ..self }
    }

    /// Told this often in a row.
    pub fn times(self, times: usize) -> Lie {
        Lie { times, ..self }
    }
}

/// A record as it arrived.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrived {
    pub topic: String,
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub payload: Vec<u8>,
}

struct State {
    port: u16,
    /// Whether nothing but ApiVersions is answered before authentication.
    wants_sasl: bool,
    produce: i16,
    metadata: i16,
    lies: VecDeque<Lie>,
    told: usize,
    /// Names by topic id, which is the number of the topic, repeated.
    topics: Vec<String>,
    arrived: Vec<Arrived>,
    offsets: BTreeMap<(String, i32), i64>,
    sequences: BTreeMap<(String, i32), Sequences>,
    next_producer_id: i64,
    connections: Vec<TcpStream>,
    accepted: usize,
    open: usize,
    most_open: usize,
    authentications: usize,
}

/// A running broker; dropping it ends it.
pub struct Broker {
    state: Arc<Mutex<State>>,
    over: Arc<AtomicBool>,
    port: u16,
    acceptor: Option<std::thread::JoinHandle<()>>,
}

impl Broker {
    /// A broker that offers these highest versions of Produce and Metadata and tells `lies`, each in
    /// answer to the next request of its API.
    pub fn start(versions: (i16, i16), lies: Vec<Lie>) -> Broker {
        Broker::listen(versions, false, lies)
    }

    /// One that wants authentication.
    pub fn with_sasl(versions: (i16, i16), lies: Vec<Lie>) -> Broker {
        Broker::listen(versions, true, lies)
    }

    fn listen(versions: (i16, i16), wants_sasl: bool, lies: Vec<Lie>) -> Broker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State {
            port,
            wants_sasl,
            produce: versions.0,
            metadata: versions.1,
            lies: lies.into(),
            told: 0,
            topics: Vec::new(),
            arrived: Vec::new(),
            offsets: BTreeMap::new(),
            sequences: BTreeMap::new(),
            next_producer_id: 1000,
            connections: Vec::new(),
            accepted: 0,
            open: 0,
            most_open: 0,
            authentications: 0,
        }));
        let over = Arc::new(AtomicBool::new(false));
        let (shared, ended) = (state.clone(), over.clone());
        let acceptor = std::thread::spawn(move || {
            memory::leave_out_this_thread();
            accept(&listener, &shared, &ended);
        });
        Broker { state, over, port, acceptor: Some(acceptor) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// True while the broker itself had no fault: a request that it could not read, or a lie that failed.
    pub fn is_sound(&self) -> bool {
        !self.state.is_poisoned()
    }

    /// Lies that nobody asked for yet.
    pub fn lies_left(&self) -> usize {
        self.state().lies.len()
    }

    /// It was to lie, and has not.
    pub fn owes_a_lie(&self) -> bool {
        let state = self.state();
        state.told == 0 && !state.lies.is_empty()
    }

    /// Tells more lies, after those that are left.
    pub fn tell(&self, lies: Vec<Lie>) {
        self.state().lies.extend(lies);
    }

    /// Tells no lies any more.
    pub fn tell_the_truth(&self) {
        self.state().lies.clear();
    }

    /// Everything that was taken so far.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.state().arrived.clone()
    }

    /// How much that is.
    pub fn arrived_count(&self) -> usize {
        self.state().arrived.len()
    }

    /// Authentications that it was content with, those of connections that went on included.
    pub fn authentications(&self) -> usize {
        self.state().authentications
    }

    /// Connections taken so far.
    pub fn connections(&self) -> usize {
        self.state().accepted
    }

    /// The most connections that were open at one time.
    pub fn most_open(&self) -> usize {
        self.state().most_open
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes the acceptor.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.acceptor.take().unwrap().join();
        for connection in &self.state().connections {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, state: &Arc<Mutex<State>>, over: &AtomicBool) {
    while let Ok((stream, _)) = listener.accept() {
        if over.load(Ordering::Acquire) {
            return;
        }
        let _ = stream.set_nodelay(true);
        {
            let mut state = state.lock().unwrap();
            state.accepted += 1;
            state.open += 1;
            state.most_open = state.most_open.max(state.open);
            state.connections.push(stream.try_clone().unwrap());
        }
        let state = state.clone();
        std::thread::spawn(move || {
            memory::leave_out_this_thread();
            // The end of a connection is none of the test's concern: what arrived is.
            let _ = serve(&stream, &state);
            let _ = stream.shutdown(Shutdown::Both);
            state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).open -= 1;
        });
    }
}

fn serve(mut stream: &TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let mut scram = Scram::default();
    loop {
        let mut size = [0; 4];
        stream.read_exact(&mut size)?;
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        stream.read_exact(&mut frame)?;
        let (reply, close) = match reply(&frame, &mut scram, &mut state.lock().unwrap()) {
            Reply::Frame(frame) => (sized(&frame), false),
            Reply::Raw(bytes) => (bytes, false),
            Reply::RawThenClose(bytes) => (bytes, true),
            Reply::Nothing => continue,
            Reply::Drip(frame, pause) => {
                for byte in sized(&frame) {
                    stream.write_all(&[byte])?;
                    std::thread::sleep(pause);
                }
                continue;
            }
        };
        stream.write_all(&reply)?;
        if close {
            return Ok(());
        }
    }
}

/// The content with its size before it.
pub fn sized(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
}

fn reply(frame: &[u8], scram: &mut Scram, state: &mut State) -> Reply {
    let password = scram::PASSWORD.as_bytes();
    let shown = frame.windows(password.len()).any(|bytes| bytes == password);
    assert_eq!(shown, scram.expects_password(), "the password is sent with PLAIN alone");
    let times = scram.times();
    let reply = reply_within(frame, scram, state);
    state.authentications += scram.times() - times;
    reply
}

fn reply_within(frame: &[u8], scram: &mut Scram, state: &mut State) -> Reply {
    if scram.expects_bare_tokens() {
        let request = Request { version: BARE, correlation_id: 0 };
        let lie = state.lie(ApiKey::SaslAuthenticate, scram);
        return told(&request, Answer::SaslAuthenticate(scram.answer(frame)), lie, state);
    }
    let number = |at: usize| i16::from_be_bytes([frame[at], frame[at + 1]]);
    let (code, version) = (number(0), number(2));
    let correlation_id = i32::from_be_bytes(frame[4..8].try_into().unwrap());
    let request = Request { version, correlation_id };
    let (api, flexible_from, newest) = match code {
        0 => (ApiKey::Produce, 9, state.produce),
        3 => (ApiKey::Metadata, 9, state.metadata),
        17 => (ApiKey::SaslHandshake, i16::MAX, 1),
        18 => (ApiKey::ApiVersions, 3, 3),
        22 => (ApiKey::InitProducerId, 2, 4),
        36 => (ApiKey::SaslAuthenticate, 2, 2),
        _ => panic!("a request of API {code}"),
    };
    // As Kafka does with versions that it does not know, such as the probe for 0.8.
    if version > newest {
        return Reply::RawThenClose(Vec::new());
    }
    // After the client id; header v2 ends with its tagged fields, of which there are none.
    let body = &frame[10 + number(8).max(0) as usize + usize::from(version >= flexible_from)..];
    let open = api == ApiKey::ApiVersions || !state.wants_sasl || scram.times() > 0;
    let lie = state.lie(api, scram);
    let takes = lie.as_ref().is_none_or(|lie| lie.appends);
    let answer = match api {
        ApiKey::ApiVersions => Answer::ApiVersions(state.api_versions()),
        ApiKey::SaslHandshake => {
            let request = SaslHandshakeRequest::decode(&mut &*body, version);
            let mechanism = request.expect("a mechanism").mechanism;
            Answer::SaslHandshake(scram.begin(version, &mechanism))
        }
        ApiKey::SaslAuthenticate => {
            let request = SaslAuthenticateRequest::decode(&mut &*body, version);
            Answer::SaslAuthenticate(scram.answer(&request.expect("a token").auth_bytes))
        }
        _ if !open => panic!("{api:?} before authentication"),
        ApiKey::Metadata => Answer::Metadata(state.metadata(body, version)),
        ApiKey::Produce => Answer::Produce(state.produce(body, version, takes)),
        ApiKey::InitProducerId => Answer::InitProducerId(state.producer_id()),
    };
    told(&request, answer, lie, state)
}

/// The answer, or what the lie makes of it.
fn told(request: &Request, mut answer: Answer, lie: Option<Lie>, state: &mut State) -> Reply {
    let Some(mut lie) = lie else { return Reply::Frame(answer.encode(request)) };
    state.told += 1;
    let reply = (lie.tell)(request, &mut answer);
    if lie.times > 1 {
        lie.times -= 1;
        state.lies.push_front(lie);
    }
    reply
}

impl State {
    /// The next lie, if it is one for this request.
    fn lie(&mut self, api: ApiKey, scram: &Scram) -> Option<Lie> {
        let lie = self.lies.front()?;
        let wanted = lie.api == api && lie.token.is_none_or(|number| number == scram.tokens());
        if wanted { self.lies.pop_front() } else { None }
    }

    fn api_versions(&self) -> ApiVersionsResponse {
        let offer = |key: i16, newest: i16| {
            ApiVersion::default().with_api_key(key).with_min_version(0).with_max_version(newest)
        };
        let mut offers =
            vec![offer(0, self.produce), offer(3, self.metadata), offer(18, 3), offer(22, 4)];
        if self.wants_sasl {
            offers.extend([offer(17, 1), offer(36, 2)]);
        }
        ApiVersionsResponse::default().with_api_keys(offers)
    }

    fn producer_id(&mut self) -> InitProducerIdResponse {
        self.next_producer_id += 1;
        InitProducerIdResponse::default().with_producer_id(ProducerId(self.next_producer_id))
    }

    fn topic_id(&mut self, name: &str) -> [u8; 16] {
        let known = self.topics.iter().position(|topic| topic == name);
        let index = known.unwrap_or_else(|| {
            self.topics.push(name.to_owned());
            self.topics.len() - 1
        });
        id_of(index)
    }

    fn metadata(&mut self, mut body: &[u8], version: i16) -> MetadataResponse {
        let asked = MetadataRequest::decode(&mut body, version).expect("a Metadata request");
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(NODE))
            .with_host(StrBytes::from_static_str("127.0.0.1"))
            .with_port(i32::from(self.port));
        let partitions = (0..PARTITIONS).map(|index| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(BrokerId(NODE))
                .with_leader_epoch(if version >= 7 { 5 } else { -1 })
                .with_replica_nodes(vec![BrokerId(NODE)])
                .with_isr_nodes(vec![BrokerId(NODE)])
        });
        let partitions: Vec<_> = partitions.collect();
        let names = asked.topics.unwrap_or_default();
        let names = names.into_iter().filter_map(|topic| topic.name);
        // The probe of the handshake asks for a topic that cannot be.
        let names = names.filter(|name| !name.starts_with('('));
        let topics = names.map(|name| {
            let id = self.topic_id(&name).to_vec();
            let topic = MetadataResponseTopic::default()
                .with_name(Some(name))
                .with_partitions(partitions.clone());
            if version >= 10 { topic.with_topic_id(id.try_into().unwrap()) } else { topic }
        });
        MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_controller_id(BrokerId(NODE))
            .with_topics(topics.collect())
    }

    fn produce(&mut self, mut body: &[u8], version: i16, takes: bool) -> ProduceResponse {
        let request = ProduceRequest::decode(&mut body, version).expect("a Produce request");
        let mut responses = Vec::new();
        for topic in request.topic_data {
            let name = match version {
                13.. => {
                    let is_it = |index: &usize| id_of(*index) == *topic.topic_id.as_bytes();
                    (0..self.topics.len()).find(is_it).map(|index| self.topics[index].clone())
                }
                _ => Some(topic.name.to_string()),
            };
            // An id that was a lie.
            let Some(name) = name else {
                let answers = topic.partition_data.iter().map(|partition| {
                    PartitionProduceResponse::default()
                        .with_index(partition.index)
                        .with_error_code(ErrorCode::UNKNOWN_TOPIC_ID.0)
                        .with_base_offset(-1)
                });
                responses.push(
                    TopicProduceResponse::default()
                        .with_topic_id(topic.topic_id)
                        .with_partition_responses(answers.collect()),
                );
                continue;
            };
            let mut answers = Vec::new();
            for partition in topic.partition_data {
                let index = partition.index;
                let mut batch = partition.records.expect("records");
                let records =
                    RecordBatchDecoder::decode(&mut batch).expect("a whole batch").records;
                let answer = PartitionProduceResponse::default()
                    .with_index(index)
                    .with_log_append_time_ms(-1);
                let place = (name.clone(), index);
                let offset = self.offsets.entry(place.clone()).or_default();
                let known = match numbers(&records).filter(|_| takes) {
                    Some(numbers) => self.sequences.entry(place).or_default().take(
                        Memory::NEWEST,
                        numbers,
                        *offset,
                    ),
                    None => Ok(None),
                };
                answers.push(match known {
                    Err(error) => answer.with_error_code(error).with_base_offset(-1),
                    Ok(Some(offset)) => answer.with_base_offset(offset),
                    Ok(None) => answer.with_base_offset(*offset),
                });
                if takes && known == Ok(None) {
                    *offset += records.len() as i64;
                    self.arrived.extend(records.into_iter().map(|record| Arrived {
                        topic: name.clone(),
                        partition: index,
                        key: record.key.map(|key| key.to_vec()),
                        payload: record.value.expect("a payload").to_vec(),
                    }));
                }
            }
            responses.push(
                TopicProduceResponse::default()
                    .with_name(if version < 13 { topic.name } else { TopicName::default() })
                    .with_topic_id(topic.topic_id)
                    .with_partition_responses(answers),
            );
        }
        ProduceResponse::default().with_responses(responses)
    }
}

/// Id of a topic: eight times its number, from 1 on.
fn id_of(index: usize) -> [u8; 16] {
    let number = (index as u16 + 1).to_be_bytes();
    std::array::from_fn(|at| number[at % 2])
}

/// The numbers of a batch, if it has any.
fn numbers(records: &[Record]) -> Option<Numbers> {
    let first = records.first().filter(|record| record.producer_id >= 0)?;
    let (producer_id, epoch) = (first.producer_id, first.producer_epoch);
    Some(Numbers { producer_id, epoch, first: first.sequence, count: records.len() as i32 })
}
