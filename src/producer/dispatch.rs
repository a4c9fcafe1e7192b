//! Brokers at work: when one is connected to, what goes into a request, what becomes of a connection that ends.

use super::accumulator::Next;
use super::api::{Action, CloseReason, Notice, Reason};
use super::broker::{Broker, ConnState, InFlightBatch, MAX_THROTTLE, request_bytes};
use super::ids::{BrokerId, ConnId, RequestId};
use super::request_limit::{HOPELESS, SMALLEST_LIMIT};
use super::retry;
use super::state::Producer;
use super::timer::{Time, Timer};
use crate::seeded_bug::{Bug, is_seeded};
use std::time::Duration;

/// How long after the broker's own limit for an answer (`request_timeout_ms`, which it is told) the
/// connection is closed: the answer that the limit passed needs time to travel too.
pub(super) const ANSWER_GRACE: Duration = Duration::from_millis(500);

/// How many times as long the pause before the next connect is after a refusal.
const AFTER_REFUSAL: u32 = 10;

/// How a connection came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// We closed it, and nothing is wrong.
    Wanted,
    /// We closed it, since an answer did not come.
    TimedOut,
    /// It could not be made, or broke.
    Broken,
    /// The broker does not let us in.
    Refused,
    /// It was not begun: there may be no more connections than there are. That says nothing of the broker.
    NoRoom,
}

impl Producer {
    pub(super) fn list_broker(&mut self, node: BrokerId) {
        if let Some(broker) = self.brokers.known.get_mut(&node)
            && !broker.listed
        {
            broker.listed = true;
            self.brokers.listed.push_back(node);
        }
    }

    pub(super) fn relist(&mut self, conn: ConnId) {
        if let Some(&node) = self.brokers.connections.get(&conn) {
            self.list_broker(node);
        }
    }

    /// Does one thing for a broker; false when there is nothing that could be done at once.
    pub(super) fn drive_broker(&mut self, now: Time, node: BrokerId) -> bool {
        self.prune(node);
        let Some(broker) = self.brokers.known.get_mut(&node) else { return false };
        match broker.conn_state {
            ConnState::Connecting(_) => false,
            ConnState::Closed => {
                if broker.ready.is_empty() {
                    return false;
                }
                let at = broker.backoff.connect_after;
                let at = if at > now {
                    at
                } else if self.make_room(now, node) {
                    self.connect(node);
                    return true;
                } else {
                    now + self.rules.reconnect_backoff
                };
                let Some(broker) = self.brokers.known.get_mut(&node) else { return false };
                self.timers.schedule(&mut broker.scheduled, Timer::Broker(node), at);
                false
            }
            ConnState::Up(conn) => {
                if !broker.current && broker.in_flight.is_empty() && broker.ready.is_empty() {
                    self.close(now, conn, CloseReason::NotNeeded);
                    self.brokers.known.remove(&node);
                    return false;
                }
                if broker.in_flight.len() >= broker.window(now, self.rules.max_in_flight) {
                    return false;
                }
                if broker.throttle.until > now {
                    let at = broker.throttle.until;
                    self.timers.schedule(&mut broker.scheduled, Timer::Broker(node), at);
                    return false;
                }
                self.build_request(now, node, conn)
            }
        }
    }

    /// True when a connection more may be made. Where there are as many as there may be an idle one is closed for the
    /// sake of the broker for which most waits.
    pub(super) fn make_room(&mut self, now: Time, node: BrokerId) -> bool {
        if self.brokers.connections.len() < self.rules.max_connections {
            self.brokers.is_full = false;
            return true;
        }
        let has_room = self.close_idle_for(now, node);
        if !has_room && !std::mem::replace(&mut self.brokers.is_full, true) {
            self.out.notices.push_back(Notice::NoRoom { most: self.rules.max_connections });
        }
        has_room
    }

    /// Closes an idle connection if no broker that waits for one has more to send than `node`. False when there is none.
    pub(super) fn close_idle_for(&mut self, now: Time, node: BrokerId) -> bool {
        if !self.brokers.is_busiest(now, node) {
            return false;
        }
        let Some(idle) = self.brokers.idle_connection() else { return false };
        self.close(now, idle, CloseReason::NotNeeded);
        true
    }

    /// Takes partitions from the front of a broker's list that moved away since they were put there.
    pub(super) fn prune(&mut self, node: BrokerId) {
        let Some(broker) = self.brokers.known.get_mut(&node) else { return };
        while let Some((id, index)) = broker.ready.front() {
            let partition = self.topics[*id].partitions.get(*index as usize);
            if partition.is_some_and(|p| p.listed && p.leader == Some(node)) {
                return;
            }
            broker.ready.pop_front();
        }
    }

    /// Fills a request from the broker's list; false when nothing on it is still to be sent from here.
    pub(super) fn build_request(&mut self, now: Time, node: BrokerId, conn: ConnId) -> bool {
        let mut batches = Vec::new();
        let mut again = Vec::new();
        let mut bytes = 0;
        let Some(broker) = self.brokers.known.get_mut(&node) else { return false };
        let together = broker.request_limit.bytes(now);
        let limit = broker.request_limit.found();
        // What is too large even alone goes alone, so that its end is nothing else's.
        if broker.in_flight.iter().any(|sent| sent.bytes() > limit) {
            return false;
        }
        while let Some(&(id, index)) = broker.ready.front() {
            let topic = &mut self.topics[id];
            let partition = topic.partitions.get_mut(index as usize);
            // A partition that moved away, or was listed twice around a move, is somebody else's.
            let Some(partition) = partition.filter(|p| p.listed && p.leader == Some(node)) else {
                broker.ready.pop_front();
                continue;
            };
            let idempotent = self.identity.is_on();
            // What made it ready may have gone since it was listed.
            if let Next::At(at) = partition.next(now, &self.rules, self.flushed_at, idempotent) {
                broker.ready.pop_front();
                partition.listed = false;
                let timer = Timer::Partition(id, index);
                self.timers.schedule(&mut partition.scheduled, timer, at);
                continue;
            }
            partition.cut_front(limit);
            let front = partition.front_bytes();
            let is_too_large = front > limit && !broker.in_flight.is_empty();
            if !batches.is_empty() && bytes + front > together || is_too_large {
                break;
            }
            broker.ready.pop_front();
            partition.listed = false;
            // Without a producer id it waits for one.
            let Some(batch) = partition.take(&self.identity) else { continue };
            again.push((id, index));
            bytes += front;
            if topic.sticky == Some(index) {
                topic.sticky = None;
            }
            self.load.in_flight += batch.records.len() as u64;
            self.counts.batches += 1;
            self.counts.batch_records_max =
                self.counts.batch_records_max.max(batch.records.len() as u64);
            batches.push(InFlightBatch { topic: id, topic_id: topic.id, partition: index, batch });
        }
        if batches.is_empty() {
            return false;
        }
        // The encoder writes topic by topic.
        batches.sort_by_key(|sent| (sent.topic, sent.partition));
        self.last_id += 1;
        let request = RequestId(self.last_id);
        let timeout = self.rules.request_timeout + ANSWER_GRACE;
        let deadline = broker.watch(now, request, timeout, batches);
        self.timers.schedule(&mut broker.scheduled, Timer::Broker(node), deadline);
        self.counts.requests += 1;
        self.out.actions.push_back(Action::Produce { conn, request });
        // With idempotence the next batch of a partition may follow in the next request.
        for (id, index) in again {
            self.reschedule_partition(now, id, index);
        }
        true
    }

    /// Asks a broker that is connected for something else than to take messages; `None` when there is none. It is the
    /// one that was not asked for the longest time: what one cannot tell, another may.
    pub(super) fn ask(
        &mut self,
        now: Time,
        action: impl FnOnce(ConnId, RequestId) -> Action,
    ) -> Option<(ConnId, RequestId)> {
        let up = self.brokers.known.iter_mut().filter_map(|(id, broker)| match broker.conn_state {
            ConnState::Up(conn) if broker.current && broker.throttle.until <= now => {
                Some((*id, conn, broker))
            }
            _ => None,
        });
        let (node, conn, broker) =
            up.min_by_key(|(id, _, broker)| (broker.last_asked, broker.in_flight.len(), *id))?;
        self.last_id += 1;
        let request = RequestId(self.last_id);
        broker.last_asked = Some(request);
        // No Produce request may be there to watch over the connection, so this one is watched too.
        let timeout = self.rules.request_timeout + ANSWER_GRACE;
        let deadline = broker.watch(now, request, timeout, Vec::new());
        self.timers.schedule(&mut broker.scheduled, Timer::Broker(node), deadline);
        self.out.actions.push_back(action(conn, request));
        Some((conn, request))
    }

    pub(super) fn connect(&mut self, node: BrokerId) {
        let Some(broker) = self.brokers.known.get_mut(&node) else { return };
        self.last_id += 1;
        let conn = ConnId(self.last_id);
        broker.conn_state = ConnState::Connecting(conn);
        self.brokers.connections.insert(conn, node);
        self.out.actions.push_back(Action::Connect {
            conn,
            broker: node,
            address: broker.address.clone(),
        });
    }

    /// Closes a connection of ours and takes back what was in flight.
    pub(super) fn close(&mut self, now: Time, conn: ConnId, reason: CloseReason) {
        self.out.actions.push_back(Action::Close { conn, reason });
        let ending = match reason {
            CloseReason::RequestTimeout => Ending::TimedOut,
            CloseReason::NotNeeded => Ending::Wanted,
        };
        self.drop_connection(now, conn, ending);
    }

    /// Takes back what was in flight on a connection that is gone. Unless that was wanted the next connect is put
    /// off.
    pub(super) fn drop_connection(&mut self, now: Time, conn: ConnId, ending: Ending) {
        let failed = matches!(ending, Ending::TimedOut | Ending::Broken | Ending::Refused);
        let Some(node) = self.brokers.connections.remove(&conn) else { return };
        self.forget_asked_metadata(conn, failed);
        let last_hope = self.is_last_hope(now, node);
        let Some(broker) = self.brokers.known.get_mut(&node) else { return };
        broker.conn_state = ConnState::Closed;
        // It was this connection that the broker did not read from.
        broker.throttle.until = now;
        let was_broken = ending == Ending::Broken;
        let lost = self.take_lost(now, node, was_broken);
        let Some(broker) = self.brokers.known.get_mut(&node) else { return };
        if failed {
            broker.backoff.failures = broker.backoff.failures.saturating_add(1);
            if broker.backoff.failures >= self.rules.conn_retry_limit && !last_hope {
                self.out.notices.push_back(Notice::BrokerRests {
                    broker: node,
                    address: broker.address.clone(),
                    attempts: std::mem::take(&mut broker.backoff.failures),
                    pause: self.rules.conn_rest,
                });
                broker.backoff.rests_until = now + self.rules.conn_rest;
            }
            let pause = retry::backoff(
                self.rules.reconnect_backoff,
                self.rules.reconnect_backoff_max,
                broker.backoff.failures,
                &mut self.random,
            );
            let times = if ending == Ending::Refused { AFTER_REFUSAL } else { 1 };
            broker.backoff.connect_after = now + pause.saturating_mul(times);
        } else if ending == Ending::NoRoom {
            broker.backoff.connect_after = now + self.rules.reconnect_backoff;
        }
        for sent in lost {
            if is_seeded(Bug::LoseOnDisconnect) {
                continue;
            }
            self.retry_lost(now, node, sent);
        }
        self.forget_asked_identity(now, conn, failed);
        self.prune(node);
        let gone = self.brokers.known.get(&node).is_some_and(|s| !s.current && s.ready.is_empty());
        if gone {
            self.brokers.known.remove(&node);
        } else {
            self.list_broker(node);
        }
        if failed {
            // Whoever led there may have moved.
            self.want_metadata(now);
        }
        if ending == Ending::NoRoom {
            // There is no more room for a connection to ask for metadata.
            let at = now + self.rules.reconnect_backoff;
            return self.timers.schedule(&mut self.metadata.scheduled, Timer::Metadata, at);
        }
        self.reschedule_metadata(now);
    }

    /// Takes back what was in flight. When the connection broke, it may be that the broker does not take requests that
    /// are as large, and hung up.
    fn take_lost(&mut self, now: Time, node: BrokerId, was_broken: bool) -> Vec<InFlightBatch> {
        let Some(broker) = self.brokers.known.get_mut(&node) else { return Vec::new() };
        let requests = std::mem::take(&mut broker.in_flight).into_iter();
        let mut requests: Vec<_> = requests.map(|sent| sent.batches).collect();
        if was_broken
            && let Some(largest) = requests.iter_mut().max_by_key(|sent| request_bytes(sent))
        {
            let bytes = request_bytes(largest);
            if let [sent] = &mut largest[..] {
                sent.batch.hung_up += u32::from(bytes >= SMALLEST_LIMIT);
            }
            let is_new = broker.request_limit.hung_up(now, bytes);
            if is_new && let Some(sent) = largest.iter().max_by_key(|sent| sent.batch.bytes) {
                let (topic, address) = (sent.topic, broker.address.clone());
                self.out.notices.push_back(Notice::HungUp { topic, broker: node, address, bytes });
            }
        }
        requests.into_iter().flatten().collect()
    }

    /// A batch's connection is gone: it is sent again, unless it is a single record that the broker hangs up on each
    /// time that it comes, see [`request_limit`](super::request_limit).
    fn retry_lost(&mut self, now: Time, node: BrokerId, sent: InFlightBatch) {
        let hopeless = sent.batch.records.len() == 1 && sent.batch.hung_up >= HOPELESS;
        let passes = |broker: &Broker| broker.request_limit.some_pass();
        let others_pass = self.brokers.known.get(&node).is_some_and(passes);
        let overdue = sent.batch.born() + self.rules.message_timeout <= now;
        let reason = match (others_pass, overdue) {
            _ if !hopeless => None,
            (true, _) => Some(Reason::HungUp),
            (false, overdue) => overdue.then_some(Reason::TimedOut),
        };
        match reason {
            Some(reason) => self.fail_in_doubt(now, sent, reason),
            None => self.retry_in_doubt(now, sent),
        }
    }

    /// True when no other broker is connected or could be tried now. A broker that leads partitions with
    /// something to send is tried for their sake even while it rests.
    pub(super) fn is_last_hope(&self, now: Time, node: BrokerId) -> bool {
        !self.brokers.known.iter().any(|(id, broker)| {
            *id != node
                && broker.current
                && (broker.is_up()
                    || (broker.backoff.failures == 0
                        && broker.backoff.connect_after <= now
                        && broker.backoff.rests_until <= now))
        })
    }

    /// Looks after a broker's deadlines.
    pub(super) fn reschedule_broker(&mut self, now: Time, node: BrokerId) {
        let Some(broker) = self.brokers.known.get_mut(&node) else { return };
        let oldest = broker.in_flight.front().map_or(Time::NEVER, |sent| sent.deadline);
        if oldest <= now {
            if let ConnState::Up(conn) = broker.conn_state {
                self.counts.broken_connections += 1;
                self.close(now, conn, CloseReason::RequestTimeout);
            }
            return;
        }
        self.timers.schedule(&mut broker.scheduled, Timer::Broker(node), oldest);
        self.list_broker(node);
    }

    pub(super) fn take_in_flight(
        &mut self,
        conn: ConnId,
        request: RequestId,
    ) -> Vec<InFlightBatch> {
        let Some(broker) = self.brokers.of(conn) else { return Vec::new() };
        let place = broker.in_flight.iter().position(|sent| sent.request == request);
        place
            .and_then(|place| broker.in_flight.remove(place))
            .map_or(Vec::new(), |sent| sent.batches)
    }

    /// An answer said that the broker makes a pause, for the sake of a quota.
    ///
    /// From Produce v6 on (Kafka 2.0, KIP-219) it answers first, and then reads nothing from the connection for that
    /// long: requests that are in flight already wait there, so their clocks stand still meanwhile. Before that it
    /// makes the pause first and answers then. Nothing announces such a pause, so that it counts against the request's
    /// time limit: with quotas there, `request_timeout_ms` must be longer than the longest of them. What the answer
    /// says is over by then, and decodes as 0.
    pub(super) fn throttle(&mut self, now: Time, conn: ConnId, throttle_ms: i32) {
        let Some(&node) = self.brokers.connections.get(&conn) else { return };
        let Some(broker) = self.brokers.known.get_mut(&node) else { return };
        let pause = u64::try_from(throttle_ms).map_or(Duration::ZERO, Duration::from_millis);
        let pause = pause.min(MAX_THROTTLE);
        if pause.is_zero() {
            return;
        }
        broker.pause(now, pause);
        self.counts.throttled_ms += pause.as_millis() as u64;
        let address = broker.address.clone();
        self.out.notices.push_back(Notice::Throttled { broker: node, address, pause });
    }
}
