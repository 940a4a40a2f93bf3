//! The decision on a packet: the same code in the kernel, in tests on the host and in `check`.
//!
//! `proxy-ebpf` calls [`ingress`] and [`egress`] with tables over BPF maps; the daemon and the tests call them
//! with tables in memory. The walk: parse → neighbour discovery → ban → source class → decision (invalid, spoofed and
//! denied sources end here) → plumbing → service and limiter → flow, unless a service allows it → one
//! outcome.

pub mod answer;
mod ban;
pub mod classify;
pub mod flow;
pub mod fragment;
pub mod icmp;
pub mod limiter;
pub mod plumbing;
pub mod reject;

use crate::abi::ban::{BanKey, BanPrefix};
use crate::abi::decision::{AUDIT, Decision, FINAL, GUARDED, ISOLATED, PORTS_PROTOCOL, PORTS_UDP, REPLIES};
use crate::abi::flow::{FlowKey, FlowValue, FragmentKey, FragmentValue};
use crate::abi::limit::Bucket;
use crate::abi::reason::{Reason, Verdict};
use crate::abi::settings::Settings;
use crate::abi::trie::Node;
use crate::engine::limiter::Charge;
use crate::packet::{Addr, Fragment, PacketInfo, PacketView, icmp as kinds, parse, protocol};

/// Everything that the engine reads and writes besides the packet.
///
/// Methods that return `Option` say `None` for an index past the table's end: the engine then drops with
/// [`Reason::TableFault`], it never guesses.
pub trait Tables {
    /// A line of limiter cells.
    type Line: limiter::CellLine;

    /// One of the instance's constants.
    fn setting<R: Copy>(&self, field: impl FnOnce(&Settings) -> &R) -> R;
    /// Entry of the trie's root.
    fn root(&self, index: u32) -> Option<u32>;
    /// Node of the trie.
    fn node(&self, index: u32) -> Option<&Node>;
    /// Entry of a node whose runs do not fit in itself.
    fn entry(&self, index: u32) -> Option<u32>;
    /// Class of a port or protocol; index as in [`crate::abi::decision`].
    fn port_class(&self, index: u32) -> Option<u32>;
    /// Cell of the decision table.
    fn decision(&self, index: u32) -> Option<Decision>;
    /// Bucket of a limit.
    fn bucket(&self, index: u32) -> Option<&Bucket>;
    /// Line of limiter cells; `index` is below [`crate::abi::limit::LINES`].
    fn line(&self, index: u32) -> Option<Self::Line>;
    /// Charges a packet to its buckets: [`limiter::charge`]. In the kernel a function that is verified by itself, once,
    /// and not again for each way to it.
    fn charge(&self, charge: Charge) -> Option<Reason>;
    /// Whether a destination is isolated: [`is_isolated`]. In the kernel a function of its own, as [`Tables::charge`] is.
    fn isolates(&self, destination: Addr, v6: bool) -> Option<bool>;
    /// Which bans there are: `BANS_*` of [`crate::abi::ban`].
    fn bans(&self) -> u32;
    /// A word of the filter before [`Tables::ban`].
    fn ban_filter(&self, index: u32) -> Option<u64>;
    /// Until when a source is banned.
    fn ban(&self, key: &BanKey) -> Option<u64>;
    /// Until when the longest prefix of a source that is banned is so.
    fn prefix_ban(&self, source: &BanPrefix) -> Option<u64>;
    /// The clock, nanoseconds; asked only by packets whose decision needs it.
    fn now_ns(&self) -> u64;
    /// Runs `f` on a flow, if it is known.
    fn with_flow<R>(&self, key: &FlowKey, f: impl FnOnce(&mut FlowValue) -> R) -> Option<R>;
    /// Adds or overwrites a flow.
    fn put_flow(&self, key: &FlowKey, value: &FlowValue);
    /// A fragmented datagram whose first fragment passed.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentValue>;
    /// Remembers a fragmented datagram.
    fn put_fragment(&self, key: &FragmentKey, value: &FragmentValue);
    /// Forgets a fragmented datagram, if it is known.
    fn drop_fragment(&self, key: &FragmentKey);
}

/// What the engine says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why; the verdict follows from it.
    pub reason: Reason,
    /// Under which rule it counts, if the reason has one.
    pub rule: u16,
}

impl Outcome {
    /// An outcome that belongs to no rule.
    #[inline(always)]
    pub const fn plain(reason: Reason) -> Self {
        Self { reason, rule: 0 }
    }

    /// Pass or drop.
    #[inline(always)]
    pub const fn verdict(self) -> Verdict {
        self.reason.verdict()
    }
}

/// Judges a packet that arrives.
#[inline(always)]
pub fn ingress<V: PacketView, T: Tables>(view: &V, tables: &T) -> Outcome {
    match parse(view) {
        Ok(p) => {
            let outcome = judge(view, tables, &p);
            if p.fragment == Fragment::First {
                match outcome.verdict() {
                    Verdict::Pass => fragment::remember(tables, &p),
                    Verdict::Drop => fragment::forget(tables, &p),
                }
            }
            outcome
        }
        Err(reason) => Outcome::plain(reason),
    }
}

/// Takes note of a packet that this host sends; it always passes. `turned_back` says whether the packet leaves by
/// the interface that it came in by: this host only passed it on. It is asked for packets that would change a flow.
#[inline(always)]
pub fn egress<V: PacketView, T: Tables>(view: &V, tables: &T, turned_back: impl FnOnce() -> bool) {
    if let Ok(p) = parse(view) {
        flow::observe_egress(tables, &p, turned_back);
    }
}

#[inline(always)]
fn judge<V: PacketView, T: Tables>(view: &V, tables: &T, p: &PacketInfo) -> Outcome {
    if p.protocol == protocol::ICMPV6
        && let Some(reason) = plumbing::discovery(tables, p)
    {
        return Outcome::plain(reason);
    }
    if p.destination.is_never_on_a_network(p.v6) {
        return Outcome::plain(Reason::DestinationInvalid);
    }
    // "LAND": an answer would go from this host to itself.
    if p.source == p.destination {
        return Outcome::plain(Reason::SourceInvalid);
    }
    if ban::is_banned(tables, p.source, p.v6) {
        return Outcome::plain(Reason::Banned);
    }
    let Some(d) = decide(tables, p.source, p.v6, port_index(p)) else {
        return Outcome::plain(Reason::TableFault);
    };
    let decided = Outcome { reason: Reason::from_number(d.reason), rule: d.rule };
    if d.flags & FINAL != 0 {
        return decided;
    }
    if p.fragment == Fragment::Later {
        return Outcome::plain(fragment::judge_later(tables, p));
    }
    let isolated = if d.flags & GUARDED == 0 {
        false
    } else {
        let Some(isolated) = tables.isolates(p.destination, p.v6) else {
            return Outcome::plain(Reason::TableFault);
        };
        isolated
    };
    if p.protocol != protocol::TCP
        && (!isolated || kinds::is_error(p))
        && let Some(reason) = plumbing::plumbing(view, tables, p)
    {
        return Outcome::plain(reason);
    }
    if d.flags & REPLIES == 0 && !isolated {
        if d.buckets != 0
            && let Some(over) = tables.charge(Charge::of(p, view, d.first_bucket, d.buckets))
        {
            let reason = if d.flags & AUDIT == 0 { over } else { over.audited() };
            return Outcome { reason, rule: d.rule };
        }
        return decided;
    }
    if flow::is_reply(tables, p) {
        return Outcome::plain(Reason::Reply);
    }
    if isolated {
        return Outcome::plain(Reason::DestinationIsolated);
    }
    decided
}

/// Where the packet's port or protocol stands in the port table.
#[inline(always)]
fn port_index(p: &PacketInfo) -> u32 {
    match (p.fragment, p.protocol) {
        // No port to read: the row's own word (denied, spoofed, …) is all that counts.
        (Fragment::Later, _) => PORTS_PROTOCOL + p.protocol as u32,
        (_, protocol::TCP) => p.destination_port as u32,
        (_, protocol::UDP) => PORTS_UDP + p.destination_port as u32,
        (_, other) => PORTS_PROTOCOL + other as u32,
    }
}

/// The decision on a source address and a port or protocol.
#[inline(always)]
fn decide<T: Tables>(tables: &T, source: Addr, v6: bool, port_index: u32) -> Option<Decision> {
    let class = classify::class_of(tables, source, v6)?;
    cell(tables, class, tables.port_class(port_index)?)
}

/// Whether a destination is isolated from this interface: its class as an address says so. `None` if a table is damaged.
#[inline(always)]
pub fn is_isolated<T: Tables>(tables: &T, destination: Addr, v6: bool) -> Option<bool> {
    let class = classify::class_of(tables, destination, v6)?;
    Some(cell(tables, class, 0)?.flags & ISOLATED != 0)
}

/// The cell of an address's class and a port's.
#[inline(always)]
fn cell<T: Tables>(tables: &T, class: u32, port: u32) -> Option<Decision> {
    let stride = tables.setting(|s| &s.port_classes);
    let row = tables.setting(|s| &s.first_row) + class;
    tables.decision(row * stride + port)
}
