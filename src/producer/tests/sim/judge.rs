//! What is wrong after a run, if anything is.

use super::*;

impl Sim {
    pub(super) fn judge(&self) -> Result<(), String> {
        // Where a broker recognises the last batch alone, one in doubt is not told from one that is not there
        // when those that follow it are not in doubt, were cut since they seemed too large for a request, or lie in
        // a file that another worker has. And what a dead worker sent may arrive after one adopter closed the hole
        // that made another send its part as new.
        let snapshots = self.cluster.snapshots;
        let forgetful = self.cluster.forgot
            || snapshots && (self.lives > 0 || self.appends_fail || self.a_part_failed_in_doubt())
            || self.late && self.ledger.chains_cross();
        // An owner that is killed while it gives a batch other numbers or bounds, which was refused or is too large
        // for a request, leaves one that is not whole. The next one sends it after those that are.
        let cuts = self.refusals || self.cluster.max_request < usize::MAX;
        let torn = self.torn || self.lives > 0 && cuts || self.topics_shrank;
        let mut logged: HashSet<RecordId> = HashSet::new();
        let topics = self.cluster.topics.iter().enumerate();
        let logs = topics.flat_map(|(index, topic)| topic.logs.iter().map(move |log| (index, log)));
        let dead = self.cluster.graveyard.iter().map(|(index, log)| (*index, log));
        for (index, log) in logs.chain(dead) {
            let mut seen = HashSet::new();
            let mut last: HashMap<(Option<i64>, u16), RecordId> = HashMap::new();
            for id in log {
                if self.ledger.topic(*id) != TopicId(index as u32) {
                    return Err(format!("{id:?} is in the log of another topic"));
                }
                let first = seen.insert(*id) && logged.insert(*id);
                let delivered = self.ledger.fate(*id).is_some_and(|fate| fate.is_delivered());
                if !first && !forgetful && !self.ledger.may_double(*id) {
                    return Err(format!("{id:?} is doubled"));
                }
                let quiet = delivered && !self.acks_none && !self.late && self.lives == 0;
                if !(first && (self.idempotent && !forgetful || quiet)) {
                    continue;
                }
                // Another owner may choose another partition for what was not sent yet, and goes on with its
                // own records meanwhile. So order holds between records of a file that one owner sent first.
                let stream = (self.ledger.first_producer_id(*id), id.queue());
                let last = last.entry(stream).or_insert(*id);
                if number(*last) > number(*id) && !forgetful && !torn {
                    return Err(format!("{id:?} stands after {last:?}"));
                }
                *last = *id;
            }
        }
        // A log that was made anew begins with any number, and then a dead worker's batches are not without gaps.
        let begins_anywhere =
            !self.cluster.graveyard.is_empty() && self.cluster.memory.unknown.is_none();
        // And one of Kafka 0.11 that has just forgotten a producer says the same as one that has its batch as a whole.
        let says_no_more = self.cluster.forgot && self.cluster.memory.unknown == Some(45);
        let anew = begins_anywhere && self.lives > 0 || says_no_more;
        for id in self.ledger.ids() {
            match self.ledger.fate(id) {
                Some(Delivery::Delivered { .. })
                    if !self.acks_none && !anew && !logged.contains(&id) =>
                {
                    return Err(format!("{id:?} counts as delivered and is in no log"));
                }
                _ if logged.contains(&id)
                    && self.ledger.was_backed_up(id)
                    && !self.ledger.may_double(id)
                    && !forgetful =>
                {
                    return Err(format!("{id:?} is in a log and in the backup"));
                }
                Some(Delivery::Failed { reason, in_doubt: true })
                    if self.idempotent
                        && self.lives == 0
                        && self.topics_stay
                        && !self.refusals
                        && !forgetful
                        && self.cluster.topics_exist_from == Time(0) =>
                {
                    return Err(format!("{id:?} was given up in doubt ({reason})"));
                }
                Some(Delivery::Failed { reason, in_doubt: false })
                    if logged.contains(&id) && self.lives == 0 && !forgetful =>
                {
                    return Err(format!("{id:?} failed for sure ({reason}) and is in a log"));
                }
                _ => {}
            }
        }
        if self.producer.held_records() != 0 || self.producer.in_flight_records() != 0 {
            return Err(format!(
                "the producer counts {} held and {} in flight at the end",
                self.producer.held_records(),
                self.producer.in_flight_records()
            ));
        }
        Ok(())
    }

    /// Whether of a batch that was cut a part was refused for its number, and nobody could tell why.
    fn a_part_failed_in_doubt(&self) -> bool {
        let reason = Reason::Broker(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        let failed = Some(Delivery::Failed { reason, in_doubt: true });
        self.ledger.ids().any(|id| self.ledger.fate(id) == failed)
    }
}
