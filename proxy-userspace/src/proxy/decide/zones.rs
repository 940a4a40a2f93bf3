//! The zone of the policy that an address is in, for the log: of those that have it, the one with the longest prefix, and among equals
//! the first of the file. Asked through [`super::Router::zone`].
//!
//! By address alone: the proxy does not see on which interface a connection came, and what is bound to another the packet filter has
//! dropped as spoofed.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::proxy::plan::Zone;

/// Zones, by prefix.
#[derive(Debug, Default)]
pub(super) struct Zones {
    names: Vec<String>,
    /// The place of the name of each prefix.
    prefixes: HashMap<IpNet, usize>,
    /// The lengths that there are, longest first: of IPv4, and of IPv6.
    lengths: [Vec<u8>; 2],
}

impl Zones {
    pub(super) fn new(zones: &[Zone]) -> Self {
        let mut made =
            Self { names: zones.iter().map(|zone| zone.name.clone()).collect(), ..Self::default() };
        for (place, net) in zones
            .iter()
            .enumerate()
            .flat_map(|(place, zone)| zone.prefixes.iter().map(move |net| (place, net)))
        {
            made.prefixes.entry(net.trunc()).or_insert(place);
        }
        for net in made.prefixes.keys() {
            made.lengths[family(net.addr())].push(net.prefix_len());
        }
        for lengths in &mut made.lengths {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
        }
        made
    }

    /// The name of the zone of an address.
    pub(super) fn find(&self, address: IpAddr) -> Option<&str> {
        let address = address.to_canonical();
        let place = self.lengths[family(address)].iter().find_map(|length| {
            let net = IpNet::new(address, *length).ok()?;
            self.prefixes.get(&net.trunc())
        })?;
        self.names.get(*place).map(String::as_str)
    }
}

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(zones: &[(&str, &[&str])]) -> Zones {
        let zone = |(name, prefixes): &(&str, &[&str])| Zone {
            name: (*name).to_owned(),
            prefixes: prefixes.iter().map(|net| net.parse().expect("a prefix")).collect(),
        };
        Zones::new(&zones.iter().map(zone).collect::<Vec<_>>())
    }

    #[test]
    fn the_longest_prefix_has_it_and_of_equals_the_first() {
        let zones = zones(&[
            ("world", &["0.0.0.0/0", "::/0"]),
            ("lan", &["192.168.0.0/16", "fe80::/10"]),
            ("desk", &["192.168.7.0/24", "192.168.0.9/32", "fe80::9/128"]),
            ("again", &["192.168.7.0/24"]),
        ]);
        for (address, name) in [
            ("203.0.113.9", "world"),
            ("192.168.0.8", "lan"),
            ("192.168.0.9", "desk"),
            ("::ffff:192.168.0.9", "desk"),
            ("192.168.7.200", "desk"),
            ("fe80::1", "lan"),
            ("fe80::9", "desk"),
            ("2001:db8::1", "world"),
        ] {
            assert_eq!(zones.find(address.parse().expect("an address")), Some(name), "{address}");
        }
    }

    #[test]
    fn most_of_the_world_is_in_no_zone() {
        let zones = zones(&[("lan", &["192.168.0.0/24"])]);
        for address in ["192.168.1.0", "::", "0.0.0.0", "255.255.255.255"] {
            assert_eq!(zones.find(address.parse().expect("an address")), None, "{address}");
        }
        assert_eq!(Zones::default().find([192, 168, 0, 1].into()), None);
    }
}
