//! The packet that an ICMP error quotes: which flow it is of, seen from its sender.

use std::net::IpAddr;

use tollgate::policy::model::Transport as Protocol;

use super::flow::{FlowKey, FlowKind};
use super::parse::LAST_START;
use super::wire;

const IPV4_MIN_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const FRAGMENT: u8 = 44;
/// RFC 792: the header and the first 64 bits of the data. With fewer, nothing is said about a flow.
const QUOTED_TRANSPORT: usize = 8;

/// The flow of a quoted packet, its sender being `local`. `None` if the quote, which begins at byte `at` of the frame, does
/// not tell.
///
/// The lengths in the quoted headers are not compared with the quote, which is cut off and which some routers
/// change. A quoted later fragment has no ports and tells nothing. Flags of a quoted TCP packet are not asked for.
pub fn flow(error_source: IpAddr, quote: &[u8], at: usize) -> Option<FlowKey> {
    let (key, transport) = if error_source.is_ipv4() { flow_v4(quote)? } else { flow_v6(quote)? };
    // The page: no header begins later in a frame.
    (at + transport <= LAST_START).then_some(key)
}

/// The flow, and where the transport header begins in the quote.
fn flow_v4(quote: &[u8]) -> Option<(FlowKey, usize)> {
    let fixed = quote.get(..IPV4_MIN_HEADER)?;
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    let offset = wire::be16(fixed, 6)? & 0x1fff;
    if fixed[0] >> 4 != 4 || header_len < IPV4_MIN_HEADER || offset > 0 {
        return None;
    }
    let kind = kind(fixed[9], 1, 8, quote.get(header_len..)?)?;
    let key = FlowKey { local: wire::ipv4(fixed, 12)?.into(), remote: wire::ipv4(fixed, 16)?.into(), kind };
    Some((key, header_len))
}

fn flow_v6(quote: &[u8]) -> Option<(FlowKey, usize)> {
    let fixed = quote.get(..IPV6_HEADER)?;
    if fixed[0] >> 4 != 6 {
        return None;
    }
    // One fragment header, of a first or only fragment, and no other extension header.
    let (protocol, transport) = match fixed[6] {
        FRAGMENT if wire::be16(quote, IPV6_HEADER + 2)? & 0xfff8 > 0 => return None,
        FRAGMENT => (wire::byte(quote, IPV6_HEADER)?, IPV6_HEADER + 8),
        other => (other, IPV6_HEADER),
    };
    let kind = kind(protocol, 58, 128, quote.get(transport..)?)?;
    let key = FlowKey { local: wire::ipv6(fixed, 8)?.into(), remote: wire::ipv6(fixed, 24)?.into(), kind };
    Some((key, transport))
}

/// Of ICMP, only a quoted echo request is part of a flow that this host began; its echo replies are not.
fn kind(protocol: u8, icmp: u8, echo_request: u8, data: &[u8]) -> Option<FlowKind> {
    let data = data.get(..QUOTED_TRANSPORT)?;
    let ports = |protocol| {
        Some(FlowKind::Ports { protocol, local: wire::be16(data, 0)?, remote: wire::be16(data, 2)? })
    };
    match protocol {
        6 => ports(Protocol::Tcp),
        17 => ports(Protocol::Udp),
        p if p == icmp && wire::byte(data, 0)? == echo_request => {
            Some(FlowKind::Echo { identifier: wire::be16(data, 4)? })
        }
        _ => None,
    }
}
