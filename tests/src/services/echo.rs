//! A TCP service of the lab process that sends back each line: what an interactive session looks like to a filter.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{Shutdown, shutdown};

use crate::lab::Ns;

/// One TCP port, both families.
#[derive(Debug)]
pub struct TcpEcho {
    listener: Arc<TcpListener>,
    stopping: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl TcpEcho {
    /// Listens on `port` in a namespace.
    pub fn start(ns: &Ns, port: u16) -> Result<Self> {
        let listener = ns.in_ns(|| {
            TcpListener::bind(("::", port)).with_context(|| format!("listening on TCP port {port}"))
        })?;
        let listener = Arc::new(listener);
        let stopping = Arc::new(AtomicBool::new(false));
        let (socket, stop) = (Arc::clone(&listener), Arc::clone(&stopping));
        let accepting = thread::spawn(move || accept(&socket, &stop));
        Ok(Self { listener, stopping, accepting: Some(accepting) })
    }
}

impl Drop for TcpEcho {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes the thread in accept(2).
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, stopping: &AtomicBool) {
    while !stopping.load(Ordering::Relaxed) {
        match listener.accept() {
            // A client that goes away is the client's affair.
            Ok((stream, _)) => drop(thread::spawn(move || answer(&stream))),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Until the client has said that it is done.
fn answer(mut stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    for line in BufReader::new(stream).lines() {
        stream.write_all(format!("{}\n", line?).as_bytes())?;
    }
    Ok(())
}
