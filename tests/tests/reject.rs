//! Rejected packets are answered at once and as the RFCs say; what must not be answered is not, and a flood is not repeated.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use etherparse::{Icmpv4Type, PacketBuilder, PacketHeaders, PayloadSlice, TransportHeader, icmpv4};
use tollgate_tests::capture::Capture;
use tollgate_tests::counters::{Answers, Stats};
use tollgate_tests::frames::{Link, Path, QINQ, RST, SYN, VLAN, checksum};
use tollgate_tests::lab::{LAN_MAC, SERVER_MAC, SERVER_PORT, SERVER_V4, SERVER_V6};
use tollgate_tests::sender::Sender;
use tollgate_tests::tollgate::binary;
use tollgate_tests::traffic::{tcp_connect, udp_round_trip};
use tollgate_tests::{Deployment, Hook, Host, Outcome};

/// `HOOK` is replaced.
const POLICY: &str = r#"
version = 1

[interfaces.wlp2s0]
hook    = "HOOK"
default = "reject"

[services.open]
ports = ["tcp/80", "tcp/7100"]
allow = "any"

[services.silent]
ports = ["tcp/8000", "udp/8000"]
allow = "none"

[services.closed]
ports  = ["tcp/8081", "udp/8081"]
allow  = "none"
refuse = "reject"
"#;

/// An answer within the lab takes a millisecond; this much more on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(900);
/// Silence so long is a drop; shorter than the first retransmission.
const SILENCE: Duration = Duration::from_millis(600);
/// What is on its way arrives within this time.
const SETTLED: Duration = Duration::from_millis(400);

const LINK: Link = Link { source: LAN_MAC, destination: SERVER_MAC };
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 104);
const LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 50);

fn policy(hook: &str) -> String {
    POLICY.replace("HOOK", hook)
}

fn deployment(hook: &str) -> Result<Deployment> {
    Deployment::with_policy(&policy(hook), Hook::AsWritten)
}

fn at(address: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse().context("an address")?, port))
}

/// Runs `work` and gives what the counters say of it.
fn counted(d: &Deployment, work: impl FnOnce() -> Result<()>) -> Result<Stats> {
    let before = d.tollgate.settled_stats()?;
    work()?;
    Ok(d.tollgate.settled_stats()?.since(&before))
}

/// The attempt ends with a refusal at once: one packet, dropped as it is without an answer, and one answer.
fn is_refused(
    d: &Deployment,
    rule: &str,
    reason: &str,
    attempt: impl FnOnce() -> Result<Outcome>,
) -> Result<()> {
    let delta = counted(d, || {
        let start = Instant::now();
        let outcome = attempt()?;
        let took = start.elapsed();
        ensure!(outcome == Outcome::Refused && took < AT_ONCE, "{outcome} after {took:?}");
        Ok(())
    })?;
    ensure!(delta.outcome(rule, reason).packets == 1, "{delta:#?}");
    ensure!(delta.answers == Answers { sent: 1, ..Answers::default() }, "{:?}", delta.answers);
    let uplink = delta.interfaces.get("wlp2s0").context("the uplink")?;
    ensure!(uplink.answers == delta.answers, "{uplink:#?}");
    Ok(())
}

fn clients_are_refused_at_once(hook: &str, mode: &str) -> Result<()> {
    let d = deployment(hook)?;
    ensure!(d.tollgate.hook_and_mode()? == ("tc".to_owned(), mode.to_owned()), "{:?}", d.tollgate.status()?);
    for host in [Host::Lan, Host::Outside] {
        let ns = d.lab.ns(host);
        for address in [SERVER_V4, SERVER_V6] {
            for (port, rule, reason) in [(22, "default", "no-service"), (8081, "closed", "service-refused")] {
                let to = at(address, port)?;
                is_refused(&d, rule, reason, || tcp_connect(&ns, to, AT_ONCE))
                    .with_context(|| format!("TCP, {host} to {to}"))?;
                is_refused(&d, rule, reason, || udp_round_trip(&ns, to, AT_ONCE))
                    .with_context(|| format!("UDP, {host} to {to}"))?;
            }
            let delta = counted(&d, || {
                let outcome = tcp_connect(&ns, at(address, 8000)?, SILENCE)?;
                ensure!(outcome == Outcome::TimedOut, "a service that drops: {outcome}");
                let outcome = tcp_connect(&ns, at(address, 80)?, AT_ONCE)?;
                ensure!(outcome.is_answered(), "an open service: {outcome}");
                Ok(())
            })?;
            ensure!(delta.answers == Answers::default(), "{:?}", delta.answers);
        }
    }
    let output = d.tollgate.checked(&["stats"])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(said.contains("answers to rejected packets: 16 sent, 0 withheld"), "{said}");
    Ok(())
}

#[test]
fn clients_are_refused_at_once_by_tcx() -> Result<()> {
    clients_are_refused_at_once("tc", "tcx")
}

#[test]
fn clients_are_refused_at_once_by_clsact() -> Result<()> {
    clients_are_refused_at_once("clsact", "clsact")
}

/// A deployment, a socket that sends frames to the server and one that hears what comes back.
fn alone(hook: &str) -> Result<(Deployment, Sender, Capture)> {
    let d = deployment(hook)?;
    d.lab.isolate_server()?;
    let router = d.lab.ns(Host::Router);
    let (sender, capture) = (Sender::open(&router, SERVER_PORT)?, Capture::open(&router, SERVER_PORT)?);
    Ok((d, sender, capture))
}

/// A TCP segment from the LAN host to port 22.
fn segment(sequence: u32, acknowledgement: Option<u32>, fin: bool, payload: &[u8]) -> Result<Vec<u8>> {
    let step = PacketBuilder::ethernet2(LAN_MAC, SERVER_MAC).ipv4(LAN.octets(), SERVER.octets(), 64);
    let step = step.tcp(40_000, 22, sequence, 1000);
    let step = match acknowledgement {
        Some(number) => step.ack(number),
        None => step.syn(),
    };
    let step = if fin { step.fin() } else { step };
    let mut frame = Vec::new();
    step.write(&mut frame, payload)?;
    Ok(frame)
}

/// What has come back, without what the server tells groups by itself.
fn answers(capture: &Capture) -> Result<Vec<Vec<u8>>> {
    let mut frames = capture.frames(SETTLED)?;
    frames.retain(|frame| frame.first().is_some_and(|byte| byte & 1 == 0));
    Ok(frames)
}

fn only(mut frames: Vec<Vec<u8>>) -> Result<Vec<u8>> {
    ensure!(frames.len() == 1, "{} frames came back: {frames:?}", frames.len());
    frames.pop().context("a frame")
}

#[test]
fn resets_carry_the_right_numbers() -> Result<()> {
    let (_d, sender, capture) = alone("tc")?;
    for (frame, [sequence, acknowledgement], has_ack) in [
        (segment(1000, None, false, &[])?, [0, 1001], true),
        (segment(u32::MAX, None, false, b"early")?, [0, 5], true),
        (segment(7, Some(5555), false, b"amid")?, [5555, 0], false),
        (segment(7, Some(6666), true, &[])?, [6666, 0], false),
    ] {
        sender.send(std::slice::from_ref(&frame))?;
        let answer = only(answers(&capture)?)?;
        ensure!(answer[..6] == LAN_MAC && answer[6..12] == SERVER_MAC, "{answer:x?}");
        ensure!(answer.len() == 54, "{} bytes", answer.len());
        let read = PacketHeaders::from_ethernet_slice(&answer)?;
        let Some(TransportHeader::Tcp(tcp)) = read.transport else { bail!("{read:?}") };
        ensure!((tcp.source_port, tcp.destination_port) == (22, 40_000), "{tcp:?}");
        ensure!([tcp.sequence_number, tcp.acknowledgment_number] == [sequence, acknowledgement], "{tcp:?}");
        ensure!(tcp.rst && tcp.ack == has_ack && !tcp.syn && !tcp.fin, "{tcp:?}");
        let Some(etherparse::NetHeaders::Ipv4(ip, _)) = read.net else { bail!("no IPv4") };
        ensure!((ip.source, ip.destination) == (SERVER.octets(), LAN.octets()), "{ip:?}");
        ensure!(ip.header_checksum == ip.calc_header_checksum(), "{ip:?}");
        ensure!(tcp.checksum == tcp.calc_checksum_ipv4(&ip, &[])?, "{tcp:?}");
    }
    Ok(())
}

#[test]
fn errors_quote_what_they_are_about() -> Result<()> {
    let (_d, sender, capture) = alone("tc")?;
    let frame = LINK.ip(&Path::new(LAN, SERVER).udp(4000, 9, b"a payload of some length"));
    sender.send(std::slice::from_ref(&frame))?;
    let answer = only(answers(&capture)?)?;
    let read = PacketHeaders::from_ethernet_slice(&answer)?;
    let Some(TransportHeader::Icmpv4(icmp)) = &read.transport else { bail!("{read:?}") };
    let port = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port);
    ensure!(icmp.icmp_type == port, "{icmp:?}");
    ensure!(matches!(read.payload, PayloadSlice::Icmpv4(quote) if *quote == frame[14..42]), "{read:?}");
    ensure!(checksum(&answer[34..]) == 0, "{answer:x?}");
    Ok(())
}

#[test]
fn a_tagged_packet_is_answered_with_its_tag() -> Result<()> {
    let (d, sender, capture) = alone("tc")?;
    let syn = Path::new(LAN, SERVER).tcp(4000, 22, SYN, 1, &[]);
    sender.send(&[LINK.tagged(&[(VLAN, 7)], 0x0800, &syn)])?;
    let answer = only(answers(&capture)?)?;
    ensure!(answer[12..18] == [0x81, 0, 0, 7, 8, 0], "{answer:x?}");
    let read = PacketHeaders::from_ethernet_slice(&answer)?;
    ensure!(matches!(read.transport, Some(TransportHeader::Tcp(tcp)) if tcp.rst), "{answer:x?}");
    // The kernel changes no length behind a second tag: no answer, and it is counted.
    let delta = counted(&d, || sender.send(&[LINK.tagged(&[(QINQ, 7), (VLAN, 9)], 0x0800, &syn)]))?;
    ensure!(delta.answers == Answers { failed: 1, ..Answers::default() }, "{:?}", delta.answers);
    Ok(())
}

#[test]
fn what_must_not_be_answered_is_not() -> Result<()> {
    let (d, sender, capture) = alone("tc")?;
    let path = Path::new(LAN, SERVER);
    let from = |source: Ipv4Addr| LINK.ip(&Path::new(source, SERVER).tcp(4000, 22, SYN, 1, &[]));
    let to = |destination: IpAddr, mac: [u8; 6]| {
        let source: IpAddr = if destination.is_ipv6() { "2001:db8:0:1::50".parse()? } else { LAN.into() };
        let datagram = Path::new(source, destination).udp(4000, 9, b"all");
        Ok::<_, anyhow::Error>(Link { source: LAN_MAC, destination: mac }.ip(&datagram))
    };
    let mut first = LINK.ip(&path.udp(4000, 9, &[0; 32]));
    let mut later = first.clone();
    (first[20], later[21]) = (0x20, 4);
    for frame in [&mut first, &mut later] {
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    // Port unreachable, about a datagram that the server never sent; and a timestamp request.
    let mut error = vec![3, 3, 0, 0, 0, 0, 0, 0];
    error.extend(Path::new(SERVER, LAN).udp(9, 4000, b"quote"));
    let frames = vec![
        LINK.ip(&path.tcp(4000, 22, RST, 1, &[])),
        LINK.ip(&path.packet(1, &error)),
        LINK.ip(&path.packet(1, &[13, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        first,
        later,
        from(Ipv4Addr::LOCALHOST),
        from(Ipv4Addr::UNSPECIFIED),
        from(Ipv4Addr::new(224, 0, 0, 9)),
        from(Ipv4Addr::new(240, 0, 0, 9)),
        from(SERVER),
        to("255.255.255.255".parse()?, [0xff; 6])?,
        to("192.168.0.255".parse()?, [0xff; 6])?,
        to(SERVER.into(), [0xff; 6])?,
        to("239.1.2.3".parse()?, [1, 0, 0x5e, 1, 2, 3])?,
        to("239.1.2.3".parse()?, SERVER_MAC)?,
        to("ff02::1234".parse()?, [0x33, 0x33, 0, 0, 0x12, 0x34])?,
        to("ff02::1234".parse()?, SERVER_MAC)?,
        // Another host's, heard by an interface that hears everything.
        to(SERVER.into(), [2, 0, 0, 0, 0, 9])?,
    ];
    d.lab.ns(Host::Server).run(&["ip", "link", "set", "wlp2s0", "promisc", "on"])?;
    let delta = counted(&d, || sender.send(&frames))?;
    ensure!(delta.seen.packets == frames.len() as u64, "{delta:#?}");
    ensure!(delta.answers == Answers::default(), "{delta:#?}");
    let back = answers(&capture)?;
    ensure!(back.is_empty(), "{back:x?}");
    // The same sender is answered when it asks as it should.
    sender.send(&[from(LAN)])?;
    only(answers(&capture)?).map(drop)
}

#[test]
fn a_flood_is_not_repeated() -> Result<()> {
    const FLOOD: u64 = 2000;
    let (d, sender, capture) = alone("tc")?;
    let frames = [LINK.ip(&Path::new(LAN, SERVER).tcp(4000, 22, SYN, 1, &[]))];
    let start = Instant::now();
    let delta = counted(&d, || sender.flood(&frames, 20_000, FLOOD).map(drop))?;
    let took = start.elapsed();
    let Answers { sent, throttled, failed } = delta.answers;
    ensure!(delta.outcome("default", "no-service").packets == FLOOD, "{delta:#?}");
    ensure!((sent + throttled, failed) == (FLOOD, 0), "{:?}", delta.answers);
    // A burst of 20, then ten a second.
    let most = 21 + took.as_millis() as u64 / 100;
    ensure!((20..=most).contains(&sent), "{sent} answers in {took:?}");
    let back = answers(&capture)?;
    ensure!(back.len() as u64 == sent, "{} frames came back, {sent} were counted", back.len());
    Ok(())
}

/// Merged packets are answered too: what a peer has in flight when a policy shuts it out.
#[test]
fn a_connection_that_a_new_policy_refuses_is_reset() -> Result<()> {
    let d = deployment("tc")?;
    let to = at(SERVER_V4, 7100)?;
    let listener = d.lab.ns(Host::Server).in_ns(|| Ok(TcpListener::bind(to)?))?;
    let mut stream =
        d.lab.ns(Host::Lan).in_ns(|| TcpStream::connect_timeout(&to, AT_ONCE).context("connecting"))?;
    let _accepted = listener.accept()?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"it works")?;
    let closed = policy("tc").replace(", \"tcp/7100\"", "");
    let output = d.tollgate.apply(&d.write_policy("closed.toml", &closed)?)?;
    ensure!(output.status.success(), "{output:?}");
    let start = Instant::now();
    let delta = counted(&d, || {
        loop {
            match stream.write_all(&[b'.'; 256 * 1024]) {
                Ok(()) if start.elapsed() < Duration::from_secs(5) => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return Ok(());
                }
                other => bail!("{other:?} after {:?}", start.elapsed()),
            }
        }
    })?;
    ensure!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    ensure!(delta.answers.sent >= 1 && delta.answers.failed == 0, "{:?}", delta.answers);
    Ok(())
}

#[test]
fn auto_takes_tc_and_says_why() -> Result<()> {
    let d = Deployment::with_policy(&policy("auto").replace("reject", "drop"), Hook::AsWritten)?;
    ensure!(d.tollgate.hook_and_mode()?.0 == "xdp", "{:?}", d.tollgate.status()?);
    let path = d.write_policy("reject.toml", &policy("auto"))?;
    let output = d.tollgate.apply(&path)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let note = "wlp2s0: TC instead of native XDP, because the policy rejects";
    ensure!(output.status.success() && said.contains(note), "{said}");
    ensure!(d.tollgate.hook_and_mode()?.0 == "tc", "{:?}", d.tollgate.status()?);
    let ns = d.lab.ns(Host::Lan);
    is_refused(&d, "default", "no-service", || tcp_connect(&ns, at(SERVER_V4, 22)?, AT_ONCE))?;
    let output = Command::new(binary()?).arg("check").arg(&path).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && said.contains(note), "{said}");
    Ok(())
}

#[test]
fn xdp_and_reject_are_an_error_of_the_policy() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for hook in ["native", "generic"] {
        let by_default = policy(hook).replace("refuse = \"reject\"", "");
        let by_service = policy(hook).replace("default = \"reject\"", "");
        for text in [by_default, by_service] {
            let path = folder.path().join("policy.toml");
            std::fs::write(&path, text)?;
            let output = Command::new(binary()?).arg("check").arg(&path).output()?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.code() == Some(2), "{output:?}");
            ensure!(said.contains("policy.toml:5:11") && said.contains("help: write \"tc\""), "{said}");
            ensure!(said.contains("packets are rejected here"), "{said}");
        }
    }
    Ok(())
}
