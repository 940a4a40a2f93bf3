//! The packet that an ICMP error quotes: which flow it is of, seen from its sender.

use std::net::IpAddr;

use tollgate::policy::model::Transport as Protocol;

use super::extensions::{self, Extent};
use super::flow::{FlowKey, FlowKind};
use super::parse::Fragment;
use super::wire;

const IPV4_MIN_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// RFC 792: the header and the first 64 bits of the data. Open: fewer, and nothing is said about a flow.
const QUOTED_TRANSPORT: usize = 8;

/// The flow of a quoted packet, its sender being `local`. `None` if the quote does not tell.
///
/// Open: the lengths in the quoted headers are not compared with the quote, which is cut off and which some routers
/// change. A quoted later fragment has no ports and tells nothing. Flags of a quoted TCP packet are not asked for.
pub fn flow(error_source: IpAddr, quote: &[u8]) -> Option<FlowKey> {
    if error_source.is_ipv4() { flow_v4(quote) } else { flow_v6(quote) }
}

fn flow_v4(quote: &[u8]) -> Option<FlowKey> {
    let fixed = quote.get(..IPV4_MIN_HEADER)?;
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    let offset = wire::be16(fixed, 6)? & 0x1fff;
    if fixed[0] >> 4 != 4 || header_len < IPV4_MIN_HEADER || offset > 0 {
        return None;
    }
    let kind = kind(fixed[9], 1, 8, quote.get(header_len..)?)?;
    Some(FlowKey { local: wire::ipv4(fixed, 12)?.into(), remote: wire::ipv4(fixed, 16)?.into(), kind })
}

fn flow_v6(quote: &[u8]) -> Option<FlowKey> {
    let fixed = quote.get(..IPV6_HEADER)?;
    if fixed[0] >> 4 != 6 {
        return None;
    }
    // Open: a quoted chain that would be dropped on arrival tells nothing.
    let chain = extensions::walk(fixed[6], quote.get(IPV6_HEADER..)?, Extent::Quoted).ok()?;
    if chain.fragment.as_ref().is_some_and(Fragment::is_later) {
        return None;
    }
    let kind = kind(chain.protocol, 58, 128, chain.data)?;
    Some(FlowKey { local: wire::ipv6(fixed, 8)?.into(), remote: wire::ipv6(fixed, 24)?.into(), kind })
}

/// Open: of ICMP, only a quoted echo request is part of a flow that this host began; its echo replies are not.
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
