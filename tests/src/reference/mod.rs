//! A second opinion: what a policy means, written from `docs/policy.md` and the RFCs without a look at the engine.
//!
//! The differential tests ask it and the engine about the same packets; where the two differ, one of them, or
//! the page, is wrong. It is slow and forgets nothing: linear scans of zones and services, unbounded
//! hash maps, buckets in exact integer arithmetic. It shares no code with the engine but the numbered [`Reason`].
//!
//! Where the page leaves the outcome open, a comment that begins with `Open:` says what was chosen.

mod decide;
mod extensions;
mod flow;
mod fragment;
mod limit;
mod parse;
mod place;
mod quote;
mod transport;
mod wire;

#[cfg(test)]
mod tests;

use proxy_common::abi::reason::Reason;
use tollgate::policy::model::{Interface, Policy};

use flow::Flows;
use fragment::PassedDatagrams;
use limit::Buckets;

/// One policy at one interface, with the state that traffic leaves behind.
pub struct Reference {
    policy: Policy,
    /// The interface's own name, which may differ from that of its entry.
    name: String,
    entry: Interface,
    flows: Flows,
    buckets: Buckets,
    passed: PassedDatagrams,
}

impl Reference {
    /// The policy as it applies to `interface`; `None` if it is not enforced there.
    pub fn new(policy: &Policy, interface: &str) -> Option<Self> {
        let entry = place::entry(policy, interface)?.clone();
        Some(Self {
            policy: policy.clone(),
            name: interface.to_owned(),
            entry,
            flows: Flows::new(policy.timeouts),
            buckets: Buckets::default(),
            passed: PassedDatagrams::default(),
        })
    }

    /// Decides on a frame that arrives, and the name of the rule that it is counted under, if its reason has one:
    /// that of the service, or `default`.
    pub fn ingress(&mut self, frame: &[u8], now_ns: u64) -> (Reason, Option<String>) {
        let packet = match parse::parse(frame) {
            Ok(packet) => packet,
            Err(reason) => return (reason, None),
        };
        let (reason, rule) = self.decide(&packet, now_ns);
        self.passed.note(&packet, reason.verdict(), now_ns);
        (reason, rule)
    }

    /// Sees a frame that this host sends. It always passes; what matters is which flows it begins or goes on with.
    pub fn egress(&mut self, frame: &[u8], now_ns: u64) {
        // Frames that would be dropped as broken on arrival begin no flow when they leave.
        if let Ok(packet) = parse::parse(frame) {
            self.observe(&packet, now_ns);
        }
    }
}
