//! Where a command that only reads has its values from: the kernel's maps, if it is root, and else the daemon. Called by
//! `status`, `stats`, `bans` and `history`.
//!
//! Root never asks the daemon: what it reads is true whatever has become of it. Both ways give the same values, so tables and
//! JSON are the same.

use std::io::ErrorKind;

use super::{Failure, Global};
use crate::bans::Registry;
use crate::control::client;
use crate::control::history::{History, Revision};
use crate::control::protocol::{Command, Response};
use crate::observe::bans::BansStatus;
use crate::observe::stats::{self, Stats};
use crate::observe::status::{self, Status};

/// What is enforced where.
pub(super) fn status(global: &Global) -> Result<Status, Failure> {
    if is_root() {
        return Ok(status::read(&global.pins(), &global.run_dir)?);
    }
    match ask(global, Command::Status, "status")? {
        Response::Status(status) => Ok(status),
        other => Err(unexpected(&other)),
    }
}

/// The counters.
pub(super) fn stats(global: &Global) -> Result<Stats, Failure> {
    if is_root() {
        return Ok(stats::read(&global.pins())?);
    }
    match ask(global, Command::Stats, "stats")? {
        Response::Stats(stats) => Ok(*stats),
        other => Err(unexpected(&other)),
    }
}

/// Who is banned.
pub(super) fn bans(global: &Global) -> Result<BansStatus, Failure> {
    if is_root() {
        return Ok(BansStatus::from(&Registry::new(&global.pins(), &global.state_dir).list()?));
    }
    match ask(global, Command::Bans, "bans")? {
        Response::Bans(bans) => Ok(bans),
        other => Err(unexpected(&other)),
    }
}

/// The policies that were in force.
pub(super) fn history(global: &Global) -> Result<Vec<Revision>, Failure> {
    let history = History::new(&global.state_dir);
    if is_root() || !history.is_closed() {
        return Ok(history.revisions());
    }
    match ask(global, Command::History, "history")? {
        Response::History(revisions) => Ok(revisions),
        other => Err(unexpected(&other)),
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Asks the daemon; its refusals are ours.
fn ask(global: &Global, question: Command, name: &str) -> Result<Response, Failure> {
    let response = client::ask(&global.run_dir, question).map_err(|error| {
        Failure::Refused(match error.kind() {
            ErrorKind::PermissionDenied => format!(
                "tollgate {name} is for root (sudo tollgate {name}), and for the group that the daemon lets ask: \
                 `tollgate run --read-group NAME`"
            ),
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => format!(
                "no daemon listens in {}, and only root can do without one: run it as root (sudo tollgate {name})",
                global.run_dir.display()
            ),
            _ => format!("asking the daemon in {}: {error}", global.run_dir.display()),
        })
    })?;
    match response {
        Response::Refused(why) => Err(Failure::Refused(why)),
        Response::BadInput(why) => Err(Failure::Input(why)),
        answer => Ok(answer),
    }
}

fn unexpected(response: &Response) -> Failure {
    Failure::Refused(format!("the daemon answered something else than was asked: {response:?}"))
}
