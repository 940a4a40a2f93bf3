//! What came out: sums, a histogram of reasons, and what is not judged alike.

use std::fmt;
use std::time::Duration;

use proxy_common::abi::reason::{MAX_REASONS, Reason};

use super::traffic::Step;

/// A frame that is not judged alike.
#[derive(Clone, Debug)]
pub struct Disagreement {
    /// Seed of a run of one policy that shows it.
    pub seed: u64,
    /// The policy's file.
    pub policy: String,
    /// Where the frame arrives.
    pub interface: &'static str,
    /// Number of the frame, from 0.
    pub packet: u64,
    /// When it arrives, or leaves.
    pub step: Step,
    /// The frame.
    pub frame: Vec<u8>,
    /// Who says what.
    pub said: String,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.step.egress { "leaves" } else { "arrives" };
        writeln!(
            f,
            "packet {} {way} on {} at {} ns; to repeat: cargo xtask differential --policies 1 --packets {} --seed {}\n{}",
            self.packet,
            self.interface,
            self.step.now_ns,
            self.packet + 1,
            self.seed,
            self.said
        )?;
        for byte in &self.frame {
            write!(f, "{byte:02x}")?;
        }
        writeln!(f, "\n{}", self.policy)
    }
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Policies.
    pub policies: u64,
    /// Frames judged by the reference and the engine.
    pub packets: u64,
    /// Frames among them that the XDP program judged too.
    pub xdp: u64,
    /// Frames among them that the TC program judged too.
    pub tc: u64,
    /// Rejected frames among them that TC answered, each as the engine on the host does.
    pub answers: u64,
    /// Frames that this host sent, beside those.
    pub sent: u64,
    /// Arrived frames by number of the reason.
    pub reasons: Vec<u64>,
    /// The first disagreement of each policy that has one.
    pub disagreements: Vec<Disagreement>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Summary {
    /// Reasons that no frame ended with, besides those that follow from no policy: a fault of the program, bans, and a policy
    /// that was not confirmed.
    pub fn uncovered(&self) -> Vec<Reason> {
        let covered = |reason: &Reason| self.reasons.get(*reason as usize).is_some_and(|count| *count > 0);
        let of_policy = |r: &Reason| !matches!(r, Reason::TableFault | Reason::Banned | Reason::Unconfirmed);
        Reason::ALL.iter().copied().filter(|r| of_policy(r) && !covered(r)).collect()
    }

    pub(super) fn add(&mut self, other: Self) {
        self.policies += other.policies;
        self.packets += other.packets;
        self.xdp += other.xdp;
        self.tc += other.tc;
        self.answers += other.answers;
        self.sent += other.sent;
        self.reasons.resize(MAX_REASONS as usize, 0);
        for (sum, count) in self.reasons.iter_mut().zip(other.reasons) {
            *sum += count;
        }
        self.disagreements.extend(other.disagreements);
    }
}

impl fmt::Display for Summary {
    /// The histogram of reasons, and one line of sums.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for reason in Reason::ALL {
            let count = self.reasons.get(*reason as usize).copied().unwrap_or(0);
            writeln!(f, "{:<28} {count:>10}", reason.name())?;
        }
        write!(
            f,
            "{} policies, {} packets in, {} out; in the kernel {} by XDP, {} by TC, {} answered; {} disagreements; {:.1} s",
            self.policies,
            self.packets,
            self.sent,
            self.xdp,
            self.tc,
            self.answers,
            self.disagreements.len(),
            self.elapsed.as_secs_f64()
        )
    }
}
