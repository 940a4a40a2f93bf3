//! A UDP service of the lab process: it counts datagrams by source and echoes those that ask for it.

use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;

use crate::lab::Ns;

/// A datagram that begins so is sent back; others are only counted, so that spoofed ones get no answer.
pub const ECHO: &[u8] = b"echo";

/// Room for 100,000 small datagrams, as the kernel counts.
const BUFFER: usize = 128 << 20;

type Counts = Arc<Mutex<HashMap<IpAddr, u64>>>;

/// One UDP port, both families.
#[derive(Debug)]
pub struct UdpService {
    counts: Counts,
    stopping: Arc<AtomicBool>,
    receiving: Option<JoinHandle<()>>,
}

impl UdpService {
    /// Listens on `port` in a namespace.
    pub fn start(ns: &Ns, port: u16) -> Result<Self> {
        let socket =
            ns.in_ns(|| UdpSocket::bind(("::", port)).with_context(|| format!("binding UDP port {port}")))?;
        // A flood's first burst must fit: what is lost here would look like the filter's doing.
        setsockopt(&socket, RcvBufForce, &BUFFER).context("SO_RCVBUFFORCE")?;
        // The thread looks whether it shall stop at least so often.
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let counts = Counts::default();
        let stopping = Arc::new(AtomicBool::new(false));
        let (tally, stop) = (Arc::clone(&counts), Arc::clone(&stopping));
        let receiving = thread::spawn(move || receive(&socket, &tally, &stop));
        Ok(Self { counts, stopping, receiving: Some(receiving) })
    }

    /// Datagrams received from a source.
    pub fn from(&self, source: IpAddr) -> u64 {
        self.lock().get(&source).copied().unwrap_or(0)
    }

    /// Datagrams received from all sources.
    pub fn received(&self) -> u64 {
        self.lock().values().sum()
    }

    /// Different sources seen.
    pub fn sources(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UdpService {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(receiving) = self.receiving.take() {
            let _ = receiving.join();
        }
    }
}

fn receive(socket: &UdpSocket, counts: &Counts, stopping: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stopping.load(Ordering::Relaxed) {
        // A timeout, or an ICMP error about an earlier answer.
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        let source = from.ip().to_canonical();
        *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(source).or_default() += 1;
        if buffer[..len].starts_with(ECHO) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    }
}
