//! The interfaces of this network namespace: name, index, and whether frames on them begin with an Ethernet header.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nameindex;
use nix::sys::socket::SockaddrStorage;

use super::error::{Context, DataplaneError};

/// `ARPHRD_ETHER` and `ARPHRD_LOOPBACK`: the link types with an Ethernet header.
const WITH_HEADER: [u16; 2] = [1, 772];

/// An interface of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInterface {
    /// Its name now.
    pub name: String,
    /// Its index, which it keeps when it is renamed.
    pub index: u32,
    /// True if its frames begin with an Ethernet header. Those of tunnels (tun, WireGuard, …) begin with the IP header.
    pub ethernet: bool,
}

/// All interfaces, in order of their indices.
///
/// # Errors
/// If the kernel does not tell.
pub fn all() -> Result<Vec<HostInterface>, DataplaneError> {
    let list = if_nameindex().context(|| "listing the network interfaces")?;
    let headers = getifaddrs().context(|| "listing the addresses of the network interfaces")?;
    // Every interface has one link-level entry, with or without an address.
    let headers: Vec<_> = headers
        .filter_map(|entry| Some((entry.interface_name, entry.address?.as_link_addr()?.hatype())))
        .collect();
    let ethernet = |name: &str| headers.iter().any(|(of, kind)| of == name && WITH_HEADER.contains(kind));
    let mut found: Vec<_> = list
        .iter()
        .map(|entry| {
            let name = entry.name().to_string_lossy().into_owned();
            HostInterface { ethernet: ethernet(&name), name, index: entry.index() }
        })
        .collect();
    found.sort_unstable_by_key(|interface| interface.index);
    Ok(found)
}

/// Names of interfaces with the addresses that they have.
///
/// # Errors
/// If the kernel does not tell.
pub fn addresses() -> Result<Vec<(String, IpAddr)>, DataplaneError> {
    let entries = getifaddrs().context(|| "listing the addresses of the network interfaces")?;
    // Addresses may have labels: eth0:1.
    let name = |label: &str| label.split(':').next().unwrap_or_default().to_owned();
    Ok(entries.filter_map(|one| Some((name(&one.interface_name), ip(one.address.as_ref()?)?))).collect())
}

/// Addresses of this host that are nobody else's, in order: what no packet from a network can come from. Link-local ones are
/// left out: on another link, another host may have the same (RFC 4291 section 2.5.6, RFC 3927).
///
/// # Errors
/// If the kernel does not tell.
pub fn own_addresses() -> Result<Vec<IpAddr>, DataplaneError> {
    let mut own: Vec<IpAddr> = addresses()?.into_iter().map(|(_, address)| address).collect();
    own.retain(|address| match address {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && !v6.is_loopback(),
    });
    own.sort_unstable();
    own.dedup();
    Ok(own)
}

/// The address in an entry of such a list, if it is one of IP.
pub(super) fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// The interface with an index; `None` if it is gone.
///
/// # Errors
/// If the kernel does not tell.
pub fn with_index(index: u32) -> Result<Option<HostInterface>, DataplaneError> {
    Ok(all()?.into_iter().find(|interface| interface.index == index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found() {
        let all = all().expect("interfaces");
        let lo = all.iter().find(|interface| interface.name == "lo").expect("lo");
        assert!(lo.ethernet);
        assert_eq!(with_index(lo.index).expect("interfaces").as_ref(), Some(lo));
        assert_eq!(with_index(u32::MAX).expect("interfaces"), None);
    }
}
