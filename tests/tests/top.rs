//! `tollgate top` on a real terminal: what it shows of a flood, its keys, and the terminal that it leaves behind.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proxy_common::abi::ban::{Ban, BanKey, FOR_EVER};
use proxy_common::packet::Addr;
use tollgate_tests::frames::{Link, Path};
use tollgate_tests::lab::{LAN_MAC, SERVER_MAC};
use tollgate_tests::sender::Sender;
use tollgate_tests::{Deployment, Hook, Host, Monitor, Tmux};

const POLICY: &str = r#"
version = 1

[interfaces.wlp2s0]
hook = "auto"
default = "drop"

[limits.few]
per-source = { packets = "10/s", burst = 20 }

[services.limited]
ports = ["udp/7000"]
allow = "any"
limit = "few"
"#;

const LINK: Link = Link { source: LAN_MAC, destination: SERVER_MAC };
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 104);
const LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 50);

/// A firewall, a host of the LAN that sends what it should not, and a terminal that `top` has taken over.
struct Watched {
    tmux: Tmux,
    sender: Sender,
    d: Deployment,
}

fn watched() -> Result<Watched> {
    let d = Deployment::with_policy(POLICY, Hook::AsWritten)?;
    let sender = Sender::open(&d.lab.ns(Host::Lan), Host::Lan.interface())?;
    let tmux = Tmux::start(&d.lab.ns(Host::Server), 110, 30)?;
    let mut top = d.tollgate.command()?;
    top.arg("top");
    tmux.run(&top)?;
    tmux.shows("tollgate · wlp2s0")?;
    ensure!(tmux.is_taken_over()?, "not on the alternate screen");
    Ok(Watched { tmux, sender, d })
}

impl Watched {
    /// Some of what no service takes, and some of what is over a limit.
    fn flood(&self) -> Result<()> {
        let datagram = |port| LINK.ip(&Path::new(LAN, SERVER).udp(4000, port, b"flood"));
        self.sender.flood(&[datagram(9), datagram(7000)], 2_000, 400).map(drop)
    }

    /// Waits until something is on the screen, with the flood going on.
    fn floods_until(&self, what: &str, mut is_so: impl FnMut(&str) -> bool) -> Result<String> {
        self.tmux.comes(what, |screen| {
            let flooded = self.flood();
            flooded.is_ok() && is_so(screen)
        })
    }

    /// The program ended well, and the terminal is as a shell wants it.
    fn is_left_sane(&self) -> Result<()> {
        self.tmux.shows("exit=0")?;
        ensure!(!self.tmux.is_taken_over()?, "still on the alternate screen");
        // What is typed is shown, lines are edited by the terminal, and its end of line is that of the shell.
        self.tmux.write("clear; stty -a | tr -d ';'; echo do''ne")?;
        self.tmux.press("Enter")?;
        let settings = self.tmux.shows("done")?;
        for wanted in ["icanon", "isig", "echo", "opost", "icrnl"] {
            ensure!(settings.split_whitespace().any(|word| word == wanted), "no {wanted}: {settings}");
        }
        Ok(())
    }
}

#[test]
fn a_flood_and_a_ban_are_seen_and_keys_are_heard() -> Result<()> {
    let w = watched()?;
    let source = LAN.to_string();
    // Under each of two headings, with the reason of each.
    w.floods_until("both sources", |screen| {
        let row = |reason: &str| screen.lines().any(|line| line.contains(&source) && line.contains(reason));
        row("no-service") && row("over-limit-packets") && screen.matches(&source).count() >= 2
    })?;
    w.floods_until("a rate", |screen| {
        let title = screen.lines().next().unwrap_or_default();
        title.contains("/s dropped") && !title.contains(" 0/s dropped")
    })?;

    let path = w.d.tollgate.pins().join("shared/BANS");
    let mut bans: HashMap<_, BanKey, Ban> = HashMap::try_from(Map::HashMap(MapData::from_pin(&path)?))?;
    let known = BanKey::of(Addr::from_ip([198, 51, 100, 7].into()), false);
    bans.insert(known, Ban { until_ns: FOR_EVER, since_ns: 1 }, 0)?;
    let screen = w.tmux.shows("198.51.100.7")?;
    ensure!(
        screen.lines().any(|line| line.contains("198.51.100.7") && line.contains("for ever")),
        "{screen}"
    );

    w.tmux.press("b")?;
    w.tmux.shows("ban 192.168.0.50 for 10m?")?;
    w.tmux.press("n")?;
    w.tmux.comes("the question's end", |screen| !screen.contains("for 10m?"))?;
    // A host of the LAN is nobody that this host needs; it is banned, seen, and unbanned.
    w.tmux.press("b")?;
    w.tmux.shows("ban 192.168.0.50 for 10m?")?;
    w.tmux.press("y")?;
    w.tmux.shows("banned 192.168.0.50 for 10m")?;
    // In the list of bans alone a row is a source and a time that is left.
    let banned = |screen: &str| {
        let rows = screen.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.into_iter()
            .any(|row| matches!(row[..], [who, minutes, _] if who == source && minutes.ends_with('m')))
    };
    w.tmux.comes("the ban", banned)?;
    let listed = w.d.tollgate.checked(&["bans", "--json"])?;
    let listed = String::from_utf8_lossy(&listed.stdout);
    ensure!(listed.contains(&source) && listed.contains("by a key in tollgate top"), "{listed}");
    // What ends first is first among the bans.
    w.tmux.press("Tab")?;
    w.tmux.press("Tab")?;
    w.tmux.press("u")?;
    w.tmux.shows("unbanned 192.168.0.50")?;
    w.tmux.comes("the end of the ban", |screen| !banned(screen))?;

    w.tmux.press("p")?;
    w.tmux.shows("paused")?;
    w.tmux.press("?")?;
    w.tmux.shows("ban the chosen source")?;
    w.tmux.press("x")?;
    w.tmux.comes("the help's end", |screen| !screen.contains("ban the chosen source"))?;
    w.tmux.press("q")?;
    w.is_left_sane()
}

#[test]
fn a_signal_leaves_the_terminal_sane() -> Result<()> {
    let w = watched()?;
    let lock = fs::read_to_string(w.d.tollgate.run_dir().join("events.lock"))?;
    let pid: i32 = lock.trim().rsplit(' ').next().context("a pid")?.parse()?;
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    w.is_left_sane()
}

#[test]
fn another_reader_of_events_is_named_and_the_rest_goes_on() -> Result<()> {
    let d = Deployment::with_policy(POLICY, Hook::AsWritten)?;
    let monitor = Monitor::start(&d.tollgate, &[])?;
    let tmux = Tmux::start(&d.lab.ns(Host::Server), 130, 30)?;
    let mut top = d.tollgate.command()?;
    top.arg("top");
    tmux.run(&top)?;
    let screen = tmux.shows(&format!("tollgate monitor, pid {}", monitor.pid()))?;
    ensure!(screen.contains("tollgate · wlp2s0"), "{screen}");
    drop(monitor);
    tmux.comes("the end of the complaint", |screen| !screen.contains("tollgate monitor, pid"))?;
    Ok(())
}

#[test]
fn no_terminal_is_an_error_that_says_what_to_use() -> Result<()> {
    let d = Deployment::with_policy(POLICY, Hook::AsWritten)?;
    let output = d.tollgate.output(&["top"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && said.contains("stats --watch"), "{}: {said}", output.status);
    Ok(())
}
