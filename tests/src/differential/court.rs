//! The three who judge a frame, and whether they agree.

use anyhow::{Context, Result, ensure};
use proxy_common::abi::reason::Reason;
use proxy_common::engine::Outcome;
use tollgate::dataplane::{Trial, TrialHook};
use tollgate::policy::compile::Compiled;
use tollgate::simulate::Simulation;

use super::family::{Family, Member};
use crate::reference::Reference;

/// The three who judge.
pub struct Court<'a> {
    compiled: &'a Compiled,
    reference: Reference,
    host: Simulation<'a>,
    kernel: &'a mut [Witness],
    /// The kernel's clock.
    kernel_ns: Option<u64>,
}

/// One of the kernel's programs.
pub struct Witness {
    hook: TrialHook,
    trial: Trial,
    /// Packets and bytes that it judged of this policy.
    judged: (u64, u64),
    /// What its counters said before.
    counted: (u64, u64),
}

impl Witness {
    /// The programs of a family at both hooks.
    ///
    /// # Errors
    /// If the kernel refuses one.
    pub fn both(family: &Family) -> Result<Vec<Self>> {
        let load = |hook| Ok(Self { hook, trial: family.load(hook)?, judged: (0, 0), counted: (0, 0) });
        [TrialHook::Xdp, TrialHook::Tc].into_iter().map(load).collect()
    }

    /// True if the kernel takes the frame for a test-run. What it does not take is broken, and changes nothing.
    fn takes(&self, frame: &[u8]) -> bool {
        takes(self.hook, frame)
    }
}

fn takes(hook: TrialHook, frame: &[u8]) -> bool {
    let least = match (hook, frame.get(12..14)) {
        (TrialHook::Xdp | TrialHook::XdpLinear, _) => 14,
        // A whole header of the protocol that the frame names (Linux 6.18), and something behind the link header.
        (TrialHook::Tc, Some([0x08, 0x00])) => 34,
        (TrialHook::Tc, Some([0x86, 0xdd])) => 54,
        (TrialHook::Tc, _) => 15,
    };
    frame.len() >= least
}

impl<'a> Court<'a> {
    /// About a policy that no packet has come to yet. `kernel` are the programs of its family, or none.
    ///
    /// # Errors
    /// If the kernel refuses the policy's tables.
    pub fn open(family: &Family, member: &'a Member, kernel: &'a mut [Witness]) -> Result<Self> {
        let Member { case, compiled, .. } = member;
        let reference =
            Reference::new(&case.policy, case.interface).context("the policy means no interface")?;
        if !kernel.is_empty() {
            let tables = family.tables(member);
            kernel.iter_mut().try_for_each(|witness| witness.trial.begin_anew(&tables))?;
        }
        Ok(Self { compiled, reference, host: Simulation::new(compiled, 0), kernel, kernel_ns: None })
    }

    /// Shows all a frame that this host sends.
    ///
    /// # Errors
    /// If the kernel does not run it.
    pub fn send(&mut self, frame: &[u8], now_ns: u64) -> Result<()> {
        self.reference.egress(frame, now_ns);
        self.host.egress(frame, now_ns);
        if takes(TrialHook::Tc, frame) {
            self.set_kernel_clock(now_ns)?;
            for witness in &*self.kernel {
                witness.trial.egress(frame)?;
            }
        }
        Ok(())
    }

    /// The reason, if all agree on it; else who says what.
    ///
    /// # Errors
    /// If the kernel does not run it.
    pub fn judge(&mut self, frame: &[u8], now_ns: u64) -> Result<Result<Reason, String>> {
        let (reason, rule) = self.reference.ingress(frame, now_ns);
        let host = self.host.ingress(frame, now_ns);
        let mut alike = reason == host.reason && rule.as_deref() == self.rule(host);
        let mut kernel = Vec::with_capacity(2);
        self.set_kernel_clock(now_ns)?;
        for witness in self.kernel.iter_mut().filter(|witness| witness.takes(frame)) {
            let outcome = witness
                .trial
                .ingress(frame, host)
                .with_context(|| format!("a frame of {} bytes: {frame:02x?}", frame.len()))?;
            alike &= outcome == host;
            witness.judged.0 += 1;
            witness.judged.1 += frame.len() as u64;
            kernel.push((witness.hook, outcome));
        }
        if alike {
            return Ok(Ok(reason));
        }
        let mut said = format!(
            "reference: {} {}\nhost:      {} {}",
            reason.name(),
            rule.as_deref().unwrap_or_default(),
            host.reason.name(),
            self.rule(host).unwrap_or_default()
        );
        for (hook, outcome) in kernel {
            let rule = self.rule(outcome).unwrap_or_default();
            said += &format!("\n{:<10} {} {rule}", format!("{hook:?}:"), outcome.reason.name());
        }
        Ok(Err(said))
    }

    fn rule(&self, outcome: Outcome) -> Option<&'a str> {
        if outcome.reason.has_rule() { self.compiled.rule_name(outcome.rule) } else { None }
    }

    fn set_kernel_clock(&mut self, now_ns: u64) -> Result<()> {
        if self.kernel_ns != Some(now_ns) {
            for witness in &*self.kernel {
                witness.trial.set_now_ns(now_ns)?;
            }
            self.kernel_ns = Some(now_ns);
        }
        Ok(())
    }

    /// Frames that were judged by XDP and by TC.
    ///
    /// # Errors
    /// If the kernel's counters have not moved once for each frame, by its bytes.
    pub fn close(self) -> Result<[u64; 2]> {
        let mut judged = [0; 2];
        for witness in self.kernel {
            let total = witness.trial.total()?;
            let counted = (total.packets - witness.counted.0, total.bytes - witness.counted.1);
            ensure!(
                counted == witness.judged,
                "{:?} counted {counted:?}, not {:?}",
                witness.hook,
                witness.judged
            );
            match witness.hook {
                TrialHook::Xdp | TrialHook::XdpLinear => judged[0] += counted.0,
                TrialHook::Tc => judged[1] += counted.0,
            }
            witness.counted = (total.packets, total.bytes);
            witness.judged = (0, 0);
        }
        Ok(judged)
    }
}
