//! What a ban names: an address or a prefix. An IPv6 address without a length means its /64, which one host has for itself.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv6Net};

use super::UnitError;
use super::prefix::Prefix;

/// The bits of an IPv6 address that tell networks apart, and hosts not.
const NETWORK: u8 = 64;

/// An address or a prefix as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The prefix; of an address, that one host's.
    pub net: IpNet,
    /// It was written without a length.
    pub bare: bool,
}

impl Target {
    /// What it stands for.
    pub fn prefix(&self) -> IpNet {
        match self.net {
            IpNet::V6(net) if self.bare => {
                Ipv6Net::new(net.addr(), NETWORK).map_or(self.net, |net| IpNet::V6(net.trunc()))
            }
            net => net,
        }
    }

    /// Who a packet is put down to: its source, or the network that an IPv6 source has for itself.
    pub fn accountable(source: IpAddr) -> IpNet {
        Self { net: source.into(), bare: true }.prefix()
    }

    /// Everything that it may have been banned as.
    pub fn meant(&self) -> impl Iterator<Item = IpNet> + use<> {
        let whole = self.prefix();
        [whole].into_iter().chain((whole != self.net).then_some(self.net))
    }
}

impl FromStr for Target {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bare = !text.contains('/');
        let Prefix(net) = as_v4(text).as_deref().unwrap_or(text).parse()?;
        Ok(Self { net, bare })
    }
}

/// An IPv4 address or prefix that is written as IPv6. Programs that listen to both families see IPv4 clients so; what is
/// banned is packets, which never are.
fn as_v4(text: &str) -> Option<String> {
    let (address, length) =
        text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let v4 = address.parse::<Ipv6Addr>().ok()?.to_ipv4_mapped()?;
    match length {
        None => Some(v4.to_string()),
        Some(length) => Some(format!("{v4}/{}", length.parse::<u8>().ok()?.checked_sub(96)?)),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bare { self.net.addr().fmt(f) } else { self.net.fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv6_means_its_network() {
        for (text, prefix) in [
            ("203.0.113.9", "203.0.113.9/32"),
            ("203.0.113.0/24", "203.0.113.0/24"),
            ("2001:db8:1:2:3::9", "2001:db8:1:2::/64"),
            ("2001:db8::9/128", "2001:db8::9/128"),
            ("2001:db8::/48", "2001:db8::/48"),
            ("::ffff:203.0.113.9", "203.0.113.9/32"),
            ("::ffff:203.0.113.9/128", "203.0.113.9/32"),
            ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
        ] {
            let target: Target = text.parse().expect(text);
            assert_eq!(target.prefix().to_string(), prefix, "{text}");
        }
    }

    #[test]
    fn an_address_ends_the_ban_of_both() {
        let target: Target = "2001:db8::9".parse().expect("an address");
        let meant: Vec<_> = target.meant().map(|net| net.to_string()).collect();
        assert_eq!(meant, ["2001:db8::/64", "2001:db8::9/128"]);
        let target: Target = "2001:db8::9/128".parse().expect("a prefix");
        assert_eq!(target.meant().count(), 1);
    }

    #[test]
    fn says_what_to_write() {
        for (text, help) in [
            ("203.0.113.9/24", "write \"203.0.113.0/24\""),
            ("::ffff:203.0.113.9/120", "write \"203.0.113.0/24\""),
            ("::ffff:0:0/90", "write"),
            ("example.org", "write addresses, not names"),
        ] {
            let error = text.parse::<Target>().expect_err(text);
            assert!(error.help.starts_with(help), "{text}: {error}");
        }
    }
}
