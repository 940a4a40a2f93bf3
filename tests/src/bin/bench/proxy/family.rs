//! What the processes of a proxy cost: processor time and memory of all of them. Called by `mod.rs` around each load.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use procfs::process::Process;

/// A process and all below it, at one moment.
#[derive(Clone, Debug)]
pub struct Family {
    pids: Vec<i32>,
}

impl Family {
    /// Everything that began with this process.
    pub fn of(root: u32) -> Result<Self> {
        let root = i32::try_from(root).context("a process id")?;
        let mut pids = vec![root];
        let mut next = 0;
        while let Some(pid) = pids.get(next) {
            for task in Process::new(*pid)?.tasks()? {
                // A thread that ends meanwhile has no children any more.
                let children = task.ok().and_then(|task| task.children().ok()).unwrap_or_default();
                pids.extend(children.into_iter().filter_map(|pid| i32::try_from(pid).ok()));
            }
            next += 1;
        }
        Ok(Self { pids })
    }

    /// The process that was started first by the root: what serves, where the root only looks after it.
    pub fn first_child(&self) -> Result<i32> {
        self.pids.get(1).copied().context("a process without children")
    }

    /// What all threads of all of them have run so far, those that have ended included, in user mode and in the kernel.
    pub fn cpu(&self) -> Result<Duration> {
        self.pids
            .iter()
            .map(|pid| {
                let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(*pid))?;
                Ok(Duration::from(clock_gettime(clock)?))
            })
            .sum()
    }

    /// Their memory in bytes; what they share counts once (PSS).
    pub fn memory(&self) -> Result<u64> {
        self.pids
            .iter()
            .map(|pid| {
                let rollup = Process::new(*pid)?.smaps_rollup()?.memory_map_rollup;
                let pss = rollup.0.first().and_then(|map| map.extension.map.get("Pss").copied());
                pss.context("no Pss in smaps_rollup")
            })
            .sum()
    }

    /// The sum of the most that each has had resident, but for the root of several, which does not serve.
    pub fn peak(&self) -> Result<u64> {
        let serving = if self.pids.len() > 1 { &self.pids[1..] } else { &self.pids[..] };
        serving
            .iter()
            .map(|pid| Ok(Process::new(*pid)?.status()?.vmhwm.context("no VmHWM in status")? << 10))
            .sum()
    }
}
