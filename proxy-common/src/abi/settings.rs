//! Constants of one program instance: read-only globals, so that the verifier sees through them.
//!
//! Set by the loader before the program is loaded; each field is read by the engine through
//! [`crate::engine::Tables`].

/// [`Settings::plumbing`]: router advertisements pass.
pub const PLUMBING_RA: u32 = 1;
/// [`Settings::plumbing`]: DHCP answers pass.
pub const PLUMBING_DHCP: u32 = 2;
/// [`Settings::plumbing`]: DHCPv6 answers pass.
pub const PLUMBING_DHCPV6: u32 = 4;
/// [`Settings::plumbing`]: IGMP and MLD pass.
pub const PLUMBING_MEMBERSHIP: u32 = 8;
/// [`Settings::plumbing`]: mDNS passes.
pub const PLUMBING_MDNS: u32 = 16;
/// [`Settings::plumbing`]: echo requests pass.
pub const PLUMBING_PING: u32 = 32;

/// [`Settings::clock`]: `bpf_ktime_get_ns`.
pub const CLOCK_EXACT: u32 = 0;
/// [`Settings::clock`]: `bpf_jiffies64` × `tick_ns` + `tick_offset_ns`.
pub const CLOCK_TICKS: u32 = 1;
/// [`Settings::clock`]: what the `GIVEN_TIME` map says, for programs that are tried and never attached.
pub const CLOCK_GIVEN: u32 = 2;

/// [`Settings::on_deadline`]: there is no deadline.
pub const DEADLINE_NONE: u32 = 0;
/// [`Settings::on_deadline`]: once it has passed, the program before this one judges.
pub const DEADLINE_PREVIOUS: u32 = 1;
/// [`Settings::on_deadline`]: once it has passed, everything passes, as before this program.
pub const DEADLINE_OPEN: u32 = 2;

/// The constants.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// First row of this interface in `DECISIONS`: interface × source classes.
    pub first_row: u32,
    /// Port classes: the length of a row.
    pub port_classes: u32,
    /// `PLUMBING_*`.
    pub plumbing: u32,
    /// First bucket of the ping limit.
    pub ping_first_bucket: u32,
    /// Buckets of the ping limit; 0: not limited.
    pub ping_buckets: u32,
    /// `CLOCK_*`.
    pub clock: u32,
    /// First bucket of the limit on answers.
    pub reject_first_bucket: u32,
    /// Buckets of the limit on answers; 0: nothing is rejected on this interface.
    pub reject_buckets: u32,
    /// Nanoseconds in a tick.
    pub tick_ns: u64,
    /// What to add (wrapping) so that both clocks agree to a tick.
    pub tick_offset_ns: u64,
    /// Keys of the limiter's hash.
    pub hash_keys: [u64; 3],
    /// Deepest bucket of the policy, nanoseconds: what lies further ahead in a cell is not a debt.
    pub max_depth_ns: u64,
    /// TCP, SYN sent, nanoseconds.
    pub tcp_opening_ns: u64,
    /// TCP established, nanoseconds.
    pub tcp_established_ns: u64,
    /// TCP after FIN or RST, nanoseconds.
    pub tcp_closing_ns: u64,
    /// UDP, nanoseconds.
    pub udp_ns: u64,
    /// ICMP echo, nanoseconds.
    pub icmp_ns: u64,
    /// `DEADLINE_*`: what happens if the policy is not confirmed by the time in the `DEADLINE` map.
    pub on_deadline: u32,
    /// 1 if a limit of the policy bans who exceeds it: packets over a limit are then told of as offences. Else 0.
    pub escalates: u32,
    /// 1 while a candidate runs in the shadow of this instance ([`super::shadow`]): each packet is handed on to it. Else 0.
    pub shadowed: u32,
    /// Zero.
    pub _pad: u32,
}

const _: () = assert!(size_of::<Settings>() == 136);
