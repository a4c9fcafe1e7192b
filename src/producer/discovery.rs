//! Learning the cluster: who is asked for metadata and when, and what the answers change.

use super::batch::Record;
use super::retry;
use super::sink::{Link, Sent, Sink};
use super::timer::Timer;
use super::{
    Action, BrokerId, CloseReason, ConnId, Fate, Notice, Outcome, Producer, Reason, Time, TopicId,
};
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

/// Brokers that a cluster may have.
const MAX_BROKERS: usize = 4_096;

/// Partitions that a request for metadata may be about. An answer takes some 20 bytes for each, and 8 for each of its
/// replicas; one of more than 4 MiB is not read. In tests so few that there are many pages.
const PARTITIONS_AT_ONCE: usize = if cfg!(test) { 6 } else { 50_000 };

impl Producer {
    /// What is known of all topics is to be asked for.
    pub(super) fn want_metadata(&mut self, now: Time) {
        self.refresh.all = true;
        self.want_due_metadata(now);
    }

    /// The topics that are due are to be asked about.
    pub(super) fn want_due_metadata(&mut self, now: Time) {
        if !self.refresh.wanted {
            self.refresh.wanted = true;
            self.look_at_metadata(now);
        }
    }

    /// True while a record waits for metadata, or for a partition that has no leader.
    pub(super) fn something_waits(&self) -> bool {
        self.topics.iter().any(|topic| {
            !topic.waiting.is_empty()
                || !topic.repeats.is_empty()
                || topic.partitions.iter().any(|partition| {
                    let led = partition.leader.is_some_and(|id| self.sinks.contains_key(&id));
                    !led && !partition.is_empty()
                })
        })
    }

    /// Asks for metadata, or sees to it that somebody can be asked.
    pub(super) fn look_at_metadata(&mut self, now: Time) {
        let refresh = &mut self.refresh;
        if !refresh.wanted {
            let at = refresh.periodic;
            self.timers.schedule(&mut refresh.scheduled, Timer::Metadata, at);
            return;
        }
        if refresh.asked.is_some() {
            return;
        }
        if refresh.not_before > now {
            let at = refresh.not_before;
            self.timers.schedule(&mut refresh.scheduled, Timer::Metadata, at);
            return;
        }
        self.refresh.asked = self.ask(now, |conn, request| Action::Metadata { conn, request });
        if self.refresh.asked.is_none() {
            return self.connect_for_metadata(now);
        }
        self.turn_page(now);
        self.counts.metadata_requests += 1;
        self.seek_second_opinion(now);
    }

    /// Where the one broker that is connected does not know enough, or names brokers that cannot be reached, another is
    /// connected to: it is asked next.
    fn seek_second_opinion(&mut self, now: Time) {
        let mut up = self.sinks.values().filter(|sink| sink.is_up() && sink.current);
        let alone = up.next().is_some() && up.next().is_none();
        let doubtful = self.refresh.incomplete >= DOUBTFUL
            || self.sinks.iter().any(|(id, sink)| *id >= 0 && sink.failures >= DOUBTFUL);
        let tried = self.refresh.connect_tried;
        let lately = tried.is_some_and(|tried| now < tried + SECOND_OPINION_AFTER);
        if alone && doubtful && !lately {
            self.connect_for_metadata(now);
        }
    }

    /// Chooses the topics that the request on its way is about: those that nothing is known of first.
    fn turn_page(&mut self, now: Time) {
        let refresh = &mut self.refresh;
        if !std::mem::replace(&mut refresh.in_round, true) && std::mem::take(&mut refresh.all) {
            self.topics.iter_mut().for_each(|topic| topic.is_due = true);
            refresh.periodic = now + self.rules.metadata_refresh;
        }
        let count = self.topics.len();
        let rotated = (0..count).map(|n| (n + refresh.next_topic) % count);
        let due = rotated.filter(|index| self.topics[*index].is_due);
        let (unknown, known): (Vec<usize>, Vec<usize>) =
            due.partition(|index| self.topics[*index].partitions.is_empty());
        let mut room = PARTITIONS_AT_ONCE >> refresh.unanswered.min(usize::BITS - 1);
        refresh.page.clear();
        for index in unknown.into_iter().chain(known) {
            let topic = &mut self.topics[index];
            let expected = topic.expected_partitions();
            if expected > room && !refresh.page.is_empty() {
                break;
            }
            room = room.saturating_sub(expected);
            topic.is_due = false;
            refresh.page.push(TopicId(index as u32));
            refresh.next_topic = index + 1;
        }
        refresh.wanted = self.topics.iter().any(|topic| topic.is_due);
    }

    /// The connection is gone on which metadata was asked for. The next round asks about the same topics.
    pub(super) fn forget_asked_metadata(&mut self, conn: ConnId, failed: bool) {
        let refresh = &mut self.refresh;
        if refresh.asked.is_some_and(|(asked, _)| asked == conn) {
            refresh.asked = None;
            refresh.wanted = true;
            refresh.in_round = false;
            refresh.unanswered = refresh.unanswered.saturating_add(u32::from(failed));
            for id in refresh.page.drain(..).chain(refresh.incomplete_topics.drain(..)) {
                self.topics[id.0 as usize].is_due = true;
            }
        }
    }

    /// Takes over what an answer says of the topics that it was asked for.
    pub(super) fn update_page(&mut self, now: Time, response: &MetadataResponse) {
        // The first word on a topic counts.
        let told: HashMap<&str, &TopicMetadata> =
            response.topics.iter().rev().map(|told| (&*told.name, told)).collect();
        for id in std::mem::take(&mut self.refresh.page) {
            let told = told.get(&*self.topics[id.0 as usize].name);
            if told.is_none_or(|told| self.update_topic(now, id, told)) {
                self.refresh.incomplete_topics.push(id);
            }
        }
    }

    /// Ends a round: when something was left open, or there were no brokers in the last answer, the next one is not far.
    pub(super) fn end_round(&mut self, now: Time, brokers_named: bool) {
        let incomplete_topics = std::mem::take(&mut self.refresh.incomplete_topics);
        let waits = self.something_waits();
        let refresh = &mut self.refresh;
        refresh.in_round = false;
        let incomplete = !brokers_named || !incomplete_topics.is_empty();
        for id in incomplete_topics {
            self.topics[id.0 as usize].is_due = true;
        }
        if incomplete {
            refresh.incomplete = refresh.incomplete.saturating_add(1);
            let (first, longest) = (self.rules.retry_backoff, self.rules.retry_backoff_max);
            let pause = retry::backoff(first, longest, refresh.incomplete, &mut self.random);
            refresh.not_before = now + pause;
        } else {
            refresh.incomplete = 0;
            // Errors that come in a bunch cause one refresh, not one each.
            refresh.not_before = now + self.rules.retry_backoff;
        }
        // A topic that stays unknown is asked for again only while somebody waits for it.
        refresh.wanted |= refresh.all || incomplete && waits;
    }

    /// Opens a connection to somebody who may know, one every half second at most while none answers.
    pub(super) fn connect_for_metadata(&mut self, now: Time) {
        let connecting = self.sinks.values().any(|sink| matches!(sink.link, Link::Connecting(_)));
        if connecting
            && let Some(tried) = self.refresh.connect_tried
            && now < tried + NEXT_BOOTSTRAP_AFTER
        {
            let at = tried + NEXT_BOOTSTRAP_AFTER;
            self.timers.schedule(&mut self.refresh.scheduled, Timer::Metadata, at);
            return;
        }
        // Known brokers before the list, the least failed first; chance decides between equals.
        let mut best = None;
        let mut earliest = Time::NEVER;
        for (id, sink) in &self.sinks {
            if !sink.current || sink.link != Link::Closed {
                continue;
            }
            earliest = earliest.min(sink.connect_after.max(sink.rests_until));
            if sink.may_connect(now) && sink.rests_until <= now {
                let rank = (sink.failures, *id < 0, self.random.bits(), *id);
                best = Some(best.map_or(rank, |best: (u32, bool, u64, BrokerId)| best.min(rank)));
            }
        }
        if let Some((.., broker)) = best {
            self.refresh.connect_tried = Some(now);
            self.connect(broker);
            earliest = now + NEXT_BOOTSTRAP_AFTER;
        }
        self.timers.schedule(&mut self.refresh.scheduled, Timer::Metadata, earliest);
    }

    /// Takes over the list of brokers. False when it names none, or more than there can be: then nothing is
    /// changed.
    pub(super) fn update_brokers(&mut self, now: Time, response: &MetadataResponse) -> bool {
        let mut named: BTreeMap<BrokerId, HostPort> = BTreeMap::new();
        for broker in &response.brokers {
            let port = u16::try_from(broker.port).ok().filter(|port| *port > 0);
            let host = &broker.host;
            if broker.id >= 0
                && let Some(port) = port
                && (1..=255).contains(&host.len())
                && !host.bytes().any(|b| b <= b' ' || b == 0x7f)
            {
                named.entry(broker.id).or_insert(HostPort { host: host.clone(), port });
            }
        }
        if named.is_empty() || named.len() > MAX_BROKERS {
            return false;
        }
        let mut closing = Vec::new();
        for (id, sink) in &mut self.sinks {
            match named.get(id) {
                _ if *id < 0 => {
                    // The list has served; it is tried again when no known broker answers.
                    if let Link::Up(conn) | Link::Connecting(conn) = sink.link {
                        closing.push(conn);
                    }
                }
                None => sink.current = false,
                Some(address) => {
                    sink.current = true;
                    if sink.address != *address {
                        sink.address = address.clone();
                        sink.failures = 0;
                        sink.connect_after = now;
                        if let Link::Up(conn) | Link::Connecting(conn) = sink.link {
                            closing.push(conn);
                        }
                    }
                }
            }
        }
        for (id, address) in named {
            self.sinks.entry(id).or_insert_with(|| Sink::new(address));
        }
        for conn in closing {
            self.close(now, conn, CloseReason::NotNeeded);
        }
        let leaving: Vec<BrokerId> =
            self.sinks.iter().filter(|(_, sink)| !sink.current).map(|(id, _)| *id).collect();
        for broker in leaving {
            self.prune(broker);
            let sink = &self.sinks[&broker];
            if sink.link == Link::Closed && sink.ready.is_empty() {
                self.sinks.remove(&broker);
            } else {
                self.list_sink(broker);
            }
        }
        true
    }

    /// Takes over what is said of a topic; true when something is still missing.
    pub(super) fn update_topic(&mut self, now: Time, id: TopicId, told: &TopicMetadata) -> bool {
        let sinks = &self.sinks;
        let topic = &mut self.topics[id.0 as usize];
        let known_error = topic.error;
        let change =
            topic.update(now, told, |broker| sinks.get(&broker).is_some_and(|s| s.current));
        if told.error != ErrorCode::NONE && told.error != known_error {
            self.notices.push_back(Notice::TopicError { topic: id, error: told.error });
        }
        if [ErrorCode::INVALID_TOPIC_EXCEPTION, ErrorCode::TOPIC_AUTHORIZATION_FAILED]
            .contains(&told.error)
        {
            // Nobody will ever tell us more: what waits for it fails with that reason. All other errors may pass, such
            // as that of a topic that cannot be made before more brokers are up.
            let records: Vec<Record> = topic.waiting.drain(..).collect();
            if !records.is_empty() {
                let fate = Fate::Failed { reason: Reason::Broker(told.error), in_doubt: false };
                self.outcomes.push_back(Outcome { topic: id, partition: None, records, fate });
            }
            return false;
        }
        // Not only those that moved: one whose leader's sink was gone for a while may be ready since then.
        for index in 0..self.topics[id.0 as usize].partitions.len() {
            let partition = &self.topics[id.0 as usize].partitions[index];
            if !partition.is_empty() {
                self.look_at_partition(now, id, index as u32);
            }
        }
        if !self.topics[id.0 as usize].partitions.is_empty() {
            for (index, batch) in std::mem::take(&mut self.topics[id.0 as usize].repeats) {
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
        if !self.topics[id.0 as usize].partitions.is_empty() {
            let waiting = std::mem::take(&mut self.topics[id.0 as usize].waiting);
            for record in waiting {
                self.route(now, id, record);
            }
        }
        change.incomplete || !self.topics[id.0 as usize].repeats.is_empty()
    }

    /// A broker that is not the leader any more said who is.
    pub(super) fn follow_hint(&mut self, now: Time, sent: &Sent, leader: i32, epoch: i32) {
        let known = self.sinks.get(&leader).is_some_and(|sink| sink.current && leader >= 0);
        let topic = &mut self.topics[sent.topic.0 as usize];
        if let Some(partition) = topic.partitions.get_mut(sent.partition as usize)
            && known
            && epoch > partition.leader_epoch
        {
            partition.leader_epoch = epoch;
            partition.leader = Some(leader);
            partition.listed = false;
            self.look_at_partition(now, sent.topic, sent.partition);
        }
    }
}
