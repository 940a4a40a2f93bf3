//! Screen captures for the docs: the deployment in the lab, with clients, strangers and a flood, as `top`, `stats`, `monitor` and
//! `explain` show it. Writes docs/captures/*.txt; run by `cargo xtask captures`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path as FilePath, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tollgate_tests::frames::{FIN, Link, Path, SYN};
use tollgate_tests::lab::{LAN2_MAC, OUTSIDE_V6, ROUTER_MAC, SERVER_MAC, SERVER_PORT, SERVER_V4, SERVER_V6};
use tollgate_tests::sender::Sender;
use tollgate_tests::tollgate::workspace;
use tollgate_tests::traffic::http_get;
use tollgate_tests::{Deployment, Hook, Host, Tmux};

/// Columns and rows of the terminal of `top`.
const FULL: (u16, u16) = (130, 34);
/// The same for what is printed: room for all of it.
const PRINTED: (u16, u16) = (160, 80);
/// Packets a second of the flood, and of strangers.
const FLOOD: u64 = 3_000;
const STRANGERS: u64 = 60;
/// What is dropped but for the flood, which would fill the screen.
const STRANGE: &str = "no-service,service-refused,tcp-flags,source-invalid";
/// How long `top` is watched before it is captured: its plots need some seconds.
const WATCHED: Duration = Duration::from_secs(15);

const LAN2: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 51);

fn main() -> ExitCode {
    match captures() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("captures: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn captures() -> Result<()> {
    let d = Deployment::platform(Hook::AsWritten)?;
    let folder = workspace().join("docs/captures");
    fs::create_dir_all(&folder)?;
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let traffic = [
            scope.spawn(|| flood(&d, &end)),
            scope.spawn(|| strangers(&d, &end)),
            scope.spawn(|| visitors(&d, &end)),
        ];
        let captured = capture(&d, &folder);
        end.store(true, Ordering::Relaxed);
        for one in traffic {
            one.join().map_err(|_| anyhow!("the traffic panicked"))??;
        }
        captured
    })
}

/// Each command on a terminal of its own.
fn capture(d: &Deployment, folder: &FilePath) -> Result<()> {
    let tmux = terminal(d, &["top"])?;
    tmux.shows("over-limit-connections")?;
    thread::sleep(WATCHED);
    write(folder, "top", &tmux.screen()?)?;
    tmux.press("q")?;
    tmux.shows("exit=0")?;
    drop(tmux);

    for (name, args) in [
        ("monitor", &["monitor", "--count", "16", "--reason", STRANGE][..]),
        ("stats", &["stats"]),
        ("explain", &["explain", "tcp", "from", "203.0.113.9", "to", ":5432"]),
    ] {
        let has_it = d.tollgate.output(&[args[0], "--help"])?.status.success();
        if !has_it {
            eprintln!("captures: there is no `tollgate {name}`: left out");
            continue;
        }
        let screen = terminal(d, args)?.shows("exit=")?;
        let (shown, code) = screen.split_once("exit=").context("no exit code")?;
        ensure!(code.starts_with('0'), "tollgate {}: {screen}", args.join(" "));
        // As on a host: the lab's own path says nothing to a reader.
        let shown = shown.replace(policy_path(d)?.as_str(), "/etc/tollgate/policy.toml");
        write(folder, name, &format!("# tollgate {}\n{shown}", args.join(" ")))?;
    }
    Ok(())
}

fn policy_path(d: &Deployment) -> Result<String> {
    let status = d.tollgate.status()?;
    let path = status.pointer("/policy/file").and_then(|file| file.as_str());
    path.map(str::to_owned).context("no policy is in force")
}

fn terminal(d: &Deployment, args: &[&str]) -> Result<Tmux> {
    let (columns, rows) = if args == ["top"] { FULL } else { PRINTED };
    let tmux = Tmux::start(&d.lab.ns(Host::Server), columns, rows)?;
    let mut command = d.tollgate.command()?;
    command.args(args);
    tmux.run(&command)?;
    Ok(tmux)
}

fn write(folder: &FilePath, name: &str, screen: &str) -> Result<()> {
    let path: PathBuf = folder.join(format!("{name}.txt"));
    let text: String = screen.trim_end().lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    eprintln!("captures: wrote {}", path.display());
    Ok(())
}

/// Frames round and round, until the end.
fn send(sender: &Sender, frames: &[Vec<u8>], rate: u64, end: &AtomicBool) -> Result<()> {
    while !end.load(Ordering::Relaxed) {
        sender.flood(frames, rate, rate)?;
    }
    Ok(())
}

/// A host of the LAN that opens connections without end.
fn flood(d: &Deployment, end: &AtomicBool) -> Result<()> {
    let path = Path::new(LAN2, SERVER_V4.parse::<Ipv4Addr>()?);
    let link = Link { source: LAN2_MAC, destination: SERVER_MAC };
    let frames: Vec<_> = (1024..u16::MAX).map(|port| link.ip(&path.tcp(port, 80, SYN, 1, &[]))).collect();
    let sender = Sender::open(&d.lab.ns(Host::Lan2), Host::Lan2.interface())?;
    send(&sender, &frames, FLOOD, end)
}

/// Strangers from outside, who look for what is open.
fn strangers(d: &Deployment, end: &AtomicBool) -> Result<()> {
    let link = Link { source: ROUTER_MAC, destination: SERVER_MAC };
    let server: Ipv4Addr = SERVER_V4.parse()?;
    let v6 = Path::new(OUTSIDE_V6.parse::<IpAddr>()?, SERVER_V6.parse::<IpAddr>()?);
    let mut frames = Vec::new();
    for host in 0..40 {
        let path = Path::new(Ipv4Addr::new(198, 51, 100, 1 + host % 7), server);
        let port = 40_000 + u16::from(host);
        frames.push(link.ip(&path.tcp(port, [22, 23, 3389, 8080][usize::from(host % 4)], SYN, 1, &[])));
        match host % 5 {
            0 => frames.push(link.ip(&path.tcp(port, 5432, SYN, 1, &[]))),
            1 => frames.push(link.ip(&v6.tcp(port, 8000, SYN, 1, &[]))),
            2 => frames.push(link.ip(&path.tcp(port, 80, SYN | FIN, 1, &[]))),
            3 => frames.push(link.ip(&path.udp(port, 1900, b"M-SEARCH"))),
            _ => frames.push(link.ip(&Path::new(Ipv4Addr::LOCALHOST, server).udp(port, 53, b"?"))),
        }
    }
    let sender = Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?;
    send(&sender, &frames, STRANGERS, end)
}

/// Somebody of the LAN who reads a page now and then.
fn visitors(d: &Deployment, end: &AtomicBool) -> Result<()> {
    let to = (SERVER_V4.parse::<IpAddr>()?, 8000).into();
    while !end.load(Ordering::Relaxed) {
        // What comes of it shows in the captures.
        http_get(&d.lab.ns(Host::Lan), to, "/", Duration::from_secs(2))?;
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
