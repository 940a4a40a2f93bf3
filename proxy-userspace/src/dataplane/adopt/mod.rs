//! Adoption: connections that exist when an interface is enforced for the first time are entered in the tables of flows, so
//! that no session is cut.
//!
//! ```text
//! sockets (sock_diag) ───┬── flow (as its packets arrive) ── found (which, and how many) ── FLOWS
//! conntrack (ctnetlink) ─┘                                     └── networks
//! ```
//!
//! Called by `apply` between egress and ingress: what begins meanwhile is noted by egress, and nothing has been dropped yet.
//! A list that the kernel does not give is a warning: to refuse the policy would leave the host without any.

mod completed;
mod conntrack;
mod flow;
mod found;
mod networks;
mod sockets;

use std::fmt;

use aya::maps::MapError;
use proxy_common::abi::flow::STATE_ESTABLISHED;

use self::found::{Entry, Found, Owner};
use self::networks::Networks;
use super::error::DataplaneError;
use super::shared::{Shared, now_ns};

pub use self::completed::completed;
pub(super) use self::networks::Role;

/// Adopts the connections that cross an interface whose role is new; gives what the operator should know.
///
/// # Errors
/// If the table of flows can't be opened, or the host's addresses can't be listed.
pub(super) fn adopt(shared: &mut Shared, role: impl Fn(&str) -> Role) -> Result<Vec<String>, DataplaneError> {
    let mut found = Found::new(Networks::of_host(role)?);
    let mut notes = Vec::new();
    let mut failed = Vec::new();
    for list in sockets::LISTS {
        match list.read(|flow| found.socket(&flow)) {
            Ok(unreadable) => found.unreadable += unreadable,
            Err(error) => failed.push(format!("{}: {error}", list.name)),
        }
    }
    if !failed.is_empty() {
        notes.push(not_listed("this host", &failed.join("; ")));
    }
    match conntrack::read(|connection| found.tracked(&connection)) {
        Ok(unreadable) => found.unreadable += unreadable,
        Err(error) => notes.push(not_listed("containers behind this host", &error)),
    }
    let mut written = Written::default();
    written.write(shared, &found.chosen(), now_ns()?)?;
    notes.extend(written.failure());
    if found.without_room + found.unreadable > 0 {
        notes.push(format!(
            "not all connections were adopted: the table of flows has no room for {}, and {} can't be read",
            found.without_room, found.unreadable
        ));
    }
    notes.splice(0..0, written.sentence());
    Ok(notes)
}

fn not_listed(whose: &str, why: &dyn fmt::Display) -> String {
    format!(
        "connections of {whose} could not be listed, so those that no service allows end now, and are to be opened again \
         ({why})"
    )
}

/// What was written.
#[derive(Debug, Default)]
struct Written {
    of_host: usize,
    behind: usize,
    refused: usize,
    why: Option<MapError>,
}

impl Written {
    /// Established ones have a table of their own, and what finds no room there goes to the others.
    fn write(&mut self, shared: &mut Shared, entries: &[Entry], now_ns: u64) -> Result<(), DataplaneError> {
        let mut others = Vec::new();
        let mut established = shared.established()?;
        for entry in entries {
            let value = entry.flow.value(now_ns);
            if value.state == STATE_ESTABLISHED && established.insert(entry.key, value, 0).is_ok() {
                self.count(entry.owner);
            } else {
                others.push((entry, value));
            }
        }
        let mut flows = shared.flows()?;
        for (Entry { key, owner, .. }, value) in others {
            match flows.insert(key, value, 0) {
                Ok(()) => self.count(*owner),
                Err(error) => {
                    self.refused += 1;
                    self.why = Some(error);
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, owner: Option<Owner>) {
        self.of_host += usize::from(owner == Some(Owner::Host));
        self.behind += usize::from(owner == Some(Owner::Behind));
    }

    /// What was adopted, if anything was.
    fn sentence(&self) -> Option<String> {
        let plural = if self.of_host + self.behind == 1 { "" } else { "s" };
        let of_host = || format!("adopted {} connection{plural} of this host", self.of_host);
        match (self.of_host, self.behind) {
            (0, 0) => None,
            (_, 0) => Some(of_host()),
            (0, behind) => {
                Some(format!("adopted {behind} connection{plural} of containers behind this host"))
            }
            (1, behind) => {
                Some(format!("adopted 1 connection of this host and {behind} of containers behind it"))
            }
            (_, behind) => Some(format!("{} and {behind} of containers behind it", of_host())),
        }
    }

    fn failure(&self) -> Option<String> {
        let why = self.why.as_ref()?;
        Some(format!(
            "{} entries of connections could not be written to the table of flows: {why}",
            self.refused
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_counts_both_kinds() {
        let sentence = |of_host, behind| Written { of_host, behind, ..Written::default() }.sentence();
        assert_eq!(sentence(0, 0), None);
        assert_eq!(sentence(1, 0).as_deref(), Some("adopted 1 connection of this host"));
        assert_eq!(
            sentence(12, 3).as_deref(),
            Some("adopted 12 connections of this host and 3 of containers behind it")
        );
        assert_eq!(sentence(0, 2).as_deref(), Some("adopted 2 connections of containers behind this host"));
        assert_eq!(
            sentence(1, 1).as_deref(),
            Some("adopted 1 connection of this host and 1 of containers behind it")
        );
    }
}
