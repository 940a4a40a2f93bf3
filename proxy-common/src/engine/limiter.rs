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
use crate::packet::{PacketInfo, PacketView, protocol};

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

/// Charges a packet to `count` buckets from `first` on; `Some` names the limit that it exceeds.
///
/// Buckets are charged in order and a packet that a later one refuses has been charged to the earlier ones.
#[inline(always)]
pub(super) fn charge<V: PacketView, T: Tables>(
    tables: &T,
    p: &PacketInfo,
    view: &V,
    first: u32,
    count: u32,
) -> Option<Reason> {
    let now_ns = tables.now_ns();
    let opens = p.protocol == protocol::TCP && p.tcp_flags & (SYN | ACK) == SYN;
    for nth in 0..MAX_BUCKETS {
        if nth >= count {
            return None;
        }
        let Some(bucket) = tables.bucket(first + nth) else {
            return Some(Reason::TableFault);
        };
        let (tokens, over) = match bucket.unit {
            UNIT_CONNECTIONS if !opens => continue,
            UNIT_CONNECTIONS => (1, Reason::OverLimitConnections),
            UNIT_PACKETS => (view.packets() as u64, Reason::OverLimitPackets),
            UNIT_BYTES => (view.len() as u64, Reason::OverLimitBytes),
            _ => return Some(Reason::TableFault),
        };
        // A merged packet (GRO) deeper than the bucket empties it; it would never pass otherwise.
        let cost_ns = ((bucket.cost * tokens) >> (bucket.shift & 63)).min(bucket.depth_ns);
        let mask = if p.v6 { bucket.mask_v6 } else { bucket.mask_v4 };
        // Families have cells of their own, except where the mask is empty: such a bucket is for all sources together.
        let family = (mask >> 63) & p.v6 as u64;
        let hash = hash(tables, p.source.hi & mask, bucket.salt ^ family);
        let Some(line) = tables.line(hash as u32 & (LINES - 1)) else {
            return Some(Reason::TableFault);
        };
        let max_debt_ns = tables.setting(|s| &s.max_depth_ns) + CLOCK_SLACK_NS;
        if !charge_line(view, &line, hash, cost_ns, bucket.depth_ns, max_debt_ns, now_ns) {
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

/// What a cell owes at `now_ns`; 0 if its time has passed, or if it is zero: never used, or swept.
#[inline(always)]
const fn debt(cell: u64, now_ns: u64, max_debt_ns: u64) -> u64 {
    let ahead = (cell & TIME).wrapping_sub(now_ns) & TIME;
    if cell != 0 && ahead <= max_debt_ns { ahead } else { 0 }
}

/// True if a cell says no more than zero would: what sweeps look for. They must come more often than time wraps (78
/// hours), because a cell that was left alone for so long looks like a debt again.
pub const fn is_settled(cell: u64, now_ns: u64) -> bool {
    debt(cell, now_ns, MAX_DEPTH_NS + CLOCK_SLACK_NS) == 0
}

/// Charges `cost_ns` to the cell of `hash` in its line; false if the bucket is empty.
#[inline(always)]
fn charge_line<V: PacketView, L: CellLine>(
    view: &V,
    line: &L,
    hash: u64,
    cost_ns: u64,
    depth_ns: u64,
    max_debt_ns: u64,
    now_ns: u64,
) -> bool {
    let tag = hash & !TIME;
    let preferred = (hash >> 32) as u32 & (WAYS - 1);
    for _ in 0..ATTEMPTS {
        let mut way = preferred;
        if line.load(preferred) & !TIME != tag {
            way = search(view, line, tag, preferred, max_debt_ns, now_ns);
        }
        let way = view.forget(way as u64) as u32;
        let old = line.load(way);
        let owed = view.forget(debt(old, now_ns, max_debt_ns));
        // A cell in debt keeps its owner, also when it is shared; a free one is taken.
        let owner = view.forget(if owed == 0 { tag } else { old & !TIME });
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
fn search<V: PacketView, L: CellLine>(
    view: &V,
    line: &L,
    tag: u64,
    preferred: u32,
    max_debt_ns: u64,
    now_ns: u64,
) -> u32 {
    let (mut others, mut free) = (0u64, 0u64);
    for step in 0..WAYS {
        let cell = line.load((preferred + step) & (WAYS - 1));
        let differs = (cell ^ tag) & !TIME;
        // The upper bit says whether any bit is set; `forget` keeps the compiler from seeing a comparison.
        others |= (view.forget(differs | differs.wrapping_neg()) >> 63) << step;
        let ahead = (cell & TIME).wrapping_sub(now_ns) & TIME;
        // Neither ahead (0) nor a debt (beyond the deepest one): both wrap to the upper bit.
        let room = max_debt_ns.wrapping_sub(1).wrapping_sub(ahead.wrapping_sub(1) & (u64::MAX >> 1));
        // Zero has never been used, whatever the time: its upper bit after this is 1.
        let unused = !(cell | cell.wrapping_neg());
        free |= (view.forget(room | unused) >> 63) << step;
    }
    let own = !others & (u8::MAX as u64);
    let step = if own != 0 {
        lowest(own)
    } else if free != 0 {
        lowest(free)
    } else {
        0
    };
    (preferred + step) & (WAYS - 1)
}

/// Index of the lowest set bit: the number of zeros below it. This target has no instruction for either.
#[inline(always)]
const fn lowest(mask: u64) -> u32 {
    (mask & mask.wrapping_neg()).wrapping_sub(1).count_ones()
}
