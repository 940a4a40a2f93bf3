//! What is to be reached, and whether it is: judged on samples alone. Called by `mod.rs`.

use super::load::Requests;
use super::stage::Contender;

/// What is done to each contender, in turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Requests as fast as they are answered.
    Requests(Requests),
    /// Full handshakes with nothing after them; `true`: RSA-2048, else P-256.
    Handshakes { rsa: bool },
    /// Requests for 1 KiB over HTTP/1.1 at a fixed rate.
    Paced,
}

impl Work {
    /// All of it.
    pub const ALL: [Self; 7] = [
        Self::Requests(Requests { http2: false, large: false }),
        Self::Requests(Requests { http2: true, large: false }),
        Self::Requests(Requests { http2: false, large: true }),
        Self::Requests(Requests { http2: true, large: true }),
        Self::Handshakes { rsa: false },
        Self::Handshakes { rsa: true },
        Self::Paced,
    ];

    /// For tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests(Requests { http2: false, large: false }) => "HTTP/1.1, 1 KiB",
            Self::Requests(Requests { http2: true, large: false }) => "HTTP/2, 1 KiB",
            Self::Requests(Requests { http2: false, large: true }) => "HTTP/1.1, 1 MiB",
            Self::Requests(Requests { http2: true, large: true }) => "HTTP/2, 1 MiB",
            Self::Handshakes { rsa: false } => "full handshake, P-256",
            Self::Handshakes { rsa: true } => "full handshake, RSA-2048",
            Self::Paced => "HTTP/1.1, 1 KiB, 2,000 requests/s",
        }
    }

    const fn place(self) -> usize {
        let mut place = 0;
        // The order of `ALL`.
        match self {
            Self::Requests(Requests { http2, large }) => place += http2 as usize + 2 * large as usize,
            Self::Handshakes { rsa } => place += 4 + rsa as usize,
            Self::Paced => place += 6,
        }
        place
    }
}

/// What one turn of a contender came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Microseconds of all its processes, for each request or handshake.
    pub cpu_us: f64,
    /// Requests or handshakes in a second.
    pub rate: f64,
    /// Of [`Work::Paced`], microseconds.
    pub p50_us: f64,
    pub p99_us: f64,
}

/// Which of its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    Cpu,
    Rate,
    P50,
    P99,
}

impl Metric {
    fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::Cpu => sample.cpu_us,
            Self::Rate => sample.rate,
            Self::P50 => sample.p50_us,
            Self::P99 => sample.p99_us,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Rate => "throughput",
            Self::P50 => "p50",
            Self::P99 => "p99",
        }
    }

    fn shown(self, value: f64) -> String {
        match self {
            Self::Rate => format!("{value:.0}/s"),
            _ => format!("{value:.0} µs"),
        }
    }
}

/// Samples of each work, contender and round.
#[derive(Debug, Default)]
pub struct Samples([[Vec<Sample>; 3]; 7]);

impl Samples {
    pub fn add(&mut self, work: Work, contender: Contender, sample: Sample) {
        self.0[work.place()][contender as usize].push(sample);
    }

    /// The median of what the rounds had.
    fn median(&self, work: Work, contender: Contender, metric: Metric) -> f64 {
        super::median(
            self.0[work.place()][contender as usize].iter().map(|sample| metric.of(sample)).collect(),
        )
    }

    /// The median of each round's ratio to nginx in the same round: what burdens the machine burdens both.
    fn ratio(&self, work: Work, contender: Contender, metric: Metric) -> f64 {
        let samples = &self.0[work.place()];
        let pairs = samples[contender as usize].iter().zip(&samples[Contender::Nginx as usize]);
        super::median(pairs.map(|(one, nginx)| metric.of(one) / metric.of(nginx)).collect())
    }
}

/// What a number should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    /// Judged on two decimals, as shown.
    pub fn is_met(self, value: f64) -> bool {
        let value = (value * 100.0).round() / 100.0;
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    /// For tables.
    pub fn shown(self, unit: &str) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {most}{unit}"),
            Self::AtLeast(least) => format!("≥ {least}{unit}"),
        }
    }
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub what: String,
    pub goal: String,
    /// One for each contender.
    pub values: [String; 3],
    /// `None`: for information.
    pub met: Option<bool>,
    /// What to look at if it is missed.
    pub work: Option<Work>,
}

/// What is to be reached, as ratios to nginx.
fn goals() -> Vec<(Work, Metric, Bound)> {
    use Bound::{AtLeast, AtMost};
    let [small1, small2, large1, large2, p256, rsa, paced] = Work::ALL;
    vec![
        (small1, Metric::Cpu, AtMost(1.0)),
        (small2, Metric::Cpu, AtMost(1.1)),
        (large1, Metric::Cpu, AtMost(0.7)),
        (large2, Metric::Cpu, AtMost(0.7)),
        (p256, Metric::Cpu, AtMost(0.65)),
        (rsa, Metric::Cpu, AtMost(0.8)),
        (small1, Metric::Rate, AtLeast(1.0)),
        (small2, Metric::Rate, AtLeast(1.0)),
        (large1, Metric::Rate, AtLeast(1.1)),
        (large2, Metric::Rate, AtLeast(1.1)),
        (p256, Metric::Rate, AtLeast(1.1)),
        (rsa, Metric::Rate, AtLeast(1.1)),
        (paced, Metric::P50, AtMost(1.2)),
        (paced, Metric::P99, AtMost(1.1)),
    ]
}

/// Each goal that is a ratio to nginx.
pub fn compared(samples: &Samples) -> Vec<Line> {
    let lines = goals().into_iter().map(|(work, metric, bound)| {
        let values = Contender::ALL.map(|contender| {
            let value = metric.shown(samples.median(work, contender, metric));
            match contender {
                Contender::Nginx => value,
                _ => format!("{:.2}× · {value}", samples.ratio(work, contender, metric)),
            }
        });
        Line {
            what: format!("{}: {}", metric.name(), work.name()),
            goal: bound.shown("×"),
            values,
            met: Some(bound.is_met(samples.ratio(work, Contender::Tollgate, metric))),
            work: Some(work),
        }
    });
    lines.collect()
}

/// A goal that is an amount: of Tollgate, nginx and `HAProxy`.
pub fn amount(what: &str, bound: Bound, unit: &str, values: [f64; 3]) -> Line {
    Line {
        what: what.to_owned(),
        goal: bound.shown(unit),
        values: values.map(|value| format!("{value:.1}{unit}")),
        met: Some(bound.is_met(values[0])),
        work: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(ours: &[f64], nginx: &[f64]) -> Samples {
        let mut samples = Samples::default();
        for work in Work::ALL {
            for (contender, values) in
                [(Contender::Tollgate, ours), (Contender::Nginx, nginx), (Contender::Haproxy, nginx)]
            {
                for value in values {
                    let all = Sample { cpu_us: *value, rate: *value, p50_us: *value, p99_us: *value };
                    samples.add(work, contender, all);
                }
            }
        }
        samples
    }

    #[test]
    fn places_are_those_of_the_list() {
        assert_eq!(Work::ALL.map(Work::place), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_ratio_is_the_median_of_each_rounds() {
        // The machine was twice as slow in the second round, for both.
        let samples = samples(&[90.0, 180.0, 300.0], &[100.0, 200.0, 100.0]);
        let ratio = samples.ratio(Work::Paced, Contender::Tollgate, Metric::P50);
        assert!((ratio - 0.9).abs() < 1e-9, "{ratio}");
    }

    #[test]
    fn what_costs_less_is_met_and_what_costs_more_is_missed() {
        let met = |ours: f64, metric: &str| -> Vec<Option<bool>> {
            let lines = compared(&samples(&[ours], &[100.0]));
            lines.into_iter().filter(|line| line.what.starts_with(metric)).map(|line| line.met).collect()
        };
        assert_eq!(met(60.0, "CPU"), [Some(true); 6]);
        assert_eq!(met(111.0, "CPU"), [Some(false); 6]);
        assert_eq!(met(75.0, "CPU"), [true, true, false, false, false, true].map(Some));
        assert_eq!(met(99.0, "throughput"), [Some(false); 6]);
        assert_eq!(met(111.0, "throughput"), [Some(true); 6]);
        assert_eq!(met(115.0, "p50"), [Some(true)]);
        assert_eq!(met(115.0, "p99"), [Some(false)]);
    }

    #[test]
    fn amounts_are_judged_by_ours() {
        let line = |ours| amount("memory", Bound::AtMost(10.0), " MiB", [ours, 99.0, 99.0]);
        assert_eq!((line(10.0).met, line(10.1).met), (Some(true), Some(false)));
        assert_eq!((line(2.0).goal.as_str(), line(2.0).values[0].as_str()), ("≤ 10 MiB", "2.0 MiB"));
    }
}
