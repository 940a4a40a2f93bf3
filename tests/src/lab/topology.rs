//! What the lab looks like: interfaces, addresses, routes. Called once by [`Lab::new`].

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::{Host, Lab, ip_batch};

/// Addresses are given, not negotiated, and nothing talks by itself: a test counts every packet.
const QUIET: &[(&str, &str)] = &[
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.all.accept_ra", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.all.autoconf", "0"),
    ("net.ipv6.conf.default.autoconf", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    // No link-local address by itself: each host has a short one of its own.
    ("net.ipv6.conf.default.addr_gen_mode", "1"),
];

/// Both families are routed.
const FORWARD: &[(&str, &str)] = &[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")];

/// The switch and router. It makes the cables to everyone on the LAN and to the outside.
const ROUTER: &str = "\
link set lo up
link add br0 address 02:00:c0:a8:00:01 type bridge mcast_snooping 0
link add p-srv type veth peer name wlp2s0 address 02:00:c0:a8:00:68 netns {srv}
link add p-lan type veth peer name eth0 address 02:00:c0:a8:00:32 netns {lan}
link add p-lan2 type veth peer name eth0 address 02:00:c0:a8:00:33 netns {lan2}
link add wan0 type veth peer name eth0 netns {out}
link set p-srv master br0 up
link set p-lan master br0 up
link set p-lan2 master br0 up
link set br0 up
link set wan0 up
addr add 192.168.0.1/24 brd + dev br0
addr add 2001:db8:0:1::1/64 dev br0 nodad
addr add fe80::1/64 dev br0 nodad
addr add 203.0.113.1/24 brd + dev wan0
addr add 2001:db8:113::1/64 dev wan0 nodad
addr add fe80::1/64 dev wan0 nodad
route add blackhole 198.18.0.0/16
";

const SERVER: &str = "\
link set lo up
link set wlp2s0 up
addr add 192.168.0.104/24 brd + dev wlp2s0
addr add 2001:db8:0:1::104/64 dev wlp2s0 nodad
addr add fe80::104/64 dev wlp2s0 nodad
route add default via 192.168.0.1
route add default via 2001:db8:0:1::1
link add docker0 type bridge mcast_snooping 0
link add veth-ctr type veth peer name eth0 netns {ctr}
link set veth-ctr master docker0 up
link set docker0 up
addr add 172.17.0.1/16 brd + dev docker0
";

const CONTAINER: &str = "\
link set lo up
link set eth0 up
addr add 172.17.0.2/16 brd + dev eth0
route add default via 172.17.0.1
";

const OUTSIDE: &str = "\
link set lo up
link set eth0 up
addr add 203.0.113.9/24 brd + dev eth0
addr add 2001:db8:113::9/64 dev eth0 nodad
addr add fe80::9/64 dev eth0 nodad
route add default via 203.0.113.1
route add default via 2001:db8:113::1
";

/// A host of the LAN; `{n}` is the last part of its addresses.
const ON_THE_LAN: &str = "\
link set lo up
link set eth0 up
addr add 192.168.0.{n}/24 brd + dev eth0
addr add 2001:db8:0:1::{n}/64 dev eth0 nodad
addr add fe80::{n}/64 dev eth0 nodad
route add default via 192.168.0.1
route add default via 2001:db8:0:1::1
";

/// Containers go out under the server's address, and a port of one is published, as Docker does both.
const NAT: &str = "\
table ip docker {
  chain prerouting {
    type nat hook prerouting priority dstnat
    iifname \"wlp2s0\" tcp dport 9000 dnat to 172.17.0.2:80
  }
  chain postrouting {
    type nat hook postrouting priority srcnat
    ip saddr 172.17.0.0/16 oifname \"wlp2s0\" masquerade
  }
}
";

/// Makes all namespaces of a lab and what is in them.
pub(super) fn build(lab: &Lab) -> Result<()> {
    let name = |host| lab.ns(host).name().to_owned();
    let namespaces: String = Host::ALL.iter().map(|host| format!("netns add {}\n", name(*host))).collect();
    ip_batch(None, &namespaces)?;
    for host in Host::ALL {
        let ns = lab.ns(host);
        ns.sysctl(QUIET)?;
        if matches!(host, Host::Server | Host::Router) {
            ns.sysctl(FORWARD)?;
        }
    }
    let named = |script: &str| {
        script
            .replace("{srv}", &name(Host::Server))
            .replace("{lan}", &name(Host::Lan))
            .replace("{lan2}", &name(Host::Lan2))
            .replace("{out}", &name(Host::Outside))
            .replace("{ctr}", &name(Host::Container))
    };
    // The router first: it makes the interfaces of the others.
    for (host, script) in [
        (Host::Router, named(ROUTER)),
        (Host::Server, named(SERVER)),
        (Host::Container, CONTAINER.to_owned()),
        (Host::Lan, ON_THE_LAN.replace("{n}", "50")),
        (Host::Lan2, ON_THE_LAN.replace("{n}", "51")),
        (Host::Outside, OUTSIDE.to_owned()),
    ] {
        ip_batch(Some(&name(host)), &script).with_context(|| format!("the {host}"))?;
    }
    translate(lab)
}

fn translate(lab: &Lab) -> Result<()> {
    let mut nft = lab
        .ns(Host::Server)
        .command("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("`nft` could not be started (Debian: apt-get install nftables)")?;
    nft.stdin.take().context("no pipe to `nft`")?.write_all(NAT.as_bytes())?;
    let output = nft.wait_with_output()?;
    if !output.status.success() {
        bail!("nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
