//! Single attempts: a TCP connection, a web page, a query, a datagram, a ping.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};

use super::Outcome;
use crate::lab::Ns;
use crate::services;

/// Opens a TCP connection and closes it.
pub fn tcp_connect(ns: &Ns, to: SocketAddr, timeout: Duration) -> Result<Outcome> {
    ns.in_ns(|| {
        Ok(match TcpStream::connect_timeout(&to, timeout) {
            Ok(_) => Outcome::Answered("connected".to_owned()),
            Err(error) => Outcome::from_error(&error),
        })
    })
}

/// Fetches a page; the answer is its body.
pub fn http_get(ns: &Ns, to: SocketAddr, path: &str, timeout: Duration) -> Result<Outcome> {
    ns.in_ns(|| {
        Ok(match page(to, path, timeout) {
            Ok(body) => Outcome::Answered(body),
            Err(error) => Outcome::from_error(&error),
        })
    })
}

fn page(to: SocketAddr, path: &str, timeout: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: lab\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (_, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| std::io::Error::other("an answer without an end of its head"))?;
    Ok(body.to_owned())
}

/// `SELECT 1` by the real psql; it waits two seconds for a connection, the least that libpq can.
pub fn psql_select_1(ns: &Ns, host: &str) -> Result<Outcome> {
    let output = ns
        .command(services::postgres_program("psql")?)
        .args(["-h", host, "-U", "postgres", "-d", "postgres", "-X", "-t", "-A", "-c", "SELECT 1"])
        .env("PGCONNECT_TIMEOUT", "2")
        .env("LC_ALL", "C")
        .current_dir("/")
        .output()
        .context("starting psql")?;
    let said = String::from_utf8_lossy(&output.stderr);
    Ok(if output.status.success() {
        Outcome::Answered(String::from_utf8_lossy(&output.stdout).into_owned())
    } else if said.contains("timeout expired") || said.contains("timed out") {
        Outcome::TimedOut
    } else if said.contains("Connection refused") {
        Outcome::Refused
    } else {
        Outcome::Failed(said.trim().to_owned())
    })
}

/// Sends one datagram and waits for its echo.
pub fn udp_round_trip(ns: &Ns, to: SocketAddr, timeout: Duration) -> Result<Outcome> {
    ns.in_ns(|| {
        let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(timeout))?;
        let mut buffer = [0; 64];
        let echoed = socket
            .connect(to)
            .and_then(|()| socket.send(services::ECHO))
            .and_then(|_| socket.recv(&mut buffer));
        Ok(match echoed {
            Ok(len) => Outcome::Answered(String::from_utf8_lossy(&buffer[..len]).into_owned()),
            Err(error) => Outcome::from_error(&error),
        })
    })
}

/// One echo request by ping(8), which waits a second for its answer.
pub fn ping(ns: &Ns, to: IpAddr) -> Result<Outcome> {
    let to = to.to_string();
    let output = ns
        .output(&["ping", "-n", "-q", "-c", "1", "-W", "1", &to])
        .context("Debian: apt-get install iputils-ping")?;
    Ok(match output.status.code() {
        Some(0) => Outcome::Answered("pong".to_owned()),
        Some(1) => Outcome::TimedOut,
        _ => Outcome::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    })
}
