//! Which producers this process has.

use super::handle::Handle;
use super::producer::Producer;
use crate::config::{Config, ConfigError};
use crate::driver::StartError;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// Why a producer was not started.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The configuration was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The driver could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No producer may have this name.
    #[error("not a valid name of a producer: 1 to 64 of a-z A-Z 0-9 . _ - are allowed")]
    Name,
    /// It runs already, with other values.
    #[error("already running with another configuration; reload nginx to change it")]
    Different,
    /// It was started in the process that forked this one.
    #[error(
        "started before the fork: init() must be called in init_worker_by_lua, not in init_by_lua"
    )]
    Forked,
    /// It was ended; the process is about to exit.
    #[error("the worker is exiting")]
    Exiting,
}

/// The producers, and what nginx has said of the end.
pub(super) struct Registry {
    pub producers: Vec<Producer>,
    /// Why a producer does not run, by its name: what its last start came to.
    init_errors: BTreeMap<String, String>,
    /// Until when nginx lets a worker live that shuts down gracefully, once it does.
    pub shutdown_by: Option<Instant>,
}

static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { producers: Vec::new(), init_errors: BTreeMap::new(), shutdown_by: None });

pub(super) fn registry() -> MutexGuard<'static, Registry> {
    // A panic while it was locked leaves a list of producers, of which each is whole.
    REGISTRY.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Registry {
    fn named(&self, name: &str) -> Option<&Producer> {
        self.producers.iter().find(|producer| producer.name() == name)
    }

    /// Those of this process.
    pub fn here(&mut self) -> impl Iterator<Item = &mut Producer> {
        self.producers.iter_mut().filter(|producer| producer.is_here())
    }

    /// Starts the producer of this name, or finds it running with the same configuration.
    pub fn start(&mut self, name: &str, config: Config) -> Result<&'static Handle, InitError> {
        if let Some(producer) = self.named(name) {
            return match () {
                () if !producer.is_here() => Err(InitError::Forked),
                () if producer.ends => Err(InitError::Exiting),
                () if *producer.config() != config => Err(InitError::Different),
                () => Ok(producer.handle()),
            };
        }
        let producer = Producer::start(name, config)?;
        let handle = producer.handle();
        self.producers.push(producer);
        Ok(handle)
    }
}

/// The producer of this name that runs in this process; the default one has the empty name.
pub fn find(name: &str) -> Option<&'static Handle> {
    let registry = registry();
    registry.named(name).filter(|producer| producer.is_here()).map(Producer::handle)
}

/// Remembers why the producer of this name could not be started; `None` when it was. Names are few: those of the
/// configuration.
pub fn set_init_error(name: &str, error: Option<String>) {
    let mut registry = registry();
    match error {
        Some(error) => registry.init_errors.insert(name.to_owned(), error),
        None => registry.init_errors.remove(name),
    };
}

/// Why the producer of this name could not be started, in this process or in the one that forked it.
pub fn init_error(name: &str) -> Option<String> {
    registry().init_errors.get(name).cloned()
}

/// Calls `f` with the producer that `handle` names, unless it is closed or another process's: a forked child does not
/// even have the queue's memory. The address is compared, never followed, so that it may be anything.
pub fn with<T>(handle: *const Handle, f: impl FnOnce(&mut Producer) -> T) -> Option<T> {
    registry().here().find(|producer| std::ptr::eq(producer.handle(), handle)).map(f)
}
