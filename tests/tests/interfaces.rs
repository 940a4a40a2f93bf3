//! Interfaces that come, go and change their names: what the policy names is enforced the moment it exists.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tollgate_tests::expect::{SILENCE, at};
use tollgate_tests::frames::{Link, Path};
use tollgate_tests::lab::{ROUTER_MAC, SERVER_MAC, SERVER_PORT, SERVER_V4, SERVER_V6, UPLINK};
use tollgate_tests::sender::Sender;
use tollgate_tests::traffic::{http_get, tcp_connect};
use tollgate_tests::{Deployment, Hook, Host, Lab, Ns, Outcome, Tollgate};

const POLICY: &str = r#"
version = 1

[interfaces.wlp2s0]

[interfaces."late*"]

[zones]
lan = ["192.168.0.0/24"]

[services.django]
ports = ["tcp/8000"]
allow = ["lan"]
"#;

const AT_MOST: Duration = Duration::from_secs(30);

fn enforced(tollgate: &Tollgate) -> Result<Vec<String>> {
    let status = tollgate.status()?;
    let interfaces = status["interfaces"].as_array().context("no interfaces")?;
    Ok(interfaces.iter().map(|one| one["name"].as_str().unwrap_or_default().to_owned()).collect())
}

fn until_enforced(tollgate: &Tollgate, wanted: &[&str]) -> Result<()> {
    let start = Instant::now();
    loop {
        let now = enforced(tollgate)?;
        if now == wanted {
            return Ok(());
        }
        ensure!(start.elapsed() < AT_MOST, "{now:?} are enforced, not {wanted:?}: {}", tollgate.log());
        thread::sleep(Duration::from_millis(50));
    }
}

fn ip(ns: &Ns, words: &str) -> Result<()> {
    let argv: Vec<&str> = ["ip"].into_iter().chain(words.split(' ')).collect();
    ns.run(&argv).map(drop)
}

#[test]
fn an_interface_is_enforced_when_it_appears_and_forgotten_when_it_goes() -> Result<()> {
    let d = Deployment::with_policy(POLICY, Hook::AsWritten)?;
    let server = d.lab.ns(Host::Server);
    until_enforced(&d.tollgate, &[UPLINK])?;
    ip(&server, "link add late0 type veth peer name other0")?;
    until_enforced(&d.tollgate, &[UPLINK, "late0"])?;
    ip(&server, "link add late1 type bridge")?;
    until_enforced(&d.tollgate, &[UPLINK, "late0", "late1"])?;
    let pins = || std::fs::read_dir(d.tollgate.pins()).map_or(0, |entries| entries.count());
    let three = pins();
    ip(&server, "link del late0")?;
    until_enforced(&d.tollgate, &[UPLINK, "late1"])?;
    let start = Instant::now();
    while pins() >= three {
        ensure!(start.elapsed() < AT_MOST, "the pins of an interface that is gone stay");
        thread::sleep(Duration::from_millis(50));
    }
    // Down and up changes nothing, and a name is only a name.
    ip(&server, "link set late1 down")?;
    ip(&server, "link set late1 up")?;
    ip(&server, "link set late1 name was1")?;
    until_enforced(&d.tollgate, &[UPLINK, "was1"])?;
    ip(&server, "link add late2 type bridge")?;
    until_enforced(&d.tollgate, &[UPLINK, "was1", "late2"])?;
    Ok(())
}

#[test]
fn the_uplink_is_enforced_again_when_it_was_deleted_and_made_again() -> Result<()> {
    let d = Deployment::with_policy(POLICY, Hook::AsWritten)?;
    let (server, lan, router) = (d.lab.ns(Host::Server), d.lab.ns(Host::Lan), d.lab.ns(Host::Router));
    ensure!(http_get(&lan, at(SERVER_V4, 8000)?, "/", AT_MOST)?.is_answered());
    ip(&server, &format!("link del {UPLINK}"))?;
    until_enforced(&d.tollgate, &[])?;
    // With the address that its neighbours know.
    let mac = SERVER_MAC.map(|byte| format!("{byte:02x}")).join(":");
    let name = server.name();
    ip(&router, &format!("link add p-srv type veth peer name {UPLINK} address {mac} netns {name}"))?;
    ip(&router, "link set p-srv master br0 up")?;
    ip(&server, &format!("link set {UPLINK} up"))?;
    ip(&server, &format!("addr add {SERVER_V4}/24 brd + dev {UPLINK}"))?;
    until_enforced(&d.tollgate, &[UPLINK])?;
    let start = Instant::now();
    while !http_get(&lan, at(SERVER_V4, 8000)?, "/", Duration::from_secs(2))?.is_answered_by_port(8000) {
        ensure!(start.elapsed() < AT_MOST, "the LAN is not answered any more");
    }
    ensure!(tcp_connect(&lan, at(SERVER_V4, 8082)?, SILENCE)? == Outcome::TimedOut, "8082 has no service");
    Ok(())
}

#[test]
fn addresses_of_the_host_itself_are_no_sources() -> Result<()> {
    let policy = format!("{POLICY}\n[services.echo]\nports = [\"udp/7000\"]\nallow = \"any\"\n");
    let d = Deployment::with_policy(&policy, Hook::AsWritten)?;
    let server = d.lab.ns(Host::Server);
    let sender = Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?;
    let link = Link { source: ROUTER_MAC, destination: SERVER_MAC };
    let from = |source: &str| -> Result<(u64, u64)> {
        let path = Path::new(
            source.parse::<IpAddr>()?,
            if source.contains(':') { SERVER_V6 } else { SERVER_V4 }.parse::<IpAddr>()?,
        );
        let before = d.tollgate.settled_stats()?;
        sender.send(&[link.ip(&path.udp(50_000, 7000, b"who am I?"))])?;
        let delta = d.tollgate.settled_stats()?.since(&before);
        Ok((delta.reason("source-invalid").packets, delta.outcome("echo", "service-allowed").packets))
    };
    // The bridge's address, and one of the other family; their neighbours are strangers like all others.
    ensure!(from("172.17.0.1")? == (1, 0) && from("172.17.0.3")? == (0, 1));
    ip(&server, "addr add 2001:db8:7::1/64 dev docker0 nodad")?;
    let turns = |source: &str, wanted: (u64, u64)| -> Result<()> {
        let start = Instant::now();
        while from(source)? != wanted {
            ensure!(start.elapsed() < AT_MOST, "{source} is not treated as {wanted:?}: {}", d.tollgate.log());
        }
        Ok(())
    };
    turns("2001:db8:7::1", (1, 0))?;
    ensure!(from("2001:db8:7::2")? == (0, 1));
    ip(&server, "addr del 2001:db8:7::1/64 dev docker0")?;
    turns("2001:db8:7::1", (0, 1))
}

#[test]
fn a_daemon_waits_for_an_interface_that_is_late() -> Result<()> {
    let lab = Lab::new()?;
    let folder = tempfile::tempdir()?;
    let policy = folder.path().join("late.toml");
    std::fs::write(&policy, "version = 1\n[interfaces.wlan7]\n")?;
    // Without being asked to wait, it says what is wrong.
    let mut strict = Tollgate::prepare(&lab, &policy, &[])?;
    ensure!(strict.restart().is_err(), "a daemon enforces nothing and says that it does");
    ensure!(strict.log().contains("wlan7"), "{}", strict.log());
    let tollgate = Tollgate::start(&lab, &policy, &["--late-interfaces"])?;
    ensure!(tollgate.announcement().contains("no interface yet"), "{}", tollgate.announcement());
    until_enforced(&tollgate, &[])?;
    ip(&lab.ns(Host::Server), "link add wlan7 type bridge")?;
    until_enforced(&tollgate, &["wlan7"])?;
    Ok(())
}

#[test]
fn a_policy_file_is_followed() -> Result<()> {
    let lab = Lab::new()?;
    let folder = tempfile::tempdir()?;
    let policy = folder.path().join("followed.toml");
    std::fs::write(&policy, POLICY)?;
    let tollgate = Tollgate::start(&lab, &policy, &["--watch"])?;
    let hash = |tollgate: &Tollgate| Ok::<_, anyhow::Error>(tollgate.status()?["policy"]["hash"].clone());
    let first = hash(&tollgate)?;
    // What is wrong is not applied.
    std::fs::write(&policy, "version = 1\n[interfaces.wlp2s0]\nhok = 1\n")?;
    let start = Instant::now();
    while !tollgate.log().contains("the new one was not applied") {
        ensure!(start.elapsed() < AT_MOST, "nothing was said of a file that is wrong: {}", tollgate.log());
        thread::sleep(Duration::from_millis(100));
    }
    ensure!(hash(&tollgate)? == first);
    std::fs::write(&policy, format!("{POLICY}# changed\n"))?;
    let start = Instant::now();
    while hash(&tollgate)? == first {
        ensure!(start.elapsed() < AT_MOST, "the file was not followed: {}", tollgate.log());
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
