//! The three who judge a frame, and whether they agree.
//!
//! Called by [`super::run()`]. What a rejected packet is answered with is no part of a policy's meaning, so the reference has
//! no say in it: the engine on the host and the program at TC must write the same bytes.

use anyhow::{Context, Result};
use proxy_common::abi::reason::Reason;
use proxy_common::engine::Outcome;
use tollgate::policy::compile::Compiled;
use tollgate::simulate::Simulation;

use super::family::{Family, Member};
use super::wire::{HERE, is_tagged};
use super::witness::Witness;
use crate::reference::Reference;

/// The three who judge.
pub struct Court<'a> {
    compiled: &'a Compiled,
    reference: Reference,
    host: Simulation<'a>,
    kernel: &'a mut [Witness],
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
            kernel.iter_mut().try_for_each(|witness| witness.begin_anew(&tables))?;
        }
        Ok(Self { compiled, reference, host: Simulation::new(compiled, 0), kernel })
    }

    /// Shows all a frame that this host sends.
    ///
    /// # Errors
    /// If the kernel does not run it.
    pub fn send(&mut self, frame: &[u8], now_ns: u64) -> Result<()> {
        self.reference.egress(frame, now_ns);
        self.host.egress(frame, now_ns);
        self.kernel.iter().try_for_each(|witness| witness.send(frame, now_ns))
    }

    /// The reason, if all agree on it; else who says what.
    ///
    /// # Errors
    /// If the kernel does not run it.
    pub fn judge(&mut self, frame: &[u8], now_ns: u64) -> Result<Result<Reason, String>> {
        let (reason, rule) = self.reference.ingress(frame, now_ns);
        let (host, answer) = if frame.starts_with(&HERE) {
            self.host.answer(frame, now_ns)
        } else {
            // The kernel leaves alone what another host's interface was meant to get.
            (self.host.ingress(frame, now_ns), None)
        };
        // A test-run has the first tag in the frame, where arrived frames never have it, and can put no answer there.
        let answer = answer.filter(|_| !is_tagged(frame));
        let mut alike = reason == host.reason && rule.as_deref() == self.rule(host);
        for witness in &mut *self.kernel {
            alike &= witness.agrees(frame, now_ns, host, answer.as_deref())?;
        }
        if alike {
            return Ok(Ok(reason));
        }
        let mut said = format!("reference: {} {}", reason.name(), rule.as_deref().unwrap_or_default());
        said += &self.line("host", host, answer.as_deref());
        for (hook, outcome, answer) in self.kernel.iter().filter_map(Witness::said) {
            said += &self.line(&format!("{hook:?}"), outcome, answer);
        }
        Ok(Err(said))
    }

    fn line(&self, who: &str, outcome: Outcome, answer: Option<&[u8]>) -> String {
        let rule = self.rule(outcome).unwrap_or_default();
        let mut line = format!("\n{:<10} {} {rule}", format!("{who}:"), outcome.reason.name());
        if let Some(answer) = answer {
            line += &format!(" answered by {answer:02x?}");
        }
        line
    }

    fn rule(&self, outcome: Outcome) -> Option<&'a str> {
        if outcome.reason.has_rule() { self.compiled.rule_name(outcome.rule) } else { None }
    }
}
