//! One worker process of the L7 proxy, as the daemon sees it: started, told what to serve, asked, let go.
//!
//! Called by [`super::Proxy`]. The worker is this same program, started anew, so that nothing of the daemon's memory is in it; its
//! standard input is the link.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{self, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::proxy::acme::Proof;
use crate::proxy::bind::Sockets;
use crate::proxy::decide::Ban;
use crate::proxy::link::{self, FromWorker, MOST_FROM_WORKER, Secrets, ToWorker};
use crate::proxy::plan::{Common, Plan};
use crate::proxy::serve::Metrics;

/// How long a worker may take to start and serve.
const PATIENCE: Duration = Duration::from_secs(10);
/// Answers that wait to be read.
const ANSWERS: usize = 4;
/// How long it may take to say what it has counted.
const MEASURE_PATIENCE: Duration = Duration::from_secs(2);

/// Longest reason of a worker that is passed on, bytes.
const LONGEST_WHY: usize = 1000;

/// What a process says that parses what strangers send: it ends up on terminals and in files, one line each.
pub(super) fn in_one_line(text: &str, longest: usize) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.truncate(line.floor_char_boundary(longest));
    line
}

/// Why a worker does not serve a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unserved {
    /// It can't, and goes on as before.
    Refused(String),
    /// It may be in any state.
    Broken(String),
}

/// Starts this program anew, with the other end of a link as its standard input.
pub(super) fn spawn(part: &str, user: &str) -> io::Result<(process::Child, UnixStream)> {
    let (link, there) = UnixStream::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command.args([part, "--user", user]).env_clear();
    if let Some(level) = std::env::var_os("RUST_LOG") {
        command.env("RUST_LOG", level);
    }
    command.stdin(Stdio::from(OwnedFd::from(there))).stdout(Stdio::null()).stderr(Stdio::inherit());
    command.current_dir("/");
    Ok((command.spawn()?, link))
}

/// What of a plan takes another process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Made {
    user: String,
    threads: Option<u16>,
}

impl Made {
    fn of(common: &Common) -> Self {
        Self { user: common.user.clone(), threads: common.threads }
    }
}

/// A running worker.
#[derive(Debug)]
pub(super) struct Child {
    process: process::Child,
    link: UnixStream,
    answers: Receiver<FromWorker>,
    /// Hears what it says.
    listener: JoinHandle<()>,
    /// The addresses that it listens at.
    given: BTreeSet<SocketAddr>,
    /// What it was started for, and can't change.
    made: Made,
    /// How long what it serves may take to be finished.
    drain: Duration,
}

impl Child {
    /// Starts one that can serve plans with this in common.
    pub(super) fn start(common: &Common, offenders: mpsc::Sender<Ban>) -> io::Result<Self> {
        let (process, link) = spawn("proxy-worker", &common.user)?;
        // A worker that does not read must not hold up the daemon.
        link.set_write_timeout(Some(PATIENCE))?;
        let (tell, answers) = sync_channel(ANSWERS);
        let reader = link.try_clone()?;
        let listener = std::thread::Builder::new().name("proxy-link".to_owned()).spawn(move || {
            listen(&reader, &tell, &offenders);
        })?;
        Ok(Self {
            process,
            link,
            answers,
            listener,
            given: BTreeSet::new(),
            made: Made::of(common),
            drain: Duration::ZERO,
        })
    }

    /// Whether it can serve plans with this in common: another user or number of threads is another process.
    pub(super) fn is_for(&self, common: &Common) -> bool {
        self.made == Made::of(common)
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Has it serve a plan.
    pub(super) fn serve(&mut self, plan: &Plan, secrets: &Secrets, bound: &Sockets) -> Result<(), Unserved> {
        let mut sockets = Vec::new();
        let mut fds: Vec<RawFd> = Vec::new();
        let mut given = BTreeSet::new();
        for (name, listener) in &plan.listeners {
            for address in &listener.bind {
                given.insert(*address);
                if !self.given.contains(address)
                    && let Some(socket) = bound.get(address)
                {
                    sockets.push(name.clone());
                    fds.push(socket.as_raw_fd());
                }
            }
        }
        let serve = ToWorker::Serve { plan: Box::new(plan.clone()), secrets: secrets.clone(), sockets };
        let told = link::send(&self.link, &serve, &fds);
        told.map_err(|error| Unserved::Broken(format!("the worker can't be told: {error}")))?;
        // There is one question at a time: a worker that does not answer this one is asked no other.
        let is_answer =
            |message: &FromWorker| matches!(message, FromWorker::Serving | FromWorker::Failed { .. });
        match self.wait_for(PATIENCE, is_answer) {
            Ok(FromWorker::Serving) => {
                self.given = given;
                self.drain = Duration::from_millis(plan.common.timeouts.drain_ms);
                Ok(())
            }
            Ok(FromWorker::Failed { why, .. }) => Err(Unserved::Refused(in_one_line(&why, LONGEST_WHY))),
            Ok(_) => Err(Unserved::Broken("the worker gave another answer".to_owned())),
            Err(why) => Err(Unserved::Broken(why)),
        }
    }

    /// Has it write its log there.
    pub(super) fn log_to(&self, fd: RawFd) -> io::Result<()> {
        link::send(&self.link, &ToWorker::Log, &[fd])
    }

    /// Has it answer the challenges of authorities by these and no others.
    pub(super) fn present(&self, proofs: &[Proof]) -> Result<(), String> {
        let present = ToWorker::Present { proofs: proofs.to_vec() };
        link::send(&self.link, &present, &[]).map_err(|error| error.to_string())?;
        match self.wait_for(PATIENCE, |message| matches!(message, FromWorker::Presented(_)))? {
            FromWorker::Presented(presented) => presented.map_err(|why| in_one_line(&why, LONGEST_WHY)),
            _ => Err("the worker gave another answer".to_owned()),
        }
    }

    /// What it has counted.
    pub(super) fn measure(&self) -> Result<Metrics, String> {
        link::send(&self.link, &ToWorker::Measure, &[]).map_err(|error| error.to_string())?;
        match self.wait_for(MEASURE_PATIENCE, |message| matches!(message, FromWorker::Metrics(_)))? {
            FromWorker::Metrics(metrics) => Ok(*metrics),
            _ => Err("the worker gave another answer".to_owned()),
        }
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<String> {
        match self.process.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(status.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Nobody hears what it says any more: it takes that for the end of the daemon, and no more connections.
    pub(super) fn is_cut_off(&self) -> bool {
        self.listener.is_finished()
    }

    /// Takes no more connections; what is in flight is finished. It ends by itself.
    pub(super) fn drain(self) -> Leaving {
        if let Err(error) = link::send(&self.link, &ToWorker::Drain, &[]) {
            log::debug!("the proxy's worker has gone before it was told to: {error}");
        }
        Leaving { process: self.process, until: Instant::now() + self.drain + PATIENCE }
    }

    fn wait_for(
        &self,
        patience: Duration,
        wanted: impl Fn(&FromWorker) -> bool,
    ) -> Result<FromWorker, String> {
        let until = Instant::now() + patience;
        loop {
            match self.answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(message) if wanted(&message) => return Ok(message),
                // The answer to a question that was given up.
                Ok(_) if Instant::now() < until => {}
                Ok(_) | Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("the worker did not answer within {} s", patience.as_secs()));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("the worker ended; its last words stand before this".to_owned());
                }
            }
        }
    }
}

/// Passes on what the worker says, until it says nothing more or something that nobody understands.
fn listen(link: &UnixStream, tell: &SyncSender<FromWorker>, offenders: &mpsc::Sender<Ban>) {
    loop {
        match link::receive::<FromWorker>(link, MOST_FROM_WORKER, false) {
            Ok(Some((FromWorker::Ban(ban), _))) => {
                // Full: the worker is asking for more bans than anybody could want. The next offence asks again.
                let _ = offenders.try_send(ban);
            }
            Ok(Some((answer, _))) => {
                // Nobody asks so much: it is not to fill the daemon's memory.
                if tell.try_send(answer).is_err() {
                    let _ = link.shutdown(std::net::Shutdown::Both);
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                log::error!(
                    "the proxy's worker says what nobody understands, and is listened to no more: {error}"
                );
                let _ = link.shutdown(std::net::Shutdown::Both);
                return;
            }
        }
    }
}

/// A worker that finishes what is in flight.
#[derive(Debug)]
pub(super) struct Leaving {
    process: process::Child,
    until: Instant,
}

impl Leaving {
    /// True once it is gone; one that stays too long is killed.
    pub(super) fn is_gone(&mut self) -> bool {
        if Instant::now() > self.until
            && let Err(error) = self.process.kill()
        {
            log::warn!("a worker of the proxy that should be gone can't be killed: {error}");
        }
        !matches!(self.process.try_wait(), Ok(None))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::TcpListener;

    use super::*;
    use crate::proxy::link::MOST_TO_WORKER;
    use crate::proxy::plan::Listener;

    #[test]
    fn what_a_worker_says_is_one_line_and_not_too_long() {
        assert_eq!(in_one_line("a\n\u{1b}[2Jb", 100), "a  [2Jb");
        assert_eq!(in_one_line(&"é".repeat(2000), 1001).len(), 1000);
    }

    #[test]
    fn sockets_of_a_plan_that_was_refused_are_given_again_and_those_that_it_has_are_not() {
        let (link, there) = UnixStream::pair().expect("a pair of sockets");
        let (tell, answers) = sync_channel(ANSWERS);
        // Anything that ends by itself: what is spoken to is the link.
        let process = Command::new("true").spawn().expect("a process");
        let (given, drain, made) = (BTreeSet::new(), Duration::ZERO, Made::of(&Common::default()));
        let (reader, (told, heard)) = (link.try_clone().expect("a copy"), sync_channel(ANSWERS));
        let (offenders, _) = mpsc::channel(1);
        let listener = std::thread::spawn(move || listen(&reader, &told, &offenders));
        let mut child = Child { process, link, answers, listener, given, made, drain };
        let mut bound = Sockets::default();
        let free = TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()).expect("a port");
        let listener = Listener { bind: vec![free], tls: None, http2: false };
        let plan = Plan { listeners: BTreeMap::from([("web".to_owned(), listener)]), ..Plan::default() };
        bound.bind(&plan).expect("bound");
        let mut given = Vec::new();
        for answer in [FromWorker::Failed { why: "no".to_owned() }, FromWorker::Serving, FromWorker::Serving]
        {
            let is_refused = matches!(answer, FromWorker::Failed { .. });
            tell.send(answer).expect("said");
            let served = child.serve(&plan, &Secrets::default(), &bound);
            assert_eq!(served, if is_refused { Err(Unserved::Refused("no".to_owned())) } else { Ok(()) });
            let got = link::receive::<ToWorker>(&there, MOST_TO_WORKER, true).expect("read");
            given.push(got.map(|(_, fds)| fds.len()));
        }
        assert_eq!(given, [Some(1), Some(1), Some(0)]);
        assert!(child.process.wait().expect("its end").success());

        // One that says more than anybody asks for is listened to no more, and that is known.
        assert!(!child.is_cut_off());
        for _ in 0..=ANSWERS {
            link::send(&there, &FromWorker::Serving, &[]).expect("said");
        }
        child.listener.join().expect("it ends");
        assert_eq!(heard.iter().count(), ANSWERS);
    }
}
