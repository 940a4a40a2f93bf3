//! One of the kernel's programs, asked by test-run. Called by [`super::court`].

use anyhow::{Context, Result, ensure};
use proxy_common::abi::counter::Counter;
use proxy_common::engine::Outcome;
use tollgate::dataplane::{Trial, TrialHook};
use tollgate::policy::compile::CompiledTables;

use super::family::Family;
use super::mutate::MOST_BYTES;

/// The program at one hook, and what it said of the last frame.
pub struct Witness {
    hook: TrialHook,
    trial: Trial,
    judged: Counter,
    answers: u64,
    said: Option<Said>,
    buffer: Vec<u8>,
}

/// Of a frame: how it was counted, and the length of the answer to it.
#[derive(Clone, Copy, Debug)]
struct Said {
    outcome: Outcome,
    answer: Option<usize>,
}

impl Witness {
    /// The programs of a family at both hooks.
    ///
    /// # Errors
    /// If the kernel refuses one.
    pub fn both(family: &Family) -> Result<Vec<Self>> {
        [family.xdp(), TrialHook::Tc].into_iter().map(|hook| Self::new(family, hook)).collect()
    }

    fn new(family: &Family, hook: TrialHook) -> Result<Self> {
        let trial = family.load(hook)?;
        // Answers are short, but what passes comes back too.
        let buffer = vec![0; MOST_BYTES];
        Ok(Self { hook, trial, judged: Counter::default(), answers: 0, said: None, buffer })
    }

    /// Goes over to a policy that no packet has come to yet.
    ///
    /// # Errors
    /// If the kernel refuses its tables.
    pub fn begin_anew(&mut self, tables: &CompiledTables) -> Result<()> {
        Ok(self.trial.begin_anew(tables)?)
    }

    /// Shows it a frame that this host sends.
    ///
    /// # Errors
    /// If the kernel does not run it.
    pub fn send(&self, frame: &[u8], now_ns: u64) -> Result<()> {
        if takes(TrialHook::Tc, frame) {
            self.trial.set_now_ns(now_ns);
            self.trial.egress(frame)?;
        }
        Ok(())
    }

    /// True if it says the same as the engine on the host of a frame that arrives: where it is counted (hence verdict, reason
    /// and rule), and the answer to it byte by byte. So it does of what the kernel takes for no test-run.
    ///
    /// # Errors
    /// If the kernel does not run it, counts it nowhere, or does not do what it counts.
    pub fn agrees(
        &mut self,
        frame: &[u8],
        now_ns: u64,
        host: Outcome,
        answer: Option<&[u8]>,
    ) -> Result<bool> {
        self.said = None;
        if !takes(self.hook, frame) {
            return Ok(true);
        }
        self.trial.set_now_ns(now_ns);
        let (outcome, length) = self
            .trial
            .ingress_into(frame, host, &mut self.buffer)
            .with_context(|| format!("{:?}, a frame of {} bytes: {frame:02x?}", self.hook, frame.len()))?;
        self.judged.packets += 1;
        self.judged.bytes += frame.len() as u64;
        self.answers += u64::from(length.is_some());
        self.said = Some(Said { outcome, answer: length });
        Ok(outcome == host && (self.is_xdp() || self.answer() == answer))
    }

    /// The answer to the last frame.
    fn answer(&self) -> Option<&[u8]> {
        self.buffer.get(..self.said?.answer?)
    }

    /// Frames that it has judged, and answers that it has given.
    ///
    /// # Errors
    /// If its counters have not moved once for each frame, by its bytes: all of them, also those of rules that there are not.
    /// They are thousands, so this is for the end of a family.
    pub fn totals(&self) -> Result<(u64, u64)> {
        let counted = self.trial.total()?;
        ensure!(counted == self.judged, "{:?} counted {counted:?}, not {:?}", self.hook, self.judged);
        Ok((counted.packets, self.answers))
    }

    /// True if it is an XDP program.
    pub fn is_xdp(&self) -> bool {
        self.hook != TrialHook::Tc
    }

    /// Which program it is, and what it said of the last frame, if it was asked.
    pub fn said(&self) -> Option<(TrialHook, Outcome, Option<&[u8]>)> {
        self.said.map(|said| (self.hook, said.outcome, self.answer()))
    }
}

/// True if the kernel takes a frame for a test-run. What it does not take is broken, and changes nothing.
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
