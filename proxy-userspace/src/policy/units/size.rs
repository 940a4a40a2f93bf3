//! Sizes: `"512B"`, `"64KiB"`, `"10MB"`; and amounts, which are a bare number or a size.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::{Unit, UnitError, quote, split_number, tidy};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size {
    /// Bytes.
    pub bytes: u64,
}

/// Units and their bytes. Decimal ones as networks count, binary ones as memory does.
const UNITS: [(&str, u64); 8] = [
    ("B", 1),
    ("kB", 1000),
    ("KB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

/// Other spellings.
pub(super) const LONG_NAMES: [(&str, &str); 10] = [
    ("kib", "KiB"),
    ("mib", "MiB"),
    ("gib", "GiB"),
    ("kb", "kB"),
    ("mb", "MB"),
    ("gb", "GB"),
    ("bytes", "B"),
    ("k", "kB"),
    ("m", "MB"),
    ("g", "GB"),
];

impl Unit for Size {
    const EXPECTED: &'static str = "a size such as \"64KiB\" or \"10MB\"";

    fn instead_of(number: i64) -> Option<String> {
        (number >= 0).then(|| format!("{number}B"))
    }
}

/// The size that a text stands for; `None` if it is none or can't be counted.
pub(super) fn read(text: &str) -> Option<Size> {
    let (number, unit) = split_number(text)?;
    let (_, unit_bytes) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let bytes = number.parse::<u64>().ok()?.checked_mul(*unit_bytes)?;
    Some(Size { bytes })
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        read(text).ok_or_else(|| {
            let with_unit = format!("{text}B");
            let help = if text.ends_with(|c: char| c.is_ascii_digit()) && read(&with_unit).is_some() {
                format!("write it with its unit: {}", quote(&with_unit))
            } else if let Some(instead) = tidy(text, &LONG_NAMES, |t| read(t).is_some()) {
                format!("write {}", quote(&instead))
            } else {
                "write a whole number and B, kB, MB, GB, KiB, MiB or GiB: \"64KiB\"".to_owned()
            };
            UnitError::new(format!("{} is not a size", quote(text)), help)
        })
    }
}

impl fmt::Display for Size {
    /// In the unit that makes the shortest whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, unit): &&(&str, u64)| self.bytes != 0 && self.bytes.is_multiple_of(*unit);
        let (name, unit) = UNITS.iter().filter(fits).max_by_key(|(_, unit)| *unit).unwrap_or(&UNITS[0]);
        write!(f, "{}{name}", self.bytes / unit)
    }
}

/// A burst: a bare number of whatever is counted, or a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// A bare number.
    Number(u64),
    /// A size, for bytes.
    Size(Size),
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number such as 4000, or for bytes a size such as \"64KiB\"")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Amount, E> {
                u64::try_from(number).map(Amount::Number).map_err(|_| {
                    E::custom(UnitError::new(
                        format!("{number} is below zero"),
                        "write a number of at least 1",
                    ))
                })
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Amount, E> {
                if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(E::custom(UnitError::new(
                        format!("the number {} is in quotes", quote(text)),
                        format!("write {text} without quotes, or with a unit for bytes: \"{text}B\""),
                    )));
                }
                text.parse().map(Amount::Size).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_unit() {
        for (text, bytes) in [
            ("512B", 512),
            ("10kB", 10_000),
            ("10KB", 10_000),
            ("64KiB", 65_536),
            ("10MB", 10_000_000),
            ("1MiB", 1_048_576),
            ("1GB", 1_000_000_000),
            ("2GiB", 2_147_483_648),
        ] {
            assert_eq!(text.parse(), Ok(Size { bytes }), "{text}");
        }
    }

    #[test]
    fn says_what_to_write() {
        for (text, help) in [
            ("512", "write it with its unit: \"512B\""),
            ("64 KiB", "write \"64KiB\""),
            ("64kib", "write \"64KiB\""),
            ("10M", "write \"10MB\""),
            ("much", "write a whole number"),
            ("99999999999GiB", "write a whole number"),
        ] {
            let error = text.parse::<Size>().expect_err(text);
            assert!(error.help.starts_with(help), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(bytes: u64) {
            let size = Size { bytes };
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<Size>();
        }
    }
}
