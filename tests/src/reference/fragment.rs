//! Datagrams whose first fragment passed: the rest of them passes for 30 seconds.

use std::collections::HashMap;
use std::net::IpAddr;

use proxy_common::abi::reason::Verdict;

use super::parse::{Fragment, Packet};

const REMEMBERED_NS: u64 = 30_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Datagram {
    source: IpAddr,
    destination: IpAddr,
    id: u32,
    /// RFC 791 has the protocol in the identity of a datagram. RFC 8200 section 4.5 has not: the next header of later
    /// fragments may differ, and the first one's counts.
    protocol: Option<u8>,
}

impl Datagram {
    fn of(packet: &Packet<'_>, part: Fragment) -> Self {
        let protocol = packet.source.is_ipv4().then_some(packet.protocol);
        Self { source: packet.source, destination: packet.destination, id: part.id, protocol }
    }
}

/// When each first fragment passed.
#[derive(Debug, Default)]
pub struct PassedDatagrams(HashMap<Datagram, u64>);

impl PassedDatagrams {
    /// Notes what became of a first fragment. One that passes begins the 30 seconds, also anew; one that is dropped takes
    /// back what one of the same identity has brought.
    pub fn note(&mut self, packet: &Packet<'_>, verdict: Verdict, now_ns: u64) {
        if let Some(part) = packet.fragment.filter(Fragment::is_first) {
            let datagram = Datagram::of(packet, part);
            match verdict {
                Verdict::Pass => self.0.insert(datagram, now_ns),
                Verdict::Drop => self.0.remove(&datagram),
            };
        }
    }

    /// True if the first fragment of this part's datagram passed. After exactly 30 seconds it still counts.
    pub fn contains(&self, packet: &Packet<'_>, part: Fragment, now_ns: u64) -> bool {
        self.0
            .get(&Datagram::of(packet, part))
            .is_some_and(|passed_ns| now_ns.saturating_sub(*passed_ns) <= REMEMBERED_NS)
    }
}
