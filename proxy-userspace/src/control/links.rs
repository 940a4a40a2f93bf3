//! Tells the daemon that something about this host's interfaces has changed: one came, went, or was put on another, or
//! has another address.
//!
//! What has changed is not read from the messages: some may be lost, and the kernel is asked anyhow.

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` of `linux/rtnetlink.h`.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// Longer than any message needs: what does not fit is cut off, and nobody reads it.
const BUFFER: usize = 8192;

/// A listener.
#[derive(Debug)]
pub struct Links {
    socket: AsyncFd<Socket>,
    /// Something has changed that nobody was told yet: a call that is given up must not lose it.
    pending: bool,
}

impl Links {
    /// Listens from now on.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn listen() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, GROUPS))?;
        socket.set_non_blocking(true)?;
        // SAFETY: the socket owns its descriptor, which stays the same and open until it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self { socket: socket.map_err(io::Error::from)?, pending: false })
    }

    /// Waits for a change, and then until there was none for `quiet`.
    ///
    /// # Errors
    /// If the socket fails.
    pub async fn changed(&mut self, quiet: Duration) -> io::Result<()> {
        if !self.pending {
            self.message().await?;
            self.pending = true;
        }
        // Bounded: interfaces that never come to rest are looked at all the same.
        for _ in 0..50 {
            match timeout(quiet, self.message()).await {
                Ok(more) => more?,
                Err(_) => break,
            }
        }
        self.pending = false;
        Ok(())
    }

    async fn message(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            let mut buffer = Vec::with_capacity(BUFFER);
            match ready.try_io(|socket| socket.get_ref().recv(&mut buffer, 0)) {
                Ok(Ok(_)) => return Ok(()),
                // Messages were lost: something has changed.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}
