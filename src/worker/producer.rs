//! One producer: its configuration, its driver, its writing half.

use super::handle::Handle;
use crate::config::Config;
use crate::driver::lua::bell::BellError;
use crate::driver::{Driver, Shared, StartError};
use std::path::PathBuf;
use std::time::Duration;

/// A producer that was started in this process, or in the one that forked it.
pub struct Producer {
    name: String,
    pid: u32,
    config: Config,
    pub(super) driver: Driver,
    handle: &'static Handle,
    /// Its end has begun.
    pub(super) ends: bool,
    /// A Lua VM brings its log lines to nginx, publishes its statistics and runs its callbacks.
    pub(super) is_served: bool,
}

impl Producer {
    /// Starts one; `name` is empty for the default one.
    pub(super) fn start(name: &str, config: Config) -> Result<Producer, StartError> {
        let instance = format!("{:08x}", crc32fast::hash(config.queue.instance.as_bytes()));
        let (driver, writer) = Driver::start(config.clone(), name, &instance)?;
        let handle = Handle::leak(writer, driver.shared().clone(), &config.brokers.topics);
        let pid = std::process::id();
        Ok(Producer {
            name: name.to_owned(),
            pid,
            config,
            driver,
            handle,
            ends: false,
            is_served: false,
        })
    }

    /// False in a child that this process's starter forked: there is no thread, nor the queue's memory.
    pub(super) fn is_here(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Its name, empty for the default one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its log lines begin with.
    pub fn tag(&self) -> String {
        match &*self.name {
            "" => "[lkfk] ".to_owned(),
            name => format!("[lkfk {name}] "),
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its writing half.
    pub fn handle(&self) -> &'static Handle {
        self.handle
    }

    /// What it shares with the driver thread.
    pub fn shared(&self) -> &Shared {
        self.driver.shared()
    }

    /// Path of the socket at which Lua hears the driver, see [`bell`](crate::driver::lua::bell).
    pub fn bell_path(&self) -> Result<PathBuf, BellError> {
        self.driver.bell_path()
    }

    /// Asks for everything logged so far to be sent; returns the position to pass to [`is_done`](Self::is_done).
    pub fn flush(&self) -> u64 {
        let position = self.handle.tail();
        self.driver.flush(position);
        position
    }

    /// True when everything up to `position` was delivered or is in a backup file.
    pub fn is_done(&self, position: u64) -> bool {
        self.driver.is_done(position)
    }

    /// True for the caller that is to bring its log lines to nginx, publish its statistics and run its callbacks from
    /// now on: nobody else does.
    pub fn begin_to_serve(&mut self) -> bool {
        !self.ends && !std::mem::replace(&mut self.is_served, true)
    }

    /// True once it takes no more.
    pub fn ends(&self) -> bool {
        self.ends
    }

    /// How long its end may take in any case.
    pub(super) fn exit_timeout(&self) -> Duration {
        self.config.exit.timeout()
    }
}
