//! Addresses and prefixes: `"192.168.0.0/24"`, `"fe80::/10"`, `"203.0.113.9"` (a prefix of one host).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::{Unit, UnitError, quote};

/// A prefix whose host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix(pub IpNet);

/// An address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(pub IpAddr);

impl Unit for Prefix {
    const EXPECTED: &'static str = "a prefix such as \"192.168.0.0/24\" or \"fe80::/10\", or an address";

    fn instead_of(_: i64) -> Option<String> {
        None
    }
}

impl Unit for Address {
    const EXPECTED: &'static str = "an address such as \"203.0.113.9\" or \"2001:db8::9\"";

    fn instead_of(_: i64) -> Option<String> {
        None
    }
}

impl FromStr for Prefix {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let net = match text.split_once('/') {
            None => IpNet::from(text.parse::<IpAddr>().map_err(|_| not_a_prefix(text))?),
            Some((address, length)) => {
                let address = address.parse::<IpAddr>().map_err(|_| not_a_prefix(text))?;
                let longest = if address.is_ipv4() { 32 } else { 128 };
                let plain = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
                let length = length.parse::<u8>().ok().filter(|l| plain && *l <= longest);
                let length = length.ok_or_else(|| not_a_length(text, address, longest))?;
                IpNet::new(address, length).map_err(|_| not_a_length(text, address, longest))?
            }
        };
        if let Some(v4) = mapped(&net) {
            return Err(UnitError::new(
                format!("{} is an IPv4 prefix in IPv6 form, which no packet carries", quote(text)),
                format!("write {}", quote(&Self(v4.into()).to_string())),
            ));
        }
        let right = net.trunc();
        if right != net {
            return Err(UnitError::new(
                format!("the prefix {} has host bits set", quote(text)),
                format!(
                    "write {}, or {} for that one host",
                    quote(&right.to_string()),
                    quote(&net.addr().to_string())
                ),
            ));
        }
        Ok(Self(net))
    }
}

/// The IPv4 prefix in `::ffff:0:0/96`.
fn mapped(net: &IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(net) = net else { return None };
    let v4 = net.addr().to_ipv4_mapped()?;
    Ipv4Net::new(v4, net.prefix_len().checked_sub(96)?).ok().map(|v4| v4.trunc())
}

fn not_a_length(text: &str, address: IpAddr, longest: u8) -> UnitError {
    let mask = text.split_once('/').and_then(|(_, mask)| mask.parse::<IpAddr>().ok());
    let masked = mask.and_then(|mask| IpNet::with_netmask(address, mask).ok());
    match masked {
        Some(net) => UnitError::new(
            format!("{} gives its length as a mask", quote(text)),
            format!("write {}", quote(&net.trunc().to_string())),
        ),
        None => UnitError::new(
            format!("the length of the prefix {} is not a number from 0 to {longest}", quote(text)),
            format!("write {} for that one host, or a length up to {longest}", quote(&address.to_string())),
        ),
    }
}

fn not_a_prefix(text: &str) -> UnitError {
    let message = format!("{} is not a prefix", quote(text));
    let help = if text.contains('%') {
        "leave out the \"%…\": bind the zone to an interface instead, with `interfaces = [\"…\"]`".to_owned()
    } else if text == "any" || text == "all" || text == "*" {
        "write `= \"any\"` in place of the whole list, or \"0.0.0.0/0\" and \"::/0\"".to_owned()
    } else if let Some(instead) = short_v4(text) {
        format!("write {}", quote(&instead))
    } else if text.split_once('-').is_some_and(|(a, b)| both_addresses(a, b)) {
        "write the range as prefixes, for example \"192.168.0.0/25\"".to_owned()
    } else if text.trim() != text && text.trim().parse::<Prefix>().is_ok() {
        format!("write {}", quote(text.trim()))
    } else if text.contains(|c: char| c.is_ascii_alphabetic()) && !text.contains(':') {
        "write addresses, not names: \"192.168.0.0/24\"".to_owned()
    } else {
        format!("write {}", Prefix::EXPECTED)
    };
    UnitError::new(message, help)
}

fn both_addresses(a: &str, b: &str) -> bool {
    a.trim().parse::<IpAddr>().is_ok() && b.trim().parse::<IpAddr>().is_ok()
}

/// `192.168/16`, `10.0.0/24`: the missing zeros put in.
fn short_v4(text: &str) -> Option<String> {
    let (address, length) = text.split_once('/')?;
    let mut parts: Vec<&str> = address.split('.').collect();
    if parts.len() >= 4 {
        return None;
    }
    parts.resize(4, "0");
    let full: IpNet = format!("{}/{length}", parts.join(".")).parse().ok()?;
    Some(full.trunc().to_string())
}

impl fmt::Display for Prefix {
    /// With its length, also when that is one host's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Address {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return match address {
                IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(UnitError::new(
                    format!("{} is an IPv4 address in IPv6 form, which no packet carries", quote(text)),
                    format!("write {}", quote(&v6.to_canonical().to_string())),
                )),
                address => Ok(Self(address)),
            };
        }
        let help = match text.parse::<IpNet>() {
            Ok(net) => format!("write one address: {}", quote(&example_host(&net).to_string())),
            Err(_) => format!("write {}", Self::EXPECTED),
        };
        Err(UnitError::new(format!("{} is not an address", quote(text)), help))
    }
}

/// Some host of a prefix.
fn example_host(net: &IpNet) -> IpAddr {
    if net.addr() != net.network() || net.prefix_len() == net.max_prefix_len() {
        return net.addr();
    }
    match net.network() {
        IpAddr::V4(a) => Ipv4Addr::from(u32::from(a) | 1).into(),
        IpAddr::V6(a) => Ipv6Addr::from(u128::from(a) | 1).into(),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bare_address_is_a_prefix_of_one_host() {
        for (text, full) in [
            ("192.168.0.0/24", "192.168.0.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fe80::/10", "fe80::/10"),
            ("203.0.113.9", "203.0.113.9/32"),
            ("2001:db8::9", "2001:db8::9/128"),
        ] {
            assert_eq!(text.parse::<Prefix>().expect(text).to_string(), full);
        }
    }

    #[test]
    fn says_what_to_write() {
        for (text, help) in [
            ("192.168.0.5/24", "write \"192.168.0.0/24\", or \"192.168.0.5\" for that one host"),
            ("fe80::1/10", "write \"fe80::/10\", or \"fe80::1\" for that one host"),
            ("192.168.0.0/33", "write \"192.168.0.0\" for that one host, or a length up to 32"),
            ("192.168.0.0/255.255.255.0", "write \"192.168.0.0/24\""),
            ("192.168/16", "write \"192.168.0.0/16\""),
            ("::ffff:192.168.0.0/120", "write \"192.168.0.0/24\""),
            ("fe80::1%wlan0", "leave out the \"%…\""),
            ("10.0.0.1-10.0.0.9", "write the range as prefixes"),
            ("example.org", "write addresses, not names"),
            (" 10.0.0.0/8", "write \"10.0.0.0/8\""),
            ("10.0.0.0/+8", "write \"10.0.0.0\" for that one host"),
            ("", "write a prefix such as"),
        ] {
            let error = text.parse::<Prefix>().expect_err(text);
            assert!(error.help.starts_with(help), "{text}: {error}");
        }
        for (text, help) in [
            ("192.168.0.0/24", "write one address: \"192.168.0.1\""),
            ("::ffff:10.0.0.1", "write \"10.0.0.1\""),
            ("localhost", "write an address such as"),
        ] {
            let error = text.parse::<Address>().expect_err(text);
            assert!(error.help.starts_with(help), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(v4: bool, bits: u128, length in 0..=128u8) {
            let net = if v4 {
                IpNet::new(Ipv4Addr::from(bits as u32).into(), length.min(32))
            } else {
                IpNet::new(Ipv6Addr::from(bits).into(), length)
            };
            let prefix = Prefix(net.expect("a length in range").trunc());
            prop_assume!(mapped(&prefix.0).is_none());
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
            let address = Address(prefix.0.addr());
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn no_text_panics(text in "[0-9a-f:./%-]{0,40}|\\PC*") {
            let _ = text.parse::<Prefix>();
            let _ = text.parse::<Address>();
        }
    }
}
