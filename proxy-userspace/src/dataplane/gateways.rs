//! Who forwards what this host sends: the next hops of all its routes. Called before a ban, which may not cut them off.

use std::net::IpAddr;

use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteVia};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::error::{Context, DataplaneError};
use super::netlink::dump;

/// The next hops of all routes, of all tables.
///
/// # Errors
/// If the kernel does not list its routes.
pub fn all() -> Result<Vec<IpAddr>, DataplaneError> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        dump(NETLINK_ROUTE, RouteNetlinkMessage::GetRoute(question), |message| {
            if let RouteNetlinkMessage::NewRoute(route) = message {
                found.extend(hops(&route.attributes));
            }
        })
        .context(|| "listing the routes")?;
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn hops(attributes: &[RouteAttribute]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for attribute in attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(hop)) => found.push(IpAddr::V4(*hop)),
            RouteAttribute::Gateway(RouteAddress::Inet6(hop)) => found.push(IpAddr::V6(*hop)),
            RouteAttribute::Via(RouteVia::Inet(hop)) => found.push(IpAddr::V4(*hop)),
            RouteAttribute::Via(RouteVia::Inet6(hop)) => found.push(IpAddr::V6(*hop)),
            RouteAttribute::MultiPath(several) => {
                found.extend(several.iter().flat_map(|one| hops(&one.attributes)));
            }
            _ => {}
        }
    }
    found
}
