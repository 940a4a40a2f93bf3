//! Fragments: the first one is judged whole, and its verdict holds for the rest of its datagram.
//!
//! Only first fragments that pass are remembered, so a stranger whom the policy refuses can't fill the table. One that is
//! refused takes back what an earlier one of the same datagram was granted.

use super::Tables;
use crate::abi::flow::{FragmentKey, FragmentValue};
use crate::abi::reason::Reason;
use crate::packet::PacketInfo;

/// How long the rest may take to arrive: the reassembly time of Linux (`ipfrag_time`).
const LIFETIME_NS: u64 = 30_000_000_000;

#[inline(always)]
fn key_of(p: &PacketInfo) -> FragmentKey {
    FragmentKey {
        source: [p.source.hi, p.source.lo],
        destination: [p.destination.hi, p.destination.lo],
        id: p.fragment_id,
        // RFC 8200 section 4.5: an IPv6 datagram is known by source, destination and identification alone.
        protocol: if p.v6 { 0 } else { p.protocol },
        family: if p.v6 { 6 } else { 4 },
        _pad: 0,
    }
}

/// Remembers the datagram of a first fragment that passed.
#[inline(always)]
pub(super) fn remember<T: Tables>(tables: &T, p: &PacketInfo) {
    tables.put_fragment(&key_of(p), &FragmentValue { first_ns: tables.now_ns() });
}

/// Forgets the datagram of a first fragment that was dropped: what follows is not what was let in.
#[inline(always)]
pub(super) fn forget<T: Tables>(tables: &T, p: &PacketInfo) {
    tables.drop_fragment(&key_of(p));
}

/// The reason for a later fragment.
#[inline(always)]
pub(super) fn judge_later<T: Tables>(tables: &T, p: &PacketInfo) -> Reason {
    match tables.fragment(&key_of(p)) {
        Some(first) if tables.now_ns().saturating_sub(first.first_ns) <= LIFETIME_NS => Reason::FragmentKnown,
        _ => Reason::FragmentOrphan,
    }
}
