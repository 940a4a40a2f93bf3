//! Buckets of the rate limiter and the cells that hold its state.
//!
//! See [`crate::engine::limiter`] for what is done with them.

/// Lines of the `CELLS` map: 131,072 lines of 64 bytes, 8 MiB. A power of two.
pub const LINES: u32 = 1 << 17;
/// Cells in a line.
pub const WAYS: u32 = 8;
/// Most buckets that one decision may charge: three scopes of three units.
pub const MAX_BUCKETS: u32 = 9;
/// Longest time that a bucket may take to refill, nanoseconds (4 hours). Cells hold 48 bits of nanoseconds
/// (78 hours); keeping debts far below half of that tells future from past.
pub const MAX_DEPTH_NS: u64 = 4 * 3600 * 1_000_000_000;

/// [`Bucket::unit`]: packets.
pub const UNIT_PACKETS: u8 = 0;
/// [`Bucket::unit`]: bytes.
pub const UNIT_BYTES: u8 = 1;
/// [`Bucket::unit`]: new connections.
pub const UNIT_CONNECTIONS: u8 = 2;

/// One bucket: GCRA (ITU-T I.371) with times in nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Time that one token takes to refill, nanoseconds times 2^`shift`.
    pub cost: u64,
    /// Time that the whole bucket takes to refill, nanoseconds; at most [`MAX_DEPTH_NS`].
    pub depth_ns: u64,
    /// Bits of the first 32 of the left-aligned IPv4 source that share a cell (in the upper half).
    pub mask_v4: u64,
    /// Bits of the upper half of the IPv6 source that share a cell.
    pub mask_v6: u64,
    /// Tells this bucket's cells from other buckets' of the same source. Stable across policies.
    pub salt: u64,
    /// Fraction bits of `cost`.
    pub shift: u32,
    /// `UNIT_*`.
    pub unit: u8,
    /// Zero.
    pub _pad: [u8; 3],
}

/// One cache line of limiter state: a cell is a 16-bit tag above a 48-bit theoretical arrival time.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The cells.
    pub cells: [u64; WAYS as usize],
}

const _: () = assert!(size_of::<Bucket>() == 48);
const _: () = assert!(size_of::<Line>() == 64);
const _: () = assert!(LINES.is_power_of_two());
