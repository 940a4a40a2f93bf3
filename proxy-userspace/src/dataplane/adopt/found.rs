//! Which of the connections that were found are adopted: those that cross a new interface, each once, and no more than there
//! is room for.

use std::collections::HashSet;

use proxy_common::abi::flow::{FLOWS_LEN, FlowKey};

use super::conntrack::Connection;
use super::flow::{Flow, Stage};
use super::networks::Networks;

/// Entries that are written at most: an eighth of the table stays free for what begins next.
const ROOM: usize = FLOWS_LEN as usize / 8 * 7;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This host's.
    Host,
    /// A container's, or another host's that this one forwards for.
    Behind,
}

/// An entry to be written.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// As the table names it.
    pub key: FlowKey,
    /// As it arrives.
    pub flow: Flow,
    /// Whose connection it counts as; `None` if the other direction of the same connection is counted.
    pub owner: Option<Owner>,
}

/// What was found: each key once, and no more than there is room for.
#[derive(Debug)]
pub struct Found {
    networks: Networks,
    seen: HashSet<FlowKey>,
    /// By [`Stage::BY_WORTH`].
    entries: [Vec<Entry>; 4],
    /// Connections that were left out.
    pub without_room: usize,
    /// Records that could not be decoded.
    pub unreadable: usize,
}

impl Found {
    /// Nothing yet.
    pub fn new(networks: Networks) -> Self {
        Self { networks, seen: HashSet::new(), entries: Default::default(), without_room: 0, unreadable: 0 }
    }

    /// A connection of a socket of this host.
    pub fn socket(&mut self, flow: &Flow) {
        self.add(flow, Some(Owner::Host));
    }

    /// A tracked connection: of this host, or of one behind it.
    pub fn tracked(&mut self, connection: &Connection) {
        let of_host = [connection.originator, connection.responder];
        let of_host = of_host.iter().any(|address| self.networks.is_own(*address));
        let mut owner = Some(if of_host { Owner::Host } else { Owner::Behind });
        for flow in [connection.from_responder, connection.from_originator].into_iter().flatten() {
            if self.add(&flow, owner) {
                owner = None;
            }
        }
    }

    /// True if it is new and crosses a new interface.
    fn add(&mut self, flow: &Flow, owner: Option<Owner>) -> bool {
        if !self.networks.crosses(flow.remote.address, flow.local.address) {
            return false;
        }
        let Some(key) = flow.key() else { return false };
        let Some((_, entries)) =
            Stage::BY_WORTH.iter().zip(&mut self.entries).find(|(stage, _)| **stage == flow.stage)
        else {
            return false;
        };
        if self.seen.contains(&key) {
            return false;
        }
        if entries.len() >= ROOM {
            self.without_room += usize::from(owner.is_some());
            return false;
        }
        self.seen.insert(key);
        entries.push(Entry { key, flow: *flow, owner });
        true
    }

    /// Those that are written: the worthiest first, as many as there is room for.
    pub fn chosen(&mut self) -> Vec<Entry> {
        let all = self.entries.iter().flatten();
        self.without_room += all.clone().skip(ROOM).filter(|entry| entry.owner.is_some()).count();
        all.take(ROOM).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::flow::End;
    use super::super::networks::Role;
    use super::*;

    fn end(address: &str, port: u16) -> End {
        End::new(address.parse().expect("an address"), port)
    }

    fn flow(remote: End, local: End, stage: Stage) -> Flow {
        Flow { protocol: 6, remote, local, stage }
    }

    /// On a host of which nothing but loopback's addresses is known.
    fn nothing() -> Found {
        let loopback = |name: &str| if name == "lo" { Role::Other } else { Role::New };
        Found::new(Networks::of_host(loopback).expect("addresses"))
    }

    #[test]
    fn a_connection_that_both_lists_have_counts_once_for_the_host() {
        let mut found = nothing();
        let (remote, local) = (end("203.0.113.9", 443), end("198.51.100.4", 50000));
        let arriving = flow(remote, local, Stage::Established);
        found.socket(&arriving);
        found.tracked(&Connection {
            from_originator: None,
            from_responder: Some(arriving),
            originator: local.address,
            responder: remote.address,
        });
        let owners: Vec<_> = found.chosen().iter().map(|entry| entry.owner).collect();
        assert_eq!(owners, [Some(Owner::Host)]);
    }

    #[test]
    fn a_forwarded_connection_has_two_entries_and_counts_once() {
        let mut found = nothing();
        let (container, outside) = (end("198.51.100.2", 41000), end("203.0.113.9", 80));
        let translated = end("198.51.100.4", 61000);
        found.tracked(&Connection {
            from_originator: Some(flow(container, outside, Stage::Established)),
            from_responder: Some(flow(outside, translated, Stage::Established)),
            originator: container.address,
            responder: outside.address,
        });
        let owners: Vec<_> = found.chosen().iter().map(|entry| entry.owner).collect();
        assert_eq!(owners, [Some(Owner::Behind), None]);
    }

    #[test]
    fn where_room_is_short_sessions_go_first_and_the_rest_is_counted() {
        let mut found = nothing();
        let arriving = |n: usize, stage| {
            let address = format!("203.0.{}.{}", n >> 8 & 255, n & 255);
            flow(end(&address, 1000 + (n >> 16) as u16), end("198.51.100.4", 443), stage)
        };
        for n in 0..1000 {
            found.socket(&arriving(n, Stage::Closing));
        }
        for n in 1000..ROOM + 500 {
            found.socket(&arriving(n, Stage::Established));
        }
        let chosen = found.chosen();
        assert_eq!(chosen.len(), ROOM);
        let closing = chosen.iter().filter(|entry| entry.flow.stage == Stage::Closing).count();
        assert_eq!((closing, found.without_room), (500, 500));
        assert!(ROOM < FLOWS_LEN as usize);
    }
}
