//! The live policy on frames of our own: the same programs over the live tables, with copies of all that they would change.
//!
//! Called by `tollgate explain`. Tables and bans are the live ones; counters, limits, flows and fragments are copies, taken
//! when the question is asked, so that no answer leaves a trace.

use std::borrow::Cow;

use aya::Ebpf;
use proxy_common::abi::flow::{FlowKey, FlowValue, FragmentKey, FragmentValue};
use proxy_common::abi::reason::Reason;
use proxy_common::abi::switches::Switches;
use proxy_common::engine::Outcome;

use super::again::{self, copy_hash, read_words, write_words};
use super::candidate::loaded;
use super::error::DataplaneError;
use super::live::{Enforced, label_rules, program_in_force};
use super::pins::Pins;
use super::trial::{Trial, TrialHook};

/// What programs read of the shared maps and never write.
const READ_ONLY: [&str; 4] = ["BANS", "BAN_PREFIXES", "BAN_FILTER", "STACKED"];

/// The policy in force on an interface, ready to be asked.
#[derive(Debug)]
pub struct Explainer {
    trial: Trial,
    is_tc: bool,
}

impl Explainer {
    /// Shortest frame that the kernel runs a program on: an Ethernet header.
    const SHORTEST: usize = 14;
    /// Longest one.
    pub const LONGEST: usize = 4096;

    /// Fails if a frame of so many bytes can't be judged.
    ///
    /// # Errors
    /// A sentence that says so.
    pub fn takes(length: usize) -> Result<(), String> {
        let (shortest, longest) = (Self::SHORTEST, Self::LONGEST);
        if (shortest..=longest).contains(&length) {
            return Ok(());
        }
        Err(format!("a frame has {shortest} to {longest} bytes, not {length}"))
    }

    /// Copies what there is now. The caller holds the lock on changes: the tables are pinned for a moment.
    ///
    /// # Errors
    /// If the live program can't be looked at, or the kernel refuses something.
    pub fn open(pins: &Pins, enforced: &Enforced) -> Result<Self, DataplaneError> {
        let program = program_in_force(pins, enforced)?;
        let staging = pins.stage()?;
        let (mut plan, settings) = again::plan_of(&program, &staging.folder("in-force")?)?;
        for name in READ_ONLY {
            plan = plan.pinned(name, pins.shared_map(name));
        }
        let mut ebpf = loaded(&plan, settings)?;
        copy_state(pins, &mut ebpf)?;
        let hook = if enforced.attachment.hook() == "xdp" { TrialHook::Xdp } else { TrialHook::Tc };
        let trial = Trial::verified(ebpf, label_rules(&enforced.label), hook)?;
        Ok(Self { trial, is_tc: hook == TrialHook::Tc })
    }

    /// What would become of a frame. What it changes is remembered for the frames that follow, as the live program would.
    ///
    /// # Errors
    /// If the kernel does not run it: it takes frames of at least 14 bytes and at most a page.
    pub fn judge(&mut self, frame: &[u8]) -> Result<Outcome, DataplaneError> {
        let guess = Outcome::plain(Reason::TableFault);
        if !self.is_tc {
            return self.trial.ingress(frame, guess);
        }
        self.trial.ingress_of_any_length(&as_tc_sees_it(frame), guess)
    }
}

/// The kernel takes the outermost tag off before TC. Frames that end behind it never get that far, and are left as they are.
fn as_tc_sees_it(frame: &[u8]) -> Cow<'_, [u8]> {
    match (frame.get(12..14), frame.get(..12), frame.get(16..)) {
        (Some([0x81, 0x00] | [0x88, 0xa8]), Some(addresses), Some(rest)) if rest.len() >= 4 => {
            Cow::Owned([addresses, rest].concat())
        }
        _ => Cow::Borrowed(frame),
    }
}

fn copy_state(pins: &Pins, ebpf: &mut Ebpf) -> Result<(), DataplaneError> {
    copy_hash::<FlowKey, FlowValue>(pins, ebpf, "FLOWS")?;
    copy_hash::<FlowKey, FlowValue>(pins, ebpf, "ESTABLISHED")?;
    copy_hash::<FragmentKey, FragmentValue>(pins, ebpf, "FRAGMENTS")?;
    again::copy_cells(pins, ebpf)?;
    // Whoever listens to events hears of real packets alone.
    let switches = read_words(pins, "SWITCHES", size_of::<Switches>() / 8)?;
    let silent: Vec<u64> =
        switches.into_iter().enumerate().map(|(at, word)| if at == 0 { 0 } else { word }).collect();
    write_words(ebpf, "SWITCHES", &silent)
}
