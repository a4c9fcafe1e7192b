//! Starting a producer. From the first one on the end of the process is watched for.

use super::handle::Handle;
use super::registry::{InitError, registry};
use super::shutdown::watch_exit;
use crate::config::{Config, Value};
use crate::producer_name;

/// Starts the default producer, or finds it running with the same configuration. `prefix` is nginx's.
pub fn init(entries: &[(String, Value)], prefix: &str) -> Result<&'static Handle, InitError> {
    let config = Config::parse(entries, prefix)?;
    watch_exit();
    registry().start("", config)
}

/// Starts the producer of this name, or finds it running with the same configuration.
pub fn start(name: &str, config: Config) -> Result<&'static Handle, InitError> {
    if !producer_name::is_valid(name) {
        return Err(InitError::Name);
    }
    watch_exit();
    registry().start(name, config)
}
