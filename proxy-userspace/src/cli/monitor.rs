//! `tollgate monitor`: dropped packets as they come.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, ErrorKind, Write, stdout};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proxy_common::abi::event::Event;
use proxy_common::abi::reason::Reason;

use super::{Failure, Global, Outcome, require_root, signals};
use crate::observe::capture::Capture;
use crate::observe::drops::Dropped;
use crate::observe::feed::Feed;
use crate::policy::units::{Prefix, TimeSpan};

/// How long one wait is at most: the kernel must hear from us more often than it forgets us.
const WAIT: Duration = Duration::from_millis(500);

/// Show dropped packets, and those that a service audits, as they come: when, where, why, under which rule, from whom, to what
///
/// The kernel writes nothing of a packet while nobody listens, and of each reason at most some 500 events a second on each
/// processor: under a flood, `(+N)` says how many packets of the same reason have none of their own. `tollgate stats` counts
/// every one. One monitor or `tollgate top` can listen to a firewall at a time; a daemon is not needed. Ends by Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate monitor --reason service-refused --source 203.0.113.0/24
  tollgate monitor --rule web --for 10s --json
  tollgate monitor --pcap drops.pcapng                     for Wireshark, later
  ssh server tollgate monitor --pcap - | wireshark -k -i -  for Wireshark, now")]
pub struct Args {
    /// Only packets of this reason; can be given several times
    #[arg(long, value_name = "REASON", value_delimiter = ',', value_parser = reason)]
    reason: Vec<Reason>,
    /// Only packets under this rule, a service or `default`; can be given several times
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    rule: Vec<String>,
    /// Only packets from these addresses; can be given several times
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    source: Vec<Prefix>,
    /// End after so many events
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time: 500ms, 30s, 10m
    #[arg(long = "for", value_name = "DURATION")]
    time: Option<TimeSpan>,
    /// Write the packets' first 128 bytes to a file too, as pcapng; `-` writes them to standard output, and no lines
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// A reason that is told of, by name.
fn reason(name: &str) -> Result<Reason, String> {
    let told = || Reason::ALL.iter().copied().filter(|reason| reason.is_told());
    told().find(|reason| reason.name() == name).ok_or_else(|| {
        let names: Vec<_> = told().map(Reason::name).collect();
        format!("no packet is dropped for that reason; reasons: {}", names.join(", "))
    })
}

pub fn run(global: &Global, args: &Args) -> Outcome {
    require_root("tollgate monitor")?;
    let mut feed = Feed::open(&global.pins(), &global.run_dir, "tollgate monitor")?;
    if !feed.is_live() {
        return Err(Failure::Refused(
            "nothing is enforced, so nothing is dropped (`tollgate status`)".to_owned(),
        ));
    }
    for rule in &args.rule {
        if !feed.rules().any(|known| known == rule) {
            let known: Vec<_> = feed.rules().collect();
            return Err(Failure::Input(format!("there is no rule {rule}; rules: {}", known.join(", "))));
        }
    }
    signals::hold()?;
    let mut output = Output::open(args)?;
    // For whoever waits for it: a packet that comes from now on is seen.
    eprintln!("listening; Ctrl-C ends");
    let told = match follow(&mut feed, args, &mut output) {
        Err(Stopped::Reader) => return Ok(()),
        Err(Stopped::Failure(failure)) => return Err(failure),
        Ok(told) => told,
    };
    if told.skipped > 0 {
        eprintln!(
            "{} events; {} more packets of these reasons had none of their own",
            told.events, told.skipped
        );
    }
    Ok(())
}

/// Why following ended too early.
enum Stopped {
    /// Nobody reads what is printed any more.
    Reader,
    Failure(Failure),
}

impl<E: Into<Failure>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failure(error.into())
    }
}

/// What was shown.
#[derive(Default)]
struct Told {
    events: u64,
    skipped: u64,
}

fn follow(feed: &mut Feed, args: &Args, output: &mut Output) -> Result<Told, Stopped> {
    let begin = Instant::now();
    let left = || args.time.map(|time| Duration::from_nanos(time.ns).saturating_sub(begin.elapsed()));
    let (mut told, mut was_live) = (Told::default(), true);
    while left() != Some(Duration::ZERO) {
        feed.keep()?;
        if was_live != feed.is_live() {
            was_live = feed.is_live();
            eprintln!(
                "{}",
                if was_live { "listening again" } else { "nothing is enforced any more; waiting" }
            );
        }
        let asked = signals::is_asked();
        let Some((event, drop)) = feed.next() else {
            // Not before what came until then is told.
            if asked {
                break;
            }
            output.flush()?;
            wait(feed, left().unwrap_or(WAIT).min(WAIT))?;
            continue;
        };
        if args.wants(&drop) {
            output.add(&event, &drop)?;
            told.events += 1;
            told.skipped = told.skipped.saturating_add(drop.skipped);
        }
        if args.count.is_some_and(|most| told.events >= most) {
            break;
        }
    }
    output.flush()?;
    Ok(told)
}

/// Waits for an event, a signal, or the reader of our output to go away.
fn wait(feed: &Feed, most: Duration) -> Result<(), Stopped> {
    let out = stdout();
    // Nothing is waited for there; that a pipe has lost its reader is reported all the same.
    let mut fds = vec![PollFd::new(out.as_fd(), PollFlags::empty())];
    fds.extend(feed.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    let timeout = PollTimeout::try_from(most).unwrap_or(PollTimeout::ZERO);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(error) => return Err(anyhow!("waiting for events: {error}").into()),
    }
    let gone = fds.first().and_then(PollFd::revents).is_some_and(|got| got.contains(PollFlags::POLLERR));
    if gone { Err(Stopped::Reader) } else { Ok(()) }
}

impl Args {
    fn wants(&self, drop: &Dropped) -> bool {
        let rule = drop.rule.as_ref();
        let from = |prefix: &Prefix| drop.source.is_some_and(|source| prefix.0.contains(&source));
        (self.reason.is_empty() || self.reason.contains(&drop.reason))
            && (self.rule.is_empty() || rule.is_some_and(|rule| self.rule.contains(rule)))
            && (self.source.is_empty() || self.source.iter().any(from))
    }
}

/// Where events go.
struct Output {
    lines: Option<BufWriter<io::Stdout>>,
    json: bool,
    capture: Option<Capture<Box<dyn Write>>>,
    to: PathBuf,
}

impl Output {
    fn open(args: &Args) -> Result<Self, Failure> {
        let to_stdout = args.pcap.as_deref() == Some(Path::new("-"));
        let capture = match &args.pcap {
            None => None,
            Some(_) if to_stdout => Some(capture(stdout())),
            Some(path) => {
                // For its owner alone: packets can hold what nobody else should see.
                let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
                Some(file.and_then(capture))
            }
        };
        let to = args.pcap.clone().unwrap_or_default();
        let capture = capture.transpose().with_context(|| to.display().to_string())?;
        let lines = (!to_stdout).then(|| BufWriter::new(stdout()));
        Ok(Self { lines, json: args.json, capture, to })
    }

    fn add(&mut self, event: &Event, drop: &Dropped) -> Result<(), Stopped> {
        if let Some(capture) = &mut self.capture {
            capture.add(event, drop).map_err(|error| stopped(error, &self.to))?;
        }
        let Some(lines) = &mut self.lines else { return Ok(()) };
        let written = if self.json {
            let json = serde_json::to_string(drop).context("JSON")?;
            writeln!(lines, "{json}")
        } else {
            writeln!(lines, "{drop}")
        };
        written.map_err(|error| stopped(error, Path::new("standard output")))
    }

    fn flush(&mut self) -> Result<(), Stopped> {
        let lines = self.lines.as_mut().map_or(Ok(()), Write::flush);
        lines.map_err(|error| stopped(error, Path::new("standard output")))?;
        let capture = self.capture.as_mut().map_or(Ok(()), Capture::flush);
        capture.map_err(|error| stopped(error, &self.to))
    }
}

fn capture(out: impl Write + 'static) -> io::Result<Capture<Box<dyn Write>>> {
    let mut capture = Capture::begin(Box::new(BufWriter::new(out)) as Box<dyn Write>)?;
    // Whoever reads a pipe waits for the header before anything is dropped.
    capture.flush()?;
    Ok(capture)
}

fn stopped(error: io::Error, to: &Path) -> Stopped {
    match error.kind() {
        ErrorKind::BrokenPipe => Stopped::Reader,
        _ => anyhow!("{}: {error}", to.display()).into(),
    }
}
