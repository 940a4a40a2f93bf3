//! A connection as packets of it arrive: what `sockets` and `conntrack` find, and how the table of flows names it.

use std::net::IpAddr;

use proxy_common::abi::flow::{
    FlowKey, FlowValue, STATE_CLOSING, STATE_DATAGRAM, STATE_ESTABLISHED, STATE_OPENING,
};
use proxy_common::packet::Addr;

/// One of a packet's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Never an IPv4 address in IPv6 form: packets do not carry those.
    pub address: IpAddr,
    /// Port, or the identifier of an ICMP echo.
    pub port: u16,
}

impl End {
    /// An end; sockets of both families give IPv4 addresses in IPv6 form.
    pub fn new(address: IpAddr, port: u16) -> Self {
        Self { address: address.to_canonical(), port }
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// TCP, both sides have answered.
    Established,
    /// TCP, our SYN is out.
    Opening,
    /// UDP or ICMP echo.
    Datagram,
    /// TCP, one side has said FIN.
    Closing,
}

impl Stage {
    /// All, those first that are to have room first.
    pub const BY_WORTH: [Self; 4] = [Self::Established, Self::Opening, Self::Datagram, Self::Closing];

    /// Its `STATE_*`.
    pub const fn state(self) -> u32 {
        match self {
            Self::Established => STATE_ESTABLISHED,
            Self::Opening => STATE_OPENING,
            Self::Datagram => STATE_DATAGRAM,
            Self::Closing => STATE_CLOSING,
        }
    }
}

/// Packets of a connection that arrive from one of its sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// IP protocol number.
    pub protocol: u8,
    /// Who sends them.
    pub remote: End,
    /// Whom they are addressed to.
    pub local: End,
    /// How far it is.
    pub stage: Stage,
}

impl Flow {
    /// As `engine::flow` looks it up; `None` if the ends are of different families, which no packet's are.
    pub fn key(&self) -> Option<FlowKey> {
        let (remote, local) = (self.remote.address, self.local.address);
        if remote.is_ipv4() != local.is_ipv4() {
            return None;
        }
        let numbers = |address| {
            let Addr { hi, lo } = Addr::from_ip(address);
            [hi, lo]
        };
        Some(FlowKey {
            remote: numbers(remote),
            local: numbers(local),
            remote_port: self.remote.port,
            local_port: self.local.port,
            protocol: self.protocol,
            family: if remote.is_ipv4() { 4 } else { 6 },
            _pad: 0,
        })
    }

    /// Its entry, as if a packet had been seen just now.
    pub const fn value(&self, now_ns: u64) -> FlowValue {
        FlowValue { last_ns: now_ns, state: self.stage.state(), _pad: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(address: &str, port: u16) -> End {
        End::new(address.parse().expect("an address"), port)
    }

    fn flow(remote: End, local: End) -> Flow {
        Flow { protocol: 6, remote, local, stage: Stage::Established }
    }

    #[test]
    fn a_key_is_the_one_that_the_engine_makes_of_a_packet() {
        let key = flow(end("203.0.113.9", 443), end("192.168.0.104", 40000)).key().expect("a key");
        let expected = FlowKey {
            remote: [0xcb00_7109 << 32, 0],
            local: [0xc0a8_0068 << 32, 0],
            remote_port: 443,
            local_port: 40000,
            protocol: 6,
            family: 4,
            _pad: 0,
        };
        assert_eq!(key, expected);
        let key = flow(end("2001:db8::9", 443), end("fe80::1", 40000)).key().expect("a key");
        assert_eq!((key.remote, key.family), ([0x2001_0db8 << 32, 9], 6));
    }

    #[test]
    fn mapped_addresses_make_ipv4_keys() {
        let mapped = flow(end("::ffff:203.0.113.9", 50000), end("::ffff:192.168.0.104", 2222)).key();
        assert_eq!(mapped, flow(end("203.0.113.9", 50000), end("192.168.0.104", 2222)).key());
        assert_eq!(mapped.map(|key| key.family), Some(4));
        assert_eq!(flow(end("203.0.113.9", 1), end("2001:db8::9", 2)).key(), None);
    }
}
