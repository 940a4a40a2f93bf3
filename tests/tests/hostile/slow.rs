//! Slow clients by somebody else's hand: slowhttptest in its four modes at a time, over the network and through the filter, while
//! another host's requests go on. How much slower those get is measured by `cargo xtask bench proxy slow`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tollgate_tests::lab::{Host, Lab, OUTSIDE_V4, SERVER_V4};
use tollgate_tests::proxied::{HTTP, Proxied};
use tollgate_tests::recorder::{BIG, Recorder};
use tollgate_tests::slow::Mode;

/// Shorter than the interval between two parts that the slow clients send.
const LIMIT: &str = "2s";
const INTERVAL: u32 = 4;
/// slowhttptest gives up after so many seconds, and then says so.
const LENGTH: u32 = 40;
/// Of the host beside them, without and with slow clients.
const REQUESTS: usize = 150;
/// So long the slow clients take to connect, and to fill what buffers there are: with them on the same machine, that is work for its
/// processors.
const ARRIVAL: Duration = Duration::from_secs(2);
/// A pause between two requests.
const PAUSE: Duration = Duration::from_millis(4);
/// For the slowest of a hundred requests on a machine that is busy with something else.
const BEARABLE: Duration = Duration::from_secs(2);

#[test]
fn slow_clients_are_cut_off_and_others_do_not_notice() -> Result<()> {
    let lab = Lab::new()?;
    let recorder = Recorder::start(&lab.ns(Host::Server), 7001)?;
    let settings: String =
        ["header", "body", "send", "idle"].map(|what| format!("{what}-timeout = \"{LIMIT}\"\n")).concat();
    let settings = format!("{settings}max-connections-per-source = 1000\n");
    let proxied = Proxied::before(&lab, "127.0.0.1:7001", &settings)?;
    let _ = healthy(&lab, 50, &AtomicBool::new(false))?;
    let idle = healthy(&lab, REQUESTS, &AtomicBool::new(false))?;

    let url = format!("http://{SERVER_V4}:{HTTP}/");
    let modes = [Mode::Headers, Mode::Bodies, Mode::Ranges];
    let over = AtomicBool::new(false);
    let (attacks, reading, busy) = thread::scope(|scope| {
        let attacks: Vec<_> =
            modes.iter().map(|mode| scope.spawn(|| (mode.name(), attack(&lab, &url, *mode)))).collect();
        let beside = scope.spawn(|| healthy(&lab, usize::MAX, &over));
        let reading = slow_reading(&lab);
        let attacks: Vec<_> = attacks.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        (attacks, reading, beside.join())
    });
    let busy = busy.map_err(|_| anyhow::anyhow!("the host beside them panicked"))??;
    for attack in attacks {
        let (name, said) = attack.map_err(|_| anyhow::anyhow!("a slow client panicked"))?;
        let said = said?;
        ensure!(said.contains("No open connections left"), "{name} were not cut off: {said}");
    }
    reading?;
    let begun = busy.first().map(|first| first.0);
    let (arriving, staying): (Vec<_>, Vec<_>) =
        busy.iter().partition(|(at, _)| begun.is_some_and(|begun| *at < begun + ARRIVAL));
    println!(
        "p99 of {} requests alone {:?}; beside slow clients {:?} of {} while they connect, {:?} of {} then",
        idle.len(),
        p99(&idle),
        p99(&arriving),
        arriving.len(),
        p99(&staying),
        staying.len(),
    );
    ensure!(busy.len() > 20, "only {} requests beside slow clients", busy.len());
    ensure!(p99(&busy) < BEARABLE, "{:?} beside slow clients, {:?} alone", p99(&busy), p99(&idle));
    ensure!(recorder.strange().is_empty(), "{:?}", recorder.strange());
    let log = proxied.tollgate.log();
    ensure!(log.matches("worker is process").count() == 1, "the worker has ended: {log}");
    Ok(())
}

/// Runs it to its end; gives what it said last.
fn attack(lab: &Lab, url: &str, mode: Mode) -> Result<String> {
    let command = mode.command(url, INTERVAL, LENGTH);
    let output = lab.ns(Host::Lan).output(&command.iter().map(String::as_str).collect::<Vec<_>>())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // It paints a screen each second; the last one counts.
    let start = text.len().saturating_sub(1_500);
    Ok(text.get(start..).unwrap_or(&text).to_owned())
}

/// Clients that ask for much and hardly read. They notice nothing of being cut off, since they have still to read what came
/// before; so the server is looked at, the kernel's remains of connections included. From an address of its own.
fn slow_reading(lab: &Lab) -> Result<()> {
    let url = format!("http://{SERVER_V4}:{HTTP}{BIG}");
    let command = Mode::Reading.command(&url, INTERVAL, LENGTH);
    let mut child = lab
        .ns(Host::Outside)
        .command(&command[0])
        .args(&command[1..])
        .stdout(Stdio::null())
        .spawn()
        .context("`slowhttptest` could not be started (Debian: apt-get install slowhttptest)")?;
    let open = || -> Result<usize> {
        let filter = ["ss", "-Htan", "sport", "=", ":80", "and", "dst", OUTSIDE_V4];
        Ok(String::from_utf8_lossy(&lab.ns(Host::Server).run(&filter)?.stdout).lines().count())
    };
    let watched = (|| {
        let end = Instant::now() + Duration::from_secs(35);
        let mut most = 0;
        loop {
            let now = open()?;
            most = most.max(now);
            if most > 50 && now == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{now} of {most} slow readers are still there");
            thread::sleep(Duration::from_millis(100));
        }
    })();
    child.kill()?;
    child.wait()?;
    watched
}

/// When each of these requests began and how long it took, one after the other on connections that are kept; all of them must be answered.
fn healthy(lab: &Lab, most: usize, over: &AtomicBool) -> Result<Vec<(Instant, Duration)>> {
    lab.ns(Host::Lan2).in_ns(|| {
        let mut took = Vec::new();
        let mut stream: Option<TcpStream> = None;
        while took.len() < most && !over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let mut open = match stream.take() {
                Some(open) => open,
                None => TcpStream::connect((SERVER_V4, HTTP)).context("connecting beside slow clients")?,
            };
            open.set_read_timeout(Some(Duration::from_secs(30)))?;
            open.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")?;
            let (mut answer, mut part) = (Vec::new(), [0; 4096]);
            while !answer.ends_with(b"upstream.\n") {
                let read = open.read(&mut part).context("no answer beside slow clients")?;
                ensure!(read > 0, "closed beside slow clients: {:?}", String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&part[..read]);
            }
            ensure!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
            took.push((begun, begun.elapsed()));
            // Each tenth on a new connection: it is accepting that an attack could hold up.
            if took.len() % 10 != 0 {
                stream = Some(open);
            }
            thread::sleep(PAUSE);
        }
        Ok(took)
    })
}

fn p99(took: &[(Instant, Duration)]) -> Duration {
    let mut sorted: Vec<_> = took.iter().map(|(_, took)| *took).collect();
    sorted.sort();
    sorted.get(sorted.len() * 99 / 100).copied().unwrap_or(Duration::MAX)
}
