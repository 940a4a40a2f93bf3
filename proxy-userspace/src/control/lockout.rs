//! Would a policy shut out whoever applies it? Called by the daemon before an apply, with the connections that the command
//! found its own session in.

use std::net::IpAddr;

use crate::dataplane::{self, DataplaneError};
use crate::policy::Policy;
use crate::policy::compile::{Compiled, RuleIds, compile, entry_for};
use crate::policy::model::{PolicyTest, TestTarget, Transport};
use crate::session::Peer;
use crate::simulate::{Simulation, frame};
use proxy_common::abi::reason::Verdict;

/// Gives a sentence for each connection that could not be opened again under the policy.
///
/// # Errors
/// If the host's interfaces can't be listed.
pub fn shut_out(policy: &Policy, peers: &[Peer]) -> Result<Vec<String>, DataplaneError> {
    let peers: Vec<Peer> =
        peers.iter().filter(|peer| !peer.remote.ip().to_canonical().is_loopback()).copied().collect();
    if peers.is_empty() {
        return Ok(Vec::new());
    }
    let addresses = dataplane::host_addresses()?;
    let mut names: Vec<String> = addresses.iter().map(|(name, _)| name.clone()).collect();
    names.sort_unstable();
    names.dedup();
    let Some(door) = Door::new(policy, names) else { return Ok(Vec::new()) };
    let mut sentences = Vec::new();
    for peer in peers {
        let (remote, local) = (peer.remote.ip().to_canonical(), peer.local.ip().to_canonical());
        let by = |interface: &String| door.refuses(interface, remote, peer.local.port());
        // An address may have been taken away meanwhile: then any interface may be meant.
        let here: Vec<String> =
            addresses.iter().filter(|(_, address)| *address == local).map(|(name, _)| name.clone()).collect();
        let interfaces =
            if here.is_empty() { addresses.iter().map(|(name, _)| name.clone()).collect() } else { here };
        if let Some(interface) = interfaces.iter().find(|interface| by(interface)) {
            sentences.push(format!(
                "your own session comes from {remote} to port {} on {interface}, which this policy drops",
                peer.local.port()
            ));
        }
    }
    sentences.sort();
    sentences.dedup();
    Ok(sentences)
}

/// A policy, compiled once for the interfaces that it may be asked about.
struct Door {
    names: Vec<String>,
    compiled: Compiled,
}

impl Door {
    /// For those of the interfaces that the policy means; `None` if it can't be compiled, which the apply will say.
    fn new(policy: &Policy, mut names: Vec<String>) -> Option<Self> {
        names.retain(|name| entry_for(policy, name).is_some());
        let rules = RuleIds::assign(&[], &|_| false, policy).ok()?;
        let compiled = compile(policy, &names, &rules).ok()?;
        Some(Self { names, compiled })
    }

    /// True if the policy drops a new connection. Whatever can't be told is no reason to refuse.
    fn refuses(&self, interface: &str, from: IpAddr, port: u16) -> bool {
        let Some(nth) = self.names.iter().position(|name| name == interface) else { return false };
        let to = TestTarget::Port(Transport::Tcp, port);
        let test = PolicyTest { line: 0, from, to, interface: None, expect_pass: true };
        let Ok(frame) = frame(&test) else { return false };
        Simulation::new(&self.compiled, nth).ingress(&frame, 1).verdict() == Verdict::Drop
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_a_policy_does_not_allow_is_refused_where_it_is_enforced() {
        let text = "version = 1\n[interfaces.eth0]\n[zones]\nlan = [\"192.168.0.0/24\"]\n\
                    [services.ssh]\nports = [\"tcp/22\"]\nallow = [\"lan\"]\n";
        let policy =
            crate::policy::parse(text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"));
        let door = Door::new(&policy, vec!["eth0".to_owned(), "eth1".to_owned()]).expect("tables");
        let refused = |interface, from: &str, port| door.refuses(interface, from.parse().expect(from), port);
        assert!(!refused("eth0", "192.168.0.9", 22));
        assert!(refused("eth0", "192.168.0.9", 2222));
        assert!(refused("eth0", "203.0.113.9", 22));
        assert!(refused("eth0", "2001:db8::9", 22));
        assert!(!refused("eth1", "203.0.113.9", 22));
    }
}
