//! The policy file as serde sees it: every key, its type, nothing resolved.
//!
//! Filled by [`super::document`], one table at a time so that an error in one hides none in another; read by
//! [`super::validate`]. A key that is not here is refused. Required keys are optional here: what lacks them is
//! reported with the rest.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use toml::Spanned;

use super::model::{DefaultAction, HookChoice, Refusal};
use super::units::{
    Address, Amount, ByteRate, CountRate, InterfacePattern, Port, Ports, Prefix, TimeSpan, Unit, UnitError,
    quote,
};

/// Sections of the file, and how each is written.
pub(super) const SECTIONS: [(&str, &str); 13] = [
    ("version", "version = 1"),
    ("interfaces", "[interfaces.eth0]"),
    ("zones", "[zones]"),
    ("limits", "[limits.NAME]"),
    ("services", "[services.NAME]"),
    ("plumbing", "[plumbing]"),
    ("timeouts", "[timeouts]"),
    ("proxy", "[proxy]"),
    ("listeners", "[listeners.NAME]"),
    ("acme", "[acme.NAME]"),
    ("upstreams", "[upstreams.NAME]"),
    ("routes", "[routes.NAME]"),
    ("test", "[[test]]"),
];

/// `[interfaces.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { default = \"drop\" }")]
pub(super) struct Interface {
    pub(super) hook: Option<Spanned<HookChoice>>,
    pub(super) default: Option<Spanned<DefaultAction>>,
    pub(super) deny: Option<Spanned<Names>>,
    pub(super) isolate: Option<Spanned<Names>>,
}

/// A value of `[zones]`.
#[derive(Debug)]
pub(super) enum Zone {
    /// `"any"`
    Any,
    /// A list of prefixes.
    Prefixes(Vec<Spanned<Prefix>>),
    /// A table.
    Table(ZoneTable),
}

/// A zone in its long form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ZoneTable {
    pub(super) prefixes: Option<Spanned<Vec<Spanned<Prefix>>>>,
    pub(super) file: Option<Spanned<String>>,
    pub(super) interfaces: Option<Spanned<Vec<Spanned<InterfacePattern>>>>,
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ZoneVisitor;

        impl<'de> Visitor<'de> for ZoneVisitor {
            type Value = Zone;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of prefixes such as [\"192.168.0.0/24\"], \"any\", or a table such as { file = \"list.txt\" }")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Zone, E> {
                if text == "any" {
                    return Ok(Zone::Any);
                }
                let help = match text.parse::<Prefix>() {
                    Ok(_) => format!("write a list: [{}]", quote(text)),
                    Err(_) => "write a list of prefixes such as [\"192.168.0.0/24\"], or \"any\"".to_owned(),
                };
                Err(E::custom(UnitError::new(format!("{} is not a zone", quote(text)), help)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Zone, A::Error> {
                collect(seq).map(Zone::Prefixes)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Zone, A::Error> {
                ZoneTable::deserialize(MapAccessDeserializer::new(map)).map(Zone::Table)
            }
        }

        deserializer.deserialize_any(ZoneVisitor)
    }
}

pub(super) fn collect<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(mut seq: A) -> Result<Vec<T>, A::Error> {
    let mut items = Vec::new();
    while let Some(item) = seq.next_element()? {
        items.push(item);
    }
    Ok(items)
}

/// Names of zones: a list or a single one.
#[derive(Debug)]
pub(super) enum Names {
    One(String),
    List(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamesVisitor;

        impl<'de> Visitor<'de> for NamesVisitor {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of zones such as [\"lan\"]")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Names, E> {
                Ok(Names::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Names, A::Error> {
                collect(seq).map(Names::List)
            }
        }

        deserializer.deserialize_any(NamesVisitor)
    }
}

/// `[limits.NAME]`
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table such as { per-source = { packets = \"2000/s\" } }"
)]
pub(super) struct Limit {
    pub(super) per_source: Option<Spanned<PerSource>>,
    pub(super) per_prefix: Option<Spanned<PerPrefix>>,
    pub(super) service: Option<Spanned<InTotal>>,
    pub(super) exceed: Option<Spanned<Exceed>>,
}

/// Rates of one source.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table such as { packets = \"2000/s\" }"
)]
pub(super) struct PerSource {
    pub(super) packets: Option<Spanned<CountRate>>,
    pub(super) bytes: Option<Spanned<ByteRate>>,
    pub(super) connections: Option<Spanned<CountRate>>,
    pub(super) burst: Option<Spanned<Amount>>,
    pub(super) bytes_burst: Option<Spanned<Amount>>,
    pub(super) connections_burst: Option<Spanned<Amount>>,
    pub(super) v6_prefix: Option<Spanned<i64>>,
}

/// Rates of a network of sources.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table such as { packets = \"2000/s\" }"
)]
pub(super) struct PerPrefix {
    pub(super) packets: Option<Spanned<CountRate>>,
    pub(super) bytes: Option<Spanned<ByteRate>>,
    pub(super) connections: Option<Spanned<CountRate>>,
    pub(super) burst: Option<Spanned<Amount>>,
    pub(super) bytes_burst: Option<Spanned<Amount>>,
    pub(super) connections_burst: Option<Spanned<Amount>>,
    pub(super) v4_prefix: Option<Spanned<i64>>,
    pub(super) v6_prefix: Option<Spanned<i64>>,
}

/// Rates of everyone together.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table such as { packets = \"2000/s\" }"
)]
pub(super) struct InTotal {
    pub(super) packets: Option<Spanned<CountRate>>,
    pub(super) bytes: Option<Spanned<ByteRate>>,
    pub(super) connections: Option<Spanned<CountRate>>,
    pub(super) burst: Option<Spanned<Amount>>,
    pub(super) bytes_burst: Option<Spanned<Amount>>,
    pub(super) connections_burst: Option<Spanned<Amount>>,
}

/// What happens to packets over a limit, and to who sends them.
#[derive(Debug)]
pub(super) enum Exceed {
    /// `"drop"`
    Drop,
    /// `{ ban = "10m", after = 100 }`
    Ban(Box<Ban>),
}

/// A ban of who exceeds a limit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { ban = \"10m\", after = 100 }")]
pub(super) struct Ban {
    pub(super) ban: Option<Spanned<TimeSpan>>,
    pub(super) after: Option<Spanned<i64>>,
}

impl<'de> Deserialize<'de> for Exceed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ExceedVisitor;

        impl<'de> Visitor<'de> for ExceedVisitor {
            type Value = Exceed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"drop\", or a table such as { ban = \"10m\", after = 100 }")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Exceed, E> {
                if text == "drop" {
                    return Ok(Exceed::Drop);
                }
                Err(E::custom(UnitError::new(
                    format!("{} is nothing that can be done about what is over a limit", quote(text)),
                    "write \"drop\", or `{ ban = \"10m\" }`",
                )))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Exceed, A::Error> {
                Ban::deserialize(MapAccessDeserializer::new(map)).map(|ban| Exceed::Ban(Box::new(ban)))
            }
        }

        deserializer.deserialize_any(ExceedVisitor)
    }
}

/// `[services.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { ports = [\"tcp/8000\"], allow = [\"lan\"] }")]
pub(super) struct Service {
    pub(super) ports: Option<Spanned<Vec<Spanned<Ports>>>>,
    pub(super) allow: Option<Spanned<Names>>,
    pub(super) deny: Option<Spanned<Names>>,
    pub(super) limit: Option<Spanned<String>>,
    pub(super) refuse: Option<Spanned<Refusal>>,
    pub(super) audit: Option<Spanned<bool>>,
}

/// `[plumbing]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table such as { mdns = true }")]
pub(super) struct Plumbing {
    pub(super) router_advertisements: Option<Spanned<bool>>,
    pub(super) dhcp: Option<Spanned<bool>>,
    pub(super) dhcpv6: Option<Spanned<bool>>,
    pub(super) multicast_membership: Option<Spanned<bool>>,
    pub(super) mdns: Option<bool>,
    pub(super) ping: Option<bool>,
    pub(super) ping_limit: Option<Spanned<String>>,
}

/// `[timeouts]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table such as { udp = \"180s\" }")]
pub(super) struct Timeouts {
    pub(super) tcp_opening: Option<Spanned<TimeSpan>>,
    pub(super) tcp_established: Option<Spanned<TimeSpan>>,
    pub(super) tcp_closing: Option<Spanned<TimeSpan>>,
    pub(super) udp: Option<Spanned<TimeSpan>>,
    pub(super) icmp: Option<Spanned<TimeSpan>>,
}

/// `[[test]]`
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table such as { from = \"203.0.113.9\", to = \"tcp/22\", expect = \"drop\" }"
)]
pub(super) struct Test {
    pub(super) from: Option<Address>,
    pub(super) to: Option<Target>,
    pub(super) interface: Option<Spanned<InterfacePattern>>,
    pub(super) expect: Option<Expect>,
}

/// What a test sends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Ping,
    Port(Port),
}

impl Unit for Target {
    const EXPECTED: &'static str = "a port such as \"tcp/8000\", or \"ping\"";

    fn instead_of(number: i64) -> Option<String> {
        Port::instead_of(number)
    }
}

impl std::str::FromStr for Target {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text == "ping" { Ok(Self::Ping) } else { text.parse().map(Self::Port) }
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::units::deserialize(deserializer)
    }
}

/// What a test expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Expect {
    Pass,
    Drop,
}
