//! The L7 proxy as the daemon runs it: sockets, certificates and log file are the daemon's, requests are the worker's.
//!
//! ```text
//! apply ── prepare: bind, read certificates, check TLS ── packets: the policy goes live ── commit: the worker serves it
//!                                                              └── refused: abandon
//! loop, each second ── tend: the policy in force is followed, an ended worker started again, replaced files read again
//! ```
//!
//! What can't be served is an error of an `apply`; at a start it is told and tried again, because the packet filter must not wait
//! for a certificate. Called by `change` and by the daemon's loop.

mod acme;
mod child;
mod judge;
mod logfile;
mod notices;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use acme::{Acme, Present};
use child::{Child, Leaving, Unserved};
use logfile::LogFile;
use notices::Notices;

use super::protocol::Response;
use super::supervisor;
use super::watch::Look;
use crate::proxy::acme::{Issuing, Proof};
use crate::proxy::bind::Sockets;
use crate::proxy::decide::Ban;
use crate::proxy::link::{self, MOST_FDS, Secrets};
use crate::proxy::plan::Plan;
use crate::proxy::serve::{self, Metrics};
use crate::proxy::{privilege, secrets};

pub(super) use judge::A_SECOND;

/// Offenders that wait to be judged.
const OFFENDERS: usize = 64;
/// The wait before a worker that ended is started again, at first and at most.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A certificate is written before its key, or the key before: so long nothing is said of it.
const HALF_A_PAIR: Duration = Duration::from_secs(2);
/// How often files are looked at of which inotify says nothing.
const LOOK_PERIOD: Duration = Duration::from_secs(5);

/// The proxy of a daemon.
#[derive(Debug)]
pub(super) struct Proxy {
    state: Arc<Mutex<State>>,
    acme: Acme,
    notices: Notices,
    offenders: mpsc::Sender<Ban>,
}

#[derive(Debug)]
struct State {
    sockets: Sockets,
    /// Those of them that go when what is wanted is served.
    unwanted: Vec<SocketAddr>,
    /// What is to be served.
    wanted: Option<Wanted>,
    /// What could not be served is tried again then, and after how long once more.
    again: Option<(Instant, Duration)>,
    child: Option<Child>,
    leaving: Vec<Leaving>,
    log: Option<LogFile>,
    /// What answers the challenges of authorities.
    proofs: Vec<Proof>,
    /// Certificates were last looked at then.
    looked: Instant,
    /// Why new certificates are not used.
    unused: Option<Unused>,
}

/// Certificates that can't be used, such as one without its key, which may be written next.
#[derive(Debug)]
struct Unused {
    why: String,
    since: Instant,
    told: bool,
}

/// A plan and what it takes.
#[derive(Debug)]
struct Wanted {
    plan: Arc<Plan>,
    secrets: Secrets,
    /// Certificates and keys, as they looked when they were read.
    files: Vec<(PathBuf, Look)>,
}

/// Why a plan can't be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// What it names is wrong.
    Input(String),
    /// The system refuses it.
    System(String),
}

impl Trouble {
    /// The answer to who wanted it applied.
    pub(super) fn into_response(self) -> Response {
        let said = format!("error: the proxy can't serve this policy: {self}\n");
        match self {
            Self::Input(_) => Response::BadInput(said),
            Self::System(_) => Response::Refused(said),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(why) | Self::System(why) => f.write_str(why),
        }
    }
}

/// A plan that can be served, before it is.
#[derive(Debug)]
pub(super) struct Prepared {
    wanted: Option<Wanted>,
    bound: Vec<SocketAddr>,
    notes: Vec<String>,
}

impl Proxy {
    /// With sockets that were bound before this daemon, what outlives it, and where offenders are told of. To be called inside a tokio
    /// runtime.
    pub(super) fn new(inherited: Sockets, state_dir: &Path) -> (Self, mpsc::Receiver<Ban>) {
        let (offenders, receiver) = mpsc::channel(OFFENDERS);
        let state = State {
            sockets: inherited,
            unwanted: Vec::new(),
            wanted: None,
            again: None,
            child: None,
            leaving: Vec::new(),
            log: None,
            proofs: Vec::new(),
            looked: Instant::now(),
            unused: None,
        };
        let state = Arc::new(Mutex::new(state));
        (Self { state, acme: Acme::new(state_dir), notices: Notices::new(), offenders }, receiver)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Gets ready what a plan needs and changes nothing that is served.
    pub(super) fn prepare(&self, plan: Option<&Plan>) -> Result<Prepared, Trouble> {
        let Some(plan) = plan else {
            return Ok(Prepared { wanted: None, bound: Vec::new(), notes: Vec::new() });
        };
        let addresses: usize = plan.listeners.values().map(|listener| listener.bind.len()).sum();
        if addresses > MOST_FDS {
            return Err(Trouble::Input(format!(
                "listeners have {addresses} addresses, and there may be {MOST_FDS}"
            )));
        }
        privilege::user(&plan.common.user).map_err(|error| Trouble::Input(error.to_string()))?;
        let (wanted, mut notes) = Wanted::read(plan, &self.acme).map_err(Trouble::Input)?;
        notes.extend(check(plan, &wanted.secrets).map_err(Trouble::Input)?);
        notes.extend(self.acme.notes(plan));
        if let Some(log) = &plan.common.access_log {
            let opened = LogFile::open(&log.file);
            opened.map_err(|error| Trouble::System(format!("access log {}: {error}", log.file.display())))?;
        }
        let bound = self.state().sockets.bind(plan).map_err(|error| Trouble::System(error.to_string()))?;
        Ok(Prepared { wanted: Some(wanted), bound, notes })
    }

    /// The policy was refused: what was got ready for it is given back.
    pub(super) fn abandon(&self, prepared: Prepared) {
        self.state().sockets.release(&prepared.bound);
    }

    /// Serves what was prepared; gives what an operator should know.
    pub(super) fn commit(&self, prepared: Prepared) -> Vec<String> {
        let mut state = self.state();
        let mut notes = prepared.notes;
        // Not at a start: a daemon that is started again and again orders no oftener than one that runs.
        if state.wanted.is_some() {
            self.acme.looked_after();
        }
        state.wanted = prepared.wanted;
        state.unused = None;
        self.notices.follow(state.files());
        // Held by systemd too: a daemon that is started again refuses nobody meanwhile.
        supervisor::store(prepared.bound.iter().filter_map(|one| Some((one, state.sockets.get(one)?))));
        let plan = state.wanted.as_ref().map(|wanted| Arc::clone(&wanted.plan));
        state.unwanted = state.sockets.unwanted(plan.as_deref());
        if let Err(why) = state.serve(&self.offenders) {
            notes.push(format!("the proxy does not serve this policy yet: {why}; it is tried again"));
        }
        notes
    }

    /// What is to be done now and then. `plan`: of the policy in force.
    pub(super) fn tend(&self, plan: Option<&Plan>) {
        let mut state = self.state();
        state.leaving.retain_mut(|one| !one.is_gone());
        if state.wanted.as_ref().map(|wanted| &*wanted.plan) != plan {
            drop(state);
            self.follow(plan);
            return;
        }
        if let Some(why) = state.child.as_mut().and_then(Child::ended) {
            log::error!("the proxy's worker ended ({why}); it is started again");
            state.child = None;
            state.delay();
        } else if state.child.as_ref().is_some_and(Child::is_cut_off) {
            log::error!(
                "the proxy's worker is out of reach; another one is started while it finishes what is in flight"
            );
            let leaving = state.child.take().map(Child::drain);
            state.leaving.extend(leaving);
            state.delay();
        }
        let is_issued = self.order(&state);
        let untold = state.unused.as_ref().is_some_and(|unused| !unused.told);
        if is_issued || self.notices.take() || untold || state.looked.elapsed() >= LOOK_PERIOD {
            // Watched before they are looked at: what changes after the look is noticed.
            self.notices.follow(state.files());
            state.look_at_files(&self.acme, is_issued, &self.offenders);
        }
        state.follow_log();
        if state.again.is_some_and(|(at, _)| Instant::now() >= at) {
            match state.serve(&self.offenders) {
                Ok(()) => log::info!("the proxy serves again"),
                Err(why) => log::error!("the proxy: {why}"),
            }
        }
    }

    /// Has certificates ordered that are due. True if there is a new one.
    fn order(&self, state: &State) -> bool {
        let Some(wanted) = &state.wanted else { return false };
        let shared = Arc::clone(&self.state);
        let present: Present = Arc::new(move |proofs| lock(&shared).present(proofs));
        let serves = state.child.is_some() && state.again.is_none();
        self.acme.tend(&wanted.plan, serves.then_some(&present))
    }

    /// What becomes of certificates that authorities issue.
    pub(super) fn issuing(&self) -> Vec<Issuing> {
        self.plan().map(|plan| self.acme.issuing(&plan)).unwrap_or_default()
    }

    /// The policy in force has changed without an apply by this daemon: at a start, or because nobody confirmed one.
    fn follow(&self, plan: Option<&Plan>) {
        if self.state().again.is_some_and(|(at, _)| Instant::now() < at) {
            return;
        }
        match self.prepare(plan) {
            Ok(prepared) => self.commit(prepared).iter().for_each(|note| log::warn!("the proxy: {note}")),
            Err(why) => {
                log::error!("the proxy does not serve the policy in force: {why}; it is tried again");
                self.state().delay();
            }
        }
    }

    /// Ends when certificates may have changed: [`Self::tend`] has to look.
    pub(super) async fn noticed(&self) {
        self.notices.noticed().await;
    }

    /// What the worker has counted; `None` if there is none, or it does not say.
    pub(super) fn measure(&self) -> Option<Metrics> {
        let state = self.state();
        let measured = state.child.as_ref()?.measure();
        measured.inspect_err(|why| log::warn!("metrics of the proxy: {why}")).ok()
    }

    /// The plan that is served.
    pub(super) fn plan(&self) -> Option<Arc<Plan>> {
        self.state().wanted.as_ref().map(|wanted| Arc::clone(&wanted.plan))
    }

    /// Ends: the worker finishes what is in flight, by itself.
    pub(super) fn end(&self) {
        self.state().let_go();
    }
}

impl Wanted {
    fn read(plan: &Plan, acme: &Acme) -> Result<(Self, Vec<String>), String> {
        // Looked at first: a file that is replaced meanwhile is read again.
        let files = secrets::files(plan).into_iter().map(|path| (path.clone(), Look::at(&path))).collect();
        let (secrets, warnings) =
            secrets::read(plan, |one| acme.pem(one)).map_err(|error| error.to_string())?;
        Ok((Self { plan: Arc::new(plan.clone()), secrets, files }, warnings))
    }
}

impl State {
    /// Has a worker serve what is wanted, starting one if need be.
    fn serve(&mut self, offenders: &mpsc::Sender<Ban>) -> Result<(), String> {
        let served = self.try_serve(offenders);
        match served {
            Ok(()) => {
                self.again = None;
                // Not before: a worker that can't serve the new plan goes on with the one before, and its sockets.
                self.sockets.release(&self.unwanted);
                supervisor::forget(&std::mem::take(&mut self.unwanted));
            }
            Err(_) => self.delay(),
        }
        served
    }

    fn try_serve(&mut self, offenders: &mpsc::Sender<Ban>) -> Result<(), String> {
        let Some(wanted) = &self.wanted else {
            self.let_go();
            return Ok(());
        };
        let common = &wanted.plan.common;
        // Another user is another process; the one before finishes what is in flight.
        if self.child.as_ref().is_some_and(|child| !child.is_for(common)) {
            self.leaving.extend(self.child.take().map(Child::drain));
        }
        let mut child = match self.child.take() {
            Some(child) => child,
            None => {
                let child = Child::start(common, offenders.clone());
                let child = child.map_err(|error| format!("its worker can't be started: {error}"))?;
                log::info!("the proxy's worker is process {}", child.pid());
                self.log = None;
                child
            }
        };
        let served = child.serve(&wanted.plan, &wanted.secrets, &self.sockets);
        let served = match served {
            Ok(()) => {
                let followed = follow_log(&mut self.log, &child, &wanted.plan);
                followed.map_err(|error| format!("its access log: {error}"))
            }
            // It goes on with what it served before.
            Err(Unserved::Refused(why)) => Err(why),
            Err(Unserved::Broken(why)) => {
                // Another one begins anew, with the same sockets.
                self.leaving.push(child.drain());
                return Err(why);
            }
        };
        if !self.proofs.is_empty()
            && let Err(why) = child.present(&self.proofs)
        {
            log::warn!("challenges of an authority are not answered: {why}");
        }
        self.child = Some(child);
        served
    }

    /// Answers the challenges of authorities by these and no others, from a worker that is started anew too.
    fn present(&mut self, proofs: Vec<Proof>) -> Result<(), String> {
        self.proofs = proofs;
        let child = self.child.as_ref().ok_or("the proxy has no worker that could answer its challenges")?;
        child.present(&self.proofs)
    }

    /// Certificates and keys that are served.
    fn files(&self) -> impl Iterator<Item = &Path> {
        self.wanted.iter().flat_map(|wanted| wanted.files.iter().map(|(path, _)| path.as_path()))
    }

    /// Reads certificates again that were replaced or issued, and those that could not be used the last time.
    fn look_at_files(&mut self, acme: &Acme, is_issued: bool, offenders: &mpsc::Sender<Ban>) {
        self.looked = Instant::now();
        let Some(wanted) = &mut self.wanted else { return };
        let unchanged = wanted.files.iter().all(|(path, before)| Look::at(path) == *before);
        if !is_issued && self.unused.is_none() && unchanged {
            return;
        }
        // Looked at before they are read: what changes meanwhile is read again.
        wanted.files.iter_mut().for_each(|(path, look)| *look = Look::at(path));
        let plan = Arc::clone(&wanted.plan);
        let read = Wanted::read(&plan, acme).and_then(|(fresh, warnings)| {
            let notes = check(&plan, &fresh.secrets)?;
            Ok((fresh, warnings.into_iter().chain(notes)))
        });
        match read {
            Ok((fresh, notes)) if fresh.secrets != wanted.secrets => {
                self.unused = None;
                notes.for_each(|note| log::warn!("the proxy: {note}"));
                self.wanted = Some(fresh);
                match self.serve(offenders) {
                    Ok(()) => log::info!("the proxy has new certificates"),
                    Err(why) => log::error!("the proxy: {why}"),
                }
            }
            Ok(_) => self.unused = None,
            Err(why) => {
                let before = self.unused.take().filter(|unused| unused.why == why);
                let mut unused = before.unwrap_or(Unused { why, since: Instant::now(), told: false });
                if !unused.told && unused.since.elapsed() >= HALF_A_PAIR {
                    log::error!("new certificates are not used, those of before stay: {}", unused.why);
                    unused.told = true;
                }
                self.unused = Some(unused);
            }
        }
    }

    /// Opens the log again that was moved away.
    fn follow_log(&mut self) {
        if let (Some(child), Some(wanted)) = (&self.child, &self.wanted)
            && let Err(error) = follow_log(&mut self.log, child, &wanted.plan)
        {
            log::error!("the proxy's access log: {error}");
        }
    }

    fn let_go(&mut self) {
        self.again = None;
        self.log = None;
        self.leaving.extend(self.child.take().map(Child::drain));
    }

    /// The next attempt comes later, each time twice as late.
    fn delay(&mut self) {
        let wait = self.again.map_or(FIRST_WAIT, |(_, wait)| (wait * 2).min(LONGEST_WAIT));
        self.again = Some((Instant::now() + wait, wait));
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Before a worker is told: certificates that were replaced are looked at like those of a new policy.
fn check(plan: &Plan, secrets: &Secrets) -> Result<Vec<String>, String> {
    link::fits(plan, secrets)?;
    serve::check(plan, &secrets.clone().into()).map_err(|error| error.to_string())
}

/// Gives the worker the log file, if it has none, or another one stands in its place.
fn follow_log(log: &mut Option<LogFile>, child: &Child, plan: &Plan) -> io::Result<()> {
    let Some(wanted) = &plan.common.access_log else {
        *log = None;
        return Ok(());
    };
    if log.as_ref().is_some_and(|log| log.is_current(&wanted.file)) {
        return Ok(());
    }
    let opened = LogFile::open(&wanted.file)?;
    child.log_to(opened.as_raw_fd())?;
    *log = Some(opened);
    Ok(())
}
