//! What the system is asked for in more than one place.

pub(crate) mod files;
pub(crate) mod user;
