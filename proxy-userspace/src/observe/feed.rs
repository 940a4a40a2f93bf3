//! The stream of dropped packets: one reader at a time, names kept up to date, and enforcement that begins anew under it.
//! Called by `monitor` and `top`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use proxy_common::abi::event::Event;

use super::drops::{Called, Dropped};
use crate::control::lock::{self, Lock};
use crate::dataplane::{
    DataplaneError, HostInterface, Listener, Pins, engine_to_unix_ns, host_interfaces, read_rules,
};

/// How often names and clocks are read anew.
const REFRESH: Duration = Duration::from_secs(1);

/// How long something may fail: while enforcement ends or begins, pins go or come one by one.
const TOLERANCE: Duration = Duration::from_secs(5);

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// Somebody else reads.
    #[error(
        "another reader has the events of this firewall ({0}), and there can be one at a time: end that first"
    )]
    Taken(String),
    /// The lock can't be made.
    #[error("the lock of the events in the run directory: {0}")]
    Lock(io::Error),
    /// The kernel.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
}

/// The stream.
#[derive(Debug)]
pub struct Feed {
    pins: Pins,
    listener: Option<Listener>,
    names: Names,
    failing: Option<Instant>,
    _lock: Lock,
}

/// What numbers are called.
#[derive(Debug, Default)]
struct Names {
    interfaces: Vec<HostInterface>,
    rules: Vec<Option<String>>,
    to_unix_ns: i128,
    read: Option<Instant>,
}

impl Feed {
    /// Begins to listen. `command` is who others are told has the events. Nothing enforced gives a stream that waits.
    ///
    /// # Errors
    /// If somebody else listens, or the kernel refuses something.
    pub fn open(pins: &Pins, run_dir: &Path, command: &str) -> Result<Self, FeedError> {
        let lock = lock::events(run_dir, command).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => FeedError::Taken(error.to_string()),
            _ => FeedError::Lock(error),
        })?;
        let mut feed =
            Self { pins: pins.clone(), listener: None, names: Names::default(), failing: None, _lock: lock };
        feed.try_to_keep()?;
        Ok(feed)
    }

    /// Keeps the stream alive: to be called once a second or oftener.
    ///
    /// # Errors
    /// If the kernel refuses something, and goes on refusing.
    pub fn keep(&mut self) -> Result<(), DataplaneError> {
        let Err(error) = self.try_to_keep() else {
            self.failing = None;
            return Ok(());
        };
        self.listener = None;
        let since = *self.failing.get_or_insert_with(Instant::now);
        if since.elapsed() < TOLERANCE { Ok(()) } else { Err(error) }
    }

    fn try_to_keep(&mut self) -> Result<(), DataplaneError> {
        let alive = self.listener.as_mut().map_or(Ok(false), Listener::renew)?;
        if !alive {
            self.listener = None;
            self.listener = Listener::open(&self.pins)?;
            self.names.read = None;
        }
        if self.names.read.is_none_or(|read| read.elapsed() >= REFRESH) {
            self.refresh()?;
        }
        Ok(())
    }

    /// True if there is something to listen to.
    pub const fn is_live(&self) -> bool {
        self.listener.is_some()
    }

    /// Names of the rules, those of earlier policies that still count included.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        self.names.rules.iter().flatten().map(String::as_str)
    }

    /// The next dropped packet that has come, if there is one.
    #[expect(clippy::should_implement_trait, reason = "an iterator would end at the first pause")]
    pub fn next(&mut self) -> Option<(Event, Dropped)> {
        let event = self.listener.as_mut()?.next()?;
        if !self.names.has(&event) {
            // Newer than the names, or gone: asked for once more, and then shown by number.
            let _ = self.refresh();
        }
        let interface = self.names.interface(event.interface);
        let unnamed = || format!("interface {}", event.interface);
        let called = Called {
            interface: &interface.map_or_else(unnamed, str::to_owned),
            rule: self.names.rules.get(usize::from(event.rule)).and_then(Option::as_deref),
            to_unix_ns: self.names.to_unix_ns,
        };
        Some((event, Dropped::decode(&event, called)))
    }

    fn refresh(&mut self) -> Result<(), DataplaneError> {
        self.names = Names {
            interfaces: host_interfaces()?,
            rules: if self.is_live() { read_rules(&self.pins)? } else { Vec::new() },
            to_unix_ns: engine_to_unix_ns()?,
            read: Some(Instant::now()),
        };
        Ok(())
    }

    /// Readable when there is an event; `None` while nothing is enforced.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }
}

impl Names {
    fn interface(&self, index: u32) -> Option<&str> {
        self.interfaces.iter().find(|one| one.index == index).map(|one| one.name.as_str())
    }

    fn has(&self, event: &Event) -> bool {
        self.interface(event.interface).is_some()
            && self.rules.get(usize::from(event.rule)).is_some_and(Option::is_some)
    }
}
