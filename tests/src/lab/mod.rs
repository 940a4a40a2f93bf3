//! Builds the namespaces of one lab and takes them away again. Every test starts here.

mod ns;
mod stale;
mod topology;

use std::fmt;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub use ns::Ns;
pub use stale::{is_alive, owner};

/// The server's uplink: the name that the deployment has.
pub const UPLINK: &str = "wlp2s0";
/// The server's MAC address.
pub const SERVER_MAC: [u8; 6] = [0x02, 0x00, 0xc0, 0xa8, 0x00, 0x68];
/// The router's MAC address on the LAN.
pub const ROUTER_MAC: [u8; 6] = [0x02, 0x00, 0xc0, 0xa8, 0x00, 0x01];
/// The LAN host's MAC address.
pub const LAN_MAC: [u8; 6] = [0x02, 0x00, 0xc0, 0xa8, 0x00, 0x32];
/// The second LAN host's MAC address.
pub const LAN2_MAC: [u8; 6] = [0x02, 0x00, 0xc0, 0xa8, 0x00, 0x33];
/// The router's port whose other end is the server's uplink: frames sent here arrive there untouched.
pub const SERVER_PORT: &str = "p-srv";
/// The server's address on the LAN.
pub const SERVER_V4: &str = "192.168.0.104";
/// The server's global IPv6 address.
pub const SERVER_V6: &str = "2001:db8:0:1::104";
/// The server's link-local address on its uplink.
pub const SERVER_LINK_LOCAL: &str = "fe80::104";
/// The outside host's address.
pub const OUTSIDE_V4: &str = "203.0.113.9";
/// The outside host's IPv6 address.
pub const OUTSIDE_V6: &str = "2001:db8:113::9";
/// A port of the server that Docker passes on to the container's port 80, past the host's own firewall.
pub const PUBLISHED: u16 = 9000;
/// 65,536 addresses for spoofed sources; the router swallows what is sent to them.
pub const SPOOFED_V4: &str = "198.18.0.0/16";

/// A host of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// The server that the policy protects.
    Server,
    /// A container of the server, behind `docker0`.
    Container,
    /// A host on the server's LAN.
    Lan,
    /// Another one.
    Lan2,
    /// Routes between the LAN and the outside; its bridge is the LAN's switch.
    Router,
    /// A host beyond the router.
    Outside,
}

impl Host {
    /// Every host.
    pub const ALL: [Self; 6] =
        [Self::Server, Self::Container, Self::Lan, Self::Lan2, Self::Router, Self::Outside];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Server => "srv",
            Self::Container => "ctr",
            Self::Lan => "lan",
            Self::Lan2 => "lan2",
            Self::Router => "rtr",
            Self::Outside => "out",
        }
    }

    /// The interface by which the host is reached.
    pub const fn interface(self) -> &'static str {
        match self {
            Self::Server => UPLINK,
            Self::Router => "br0",
            Self::Container | Self::Lan | Self::Lan2 | Self::Outside => "eth0",
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Container => "container",
            Self::Lan => "LAN host",
            Self::Lan2 => "second LAN host",
            Self::Router => "router",
            Self::Outside => "outside host",
        })
    }
}

/// A set of namespaces; dropping it removes them and ends what still runs in them.
#[derive(Debug)]
pub struct Lab {
    id: String,
}

impl Lab {
    /// Builds a lab. Any number can exist at a time, in one process and in several.
    pub fn new() -> Result<Self> {
        static INSTANCES: AtomicU32 = AtomicU32::new(0);

        require_root()?;
        stale::sweep();
        let instance = INSTANCES.fetch_add(1, Ordering::Relaxed);
        let lab = Self { id: format!("{}{}x{instance}", stale::PREFIX, std::process::id()) };
        topology::build(&lab).context("the lab could not be built")?;
        Ok(lab)
    }

    /// A name that no other lab of this machine has.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The namespace of a host.
    pub fn ns(&self, host: Host) -> Ns {
        Ns::new(format!("{}-{}", self.id, host.suffix()))
    }

    /// Cuts the server off from everyone but a packet socket on [`SERVER_PORT`], and waits until its interface is
    /// at rest: from here on each frame that it receives is one that the test sends.
    pub fn isolate_server(&self) -> Result<()> {
        let router = self.ns(Host::Router);
        router.run(&["ip", "link", "set", SERVER_PORT, "nomaster"])?;
        router.sysctl(&[("net.ipv6.conf.p-srv.disable_ipv6", "1")])?;
        let server = self.ns(Host::Server);
        // Answers to the LAN host must not ask who it is.
        let lan_host = ["192.168.0.50", "lladdr", "02:00:c0:a8:00:32", "dev", UPLINK];
        server.run(&[&["ip", "neigh", "replace"][..], &lan_host].concat())?;
        let mut last = server.received(UPLINK)?;
        for _ in 0..50 {
            thread::sleep(Duration::from_millis(100));
            let now = server.received(UPLINK)?;
            if now == last {
                return Ok(());
            }
            last = now;
        }
        bail!("{UPLINK} did not come to rest within five seconds")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let names: Vec<_> = Host::ALL.iter().map(|host| self.ns(*host).name().to_owned()).collect();
        stale::remove(&names);
    }
}

/// Fails with a sentence unless this process may make namespaces and load programs.
pub fn require_root() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the lab makes network namespaces and loads kernel programs: run it as root (sudo -E cargo xtask test)"
    );
    Ok(())
}

/// Runs a batch of `ip` commands, in a namespace if one is named.
fn ip_batch(namespace: Option<&str>, commands: &str) -> Result<()> {
    let mut ip = Command::new("ip");
    if let Some(name) = namespace {
        ip.args(["-n", name]);
    }
    let mut child = ip
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("`ip` could not be started (Debian: apt-get install iproute2)")?;
    let mut stdin = child.stdin.take().context("no pipe to `ip`")?;
    stdin.write_all(commands.as_bytes()).context("writing to `ip`")?;
    drop(stdin);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("ip -batch: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
