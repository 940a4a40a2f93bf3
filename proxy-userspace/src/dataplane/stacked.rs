//! Which interfaces are stacked on which: VLANs, bridges, bonds and their like on top of enforced ones.
//!
//! Called by `apply` and by the daemon when interfaces change. `tc_egress` needs it to tell what this host sends from what
//! strangers send through it and back out: the kernel says of a packet by which interface it came in, and names the
//! uppermost.

use std::collections::{BTreeSet, HashSet};

use aya::maps::{HashMap, MapData};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::error::{Context, DataplaneError};
use super::netlink::dump;
use super::pins::Pins;
use super::shared::Shared;

/// An interface and its neighbours in the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Link {
    index: u32,
    /// The bridge or bond that it is a port of.
    master: Option<u32>,
    /// What it is a part of: the interface below a VLAN or a macvlan.
    lower: Option<u32>,
}

/// Tells the kernel programs what is stacked on the interfaces that are enforced and on those in `next`.
///
/// # Errors
/// If the kernel does not list its interfaces, or the map can't be written.
pub fn refresh(pins: &Pins, shared: &mut Shared, next: &[u32]) -> Result<(), DataplaneError> {
    let mut links = Vec::new();
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    dump(NETLINK_ROUTE, request, |message| {
        if let RouteNetlinkMessage::NewLink(message) = message {
            links.push(link(&message));
        }
    })
    .context(|| "listing the network interfaces")?;
    let enforced: BTreeSet<u32> = pins.interfaces().into_iter().chain(next.iter().copied()).collect();
    let pairs = enforced.iter().flat_map(|lower| above(*lower, &links).into_iter().map(|one| [one, *lower]));
    write(&mut shared.stacked()?, &pairs.collect())
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link { index: message.header.index, ..Link::default() };
    let mut is_end_of_cable = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Controller(master) => link.master = Some(*master),
            LinkAttribute::Link(lower) => link.lower = Some(*lower),
            // A number of another network namespace.
            LinkAttribute::LinkNetNsId(_) => is_end_of_cable = true,
            LinkAttribute::LinkInfo(info) => {
                is_end_of_cable |=
                    info.iter().any(|one| matches!(one, LinkInfo::Kind(InfoKind::Veth | InfoKind::Netkit)));
            }
            _ => {}
        }
    }
    if is_end_of_cable {
        link.lower = None;
    }
    link
}

/// Everything that is stacked on an interface, over any number of storeys.
fn above(lower: u32, links: &[Link]) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut next = vec![lower];
    while let Some(index) = next.pop() {
        let masters = links.iter().filter(|link| link.index == index).filter_map(|link| link.master);
        let parts = links.iter().filter(|link| link.lower == Some(index)).map(|link| link.index);
        for upper in masters.chain(parts).filter(|upper| *upper != lower) {
            if found.insert(upper) {
                next.push(upper);
            }
        }
    }
    found
}

fn write(
    map: &mut HashMap<&mut MapData, [u32; 2], u32>,
    wanted: &BTreeSet<[u32; 2]>,
) -> Result<(), DataplaneError> {
    let present: HashSet<[u32; 2]> = map.keys().filter_map(Result::ok).collect();
    // First what is new: a pair that is missing lets strangers make flows.
    for pair in wanted.iter().filter(|pair| !present.contains(*pair)) {
        map.insert(pair, 1, 0).context(|| "writing STACKED")?;
    }
    for pair in present.iter().filter(|pair| !wanted.contains(*pair)) {
        map.remove(pair).context(|| "writing STACKED")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(index: u32, master: u32) -> Link {
        Link { index, master: Some(master), lower: None }
    }

    fn part(index: u32, lower: u32) -> Link {
        Link { index, master: None, lower: Some(lower) }
    }

    #[test]
    fn every_storey_is_found_and_no_neighbour() {
        let plain = Link { index: 9, ..Link::default() };
        // Two ports of a bond, a VLAN on it, that VLAN in a bridge with somebody else; a VLAN beside the bond.
        let links = [port(1, 3), port(2, 3), part(4, 3), port(4, 5), port(6, 5), part(7, 1), plain];
        let found = |lower| above(lower, &links).into_iter().collect::<Vec<_>>();
        assert_eq!(found(1), [3, 4, 5, 7]);
        assert_eq!(found(2), [3, 4, 5]);
        assert_eq!(found(6), [5]);
        assert!(found(9).is_empty() && found(100).is_empty());
    }

    #[test]
    fn a_circle_ends() {
        let links = [part(1, 2), part(2, 1)];
        assert_eq!(above(1, &links).into_iter().collect::<Vec<_>>(), [2]);
    }
}
