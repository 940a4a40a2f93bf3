//! Path-MTU discovery works through the filter: behind a hop of 1,400 bytes, large transfers both ways over both families.
//!
//! The other side says that it takes 1,500 bytes, so the server learns better only from the router's ICMP errors, which the
//! filter must let in because of the packets that they quote.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tollgate_tests::lab::{OUTSIDE_V4, OUTSIDE_V6, SERVER_V4, SERVER_V6};
use tollgate_tests::traffic::Download;
use tollgate_tests::{Deployment, Hook, Host, Ns};

const POLICY: &str = r#"
version = 1

[interfaces.wlp2s0]

[services.web]
ports = ["tcp/80", "tcp/7100"]
allow = "any"
"#;

const BYTES: u64 = 4_000_000;
/// A port of ours at which somebody takes an upload.
const SINK: u16 = 7100;
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the way to the outside narrow, and the outside silent about it.
fn narrow(d: &Deployment) -> Result<()> {
    let (router, outside) = (d.lab.ns(Host::Router), d.lab.ns(Host::Outside));
    router.run(&["ip", "link", "set", "wan0", "mtu", "1400"])?;
    outside.run(&["ip", "link", "set", "eth0", "mtu", "1400"])?;
    for (family, gateway, segment) in [("-4", "203.0.113.1", "1460"), ("-6", "2001:db8:113::1", "1440")] {
        outside.run(&["ip", family, "route", "replace", "default", "via", gateway, "advmss", segment])?;
    }
    Ok(())
}

/// Sends [`BYTES`] from one host to another, which listens at [`SINK`].
fn upload(from: &Ns, to: &Ns, address: &str) -> Result<u64> {
    let at = SocketAddr::new(address.parse().context("an address")?, SINK);
    let listener = to.in_ns(|| Ok(TcpListener::bind(at)?))?;
    let taking = thread::spawn(move || -> Result<u64> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (mut buffer, mut taken) = (vec![0; 64 * 1024], 0);
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(taken),
                len => taken += len as u64,
            }
        }
    });
    let mut stream = from.in_ns(|| TcpStream::connect_timeout(&at, PATIENCE).context("connecting"))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&vec![b'.'; BYTES as usize]).context("the upload broke off")?;
    drop(stream);
    taking.join().map_err(|_| anyhow!("the taker panicked"))?
}

/// Both ways over one family; each must have needed an ICMP error, or the test shows nothing.
fn transfers(d: &Deployment, server: &str, outside: &str) -> Result<()> {
    let (server_ns, outside_ns) = (d.lab.ns(Host::Server), d.lab.ns(Host::Outside));
    let before = d.tollgate.settled_stats()?;
    let at = SocketAddr::new(server.parse().context("an address")?, 80);
    let downloaded = Download::start(&outside_ns, at, BYTES, 0)?.finish()?;
    ensure!(downloaded.bytes == BYTES, "{server}: {downloaded:?}");
    let delta = d.tollgate.settled_stats()?.since(&before);
    ensure!(delta.reason("icmp-error").packets >= 1, "no ICMP error was needed: {delta:#?}");

    // What the server has learnt of the path must not help the upload.
    server_ns.run(&["ip", "-4", "route", "flush", "cache"])?;
    server_ns.run(&["ip", "-6", "route", "flush", "cache"])?;
    let before = d.tollgate.settled_stats()?;
    let uploaded = upload(&server_ns, &outside_ns, outside)?;
    ensure!(uploaded == BYTES, "{uploaded} bytes arrived at {outside}");
    let delta = d.tollgate.settled_stats()?.since(&before);
    ensure!(delta.reason("icmp-error").packets >= 1, "no ICMP error was needed: {delta:#?}");
    ensure!(delta.reason("reply").packets > 10, "{delta:#?}");
    ensure!(delta.reason("icmp-error-unknown").packets == 0, "{delta:#?}");

    let taken = upload(&outside_ns, &server_ns, server)?;
    ensure!(taken == BYTES, "{taken} bytes arrived at {server}");
    Ok(())
}

fn large_transfers_pass_a_narrow_hop(hook: Hook) -> Result<()> {
    let d = Deployment::with_policy(POLICY, hook)?;
    narrow(&d)?;
    transfers(&d, SERVER_V4, OUTSIDE_V4)?;
    transfers(&d, SERVER_V6, OUTSIDE_V6)
}

#[test]
fn large_transfers_pass_a_narrow_hop_by_native_xdp() -> Result<()> {
    large_transfers_pass_a_narrow_hop(Hook::AsWritten)
}

#[test]
fn large_transfers_pass_a_narrow_hop_by_tc() -> Result<()> {
    large_transfers_pass_a_narrow_hop(Hook::Tc)
}
