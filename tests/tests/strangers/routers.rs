//! Router advertisements by other people's tools: a forged one changes nothing on the server, and none does where the policy
//! wants none. The server is one that would believe them all.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tollgate_tests::deployment::packets_of;
use tollgate_tests::lab::{SERVER_PORT, UPLINK};
use tollgate_tests::sender::Sender;
use tollgate_tests::{Deployment, Hook, Host, Stats};

use crate::scapy::frames;
use crate::scene::{needs, run_tools};

/// What makes a router, which the server is for its containers, take over what another router says.
const GULLIBLE: [(&str, &str); 6] = [
    ("net.ipv6.conf.wlp2s0.accept_ra", "2"),
    ("net.ipv6.conf.wlp2s0.autoconf", "1"),
    ("net.ipv6.conf.wlp2s0.accept_ra_defrtr", "1"),
    ("net.ipv6.conf.wlp2s0.accept_ra_pinfo", "1"),
    ("net.ipv6.conf.wlp2s0.accept_ra_mtu", "1"),
    ("net.ipv6.conf.wlp2s0.accept_ra_rt_info_max_plen", "64"),
];

/// Advertisements, plain and with every disguise that the tools have.
const TOOLS: &str = "\
atk6-fake_router26 -A 2001:db8:bad::/64 -R 2001:db8:113::/48 -M 1300 -n 3 -i 0 p-srv
atk6-fake_router26 -E F -A 2001:db8:bad::/64 -n 3 -i 0 p-srv
atk6-fake_router26 -E H -A 2001:db8:bad::/64 -n 3 -i 0 p-srv
atk6-fake_router26 -E 1 -A 2001:db8:bad::/64 -n 3 -i 0 p-srv
atk6-fake_router26 -E D -A 2001:db8:bad::/64 -n 3 -i 0 p-srv
atk6-fake_router26 -E O -A 2001:db8:bad::/64 -n 3 -i 0 p-srv
atk6-fake_router26 -E o -A 2001:db8:bad::/64 -n 3 -i 0 p-srv
atk6-fake_router26 -E H111 -A 2001:db8:bad::/64 -n 3 -i 0 p-srv
timeout 1 atk6-fake_router6 p-srv 2001:db8:bad::/64
timeout 1 atk6-fake_router6 -HFD p-srv 2001:db8:bad::/64
timeout 0.3 atk6-flood_router26 p-srv
timeout 0.3 atk6-flood_router26 -F p-srv";

/// The disguises in fragments, which no advertisement may have. (`-E 1` and `-E H111` send it in one piece.)
const IN_FRAGMENTS: &str = "\
atk6-fake_router26 -E F -A 2001:db8:bad::/64 -n 3 -i 0 p-srv
atk6-fake_router26 -E D -A 2001:db8:bad::/64 -n 3 -i 0 p-srv
atk6-fake_router26 -E O -A 2001:db8:bad::/64 -n 3 -i 0 p-srv
atk6-fake_router26 -E o -A 2001:db8:bad::/64 -n 3 -i 0 p-srv
timeout 0.3 atk6-flood_router26 -F p-srv";

/// One that a router of the link could have sent.
const HONEST: &str = "atk6-fake_router26 -A 2001:db8:600d::/64 -n 2 -i 0 p-srv";

/// All that an advertisement can change: addresses, routes, MTU, hop limit.
fn beliefs(d: &Deployment) -> Result<BTreeSet<String>> {
    let server = d.lab.ns(Host::Server);
    let listed = |argv: &[&str]| -> Result<Vec<Value>> {
        serde_json::from_slice(&server.run(argv)?.stdout).with_context(|| argv.join(" "))
    };
    // Not their lifetimes, which pass.
    let named = |value: &Value, keys: &[&str]| {
        let parts: Vec<_> =
            keys.iter().filter_map(|key| Some(format!("{key} {}", value.get(key)?))).collect();
        parts.join(", ")
    };
    let mut beliefs = BTreeSet::new();
    for route in listed(&["ip", "-6", "-j", "route", "show", "table", "all"])? {
        beliefs
            .insert(named(&route, &["type", "dst", "gateway", "dev", "table", "protocol", "metric", "pref"]));
    }
    for interface in listed(&["ip", "-6", "-j", "addr", "show"])? {
        let addresses = interface.get("addr_info").and_then(Value::as_array);
        beliefs
            .extend(addresses.into_iter().flatten().map(|one| named(one, &["local", "prefixlen", "label"])));
    }
    server.in_ns(|| {
        for name in ["mtu", "hop_limit"] {
            let value = fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{UPLINK}/{name}"))?;
            beliefs.insert(format!("{name} {}", value.trim()));
        }
        Ok(())
    })?;
    Ok(beliefs)
}

/// Runs `work`, and says what has been counted and what the server believes besides what it did.
fn changes(d: &Deployment, work: impl FnOnce() -> Result<()>) -> Result<(Stats, BTreeSet<String>)> {
    let (stats, before) = (d.tollgate.settled_stats()?, beliefs(d)?);
    work()?;
    let delta = d.tollgate.settled_stats()?.since(&stats);
    delta.adds_up()?;
    // The kernel makes an address a moment after its packet.
    thread::sleep(Duration::from_millis(500));
    Ok((delta, beliefs(d)?.symmetric_difference(&before).cloned().collect()))
}

fn no_forged_advertisement_is_believed(hook: Hook) -> Result<()> {
    needs("atk6-fake_router26", "thc-ipv6")?;
    let shipped = packets_of("platform")?;
    let without = shipped.replace("router-advertisements = true", "router-advertisements = false");
    ensure!(without != shipped, "the policy says nothing of router advertisements");
    let d = Deployment::with_policy(&without, hook)?;
    d.lab.ns(Host::Server).sysctl(&GULLIBLE)?;
    // The tools send from here, so that nobody else on the link takes note of thousands of routers: the kernel's table of
    // neighbours is one for all namespaces, and full at a thousand.
    d.lab.ns(Host::Router).run(&["ip", "addr", "add", "fe80::bad/64", "dev", SERVER_PORT, "nodad"])?;

    // Where the policy wants none, none has an effect, whoever sends it.
    let (delta, new) = changes(&d, || run_tools(&d.lab, Host::Router, TOOLS))?;
    ensure!(delta.reason("no-service").packets > 100, "the tools have sent little: {delta:#?}");
    ensure!(delta.reason("router-advertisement").packets == 0, "{delta:#?}");
    ensure!(new.is_empty(), "advertisements that the policy turns off are believed: {new:?}");

    // Where it takes them, those that no router of the link has sent have none.
    d.tollgate
        .checked(&["apply", &d.write_policy("shipped.toml", &hook.of(&shipped)?)?.to_string_lossy()])?;
    let forged = frames("forged_routers.py")?;
    let (delta, new) = changes(&d, || {
        let sender = Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?;
        sender.flood(&forged, 20_000, forged.len() as u64)?;
        run_tools(&d.lab, Host::Router, IN_FRAGMENTS)
    })?;
    ensure!(delta.reason("neighbour-discovery-forged").packets >= 20, "{delta:#?}");
    ensure!(delta.reason("fragment-malformed").packets >= 5, "{delta:#?}");
    ensure!(delta.reason("router-advertisement").packets == 0, "{delta:#?}");
    ensure!(new.is_empty(), "forged advertisements are believed: {new:?}");

    // The server would have believed them: one that a router of the link could have sent brings a router and an address.
    let (delta, new) = changes(&d, || {
        run_tools(&d.lab, Host::Router, HONEST)?;
        let end = Instant::now() + Duration::from_secs(20);
        let is_believed = || -> Result<bool> {
            let now = beliefs(&d)?;
            let has = |text: &str| now.iter().any(|belief| belief.contains(text));
            Ok(has("2001:db8:600d:") && has("fe80::bad"))
        };
        while Instant::now() < end && !is_believed()? {
            thread::sleep(Duration::from_millis(50));
        }
        ensure!(is_believed()?, "an honest advertisement is not believed: {:?}", beliefs(&d)?);
        Ok(())
    })?;
    ensure!(delta.reason("router-advertisement").packets >= 1 && !new.is_empty(), "{new:?}: {delta:#?}");
    Ok(())
}

#[test]
fn no_forged_advertisement_is_believed_by_native_xdp() -> Result<()> {
    no_forged_advertisement_is_believed(Hook::AsWritten)
}

#[test]
fn no_forged_advertisement_is_believed_by_tc() -> Result<()> {
    no_forged_advertisement_is_believed(Hook::Tc)
}
