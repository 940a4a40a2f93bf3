//! The rate limiter: GCRA (ITU-T I.371) in a keyed table of tagged cells.
//!
//! The hash of (source, bucket), under keys that no one outside knows, picks one cache line of eight cells and
//! a 16-bit tag. A source looks for its tag in the line; if it has no cell there it takes one that is *free*: a
//! cell whose theoretical arrival time has passed says exactly as much as no cell, so taking it loses nothing.
//! There is no insert, no eviction, and nothing for a flood of sources to fill for good.
//!
//! Collisions: while at most eight sources of a line are in debt at a time, every source has a cell of its own
//! (two with the same line and tag, one pair in 2^33, share one). In a line that is full, a source without a
//! cell shares the one at its preferred place: stricter for both. When a cell frees up, it starts there with a
//! full bucket: at most one more burst.

use super::Tables;
use crate::abi::limit::{LINES, MAX_BUCKETS, MAX_DEPTH_NS, UNIT_BYTES, UNIT_CONNECTIONS, UNIT_PACKETS, WAYS};
use crate::abi::reason::Reason;
use crate::packet::transport::{ACK, SYN};
use crate::packet::{Forget, PacketInfo, PacketView, protocol};

/// One line of cells, shared by all CPUs.
pub trait CellLine {
    /// Reads a cell; `way` is below [`WAYS`].
    fn load(&self, way: u32) -> u64;
    /// Writes `new` if the cell still holds `old`; true if it did.
    fn replace(&self, way: u32, old: u64, new: u64) -> bool;
}

/// Bits of a cell that hold time.
const TIME: u64 = (1 << 48) - 1;
/// Clocks of two CPUs may differ by less than this; a debt may look deeper by as much.
const CLOCK_SLACK_NS: u64 = 1_000_000_000;
/// Times that a cell is tried again after another CPU was faster.
const ATTEMPTS: u32 = 4;

/// What a packet takes, and from which buckets. Small enough to be passed in registers: see [`Tables::charge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// First bucket.
    pub first: u16,
    /// How many buckets.
    pub count: u8,
    /// IPv6, else IPv4.
    pub v6: bool,
    /// It opens a connection.
    pub opens: bool,
    /// Upper half of the source.
    pub source_hi: u64,
    /// Packets on the wire.
    pub packets: u32,
    /// Bytes of the frame.
    pub bytes: u32,
}

impl Charge {
    /// Of a packet, to `count` buckets from `first` on.
    #[inline(always)]
    pub(super) fn of<V: PacketView>(p: &PacketInfo, view: &V, first: u16, count: u8) -> Self {
        let opens = p.protocol == protocol::TCP && p.tcp_flags & (SYN | ACK) == SYN;
        let (packets, bytes) = (view.packets(), view.len() as u32);
        Self { first, count, v6: p.v6, opens, source_hi: p.source.hi, packets, bytes }
    }

    /// As three numbers.
    #[inline(always)]
    pub const fn to_words(self) -> [u64; 3] {
        let kind = self.first as u64
            | (self.count as u64) << 16
            | (self.v6 as u64) << 24
            | (self.opens as u64) << 25;
        [kind, self.source_hi, (self.packets as u64) << 32 | self.bytes as u64]
    }

    /// From those numbers.
    #[inline(always)]
    pub const fn from_words(words: [u64; 3]) -> Self {
        Self {
            first: words[0] as u16,
            count: (words[0] >> 16) as u8,
            v6: words[0] >> 24 & 1 == 1,
            opens: words[0] >> 25 & 1 == 1,
            source_hi: words[1],
            packets: (words[2] >> 32) as u32,
            bytes: words[2] as u32,
        }
    }
}

/// Charges a packet to its buckets; `Some` names the limit that it exceeds.
///
/// Buckets are charged in order and a packet that a later one refuses has been charged to the earlier ones.
#[inline(always)]
pub fn charge<F: Forget, T: Tables>(verifier: &F, tables: &T, charge: Charge) -> Option<Reason> {
    let now_ns = tables.now_ns();
    for nth in 0..MAX_BUCKETS {
        if nth >= charge.count as u32 {
            return None;
        }
        let Some(bucket) = tables.bucket(charge.first as u32 + nth) else {
            return Some(Reason::TableFault);
        };
        let (tokens, over) = match bucket.unit {
            UNIT_CONNECTIONS if !charge.opens => continue,
            UNIT_CONNECTIONS => (1, Reason::OverLimitConnections),
            UNIT_PACKETS => (charge.packets as u64, Reason::OverLimitPackets),
            UNIT_BYTES => (charge.bytes as u64, Reason::OverLimitBytes),
            _ => return Some(Reason::TableFault),
        };
        // A merged packet (GRO) deeper than the bucket empties it; it would never pass otherwise.
        let cost_ns = (bucket.cost.wrapping_mul(tokens) >> (bucket.shift & 63)).min(bucket.depth_ns);
        let mask = if charge.v6 { bucket.mask_v6 } else { bucket.mask_v4 };
        // Families have cells of their own, except where the mask is empty: such a bucket is for all sources together.
        let family = (mask >> 63) & charge.v6 as u64;
        let hash = hash(tables, charge.source_hi & mask, bucket.salt ^ family);
        let Some(line) = tables.line(hash as u32 & (LINES - 1)) else {
            return Some(Reason::TableFault);
        };
        let max_debt_ns = tables.setting(|s| &s.max_depth_ns) + CLOCK_SLACK_NS;
        if !charge_line(verifier, &line, hash, cost_ns, bucket.depth_ns, max_debt_ns, now_ns) {
            return Some(over);
        }
    }
    None
}

/// Keyed hash of a masked source and a bucket: two rounds of multiplication by random odd numbers.
#[inline(always)]
fn hash<T: Tables>(tables: &T, source: u64, salt: u64) -> u64 {
    let keys = tables.setting(|s| &s.hash_keys);
    let mut h = (source ^ keys[0]).wrapping_mul(keys[1] | 1);
    h ^= h >> 32;
    h = (h ^ salt).wrapping_mul(keys[2] | 1);
    h ^= h >> 29;
    h = h.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^ (h >> 32)
}

/// How far a cell's time lies ahead of `now_ns`, and a number whose upper bit says whether that is a debt. It is none if it
/// lies further ahead than any debt (it has passed), or if the cell is zero: never used, or swept.
///
/// No comparison: each would double the verifier's paths.
#[inline(always)]
const fn debt(cell: u64, now_ns: u64, max_debt_ns: u64) -> (u64, u64) {
    let ahead = (cell & TIME).wrapping_sub(now_ns) & TIME;
    let within = !max_debt_ns.wrapping_sub(ahead);
    let used = cell | cell.wrapping_neg();
    (ahead, within & used)
}

/// True if a cell says no more than zero would: what sweeps look for. They must come more often than time wraps (78
/// hours), because a cell that was left alone for so long looks like a debt again.
pub const fn is_settled(cell: u64, now_ns: u64) -> bool {
    let (ahead, is_debt) = debt(cell, now_ns, MAX_DEPTH_NS + CLOCK_SLACK_NS);
    ahead == 0 || is_debt >> 63 == 0
}

/// Charges `cost_ns` to the cell of `hash` in its line; false if the bucket is empty.
#[inline(always)]
fn charge_line<F: Forget, L: CellLine>(
    verifier: &F,
    line: &L,
    hash: u64,
    cost_ns: u64,
    depth_ns: u64,
    max_debt_ns: u64,
    now_ns: u64,
) -> bool {
    let tag = hash & !TIME;
    let preferred = (hash >> 32) as u32 & (WAYS - 1);
    let mut way = preferred;
    if line.load(preferred) & !TIME != tag {
        way = search(verifier, line, tag, preferred, max_debt_ns, now_ns);
    }
    let way = verifier.forget(way as u64) as u32;
    for _ in 0..ATTEMPTS {
        let old = line.load(way);
        let (ahead, is_debt) = debt(old, now_ns, max_debt_ns);
        // `forget` keeps the compiler from seeing a comparison in the upper bit.
        let owed = verifier.forget(ahead & (verifier.forget(is_debt) >> 63).wrapping_neg());
        // A cell in debt keeps its owner, also when it is shared; a free one is taken.
        let owner = verifier.forget(if owed == 0 { tag } else { old & !TIME });
        let after = owed + cost_ns;
        if after > depth_ns {
            return false;
        }
        if line.replace(way, old, owner | (now_ns.wrapping_add(after) & TIME)) {
            return true;
        }
    }
    // Others were faster each time, and each of them was charged: the bucket is busy beyond any sane limit.
    false
}

/// The way of the source's own cell; else of a free one; else the preferred one.
///
/// Without a branch a cell: a bit mask of matches and one of free cells, so that the verifier walks one path
/// and the processor mispredicts none.
#[inline(always)]
fn search<F: Forget, L: CellLine>(
    verifier: &F,
    line: &L,
    tag: u64,
    preferred: u32,
    max_debt_ns: u64,
    now_ns: u64,
) -> u32 {
    let (mut others, mut free) = (0u64, 0u64);
    for way in 0..WAYS {
        let cell = line.load(way);
        let differs = (cell ^ tag) & !TIME;
        // The upper bit says whether any bit is set; `forget` keeps the compiler from seeing a comparison.
        others |= (verifier.forget(differs | differs.wrapping_neg()) >> 63) << way;
        // Free is what owes nothing: no debt, or one of exactly zero.
        let (ahead, is_debt) = debt(cell, now_ns, max_debt_ns);
        let owes = is_debt & (ahead | ahead.wrapping_neg());
        free |= (verifier.forget(!owes) >> 63) << way;
    }
    let own = !others & (u8::MAX as u64);
    if own != 0 {
        lowest(own)
    } else if free == 0 || (free >> preferred) & 1 == 1 {
        preferred
    } else {
        lowest(free)
    }
}

/// Index of the lowest set bit: the number of zeros below it. This target has no instruction for either.
#[inline(always)]
const fn lowest(mask: u64) -> u32 {
    (mask & mask.wrapping_neg()).wrapping_sub(1).count_ones()
}
