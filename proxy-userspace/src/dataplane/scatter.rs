//! What packets of random sources cost when they come back to back: one after another in the kernel, as a driver's poll loop
//! meets them, without a system call or a clock between.
//!
//! Called by the benchmark alone; nothing else loads these programs.

use std::time::Duration;

use aya::Ebpf;
use aya::programs::{ProgramFd, TestRun as _, TestRunResult};

use super::error::{Context, DataplaneError, missing};
use super::object::{self, Plan};
use super::trial::{Trial, TrialHook, options};
use proxy_common::abi::reason::Verdict;

impl Trial {
    /// What the program costs for IPv4 packets that it lets pass and that come back to back, `repeat` of each frame, each with
    /// another random source: for each frame the mean, with what the hook and the scattering itself cost. The sources are
    /// those of [`proxy_common::abi::scatter`]; the frame's own says where among them it begins. A frame is asked for when the
    /// one before it is done.
    ///
    /// # Errors
    /// If the kernel does not run it, if it judged another number of packets, or if the last of a frame did not pass.
    pub fn time_scattered(
        &mut self,
        frames: impl IntoIterator<Item = Vec<u8>>,
        repeat: u32,
    ) -> Result<Vec<Duration>, DataplaneError> {
        let program = self.judge()?;
        object::introduce(&mut self.ebpf, next_program(self.hook), &program)?;
        let before = self.total()?.packets;
        let mut times = Vec::new();
        for frame in frames {
            let result = run(&mut self.ebpf, self.hook, &frame, repeat)?;
            if !self.hook.says(Verdict::Pass, result.return_value) {
                return Err(missing(format!("a packet that passes, but {:#x}", result.return_value)));
            }
            times.push(result.duration);
        }
        let (packets, judged) = (times.len() as u64 * u64::from(repeat), self.total()?.packets - before);
        if judged != packets {
            return Err(missing(format!("a verdict on each of {packets} packets, but on {judged}")));
        }
        Ok(times)
    }

    /// The ingress program.
    fn judge(&mut self) -> Result<ProgramFd, DataplaneError> {
        let name = self.hook.program();
        let program = match self.hook {
            TrialHook::Tc => object::classifier(&mut self.ebpf, name)?.fd(),
            TrialHook::Xdp | TrialHook::XdpLinear => object::xdp(&mut self.ebpf, name)?.fd(),
        };
        program.and_then(|fd| Ok(fd.try_clone()?)).context(|| name)
    }
}

/// What the scattering itself costs for this frame, the hook's own cost included.
///
/// # Errors
/// If the kernel does not run it.
pub fn time_of_scattering(hook: TrialHook, frame: &[u8], repeat: u32) -> Result<Duration, DataplaneError> {
    run(&mut Plan::new().load()?, hook, frame, repeat).map(|result| result.duration)
}

/// Runs the scattering program, and behind it the one that was introduced to it.
fn run(ebpf: &mut Ebpf, hook: TrialHook, frame: &[u8], repeat: u32) -> Result<TestRunResult, DataplaneError> {
    let name = match hook {
        TrialHook::Tc => object::TC_SCATTER,
        TrialHook::Xdp if hook.program() == object::XDP_INGRESS => object::XDP_SCATTER,
        TrialHook::Xdp | TrialHook::XdpLinear => object::XDP_SCATTER_LINEAR,
    };
    let result = match hook {
        TrialHook::Tc => object::classifier(ebpf, name)?.test_run(options(frame, repeat)),
        TrialHook::Xdp | TrialHook::XdpLinear => object::xdp(ebpf, name)?.test_run(options(frame, repeat)),
    };
    result.context(|| format!("running {name} in the kernel"))
}

/// The array that it looks for the next program in.
const fn next_program(hook: TrialHook) -> &'static str {
    match hook {
        TrialHook::Tc => "PREVIOUS_TC",
        TrialHook::Xdp | TrialHook::XdpLinear => "PREVIOUS_XDP",
    }
}
