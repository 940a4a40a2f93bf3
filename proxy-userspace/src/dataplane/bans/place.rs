//! Where a ban is kept: a single address or an IPv6 prefix of 64 bits in `BANS`, any other prefix in `BAN_PREFIXES`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::maps::lpm_trie::Key;
use ipnet::IpNet;
use proxy_common::abi::ban::{BanKey, BanPrefix};
use proxy_common::packet::Addr;

/// A prefix as the maps name it.
#[derive(Clone, Copy)]
pub enum Place {
    /// In `BANS`.
    Single(BanKey),
    /// In `BAN_PREFIXES`.
    Prefix(Key<BanPrefix>),
}

impl Place {
    /// Where a prefix belongs; its host bits must be zero.
    pub fn of(net: IpNet) -> Self {
        let v6 = matches!(net, IpNet::V6(_));
        let address = Addr::from_ip(net.addr());
        if is_single(&net) {
            return Self::Single(BanKey::of(address, v6));
        }
        let bits = BanPrefix::FAMILY_BITS + u32::from(net.prefix_len());
        Self::Prefix(Key::new(bits, BanPrefix::of(address, v6)))
    }
}

/// True for what `BANS` holds.
pub const fn is_single(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.prefix_len() == 32,
        IpNet::V6(net) => net.prefix_len() == 64,
    }
}

/// The prefix that a key of `BANS` stands for; `None` for what nobody of ours has written.
pub fn net_of_single(key: &BanKey) -> Option<IpNet> {
    match key.family {
        4 => IpNet::new(IpAddr::V4(Ipv4Addr::from((key.hi >> 32) as u32)), 32).ok(),
        6 => IpNet::new(IpAddr::V6(Ipv6Addr::from(u128::from(key.hi) << 64)), 64).ok(),
        _ => None,
    }
}

/// The prefix that a key of `BAN_PREFIXES` stands for; `None` for what nobody of ours has written.
pub fn net_of_prefix(key: &Key<BanPrefix>) -> Option<IpNet> {
    let BanPrefix { family, address } = key.data();
    let length = u8::try_from(key.prefix_len().checked_sub(BanPrefix::FAMILY_BITS)?).ok()?;
    let address = match family {
        4 => IpAddr::V4(Ipv4Addr::new(address[0], address[1], address[2], address[3])),
        6 => IpAddr::V6(Ipv6Addr::from(address)),
        _ => return None,
    };
    IpNet::new(address, length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_prefix_comes_back_from_its_place(v4: bool, bits: u128, length in 0..=128u8) {
            let net = if v4 {
                IpNet::new(Ipv4Addr::from(bits as u32).into(), length.min(32))
            } else {
                IpNet::new(Ipv6Addr::from(bits).into(), length)
            };
            let net = net.expect("a length in range").trunc();
            let back = match Place::of(net) {
                Place::Single(key) => net_of_single(&key),
                Place::Prefix(key) => net_of_prefix(&key),
            };
            prop_assert_eq!(back, Some(net));
        }
    }

    #[test]
    fn hosts_and_networks_of_ipv6_are_found_by_their_64_bits() {
        for (net, single) in [
            ("192.0.2.1/32", true),
            ("192.0.2.0/31", false),
            ("0.0.0.0/0", false),
            ("2001:db8::/64", true),
            ("2001:db8::/63", false),
            ("2001:db8::1/128", false),
        ] {
            assert_eq!(is_single(&net.parse().expect(net)), single, "{net}");
        }
    }
}
