//! What others in the server's kernel say of the packets that got past the filter and of the server's answers: nft, with the
//! shipped policy in its own words, and the protocols' own counters. Neither knows anything of Tollgate.
//!
//! Called by the tests that let other people's tools loose on the server (`tests/strangers`).

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::{Host, Lab, Ns};

/// `policies/platform.toml` for packets from the uplink, after the reassembly of fragments (which `ct` brings along): what no
/// rule accepts should not have got here, and is counted. And the same for what leaves: a closed port answers nothing at all,
/// no reset and no error, so that it looks like all the others.
const POLICY: &str = r#"
table inet witness {
  counter leaked-tcp {}
  counter leaked-udp {}
  counter leaked-icmp {}
  counter leaked-other {}
  counter answered-tcp {}
  counter answered-udp {}
  counter answered-icmp {}
  chain uplink {
    type filter hook prerouting priority raw
    iifname != "wlp2s0" accept
    tcp dport { 80, 443 } accept
    ip saddr 192.168.0.0/24 tcp dport { 8000, 8082, 8083, 5432 } accept
    ip6 saddr fe80::/10 tcp dport { 8000, 8082, 8083, 5432 } accept
    meta l4proto tcp counter name leaked-tcp accept
    ip protocol udp udp sport 67 udp dport 68 accept
    ip6 saddr fe80::/10 udp dport 546 accept
    meta l4proto udp counter name leaked-udp accept
    icmp type echo-request accept
    icmpv6 type { echo-request, nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect } accept
    ip6 saddr fe80::/10 icmpv6 type nd-router-advert ip6 hoplimit 255 accept
    ip6 hoplimit 1 icmpv6 type { 130, 131, 132, 143 } accept
    # Errors about answers of the open services pass; whose they are, connection tracking knows.
    icmp type { destination-unreachable, time-exceeded, parameter-problem } accept
    icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept
    # An authentication header, behind which nft does not look, in front of ICMPv6.
    meta l4proto ah @th,0,8 58 accept
    meta l4proto { icmp, ipv6-icmp } counter name leaked-icmp accept
    ip protocol igmp ip ttl 1 accept
    ct state invalid continue
    counter name leaked-other
  }
  chain answers {
    type filter hook postrouting priority raw
    oifname != "wlp2s0" accept
    tcp sport { 80, 443 } accept
    ip daddr 192.168.0.0/24 tcp sport { 8000, 8082, 8083, 5432 } accept
    ip6 daddr fe80::/10 tcp sport { 8000, 8082, 8083, 5432 } accept
    meta l4proto tcp counter name answered-tcp accept
    meta l4proto udp counter name answered-udp accept
    icmp type destination-unreachable counter name answered-icmp accept
    icmpv6 type destination-unreachable counter name answered-icmp accept
  }
}
"#;

/// Its counters of what came in.
const LEAKS: [&str; 4] = ["leaked-tcp", "leaked-udp", "leaked-icmp", "leaked-other"];
/// Its counters of what went out.
const ANSWERS: [&str; 3] = ["answered-tcp", "answered-udp", "answered-icmp"];

/// Files of the protocols' counters.
const FILES: [&str; 2] = ["snmp", "snmp6"];

/// nft's table in the server's namespace; it goes with the namespace.
#[derive(Debug)]
pub struct Witness {
    server: Ns,
}

/// What has been counted: of nft under the names of [`POLICY`], of protocols as `Tcp.OutRsts` or `Icmp6OutMsgs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Testimony {
    counts: BTreeMap<String, u64>,
}

impl Witness {
    /// Starts to count in a lab.
    pub fn start(lab: &Lab) -> Result<Self> {
        let server = lab.ns(Host::Server);
        install(&server, POLICY)?;
        Ok(Self { server })
    }

    /// All counts since the namespace exists.
    pub fn testimony(&self) -> Result<Testimony> {
        let mut counts = self.server.in_ns(|| {
            let mut counts = BTreeMap::new();
            for file in FILES {
                let path = format!("/proc/thread-self/net/{file}");
                read_counters(&fs::read_to_string(&path).context(path)?, &mut counts);
            }
            Ok(counts)
        })?;
        counts.extend(counters_of(&self.server, "witness")?);
        let expected = LEAKS.iter().chain(&ANSWERS).chain(&["Tcp.InSegs"]);
        for name in expected {
            ensure!(counts.contains_key(*name), "no counter {name}: {counts:?}");
        }
        Ok(Testimony { counts })
    }
}

/// Has nft enforce a table in a namespace.
pub(crate) fn install(ns: &Ns, table: &str) -> Result<()> {
    let mut nft = ns
        .command("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("`nft` could not be started (Debian: apt-get install nftables)")?;
    nft.stdin.take().context("no pipe to `nft`")?.write_all(table.as_bytes())?;
    let output = nft.wait_with_output()?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Packets by the names of the counters in nft's table `inet <table>`.
pub(crate) fn counters_of(ns: &Ns, table: &str) -> Result<BTreeMap<String, u64>> {
    let output = ns.run(&["nft", "-j", "list", "counters", "table", "inet", table])?;
    let listing: Value = serde_json::from_slice(&output.stdout).context("`nft -j`")?;
    let mut counts = BTreeMap::new();
    for counter in listing.get("nftables").and_then(Value::as_array).into_iter().flatten() {
        let of = |key: &str| counter.pointer(&format!("/counter/{key}"));
        if let (Some(name), Some(packets)) =
            (of("name").and_then(Value::as_str), of("packets").and_then(Value::as_u64))
        {
            counts.insert(name.to_owned(), packets);
        }
    }
    Ok(counts)
}

impl Testimony {
    /// What has been counted since an earlier reading, zeros left out.
    pub fn since(&self, earlier: &Self) -> Self {
        let change = |(name, now): (&String, &u64)| {
            let grown = now.wrapping_sub(earlier.count(name));
            (grown != 0).then(|| (name.clone(), grown))
        };
        Self { counts: self.counts.iter().filter_map(change).collect() }
    }

    /// One count; none is zero.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default()
    }

    /// Packets that the policy in nft's words would have dropped.
    pub fn leaked(&self) -> u64 {
        LEAKS.iter().map(|name| self.count(name)).sum()
    }

    /// Packets by which the server gave away that a port is closed, or that somebody behind it answers.
    pub fn answered(&self) -> u64 {
        ANSWERS.iter().map(|name| self.count(name)).sum()
    }
}

/// Reads both forms: lines `Name value`, and pairs of lines `Group: Name …` and `Group: value …`.
fn read_counters(text: &str, counts: &mut BTreeMap<String, u64>) {
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some((group, names)) = line.split_once(": ") {
            let values = lines.next().and_then(|next| next.split_once(": ")).map_or("", |(_, values)| values);
            for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
                // Limits that are not counters can be negative.
                counts.extend(value.parse().map(|value| (format!("{group}.{name}"), value)));
            }
        } else if let Some((name, value)) = line.split_once(char::is_whitespace) {
            counts.extend(value.trim().parse().map(|value| (name.to_owned(), value)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let mut counts = BTreeMap::new();
        read_counters("Tcp: MaxConn InSegs\nTcp: -1 7\nUdp: NoPorts\nUdp: 3\n", &mut counts);
        read_counters("Ip6InReceives   \t12\n", &mut counts);
        let read: Vec<_> = counts.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(read, [("Ip6InReceives", 12), ("Tcp.InSegs", 7), ("Udp.NoPorts", 3)]);
    }
}
