//! Flows that this host began: recorded at egress, consulted at ingress when nothing else allows a packet.
//!
//! Only this host's own packets make entries, so strangers can't fill the table. Timeouts are checked on
//! lookup; a reset shortens a timeout and erases nothing, so a blind one cuts no connection.

use super::{Tables, decide};
use crate::abi::decision::PORTS_UDP;
use crate::abi::flow::{FlowKey, FlowValue, STATE_CLOSING, STATE_DATAGRAM, STATE_ESTABLISHED, STATE_OPENING};
use crate::abi::reason::Reason;
use crate::packet::transport::{ACK, FIN, RST, SYN};
use crate::packet::{Fragment, PacketInfo, icmp, protocol};

/// A flow's time is written at most this often, so that a busy flow's entry is mostly read.
const TOUCH_NS: u64 = 1_000_000_000;
/// And at most so many times within its timeout: a short one is kept more exactly.
const TOUCHES: u64 = 8;

/// The flow of a packet that arrives (`remote` is its source).
#[inline(always)]
fn key_of(p: &PacketInfo, ingress: bool) -> FlowKey {
    let source = [p.source.hi, p.source.lo];
    let destination = [p.destination.hi, p.destination.lo];
    let echo = p.protocol != protocol::TCP && p.protocol != protocol::UDP;
    let (source_port, destination_port) = if echo {
        // An echo has one identifier; it stands in the place of this host's port on both ways.
        if ingress { (0, p.source_port) } else { (p.source_port, 0) }
    } else {
        (p.source_port, p.destination_port)
    };
    let (remote, local, remote_port, local_port) = if ingress {
        (source, destination, source_port, destination_port)
    } else {
        (destination, source, destination_port, source_port)
    };
    FlowKey {
        remote,
        local,
        remote_port,
        local_port,
        protocol: p.protocol,
        family: if p.v6 { 6 } else { 4 },
        _pad: 0,
    }
}

/// How long a flow in this state is remembered.
#[inline(always)]
fn timeout_ns<T: Tables>(tables: &T, flow_protocol: u8, state: u32) -> u64 {
    match (state, flow_protocol) {
        (STATE_DATAGRAM, protocol::UDP) => tables.setting(|s| &s.udp_ns),
        (STATE_DATAGRAM, _) => tables.setting(|s| &s.icmp_ns),
        (STATE_OPENING, _) => tables.setting(|s| &s.tcp_opening_ns),
        (STATE_ESTABLISHED, _) => tables.setting(|s| &s.tcp_established_ns),
        _ => tables.setting(|s| &s.tcp_closing_ns),
    }
}

/// True if a flow is still remembered.
#[inline(always)]
fn alive<T: Tables>(tables: &T, flow_protocol: u8, flow: &FlowValue, now_ns: u64) -> bool {
    // A clock that another CPU has read a little later counts as no time at all.
    now_ns.saturating_sub(flow.last_ns) <= timeout_ns(tables, flow_protocol, flow.state)
}

/// Takes note of a packet of a flow, if the last that was noted is old enough.
#[inline(always)]
fn touch(flow: &mut FlowValue, timeout_ns: u64, now_ns: u64) {
    let short_ns = timeout_ns / TOUCHES;
    if now_ns.saturating_sub(flow.last_ns) > if short_ns < TOUCH_NS { short_ns } else { TOUCH_NS } {
        flow.last_ns = now_ns;
    }
}

/// True if the packet answers what this host began; moves the flow's state on.
#[inline(always)]
pub(super) fn is_reply<T: Tables>(tables: &T, p: &PacketInfo) -> bool {
    let tcp = p.protocol == protocol::TCP;
    if tcp && p.tcp_flags & (SYN | ACK) == SYN {
        return false;
    }
    if !tcp && p.protocol != protocol::UDP && !icmp::is_echo_reply(p) {
        return false;
    }
    let now_ns = tables.now_ns();
    tables
        .with_flow(&key_of(p, true), |flow| {
            let timeout_ns = timeout_ns(tables, p.protocol, flow.state);
            if now_ns.saturating_sub(flow.last_ns) > timeout_ns {
                return false;
            }
            let next = if tcp { after_reply(flow.state, p.tcp_flags) } else { flow.state };
            if next != flow.state {
                flow.state = next;
                flow.last_ns = now_ns;
            } else {
                touch(flow, timeout_ns, now_ns);
            }
            true
        })
        .unwrap_or(false)
}

/// True if the packet has the addresses and ports of a live flow.
#[inline(always)]
pub(super) fn is_live<T: Tables>(tables: &T, p: &PacketInfo) -> bool {
    let now_ns = tables.now_ns();
    tables.with_flow(&key_of(p, true), |flow| alive(tables, p.protocol, flow, now_ns)).unwrap_or(false)
}

/// State after a packet from the other side.
#[inline(always)]
const fn after_reply(state: u32, flags: u8) -> u32 {
    if flags & (FIN | RST) != 0 {
        STATE_CLOSING
    } else if state == STATE_OPENING && flags & (SYN | ACK) == SYN | ACK {
        STATE_ESTABLISHED
    } else if state == STATE_CLOSING && flags & ACK != 0 && flags & SYN == 0 {
        // Half-closed, or a reset that the host did not believe: data flows on, so the flow lives on, with the
        // short timeout renewed.
        STATE_CLOSING
    } else {
        state
    }
}

/// Takes note of a packet that this host sends, unless it came in by the same interface and is only passed on: strangers
/// would make flows otherwise, and answers to them.
#[inline(always)]
pub(super) fn observe_egress<T: Tables>(tables: &T, p: &PacketInfo, turned_back: impl FnOnce() -> bool) {
    if p.fragment == Fragment::Later {
        return;
    }
    if p.protocol == protocol::TCP {
        let opening = p.tcp_flags & (SYN | ACK) == SYN;
        let closing = p.tcp_flags & (FIN | RST) != 0;
        if !(opening || closing) || turned_back() {
            return;
        }
        if opening {
            let value = FlowValue { last_ns: tables.now_ns(), state: STATE_OPENING, _pad: 0 };
            tables.put_flow(&key_of(p, false), &value);
        } else {
            let now_ns = tables.now_ns();
            tables.with_flow(&key_of(p, false), |flow| {
                // What was forgotten stays so.
                if alive(tables, protocol::TCP, flow, now_ns) {
                    flow.state = STATE_CLOSING;
                    flow.last_ns = now_ns;
                }
            });
        }
        return;
    }
    if p.protocol == protocol::UDP {
        // An answer of an open service needs no flow: the service itself lets the next question in.
        let answers = decide(tables, p.destination, p.v6, PORTS_UDP + p.source_port as u32)
            .is_some_and(|d| matches!(Reason::from_number(d.reason), Reason::ServiceAllowed));
        if answers {
            return;
        }
    } else if !icmp::is_echo_request(p) {
        return;
    }
    if turned_back() {
        return;
    }
    let now_ns = tables.now_ns();
    let key = key_of(p, false);
    let known =
        tables.with_flow(&key, |flow| touch(flow, timeout_ns(tables, p.protocol, flow.state), now_ns));
    if known.is_none() {
        tables.put_flow(&key, &FlowValue { last_ns: now_ns, state: STATE_DATAGRAM, _pad: 0 });
    }
}

/// True if this host sent what `quote` quotes: it belongs to a live flow.
#[inline(always)]
pub(super) fn is_known_quote<T: Tables>(tables: &T, quote: &icmp::Quote, v6: bool) -> bool {
    let key = FlowKey {
        remote: [quote.destination.hi, quote.destination.lo],
        local: [quote.source.hi, quote.source.lo],
        remote_port: quote.destination_port,
        local_port: quote.source_port,
        protocol: quote.protocol,
        family: if v6 { 6 } else { 4 },
        _pad: 0,
    };
    let now_ns = tables.now_ns();
    tables.with_flow(&key, |flow| alive(tables, quote.protocol, flow, now_ns)).unwrap_or(false)
}
