//! Receives frames as they are, by a packet socket in a namespace: what a host hears on its interface.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::lab::Ns;

/// Longer than any frame of the lab.
const LONGEST: usize = 65_536;
/// How long one wait for a frame takes at most.
const TICK: Duration = Duration::from_millis(20);

/// A packet socket that hears what an interface receives, from the moment it is opened.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
}

impl Capture {
    /// Listens on `interface` of a namespace; not to what is sent there.
    pub fn open(ns: &Ns, interface: &str) -> Result<Self> {
        let index = ns.ifindex(interface)?;
        ns.in_ns(|| {
            // Without a protocol it hears nothing until it is bound to one interface.
            // SAFETY: socket(2) takes no pointers.
            let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
            ensure!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
            // SAFETY: the kernel has just made this descriptor and nobody else has it.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            let on: libc::c_int = 1;
            option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &on)?;
            option(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &on)?;
            let tick = libc::timeval { tv_sec: 0, tv_usec: TICK.as_micros() as libc::suseconds_t };
            option(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &tick)?;
            bind(&socket, index)?;
            Ok(Self { socket })
        })
    }

    /// The frames that arrive until `time` is over, each as it was on the wire.
    pub fn frames(&self, time: Duration) -> Result<Vec<Vec<u8>>> {
        let end = Instant::now() + time;
        let mut frames = Vec::new();
        let mut buffer = vec![0; LONGEST];
        while Instant::now() < end {
            let error = match self.receive(&mut buffer) {
                Ok(frame) => {
                    frames.push(frame);
                    continue;
                }
                Err(error) => error,
            };
            let waits = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
            ensure!(waits, "packet socket: {error}");
        }
        Ok(frames)
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<Vec<u8>> {
        let mut control = [0u64; 8];
        let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: all zeros is a message header with nothing in it.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut piece;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: header, piece and both buffers are writable for the lengths that are given, and outlive the call.
        let len = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        if len < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut frame = buffer.get(..len as usize).unwrap_or_default().to_vec();
        if let Some(tag) = tag(&control) {
            frame.splice(12..12, tag);
        }
        Ok(frame)
    }
}

/// The outermost VLAN tag, which the kernel has taken off: a control message with a `tpacket_auxdata`.
fn tag(control: &[u64; 8]) -> Option<[u8; 4]> {
    let bytes: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let number = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    // A `cmsghdr` (length, level, type), then status, two lengths, two places, number and type of the tag.
    let header = size_of::<libc::cmsghdr>();
    let kind = [number(header - 8)?, number(header - 4)?];
    if kind != [libc::SOL_PACKET as u32, libc::PACKET_AUXDATA as u32]
        || number(header)? & libc::TP_STATUS_VLAN_VALID == 0
    {
        return None;
    }
    let half = |at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?).to_be_bytes());
    let [[a, b], [c, d]] = [half(header + 18)?, half(header + 16)?];
    Some([a, b, c, d])
}

fn option<T>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> Result<()> {
    // SAFETY: the value outlives the call and its length is its own.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const *value).cast(),
            size_of_val(value) as libc::socklen_t,
        )
    };
    ensure!(done == 0, "option {name} of a packet socket: {}", io::Error::last_os_error());
    Ok(())
}

fn bind(socket: &OwnedFd, index: u32) -> Result<()> {
    // SAFETY: all zeros is a valid address of this kind.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as i32;
    // SAFETY: the address outlives the call and its length is its own.
    let done =
        unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
    ensure!(done == 0, "binding a packet socket: {}", io::Error::last_os_error());
    Ok(())
}
