//! Sends frames as they are, by a packet socket in a namespace: bounded in number and in time, at a given rate.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::lab::Ns;

/// Frames that one system call takes.
const BATCH: usize = 64;
/// No flood of the lab is longer.
pub const LONGEST: Duration = Duration::from_secs(60);

/// A packet socket on one interface.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
}

/// What a flood came to.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Frames that left.
    pub frames: u64,
    /// From the first to the last.
    pub took: Duration,
    /// When each round over all frames began, from the start.
    pub rounds: Vec<Duration>,
}

impl Sender {
    /// Opens a socket that sends on `interface` of a namespace and receives nothing.
    pub fn open(ns: &Ns, interface: &str) -> Result<Self> {
        Self::with(ns, interface, true)
    }

    /// The same, past the programs on the interface's egress: as what the host itself sends.
    pub fn as_host(ns: &Ns, interface: &str) -> Result<Self> {
        Self::with(ns, interface, false)
    }

    fn with(ns: &Ns, interface: &str, bypass: bool) -> Result<Self> {
        let index = ns.ifindex(interface)?;
        ns.in_ns(|| {
            // SAFETY: socket(2) takes no pointers.
            let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
            ensure!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
            // SAFETY: the kernel has just made this descriptor and nobody else has it.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            if bypass {
                bypass_queue(&socket)?;
            }
            bind(&socket, index)?;
            Ok(Self { socket })
        })
    }

    /// Sends each frame once, at once.
    pub fn send(&self, frames: &[Vec<u8>]) -> Result<()> {
        let mut rest = frames;
        while !rest.is_empty() {
            let sent = self.batch(&rest[..rest.len().min(BATCH)]).context("sendmmsg")?;
            rest = &rest[sent..];
        }
        Ok(())
    }

    /// Sends the frames round robin, `rate` of them a second, evenly, until `count` have been sent.
    pub fn flood(&self, frames: &[Vec<u8>], rate: u64, count: u64) -> Result<Sent> {
        ensure!(!frames.is_empty() && rate > 0, "a flood of nothing");
        ensure!(count / rate <= LONGEST.as_secs(), "a flood of more than {LONGEST:?}");
        let start = Instant::now();
        let mut sent = Sent::default();
        let mut next = 0;
        while sent.frames < count {
            ensure!(start.elapsed() < LONGEST, "the machine is too slow for {rate} frames a second");
            let done = sent.frames;
            let due = (start.elapsed().as_secs_f64() * rate as f64) as u64 + 1;
            if due <= done {
                let wait = (done + 1 - due) as f64 / rate as f64;
                thread::sleep(Duration::from_secs_f64(wait.max(0.000_05)));
                continue;
            }
            if next == 0 {
                sent.rounds.push(start.elapsed());
            }
            let room = (frames.len() - next).min(BATCH).min((due.min(count) - done) as usize);
            match self.batch(&frames[next..next + room]) {
                Ok(taken) => {
                    sent.frames += taken as u64;
                    next += taken;
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    // The driver's ring is full: its reader is slower than we are for a moment. The same frames again.
                    thread::sleep(Duration::from_micros(50));
                }
                Err(error) => return Err(error).context("sendmmsg"),
            }
            next %= frames.len();
        }
        sent.took = start.elapsed();
        Ok(sent)
    }

    fn batch(&self, frames: &[Vec<u8>]) -> io::Result<usize> {
        let mut pieces: Vec<_> = frames
            .iter()
            .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
            .collect();
        let mut messages: Vec<_> = pieces
            .iter_mut()
            .map(|piece| {
                // SAFETY: all zeros is a message header with nothing in it.
                let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
                message.msg_hdr.msg_iov = piece;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        // SAFETY: headers, pieces and frames outlive the call, and the kernel only reads the frames.
        let sent = unsafe {
            libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, 0)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }
}

/// Frames go to the driver at once, and an error comes back if it does not take one.
fn bypass_queue(socket: &OwnedFd) -> Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int that outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const on).cast(),
            size_of_val(&on) as u32,
        )
    };
    ensure!(done == 0, "PACKET_QDISC_BYPASS: {}", io::Error::last_os_error());
    Ok(())
}

fn bind(socket: &OwnedFd, index: u32) -> Result<()> {
    // SAFETY: all zeros is a valid address of this kind.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index as i32;
    // SAFETY: the address outlives the call and its length is its own.
    let done =
        unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
    ensure!(done == 0, "binding a packet socket: {}", io::Error::last_os_error());
    Ok(())
}
