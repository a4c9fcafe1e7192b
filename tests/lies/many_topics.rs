//! More topics than one answer can tell of (RES-06).

use super::case::Case;
use crate::support::broker::{Lie, NODE};
use kafka_protocol::messages::BrokerId;
use std::collections::BTreeSet;

const TOPICS: usize = 1_000;
const PARTITIONS: i32 = 120;
const REPLICAS: usize = 3;
/// For what is known of each of the partitions.
const MEMORY: isize = 24 << 20;

#[test]
fn res_06_a_thousand_topics_of_a_hundred_partitions_work() {
    // All of it in one answer would be 5 MB.
    let large = Lie::metadata(|answer| {
        for topic in &mut answer.topics {
            let first = topic.partitions[0]
                .clone()
                .with_replica_nodes(vec![BrokerId(NODE); REPLICAS])
                .with_isr_nodes(vec![BrokerId(NODE); REPLICAS]);
            let with_index = |index| first.clone().with_partition_index(index);
            topic.partitions = (0..PARTITIONS).map(with_index).collect();
        }
    });
    let mut case = Case::start((12, 12), vec![large.times(usize::MAX)], &[]).with_memory(MEMORY);
    for round in 0..2 {
        for topic in 0..TOPICS {
            case.log_without_hurry(&format!("t{topic}"));
        }
        let expected = (round + 1) * TOPICS;
        case.wait_until("all arrived", |case| case.broker.arrived_count() == expected);
    }
    let seen = case.delivers();
    let topics: BTreeSet<&str> = seen.arrived.iter().map(|record| &*record.topic).collect();
    assert_eq!(topics.len(), TOPICS);
    println!("{TOPICS} topics, {} partitions: {} bytes", TOPICS as i32 * PARTITIONS, seen.peak);
}
