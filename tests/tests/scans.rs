//! What nmap, which nobody here wrote, sees of the deployment: from outside the proxy's two ports and nothing else, from the
//! LAN the policy's services and nothing else, whatever the scan. The services stay up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tollgate_tests::lab::{SERVER_V4, SERVER_V6};
use tollgate_tests::shared::Shared;
use tollgate_tests::traffic::{http_get, psql_select_1};
use tollgate_tests::{Deployment, Hook, Host};

/// What is scanned: everything below 1024 and wherever something listens or listened.
const PORTS: &str = "1-1023,2222,5432,7000-7010,8000-8100,8443,9000,9100,33434,49152,65535";
const UDP_PORTS: &str = "53,67,68,69,123,137,161,500,514,520,1194,1900,4500,5353,5355,8000,33434";
/// As fast as a network without losses allows; still ten probes in a row unanswered for each port.
const FAST: [&str; 8] = ["-n", "-Pn", "-T5", "--max-retries", "1", "--min-rate", "3000", "--reason"];

/// For the proxy.
const PROXY: [u16; 2] = [80, 443];
/// For the LAN.
const SERVICES: [u16; 6] = [80, 443, 5432, 8000, 8082, 8083];

/// What a scan has found: ports by state, and the state of all the others.
#[derive(Debug, Default)]
struct Found {
    states: BTreeMap<String, BTreeSet<u16>>,
    others: BTreeSet<String>,
}

impl Found {
    /// Reads nmap's "greppable" output.
    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for field in text.lines().flat_map(|line| line.split('\t')) {
            if let Some(ports) = field.strip_prefix("Ports: ").or(field.strip_prefix("Protocols: ")) {
                for port in ports.split(',') {
                    let mut parts = port.trim().split('/');
                    if let (Some(Ok(number)), Some(state)) = (parts.next().map(str::parse), parts.next()) {
                        found.states.entry(state.to_owned()).or_default().insert(number);
                    }
                }
            } else if let Some(ignored) = field.strip_prefix("Ignored State: ") {
                found.others.extend(ignored.split(" (").next().map(str::to_owned));
            }
        }
        found
    }

    fn with_state(&self, state: &str) -> BTreeSet<u16> {
        self.states.get(state).cloned().unwrap_or_default()
    }

    /// Every port whose state shows that something answered.
    fn answered(&self) -> BTreeSet<u16> {
        let silent = ["filtered", "open|filtered"];
        let talking = self.states.iter().filter(|(state, _)| !silent.contains(&state.as_str()));
        talking.flat_map(|(_, ports)| ports.iter().copied()).collect()
    }
}

fn scan(d: &Deployment, from: Host, target: &str, args: &[&str]) -> Result<Found> {
    let mut argv = vec!["nmap"];
    argv.extend(args);
    argv.extend(FAST);
    if target.contains(':') {
        argv.push("-6");
    }
    argv.extend(["-oG", "-", target]);
    let output = d.lab.ns(from).run(&argv)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(text.contains("Nmap done") && text.contains("1 host up"), "{argv:?}: {text}");
    let found = Found::parse(&text);
    ensure!(!found.others.contains("closed"), "{argv:?} found closed ports: {text}");
    Ok(found)
}

static DEPLOYMENT: Shared<Deployment> = Shared::new();

fn deployed(work: impl FnOnce(&Deployment) -> Result<()>) -> Result<()> {
    DEPLOYMENT.with(
        || Deployment::platform(Hook::Tc),
        |d| {
            work(d)?;
            services_are_up(d)
        },
    )
}

fn services_are_up(d: &Deployment) -> Result<()> {
    let patience = Duration::from_secs(2);
    for (host, port) in [(Host::Outside, 443), (Host::Lan, 8000), (Host::Lan, 8083)] {
        let at = SocketAddr::new(SERVER_V4.parse().context("an address")?, port);
        // The scan has used up the scanner's connections for the moment.
        let mut answer = http_get(&d.lab.ns(host), at, "/", patience)?;
        for _ in 0..10 {
            if answer.is_answered_by_port(port) {
                break;
            }
            std::thread::sleep(Duration::from_secs(1));
            answer = http_get(&d.lab.ns(host), at, "/", patience)?;
        }
        ensure!(answer.is_answered_by_port(port), "{host}, {port} after the scan: {answer}");
    }
    let answer = psql_select_1(&d.lab.ns(Host::Lan), SERVER_V4)?;
    ensure!(answer.is_answered(), "{answer}");
    Ok(())
}

#[test]
fn from_outside_exactly_the_proxy_answers_a_syn_scan() -> Result<()> {
    deployed(|d| {
        for target in [SERVER_V4, SERVER_V6] {
            for extra in [&[][..], &["--source-port", "53"], &["--data-length", "40"]] {
                let found = scan(d, Host::Outside, target, &[&["-sS", "-p", PORTS][..], extra].concat())?;
                ensure!(found.with_state("open") == PROXY.into(), "{target} {extra:?}: {found:?}");
                ensure!(found.answered() == PROXY.into(), "{target} {extra:?}: {found:?}");
                // All others look the same.
                ensure!(found.others.iter().eq(["filtered"]), "{target} {extra:?}: {found:?}");
            }
        }
        Ok(())
    })
}

#[test]
fn from_outside_odd_tcp_scans_see_the_proxy_at_most() -> Result<()> {
    deployed(|d| {
        for kind in ["-sA", "-sF", "-sX", "-sN", "-sM", "-sW"] {
            let found = scan(d, Host::Outside, SERVER_V4, &[kind, "-p", PORTS])?;
            ensure!(found.answered().is_subset(&PROXY.into()), "{kind}: {found:?}");
            ensure!(found.others.len() <= 1, "{kind} tells ports apart: {found:?}");
        }
        Ok(())
    })
}

#[test]
fn from_outside_fragments_and_bad_checksums_open_nothing() -> Result<()> {
    deployed(|d| {
        for extra in [&["-f"][..], &["-ff"], &["--mtu", "8"], &["--mtu", "24"], &["--badsum"]] {
            let found = scan(d, Host::Outside, SERVER_V4, &[&["-sS", "-p", PORTS][..], extra].concat())?;
            ensure!(found.answered().is_subset(&PROXY.into()), "{extra:?}: {found:?}");
        }
        Ok(())
    })
}

#[test]
fn from_outside_no_datagram_and_no_other_protocol_is_answered() -> Result<()> {
    deployed(|d| {
        let found = scan(d, Host::Outside, SERVER_V4, &["-sU", "-p", UDP_PORTS])?;
        ensure!(found.answered().is_empty(), "{found:?}");
        let found = scan(d, Host::Outside, SERVER_V4, &["-sO"])?;
        // ICMP answers pings, TCP the proxy's port; the protocols that nmap can't see unanswered are "open|filtered".
        ensure!(found.answered().is_subset(&[1, 6].into()), "{found:?}");
        Ok(())
    })
}

#[test]
fn from_the_lan_exactly_the_services_answer() -> Result<()> {
    deployed(|d| {
        let found = scan(d, Host::Lan2, SERVER_V4, &["-sS", "-p", PORTS])?;
        ensure!(found.with_state("open") == SERVICES.into(), "{found:?}");
        ensure!(found.answered() == SERVICES.into(), "{found:?}");
        ensure!(found.others.iter().eq(["filtered"]), "{found:?}");
        Ok(())
    })
}

#[test]
fn output_of_nmap_is_understood() {
    let text = "Host: 192.0.2.1 ()\tPorts: 80/open/tcp//http///, 443/closed/tcp//https///\tIgnored State: filtered (998)\n\
                # Nmap done";
    let found = Found::parse(text);
    assert_eq!(found.with_state("open"), [80].into());
    assert_eq!(found.answered(), [80, 443].into());
    assert!(found.others.iter().eq(["filtered"]));
}
