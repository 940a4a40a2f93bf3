//! The sockets that clients connect to: bound by the daemon, before it gives up anything, and kept by it as long as a policy
//! wants them, so that a worker that ends or is replaced refuses nobody.
//!
//! Called by [`crate::control`] before a policy goes live: an address that can't be had is an error of the apply.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt,
    shutdown, socket, sockopt,
};

use super::plan::Plan;

/// Connections that wait to be accepted, of one socket; the kernel's `somaxconn` is the limit.
const BACKLOG: i32 = 4096;

/// An address that can't be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener}: {address} can't be bound: {source}{}", help(.source))]
pub struct BindError {
    /// The listener's name.
    pub listener: String,
    /// What was to be bound.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

fn help(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program has it (`ss -tlnp` says which): stop that, or choose another port"
        }
        io::ErrorKind::AddrNotAvailable => "; no interface has this address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// Bound sockets, by address.
#[derive(Debug, Default)]
pub struct Sockets(BTreeMap<SocketAddr, TcpListener>);

impl Sockets {
    /// Sockets that were bound before this process, by systemd or by a daemon before; what is no listening TCP socket is closed.
    pub fn inherited(fds: Vec<OwnedFd>) -> Self {
        let listening = |fd: &OwnedFd| nix::sys::socket::getsockopt(fd, sockopt::AcceptConn).unwrap_or(false);
        let sockets = fds.into_iter().filter(listening).filter_map(|fd| {
            let socket = TcpListener::from(fd);
            Some((socket.local_addr().ok()?, socket))
        });
        Self(sockets.collect())
    }

    /// Binds what the plan wants and is not bound. What it does not want stays until [`Sockets::release`].
    ///
    /// # Errors
    /// If an address can't be bound; then nothing is.
    pub fn bind(&mut self, plan: &Plan) -> Result<Vec<SocketAddr>, BindError> {
        let mut new = BTreeMap::new();
        for (name, listener) in &plan.listeners {
            for address in &listener.bind {
                if self.0.contains_key(address) || new.contains_key(address) {
                    continue;
                }
                let failed = |source| BindError { listener: name.clone(), address: *address, source };
                new.insert(*address, bind_one(*address).map_err(failed)?);
            }
        }
        let addresses = new.keys().copied().collect();
        self.0.append(&mut new);
        Ok(addresses)
    }

    /// What is bound and the plan does not want.
    pub fn unwanted(&self, plan: Option<&Plan>) -> Vec<SocketAddr> {
        let wanted = |address: &SocketAddr| {
            plan.is_some_and(|plan| plan.listeners.values().any(|one| one.bind.contains(address)))
        };
        self.0.keys().filter(|address| !wanted(address)).copied().collect()
    }

    /// Closes these: nobody wants them any more, or the apply that they were bound for has failed.
    pub fn release(&mut self, addresses: &[SocketAddr]) {
        for address in addresses {
            if let Some(socket) = self.0.remove(address) {
                // A worker has the socket too and closes it in its own time: the address is free now, for the next policy.
                let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
            }
        }
    }

    /// The socket of an address.
    pub fn get(&self, address: &SocketAddr) -> Option<&TcpListener> {
        self.0.get(address)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&SocketAddr, &TcpListener)> {
        self.0.iter()
    }
}

/// A listening socket, not inherited by other programs. An IPv6 one takes IPv6 alone, so that both families can be bound.
fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    // Connections of before that linger must not keep a daemon from starting; two listeners are refused all the same.
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(TcpListener::from(fd))
}

#[cfg(test)]
mod tests {
    use super::super::plan::Listener;
    use super::*;

    fn plan(addresses: &[SocketAddr]) -> Plan {
        let listener = Listener { bind: addresses.to_vec(), tls: None, http2: false };
        Plan { listeners: BTreeMap::from([("web".to_owned(), listener)]), ..Plan::default() }
    }

    fn free() -> SocketAddr {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        socket.local_addr().expect("its address")
    }

    #[test]
    fn what_stays_is_not_bound_again_and_what_goes_is_closed() {
        let (first, second) = (free(), free());
        let mut sockets = Sockets::default();
        assert_eq!(sockets.bind(&plan(&[first])).expect("bound"), [first]);
        let kept = sockets.get(&first).expect("bound").as_raw_fd();
        assert_eq!(sockets.bind(&plan(&[first, second])).expect("bound"), [second]);
        assert_eq!(sockets.get(&first).expect("still bound").as_raw_fd(), kept);
        sockets.release(&sockets.unwanted(Some(&plan(&[second]))));
        assert!(sockets.get(&first).is_none() && std::net::TcpStream::connect(first).is_err());
        std::net::TcpStream::connect(second).expect("the other listens");
        // The address can be bound again though somebody else, as a worker, has the socket still.
        let workers = sockets.get(&second).expect("bound").try_clone().expect("a copy");
        sockets.release(&sockets.unwanted(None));
        assert_eq!(sockets.iter().count(), 0);
        assert_eq!(sockets.bind(&plan(&[second])).expect("free again"), [second]);
        drop(workers);
    }

    #[test]
    fn an_address_that_is_taken_is_told_and_nothing_is_bound() {
        let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (taken, other) = (holder.local_addr().expect("its address"), free());
        let mut sockets = Sockets::default();
        let error = sockets.bind(&plan(&[other, taken])).expect_err("taken").to_string();
        assert!(error.starts_with(&format!("listener web: {taken} can't be bound: ")), "{error}");
        assert!(error.contains("ss -tlnp"), "{error}");
        assert_eq!(sockets.iter().count(), 0);
    }

    #[test]
    fn what_was_inherited_is_known_by_its_address() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let client = std::net::TcpStream::connect(address).expect("connected");
        let sockets = Sockets::inherited(vec![listener.into(), client.into()]);
        assert_eq!(sockets.iter().map(|(address, _)| *address).collect::<Vec<_>>(), [address]);
    }
}
