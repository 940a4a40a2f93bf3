//! What the daemon tells those who may only ask: the same values that root's commands read by themselves. Called by `server`.
//!
//! One question at a time, and a pause after each: however many ask, answers take a fifth of one processor at most, and none
//! takes a lock that a change waits for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::daemon::Daemon;
use super::protocol::{Command, Response};
use crate::dataplane::DataplaneError;
use crate::observe::bans::BansStatus;
use crate::observe::{stats, status};

/// After an answer the next one is begun when this many times its time has passed.
const REST: u32 = 4;
/// Bans that are listed for those who may only ask: what is longer takes the daemon's memory and time.
const MOST_BANS: usize = 20_000;

/// Where questions are answered.
#[derive(Debug)]
pub struct Desk {
    daemon: Arc<Daemon>,
    free_at: Mutex<Instant>,
}

impl Desk {
    /// Answers for a daemon.
    pub fn new(daemon: Arc<Daemon>) -> Self {
        Self { daemon, free_at: Mutex::new(Instant::now()) }
    }

    /// Answers a command that only reads.
    pub async fn answer(&self, command: Command) -> Response {
        // Whoever asked first is first.
        let mut free_at = self.free_at.lock().await;
        tokio::time::sleep_until((*free_at).into()).await;
        let (begun, daemon) = (Instant::now(), Arc::clone(&self.daemon));
        let answer = tokio::task::spawn_blocking(move || read(&daemon, &command)).await;
        *free_at = Instant::now() + (begun.elapsed() * REST).min(Duration::from_secs(10));
        answer.unwrap_or_else(|error| Response::Refused(format!("the answer ended in the middle: {error}")))
    }
}

fn read(daemon: &Daemon, command: &Command) -> Response {
    let places = &daemon.places;
    let refused = |error: DataplaneError| Response::Refused(error.to_string());
    match command {
        Command::Status => status::read(&places.pins, &places.run_dir).map_or_else(refused, Response::Status),
        Command::Stats => {
            stats::read(&places.pins).map_or_else(refused, |stats| Response::Stats(Box::new(stats)))
        }
        Command::Bans => bans(daemon),
        Command::History => Response::History(daemon.history.revisions()),
        Command::Apply { .. } | Command::ApplyRevision { .. } | Command::Rollback { .. } => {
            Response::Refused("this is no question".to_owned())
        }
    }
}

fn bans(daemon: &Daemon) -> Response {
    let known = daemon.bans.in_force().and_then(|number| match number {
        0..=MOST_BANS => daemon.bans.list().map(Ok),
        more => Ok(Err(more)),
    });
    match known {
        Ok(Ok(list)) => Response::Bans(BansStatus::from(&list)),
        Ok(Err(more)) => Response::Refused(format!(
            "there are {more} bans, and a list of more than {MOST_BANS} is for root: ask as root (`tollgate bans`)"
        )),
        Err(error) => Response::Refused(error.to_string()),
    }
}
