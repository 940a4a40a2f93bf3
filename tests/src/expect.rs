//! What a client finds, and what the counters say of it: both, of one attempt. Called by the tests that go row by row.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::counters::Stats;
use crate::deployment::Deployment;
use crate::lab::{Host, Ns};
use crate::traffic::{Outcome, http_get, ping, tcp_connect, udp_round_trip};

/// An answer within the lab takes a millisecond.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// Silence so long is a drop. Shorter than the first retransmission, so that one attempt is one packet.
pub const SILENCE: Duration = Duration::from_millis(600);

/// An address and a port.
pub fn at(address: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse().context("an address")?, port))
}

/// Runs `work` and gives what the counters say of it.
pub fn counted(d: &Deployment, work: impl FnOnce() -> Result<()>) -> Result<Stats> {
    let before = d.tollgate.stats()?;
    work()?;
    Ok(d.tollgate.settled_stats()?.since(&before))
}

/// Fetches the page of `port` and finds it allowed under `rule`.
pub fn reaches(d: &Deployment, from: Host, to: SocketAddr, rule: &str) -> Result<()> {
    let delta = counted(d, || {
        let answer = http_get(&d.lab.ns(from), to, "/", PATIENCE)?;
        ensure!(answer.is_answered_by_port(to.port()), "{from} to {to}: {answer}");
        Ok(())
    })?;
    // At least the SYN and the request.
    let allowed = delta.outcome(rule, "service-allowed").packets;
    ensure!(allowed >= 2, "{from} to {to}: {allowed} packets allowed under {rule}: {delta:#?}");
    Ok(())
}

/// Has a host begin what hosts begin, and finds it answered: a page by TCP, a name by UDP, a ping.
pub fn is_answered(from: &Ns, address: &str) -> Result<()> {
    let page = http_get(from, at(address, 80)?, "/", PATIENCE)?;
    ensure!(page.is_answered_by_port(80), "TCP to {address}: {page}");
    let name = udp_round_trip(from, at(address, 53)?, PATIENCE)?;
    ensure!(name.is_answered(), "DNS to {address}: {name}");
    let pong = ping(from, address.parse()?)?;
    ensure!(pong.is_answered(), "ping to {address}: {pong}");
    Ok(())
}

/// Finds silence at `to`, and the SYN under `rule` as `reason`.
pub fn is_dropped(d: &Deployment, from: Host, to: SocketAddr, rule: &str, reason: &str) -> Result<()> {
    let delta = counted(d, || {
        let outcome = tcp_connect(&d.lab.ns(from), to, SILENCE)?;
        ensure!(outcome == Outcome::TimedOut, "{from} to {to}: {outcome}");
        Ok(())
    })?;
    let dropped = delta.outcome(rule, reason).packets;
    ensure!(dropped == 1, "{from} to {to}: {dropped} packets as {reason} under {rule}: {delta:#?}");
    ensure!(delta.outcome(rule, "service-allowed").packets == 0, "{from} to {to}: {delta:#?}");
    Ok(())
}
