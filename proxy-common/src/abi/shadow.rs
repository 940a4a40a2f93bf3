//! Shadow runs: what the program in force hands to a candidate beside it, and what that counts where the two differ.
//!
//! Written by `proxy-ebpf` (`shadow.rs`), read by `dataplane::shadow`. Nothing of it is used unless a shadow runs.

use super::counter::Counter;

/// Sources that have room in each of `NEWLY_DROPPED` and `NEWLY_PASSED`.
pub const SOURCES_LEN: u32 = 1 << 15;
/// Combinations of what both say that have room in `PAIRS`.
pub const PAIRS_LEN: u32 = 1 << 12;

/// The one element of `CARRY`, on each CPU: what became of the packet that the shadow is to judge now.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carry {
    /// What the program in force would return, and its shadow does.
    pub action: u32,
    /// Rule id, if the reason has one.
    pub rule: u16,
    /// Number of the [`super::reason::Reason`].
    pub reason: u8,
    /// 1 if `tc_answer` has to look at the packet, which was dropped: it may be answered. Else 0.
    pub may_be_answered: u8,
    /// Where the shadow notes whose packet it is: [`Place::source`].
    pub source: [u64; 2],
    /// [`Seen::port`].
    pub port: u16,
    /// [`Seen::protocol`].
    pub protocol: u8,
    /// [`Pair::family`].
    pub family: u8,
    /// Zero.
    pub _pad: u32,
}

/// What both policies say of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pair {
    /// Rule id of the policy in force, if its reason has one; else 0.
    pub rule: u16,
    /// Rule id of the candidate, by its own names, if its reason has one; else 0.
    pub shadow_rule: u16,
    /// Number of the reason of the policy in force.
    pub reason: u8,
    /// Number of the candidate's.
    pub shadow_reason: u8,
    /// 4 or 6; 0 if it is no IP packet. Always 0 in `PAIRS`.
    pub family: u8,
    /// Zero.
    pub _pad: u8,
}

/// A source whose packets the two treat differently, and how.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// The source, as [`crate::packet::Addr`].
    pub source: [u64; 2],
    /// How.
    pub pair: Pair,
}

/// Packets that were treated differently in one way.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Packets.
    pub packets: u64,
    /// Bytes of whole frames.
    pub bytes: u64,
    /// When the last one came, the engine's clock in nanoseconds.
    pub last_ns: u64,
    /// Destination port of one of the last; 0 where there are none.
    pub port: u16,
    /// IP protocol number of one of the last.
    pub protocol: u8,
    /// Zero.
    pub _pad: [u8; 5],
}

/// The one element of `COMPARED`, on each CPU. The first three add up to all packets that were compared.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Packets that both let pass, or both drop.
    pub alike: Counter,
    /// Packets that the candidate alone drops.
    pub newly_dropped: Counter,
    /// Packets that the candidate alone lets pass.
    pub newly_passed: Counter,
    /// Those of `newly_dropped` whose source had no room.
    pub dropped_unlisted: Counter,
    /// Those of `newly_passed` whose source had no room.
    pub passed_unlisted: Counter,
}

const _: () = assert!(size_of::<Carry>() == 32);
const _: () = assert!(size_of::<Pair>() == 8);
const _: () = assert!(size_of::<Place>() == 24);
const _: () = assert!(size_of::<Seen>() == 32);
const _: () = assert!(size_of::<Compared>() == 80);
