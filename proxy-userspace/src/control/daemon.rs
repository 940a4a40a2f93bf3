//! The daemon: its start, its loop, its end. What it does on request is in `change`. Enforcement does not need it.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use aya_log::EbpfLogger;
use log::Log;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Gid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::escalation::Counts;
use super::history::History;
use super::links::Links;
use super::lock;
use super::protocol::{Report, Response};
use super::proxy::{self, Proxy};
use super::scrape;
use super::server;
use super::start::First;
use super::supervisor;
use super::watch::Watch;
use crate::bans::Registry;
use crate::dataplane::{self, DataplaneError, Pins, Shared};
use crate::policy::{self, Policy};

/// How often the limiter's cells are swept: far more often than their time wraps (78 hours).
const SWEEP_PERIOD: Duration = Duration::from_secs(3600);

/// How often it is looked whether a policy was confirmed, or its file has changed.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Interfaces come with several messages each: they are looked at when no more have come for so long.
const LINKS_QUIET: Duration = Duration::from_millis(20);

/// Where a daemon has its things.
#[derive(Clone, Debug)]
pub struct Places {
    /// The pins.
    pub pins: Pins,
    /// Socket and locks.
    pub run_dir: PathBuf,
    /// What outlives a reboot.
    pub state_dir: PathBuf,
}

/// How a daemon begins.
#[derive(Clone, Debug)]
pub struct Start {
    /// The policy file.
    pub policy: PathBuf,
    /// It has to be confirmed within so many seconds.
    pub confirm_s: Option<u64>,
    /// Interfaces that it names may appear later.
    pub late_interfaces: bool,
    /// The file is applied again whenever it changes.
    pub watch: bool,
    /// What becomes of packets if the policy can't be enforced.
    pub on_failure: OnFailure,
    /// Where metrics can be asked for.
    pub metrics: Option<scrape::Address>,
    /// Members of this group may ask.
    pub readers: Option<Gid>,
}

/// What becomes of packets if the policy can't be enforced at the start, and none is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnFailure {
    /// Everything passes, and the daemon ends with an error
    #[default]
    Open,
    /// The last good policy is enforced; if there is none, nothing new passes: the lock-down
    Closed,
}

/// How often the daemon was to apply a policy, by what became of it.
#[derive(Debug, Default)]
pub(super) struct Applies {
    applied: AtomicU64,
    refused: AtomicU64,
    bad_input: AtomicU64,
}

impl Applies {
    /// Notes one.
    pub(super) fn note(&self, response: &Response) {
        let counter = match response {
            Response::Applied(_) => &self.applied,
            Response::Refused(_) => &self.refused,
            Response::BadInput(_) => &self.bad_input,
            // Answers to questions are no applies.
            Response::Status(_) | Response::Stats(_) | Response::Bans(_) | Response::History(_) => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The numbers, each with its word.
    pub(super) fn read(&self) -> [(&'static str, u64); 3] {
        [("applied", &self.applied), ("refused", &self.refused), ("bad_input", &self.bad_input)]
            .map(|(word, counter)| (word, counter.load(Ordering::Relaxed)))
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    pub(super) places: Places,
    pub(super) history: History,
    pub(super) bans: Registry,
    /// The maps that outlive policies; also what makes applies come one at a time.
    pub(super) shared: Mutex<Shared>,
    /// The policy that was last applied, for SIGHUP.
    pub(super) file: Mutex<PathBuf>,
    /// The policy in force, for interfaces that appear.
    pub(super) in_force: Mutex<Option<Arc<Policy>>>,
    /// The host's own addresses, as that policy was compiled for them.
    pub(super) own: Mutex<Vec<IpAddr>>,
    pub(super) late_interfaces: bool,
    /// A policy waited to be confirmed at the last look, or since; at the start nobody has looked yet.
    pub(super) waits: AtomicBool,
    pub(super) applies: Applies,
    /// The L7 proxy of the policy in force.
    pub(super) proxy: Proxy,
}

/// Why a daemon did not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The policy is wrong.
    #[error("{0}")]
    BadInput(String),
    /// It could not be put to work.
    #[error("{0}")]
    Refused(String),
    /// Something around it failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl From<DataplaneError> for DaemonError {
    fn from(error: DataplaneError) -> Self {
        if error.is_input() { Self::BadInput(error.to_string()) } else { Self::Refused(error.to_string()) }
    }
}

/// Runs a daemon until SIGTERM or SIGINT, and leaves the policy enforced. `enforcing` is called once, when the policy is.
///
/// # Errors
/// If the policy can't be applied, or a daemon runs already.
pub async fn run(places: Places, start: Start, enforcing: impl FnOnce(&Report)) -> Result<(), DaemonError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| DaemonError::Io { what, source }
    };
    let Places { pins, run_dir, state_dir } = places.clone();
    // Before anything else: a wrong file must not even make a folder.
    let read = policy::read(&start.policy).and_then(|text| Ok((policy::parse(&text, &start.policy)?, text)));
    let first = match read {
        Ok((policy, text)) => match dataplane::fits_host(&policy, start.late_interfaces) {
            Ok(()) => First::Policy(Box::new(policy), text),
            Err(error) => First::Bad(error.into()),
        },
        Err(error) => First::Bad(DaemonError::BadInput(error.to_string())),
    };
    let first = match (first, start.on_failure) {
        (First::Bad(error), OnFailure::Open) => return Err(error),
        (first, _) => first,
    };
    pins.prepare().map_err(DaemonError::from)?;
    raise_descriptors();
    let _daemon = lock::daemon(&run_dir).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => DaemonError::Refused(format!(
            "a daemon runs already with the run directory {}: use `tollgate apply`, or another --run-dir",
            run_dir.display()
        )),
        _ => DaemonError::Io { what: run_dir.display().to_string(), source },
    })?;
    // Before a policy is in force: an address that can't be had is an error of the start.
    let metrics = match &start.metrics {
        Some(address) => {
            let listener = scrape::listen(address, start.readers).await;
            Some(listener.map_err(failed(&format!("metrics at {address}")))?)
        }
        None => None,
    };
    let mut shared = Shared::open(&pins).map_err(DaemonError::from)?;
    let bans = Registry::new(&pins, &state_dir);
    match lock::change(&run_dir) {
        Ok(_change) => restore(&bans),
        Err(error) => {
            log::error!("bans of before are not looked at, somebody else is changing the firewall: {error}")
        }
    }
    let logger = EbpfLogger::init(shared.ebpf_mut());
    let (proxy, mut offenders) = Proxy::new(supervisor::sockets(), &state_dir);
    let daemon = Arc::new(Daemon {
        places,
        history: History::new(&state_dir),
        bans,
        shared: Mutex::new(shared),
        file: Mutex::new(start.policy.clone()),
        in_force: Mutex::new(None),
        own: Mutex::new(Vec::new()),
        late_interfaces: start.late_interfaces,
        waits: AtomicBool::new(true),
        applies: Applies::default(),
        proxy,
    });
    // Signals are caught from before the policy is in force, and interfaces listened for: what comes meanwhile is not lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(failed("SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("SIGINT"))?;
    let mut reload = signal(SignalKind::hangup()).map_err(failed("SIGHUP"))?;
    let mut links = Links::listen().map_err(failed("listening for changes of interfaces"))?;
    let mut watch = start.watch.then(|| Watch::new(&start.policy));
    match daemon.begin(&start, first).await {
        Response::Applied(report) => {
            let listener = server::listen(&run_dir, start.readers).map_err(failed("the control socket"))?;
            tokio::spawn(server::serve(listener, Arc::clone(&daemon), start.readers));
            if let Some(metrics) = metrics {
                tokio::spawn(scrape::serve(metrics, Arc::clone(&daemon)));
            }
            enforcing(&report);
            supervisor::ready(Some(&report.headline()));
        }
        Response::BadInput(why) => return Err(DaemonError::BadInput(why)),
        Response::Refused(why) => return Err(DaemonError::Refused(why)),
        other => return Err(DaemonError::Refused(format!("no outcome of an apply: {other:?}"))),
    }
    match logger {
        Ok(logger) => drop(tokio::spawn(read_log(logger))),
        Err(error) => log::warn!("the kernel programs' log can't be read: {error}"),
    }
    let mut counts = Counts::new();
    let mut housekeeping = tokio::time::interval(SWEEP_PERIOD);
    let mut judged = 0;
    let mut look = tokio::time::interval(LOOK_PERIOD);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // In this loop, not beside it: what it tells is that the loop goes round.
    let mut alive = tokio::time::interval(supervisor::watchdog().unwrap_or(SWEEP_PERIOD));
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = links.changed(LINKS_QUIET) => match changed {
                Ok(()) => daemon.follow_interfaces().await,
                Err(error) => {
                    log::warn!("listening for changes of interfaces: {error}");
                    tokio::time::sleep(LOOK_PERIOD).await;
                }
            },
            suspects = counts.suspects() => if let Some((watched, suspects)) = suspects {
                daemon.escalate(watched, suspects).await;
            },
            Some(offender) = offenders.recv(), if judged < proxy::A_SECOND => {
                judged += 1;
                daemon.judge(offender).await;
            }
            _ = look.tick() => {
                judged = 0;
                daemon.tend();
                daemon.settle().await;
                counts.follow(&daemon);
                if watch.as_mut().is_some_and(Watch::has_changed) {
                    daemon.reload().await;
                }
            }
            () = daemon.proxy.noticed() => daemon.tend(),
            _ = alive.tick() => supervisor::alive(),
            _ = housekeeping.tick() => daemon.sweep().await,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = reload.recv() => daemon.reload().await,
        }
    }
    supervisor::stopping();
    daemon.proxy.end();
    match dataplane::enforced(&daemon.places.pins) {
        Ok(enforced) if enforced.is_empty() => log::info!("ending; nothing is enforced"),
        _ => log::info!("ending; the policy stays enforced (`tollgate detach` ends that)"),
    }
    Ok(())
}

impl Daemon {
    /// Sets limiter cells that owe nothing to zero, long before their time wraps; forgets connections and bans that are over.
    async fn sweep(self: &Arc<Self>) {
        let (pins, daemon) = (self.places.pins.clone(), Arc::clone(self));
        let sweep = move || {
            daemon.sweep_bans();
            let swept = dataplane::sweep(&pins)?;
            let timeouts = dataplane::enforced(&pins)?.into_iter().map(|one| one.label.tcp_established_ns);
            // Nothing enforced: nothing is known that anybody will ask for.
            let forgotten =
                timeouts.max().map_or(Ok(0), |longest| dataplane::forget_silent(&pins, longest))?;
            Ok::<_, DataplaneError>((swept, forgotten))
        };
        match tokio::task::spawn_blocking(sweep).await {
            Ok(Ok((swept, forgotten))) => {
                log::debug!("swept {swept} cells of the limiter, forgot {forgotten} connections");
            }
            Ok(Err(error)) => log::warn!("housekeeping: {error}"),
            Err(error) => log::warn!("housekeeping: {error}"),
        }
    }

    /// Looks after the proxy, beside the loop: a worker may take its time to answer.
    fn tend(self: &Arc<Self>) {
        let daemon = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            // During a change, what is in force and what is served differ for a moment; and one look at a time is enough.
            let _still = match daemon.shared.try_lock() {
                Ok(shared) => shared,
                Err(TryLockError::Poisoned(shared)) => shared.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let plan = daemon.last_applied();
            daemon.proxy.tend(plan.as_ref().and_then(|policy| policy.proxy.as_ref()));
        });
    }

    fn sweep_bans(&self) {
        let swept = lock::change(&self.places.run_dir)
            .map_err(|error| error.to_string())
            .and_then(|_change| self.bans.sweep().map_err(|error| error.to_string()));
        match swept {
            Ok(swept) => log::debug!("forgot {swept} bans"),
            Err(error) => log::warn!("housekeeping of bans: {error}"),
        }
    }
}

/// Programs and tables of each interface take some thirty descriptors, and those of two policies are kept.
fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        log::warn!("the limit of descriptors can't be raised: {error}");
    }
}

/// Brings bans of before into maps that may be new, with the lock for changes held. A policy is enforced in any case.
pub(super) fn restore(bans: &Registry) {
    match bans.restore() {
        Ok(restored) => restored.sentences().iter().for_each(|sentence| log::warn!("{sentence}")),
        Err(error) => log::error!("bans of before: {error}"),
    }
}

/// Passes on what the kernel programs say: at load, and when a table is damaged. Never a line a packet.
async fn read_log<T: Log + 'static>(logger: EbpfLogger<T>) {
    // SAFETY: the logger owns its ring buffer, whose descriptor stays the same and open until the logger is dropped.
    let Ok(mut logger) = (unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }) else {
        log::warn!("the kernel programs' log can't be waited for");
        return;
    };
    while let Ok(mut guard) = logger.readable_mut().await {
        guard.get_inner_mut().flush();
        guard.clear_ready();
    }
}
