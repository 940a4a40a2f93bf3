//! Hosts as requests name them: `"example.org"`, `"*.example.org"`, `"192.0.2.1"`, `"[2001:db8::1]"`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::{Unit, UnitError, quote};

/// Longest name, bytes (RFC 1035 section 2.3.4, without the dot at the end).
const LONGEST: usize = 253;
const LONGEST_LABEL: usize = 63;

/// A host without a port, in lower case; with `*.` in front every name below it. IPv6 addresses are in brackets, as a
/// request has them (RFC 9110 section 7.2, RFC 3986 section 3.2.2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(String);

impl Host {
    /// As it is compared with a request's.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if it is an address: clients never send one as a server name (RFC 6066 section 3).
    pub fn is_address(&self) -> bool {
        self.0.starts_with('[') || self.0.parse::<Ipv4Addr>().is_ok()
    }
}

impl Unit for Host {
    const EXPECTED: &'static str = "a host such as \"example.org\", \"*.example.org\" or \"192.0.2.1\"";

    fn instead_of(_: i64) -> Option<String> {
        None
    }
}

/// The host that a text stands for, if it does.
fn read(text: &str) -> Option<Host> {
    let lower = text.to_ascii_lowercase();
    let inner = lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&lower);
    if let Ok(address) = inner.parse::<Ipv6Addr>() {
        return Some(Host(format!("[{address}]")));
    }
    let name = lower.strip_prefix("*.").unwrap_or(&lower);
    if lower.parse::<Ipv4Addr>().is_ok() {
        return Some(Host(lower));
    }
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'_';
    let good = |label: &str| {
        (1..=LONGEST_LABEL).contains(&label.len())
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A name whose last label is a number is taken for a broken address.
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_name =
        name.len() <= LONGEST && name.split('.').all(good) && !last.bytes().all(|b| b.is_ascii_digit());
    is_name.then_some(Host(lower))
}

impl FromStr for Host {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text == "*" || text == "any" {
            return Err(UnitError::new(
                format!("{} is not a host", quote(text)),
                "leave `hosts` out: a route without them is for any host",
            ));
        }
        if let Some(host) = read(text) {
            return Ok(host);
        }
        if !text.is_ascii() {
            return Err(UnitError::new(
                format!("{} is not in the form that clients send: ASCII", quote(text)),
                "write its ASCII form, which begins with xn-- (`idn2 NAME` prints it)",
            ));
        }
        let help = match meant(text) {
            Some(instead) => format!("write {}", quote(&instead)),
            None => format!("write {}", Self::EXPECTED),
        };
        Err(UnitError::new(format!("{} is not a host", quote(text)), help))
    }
}

/// `https://example.org/x`, `example.org:443`, `example.org.`, `.example.org`.
fn meant(text: &str) -> Option<String> {
    let bare = text.trim();
    let bare = bare.split_once("://").map_or(bare, |(_, rest)| rest);
    let bare = bare.split_once('/').map_or(bare, |(host, _)| host);
    let bare = match bare.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => bare,
    };
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    let instead = if bare.starts_with('.') { format!("*{bare}") } else { bare.to_owned() };
    read(&instead).map(|host| host.0)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_names_and_addresses() {
        for (text, host) in [
            ("dashboard.krystal.technology", "dashboard.krystal.technology"),
            ("Example.ORG", "example.org"),
            ("*.example.org", "*.example.org"),
            ("localhost", "localhost"),
            ("192.168.0.104", "192.168.0.104"),
            ("2001:DB8::1", "[2001:db8::1]"),
            ("[2001:db8:0::1]", "[2001:db8::1]"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(text.parse::<Host>().map(|host| host.to_string()), Ok(host.to_owned()), "{text}");
        }
    }

    #[test]
    fn says_what_to_write() {
        for (text, help) in [
            ("*", "leave `hosts` out"),
            ("any", "leave `hosts` out"),
            ("example.org:443", "write \"example.org\""),
            ("[::1]:443", "write \"[::1]\""),
            ("https://example.org/x", "write \"example.org\""),
            ("example.org.", "write \"example.org\""),
            (".example.org", "write \"*.example.org\""),
            ("bücher.example", "write its ASCII form"),
            ("a.*.org", "write a host such as"),
            ("*example.org", "write a host such as"),
            ("192.168.0", "write a host such as"),
            ("192.168.0.300", "write a host such as"),
            ("-a.org", "write a host such as"),
            ("a b", "write a host such as"),
            ("a@b", "write a host such as"),
            ("", "write a host such as"),
        ] {
            let error = text.parse::<Host>().expect_err(text);
            assert!(error.help.starts_with(help), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(text in "(\\*\\.)?[a-zA-Z0-9_.-]{1,20}|[0-9a-f:]{2,20}") {
            if let Ok(host) = text.parse::<Host>() {
                prop_assert_eq!(host.to_string().parse(), Ok(host));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<Host>();
        }
    }
}
