//! Rates: `"2000/s"`, `"10/m"`, `"3/h"`, and of bytes `"10MB/s"`, `"512KiB/s"`.

use std::fmt;
use std::str::FromStr;

use super::{Size, Unit, UnitError, quote, size, tidy};

/// A rate of packets or connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountRate {
    /// How many.
    pub count: u64,
    /// In what time, nanoseconds: a second, a minute or an hour.
    pub per_ns: u64,
}

/// A rate of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRate {
    /// How many.
    pub size: Size,
    /// In what time, nanoseconds: a second, a minute or an hour.
    pub per_ns: u64,
}

/// Periods and their nanoseconds.
const PERIODS: [(&str, u64); 3] = [("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];

/// Other spellings of a period.
const LONG_PERIODS: [(&str, &str); 14] = [
    ("/seconds", "/s"),
    ("/second", "/s"),
    ("/secs", "/s"),
    ("/sec", "/s"),
    ("pps", "/s"),
    ("ps", "/s"),
    ("/minutes", "/m"),
    ("/minute", "/m"),
    ("/mins", "/m"),
    ("/min", "/m"),
    ("/hours", "/h"),
    ("/hour", "/h"),
    ("/hr", "/h"),
    ("/1s", "/s"),
];

fn period(name: &str) -> Option<u64> {
    PERIODS.iter().find(|(known, _)| *known == name).map(|(_, ns)| *ns)
}

fn period_name(ns: u64) -> &'static str {
    PERIODS.iter().find(|(_, known)| *known == ns).map_or("s", |(name, _)| name)
}

impl Unit for CountRate {
    const EXPECTED: &'static str = "a rate such as \"2000/s\", \"10/m\" or \"3/h\"";

    fn instead_of(number: i64) -> Option<String> {
        (number > 0).then(|| format!("{number}/s"))
    }
}

/// The rate that a text stands for; `None` if it is none or can't be counted.
fn read_count(text: &str) -> Option<CountRate> {
    let (number, name) = text.split_once('/')?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let count = number.parse().ok().filter(|_| digits)?;
    Some(CountRate { count, per_ns: period(name)? })
}

fn read_bytes(text: &str) -> Option<ByteRate> {
    let (amount, name) = text.split_once('/')?;
    Some(ByteRate { size: size::read(amount)?, per_ns: period(name)? })
}

impl FromStr for CountRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        read_count(text).ok_or_else(|| {
            let with_period = format!("{text}/s");
            let help = if text.contains(['.', ',']) {
                "write a whole number; slow rates are a minute's or an hour's: \"10/m\", \"3/h\"".to_owned()
            } else if read_count(&with_period).is_some() {
                format!("write it with its period: {}", quote(&with_period))
            } else if let Some(instead) = tidy(text, &LONG_PERIODS, |t| read_count(t).is_some()) {
                format!("write {}", quote(&instead))
            } else {
                format!("write {}", Self::EXPECTED)
            };
            let what = if read_bytes(text).is_some() { "is a rate of bytes" } else { "is not a rate" };
            UnitError::new(format!("{} {what}", quote(text)), help)
        })
    }
}

impl fmt::Display for CountRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, period_name(self.per_ns))
    }
}

impl Unit for ByteRate {
    const EXPECTED: &'static str = "a rate of bytes such as \"10MB/s\" or \"512KiB/s\"";

    fn instead_of(number: i64) -> Option<String> {
        (number > 0).then(|| format!("{number}B/s"))
    }
}

impl FromStr for ByteRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        read_bytes(text).ok_or_else(|| {
            let lower = text.to_lowercase();
            let help = if lower.contains("bit") || lower.ends_with("bps") {
                "write bytes, not bits: 8Mbit/s is \"1MB/s\"".to_owned()
            } else if let Some(instead) = tidy_bytes(text) {
                format!("write {}", quote(&instead))
            } else {
                format!("write {}", Self::EXPECTED)
            };
            UnitError::new(format!("{} is not a rate of bytes", quote(text)), help)
        })
    }
}

/// `10M/s`, `10mb/s`, `10000/s`, `10MB`: each part put right.
fn tidy_bytes(text: &str) -> Option<String> {
    if let Some(instead) = tidy(text, &LONG_PERIODS, |t| read_bytes(t).is_some()) {
        return Some(instead);
    }
    let (amount, name) = text.split_once('/').unwrap_or((text, "s"));
    let with_unit = format!("{amount}B");
    let amount = if size::read(amount).is_some() {
        amount.to_owned()
    } else if amount.ends_with(|c: char| c.is_ascii_digit()) && size::read(&with_unit).is_some() {
        with_unit
    } else {
        tidy(amount, &size::LONG_NAMES, |t| size::read(t).is_some())?
    };
    let instead = format!("{amount}/{name}");
    read_bytes(&instead).is_some().then_some(instead)
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.size, period_name(self.per_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn reads_every_period() {
        for (text, count, per_ns) in [
            ("2000/s", 2000, SECOND),
            ("10/m", 10, 60 * SECOND),
            ("3/h", 3, 3600 * SECOND),
            ("0/s", 0, SECOND),
        ] {
            assert_eq!(text.parse(), Ok(CountRate { count, per_ns }), "{text}");
        }
        assert_eq!("512KiB/s".parse(), Ok(ByteRate { size: Size { bytes: 524_288 }, per_ns: SECOND }));
    }

    #[test]
    fn says_what_to_write() {
        for (text, help) in [
            ("2000", "write it with its period: \"2000/s\""),
            ("2000 / s", "write \"2000/s\""),
            ("2000/sec", "write \"2000/s\""),
            ("2000pps", "write \"2000/s\""),
            ("0.5/s", "write a whole number"),
            ("10MB/s", "write a rate such as"),
            ("+5/s", "write a rate such as"),
            ("/s", "write a rate such as"),
            ("fast", "write a rate such as"),
            ("99999999999999999999/s", "write a rate such as"),
        ] {
            let error = text.parse::<CountRate>().expect_err(text);
            assert!(error.help.starts_with(help), "{text}: {error}");
        }
        for (text, help) in [
            ("10000/s", "write \"10000B/s\""),
            ("10000", "write \"10000B/s\""),
            ("10M/s", "write \"10MB/s\""),
            ("10mb/s", "write \"10MB/s\""),
            ("10MB", "write \"10MB/s\""),
            ("10MB/sec", "write \"10MB/s\""),
            ("8Mbit/s", "write bytes, not bits"),
            ("lots", "write a rate of bytes"),
        ] {
            let error = text.parse::<ByteRate>().expect_err(text);
            assert!(error.help.starts_with(help), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(count: u64, period in 0..3usize) {
            let per_ns = PERIODS[period].1;
            let rate = CountRate { count, per_ns };
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
            let rate = ByteRate { size: Size { bytes: count }, per_ns };
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<CountRate>();
            let _ = text.parse::<ByteRate>();
        }
    }
}
