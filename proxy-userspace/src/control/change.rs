//! What the daemon does to the firewall: applies policies, goes back, follows interfaces. Called by its loop and by the
//! control socket.
//!
//! Each change runs on a thread of its own: verification takes its time and must not stop the loop.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::daemon::{Daemon, restore};
use super::history::Fate;
use super::lock;
use super::lockdown;
use super::lockout::shut_out;
use super::protocol::{Caution, Command, Enforcing, Report, Response};
use super::supervisor;
use crate::dataplane::{self, DataplaneError, How, Shared, Stopwatch, Took, Unconfirmed};
use crate::policy::{self, Lists, Policy};

impl Daemon {
    /// Does what a command asks.
    pub async fn handle(self: &Arc<Self>, command: Command) -> Response {
        let work = move |daemon: &Self| match command {
            Command::Apply { file, how } => daemon.apply_file(&file, &how),
            Command::ApplyRevision { revision, how } => daemon.apply_revision(revision, &how),
            Command::Rollback { how } => daemon.rollback(&how),
            Command::Status | Command::Stats | Command::Bans | Command::History => {
                Response::Refused("a question changes nothing".to_owned())
            }
        };
        let response = self.on_a_thread(work).await;
        self.applies.note(&response);
        response
    }

    /// Applies the policy file that was last applied, as it is now.
    pub(super) async fn reload(self: &Arc<Self>) {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).clone();
        supervisor::reloading();
        match self.handle(Command::Apply { file, how: Caution::default() }).await {
            Response::Applied(report) => supervisor::ready(Some(&report.sentence())),
            Response::BadInput(why) | Response::Refused(why) => {
                supervisor::ready(None);
                log::error!("the policy in force stays, the new one was not applied: {why}");
            }
            Response::Status(_) | Response::Stats(_) | Response::Bans(_) | Response::History(_) => {}
        }
    }

    /// Tidies up behind a policy that nobody confirmed: the kernel has gone back by itself.
    pub(super) async fn settle(self: &Arc<Self>) {
        // Nearly always there is nothing to be done, and one look at a folder tells.
        let waits = self.places.pins.unconfirmed().exists();
        let waited = self.waits.swap(waits, Ordering::Relaxed);
        if !waits {
            if waited {
                // Others may have taken it back: commands do that without this daemon.
                let look = self.on_a_thread(|daemon| {
                    daemon.remember_in_force();
                    Ok::<(), String>(())
                });
                if let Err(why) = look.await {
                    log::warn!("the policy in force: {why}");
                }
                // What has appeared meanwhile had to wait too.
                self.follow_interfaces().await;
            }
            return;
        }
        let outcome = self.on_a_thread(|daemon| {
            let _change = lock::change(&daemon.places.run_dir).map_err(|error| error.to_string())?;
            daemon.settle_now().map_err(|error| error.to_string())
        });
        if let Err(why) = outcome.await {
            log::warn!("a policy that waited to be confirmed: {why}");
        }
    }

    /// Enforces the policy in force on interfaces that have appeared, and forgets those that are gone.
    pub(super) async fn follow_interfaces(self: &Arc<Self>) {
        let outcome =
            self.on_a_thread(|daemon| daemon.follow_interfaces_now().map_err(|error| error.to_string()));
        if let Err(why) = outcome.await {
            log::error!("interfaces have changed, and the policy could not follow: {why}");
        }
    }

    pub(super) async fn on_a_thread<T: Send + 'static + FromPanic>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> T {
        let daemon = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&daemon)).await {
            Ok(done) => done,
            Err(error) => T::from_panic(format!("the change ended in the middle: {error}")),
        }
    }

    fn apply_file(&self, file: &Path, how: &Caution) -> Response {
        let mut watch = Stopwatch::start();
        let read = policy::read(file).and_then(|text| Ok((policy::parse(&text, file)?, text)));
        let (policy, text) = match read {
            Ok(read) => read,
            Err(error) => return Response::BadInput(error.to_string()),
        };
        let read = watch.lap();
        let mut response = self.put_to_work(policy, Some((&text, &Lists::new())), how, false);
        if let Response::Applied(report) = &mut response {
            report.took_us.read = read;
            report.took_us.total += read;
            file.clone_into(&mut self.file.lock().unwrap_or_else(PoisonError::into_inner));
        }
        response
    }

    pub(super) fn apply_revision(&self, revision: u64, how: &Caution) -> Response {
        match self.history.load(revision) {
            Ok((policy, text, lists)) => self.put_to_work(policy, Some((&text, &lists)), how, true),
            Err(why) => Response::BadInput(why),
        }
    }

    fn rollback(&self, how: &Caution) -> Response {
        let hash = match dataplane::enforced(&self.places.pins) {
            Ok(enforced) => enforced.first().map(|one| one.hash()).unwrap_or_default(),
            Err(error) => return response(&error),
        };
        let Some(before) = self.history.before(&hash) else {
            return Response::Refused("there is no policy to go back to (`tollgate history`)".to_owned());
        };
        let left = self.history.with_hash(&hash);
        let response = self.apply_revision(before.revision, how);
        if let (Response::Applied(_), Some(left)) = (&response, left)
            && let Err(error) = self.history.set_fate(&left, Fate::RolledBack)
        {
            log::warn!("the history can't be written: {error}");
        }
        response
    }

    /// The whole of an apply. `kept`: its text and lists, for the history; the lock-down is not kept.
    pub(super) fn put_to_work(
        &self,
        policy: Policy,
        kept: Option<(&str, &Lists)>,
        how: &Caution,
        missing_ok: bool,
    ) -> Response {
        match shut_out(&policy, &how.peers) {
            Ok(cut) if cut.is_empty() => {}
            Ok(cut) => {
                return Response::Refused(format!("{}; --force applies it all the same", cut.join("; ")));
            }
            Err(error) => return response(&error),
        }
        let mut watch = Stopwatch::start();
        // A panic of another apply has left nothing half-done: the kernel holds all state.
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let change = match lock::change(&self.places.run_dir) {
            Ok(lock) => lock,
            Err(error) => {
                return Response::Refused(format!("somebody else is changing the firewall: {error}"));
            }
        };
        if let Err(error) = self.reopen(&mut shared) {
            return response(&error);
        }
        // Before the apply asks: what changes in between is looked at again.
        match dataplane::own_addresses() {
            Ok(own) => *self.own.lock().unwrap_or_else(PoisonError::into_inner) = own,
            Err(error) => return response(&error),
        }
        let mut notes = Vec::new();
        let prepared = match self.proxy.prepare(policy.proxy.as_ref()) {
            Ok(prepared) => Some(prepared),
            // At a start the packet filter waits for no certificate: it is told, and tried again.
            Err(trouble) if self.last_applied().is_none() => {
                notes.push(format!("the proxy does not serve yet: {trouble}"));
                None
            }
            Err(trouble) => return trouble.into_response(),
        };
        let confirm = how.confirm_s.map(Duration::from_secs);
        let missing_ok = missing_ok || self.late_interfaces;
        let before = self.in_force();
        let applied = dataplane::apply(
            &self.places.pins,
            &mut shared,
            &policy,
            How { confirm, missing_ok, only_add: false },
        );
        let applied = match applied {
            Ok(applied) => applied,
            Err(error) => {
                prepared.into_iter().for_each(|prepared| self.proxy.abandon(prepared));
                return response(&error);
            }
        };
        let fate = if confirm.is_some() { Fate::Waiting } else { Fate::Applied };
        // It may be taken back before the loop looks once.
        self.waits.fetch_or(confirm.is_some(), Ordering::Relaxed);
        notes.extend(applied.notes);
        let policy = Arc::new(policy);
        // Before the proxy serves it: the loop has the proxy follow what stands here.
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&policy));
        let revision = kept.and_then(|(text, lists)| {
            self.remember(before.as_deref(), &policy, (text, lists), fate)
                .map_err(|error| {
                    let folder = self.places.state_dir.display();
                    notes.push(format!("the history in {folder} can't be written: {error}"));
                })
                .ok()
        });
        // A worker may take its time, and what waits to be confirmed can't.
        drop(change);
        notes.extend(prepared.into_iter().flat_map(|prepared| self.proxy.commit(prepared)));
        let interfaces = applied.interfaces.iter().map(|one| Enforcing::new(&one.name, one.attachment));
        let took_us = Took { total: watch.lap(), ..applied.took };
        let report = Report {
            file: policy.path.clone(),
            hash: policy.hash.clone(),
            interfaces: interfaces.collect(),
            tests: applied.tests,
            changes: before.map(|before| policy::difference(&before, &policy)).unwrap_or_default(),
            notes,
            warnings: policy.warnings.iter().map(ToString::to_string).collect(),
            confirm_s: how.confirm_s,
            revision,
            fallback: None,
            took_us,
        };
        log::info!("{}", report.sentence());
        policy.warnings.iter().for_each(|warning| log::warn!("{}", warning.in_one_line()));
        report.changes.iter().for_each(|change| log::info!("{change}"));
        report.notes.iter().for_each(|note| log::info!("{note}"));
        Response::Applied(report)
    }

    /// Writes down what is in force now: for `rollback`, and for a start that has nothing better.
    fn remember(
        &self,
        before: Option<&Policy>,
        policy: &Policy,
        (text, lists): (&str, &Lists),
        fate: Fate,
    ) -> io::Result<u64> {
        self.remember_interfaces(policy);
        // Going back from a policy to the same one changes nothing, so it is no policy that waits.
        let again = before.filter(|before| before.hash == policy.hash);
        match again.and_then(|before| self.history.with_hash(&before.hash)) {
            Some(known) => Ok(known.revision),
            None => self.history.record(policy, text, lists, fate),
        }
    }

    fn remember_interfaces(&self, policy: &Policy) {
        if let Err(error) = lockdown::remember(&self.places.state_dir, policy) {
            log::warn!("the interfaces can't be written down for a lock-down: {error}");
        }
    }

    pub(super) fn settle_now(&self) -> Result<(), DataplaneError> {
        let pins = &self.places.pins;
        dataplane::tidy(pins)?;
        if dataplane::unconfirmed(pins)? != Some(Unconfirmed { left: None }) {
            return Ok(());
        }
        dataplane::revert(pins)?;
        log::error!("the policy was not confirmed in time; what was in force before is in force again");
        supervisor::status("the policy was not confirmed in time; back to the one before");
        if let Err(error) = self.history.settle(Fate::NotConfirmed) {
            log::warn!("the history can't be written: {error}");
        }
        self.remember_in_force();
        if let Some(policy) = self.in_force()
            && policy.path.as_os_str() != lockdown::NAME
        {
            self.remember_interfaces(&policy);
        }
        Ok(())
    }

    fn follow_interfaces_now(&self) -> Result<(), DataplaneError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let pins = &self.places.pins;
        // After `detach` there is nothing to follow.
        if !pins.shared().exists() {
            return Ok(());
        }
        let lock = lock::change(&self.places.run_dir);
        let _change = lock.map_err(|error| DataplaneError::Busy(error.to_string()))?;
        dataplane::follow_interfaces(pins, &mut shared)?;
        // Nothing is applied before it is confirmed or taken back: `settle` comes back here then.
        if dataplane::unconfirmed(pins)?.is_some() {
            return Ok(());
        }
        let Some(policy) = self.in_force() else { return Ok(()) };
        let new = dataplane::unenforced(pins, &policy)?;
        let own = dataplane::own_addresses()?;
        let mut known = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if new.is_empty() && *known == own {
            return Ok(());
        }
        let how = How { confirm: None, missing_ok: true, only_add: true };
        let applied = dataplane::apply(pins, &mut shared, &policy, how)?;
        applied.notes.iter().for_each(|note| log::info!("{note}"));
        *known = own;
        if new.is_empty() {
            log::info!("this host has other addresses; {} goes by them", policy.path.display());
        } else {
            log::info!("{} appeared; {} is enforced there too", new.join(", "), policy.path.display());
        }
        Ok(())
    }

    /// The policy that this daemon knows to be in force, without a look at the kernel.
    pub(super) fn last_applied(&self) -> Option<Arc<Policy>> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The policy in force: as this daemon applied it, or from the history, if others have changed it since.
    fn in_force(&self) -> Option<Arc<Policy>> {
        let known = self.last_applied();
        let enforced = dataplane::enforced(&self.places.pins).ok()?;
        let Some(hash) = enforced.first().map(|one| one.hash()) else {
            // One that was taken back, or that nobody confirmed, must not come again with the next interface.
            let is_good = |hash: &str| self.history.with_hash(hash).is_none_or(|one| one.fate.is_good());
            return known.filter(|known| is_good(&known.hash));
        };
        if known.as_ref().is_some_and(|known| known.hash == hash) {
            return known;
        }
        if let Some(lockdown) = lockdown::policy(&self.places.state_dir).filter(|one| one.hash == hash) {
            return Some(Arc::new(lockdown));
        }
        let revision = self.history.with_hash(&hash)?.revision;
        match self.history.load(revision) {
            Ok((policy, ..)) => Some(Arc::new(policy)),
            Err(why) => {
                log::warn!("the policy in force: {why}");
                None
            }
        }
    }

    pub(super) fn remember_in_force(&self) {
        let now = self.in_force();
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// `detach` may have taken the shared maps away since this daemon opened them.
    fn reopen(&self, shared: &mut Shared) -> Result<(), DataplaneError> {
        if !self.places.pins.shared().exists() {
            *shared = Shared::open(&self.places.pins)?;
            restore(&self.bans);
        }
        Ok(())
    }
}

/// What a change gives that ended in the middle.
pub(super) trait FromPanic {
    fn from_panic(why: String) -> Self;
}

impl FromPanic for Response {
    fn from_panic(why: String) -> Self {
        Self::Refused(why)
    }
}

impl FromPanic for Result<(), String> {
    fn from_panic(why: String) -> Self {
        Err(why)
    }
}

pub(super) fn response(error: &DataplaneError) -> Response {
    if error.is_input() {
        Response::BadInput(error.to_string())
    } else {
        Response::Refused(error.to_string())
    }
}
