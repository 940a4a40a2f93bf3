//! The kernel programs that this binary carries, and how they are loaded: which map is shared with whom.

use std::path::PathBuf;

use aya::maps::ProgramArray;
use aya::programs::{ProgramFd, SchedClassifier, Xdp};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use proxy_common::abi::settings::Settings;

use super::error::{Context, DataplaneError, missing};
use super::pins::{Pins, SHARED_MAPS};

/// `target/bpf/tollgate.o`, as `build.rs` found it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("TOLLGATE_BPF_OBJECT"));

/// The kernel programs as they are embedded (an ELF file), for whoever looks into them rather than runs them.
pub fn kernel_programs() -> &'static [u8] {
    OBJECT
}

/// Judges packets at an interface's XDP hook, in frames of several buffers too (Linux 5.18).
pub const XDP_INGRESS: &str = "xdp_ingress";
/// The same for kernels before 5.18.
pub const XDP_LINEAR: &str = "xdp_linear";
/// Judges packets at an interface's TC ingress hook.
pub const TC_INGRESS: &str = "tc_ingress";
/// Records the flows that this host begins.
pub const TC_EGRESS: &str = "tc_egress";
/// Judges by a candidate what `xdp_ingress` has judged.
pub const XDP_SHADOW: &str = "xdp_shadow";
/// The same beside `xdp_linear`.
pub const XDP_SHADOW_LINEAR: &str = "xdp_shadow_linear";
/// Judges by a candidate what `tc_ingress` has judged.
pub const TC_SHADOW: &str = "tc_shadow";
/// The end of `tc_ingress` for a packet that its shadow has seen and that may be answered.
pub const TC_ANSWER: &str = "tc_answer";
/// The floor of benchmarks at the XDP hook.
pub const XDP_EMPTY: &str = "xdp_empty";
/// The floor of benchmarks at the TC hook.
pub const TC_EMPTY: &str = "tc_empty";
/// Gives packets of benchmarks random sources, before `xdp_ingress`.
pub const XDP_SCATTER: &str = "xdp_scatter";
/// The same before `xdp_linear`.
pub const XDP_SCATTER_LINEAR: &str = "xdp_scatter_linear";
/// The same before `tc_ingress`.
pub const TC_SCATTER: &str = "tc_scatter";
/// Reads the clocks.
pub const PROBE: &str = "probe";

/// What a load of the object uses that exists elsewhere, and what it makes in other sizes.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pins: Vec<(&'static str, PathBuf)>,
    sizes: Vec<(&'static str, u32)>,
    settings: Option<Settings>,
}

impl Plan {
    /// Everything of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses the maps that outlive policies; makes and pins those that do not exist.
    pub fn sharing(mut self, pins: &Pins) -> Self {
        self.pins.extend(SHARED_MAPS.map(|name| (name, pins.shared_map(name))));
        self
    }

    /// Uses the map that is pinned at `path`; makes and pins it if there is none.
    pub fn pinned(mut self, name: &'static str, path: PathBuf) -> Self {
        self.pins.push((name, path));
        self
    }

    /// Makes a map with so many elements, at least one.
    pub fn sized(mut self, name: &'static str, elements: usize) -> Self {
        self.sizes.push((name, u32::try_from(elements).unwrap_or(u32::MAX).max(1)));
        self
    }

    /// The instance's constants.
    pub const fn settings(mut self, settings: Settings) -> Self {
        self.settings = Some(settings);
        self
    }

    /// Makes the maps. No program is in the kernel yet: see [`xdp`] and [`classifier`].
    ///
    /// # Errors
    /// If the kernel refuses a map; without the capabilities BPF, NET_ADMIN and PERFMON it refuses all.
    pub fn load(&self) -> Result<Ebpf, DataplaneError> {
        let mut loader = EbpfLoader::new();
        for (name, path) in &self.pins {
            loader.map_pin_path(name, path.as_path());
        }
        for (name, elements) in &self.sizes {
            loader.map_max_entries(name, *elements);
        }
        if let Some(settings) = &self.settings {
            loader.override_global("SETTINGS", settings, true);
        }
        loader.load(OBJECT).context(|| "loading the kernel programs' maps (this needs root)")
    }
}

/// The XDP program that this kernel can run.
pub fn xdp_for_kernel() -> &'static str {
    // A kernel that does not tell its version is taken for a new one: it can refuse, and is believed.
    let old = KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 18, 0));
    if old { XDP_LINEAR } else { XDP_INGRESS }
}

/// The XDP program for a shadow that this kernel can run: it takes the same frames as [`xdp_for_kernel`].
pub fn xdp_shadow_for_kernel() -> &'static str {
    if xdp_for_kernel() == XDP_LINEAR { XDP_SHADOW_LINEAR } else { XDP_SHADOW }
}

/// Loads an XDP program into the kernel, which verifies it; one that is there already is not verified again.
///
/// # Errors
/// If the verifier refuses it.
pub fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, DataplaneError> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    let program: &mut Xdp = program.try_into().context(|| name.to_owned())?;
    if program.fd().is_err() {
        program.load().context(|| format!("verifying {name}"))?;
    }
    Ok(program)
}

/// Loads a TC program into the kernel, which verifies it; one that is there already is not verified again.
///
/// # Errors
/// If the verifier refuses it.
pub fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, DataplaneError> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    let program: &mut SchedClassifier = program.try_into().context(|| name.to_owned())?;
    if program.fd().is_err() {
        program.load().context(|| format!("verifying {name}"))?;
    }
    Ok(program)
}

/// Puts a program where another one finds it.
///
/// # Errors
/// If the kernel refuses: the program is of another kind than the array's.
pub fn introduce(ebpf: &mut Ebpf, name: &str, program: &ProgramFd) -> Result<(), DataplaneError> {
    let map = ebpf.map_mut(name).ok_or_else(|| missing(name))?;
    let mut map = ProgramArray::try_from(map).context(|| name.to_owned())?;
    map.set(0, program, 0).context(|| format!("a program for {name}"))
}
