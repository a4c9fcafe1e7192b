//! Takes records from the queues and hands them to the producer: which queues there are, who chooses a partition, and
//! what happens when a queue fills up.

pub(super) mod adoption;
pub(super) mod amount;
pub(super) mod intake;
pub(super) mod name;
pub(super) mod new_record;
pub(super) mod overflow;
pub(super) mod partitioning;
pub(super) mod queues;
