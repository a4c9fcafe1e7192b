//! Learning the cluster: who is asked for metadata and when, and what the answers change.

use super::api::{Action, CloseReason, Delivery, Notice, Outcome, Reason};
use super::batch::Record;
use super::broker::{Broker, ConnState, InFlightBatch};
use super::ids::{BrokerId, ConnId, TopicId};
use super::metadata::{Asked, Refresh};
use super::retry;
use super::state::Producer;
use super::timer::{Time, Timer};
use crate::config::HostPort;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::metadata::{MetadataResponse, TopicMetadata};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Pause before another broker is tried for metadata while a connect is still under way.
const NEXT_BOOTSTRAP_AFTER: Duration = Duration::from_millis(500);

/// Rounds, or attempts to connect to a broker, after which what one broker says is not taken for all there is to know.
const DOUBTFUL: u32 = 3;

/// Pause between connections that are made to ask another broker.
const SECOND_OPINION_AFTER: Duration = Duration::from_secs(2);

/// How many times as long as after a failure the pause may become before the list is asked again that named none but
/// brokers out of reach. Those are tried meanwhile.
const IN_VAIN: u32 = 10;

/// How long no broker knows a topic before that is said, unless its messages would time out first.
const UNKNOWN_FOR: Duration = Duration::from_secs(3);

/// Unknown topics for which the longest pause between questions about one grows by another `retry_backoff_max_ms`, and
/// how long it becomes at most: thousands of them take a few requests a second.
const UNKNOWN_PER_PAUSE: u32 = 10;
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Brokers that a cluster may have.
const MAX_BROKERS: usize = 4_096;

/// Partitions that a request for metadata may be about. An answer takes some 20 bytes for each, and 8 for each of its
/// replicas; one of more than 4 MiB is not read. In tests so few that there are many pages.
const PARTITIONS_AT_ONCE: usize = if cfg!(test) { 6 } else { 50_000 };

impl Producer {
    /// What is known of all topics is to be asked for.
    pub(super) fn want_metadata(&mut self, now: Time) {
        self.metadata.all = true;
        self.want_due_metadata(now);
    }

    /// The topics that are due are to be asked about.
    pub(super) fn want_due_metadata(&mut self, now: Time) {
        // What was due before may rest for longer than what is due now.
        if self.metadata.want() || matches!(self.metadata.refresh, Refresh::Due) {
            self.reschedule_metadata(now);
        }
    }

    /// True while a record waits for metadata, or for a partition that has no leader.
    pub(super) fn something_waits(&self) -> bool {
        self.topics.list.iter().any(|topic| {
            !topic.waiting.is_empty()
                || !topic.repeats.is_empty()
                || topic.partitions.iter().any(|partition| {
                    let led =
                        partition.leader.is_some_and(|id| self.brokers.known.contains_key(&id));
                    !led && !partition.is_empty()
                })
        })
    }

    /// Asks for metadata, or sees to it that somebody can be asked.
    pub(super) fn reschedule_metadata(&mut self, now: Time) {
        let metadata = &mut self.metadata;
        let at = match metadata.refresh {
            Refresh::Asked(_) => return,
            Refresh::Idle => metadata.periodic,
            // Those that rest are asked about with the others, when everything is wanted.
            Refresh::Due if metadata.all || metadata.round.is_some() => metadata.not_before,
            Refresh::Due => metadata.not_before.max(self.topics.earliest_due()),
        };
        if matches!(metadata.refresh, Refresh::Idle) || at > now {
            return self.timers.schedule(&mut metadata.scheduled, Timer::Metadata, at);
        }
        let asked = self.ask(now, |conn, request| Action::Metadata { conn, request });
        let Some((conn, request)) = asked else { return self.connect_for_metadata(now) };
        let page = self.turn_page(now);
        let more = self.topics.any_due(now);
        self.metadata.refresh = Refresh::Asked(Asked { conn, request, page, more });
        self.counts.metadata_requests += 1;
        self.seek_second_opinion(now);
    }

    /// Where the one broker that is connected does not know enough, or names brokers that cannot be reached, another is
    /// connected to: it is asked next.
    fn seek_second_opinion(&mut self, now: Time) {
        let mut up = self.brokers.known.values().filter(|broker| broker.is_up() && broker.current);
        let alone = up.next().is_some() && up.next().is_none();
        let doubtful = self.metadata.incomplete_rounds >= DOUBTFUL
            || self
                .brokers
                .known
                .iter()
                .any(|(id, broker)| *id >= 0 && broker.backoff.failures >= DOUBTFUL);
        let tried = self.metadata.connect_tried;
        let lately = tried.is_some_and(|tried| now < tried + SECOND_OPINION_AFTER);
        if alone && doubtful && !lately {
            self.connect_for_metadata(now);
        }
    }

    /// Chooses the topics that the next request is about: those that nothing is known of first, and of these the ones
    /// that somebody waits for.
    fn turn_page(&mut self, now: Time) -> Vec<TopicId> {
        let metadata = &mut self.metadata;
        if metadata.round.is_none() && std::mem::take(&mut metadata.all) {
            self.topics.list.iter_mut().for_each(|topic| topic.is_due = true);
            metadata.periodic = now + self.rules.metadata_refresh;
        }
        metadata.round.get_or_insert_default();
        let topics = &mut self.topics.list;
        let count = topics.len();
        let rotated = (0..count).map(|n| (n + metadata.next_topic) % count);
        let mut due: Vec<usize> = rotated.filter(|index| topics[*index].is_due_at(now)).collect();
        due.sort_by_key(|index| {
            let topic = &topics[*index];
            (!topic.partitions.is_empty(), topic.waiting.is_empty())
        });
        let mut room = PARTITIONS_AT_ONCE >> metadata.lost_answers.min(usize::BITS - 1);
        let mut page = Vec::new();
        let mut may_be_made = None;
        for index in due {
            let topic = &mut topics[index];
            // One request either may make all of its topics, or none.
            if *may_be_made.get_or_insert(topic.may_be_made) != topic.may_be_made {
                continue;
            }
            let expected = topic.expected_partitions();
            if expected > room && !page.is_empty() {
                break;
            }
            room = room.saturating_sub(expected);
            topic.is_due = false;
            page.push(TopicId(index as u32));
            metadata.next_topic = index + 1;
        }
        page
    }

    /// The connection is gone on which metadata was asked for. The next round asks about the same topics.
    pub(super) fn forget_asked_metadata(&mut self, conn: ConnId, failed: bool) {
        let metadata = &mut self.metadata;
        let Some(asked) = metadata.lost(conn) else { return };
        metadata.refresh = Refresh::Due;
        metadata.lost_answers = metadata.lost_answers.saturating_add(u32::from(failed));
        let round = metadata.round.take().unwrap_or_default();
        for id in asked.page.into_iter().chain(round.incomplete_topics) {
            self.topics[id].is_due = true;
        }
    }

    /// Takes over what an answer says of the topics that it was asked for.
    pub(super) fn update_page(
        &mut self,
        now: Time,
        page: Vec<TopicId>,
        response: &MetadataResponse,
    ) {
        // The first word on a topic counts.
        let told: HashMap<&str, &TopicMetadata> =
            response.topics.iter().rev().map(|told| (&*told.name, told)).collect();
        for &id in &page {
            let told = told.get(&*self.topics[id].name);
            if told.is_none_or(|told| self.update_topic(now, id, told)) {
                let round = self.metadata.round.get_or_insert_default();
                round.incomplete_topics.push(id);
            }
        }
        let unknown = self.topics.count_unknown();
        for id in page {
            self.rest_if_unknown(now, id, unknown);
        }
    }

    /// A topic that is one of `unknown` ones after an answer is asked about later each time, and the later the more of
    /// them there are.
    fn rest_if_unknown(&mut self, now: Time, id: TopicId, unknown: u32) {
        let (first, longest) = (self.rules.retry_backoff, self.rules.retry_backoff_max);
        let topic = &mut self.topics[id];
        if !topic.partitions.is_empty() {
            (topic.vain_answers, topic.rests_until) = (0, Time(0));
            return;
        }
        topic.vain_answers = topic.vain_answers.saturating_add(1);
        let shared = longest.saturating_mul(unknown.div_ceil(UNKNOWN_PER_PAUSE));
        let longest = shared.min(LONGEST_REST).max(longest);
        let pause = retry::backoff(first, longest, topic.vain_answers, &mut self.random);
        topic.rests_until = now + pause;
    }

    /// Ends a round: when something was left open, or there were no brokers in the last answer, the next one is not far.
    pub(super) fn end_round(&mut self, now: Time, brokers_named: bool) {
        let waits = self.something_waits();
        let metadata = &mut self.metadata;
        let incomplete_topics = metadata.round.take().unwrap_or_default().incomplete_topics;
        let incomplete = !brokers_named || !incomplete_topics.is_empty();
        for id in incomplete_topics {
            self.topics[id].is_due = true;
        }
        if incomplete {
            metadata.incomplete_rounds = metadata.incomplete_rounds.saturating_add(1);
            let (first, longest) = (self.rules.retry_backoff, self.rules.retry_backoff_max);
            let rounds = metadata.incomplete_rounds;
            metadata.not_before = now + retry::backoff(first, longest, rounds, &mut self.random);
        } else {
            metadata.incomplete_rounds = 0;
            // Errors that come in a bunch cause one refresh, not one each.
            metadata.not_before = now + self.rules.retry_backoff;
        }
        // A topic that stays unknown is asked for again only while somebody waits for it.
        let is_open = incomplete || self.topics.list.iter().any(|topic| topic.is_due);
        if metadata.all || is_open && waits {
            metadata.want();
        }
    }

    /// Opens a connection to somebody who may know, one every half second at most while none answers.
    pub(super) fn connect_for_metadata(&mut self, now: Time) {
        let connecting = self
            .brokers
            .known
            .values()
            .any(|broker| matches!(broker.conn_state, ConnState::Connecting(_)));
        if connecting
            && let Some(tried) = self.metadata.connect_tried
            && now < tried + NEXT_BOOTSTRAP_AFTER
        {
            let at = tried + NEXT_BOOTSTRAP_AFTER;
            self.timers.schedule(&mut self.metadata.scheduled, Timer::Metadata, at);
            return;
        }
        // Known brokers before the list, the least failed first; chance decides between equals.
        let mut best = None;
        let mut earliest = Time::NEVER;
        for (id, broker) in &self.brokers.known {
            // One that reads nothing for a while is asked after that.
            if broker.current && broker.is_up() && broker.throttle.until > now {
                earliest = earliest.min(broker.throttle.until);
            }
            if !broker.current || broker.conn_state != ConnState::Closed {
                continue;
            }
            earliest = earliest.min(broker.backoff.connect_after.max(broker.backoff.rests_until));
            if broker.may_connect(now) && broker.backoff.rests_until <= now {
                let rank = (broker.backoff.failures, *id < 0, self.random.bits(), *id);
                best = Some(best.map_or(rank, |best: (u32, bool, u64, BrokerId)| best.min(rank)));
            }
        }
        if let Some((.., node)) = best {
            // Where there is no room for one more connection, there may be some later.
            if self.brokers.connections.len() < self.rules.max_connections {
                self.metadata.connect_tried = Some(now);
                self.connect(node);
            }
            earliest = now + NEXT_BOOTSTRAP_AFTER;
        }
        self.timers.schedule(&mut self.metadata.scheduled, Timer::Metadata, earliest);
    }

    /// Takes over the list of brokers. False when it names none, or more than there can be: then nothing is
    /// changed.
    pub(super) fn update_brokers(&mut self, now: Time, response: &MetadataResponse) -> bool {
        let mut named: BTreeMap<BrokerId, HostPort> = BTreeMap::new();
        for node in &response.brokers {
            let port = u16::try_from(node.port).ok().filter(|port| *port > 0);
            let host = &node.host;
            if node.id >= 0
                && let Some(port) = port
                && (1..=255).contains(&host.len())
                && !host.bytes().any(|b| b <= b' ' || b == 0x7f)
            {
                named.entry(node.id).or_insert(HostPort { host: host.clone(), port });
            }
        }
        if named.is_empty() || named.len() > MAX_BROKERS {
            return false;
        }
        let mut closing = Vec::new();
        for (id, broker) in &mut self.brokers.known {
            match named.get(id) {
                _ if *id < 0 => {
                    // The list has served; it is tried again when no known broker answers, later each time.
                    if let ConnState::Up(conn) | ConnState::Connecting(conn) = broker.conn_state {
                        closing.push(conn);
                        broker.backoff.in_vain = broker.backoff.in_vain.saturating_add(1);
                        let pause = retry::backoff(
                            self.rules.reconnect_backoff,
                            self.rules.reconnect_backoff_max * IN_VAIN,
                            broker.backoff.in_vain,
                            &mut self.random,
                        );
                        broker.backoff.connect_after = now + pause;
                    }
                }
                None => broker.current = false,
                Some(address) => {
                    broker.current = true;
                    if broker.address != *address {
                        broker.address = address.clone();
                        broker.backoff.failures = 0;
                        broker.backoff.connect_after = now;
                        if let ConnState::Up(conn) | ConnState::Connecting(conn) = broker.conn_state
                        {
                            closing.push(conn);
                        }
                    }
                }
            }
        }
        for (id, address) in named {
            self.brokers.known.entry(id).or_insert_with(|| Broker::new(address));
        }
        for conn in closing {
            self.close(now, conn, CloseReason::NotNeeded);
        }
        let leaving: Vec<BrokerId> = self
            .brokers
            .known
            .iter()
            .filter(|(_, broker)| !broker.current)
            .map(|(id, _)| *id)
            .collect();
        for node in leaving {
            self.prune(node);
            let broker = &self.brokers.known[&node];
            if broker.conn_state == ConnState::Closed && broker.ready.is_empty() {
                self.brokers.known.remove(&node);
            } else {
                self.list_broker(node);
            }
        }
        true
    }

    /// Takes over what is said of a topic; true when something is still missing.
    pub(super) fn update_topic(&mut self, now: Time, id: TopicId, told: &TopicMetadata) -> bool {
        let brokers = &self.brokers.known;
        let topic = &mut self.topics[id];
        let change = topic.update(now, told, |node| brokers.get(&node).is_some_and(|s| s.current));
        if told.error == ErrorCode::NONE {
            topic.told_error = ErrorCode::NONE;
        }
        if topic.may_be_made
            && topic.is_news(now, told.error, UNKNOWN_FOR.min(self.rules.message_timeout / 2))
        {
            topic.told_error = told.error;
            self.out.notices.push_back(Notice::TopicError { topic: id, error: told.error });
        }
        if [ErrorCode::INVALID_TOPIC_EXCEPTION, ErrorCode::TOPIC_AUTHORIZATION_FAILED]
            .contains(&told.error)
        {
            // Nobody will ever tell us more: what waits for it fails with that reason. All other errors may pass, such
            // as that of a topic that cannot be made before more brokers are up.
            let records: Vec<Record> = topic.waiting.drain(..).collect();
            if !records.is_empty() {
                let delivery =
                    Delivery::Failed { reason: Reason::Broker(told.error), in_doubt: false };
                self.out.outcomes.push_back(Outcome {
                    topic: id,
                    partition: None,
                    records,
                    delivery,
                });
            }
            return false;
        }
        // Not only those that moved: one whose leader was gone for a while may be ready since then.
        for index in 0..self.topics[id].partitions.len() {
            let partition = &self.topics[id].partitions[index];
            if !partition.is_empty() {
                self.reschedule_partition(now, id, index as u32);
            }
        }
        if !self.topics[id].partitions.is_empty() {
            for (index, batch) in std::mem::take(&mut self.topics[id].repeats) {
                self.route_repeat(now, id, index, batch);
            }
        }
        self.expire_waiting(now, id);
        if change.numbers_lost {
            self.forget_numbers(now);
        }
        for (index, batch) in change.homeless {
            self.reroute(now, id, index, batch);
        }
        if !self.topics[id].partitions.is_empty() {
            let waiting = std::mem::take(&mut self.topics[id].waiting);
            for record in waiting {
                self.route(now, id, record);
            }
        }
        change.incomplete || !self.topics[id].repeats.is_empty()
    }

    /// A broker that is not the leader any more said who is.
    pub(super) fn follow_hint(&mut self, now: Time, sent: &InFlightBatch, leader: i32, epoch: i32) {
        let known =
            self.brokers.known.get(&leader).is_some_and(|broker| broker.current && leader >= 0);
        let topic = &mut self.topics[sent.topic];
        if let Some(partition) = topic.partitions.get_mut(sent.partition as usize)
            && known
            && epoch > partition.leader_epoch
        {
            partition.leader_epoch = epoch;
            partition.leader = Some(leader);
            partition.listed = false;
            self.reschedule_partition(now, sent.topic, sent.partition);
        }
    }
}
