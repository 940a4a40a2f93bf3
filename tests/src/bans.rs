//! Sources that a test makes up, and what becomes of their packets: banned or let through, by the counters and by nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::frames::{Link, Path};
use crate::lab::{ROUTER_MAC, SERVER_MAC, SERVER_PORT};
use crate::sender::Sender;
use crate::services::UdpService;
use crate::{Deployment, Hook, Host, Tollgate};

const LINK: Link = Link { source: ROUTER_MAC, destination: SERVER_MAC };
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 104);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0x104);
/// A service that everybody may reach: what does not is banned.
const OPEN: u16 = 7000;
/// A port of no service.
const CLOSED: u16 = 7001;

/// The policy of these tests.
pub const POLICY: &str = r#"
version = 1

[interfaces.wlp2s0]
hook = "auto"
default = "drop"

[zones]
lan = ["192.168.0.0/24", "fe80::/10"]

[services.open]
ports = ["udp/7000"]
allow = "any"

[services.django]
ports = ["tcp/8000"]
allow = "any"
"#;

/// A deployment whose server hears nobody but the test.
#[derive(Debug)]
pub struct Sources {
    /// The deployment.
    pub deployment: Deployment,
    sender: Sender,
    _service: UdpService,
}

impl Sources {
    /// Enforces [`POLICY`] and cuts the server off from everybody else.
    pub fn new(hook: Hook) -> Result<Self> {
        let deployment = Deployment::with_policy(POLICY, hook)?;
        // Without a listener the host would answer with ICMP errors.
        let service = UdpService::start(&deployment.lab.ns(Host::Server), OPEN)?;
        deployment.lab.isolate_server()?;
        let sender = Sender::open(&deployment.lab.ns(Host::Router), SERVER_PORT)?;
        Ok(Self { deployment, sender, _service: service })
    }

    /// The firewall.
    pub fn tollgate(&self) -> &Tollgate {
        &self.deployment.tollgate
    }

    /// A datagram of each source, and how many of them were counted as banned; all others must have passed.
    pub fn banned(&self, sources: &[IpAddr]) -> Result<u64> {
        let frames: Vec<_> = sources.iter().map(|source| frame(*source, OPEN)).collect();
        let before = self.tollgate().settled_stats()?;
        self.sender.send(&frames)?;
        let delta = self.tollgate().settled_stats()?.since(&before);
        let (banned, allowed) =
            (delta.reason("banned").packets, delta.outcome("open", "service-allowed").packets);
        ensure!(banned + allowed == sources.len() as u64, "{} sent: {delta:#?}", sources.len());
        Ok(banned)
    }

    /// Fails unless each source is banned (`true`), or passes, as the table says.
    pub fn are(&self, when: &str, table: &[(&str, bool)]) -> Result<()> {
        for (source, is_banned) in table {
            let address = source.parse().with_context(|| format!("an address: {source}"))?;
            let banned = self.banned(&[address])? == 1;
            ensure!(banned == *is_banned, "{when}: {source} is banned: {banned}");
        }
        Ok(())
    }

    /// Sends what a source sends to the open service, at a rate, `count` of them.
    pub fn flood(&self, source: IpAddr, rate: u64, count: u64) -> Result<()> {
        self.sender.flood(&[frame(source, OPEN)], rate, count).map(drop)
    }

    /// The same of many sources in turn, to a port that is closed: the program is all that they cost.
    pub fn flood_closed(&self, sources: &[IpAddr], rate: u64, count: u64) -> Result<()> {
        let frames: Vec<_> = sources.iter().map(|source| frame(*source, CLOSED)).collect();
        self.sender.flood(&frames, rate, count).map(drop)
    }
}

fn frame(source: IpAddr, port: u16) -> Vec<u8> {
    LINK.ip(&match source {
        IpAddr::V4(source) => Path::new(source, SERVER).udp(4000, port, b"hello"),
        IpAddr::V6(source) => Path::new(source, SERVER_V6).udp(4000, port, b"hello"),
    })
}

/// Runs a command that must end with this code; gives what it said.
pub fn said(tollgate: &Tollgate, args: &[&str], code: i32) -> Result<String> {
    ended_with(tollgate.output(args)?, args, code)
}

/// The same of a command that has been run.
pub fn ended_with(output: Output, args: &[&str], code: i32) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "{}: {}: {text}", args.join(" "), output.status);
    ensure!(!text.contains("panicked"), "{}: {text}", args.join(" "));
    Ok(text.into_owned())
}

/// Prefixes and reasons of all bans, as `bans --json` lists them.
pub fn listed(tollgate: &Tollgate) -> Result<Vec<(String, String)>> {
    let list = tollgate.json("bans")?;
    let bans = list.get("bans").and_then(Value::as_array).context("no list of bans")?;
    bans.iter()
        .map(|one| {
            let text = |key| {
                one.get(key)
                    .and_then(Value::as_str)
                    .map(str::to_owned)
                    .with_context(|| format!("no {key}: {one}"))
            };
            Ok((text("prefix")?, text("why")?))
        })
        .collect()
}
