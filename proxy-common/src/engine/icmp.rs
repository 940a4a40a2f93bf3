//! ICMP errors: let in when the packet that they quote is one that this host sent.
//!
//! Path-MTU discovery lives on these, for flows that this host began and for answers of its open services.

use super::{Tables, decide, flow};
use crate::abi::decision::PORTS_UDP;
use crate::abi::reason::{Reason, Verdict};
use crate::packet::{PacketInfo, PacketView, icmp, protocol};

/// The reason for an ICMP error.
#[inline(always)]
pub(super) fn judge_error<V: PacketView, T: Tables>(view: &V, tables: &T, p: &PacketInfo) -> Reason {
    let Some(quote) = icmp::quote(view, p) else {
        return Reason::IcmpErrorUnknown;
    };
    // The error goes to whoever sent the quoted packet; anything else is forged.
    if quote.source != p.destination {
        return Reason::IcmpErrorUnknown;
    }
    if flow::is_known_quote(tables, &quote, p.v6) || is_answer(tables, &quote, p.v6) {
        Reason::IcmpError
    } else {
        Reason::IcmpErrorUnknown
    }
}

/// True if the quoted packet is an answer of a service that its destination may reach.
#[inline(always)]
fn is_answer<T: Tables>(tables: &T, quote: &icmp::Quote, v6: bool) -> bool {
    let port = match quote.protocol {
        protocol::TCP => quote.source_port as u32,
        protocol::UDP => PORTS_UDP + quote.source_port as u32,
        _ => return false,
    };
    decide(tables, quote.destination, v6, port)
        .is_some_and(|d| matches!(Reason::from_number(d.reason).verdict(), Verdict::Pass))
}
