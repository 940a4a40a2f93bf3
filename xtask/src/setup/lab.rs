//! Which programs the lab needs besides ours, and the packages that hold them. Called by `setup`.
//!
//! A program that is there is never installed again, whichever package or hand it came from.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use super::Options;
use super::apt::Apt;
use crate::process;

const STEP: &str = "lab";

/// A program, Debian's package for it, and what the lab does with it.
struct Tool {
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

const TOOLS: [Tool; 32] = [
    Tool { program: "ip", package: "iproute2", why: "makes namespaces, links and addresses" },
    Tool { program: "tc", package: "iproute2", why: "shows and removes hooks" },
    Tool { program: "ethtool", package: "ethtool", why: "turns offloads of the lab's links off" },
    Tool {
        program: "nft",
        package: "nftables",
        why: "a container's published port needs address translation",
    },
    Tool { program: "iptables-nft", package: "iptables", why: "Docker translates addresses by it" },
    Tool { program: "iptables-legacy", package: "iptables", why: "older hosts translate addresses by it" },
    Tool { program: "ping", package: "iputils-ping", why: "echo requests from real clients" },
    Tool { program: "curl", package: "curl", why: "web requests from real clients" },
    Tool { program: "openssl", package: "openssl", why: "certificates as real clients see them" },
    Tool { program: "nsenter", package: "util-linux", why: "runs a program in a namespace" },
    Tool { program: "unshare", package: "util-linux", why: "gives a machine namespaces of its own" },
    Tool { program: "systemd-analyze", package: "systemd", why: "boots a machine with the unit that ships" },
    Tool { program: "setpriv", package: "util-linux", why: "runs the database without root" },
    Tool { program: "nmap", package: "nmap", why: "scans by somebody else's hand" },
    Tool {
        program: "hping3",
        package: "hping3",
        why: "floods, fragments and odd headers by somebody else's hand",
    },
    Tool { program: "atk6-firewall6", package: "thc-ipv6", why: "attacks on IPv6 by somebody else's hand" },
    Tool { program: "trafgen", package: "netsniff-ng", why: "hundreds of thousands of malformed frames" },
    Tool {
        program: "fail2ban-server",
        package: "fail2ban",
        why: "bans brute force through the action file that ships",
    },
    Tool {
        program: "tshark",
        package: "tshark",
        why: "reads captures of dropped packets, as Wireshark does",
    },
    Tool {
        program: "promtool",
        package: "prometheus",
        why: "checks metrics, alerts and the dashboard's queries",
    },
    Tool { program: "tmux", package: "tmux", why: "a terminal for the full-screen view" },
    Tool { program: "psql", package: "postgresql-client", why: "queries the database from the network" },
    Tool { program: "nginx", package: "nginx", why: "the proxy's answers and its speed beside another's" },
    Tool { program: "haproxy", package: "haproxy", why: "the proxy's speed beside another's" },
    Tool { program: "gunicorn", package: "gunicorn", why: "serves the applications behind the proxy" },
    Tool { program: "h2load", package: "nghttp2-client", why: "loads the proxy with HTTP/2 and HTTP/1.1" },
    Tool { program: "nghttp", package: "nghttp2-client", why: "HTTP/2 by somebody else's hand" },
    Tool { program: "wrk", package: "wrk", why: "loads the proxy with HTTP/1.1" },
    Tool { program: "perf", package: "linux-perf", why: "where the proxy's time goes" },
    Tool { program: "slowhttptest", package: "slowhttptest", why: "slow clients by somebody else's hand" },
    Tool { program: "chromium", package: "chromium", why: "a real browser behind the proxy" },
    Tool { program: "pebble", package: "pebble", why: "an authority that issues certificates (ACME)" },
];

/// Modules of the system's Python: name, why it is needed, package.
const MODULES: [(&str, &str, &str); 2] = [
    ("scapy", "evasions, packet by packet, by somebody else's hand", "python3-scapy"),
    ("django", "the applications behind the proxy", "python3-django"),
];

/// Where distributions keep the server's programs, which are not on `PATH`.
const SERVERS: &str = "/usr/lib/postgresql";

/// Installs what the lab misses.
pub fn ensure(options: &Options, apt: &mut Apt) -> Result<()> {
    let missing = missing();
    if !missing.is_empty() {
        for (program, why, _) in &missing {
            options.doing(STEP, &format!("{program} is missing: {why}"));
        }
        let mut packages: Vec<String> = missing.iter().map(|(_, _, package)| (*package).to_owned()).collect();
        packages.sort();
        packages.dedup();
        apt.install(&packages, "for the lab that the tests and the demo run in", options)?;
        let still: Vec<_> = self::missing().iter().map(|(program, ..)| *program).collect();
        ensure!(
            still.is_empty(),
            "installed {}, but still missing: {}",
            packages.join(" "),
            still.join(", ")
        );
    }
    let programs: Vec<_> = TOOLS.iter().map(|tool| tool.program).collect();
    options.found(
        STEP,
        &format!("{}, postgres, scapy, django: for the tests and the demo", programs.join(", ")),
    );
    Ok(())
}

/// What is missing: program, why it is needed, package.
fn missing() -> Vec<(&'static str, &'static str, &'static str)> {
    let mut missing: Vec<_> = TOOLS
        .iter()
        .filter(|tool| process::which(tool.program).is_none())
        .map(|tool| (tool.program, tool.why, tool.package))
        .collect();
    if !has_database_server() {
        missing.push(("postgres", "the service that the policy must keep to the LAN", "postgresql"));
    }
    for (module, why, package) in MODULES {
        if !has_module(module) {
            missing.push((module, why, package));
        }
    }
    missing
}

/// True if the system's Python has it; another Python that comes first on `PATH` does not count.
fn has_module(name: &str) -> bool {
    let import = Command::new("/usr/bin/python3")
        .args(["-c", &format!("import {name}")])
        .stderr(Stdio::null())
        .status();
    import.is_ok_and(|status| status.success())
}

fn has_database_server() -> bool {
    let Ok(versions) = fs::read_dir(SERVERS) else {
        return false;
    };
    versions.flatten().any(|version| {
        ["postgres", "initdb"].iter().all(|program| version.path().join("bin").join(program).is_file())
    })
}
