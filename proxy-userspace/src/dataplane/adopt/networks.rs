//! Which connections cross an interface that is about to be enforced: told by this host's addresses and their networks.
//!
//! In doubt a connection crosses: an entry too many does no harm, and one too few cuts a session.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::dataplane::error::{Context, DataplaneError};
use crate::dataplane::interfaces::ip;

/// What an interface is to this apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is enforced for the first time.
    New,
    /// It was enforced before: what does not pass there has ended long ago.
    Before,
    /// It is not enforced.
    Other,
}

/// An address of this host.
#[derive(Clone, Copy, Debug)]
struct Address {
    /// With the length of its network.
    net: IpNet,
    role: Role,
    loopback: bool,
}

/// The addresses of this host and the networks next to it.
#[derive(Clone, Debug)]
pub struct Networks {
    addresses: Vec<Address>,
}

impl Networks {
    /// Asks the kernel; `role` is told the name of an interface.
    ///
    /// # Errors
    /// If it does not tell.
    pub fn of_host(role: impl Fn(&str) -> Role) -> Result<Self, DataplaneError> {
        let entries = getifaddrs().context(|| "listing the addresses of the network interfaces")?;
        let addresses =
            entries.filter(|entry| entry.flags.contains(InterfaceFlags::IFF_UP)).filter_map(|entry| {
                let address = ip(entry.address.as_ref()?)?;
                let mask = entry.netmask.as_ref().and_then(ip);
                let net = mask.and_then(|mask| IpNet::with_netmask(address, mask).ok());
                // Addresses may have labels: eth0:1.
                let name = entry.interface_name.split(':').next().unwrap_or_default();
                Some(Address {
                    net: net.unwrap_or_else(|| IpNet::from(address)),
                    role: role(name),
                    loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
                })
            });
        Ok(Self { addresses: addresses.collect() })
    }

    /// True if it is an address of this host.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.net.addr() == address)
    }

    /// True if packets from `remote` to `local` may arrive on an interface that is enforced for the first time.
    pub fn crosses(&self, remote: IpAddr, local: IpAddr) -> bool {
        let nobody =
            |address: IpAddr| address.is_unspecified() || address.is_multicast() || address.is_loopback();
        if nobody(remote) || nobody(local) {
            return false;
        }
        if self.is_own(remote) {
            return self.addresses.iter().any(|own| own.loopback && own.role == Role::New);
        }
        // A neighbour: it is reached by the narrowest network that has it, which several interfaces may share.
        let around =
            || self.addresses.iter().filter(|own| own.net.prefix_len() > 0 && own.net.contains(&remote));
        if let Some(narrowest) = around().map(|own| own.net.prefix_len()).max() {
            return around().any(|own| own.net.prefix_len() == narrowest && own.role == Role::New);
        }
        // Beyond a router. The address tells of interfaces that were enforced before; others may lend theirs.
        let mut at_home = self.addresses.iter().filter(|own| own.net.addr() == local).peekable();
        at_home.peek().is_none() || at_home.any(|own| own.role != Role::Before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host like that of the lab: an uplink, a bridge for containers, loopback.
    fn host(uplink: Role, bridge: Role, loopback: Role) -> Networks {
        let address =
            |net: &str, role, loopback| Address { net: net.parse().expect("a net"), role, loopback };
        Networks {
            addresses: vec![
                address("127.0.0.1/8", loopback, true),
                address("::1/128", loopback, true),
                address("192.168.0.104/24", uplink, false),
                address("2001:db8:0:1::104/64", uplink, false),
                address("fe80::104/64", uplink, false),
                address("172.17.0.1/16", bridge, false),
                address("fe80::1/64", bridge, false),
            ],
        }
    }

    fn crosses(networks: &Networks, remote: &str, local: &str) -> bool {
        networks.crosses(remote.parse().expect("an address"), local.parse().expect("an address"))
    }

    #[test]
    fn neighbours_and_strangers_of_the_new_interface_cross_it() {
        let networks = host(Role::New, Role::Other, Role::Other);
        for (remote, local) in [
            ("192.168.0.50", "192.168.0.104"),
            ("203.0.113.9", "192.168.0.104"),
            ("2001:db8:113::9", "2001:db8:0:1::104"),
            ("203.0.113.9", "172.17.0.2"),
            ("fe80::50", "fe80::104"),
        ] {
            assert!(crosses(&networks, remote, local), "{remote} to {local}");
        }
    }

    #[test]
    fn what_never_leaves_the_host_or_its_bridges_does_not() {
        let networks = host(Role::New, Role::Other, Role::Other);
        for (remote, local) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("192.168.0.104", "192.168.0.104"),
            ("172.17.0.2", "172.17.0.1"),
            ("172.17.0.2", "203.0.113.9"),
            ("224.0.0.251", "192.168.0.104"),
            ("0.0.0.0", "192.168.0.104"),
        ] {
            assert!(!crosses(&networks, remote, local), "{remote} to {local}");
        }
        assert!(crosses(&host(Role::New, Role::Other, Role::New), "192.168.0.104", "192.168.0.104"));
    }

    #[test]
    fn a_second_interface_does_not_revive_what_the_first_has_refused() {
        let networks = host(Role::Before, Role::New, Role::Other);
        assert!(!crosses(&networks, "192.168.0.50", "192.168.0.104"));
        assert!(!crosses(&networks, "203.0.113.9", "192.168.0.104"));
        assert!(crosses(&networks, "172.17.0.2", "203.0.113.9"));
        assert!(crosses(&networks, "172.17.0.2", "172.17.0.1"));
    }

    #[test]
    fn an_address_that_another_interface_lends_is_no_obstacle() {
        // A service address on a bridge, reached by the uplink.
        let networks = host(Role::New, Role::Other, Role::Other);
        assert!(crosses(&networks, "203.0.113.9", "172.17.0.1"));
    }

    #[test]
    fn the_kernel_tells_of_loopback() {
        let networks = Networks::of_host(|_| Role::New).expect("addresses");
        assert!(networks.is_own("127.0.0.1".parse().expect("an address")));
    }
}
