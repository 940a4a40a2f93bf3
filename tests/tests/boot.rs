//! At boot: the shipped unit under a real systemd, in a machine of its own; and what the daemon tells systemd.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tollgate_tests::lab::SERVER_V4;
use tollgate_tests::machine::{Machine, unit, until};
use tollgate_tests::tollgate::binary;
use tollgate_tests::traffic::tcp_connect;
use tollgate_tests::{Host, Lab, Outcome, Tollgate};

const SILENCE: Duration = Duration::from_millis(600);
/// Exposure by systemd's own count, in tenths: 24 now, 96 without any sandbox.
const MOST_EXPOSED: &str = "25";
/// The same with what the L7 proxy needs: 33 now.
const MOST_EXPOSED_WITH_PROXY: &str = "34";
const WHAT_CLOSED_SAYS: &str = "LOCKED DOWN";
const WHAT_OPEN_SAYS: &str = "no policy is enforced: everything passes";
const OPEN: &str = "[Service]\nExecStart=\nExecStart=/usr/local/bin/tollgate run --on-failure open --policy \
                    /etc/tollgate/policy.toml\n";

fn policy(ports: &str) -> String {
    format!("version = 1\n[interfaces.wlp2s0]\n[services.a]\nports = [{ports}]\nallow = \"any\"\n")
}

/// Nobody listens anywhere: what passes is refused by the server itself, what is dropped is not answered.
fn passes(lab: &Lab, port: u16) -> Result<bool> {
    let at = SocketAddr::new(SERVER_V4.parse().context("an address")?, port);
    match tcp_connect(&lab.ns(Host::Lan), at, SILENCE)? {
        Outcome::Refused => Ok(true),
        Outcome::TimedOut => Ok(false),
        other => anyhow::bail!("port {port}: {other}"),
    }
}

/// Which of 1000 and 2000 pass.
fn verdicts(lab: &Lab) -> Result<(bool, bool)> {
    Ok((passes(lab, 1000)?, passes(lab, 2000)?))
}

fn status(machine: &Machine) -> Result<Value> {
    Ok(serde_json::from_str(&machine.run(&["tollgate", "status", "--json"])?)?)
}

fn seen(machine: &Machine) -> Result<u64> {
    let stats: Value = serde_json::from_str(&machine.run(&["tollgate", "stats", "--json"])?)?;
    let packets = stats.pointer("/seen/packets").and_then(Value::as_u64);
    packets.with_context(|| stats.to_string())
}

fn good(output: &Output) -> Result<()> {
    let said = [&output.stdout[..], &output.stderr].concat();
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&said));
    Ok(())
}

#[test]
fn the_unit_is_well_formed_and_in_a_tight_sandbox() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("tollgate.service");
    let text = fs::read_to_string(unit())?;
    let program = binary()?.display().to_string();
    fs::write(&copy, text.replace("/usr/local/bin/tollgate", &program))?;
    let verify = ["verify", "--man=no", "--recursive-errors=no"];
    let output = Command::new("systemd-analyze").args(verify).arg(&copy).output()?;
    good(&output)?;
    ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let security = |most| ["security", "--no-pager", "--offline=true", "--threshold", most];
    good(&Command::new("systemd-analyze").args(security(MOST_EXPOSED)).arg(&copy).output()?)?;

    // A file beside the unit adds to it as if it stood at its end.
    let proxy = fs::read_to_string(unit().with_file_name("proxy.conf"))?;
    let (unit, install) = text.split_once("[Install]").context("no [Install]")?;
    let both = format!("{unit}\n{proxy}\n[Install]{install}").replace("/usr/local/bin/tollgate", &program);
    fs::write(&copy, both)?;
    let output = Command::new("systemd-analyze").args(verify).arg(&copy).output()?;
    good(&output)?;
    ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    good(&Command::new("systemd-analyze").args(security(MOST_EXPOSED_WITH_PROXY)).arg(&copy).output()?)
}

/// The next message of this kind; others are passed over.
fn heard(socket: &UnixDatagram, wanted: &str) -> Result<String> {
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).with_context(|| format!("waiting for {wanted}"))?;
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if message.lines().any(|line| line == wanted) {
            return Ok(message);
        }
    }
}

#[test]
fn systemd_is_told_of_each_step() -> Result<()> {
    let lab = Lab::new()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("policy.toml");
    fs::write(&file, policy("\"tcp/1000\""))?;
    let socket = UnixDatagram::bind(folder.path().join("notify"))?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    // Dropping it takes enforcement away.
    let tollgate = Tollgate::prepare(&lab, &file, &[])?;
    let mut daemon = lab.ns(Host::Server).command("sh");
    daemon.args(["-c", "WATCHDOG_PID=$$ exec \"$@\"", "sh"]).arg(binary()?).args(tollgate.directories());
    daemon.args(["run", "--policy"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    daemon.env("NOTIFY_SOCKET", folder.path().join("notify")).env("WATCHDOG_USEC", "400000");
    let mut daemon = daemon.spawn()?;
    let pid = Pid::from_raw(i32::try_from(daemon.id())?);
    let told = || -> Result<()> {
        let ready = heard(&socket, "READY=1")?;
        ensure!(ready.contains("STATUS=enforcing "), "{ready}");
        heard(&socket, "WATCHDOG=1")?;
        heard(&socket, "WATCHDOG=1")?;
        kill(pid, Signal::SIGHUP)?;
        let reloading = heard(&socket, "RELOADING=1")?;
        ensure!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
        heard(&socket, "READY=1")?;
        fs::write(&file, "nonsense")?;
        kill(pid, Signal::SIGHUP)?;
        heard(&socket, "RELOADING=1")?;
        // Or systemd would wait for it.
        heard(&socket, "READY=1")?;
        kill(pid, Signal::SIGTERM)?;
        heard(&socket, "STOPPING=1").map(drop)
    };
    let told = told();
    let _ = kill(pid, Signal::SIGKILL);
    daemon.wait()?;
    told
}

#[test]
fn it_is_enforced_before_the_network_and_whatever_becomes_of_the_daemon() -> Result<()> {
    let lab = Lab::new()?;
    ensure!(verdicts(&lab)? == (true, true), "before the boot everything passes");
    let machine = Machine::boot(&lab, &policy("\"tcp/1000\""), "")?;
    let at_network_pre: Value = serde_json::from_str(&machine.run(&["cat", "/run/at-network-pre"])?)?;
    ensure!(at_network_pre["enforcing"] == true, "when the network may be set up: {at_network_pre}");
    ensure!(verdicts(&lab)? == (true, false), "after the boot");
    ensure!(machine.property("StatusText")?.starts_with("enforcing /etc/tollgate/policy.toml on wlp2s0"));

    machine.write_policy(&policy("\"tcp/2000\""))?;
    machine.run(&["systemctl", "reload", "tollgate"])?;
    ensure!(verdicts(&lab)? == (false, true), "after the reload: {}", machine.journal());
    machine.write_policy("nonsense")?;
    ensure!(!machine.output(&["systemctl", "reload", "tollgate"])?.status.success(), "nonsense was taken");
    ensure!(verdicts(&lab)? == (false, true), "after a reload of nonsense");
    machine.write_policy(&policy("\"tcp/2000\""))?;
    // SIGHUP says that it reloads, and when it has: the unit is active again.
    machine.run(&["systemctl", "kill", "--signal=HUP", "--kill-whom=main", "tollgate"])?;
    machine.until_unit(&[("ActiveState", "active"), ("SubState", "running")])?;

    let before = seen(&machine)?;
    machine.run(&["systemctl", "kill", "--signal=KILL", "--kill-whom=main", "tollgate"])?;
    ensure!(verdicts(&lab)? == (false, true), "after SIGKILL");
    machine.until_unit(&[("NRestarts", "1"), ("ActiveState", "active")])?;
    ensure!(verdicts(&lab)? == (false, true), "with a daemon again");
    ensure!(seen(&machine)? > before, "the counters began anew");

    machine.run(&["systemctl", "stop", "tollgate"])?;
    ensure!(verdicts(&lab)? == (false, true), "after the stop");
    let stopped = status(&machine)?;
    ensure!(stopped["enforcing"] == true && stopped["daemon"]["running"] == false, "{stopped}");
    Ok(())
}

#[test]
fn a_bad_policy_at_boot_is_replaced_by_the_last_good_one_or_by_the_lock_down() -> Result<()> {
    let lab = Lab::new()?;
    let mut machine = Machine::boot(&lab, &policy("\"tcp/1000\""), "")?;
    ensure!(verdicts(&lab)? == (true, false), "after the first boot: {}", machine.journal());
    machine.write_policy("nonsense")?;
    machine.reboot()?;
    ensure!(verdicts(&lab)? == (true, false), "with the last good policy: {}", machine.journal());
    ensure!(machine.property("StatusText")?.contains("the policy file was refused"), "{}", machine.journal());

    fs::remove_dir_all(machine.state_dir().join("history"))?;
    machine.reboot()?;
    ensure!(verdicts(&lab)? == (false, false), "with no good policy: {}", machine.journal());
    ensure!(status(&machine)?["locked_down"] == true, "{}", status(&machine)?);
    ensure!(machine.run(&["tollgate", "status"])?.starts_with(WHAT_CLOSED_SAYS), "not said by status");
    ensure!(machine.journal().contains(WHAT_CLOSED_SAYS), "not said: {}", machine.journal());
    // What the server begins itself is answered: refused by the LAN host, which nobody listens on.
    let lan = SocketAddr::new("192.168.0.50".parse()?, 1000);
    let own = tcp_connect(&lab.ns(Host::Server), lan, SILENCE)?;
    ensure!(own == Outcome::Refused, "what the server begins: {own}");
    // A daemon that is started again finds it in force, and goes on.
    machine.run(&["systemctl", "restart", "tollgate"])?;
    ensure!(status(&machine)?["locked_down"] == true && verdicts(&lab)? == (false, false));
    machine.write_policy(&policy("\"tcp/2000\""))?;
    machine.run(&["systemctl", "reload", "tollgate"])?;
    ensure!(status(&machine)?["locked_down"] == false && verdicts(&lab)? == (false, true));
    Ok(())
}

#[test]
fn a_bad_policy_at_boot_leaves_the_host_open_and_says_so_if_that_is_wanted() -> Result<()> {
    let lab = Lab::new()?;
    let machine = Machine::boot(&lab, "nonsense", OPEN)?;
    until("the journal to say it", || Ok(machine.journal().contains(WHAT_OPEN_SAYS)))
        .with_context(|| machine.journal())?;
    ensure!(verdicts(&lab)? == (true, true), "{}", machine.journal());
    // It does not give up.
    machine.write_policy(&policy("\"tcp/1000\""))?;
    machine.until_unit(&[("ActiveState", "active")])?;
    ensure!(verdicts(&lab)? == (true, false), "{}", machine.journal());
    Ok(())
}

#[test]
fn a_daemon_that_stands_still_is_started_anew_and_nothing_passes_meanwhile() -> Result<()> {
    let lab = Lab::new()?;
    let machine = Machine::boot(&lab, &policy("\"tcp/1000\""), "[Service]\nWatchdogSec=5s\n")?;
    let first = machine.property("MainPID")?;
    machine.run(&["systemctl", "kill", "--signal=STOP", "--kill-whom=main", "tollgate"])?;
    ensure!(verdicts(&lab)? == (true, false), "while it stands still");
    machine.until_unit(&[("NRestarts", "1"), ("ActiveState", "active")])?;
    ensure!(machine.property("MainPID")? != first, "the same process");
    ensure!(verdicts(&lab)? == (true, false), "after that");
    Ok(())
}
