//! The first policy of a daemon: that of its file, what it finds in force, an earlier one, or the lock-down. Called once, by
//! `daemon`.
//!
//! | the file | in force | `--on-failure open` | `--on-failure closed` |
//! |---|---|---|---|
//! | good | anything | the file | the file |
//! | bad, or refused | a policy | an error; that policy stays | that policy stays, and the daemon |
//! | bad, or refused | nothing | an error; everything passes | the newest good policy of the history, else the lock-down |
//!
//! A policy that was not confirmed, or was rolled back, is replaced by the one before in either case.

use std::sync::Arc;

use super::change::response;
use super::daemon::{Daemon, DaemonError, OnFailure, Start};
use super::lockdown;
use super::protocol::{Caution, Enforcing, Report, Response};
use crate::dataplane::{self, DataplaneError, Took, Unconfirmed};
use crate::policy::{Lists, Policy};

/// What the file of a start was.
pub(super) enum First {
    /// A policy that fits this host, and its text.
    Policy(Box<Policy>, String),
    /// Nothing that can be enforced.
    Bad(DaemonError),
}

impl Daemon {
    /// Puts the first policy to work.
    pub(super) async fn begin(self: &Arc<Self>, start: &Start, first: First) -> Response {
        let (confirm_s, on_failure) = (start.confirm_s, start.on_failure);
        self.on_a_thread(move |daemon| {
            let wanted = match (daemon.adopt(), first) {
                (Ok(Some(report)), _) => return Response::Applied(report),
                (Ok(None), First::Policy(policy, text)) => daemon.apply_first(*policy, &text, confirm_s),
                (Ok(None), First::Bad(error)) => Response::BadInput(error.to_string()),
                (Err(error), _) => return response(&error),
            };
            daemon.applies.note(&wanted);
            match (on_failure, wanted) {
                (OnFailure::Closed, Response::BadInput(why)) => {
                    daemon.fall_back(why.clone()).unwrap_or(Response::BadInput(why))
                }
                (OnFailure::Closed, Response::Refused(why)) => {
                    daemon.fall_back(why.clone()).unwrap_or(Response::Refused(why))
                }
                (_, wanted) => wanted,
            }
        })
        .await
    }

    /// A policy that waits for its confirmation since before this daemon is left alone.
    fn adopt(&self) -> Result<Option<Report>, DataplaneError> {
        self.settle_now()?;
        match dataplane::unconfirmed(&self.places.pins)? {
            Some(Unconfirmed { left: Some(left) }) => {
                let note = "found in force, waiting to be confirmed; the file was not applied";
                Ok(self.found(note)?.map(|report| Report { confirm_s: Some(left.as_secs()), ..report }))
            }
            _ => Ok(None),
        }
    }

    /// What is in force already, if anything is.
    fn found(&self, note: &str) -> Result<Option<Report>, DataplaneError> {
        let enforced = dataplane::enforced(&self.places.pins)?;
        let Some(first) = enforced.first() else { return Ok(None) };
        self.remember_in_force();
        let interfaces = enforced.iter().map(|one| Enforcing::new(&one.interface.name, one.attachment));
        Ok(Some(Report {
            file: first.policy(),
            hash: first.hash(),
            interfaces: interfaces.collect(),
            tests: 0,
            changes: Vec::new(),
            notes: vec![note.to_owned()],
            warnings: Vec::new(),
            confirm_s: None,
            revision: None,
            took_us: Took::default(),
            fallback: None,
        }))
    }

    fn apply_first(&self, policy: Policy, text: &str, confirm_s: Option<u64>) -> Response {
        let how = Caution { confirm_s, peers: Vec::new() };
        let bad = self.history.with_hash(&policy.hash).filter(|one| !one.fate.is_good());
        let good = bad.as_ref().and_then(|bad| self.history.before(&bad.hash));
        let (Some(bad), Some(good)) = (bad, good) else {
            return self.put_to_work(policy, Some((text, &Lists::new())), &how, false);
        };
        // Whoever was shut out by it once would be again.
        let why = format!(
            "{} is as it was when it was {}: revision {} is enforced in its place; `tollgate apply` takes the file all the same",
            policy.path.display(),
            bad.fate.sentence(),
            good.revision
        );
        log::error!("{why}");
        match self.apply_revision(good.revision, &how) {
            Response::Applied(mut report) => {
                report.notes.push(why);
                Response::Applied(report)
            }
            other => other,
        }
    }

    /// What is enforced in place of a file that can't be; `None` if there is nothing.
    fn fall_back(&self, why: String) -> Option<Response> {
        log::error!("the policy can't be enforced: {why}");
        let mut report = self.found("found in force; the file was not applied").unwrap_or_else(|error| {
            log::error!("looking for a policy in force: {error}");
            None
        });
        let good = self.history.revisions().into_iter().rev().filter(|one| one.fate.is_good());
        for revision in good.map(|one| one.revision) {
            if report.is_some() {
                break;
            }
            match self.apply_revision(revision, &Caution::default()) {
                Response::Applied(applied) => report = Some(applied),
                Response::BadInput(why) | Response::Refused(why) => {
                    log::error!("revision {revision} can't be enforced in its place: {why}");
                }
                Response::Status(_) | Response::Stats(_) | Response::Bans(_) | Response::History(_) => {}
            }
        }
        let report = report.or_else(|| self.lock_down())?;
        if lockdown::NAME == report.file.as_os_str() {
            log::error!(
                "LOCKED DOWN: nothing new passes until `tollgate apply` has a good policy; answers to what this host begins do"
            );
        } else {
            log::error!("in its place: {} ({})", report.file.display(), report.hash);
        }
        Some(Response::Applied(Report {
            fallback: Some(format!("the policy file was refused: {why}")),
            ..report
        }))
    }

    fn lock_down(&self) -> Option<Report> {
        let Some(policy) = lockdown::policy(&self.places.state_dir) else {
            log::error!(
                "no lock-down: no policy was ever in force here, so which interfaces it is for is not known"
            );
            return None;
        };
        match self.put_to_work(policy, None, &Caution::default(), true) {
            Response::Applied(report) => Some(report),
            Response::BadInput(why) | Response::Refused(why) => {
                log::error!("the lock-down can't be enforced: {why}");
                None
            }
            Response::Status(_) | Response::Stats(_) | Response::Bans(_) | Response::History(_) => None,
        }
    }
}
