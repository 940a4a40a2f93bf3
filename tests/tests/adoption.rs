//! Connections that exist when a policy is first enforced live on, whoever began them; new ones are what the policy says.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tollgate_tests::deployment::packets_of;
use tollgate_tests::frames::{ACK, Link, Path};
use tollgate_tests::lab::{
    OUTSIDE_V4, OUTSIDE_V6, PUBLISHED, ROUTER_MAC, SERVER_MAC, SERVER_PORT, SERVER_V4, SERVER_V6,
};
use tollgate_tests::sender::Sender;
use tollgate_tests::services::{Postgres, Services, TcpEcho};
use tollgate_tests::tollgate::binary;
use tollgate_tests::traffic::{Dialogue, Download, http_get, ping, psql_select_1, tcp_connect};
use tollgate_tests::{Deployment, Hook, Host, Lab, Ns, Outcome};

/// A port that no policy here opens.
const SSH: u16 = 2222;
/// An outside port at which somebody is slow to answer.
const SLOW: u16 = 4433;
const BYTES: u64 = 10_000_000;
const RATE: u64 = 2_000_000;
const BEAT: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_millis(600);

const SHORT: &str = r#"
version = 1

[interfaces.wlp2s0]

[timeouts]
tcp-closing = "1s"
"#;

fn at(address: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse().context("an address")?, port))
}

/// A datagram that has been asked for and not yet sent.
struct SlowAnswer {
    client: UdpSocket,
    server: UdpSocket,
    asked_by: SocketAddr,
}

impl SlowAnswer {
    fn ask(from: &Ns, outside: &Ns, port: u16) -> Result<Self> {
        let to = at(OUTSIDE_V4, port)?;
        let server = outside.in_ns(|| Ok(UdpSocket::bind(to)?))?;
        let client = from.in_ns(|| {
            let client = UdpSocket::bind("0.0.0.0:0")?;
            client.connect(to)?;
            Ok(client)
        })?;
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(PATIENCE))?;
        }
        client.send(b"a question")?;
        let (_, asked_by) = server.recv_from(&mut [0; 64]).context("the question")?;
        Ok(Self { client, server, asked_by })
    }

    fn answer(&self) -> Result<()> {
        self.server.send_to(b"an answer", self.asked_by)?;
        self.client.recv(&mut [0; 64]).context("the answer").map(drop)
    }
}

fn sessions_go_on_through_the_first_policy(hook: Hook) -> Result<()> {
    binary()?;
    let lab = Lab::new()?;
    let postgres = Postgres::start(&lab)?;
    let services = Services::start(&lab)?;
    let [server, container, lan, outside] =
        [Host::Server, Host::Container, Host::Lan, Host::Outside].map(|host| lab.ns(host));
    let _ssh = TcpEcho::start(&server, SSH)?;

    let dialogues = [
        ("ssh over IPv4", Dialogue::with_echo(&outside, at(SERVER_V4, SSH)?, BEAT, 100)?),
        ("ssh over IPv6", Dialogue::with_echo(&outside, at(SERVER_V6, SSH)?, BEAT, 100)?),
        ("psql", Dialogue::with_psql(&lan, SERVER_V4, BEAT, 100)?),
    ];
    let downloads = [
        ("of the LAN from the server", Download::start(&lan, at(SERVER_V4, 8000)?, BYTES, RATE)?),
        ("of the server over IPv4", Download::start(&server, at(OUTSIDE_V4, 80)?, BYTES, RATE)?),
        ("of the server over IPv6", Download::start(&server, at(OUTSIDE_V6, 80)?, BYTES, RATE)?),
        ("of the container", Download::start(&container, at(OUTSIDE_V4, 80)?, BYTES, RATE)?),
        ("from the container", Download::start(&outside, at(SERVER_V4, PUBLISHED)?, BYTES, RATE)?),
    ];
    let slow = [
        ("the server", SlowAnswer::ask(&server, &outside, SLOW)?),
        ("the container", SlowAnswer::ask(&container, &outside, SLOW + 1)?),
    ];
    // Its identifier is remembered for a while after the answer.
    let echo = ping(&container, OUTSIDE_V4.parse()?)?;
    ensure!(echo.is_answered(), "{echo}");
    let begun = || {
        dialogues.iter().all(|(_, one)| one.answered() > 0)
            && downloads.iter().all(|(_, one)| one.bytes() > 0)
    };
    let patience = Instant::now() + PATIENCE;
    while !begun() && Instant::now() < patience {
        thread::sleep(BEAT);
    }

    let text = packets_of("platform-strict")?;
    let d = Deployment::enforce(lab, Some(postgres), services, &text, hook)?;
    let (taken, _) = d.tollgate.hook_and_mode()?;
    ensure!(taken == hook.expected(), "{taken}");
    for (name, dialogue) in &dialogues {
        ensure!((1..100).contains(&dialogue.answered()), "{name} was not in the middle");
    }
    for (name, download) in &downloads {
        ensure!((1..BYTES).contains(&download.bytes()), "the download {name} was not in the middle");
    }

    // New connections are what the policy says.
    for (host, port) in [(&outside, SSH), (&lan, SSH), (&lan, 5432), (&outside, PUBLISHED), (&outside, 8000)]
    {
        let outcome = tcp_connect(host, at(SERVER_V4, port)?, SILENCE)?;
        ensure!(outcome == Outcome::TimedOut, "a new connection to {port}: {outcome}");
    }
    let outcome = tcp_connect(&outside, at(SERVER_V6, SSH)?, SILENCE)?;
    ensure!(outcome == Outcome::TimedOut, "a new connection over IPv6: {outcome}");
    let answer = http_get(&lan, at(SERVER_V4, 8000)?, "/", PATIENCE)?;
    ensure!(answer.is_answered_by_port(8000), "a new connection that is allowed: {answer}");

    // Those that were there have not noticed.
    for (who, slow) in &slow {
        slow.answer().with_context(|| format!("a datagram for {who}"))?;
    }
    for (name, dialogue) in dialogues {
        let answers = dialogue.finish().context(name)?;
        ensure!(answers.lines == 100 && answers.longest_wait < LONGEST_PAUSE, "{name}: {answers:?}");
        eprintln!("{name}: {answers:?}");
    }
    for (name, download) in downloads {
        let progress = download.finish().with_context(|| format!("the download {name}"))?;
        ensure!(progress.bytes == BYTES && progress.longest_pause < LONGEST_PAUSE, "{name}: {progress:?}");
        eprintln!("the download {name}: {progress:?}");
    }
    let outcome = psql_select_1(&lan, SERVER_V4)?;
    ensure!(outcome == Outcome::TimedOut, "a new session of psql: {outcome}");

    let log = d.tollgate.log();
    let expected = "adopted 7 connections of this host and 4 of containers behind it";
    ensure!(log.contains(expected), "{log}");
    Ok(())
}

#[test]
fn sessions_go_on_through_the_first_policy_by_native_xdp() -> Result<()> {
    sessions_go_on_through_the_first_policy(Hook::AsWritten)
}

#[test]
fn sessions_go_on_through_the_first_policy_by_tc() -> Result<()> {
    sessions_go_on_through_the_first_policy(Hook::Tc)
}

fn an_adopted_session_ends_for_good(hook: Hook) -> Result<()> {
    binary()?;
    let lab = Lab::new()?;
    let services = Services::start(&lab)?;
    let _ssh = TcpEcho::start(&lab.ns(Host::Server), SSH)?;
    let to = at(SERVER_V4, SSH)?;
    let session = Dialogue::with_echo(&lab.ns(Host::Outside), to, BEAT, 50)?;
    let from = session.local().context("a session without an address")?;
    let d = Deployment::enforce(lab, None, services, SHORT, hook)?;
    let sender = Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?;
    let link = Link { source: ROUTER_MAC, destination: SERVER_MAC };
    let stray = link.ip(&Path::new(from.ip(), to.ip()).tcp(from.port(), to.port(), ACK, 1, b""));
    let dropped = || Ok::<_, anyhow::Error>(d.tollgate.stats()?.reason("no-service").packets);

    let before = dropped()?;
    sender.send(std::slice::from_ref(&stray))?;
    thread::sleep(SILENCE);
    ensure!(dropped()? == before, "a packet of a session that lives was dropped");
    ensure!(session.answered() < 50, "the session was over too early");
    session.finish()?;
    // The policy remembers a closed session for a second.
    thread::sleep(Duration::from_millis(1500));
    let before = dropped()?;
    sender.send(&[stray])?;
    thread::sleep(SILENCE);
    ensure!(dropped()? == before + 1, "a packet of a session that has ended was not dropped");
    Ok(())
}

#[test]
fn an_adopted_session_ends_for_good_by_native_xdp() -> Result<()> {
    an_adopted_session_ends_for_good(Hook::AsWritten)
}

#[test]
fn an_adopted_session_ends_for_good_by_tc() -> Result<()> {
    an_adopted_session_ends_for_good(Hook::Tc)
}

#[test]
fn a_session_goes_on_through_detach_and_the_next_first_policy() -> Result<()> {
    binary()?;
    let lab = Lab::new()?;
    let services = Services::start(&lab)?;
    let _ssh = TcpEcho::start(&lab.ns(Host::Server), SSH)?;
    let mut d = Deployment::enforce(lab, None, services, SHORT, Hook::AsWritten)?;
    let to = at(SERVER_V4, SSH)?;
    let outside = d.lab.ns(Host::Outside);
    ensure!(tcp_connect(&outside, to, SILENCE)? == Outcome::TimedOut);
    d.tollgate.detach()?;
    d.tollgate.terminate()?;
    let session = Dialogue::with_echo(&outside, to, BEAT, 60)?;
    d.tollgate.restart()?;
    ensure!(session.answered() < 60, "the session was over too early");
    ensure!(tcp_connect(&outside, to, SILENCE)? == Outcome::TimedOut);
    let answers = session.finish()?;
    ensure!(answers.longest_wait < LONGEST_PAUSE, "{answers:?}");
    Ok(())
}
