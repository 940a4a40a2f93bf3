//! The syntaxes that values of a policy share: durations, rates, sizes, prefixes, ports, interface names,
//! hosts and where servers listen.
//!
//! Each is a type with `FromStr` (used by the command line too), `Display` (its canonical form, which parses
//! back to the same value) and `Deserialize` (used by [`super::schema`]). A text that does not parse says what
//! is wrong and what to write instead.

mod host;
mod interface;
mod port;
mod prefix;
mod rate;
mod size;
mod socket;
mod target;
mod time;

pub use host::Host;
pub use interface::InterfacePattern;
pub use port::{Port, Ports};
pub use prefix::{Address, Prefix};
pub use rate::{ByteRate, CountRate};
pub use size::{Amount, Size};
pub use socket::{Bind, ServerAddress};
pub use target::Target;
pub use time::TimeSpan;

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Deserializer, Error, Visitor};

/// Why a text is not a value of its kind, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{HELP}{help}")]
pub struct UnitError {
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub help: String,
}

/// What stands between message and help in an error's text: how both travel through serde.
pub(super) const HELP: &str = "\nhelp: ";

impl UnitError {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// A kind of value that is written as text.
pub(super) trait Unit: FromStr<Err = UnitError> {
    /// What it is, with an example: completes "expected …" and "write …".
    const EXPECTED: &'static str;

    /// What to write in place of a bare number.
    fn instead_of(number: i64) -> Option<String>;
}

/// Reads a [`Unit`], refusing other TOML types with what to write instead.
pub(super) fn deserialize<'de, T: Unit, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Text<T>(PhantomData<T>);

    impl<T: Unit> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(T::EXPECTED)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
            let help = match T::instead_of(number) {
                Some(instead) => format!("write {}", quote(&instead)),
                None => format!("write {}", T::EXPECTED),
            };
            Err(E::custom(UnitError::new(format!("the number {number} is not {}", T::EXPECTED), help)))
        }
    }

    deserializer.deserialize_any(Text(PhantomData))
}

/// Implements `Deserialize` for units.
macro_rules! deserialize_units {
    ($($unit:ty),*) => {
        $(impl<'de> serde::Deserialize<'de> for $unit {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize(deserializer)
            }
        })*
    };
}

deserialize_units!(
    InterfacePattern,
    Port,
    Ports,
    Address,
    Prefix,
    ByteRate,
    CountRate,
    Size,
    TimeSpan,
    Bind,
    ServerAddress,
    Host
);

/// Text from a file as it may stand in a message: in quotes, on one line, not endless.
pub(super) fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut out = String::from("\"");
    for (i, c) in text.chars().enumerate() {
        if i == LONGEST {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.push('"');
    out
}

/// Splits `123abc` into its number and the rest; `None` if it does not begin with a digit.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0).then(|| text.split_at(digits))
}

/// What a hasty writer may have meant: the text without spaces and with long unit names made short, if that
/// `reads`.
fn tidy(text: &str, long_names: &[(&str, &str)], reads: impl Fn(&str) -> bool) -> Option<String> {
    let bare: String = text.chars().filter(|c| !c.is_whitespace()).take(64).collect();
    let lower = bare.to_lowercase();
    let shortened = long_names.iter().filter_map(|(long, short)| {
        let start = bare.get(..lower.strip_suffix(long)?.len())?;
        Some(format!("{start}{short}"))
    });
    let found = std::iter::once(bare.clone()).chain(shortened).find(|candidate| reads(candidate));
    found.filter(|candidate| candidate != text)
}
