//! Where servers listen: `"0.0.0.0:443"`, `"[::]:443"`, `":443"`, and of upstreams `"127.0.0.1:8000"`, `"unix:/run/app.sock"`.
//!
//! Addresses alone: names would have to be looked up, and what they mean could change after the policy was checked.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{Unit, UnitError, quote};
use crate::proxy::plan::Server;

/// Longest path of a Unix socket, bytes (`sun_path` without the zero at its end).
const LONGEST_PATH: usize = 107;

/// Where a listener is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// A port of every address, IPv4 and IPv6.
    Both(u16),
    /// A port of one address, or of all of one family.
    One(SocketAddr),
}

/// Where a server of an upstream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress(pub Server);

impl Bind {
    /// The addresses to bind, IPv4 first.
    pub fn addresses(self) -> Vec<SocketAddr> {
        match self {
            Self::Both(port) => {
                vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
            }
            Self::One(address) => vec![address],
        }
    }
}

impl Unit for Bind {
    const EXPECTED: &'static str = "an address and a port such as \"0.0.0.0:443\", \"[::]:443\" or \":443\"";

    fn instead_of(number: i64) -> Option<String> {
        (1..=65535).contains(&number).then(|| format!(":{number}"))
    }
}

impl Unit for ServerAddress {
    const EXPECTED: &'static str =
        "an address and a port such as \"127.0.0.1:8000\", or \"unix:/run/app.sock\"";

    fn instead_of(number: i64) -> Option<String> {
        (1..=65535).contains(&number).then(|| format!("127.0.0.1:{number}"))
    }
}

fn port(text: &str) -> Option<u16> {
    super::port::number(text).ok()
}

/// What every address must be, and why one is not.
fn address(text: &str) -> Option<Result<SocketAddr, UnitError>> {
    let read: SocketAddr = text.parse().ok()?;
    let wrong = |why: &str, help: String| Some(Err(UnitError::new(format!("{} {why}", quote(text)), help)));
    if read.port() == 0 {
        return wrong("has port 0, which is none", "write a port from 1 to 65535".to_owned());
    }
    match read.ip() {
        IpAddr::V4(ip) if ip.is_broadcast() || ip.is_multicast() => {
            wrong("is an address that no connection goes to", "write the address of a host".to_owned())
        }
        IpAddr::V6(ip) if ip.is_multicast() => {
            wrong("is an address that no connection goes to", "write the address of a host".to_owned())
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(v4) => wrong(
                "is an IPv4 address in IPv6 form",
                format!("write {}", quote(&SocketAddr::from((v4, read.port())).to_string())),
            ),
            None => Some(Ok(read)),
        },
        IpAddr::V4(_) => Some(Ok(read)),
    }
}

/// What is written in place of an address and a port; `host` is what stands for the port alone.
fn not_an_address(text: &str, expected: &str, host: &str) -> UnitError {
    let bare = text.trim();
    let bare = bare.split_once("://").map_or(bare, |(_, rest)| rest);
    let bare = bare.split_once('/').map_or(bare, |(authority, _)| authority);
    let (name, number) = bare.rsplit_once(':').unwrap_or(("", bare));
    let instead = if address(bare).is_some_and(|read| read.is_ok()) {
        Some(bare.to_owned())
    } else if let Ok(ip) = bare.trim_matches(['[', ']']).parse::<IpAddr>() {
        Some(SocketAddr::new(ip, 8080).to_string())
    } else {
        match (name, port(number)) {
            ("" | "*", Some(port)) => Some(format!("{host}:{port}")),
            ("localhost", Some(port)) => Some(format!("127.0.0.1:{port}")),
            _ => None,
        }
    };
    let named = port(number).is_some() && name.contains(|c: char| c.is_ascii_alphabetic());
    match instead {
        Some(instead) => UnitError::new(
            format!("{} is not an address and a port", quote(text)),
            format!("write {}", quote(&instead)),
        ),
        None if named && !name.contains(':') => UnitError::new(
            format!("{} has a name, and names are not looked up", quote(text)),
            format!("write {expected}"),
        ),
        None => UnitError::new(
            format!("{} is not an address and a port", quote(text)),
            format!("write {expected}"),
        ),
    }
}

impl FromStr for Bind {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if let Some(port) = text.strip_prefix(':').and_then(port) {
            return Ok(Self::Both(port));
        }
        match address(text) {
            Some(read) => read.map(Self::One),
            None => Err(not_an_address(text, Self::EXPECTED, "")),
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Both(port) => write!(f, ":{port}"),
            Self::One(address) => write!(f, "{address}"),
        }
    }
}

impl FromStr for ServerAddress {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path).map(|path| Self(Server::Unix(path)));
        }
        match address(text) {
            Some(Ok(read)) if read.ip().is_unspecified() => {
                let host: IpAddr =
                    if read.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
                Err(UnitError::new(
                    format!("{} is where a server listens, not where it is reached", quote(text)),
                    format!("write {}", quote(&SocketAddr::new(host, read.port()).to_string())),
                ))
            }
            Some(read) => read.map(|read| Self(Server::Tcp(read))),
            None if text.starts_with('/') && unix(text).is_ok() => Err(UnitError::new(
                format!("{} is a path", quote(text)),
                format!("write {} for a Unix socket", quote(&format!("unix:{text}"))),
            )),
            None => Err(not_an_address(text, Self::EXPECTED, "127.0.0.1")),
        }
    }
}

fn unix(path: &str) -> Result<PathBuf, UnitError> {
    let fault = if !Path::new(path).is_absolute() {
        "does not begin with /"
    } else if path.len() > LONGEST_PATH {
        "is longer than the 107 bytes that the path of a socket may have"
    } else if path.contains(|c: char| c.is_control()) {
        "has control characters in it"
    } else {
        return Ok(PathBuf::from(path));
    };
    Err(UnitError::new(
        format!("the path {} {fault}", quote(path)),
        "write the whole path of the socket: \"unix:/run/app.sock\"",
    ))
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Server::Tcp(address) => write!(f, "{address}"),
            Server::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_addresses() {
        let addresses = |text: &str| {
            let bind: Bind = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(bind.to_string(), text);
            bind.addresses().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(addresses(":443"), ["0.0.0.0:443", "[::]:443"]);
        assert_eq!(addresses("[::]:443"), ["[::]:443"]);
        assert_eq!(addresses("127.0.0.1:8006"), ["127.0.0.1:8006"]);
        for text in ["127.0.0.1:8082", "[2001:db8::1]:80", "unix:/run/crm.sock"] {
            let server: ServerAddress = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(server.to_string(), text);
        }
    }

    #[test]
    fn says_what_to_write() {
        for (text, help) in [
            ("443", "write \":443\""),
            ("*:443", "write \":443\""),
            ("localhost:80", "write \"127.0.0.1:80\""),
            ("0.0.0.0", "write \"0.0.0.0:8080\""),
            ("::1", "write \"[::1]:8080\""),
            ("0.0.0.0:0", "write a port from 1 to 65535"),
            ("[::ffff:192.0.2.1]:80", "write \"192.0.2.1:80\""),
            ("224.0.0.1:80", "write the address of a host"),
            ("example.org:80", "write an address and a port"),
            ("", "write an address and a port"),
        ] {
            let error = text.parse::<Bind>().expect_err(text);
            assert!(error.help.starts_with(help), "{text}: {error}");
        }
        for (text, help) in [
            ("8082", "write \"127.0.0.1:8082\""),
            (":8082", "write \"127.0.0.1:8082\""),
            ("http://127.0.0.1:8082/", "write \"127.0.0.1:8082\""),
            ("0.0.0.0:8082", "write \"127.0.0.1:8082\""),
            ("[::]:8082", "write \"[::1]:8082\""),
            ("/run/crm.sock", "write \"unix:/run/crm.sock\""),
            ("unix:crm.sock", "write the whole path"),
            ("app.internal:80", "write an address and a port"),
        ] {
            let error = text.parse::<ServerAddress>().expect_err(text);
            assert!(error.help.starts_with(help), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(ip: IpAddr, port in 1u16..) {
            if let Ok(bind) = SocketAddr::new(ip, port).to_string().parse::<Bind>() {
                prop_assert_eq!(bind.to_string().parse(), Ok(bind));
            }
        }

        #[test]
        fn no_text_panics(text in "[0-9a-f.:\\[\\]/]{0,24}|\\PC*") {
            let _ = text.parse::<Bind>();
            let _ = text.parse::<ServerAddress>();
        }
    }
}
