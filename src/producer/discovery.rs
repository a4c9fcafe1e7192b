//! Learning the cluster: who is asked for metadata and when, and what the answers change.

use super::batch::Record;
use super::sink::{Link, Sent, Sink};
use super::timer::Timer;
use super::{
    Action, BrokerId, CloseReason, Fate, Notice, Outcome, Producer, Reason, Time, TopicId,
};
use crate::config::HostPort;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::metadata::{MetadataResponse, TopicMetadata};
use std::collections::BTreeMap;
use std::time::Duration;

/// Pause before another broker is tried for metadata while a connect is still under way.
const NEXT_BOOTSTRAP_AFTER: Duration = Duration::from_millis(500);

/// Brokers that a cluster may have.
const MAX_BROKERS: usize = 4_096;

impl Producer {
    pub(super) fn want_metadata(&mut self, now: Time) {
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
        self.refresh.wanted = false;
        self.counts.metadata_requests += 1;
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
        if !told.error.retriable() && told.error != ErrorCode::NONE {
            // Nobody will ever tell us more: what waits for it fails with that reason.
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
