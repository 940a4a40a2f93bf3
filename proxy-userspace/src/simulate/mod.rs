//! The engine on the host: the kernel's decisions on frames in memory, without root and without a kernel.
//!
//! Used by `check` to run a policy's own tests, and by tests that compare it with the kernel program and with the
//! meaning of the policy. What the kernel does differently: its tables of flows and fragments forget the least
//! recently used when they are full; these never forget.
//!
//! The policy's tests come apart in three, so that the loader can run the same frames through the program in the
//! kernel: [`test_packets`] makes them, [`run_tests`] runs them here, [`TestReport`] says what came out.

mod tables;
mod testframe;
mod testreport;
mod testrun;

pub use tables::{HostLine, HostTables};
pub use testframe::{FrameError, Probe, ProbeKind, frame, probe};
pub use testreport::{TestReport, TestResult};
pub use testrun::{TestError, TestPacket, check, run_tests, test_interfaces, test_packets};

use proxy_common::abi::settings::Settings;
use proxy_common::engine::answer::{self, Buffer};
use proxy_common::engine::{self, Outcome, Tables as _, reject};
use proxy_common::packet::Slice;

use crate::policy::compile::{Clock, Compiled, CompiledTables};

/// Keys of the limiter's hash. The kernel's are random; these are fixed, so that a run can be repeated.
const HASH_KEYS: [u64; 3] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0];

/// A host that enforces a policy: its tables, and what it remembers.
#[derive(Debug)]
pub struct Simulation<'a> {
    tables: HostTables<'a>,
}

impl<'a> Simulation<'a> {
    /// A host that has seen no packet yet, at one of its interfaces.
    ///
    /// # Panics
    /// If `interface` is not an index in [`Compiled::interfaces`].
    pub fn new(compiled: &'a Compiled, interface: usize) -> Self {
        Self::with_settings(&compiled.tables, compiled.settings(interface, Clock::Given, HASH_KEYS))
    }

    /// The same with given constants. Which clock they name is of no account.
    pub fn with_settings(tables: &'a CompiledTables, settings: Settings) -> Self {
        Self { tables: HostTables::new(tables, settings) }
    }

    /// Goes over to another interface of the policy, or to another policy, and forgets nothing.
    ///
    /// # Panics
    /// If `interface` is not an index in [`Compiled::interfaces`].
    pub fn go_on_with(&mut self, compiled: &'a Compiled, interface: usize) {
        let keys = self.tables.settings().hash_keys;
        self.tables.replace(&compiled.tables, compiled.settings(interface, Clock::Given, keys));
    }

    /// Judges a frame that arrives at `now_ns`.
    pub fn ingress(&mut self, frame: &[u8], now_ns: u64) -> Outcome {
        self.tables.set_now_ns(now_ns);
        engine::ingress(&Slice(frame), &self.tables)
    }

    /// Judges a frame that arrives at `now_ns`, and gives the answer to it, if it is rejected and there were not too many.
    pub fn answer(&mut self, frame: &[u8], now_ns: u64) -> (Outcome, Option<Vec<u8>>) {
        let outcome = self.ingress(frame, now_ns);
        let rejects = self.tables.settings().reject_buckets != 0 && reject::may_follow(outcome.reason);
        let considered = reject::consider(&Slice(frame), &self.tables).filter(|_| rejects);
        let granted = considered.filter(|(_, charge)| self.tables.charge(*charge).is_none());
        let mut buffer = [0; size_of::<Buffer>()];
        let extent = granted.and_then(|(plan, _)| answer::write(&Slice(frame), &plan, &mut buffer));
        (outcome, extent.map(|extent| extent.of(&buffer).to_vec()))
    }

    /// Takes note of a frame that the host sends at `now_ns`.
    pub fn egress(&mut self, frame: &[u8], now_ns: u64) {
        self.tables.set_now_ns(now_ns);
        engine::egress(&Slice(frame), &self.tables, || false);
    }

    /// Forgets flows, fragments and what sources owe.
    pub fn reset(&mut self) {
        self.tables.reset();
    }
}
