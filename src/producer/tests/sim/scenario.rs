//! What a seed draws: the cluster, the rules, and what goes wrong when.

use super::super::sequences::Memory;
use super::*;

impl Sim {
    pub(super) fn new(seed: u64) -> Sim {
        let mut random = Random::new(seed);
        let pick = |random: &mut Random, of: &[u64]| of[random.below(of.len() as u64) as usize];
        let faults = Faults {
            late: pick(&mut random, &[0, 500]),
            lose_request: pick(&mut random, &[0, 10, 100]),
            lose_answer: pick(&mut random, &[0, 10, 100]),
            swallow_answer: pick(&mut random, &[0, 0, 20]),
            error_before_append: pick(&mut random, &[0, 20, 200]),
            error_after_append: pick(&mut random, &[0, 20, 200]),
            forget_producers: pick(&mut random, &[0, 0, 0, 50]),
            snapshot: pick(&mut random, &[0, 0, 100]),
            metadata_behind: pick(&mut random, &[0, 0, 200, 900]),
            no_producer_id: pick(&mut random, &[0, 300]),
            fatal_error: pick(&mut random, &[0, 0, 10]),
            record_error: pick(&mut random, &[0, 0, 30]),
            metadata_error: pick(&mut random, &[0, 50]),
            metadata_partial: pick(&mut random, &[0, 0, 300]),
            connect_fails: pick(&mut random, &[0, 50, 300]),
            throttle: pick(&mut random, &[0, 0, 100, 900]),
            throttle_ms: pick(&mut random, &[200, 2_000, 9_000]),
            latency: pick(&mut random, &[500, 20_000, 400_000]),
            slow: pick(&mut random, &[0, 0, 20]),
        };
        let wire_is_quick = faults.slow == 0 && faults.latency <= 20_000;
        let forgetful = faults.forget_producers > 0;
        let topics_stay = faults.metadata_partial + faults.metadata_behind == 0;
        let appends_fail = faults.error_after_append > 0;
        let any_error = random.below(6) == 0;
        let refusals = any_error || faults.fatal_error + faults.record_error > 0;
        let brokers = 1 + random.below(3) as i32;
        let topics = (0..1 + random.below(3)).map(|index| {
            let partitions = 1 + random.below(4) as usize;
            let leaders = (0..partitions)
                .map(|_| (Some(1 + random.below(brokers as u64) as i32), 0))
                .collect();
            ModelTopic {
                name: format!("t{index}"),
                id: Uuid::from_bytes([index as u8 + 1; 16]),
                leaders,
                logs: vec![Vec::new(); partitions],
                producers: vec![Default::default(); partitions],
            }
        });
        let topics: Vec<ModelTopic> = topics.collect();
        let rules = Rules {
            acks: pick(&mut random, &[0, 1, 1, 1, 1]) as i16,
            linger: Duration::from_millis(pick(&mut random, &[0, 5, 200, 2000])),
            message_timeout: Duration::from_millis(pick(&mut random, &[700, 5000, 60_000])),
            request_timeout: Duration::from_millis(pick(&mut random, &[300, 5000])),
            batch_records: pick(&mut random, &[1, 3, 20, 500]) as usize,
            batch_bytes: pick(&mut random, &[1024, 100_000]) as usize,
            max_retries: pick(&mut random, &[0, 2, 1000]) as u32,
            max_in_flight: pick(&mut random, &[1, 5]) as usize,
            metadata_refresh: Duration::from_millis(pick(&mut random, &[60_000, 300])),
            ..super::rules()
        };
        let acks_none = rules.acks == 0;
        let idempotent = !acks_none && random.below(2) == 0;
        let rules = Rules {
            idempotence: if idempotent { Idempotence::Required } else { Idempotence::Off },
            ..rules
        };
        let mut sim = Sim {
            now: Time(0),
            producer: Producer::new(rules.clone(), seed ^ 1),
            rules,
            clock: Vec::new(),
            drained_at: vec![Time(0)],
            meant: Time(0),
            lives: 0,
            files: vec![0],
            idempotent,
            by_id: pick(&mut random, &[0, 1]) == 1,
            compresses: seed.is_multiple_of(3),
            torn: false,
            refusals,
            cluster: Cluster {
                max_records: pick(&mut random, &[1, 7, 1000, 1000]) as usize,
                max_request: usize::MAX,
                topics_exist_from: Time(pick(&mut random, &[0, 0, 900_000])),
                random: Random::new(seed ^ 2),
                faults,
                forgot: false,
                snapshots: false,
                memory: {
                    let batches = pick(&mut random, &[5, 5, 5, 1]) as usize;
                    let from_0 = forgetful || random.below(3) == 0;
                    let old = if batches == 1 { Memory::OLDEST } else { Memory::OLD };
                    Memory { batches, unknown: old.unknown.filter(|_| from_0) }
                },
                any_error,
                graveyard: Vec::new(),
                next_producer_id: 100,
                first_epoch: pick(&mut random, &[0, 0, 32_766]) as i16,
                up: (1..=brokers).map(|id| (id, true)).collect(),
                topics,
            },
            events: BinaryHeap::new(),
            payloads: Vec::new(),
            open: HashMap::new(),
            led_to: HashMap::new(),
            arrivals: HashMap::new(),
            ledger: Ledger::default(),
            spill: Vec::new(),
            disk_full: false,
            frozen_until: Time(0),
            frozen_for: Duration::ZERO,
            told: false,
            cut: HashSet::new(),
            wire_is_quick,
            muted: HashMap::new(),
            mute: HashSet::new(),
            appends_fail,
            topics_stay,
            topics_shrank: false,
            late: false,
            crash_within: pick(&mut random, &[0, 0, 5, 50]),
            crashes_left: 10,
            records_left: 20 + random.below(300),
            gap: pick(&mut random, &[10, 1_000, 50_000]),
            keys: 1 + random.below(20),
            steps: 0,
            acks_none,
        };
        if pick(&mut random, &[0, 0, 1]) == 1 && sim.cluster.memory.unknown.is_none() {
            sim.producer.begin_sequences_at(i32::MAX - 20);
        }
        sim.refusals |= sim.cluster.max_records < sim.rules.batch_records;
        sim.name_topics();
        sim.at(Duration::from_micros(1), Event::Record);
        for _ in 0..random.below(6) {
            let at = Duration::from_micros(random.below(10_000_000));
            let broker = 1 + random.below(brokers as u64) as i32;
            match random.below(6) {
                5 if random.below(4) == 0 => {
                    let topic = random.below(sim.cluster.topics.len() as u64) as usize;
                    sim.at(at, Event::Recreate(topic, 1 + random.below(4) as usize));
                }
                4 | 5 => sim.at(at, Event::Crash),
                0 => sim.at(at, Event::BrokerDown(broker)),
                1 => sim.at(at, Event::Flush),
                _ => sim.at(at, Event::MoveLeader),
            }
        }
        for _ in 0..random.below(4) {
            sim.at(Duration::from_micros(random.below(10_000_000)), Event::Evict);
        }
        if random.below(3) == 0 {
            for _ in 0..1 + random.below(3) {
                let longest = pick(&mut random, &[50, 2_000, 70_000]);
                let time = Duration::from_millis(1 + random.below(longest));
                sim.at(Duration::from_micros(random.below(10_000_000)), Event::Freeze(time));
            }
        }
        if random.below(3) == 0 {
            let at = Duration::from_micros(random.below(10_000_000));
            sim.at(at, Event::DiskFull);
            sim.at(at + Duration::from_micros(random.below(5_000_000)), Event::DiskFree);
        }
        if random.below(4) == 0 {
            let limit = pick(&mut random, &[1, 7]) as usize;
            sim.at(Duration::from_micros(random.below(5_000_000)), Event::Limit(limit));
        }
        if random.below(4) == 0 {
            let limit = pick(&mut random, &[250, 400, 700, 2_000]) as usize;
            let at = pick(&mut random, &[1, 5_000_000]);
            sim.at(Duration::from_micros(random.below(at)), Event::RequestLimit(limit));
        }
        if random.below(3) == 0 {
            for _ in 0..1 + random.below(3) {
                let ms = pick(&mut random, &[0, 700, 7_200_000]) as i64;
                let ms = if random.below(2) == 0 { ms } else { -ms };
                sim.at(Duration::from_micros(random.below(10_000_000)), Event::SetClock(ms));
            }
        }
        sim.at(Duration::from_secs(15), Event::Heal);
        sim
    }

    /// The next owner may have another configuration.
    pub(super) fn change_rules(&mut self) {
        if self.acks_none || self.cluster.chance(500) {
            return;
        }
        let random = &mut self.cluster.random;
        let mut pick = |of: &[u64]| of[random.below(of.len() as u64) as usize];
        self.rules.batch_records = pick(&[1, 3, 20, 500]) as usize;
        self.rules.batch_bytes = pick(&[1024, 100_000]) as usize;
        self.rules.max_in_flight = pick(&[1, 5]) as usize;
        self.rules.max_retries = pick(&[0, 2, 1000]) as u32;
        self.rules.message_timeout = Duration::from_millis(pick(&[700, 5000, 60_000]));
        self.rules.idempotence =
            if pick(&[0, 1, 1, 1]) == 1 { Idempotence::Required } else { Idempotence::Off };
        self.idempotent &= self.rules.idempotence != Idempotence::Off;
        self.refusals |= self.cluster.max_records < self.rules.batch_records;
    }
}
