//! Layouts shared by the kernel programs and the daemon, and the version that guards them.
//!
//! Everything that crosses between the two is `repr(C)`, has explicit padding, and holds neither `bool` nor
//! Rust enums: whatever bytes the other side writes must be a valid value.

pub mod ban;
pub mod counter;
pub mod decision;
pub mod event;
pub mod flow;
pub mod label;
pub mod limit;
pub mod reason;
pub mod scatter;
pub mod settings;
pub mod shadow;
pub mod switches;
pub mod trie;

/// Version of every layout in this module. The daemon refuses pinned maps of another version: raise it with
/// any change to a size, an order, a meaning or a number below.
pub const ABI_VERSION: u32 = 5;

/// What the first element of the pinned `IDENTITY` map holds: whose maps these are.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// [`IDENTITY_MAGIC`].
    pub magic: u64,
    /// [`ABI_VERSION`] of the daemon that made the maps.
    pub abi_version: u32,
    /// Zero.
    pub _pad: u32,
    /// Random keys of the limiter's hash, drawn once per boot so that a policy swap keeps limiter state.
    pub hash_keys: [u64; 3],
}

/// "tollgate" in ASCII, big-endian.
pub const IDENTITY_MAGIC: u64 = 0x746f_6c6c_6761_7465;

/// What the `probe` program reports: both clocks, read together.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// `bpf_ktime_get_ns`, nanoseconds since boot without suspend.
    pub ktime_ns: u64,
    /// `bpf_jiffies64` (Linux 5.5), ticks.
    pub jiffies: u64,
}

/// One rule name of the pinned `RULES` map; index: rule id. Empty: the id is free.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleName {
    /// UTF-8, padded with zero bytes.
    pub bytes: [u8; 64],
}

const _: () = assert!(size_of::<Identity>() == 40);
const _: () = assert!(size_of::<Probe>() == 16);
const _: () = assert!(size_of::<RuleName>() == 64);

#[cfg(feature = "user")]
#[allow(unsafe_code, reason = "aya's marker for plain old data is an unsafe trait")]
mod pod {
    // SAFETY: repr(C), no padding, every bit pattern is a value.
    unsafe impl aya::Pod for super::Identity {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Probe {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::RuleName {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::ban::Ban {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::ban::BanKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::ban::BanPrefix {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::counter::Counter {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::counter::Answers {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::decision::Decision {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::event::Throttle {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::flow::FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::flow::FlowValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::flow::FragmentKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::flow::FragmentValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::label::Label {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::limit::Bucket {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::limit::Line {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::settings::Settings {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::shadow::Carry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::shadow::Compared {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::shadow::Pair {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::shadow::Place {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::shadow::Seen {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::switches::Switches {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::trie::Node {}
}
