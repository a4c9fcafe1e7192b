//! Sinks at work: when a broker is connected to, what goes into a request, what becomes of a connection
//! that ends.

use super::accumulator::Next;
use super::sink::{InFlight, Link, Sent};
use super::timer::Timer;
use super::{Action, BrokerId, CloseReason, ConnId, Notice, Producer, RequestId, Time, retry};
use crate::seeded_bug::{Bug, is_seeded};
use std::time::Duration;

/// How long after the broker's own limit for an answer (`request_timeout_ms`, which it is told) the
/// connection is given up: the answer that the limit passed needs time to travel too.
const ANSWER_GRACE: Duration = Duration::from_millis(500);

/// Encoded batches that go into one request, unless a single batch is larger.
const REQUEST_BYTES: usize = 1 << 20;

/// Longest pause that a broker may impose.
const MAX_THROTTLE: Duration = Duration::from_secs(60);

/// How many times as long the pause before the next connect is after a refusal.
const AFTER_REFUSAL: u32 = 10;

/// How a connection came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// We closed it, and nothing is wrong.
    Wanted,
    Failed,
    /// The broker does not let us in.
    Refused,
}

impl Producer {
    pub(super) fn list_sink(&mut self, broker: BrokerId) {
        if let Some(sink) = self.sinks.get_mut(&broker)
            && !sink.listed
        {
            sink.listed = true;
            self.listed_sinks.push_back(broker);
        }
    }

    pub(super) fn relist(&mut self, conn: ConnId) {
        if let Some(&broker) = self.connections.get(&conn) {
            self.list_sink(broker);
        }
    }

    /// Does one thing for a sink; false when there is nothing to do for now.
    pub(super) fn drive_sink(&mut self, now: Time, broker: BrokerId) -> bool {
        self.prune(broker);
        let Some(sink) = self.sinks.get_mut(&broker) else { return false };
        match sink.link {
            Link::Connecting(_) => false,
            Link::Closed => {
                if sink.ready.is_empty() {
                    return false;
                }
                if sink.may_connect(now) {
                    self.connect(broker);
                    return true;
                }
                let at = sink.connect_after;
                self.timers.schedule(&mut sink.scheduled, Timer::Sink(broker), at);
                false
            }
            Link::Up(conn) => {
                if !sink.current && sink.in_flight.is_empty() && sink.ready.is_empty() {
                    self.close(now, conn, CloseReason::NotNeeded);
                    self.sinks.remove(&broker);
                    return false;
                }
                if sink.in_flight.len() >= self.rules.max_in_flight {
                    return false;
                }
                if sink.throttled_until > now {
                    let at = sink.throttled_until;
                    self.timers.schedule(&mut sink.scheduled, Timer::Sink(broker), at);
                    return false;
                }
                self.build_request(now, broker, conn)
            }
        }
    }

    /// Takes partitions from the front of a sink's list that moved away since they were put there.
    pub(super) fn prune(&mut self, broker: BrokerId) {
        let Some(sink) = self.sinks.get_mut(&broker) else { return };
        while let Some((id, index)) = sink.ready.front() {
            let partition = self.topics[id.0 as usize].partitions.get(*index as usize);
            if partition.is_some_and(|p| p.listed && p.leader == Some(broker)) {
                return;
            }
            sink.ready.pop_front();
        }
    }

    /// Fills a request from the sink's list; false when nothing on it is still to be sent from here.
    pub(super) fn build_request(&mut self, now: Time, broker: BrokerId, conn: ConnId) -> bool {
        let mut batches = Vec::new();
        let mut again = Vec::new();
        let mut bytes = 0;
        let Some(sink) = self.sinks.get_mut(&broker) else { return false };
        while let Some(&(id, index)) = sink.ready.front() {
            let topic = &mut self.topics[id.0 as usize];
            let partition = topic.partitions.get_mut(index as usize);
            // A partition that moved away, or was listed twice around a move, is somebody else's.
            let Some(partition) = partition.filter(|p| p.listed && p.leader == Some(broker)) else {
                sink.ready.pop_front();
                continue;
            };
            let idempotent = self.identity.is_on();
            // What made it ready may have gone since it was listed.
            if let Next::At(at) = partition.next(now, &self.rules, self.flushed_at, idempotent) {
                sink.ready.pop_front();
                partition.listed = false;
                let timer = Timer::Partition(id, index);
                self.timers.schedule(&mut partition.scheduled, timer, at);
                continue;
            }
            let front = partition.front_bytes();
            if !batches.is_empty() && bytes + front > REQUEST_BYTES {
                break;
            }
            sink.ready.pop_front();
            partition.listed = false;
            // Without a producer id it waits for one.
            let Some(batch) = partition.take(&self.identity) else { continue };
            again.push((id, index));
            bytes += front;
            if topic.sticky == Some(index) {
                topic.sticky = None;
            }
            self.in_flight_records += batch.records.len() as u64;
            self.counts.batches += 1;
            self.counts.batch_records_max =
                self.counts.batch_records_max.max(batch.records.len() as u64);
            batches.push(Sent { topic: id, topic_id: topic.id, partition: index, batch });
        }
        if batches.is_empty() {
            return false;
        }
        // The encoder writes topic by topic.
        batches.sort_by_key(|sent| (sent.topic, sent.partition));
        self.last_id += 1;
        let request = RequestId(self.last_id);
        let deadline = now + self.rules.request_timeout + ANSWER_GRACE;
        sink.in_flight.push_back(InFlight { request, deadline, batches });
        self.timers.schedule(&mut sink.scheduled, Timer::Sink(broker), deadline);
        self.counts.requests += 1;
        self.actions.push_back(Action::Produce { conn, request });
        // With idempotence the next batch of a partition may follow in the next request.
        for (id, index) in again {
            self.look_at_partition(now, id, index);
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
        let up = self.sinks.iter_mut().filter_map(|(id, sink)| match sink.link {
            Link::Up(conn) if sink.current && sink.throttled_until <= now => {
                Some((*id, conn, sink))
            }
            _ => None,
        });
        let (broker, conn, sink) =
            up.min_by_key(|(id, _, sink)| (sink.last_asked, sink.in_flight.len(), *id))?;
        self.last_id += 1;
        let request = RequestId(self.last_id);
        sink.last_asked = Some(request);
        // No Produce request may be there to watch over the connection, so this one is watched too.
        let deadline = now + self.rules.request_timeout + ANSWER_GRACE;
        sink.in_flight.push_back(InFlight { request, deadline, batches: Vec::new() });
        self.timers.schedule(&mut sink.scheduled, Timer::Sink(broker), deadline);
        self.actions.push_back(action(conn, request));
        Some((conn, request))
    }

    pub(super) fn connect(&mut self, broker: BrokerId) {
        let Some(sink) = self.sinks.get_mut(&broker) else { return };
        self.last_id += 1;
        let conn = ConnId(self.last_id);
        sink.link = Link::Connecting(conn);
        self.connections.insert(conn, broker);
        self.actions.push_back(Action::Connect { conn, broker, address: sink.address.clone() });
    }

    /// Closes a connection of ours and takes back what was on its way.
    pub(super) fn close(&mut self, now: Time, conn: ConnId, reason: CloseReason) {
        self.actions.push_back(Action::Close { conn, reason });
        let ending = match reason {
            CloseReason::RequestTimeout => Ending::Failed,
            CloseReason::NotNeeded => Ending::Wanted,
        };
        self.drop_connection(now, conn, ending);
    }

    /// Takes back what was on its way on a connection that is gone. Unless that was wanted the next connect is put
    /// off.
    pub(super) fn drop_connection(&mut self, now: Time, conn: ConnId, ending: Ending) {
        let failed = ending != Ending::Wanted;
        let Some(broker) = self.connections.remove(&conn) else { return };
        self.forget_asked_metadata(conn, failed);
        let last_hope = self.is_last_hope(now, broker);
        let Some(sink) = self.sinks.get_mut(&broker) else { return };
        sink.link = Link::Closed;
        let lost: Vec<Sent> = sink.in_flight.drain(..).flat_map(|sent| sent.batches).collect();
        if failed {
            sink.failures = sink.failures.saturating_add(1);
            if sink.failures >= self.rules.conn_retry_limit && !last_hope {
                let address = sink.address.clone();
                self.notices.push_back(Notice::BrokerRests { broker, address });
                sink.failures = 0;
                sink.rests_until = now + self.rules.conn_rest;
            }
            let pause = retry::backoff(
                self.rules.reconnect_backoff,
                self.rules.reconnect_backoff_max,
                sink.failures,
                &mut self.random,
            );
            let times = if ending == Ending::Refused { AFTER_REFUSAL } else { 1 };
            sink.connect_after = now + pause.saturating_mul(times);
        }
        for sent in lost {
            if is_seeded(Bug::LoseOnDisconnect) {
                continue;
            }
            self.retry_in_doubt(now, sent);
        }
        self.forget_asked_identity(now, conn, failed);
        self.prune(broker);
        let gone = self.sinks.get(&broker).is_some_and(|s| !s.current && s.ready.is_empty());
        if gone {
            self.sinks.remove(&broker);
        } else {
            self.list_sink(broker);
        }
        if failed {
            // Whoever led there may have moved.
            self.want_metadata(now);
        }
        self.look_at_metadata(now);
    }

    /// True when no other broker is connected or could be tried now. A broker that leads partitions with
    /// something to send is tried for their sake even while it rests.
    pub(super) fn is_last_hope(&self, now: Time, broker: BrokerId) -> bool {
        !self.sinks.iter().any(|(id, sink)| {
            *id != broker
                && sink.current
                && (sink.is_up()
                    || (sink.failures == 0 && sink.connect_after <= now && sink.rests_until <= now))
        })
    }

    /// Looks after a sink's deadlines.
    pub(super) fn look_at_sink(&mut self, now: Time, broker: BrokerId) {
        let Some(sink) = self.sinks.get_mut(&broker) else { return };
        let oldest = sink.in_flight.front().map_or(Time::NEVER, |sent| sent.deadline);
        if oldest <= now {
            if let Link::Up(conn) = sink.link {
                self.counts.broken_connections += 1;
                self.close(now, conn, CloseReason::RequestTimeout);
            }
            return;
        }
        self.timers.schedule(&mut sink.scheduled, Timer::Sink(broker), oldest);
        self.list_sink(broker);
    }

    pub(super) fn take_in_flight(&mut self, conn: ConnId, request: RequestId) -> Vec<Sent> {
        let broker = self.connections.get(&conn);
        let Some(sink) = broker.and_then(|broker| self.sinks.get_mut(broker)) else {
            return Vec::new();
        };
        let place = sink.in_flight.iter().position(|sent| sent.request == request);
        place.and_then(|place| sink.in_flight.remove(place)).map_or(Vec::new(), |sent| sent.batches)
    }

    pub(super) fn throttle(&mut self, now: Time, broker: BrokerId, throttle_ms: i32) {
        let Some(sink) = self.sinks.get_mut(&broker) else { return };
        if let Ok(pause) = u64::try_from(throttle_ms)
            && pause > 0
        {
            let until = now + Duration::from_millis(pause).min(MAX_THROTTLE);
            sink.throttled_until = sink.throttled_until.max(until);
        }
    }
}
