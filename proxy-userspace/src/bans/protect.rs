//! What a ban must not hit without `--force`: this host, its gateways, whoever sits at the keyboard, and half of the internet.
//!
//! Called by `tollgate ban` for each prefix before anything is changed.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::dataplane::{DataplaneError, gateways, host_addresses};
use crate::policy::units::Target;
use crate::session;

/// The widest prefixes that are banned without a word.
const WIDEST_V4: u8 = 16;
const WIDEST_V6: u8 = 32;

/// Addresses that are needed.
#[derive(Clone, Debug, Default)]
pub struct Protected {
    addresses: Vec<(IpAddr, &'static str)>,
}

/// What becomes of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// It is banned as it was meant.
    Whole(IpNet),
    /// An IPv6 address is banned without the rest of its /64, in which there is something that is needed.
    Alone(IpNet, String),
}

impl Resolved {
    /// What is banned.
    pub const fn net(&self) -> IpNet {
        match self {
            Self::Whole(net) | Self::Alone(net, _) => *net,
        }
    }
}

impl Protected {
    /// Asks the kernel, and the environment of this process and of those that it came from: sudo hands on none.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn of_host() -> Result<Self, DataplaneError> {
        let peers = session::peers().into_iter().map(|peer| peer.remote.ip().to_canonical());
        let peers = peers.map(|address| (address, "the other end of this session,"));
        let mut protected = Self::without_session()?;
        protected.addresses.extend(peers);
        Ok(protected)
    }

    /// The same for a daemon, whose bans are not made from any session.
    ///
    /// # Errors
    /// As [`Protected::of_host`].
    pub fn without_session() -> Result<Self, DataplaneError> {
        let own = host_addresses()?.into_iter().map(|(_, address)| (address, "this host's own address"));
        let hops = gateways()?.into_iter().map(|address| (address, "the gateway"));
        Ok(Self { addresses: own.chain(hops).collect() })
    }

    /// What is banned for a target.
    ///
    /// # Errors
    /// Why nothing is, and what to write instead.
    pub fn resolve(&self, target: &Target, force: bool) -> Result<Resolved, String> {
        let net = target.prefix();
        if force {
            return Ok(Resolved::Whole(net));
        }
        let widest = if net.addr().is_ipv4() { WIDEST_V4 } else { WIDEST_V6 };
        if net.prefix_len() < widest {
            return Err(format!("{net} is wider than /{widest}"));
        }
        let Some((needed, what)) = self.inside(&net) else { return Ok(Resolved::Whole(net)) };
        let host = IpNet::from(target.net.addr());
        if target.bare
            && let Some((needed, what)) = self.inside(&host)
        {
            return Err(format!("{needed} is {}", what.trim_end_matches(',')));
        }
        let has = format!("{what} {needed}");
        if target.bare {
            return Ok(Resolved::Alone(host, has));
        }
        Err(format!("{net} has {has}"))
    }

    fn inside(&self, net: &IpNet) -> Option<(IpAddr, &'static str)> {
        self.addresses.iter().find(|(address, _)| net.contains(address)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Protected {
        let of = |text: &str, what| (text.parse().expect("an address"), what);
        Protected {
            addresses: vec![
                of("192.0.2.10", "this host's own address"),
                of("2001:db8::10", "this host's own address"),
                of("192.0.2.1", "the gateway"),
                of("fe80::1", "the gateway"),
                of("198.51.100.20", "the other end of this session,"),
            ],
        }
    }

    fn resolve(text: &str, force: bool) -> Result<String, String> {
        let target = text.parse().expect("a target");
        host().resolve(&target, force).map(|resolved| match resolved {
            Resolved::Whole(net) => net.to_string(),
            Resolved::Alone(net, has) => format!("{net} alone: {has}"),
        })
    }

    #[test]
    fn what_is_needed_is_not_banned() {
        for (text, why) in [
            ("192.0.2.10", "192.0.2.10 is this host's own address"),
            ("192.0.2.1", "192.0.2.1 is the gateway"),
            ("192.0.2.0/28", "192.0.2.0/28 has this host's own address 192.0.2.10"),
            ("::ffff:192.0.2.1", "192.0.2.1 is the gateway"),
            ("198.51.100.20", "198.51.100.20 is the other end of this session"),
            ("198.51.0.0/16", "198.51.0.0/16 has the other end of this session, 198.51.100.20"),
            ("198.50.0.0/15", "198.50.0.0/15 is wider than /16"),
            ("2001:db8::/31", "2001:db8::/31 is wider than /32"),
            ("0.0.0.0/0", "0.0.0.0/0 is wider than /16"),
            ("2001:db8::10", "2001:db8::10 is this host's own address"),
            ("2001:db8::10/128", "2001:db8::10/128 has this host's own address 2001:db8::10"),
        ] {
            assert_eq!(resolve(text, false), Err(why.to_owned()), "{text}");
            assert!(resolve(text, true).is_ok(), "{text}");
        }
    }

    #[test]
    fn the_rest_is() {
        for (text, banned) in [
            ("192.0.2.11", "192.0.2.11/32"),
            ("203.0.0.0/16", "203.0.0.0/16"),
            ("2001:db9::/32", "2001:db9::/32"),
            ("2001:db8:1::7", "2001:db8:1::/64"),
            ("2001:db8:1::7/128", "2001:db8:1::7/128"),
            ("2001:db8::11", "2001:db8::11/128 alone: this host's own address 2001:db8::10"),
            ("fe80::11", "fe80::11/128 alone: the gateway fe80::1"),
        ] {
            assert_eq!(resolve(text, false), Ok(banned.to_owned()), "{text}");
        }
    }
}
