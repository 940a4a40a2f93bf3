//! A scraper of the daemon's metrics: what Prometheus asks for, read into numbers by series. Called by the tests of metrics and
//! of the control socket.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::Ns;

/// Where the tests' daemons serve metrics, in the server's namespace.
pub const ADDRESS: &str = "127.0.0.1:9184";
/// Longer than any answer takes on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer: status code, head and body.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 200 and so on.
    pub code: u16,
    /// The lines before the empty one.
    pub head: String,
    /// What follows.
    pub body: String,
}

/// Connects to the metrics of the daemon in a namespace.
pub fn connect(ns: &Ns) -> Result<TcpStream> {
    ns.in_ns(|| {
        let stream = TcpStream::connect(ADDRESS).context(ADDRESS)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    })
}

/// Asks for something.
pub fn request(ns: &Ns, method: &str, path: &str) -> Result<Answer> {
    exchange(connect(ns)?, method, path)
}

/// Asks for something over a stream.
pub fn exchange(mut stream: impl Read + Write, method: &str, path: &str) -> Result<Answer> {
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    parse(&text)
}

/// Reads an answer.
pub fn parse(text: &str) -> Result<Answer> {
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no HTTP: {text:?}"))?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.with_context(|| format!("no status: {head}"))?;
    Ok(Answer { code, head: head.to_owned(), body: body.to_owned() })
}

/// A scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// As it came.
    pub text: String,
    series: BTreeMap<String, f64>,
}

impl Metrics {
    /// Scrapes the daemon of a namespace.
    pub fn scrape(ns: &Ns) -> Result<Self> {
        let answer = request(ns, "GET", "/metrics")?;
        ensure!(answer.code == 200, "{answer:?}");
        Self::read(&answer.body)
    }

    /// Reads a scrape.
    pub fn read(text: &str) -> Result<Self> {
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (name, value) = line.rsplit_once(' ').with_context(|| format!("no sample: {line}"))?;
            let value = value.parse().with_context(|| format!("no number: {line}"))?;
            ensure!(series.insert(name.to_owned(), value).is_none(), "twice: {line}");
        }
        Ok(Self { text: text.to_owned(), series })
    }

    /// The value of a series, as it is written: labels by name.
    pub fn get(&self, series: &str) -> Result<f64> {
        self.series.get(series).copied().with_context(|| format!("no {series} in\n{}", self.text))
    }

    /// The number of series.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Names of metrics that a text speaks of.
    pub fn names_in(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.filter(|word| word.starts_with("tollgate_")).collect()
    }
}
