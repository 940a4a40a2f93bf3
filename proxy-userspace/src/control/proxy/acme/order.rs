//! One order, from the request to the file: what the client process says is judged here. Run by [`super::Acme`] in a thread of its own;
//! it may take minutes.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::schedule::Life;
use super::store::Store;
use crate::control::proxy::child;
use crate::proxy::acme::{FromClient, Order, Proof, ToClient, certificate};
use crate::proxy::link::{self, MOST_FROM_WORKER};
use crate::proxy::plan::Authority;
use crate::proxy::secrets;

/// The whole of an order.
const PATIENCE: Duration = Duration::from_secs(300);
/// For the client process to read what it is told.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// Longest reason of a client that is passed on, bytes.
const LONGEST_WHY: usize = 1000;
/// Messages of a client: an account twice, answers, an end.
const MOST_MESSAGES: usize = 8;

/// Has the worker answer challenges by these and no others.
pub(in crate::control::proxy) type Present = Arc<dyn Fn(Vec<Proof>) -> Result<(), String> + Send + Sync>;

/// What is to be ordered.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) user: String,
    /// The authority's name.
    pub(super) name: String,
    pub(super) authority: Authority,
    /// As the plan has it.
    pub(super) file: PathBuf,
    pub(super) names: Vec<String>,
}

/// Why nothing was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) why: String,
    /// The authority is not to be asked before, seconds since 1970.
    pub(super) not_before: Option<u64>,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self { why, not_before: None }
    }
}

/// Orders, and keeps what is issued.
pub(super) fn run(job: &Job, store: &Store, present: &Present) -> Result<Life, Failure> {
    let request = certificate::request(&job.names).map_err(|error| format!("making a request: {error}"))?;
    let account = store.account(&job.name, &job.authority.directory);
    let account = account.map_err(|error| format!("the account with {}: {error}", job.name))?;
    let roots = match &job.authority.roots {
        Some(path) => Some(secrets::text(path).map_err(|error| format!("{}: {error}", path.display()))?.0),
        None => None,
    };
    let order = Order {
        directory: job.authority.directory.clone(),
        contact: job.authority.contact.clone(),
        account,
        roots,
        names: job.names.clone(),
        challenge: job.authority.challenge,
        request: request.der,
    };
    let started = child::spawn("acme-client", &job.user);
    let (process, link) = started.map_err(|error| format!("a process for it can't be started: {error}"))?;
    let client = Client { process, link };
    let chain = within(PATIENCE, &client.link, || talk(&client, order, job, store, present));
    // Whatever came of it: nothing is pending any more. A worker that is gone answers nothing by itself.
    if let Err(why) = present(Vec::new()) {
        log::debug!("answers to challenges: {why}");
    }
    let kept = store.keep(&job.file, &job.authority.directory, &job.names, &request.key, &chain?);
    Ok(kept.map_err(|error| format!("what was issued can't be used: {error}"))?)
}

/// A process that ends with this.
struct Client {
    process: process::Child,
    link: UnixStream,
}

impl Drop for Client {
    fn drop(&mut self) {
        // It ends by itself; this is for one that does not.
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            log::warn!("the process that orders certificates can't be ended: {error}");
        }
    }
}

/// Ends the link when the time is up, however little of a message comes at a time.
fn within<T>(
    patience: Duration,
    link: &UnixStream,
    talk: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let end = Instant::now() + patience;
    let (done, is_done) = sync_channel::<()>(0);
    let outcome = thread::scope(|scope| {
        scope.spawn(move || {
            if is_done.recv_timeout(patience) == Err(RecvTimeoutError::Timeout)
                && let Err(error) = link.shutdown(Shutdown::Both)
            {
                log::debug!("the process that orders certificates: {error}");
            }
        });
        let outcome = talk();
        drop(done);
        outcome
    });
    match outcome {
        Err(_) if Instant::now() >= end => Err(format!("it took longer than {patience:?}").into()),
        outcome => outcome,
    }
}

/// The chain that the client brings.
fn talk(
    client: &Client,
    order: Order,
    job: &Job,
    store: &Store,
    present: &Present,
) -> Result<String, Failure> {
    let broken = |error: io::Error| Failure::from(format!("the process that orders it: {error}"));
    let link = &client.link;
    link.set_write_timeout(Some(WRITE_PATIENCE)).map_err(broken)?;
    link::send(link, &ToClient::Order(Box::new(order)), &[]).map_err(broken)?;
    for _ in 0..MOST_MESSAGES {
        let message = link::receive::<FromClient>(link, MOST_FROM_WORKER, false).map_err(broken)?;
        match message.map(|(message, _)| message) {
            Some(FromClient::Account(account)) => {
                let kept = store.keep_account(&job.name, &job.authority.directory, &account);
                kept.map_err(|error| format!("its account can't be kept: {error}"))?;
            }
            Some(FromClient::Present(proofs)) => {
                let is_good = |proof: &Proof| proof.is_good(&job.names, job.authority.challenge);
                if proofs.len() > job.names.len() || !proofs.iter().all(is_good) {
                    return Err("it wants answered what is no challenge for these names".to_owned().into());
                }
                present(proofs)?;
                link::send(link, &ToClient::Presented, &[]).map_err(broken)?;
            }
            Some(FromClient::Issued { chain }) => return Ok(chain),
            Some(FromClient::Failed { why, not_before }) => {
                return Err(Failure { why: child::in_one_line(&why, LONGEST_WHY), not_before });
            }
            None => {
                return Err("the process that orders it ended; its last words stand before this"
                    .to_owned()
                    .into());
            }
        }
    }
    Err("the process that orders it talks without end".to_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_says_a_little_now_and_then_has_no_more_time_than_others() {
        let (here, there) = UnixStream::pair().expect("a pair of sockets");
        let trickle = thread::spawn(move || {
            let mut sent = 0;
            // A message without end.
            while io::Write::write_all(&mut &there, if sent == 0 { &[0, 15, 0, 0] } else { b" " }).is_ok() {
                sent += 1;
                thread::sleep(Duration::from_millis(10));
            }
            sent
        });
        let begun = Instant::now();
        let outcome = within(Duration::from_millis(300), &here, || {
            let got = link::receive::<FromClient>(&here, MOST_FROM_WORKER, false);
            got.map(drop).map_err(|error| error.to_string().into())
        });
        assert_eq!(outcome.expect_err("no message").why, "it took longer than 300ms");
        assert!(begun.elapsed() < Duration::from_secs(30));
        drop(here);
        assert!(trickle.join().expect("no panic") > 1);
        // Who is in time keeps what came of it.
        let (here, _there) = UnixStream::pair().expect("a pair of sockets");
        assert_eq!(within(Duration::from_secs(30), &here, || Ok(7)), Ok(7));
    }
}
