//! What the daemon and the worker of the L7 proxy say to each other: JSON frames over a Unix stream, sockets and files beside them.
//!
//! The worker has no privileges and parses what strangers send, so the daemon takes nothing of it on trust: frames are bounded,
//! and what they ask for is judged by [`crate::control`]. Used by both ends.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::acme::Proof;
use super::decide::Ban;
use super::plan::Plan;
use super::serve::Metrics;
use super::serve::tls::Certificates;

/// Most bytes of a frame to the worker: a plan with the certificates of every listener.
pub const MOST_TO_WORKER: usize = 16 << 20;
/// Most bytes of a frame from the worker.
pub const MOST_FROM_WORKER: usize = 1 << 20;
/// Descriptors that come with one message of the kernel; the kernel takes 253 at most (`SCM_MAX_FD`).
pub const MOST_FDS: usize = 128;
/// Longest time that one message takes.
const LONGEST_SEND: Duration = Duration::from_secs(20);

/// What the files of certificates and keys contain, by path.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets(pub BTreeMap<PathBuf, String>);

impl fmt::Debug for Secrets {
    /// Without what is in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl From<Secrets> for Certificates {
    fn from(secrets: Secrets) -> Self {
        let mut certificates = Self::default();
        for (path, text) in secrets.0 {
            certificates.insert(path, Ok(text.into_bytes()));
        }
        certificates
    }
}

/// What the daemon says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToWorker {
    /// Serve this from now on, and say whether you do. Sockets come with it, in the order of `sockets`: only those that the worker
    /// has not yet.
    Serve {
        /// What to serve.
        plan: Box<Plan>,
        /// For its listeners.
        secrets: Secrets,
        /// By descriptor: the listener's name.
        sockets: Vec<String>,
    },
    /// Write the access log to the descriptor that comes with it.
    Log,
    /// Answer the challenges of authorities by these from now on, and by no others, and say whether you do.
    Present {
        /// The answers.
        proofs: Vec<Proof>,
    },
    /// Tell [`FromWorker::Metrics`].
    Measure,
    /// Take no more connections, finish what is in flight, and end.
    Drain,
}

/// What the worker says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromWorker {
    /// It serves.
    Serving,
    /// It can't serve that, and goes on as before.
    Failed {
        /// Why.
        why: String,
    },
    /// Whether the answers to challenges are in service.
    Presented(Result<(), String>),
    /// A client has offended so often that it should be banned.
    Ban(Ban),
    /// What it has counted since it began.
    Metrics(Box<Metrics>),
}

/// Whether a worker can be told to serve this.
///
/// # Errors
/// If it is more than one message takes; says how much it is.
pub fn fits(plan: &Plan, secrets: &Secrets) -> Result<(), String> {
    let sockets =
        plan.listeners.iter().flat_map(|(name, one)| one.bind.iter().map(|_| name.clone())).collect();
    let serve = ToWorker::Serve { plan: Box::new(plan.clone()), secrets: secrets.clone(), sockets };
    let length = serde_json::to_vec(&serve).map_err(|error| error.to_string())?.len();
    if length > MOST_TO_WORKER {
        return Err(format!(
            "routes, their answers and certificates are {length} bytes together, and there may be {MOST_TO_WORKER}: \
             serve the longer answers from an upstream"
        ));
    }
    Ok(())
}

/// Writes a frame, with descriptors beside its length.
///
/// # Errors
/// If the other end is gone or does not read within the stream's timeout, or there are too many descriptors.
pub fn send(stream: &UnixStream, message: &impl Serialize, fds: &[RawFd]) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    if fds.len() > MOST_FDS || body.len() > MOST_TO_WORKER {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too much for one message"));
    }
    let length = (body.len() as u32).to_be_bytes();
    let rights = [ControlMessage::ScmRights(fds)];
    let beside = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    // Four bytes fit or do not: a stream never takes part of so few when it is empty, and else they are sent again.
    let sent =
        sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&length)], beside, MsgFlags::MSG_NOSIGNAL, None)?;
    let mut rest = length.get(sent..).unwrap_or_default().to_vec();
    rest.extend_from_slice(&body);
    // However little the other end reads at a time.
    let until = Instant::now() + LONGEST_SEND;
    let mut rest = &rest[..];
    while !rest.is_empty() {
        if Instant::now() > until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match io::Write::write(&mut &*stream, rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads a frame of at most `most` bytes, and the descriptors that came with it; where none are wanted, the kernel closes those that
/// come all the same. `None`: the other end is gone.
///
/// # Errors
/// If the frame is too long, broken off, or not what was expected.
pub fn receive<T: DeserializeOwned>(
    stream: &UnixStream,
    most: usize,
    with_fds: bool,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut room = with_fds.then(|| nix::cmsg_space!([RawFd; MOST_FDS]));
    let (mut got, mut fds) = (0, Vec::new());
    while got < length.len() {
        let mut into = [IoSliceMut::new(&mut length[got..])];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(stream.as_raw_fd(), &mut into, room.as_deref_mut(), flags) {
            Err(nix::errno::Errno::EINTR) => continue,
            message => message?,
        };
        let beside = if with_fds { Some(message.cmsgs()?) } else { None };
        for one in beside.into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(raw) = one {
                // SAFETY: the kernel has just made these descriptors for us, and nothing else knows them.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        match message.bytes {
            0 if got == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => got += bytes,
        }
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    let mut body = vec![0; length];
    (&*stream).read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&body)?, fds)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        UnixStream::pair().expect("a pair of sockets")
    }

    #[test]
    fn what_no_worker_can_be_told_is_known_before() {
        let (plan, mut secrets) = (Plan::default(), Secrets::default());
        assert_eq!(fits(&plan, &secrets), Ok(()));
        secrets.0.insert("a".into(), "x".repeat(MOST_TO_WORKER));
        let why = fits(&plan, &secrets).expect_err("too much");
        assert!(why.contains("from an upstream"), "{why}");
    }

    #[test]
    fn sockets_arrive_with_their_message_and_work() {
        let (here, there) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let message = ToWorker::Serve {
            plan: Box::default(),
            secrets: Secrets::default(),
            sockets: vec!["web".to_owned()],
        };
        send(&here, &message, &[listener.as_raw_fd()]).expect("sent");
        send(&here, &ToWorker::Drain, &[]).expect("sent");
        drop(listener);
        let (got, mut fds) =
            receive::<ToWorker>(&there, MOST_TO_WORKER, true).expect("read").expect("a message");
        assert!(matches!(got, ToWorker::Serve { ref sockets, .. } if sockets == &["web"]));
        let same = TcpListener::from(fds.pop().expect("a descriptor"));
        assert_eq!(same.local_addr().expect("its address"), address);
        TcpStream::connect(address).expect("it still listens");
        let (got, fds) = receive::<ToWorker>(&there, MOST_TO_WORKER, true).expect("read").expect("a message");
        assert!(matches!(got, ToWorker::Drain) && fds.is_empty());
        drop(here);
        assert!(receive::<ToWorker>(&there, MOST_TO_WORKER, true).expect("an end").is_none());
    }

    #[test]
    fn descriptors_that_nobody_wants_are_closed() {
        let (here, there) = pair();
        let (kept, passed) = pair();
        send(&here, &FromWorker::Serving, &[passed.as_raw_fd()]).expect("sent");
        drop(passed);
        let (_, fds) =
            receive::<FromWorker>(&there, MOST_FROM_WORKER, false).expect("read").expect("a message");
        assert!(fds.is_empty());
        // Its other end is closed with it.
        assert_eq!((&kept).read(&mut [0]).expect("an end"), 0);
    }

    #[test]
    fn what_is_too_long_or_broken_is_refused() {
        let (mut here, there) = pair();
        here.write_all(&u32::MAX.to_be_bytes()).expect("written");
        let error = receive::<FromWorker>(&there, MOST_FROM_WORKER, false).expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let (mut here, there) = pair();
        here.write_all(b"\0\0\0\x02{").expect("written");
        drop(here);
        let error = receive::<FromWorker>(&there, MOST_FROM_WORKER, false).expect_err("broken off");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let (mut here, there) = pair();
        here.write_all(b"\0\0\0\x02{}").expect("written");
        assert!(receive::<FromWorker>(&there, MOST_FROM_WORKER, false).is_err());
    }

    #[test]
    fn a_key_is_never_written_to_a_log() {
        let secrets = Secrets(BTreeMap::from([(PathBuf::from("key.pem"), "secret".to_owned())]));
        let shown = format!("{secrets:?}");
        assert!(shown.contains("key.pem") && !shown.contains("secret"), "{shown}");
    }
}
