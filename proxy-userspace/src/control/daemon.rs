//! The daemon: applies its policy at the start and on request, and tells systemd. Enforcement does not need it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aya_log::EbpfLogger;
use log::Log;
use sd_notify::NotifyState;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};

use super::lock;
use super::protocol::{Command, Enforcing, Report, Response};
use super::server;
use crate::bans::Registry;
use crate::dataplane::{self, DataplaneError, Pins, Shared};
use crate::policy;

/// How often the limiter's cells are swept: far more often than their time wraps (78 hours).
const SWEEP_PERIOD: Duration = Duration::from_secs(3600);

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    pins: Pins,
    run_dir: PathBuf,
    bans: Registry,
    /// The maps that outlive policies; also what makes applies come one at a time.
    shared: Mutex<Shared>,
    /// The policy that was last applied, for SIGHUP.
    policy: Mutex<PathBuf>,
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
pub async fn run(
    pins: Pins,
    run_dir: &Path,
    state_dir: &Path,
    policy: &Path,
    enforcing: impl FnOnce(&Report),
) -> Result<(), DaemonError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| DaemonError::Io { what, source }
    };
    // Before anything else: a wrong file must not even make a folder.
    let checked = policy::load(policy).map_err(|error| DaemonError::BadInput(error.to_string()))?;
    dataplane::fits_host(&checked).map_err(DaemonError::from)?;
    drop(checked);
    pins.prepare().map_err(DaemonError::from)?;
    let _daemon = lock::daemon(run_dir).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => DaemonError::Refused(format!(
            "a daemon runs already with the run directory {}: use `tollgate apply`, or another --run-dir",
            run_dir.display()
        )),
        _ => DaemonError::Io { what: run_dir.display().to_string(), source },
    })?;
    let mut shared = Shared::open(&pins).map_err(DaemonError::from)?;
    let bans = Registry::new(&pins, state_dir);
    match lock::change(run_dir) {
        Ok(_change) => restore(&bans),
        Err(error) => {
            log::error!("bans of before are not looked at, somebody else is changing the firewall: {error}")
        }
    }
    let logger = EbpfLogger::init(shared.ebpf_mut());
    let daemon = Arc::new(Daemon {
        pins,
        run_dir: run_dir.to_owned(),
        bans,
        shared: Mutex::new(shared),
        policy: Mutex::new(policy.to_owned()),
    });
    // Signals are caught from before the policy is in force: one that comes meanwhile is not lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(failed("SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("SIGINT"))?;
    let mut reload = signal(SignalKind::hangup()).map_err(failed("SIGHUP"))?;
    match daemon.handle(Command::Apply { file: policy.to_owned() }).await {
        Response::Applied(report) => {
            let listener = server::listen(run_dir).map_err(failed("the control socket"))?;
            tokio::spawn(server::serve(listener, Arc::clone(&daemon)));
            enforcing(&report);
            notify(&[NotifyState::Ready, NotifyState::Status(&report.sentence())]);
        }
        Response::BadInput(why) => return Err(DaemonError::BadInput(why)),
        Response::Refused(why) => return Err(DaemonError::Refused(why)),
    }
    match logger {
        Ok(logger) => drop(tokio::spawn(read_log(logger))),
        Err(error) => log::warn!("the kernel programs' log can't be read: {error}"),
    }
    let mut housekeeping = tokio::time::interval(SWEEP_PERIOD);
    loop {
        tokio::select! {
            _ = housekeeping.tick() => daemon.sweep().await,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = reload.recv() => daemon.reload().await,
        }
    }
    notify(&[NotifyState::Stopping]);
    match dataplane::enforced(&daemon.pins) {
        Ok(enforced) if enforced.is_empty() => log::info!("ending; nothing is enforced"),
        _ => log::info!("ending; the policy stays enforced (`tollgate detach` ends that)"),
    }
    Ok(())
}

impl Daemon {
    /// Does what a command asks.
    pub async fn handle(self: &Arc<Self>, command: Command) -> Response {
        let daemon = Arc::clone(self);
        match command {
            // Verification takes its time and must not stop the loop.
            Command::Apply { file } => match tokio::task::spawn_blocking(move || daemon.apply(&file)).await {
                Ok(response) => response,
                Err(error) => Response::Refused(format!("the apply ended in the middle: {error}")),
            },
        }
    }

    fn apply(&self, file: &Path) -> Response {
        let policy = match policy::load(file) {
            Ok(policy) => policy,
            Err(error) => return Response::BadInput(error.to_string()),
        };
        // A panic of another apply has left nothing half-done: the kernel holds all state.
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let _change = match lock::change(&self.run_dir) {
            Ok(lock) => lock,
            Err(error) => {
                return Response::Refused(format!("somebody else is changing the firewall: {error}"));
            }
        };
        // `detach` may have taken the shared maps away since this daemon opened them.
        if !self.pins.shared().exists() {
            match Shared::open(&self.pins) {
                Ok(fresh) => *shared = fresh,
                Err(error) => return Response::Refused(error.to_string()),
            }
            restore(&self.bans);
        }
        match dataplane::apply(&self.pins, &mut shared, &policy) {
            Ok(applied) => {
                file.clone_into(&mut self.policy.lock().unwrap_or_else(PoisonError::into_inner));
                let interfaces = applied.interfaces.iter().map(|one| Enforcing {
                    name: one.name.clone(),
                    hook: one.attachment.hook().to_owned(),
                    mode: one.attachment.mode().to_owned(),
                });
                let report = Report {
                    file: policy.path,
                    hash: policy.hash,
                    interfaces: interfaces.collect(),
                    tests: applied.tests,
                    notes: applied.notes,
                };
                log::info!("{}", report.sentence());
                report.notes.iter().for_each(|note| log::info!("{note}"));
                Response::Applied(report)
            }
            Err(error) if error.is_input() => Response::BadInput(error.to_string()),
            Err(error) => Response::Refused(error.to_string()),
        }
    }

    /// Sets limiter cells that owe nothing to zero, long before their time wraps; forgets connections and bans that are over.
    async fn sweep(self: &Arc<Self>) {
        let (pins, daemon) = (self.pins.clone(), Arc::clone(self));
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

    fn sweep_bans(&self) {
        let swept = lock::change(&self.run_dir)
            .map_err(|error| error.to_string())
            .and_then(|_change| self.bans.sweep().map_err(|error| error.to_string()));
        match swept {
            Ok(swept) => log::debug!("forgot {swept} bans"),
            Err(error) => log::warn!("housekeeping of bans: {error}"),
        }
    }

    /// Applies the policy file that was last applied, as it is now.
    async fn reload(self: &Arc<Self>) {
        let file = self.policy.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match self.handle(Command::Apply { file }).await {
            Response::Applied(report) => notify(&[NotifyState::Status(&report.sentence())]),
            Response::BadInput(why) | Response::Refused(why) => {
                log::error!("the policy in force stays, the new one was not applied: {why}");
            }
        }
    }
}

/// Brings bans of before into maps that may be new, with the lock for changes held. A policy is enforced in any case.
fn restore(bans: &Registry) {
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

/// Tells systemd, if it has started us.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        log::warn!("systemd could not be told: {error}");
    }
}
