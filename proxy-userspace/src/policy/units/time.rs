//! Durations: `"500ms"`, `"60s"`, `"10m"`, `"4h"`, `"5d"`.

use std::fmt;
use std::str::FromStr;

use super::{Unit, UnitError, quote, split_number, tidy};

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeSpan {
    /// Its length, nanoseconds.
    pub ns: u64,
}

/// Units and their nanoseconds, shortest first.
const UNITS: [(&str, u64); 5] = [
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Long names that people write.
const LONG_NAMES: [(&str, &str); 13] = [
    ("seconds", "s"),
    ("second", "s"),
    ("secs", "s"),
    ("sec", "s"),
    ("minutes", "m"),
    ("minute", "m"),
    ("mins", "m"),
    ("min", "m"),
    ("hours", "h"),
    ("hour", "h"),
    ("hrs", "h"),
    ("days", "d"),
    ("day", "d"),
];

impl TimeSpan {
    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self { ns: seconds * 1_000_000_000 }
    }
}

impl Unit for TimeSpan {
    const EXPECTED: &'static str = "a duration such as \"60s\", \"10m\" or \"5d\"";

    fn instead_of(number: i64) -> Option<String> {
        (number >= 0).then(|| format!("{number}s"))
    }
}

/// The span that a text stands for; `None` if it is none or can't be counted.
fn read(text: &str) -> Option<TimeSpan> {
    let (number, unit) = split_number(text)?;
    let (_, unit_ns) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let ns = number.parse::<u64>().ok()?.checked_mul(*unit_ns)?;
    Some(TimeSpan { ns })
}

impl FromStr for TimeSpan {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        read(text).ok_or_else(|| {
            let with_unit = format!("{text}s");
            let message = format!("{} is not a duration", quote(text));
            if text.ends_with(|c: char| c.is_ascii_digit()) && read(&with_unit).is_some() {
                return UnitError::new(message, format!("write it with its unit: {}", quote(&with_unit)));
            }
            let help = match tidy(text, &LONG_NAMES, |t| read(t).is_some()) {
                Some(instead) => format!("write {}", quote(&instead)),
                None => format!("write a whole number and ms, s, m, h or d: {}", Self::EXPECTED),
            };
            UnitError::new(message, help)
        })
    }
}

impl fmt::Display for TimeSpan {
    /// In the longest unit that needs no fraction. Below a millisecond nothing can be written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, unit_ns) = match self.ns {
            0 => ("s", 1),
            ns => *UNITS.iter().rev().find(|(_, unit_ns)| ns.is_multiple_of(*unit_ns)).unwrap_or(&UNITS[0]),
        };
        write!(f, "{}{name}", self.ns / unit_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_unit() {
        for (text, ns) in [
            ("250ms", 250_000_000),
            ("60s", 60_000_000_000),
            ("10m", 600_000_000_000),
            ("4h", 14_400_000_000_000),
            ("5d", 432_000_000_000_000),
            ("0s", 0),
        ] {
            assert_eq!(text.parse(), Ok(TimeSpan { ns }), "{text}");
        }
    }

    #[test]
    fn says_what_to_write() {
        for (text, help) in [
            ("60", "write it with its unit: \"60s\""),
            ("10 m", "write \"10m\""),
            ("5 days", "write \"5d\""),
            ("90sec", "write \"90s\""),
            ("soon", "write a whole number"),
            ("1h30m", "write a whole number"),
            ("-5s", "write a whole number"),
            ("99999999999999999999d", "write a whole number"),
            ("", "write a whole number"),
        ] {
            let error = text.parse::<TimeSpan>().expect_err(text);
            assert!(error.help.starts_with(help), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(ms in 0..u64::MAX / 1_000_000) {
            let span = TimeSpan { ns: ms * 1_000_000 };
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<TimeSpan>();
        }
    }
}
