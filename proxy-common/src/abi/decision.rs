//! The decision table: what a policy says of a source class and a port class.
//!
//! Written by the policy compiler, read once a packet by the engine. Index:
//! `(interface × source classes + source class) × port classes + port class`.

/// [`Decision::flags`]: no service allows it: look for a flow that this host began first.
pub const REPLIES: u8 = 1;
/// [`Decision::flags`]: whatever the packet is; plumbing does not soften it (invalid, spoofed, denied sources).
pub const FINAL: u8 = 2;
/// [`Decision::flags`]: whoever is dropped by this cell is told so ([`crate::engine::reject`]).
pub const REJECT: u8 = 4;
/// [`Decision::flags`]: on this interface some destinations are isolated: the packet's is to be looked up.
pub const GUARDED: u8 = 8;
/// [`Decision::flags`], where the port class is 0, of addresses as destinations: nothing that arrives here may address them
/// but what answers them.
pub const ISOLATED: u8 = 16;

/// [`Decision::flags`]: the service audits: what is over its limit passes.
pub const AUDIT: u8 = 32;

/// One cell of the table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Decision {
    /// Rule id, for the counters.
    pub rule: u16,
    /// Number of the [`super::reason::Reason`] that the packet ends with if nothing below changes it.
    pub reason: u8,
    /// [`REPLIES`], [`FINAL`], [`REJECT`], [`GUARDED`], [`ISOLATED`] and [`AUDIT`].
    pub flags: u8,
    /// First of the buckets to charge, in the `BUCKETS` map.
    pub first_bucket: u16,
    /// How many; 0: not limited.
    pub buckets: u8,
    /// Zero.
    pub _pad: u8,
}

const _: () = assert!(size_of::<Decision>() == 8);
const _: () = assert!(align_of::<Decision>() == 2);

/// Ports of TCP, then of UDP, then protocol numbers: the index space of the `PORTS` map.
pub const PORTS_LEN: u32 = 2 * 65536 + 256;
/// Where UDP begins in `PORTS`.
pub const PORTS_UDP: u32 = 65536;
/// Where protocol numbers begin in `PORTS`.
pub const PORTS_PROTOCOL: u32 = 2 * 65536;
