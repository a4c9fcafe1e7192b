//! Messages that could not be delivered: to `failed_cb` or the backup, and from the backup to Kafka again; and what is
//! left when a worker exits.

pub(super) mod disk;
pub(super) mod exit;
pub(super) mod failed_callback;
pub(super) mod replay;
pub(super) mod spill;
