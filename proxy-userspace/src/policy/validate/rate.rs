//! One rate and its burst: what the limiter can keep exactly, and what it can't.
//!
//! Called by [`super::limits`].

use proxy_common::abi::limit::MAX_DEPTH_NS;

use crate::policy::model::Unit;
use crate::policy::report::{Report, Span};
use crate::policy::units::{Amount, Size};

/// Longest tick of a kernel clock (CONFIG_HZ=100): a bucket must hold what arrives in one.
const TICK_NS: u64 = 10_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// Most packets or connections in a second.
const MOST_COUNT: u64 = 100_000_000;
/// Most bytes in a second.
const MOST_BYTES: u64 = 1_000_000_000_000;
/// Least burst of bytes: a largest IP packet is still one packet.
const LEAST_BYTES: u64 = 65_536;
/// A rate and where it stands.
pub(super) struct Rate {
    pub(super) unit: Unit,
    pub(super) tokens: u64,
    pub(super) per_ns: u64,
    pub(super) span: Span,
}

impl Rate {
    /// Tokens that arrive in a time, rounded up.
    fn in_time(&self, ns: u64) -> u64 {
        let tokens = (u128::from(self.tokens) * u128::from(ns)).div_ceil(u128::from(self.per_ns));
        u64::try_from(tokens).unwrap_or(u64::MAX)
    }

    /// Time in which so many tokens arrive, nanoseconds.
    fn time_of(&self, tokens: u64) -> u128 {
        (u128::from(tokens) * u128::from(self.per_ns)).div_ceil(u128::from(self.tokens))
    }

    /// An amount as it is written in a policy.
    fn written(&self, amount: u64) -> String {
        match self.unit {
            Unit::Bytes => format!("\"{}\"", Size { bytes: amount }),
            Unit::Packets | Unit::Connections => amount.to_string(),
        }
    }

    fn what(&self) -> &'static str {
        match self.unit {
            Unit::Packets => "packets",
            Unit::Bytes => "bytes",
            Unit::Connections => "connections",
        }
    }

    /// The burst that is given, or a second's worth; `None` if something was reported.
    pub(super) fn checked_burst(
        &self,
        report: &mut Report<'_>,
        given: Option<(Amount, Span)>,
    ) -> Option<u64> {
        if self.tokens == 0 {
            report.error(
                &self.span,
                format!("a rate of no {} lets nothing through", self.what()),
                "write a rate above zero; to close a service, write `allow = \"none\"` in it",
            );
            return None;
        }
        let most = if self.unit == Unit::Bytes { MOST_BYTES } else { MOST_COUNT };
        if self.in_time(SECOND_NS) > most {
            let written = if self.unit == Unit::Bytes { "1000GB/s".to_owned() } else { format!("{most}/s") };
            report.error(
                &self.span,
                format!("the rate is above {written}, which no interface carries"),
                format!("write at most \"{written}\", or leave the limit out"),
            );
            return None;
        }
        let least_one = if self.unit == Unit::Bytes { LEAST_BYTES } else { 1 };
        let least = self.in_time(TICK_NS).max(least_one);
        // What refills in the longest time that the limiter remembers.
        let deepest = u128::from(self.tokens) * u128::from(MAX_DEPTH_NS) / u128::from(self.per_ns);
        let deepest = u64::try_from(deepest).unwrap_or(u64::MAX);
        if deepest < least {
            let rate = if self.unit == Unit::Bytes { "16KiB/h" } else { "1/h" };
            report.error(
                &self.span,
                format!(
                    "at this rate the least burst, {}, takes longer than 4 hours to refill",
                    self.written(least)
                ),
                format!("write at least \"{rate}\""),
            );
            return None;
        }
        let Some((amount, span)) = given else {
            return Some(self.in_time(SECOND_NS).max(least));
        };
        let burst = match (amount, self.unit) {
            (Amount::Number(number), _) => number,
            (Amount::Size(size), Unit::Bytes) => size.bytes,
            (Amount::Size(_), Unit::Packets | Unit::Connections) => {
                report.error(
                    &span,
                    format!("this is a burst of {}, not of bytes", self.what()),
                    format!("write a number such as {}", self.in_time(SECOND_NS).max(least)),
                );
                return None;
            }
        };
        if burst < least {
            let message = if burst == 0 {
                "a burst of zero lets nothing through".to_owned()
            } else if burst < least_one {
                "the burst is smaller than one packet".to_owned()
            } else {
                format!(
                    "the burst is smaller than what arrives in one tick of the kernel's clock (10 ms): {} {}",
                    self.in_time(TICK_NS),
                    self.what()
                )
            };
            report.error(&span, message, format!("write at least {}", self.written(least)));
            return None;
        }
        if self.time_of(burst) > u128::from(MAX_DEPTH_NS) {
            report.error(
                &span,
                "at this rate the burst takes longer than 4 hours to refill, and the limiter remembers no longer",
                format!("write at most {}", self.written(deepest)),
            );
            return None;
        }
        Some(burst)
    }
}
