//! Flows that this host began or has adopted, and fragments whose first one passed.
//!
//! `FLOWS` is written by `tc_egress`, and by the daemon before ingress first goes live; `FRAGMENTS` by ingress. A TCP flow
//! that is established moves to `ESTABLISHED`, which evicts nothing, and back when it closes: whatever else the host
//! begins, a session in use is not forgotten. Times are the engine's clock, nanoseconds.

/// A flow as this host sees it. Addresses as [`crate::packet::Addr`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The other side.
    pub remote: [u64; 2],
    /// This host.
    pub local: [u64; 2],
    /// Port of the other side; 0 for ICMP echo.
    pub remote_port: u16,
    /// Port of this host; the identifier for ICMP echo.
    pub local_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// Zero.
    pub _pad: u16,
}

/// [`FlowValue::state`]: TCP, SYN sent.
pub const STATE_OPENING: u32 = 0;
/// [`FlowValue::state`]: TCP, SYN-ACK seen.
pub const STATE_ESTABLISHED: u32 = 1;
/// [`FlowValue::state`]: TCP, FIN or RST seen.
pub const STATE_CLOSING: u32 = 2;
/// [`FlowValue::state`]: UDP or ICMP echo.
pub const STATE_DATAGRAM: u32 = 3;

/// What is known of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowValue {
    /// When a packet of it was last seen.
    pub last_ns: u64,
    /// `STATE_*`.
    pub state: u32,
    /// Zero.
    pub _pad: u32,
}

/// A fragmented datagram (RFC 791, RFC 8200 section 4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Source.
    pub source: [u64; 2],
    /// Destination.
    pub destination: [u64; 2],
    /// Identification.
    pub id: u32,
    /// IP protocol number; 0 for IPv6, whose later fragments may name another header.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// Zero.
    pub _pad: u16,
}

/// A datagram whose first fragment passed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentValue {
    /// When its first fragment passed.
    pub first_ns: u64,
}

/// Flows remembered at most (least recently used go first).
pub const FLOWS_LEN: u32 = 65536;
/// Established TCP flows at most. None makes room for another: those without room stay among the others.
pub const ESTABLISHED_LEN: u32 = 65536;
/// Pairs of interfaces of which one is stacked on the other, at most.
pub const STACKED_LEN: u32 = 4096;
/// Fragmented datagrams remembered at most.
pub const FRAGMENTS_LEN: u32 = 8192;

const _: () = assert!(size_of::<FlowKey>() == 40);
const _: () = assert!(size_of::<FlowValue>() == 16);
const _: () = assert!(size_of::<FragmentKey>() == 40);
const _: () = assert!(size_of::<FragmentValue>() == 8);
