//! Ports: `"tcp/8000"`, `"udp/53"`, `"tcp/8000-8010"`.

use std::fmt;
use std::str::FromStr;

use super::{Unit, UnitError, quote};
use crate::policy::model::{PortRange, Transport};

/// A run of ports of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports(pub PortRange);

/// One port of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Protocol.
    pub transport: Transport,
    /// Number; not 0.
    pub number: u16,
}

impl Unit for Ports {
    const EXPECTED: &'static str = "a port such as \"tcp/8000\", \"udp/53\" or \"tcp/8000-8010\"";

    fn instead_of(number: i64) -> Option<String> {
        (1..=65535).contains(&number).then(|| format!("tcp/{number}"))
    }
}

impl Unit for Port {
    const EXPECTED: &'static str = "a port such as \"tcp/8000\" or \"udp/53\"";

    fn instead_of(number: i64) -> Option<String> {
        (1..=65535).contains(&number).then(|| format!("tcp/{number}"))
    }
}

fn transport(name: &str) -> Option<Transport> {
    match name {
        "tcp" => Some(Transport::Tcp),
        "udp" => Some(Transport::Udp),
        _ => None,
    }
}

/// A port number from 1 to 65535: `Err(true)` if it is a number but not one of these.
pub(super) fn number(text: &str) -> Result<u16, bool> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(false);
    }
    text.parse().ok().filter(|n| *n != 0).ok_or(true)
}

/// Why a text is not a run of ports.
enum Fault {
    Backwards { instead: String },
    OutOfRange,
    NotPorts,
}

fn read(text: &str) -> Result<PortRange, Fault> {
    let (name, ports) = text.split_once('/').ok_or(Fault::NotPorts)?;
    let transport = transport(name).ok_or(Fault::NotPorts)?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    match (number(first), number(last)) {
        (Ok(first), Ok(last)) if first <= last => Ok(PortRange { transport, first, last }),
        (Ok(first), Ok(last)) => Err(Fault::Backwards { instead: format!("{name}/{last}-{first}") }),
        (Err(false), _) | (_, Err(false)) => Err(Fault::NotPorts),
        (Err(true), _) | (_, Err(true)) => Err(Fault::OutOfRange),
    }
}

impl FromStr for Ports {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        read(text).map(Self).map_err(|fault| match fault {
            Fault::Backwards { instead } => UnitError::new(
                format!("the ports {} run backwards", quote(text)),
                format!("write {}", quote(&instead)),
            ),
            Fault::OutOfRange => {
                UnitError::new(format!("{} is out of range", quote(text)), "write a port from 1 to 65535")
            }
            Fault::NotPorts => not_ports(text),
        })
    }
}

fn not_ports(text: &str) -> UnitError {
    let help = match meant(text) {
        Some(instead) => format!("write {}", quote(&instead)),
        None => format!("write {}", Ports::EXPECTED),
    };
    UnitError::new(format!("{} is not a port", quote(text)), help)
}

/// `8000`, `8000/tcp`, `TCP/8000`, `tcp:8000`, `tcp/*` and the like.
fn meant(text: &str) -> Option<String> {
    let bare: String = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .take(32)
        .collect::<String>()
        .to_lowercase()
        .replace(':', "/");
    let swapped = bare.split_once('/').map(|(a, b)| format!("{b}/{a}"));
    let all = bare.strip_suffix("/*").map(|name| format!("{name}/1-65535"));
    [Some(format!("tcp/{bare}")), Some(bare), swapped, all]
        .into_iter()
        .flatten()
        .find(|candidate| candidate != text && read(candidate).is_ok())
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortRange { transport, first, last } = self.0;
        write!(f, "{}/{first}", transport_name(transport))?;
        if first == last { Ok(()) } else { write!(f, "-{last}") }
    }
}

fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}

impl FromStr for Port {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let Ports(PortRange { transport, first, last }) = text.parse()?;
        if first != last {
            return Err(UnitError::new(
                format!("{} is more than one port", quote(text)),
                format!("write {}", quote(&format!("{}/{first}", transport_name(transport)))),
            ));
        }
        Ok(Self { transport, number: first })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", transport_name(self.transport), self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_ports_and_ranges() {
        let range = |transport, first, last| Ok(Ports(PortRange { transport, first, last }));
        assert_eq!("tcp/8000".parse(), range(Transport::Tcp, 8000, 8000));
        assert_eq!("udp/53".parse(), range(Transport::Udp, 53, 53));
        assert_eq!("tcp/8000-8010".parse(), range(Transport::Tcp, 8000, 8010));
        assert_eq!("tcp/65535".parse(), range(Transport::Tcp, 65535, 65535));
    }

    #[test]
    fn says_what_to_write() {
        for (text, help) in [
            ("8000", "write \"tcp/8000\""),
            ("8000/tcp", "write \"tcp/8000\""),
            ("TCP/8000", "write \"tcp/8000\""),
            ("tcp:8000", "write \"tcp/8000\""),
            ("tcp/*", "write \"tcp/1-65535\""),
            ("tcp/8010-8000", "write \"tcp/8000-8010\""),
            ("tcp/0", "write a port from 1 to 65535"),
            ("tcp/65536", "write a port from 1 to 65535"),
            ("tcp/1-99999", "write a port from 1 to 65535"),
            ("tcp/http", "write a port such as"),
            ("icmp/8", "write a port such as"),
            ("tcp/+80", "write a port such as"),
            ("", "write a port such as"),
        ] {
            let error = text.parse::<Ports>().expect_err(text);
            assert!(error.help.starts_with(help), "{text}: {error}");
        }
        let error = "tcp/1-2".parse::<Port>().expect_err("a range");
        assert_eq!(error.help, "write \"tcp/1\"");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(tcp: bool, a in 1u16.., b in 1u16..) {
            let transport = if tcp { Transport::Tcp } else { Transport::Udp };
            let ports = Ports(PortRange { transport, first: a.min(b), last: a.max(b) });
            prop_assert_eq!(ports.to_string().parse(), Ok(ports));
            let port = Port { transport, number: a };
            prop_assert_eq!(port.to_string().parse(), Ok(port));
        }

        #[test]
        fn no_text_panics(text in "(tcp|udp)/[0-9-]{0,12}|\\PC*") {
            let _ = text.parse::<Ports>();
            let _ = text.parse::<Port>();
        }
    }
}
