//! More brokers than a worker has descriptors for.

use super::case::Case;
use crate::support::broker::{Lie, NODE};
use kafka_protocol::messages::BrokerId;
use rustix::process::{Resource, getrlimit};

const BROKERS: i32 = 4_000;
/// For what is known of each of them, and of the partition that it leads.
const MEMORY: isize = 24 << 20;

/// What a worker may have.
fn limit() -> usize {
    getrlimit(Resource::Nofile)
        .current
        .map_or(256, |descriptors| (descriptors / 8).min(256) as usize)
}

#[test]
fn flt_12_a_cluster_of_4000_brokers_leaves_nginx_its_descriptors() {
    // Each leads one partition.
    let crowd = Lie::metadata(|answer| {
        // The first exchange of a connection is to fit into 64 KiB.
        if answer.topics.is_empty() {
            return;
        }
        let first = answer.brokers[0].clone();
        let with_id = |id| first.clone().with_node_id(BrokerId(id));
        answer.brokers = (NODE..NODE + BROKERS).map(with_id).collect();
        for topic in &mut answer.topics {
            let first = topic.partitions[0].clone();
            let led_by =
                |at| first.clone().with_partition_index(at).with_leader_id(BrokerId(NODE + at));
            topic.partitions = (0..BROKERS).map(led_by).collect();
        }
    });
    let options = [("message_timeout_ms", 3_000)];
    let mut case =
        Case::start((12, 12), vec![crowd.times(usize::MAX)], &options).with_memory(MEMORY);
    for _ in 0..3_000 {
        case.log_without_hurry("t");
    }
    case.wait_until("the limit named", |case| case.has_said("worker_rlimit_nofile"));
    case.wait_until("the limit reached", |case| case.broker.most_open() > limit() / 2);
    let seen = case.keeps();
    assert!(seen.most_open <= limit(), "{} connections of {}", seen.most_open, limit());
    // What was not delivered meanwhile is told with it as the last warning.
    let names_it =
        |line: &&String| line.starts_with("all ") && line.contains("worker_rlimit_nofile");
    assert_eq!(seen.lines.iter().filter(names_it).count(), 1, "{:?}", seen.lines);
}
