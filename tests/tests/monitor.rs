//! Events of dropped packets: each says what came, none is written while nobody listens, and a flood brings few.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::Pid;
use proxy_common::abi::event::{EVENT_BURST, EVENT_INTERVAL_NS};
use serde_json::{Value, json};
use tollgate_tests::frames::{ETHERNET_LEN, FIN, IPV4, Link, Path, QINQ, SYN, VLAN};
use tollgate_tests::lab::{LAN_MAC, SERVER_MAC, SERVER_PORT, UPLINK};
use tollgate_tests::sender::Sender;
use tollgate_tests::{Deployment, Hook, Host, Monitor, Tollgate};

const POLICY: &str = r#"
version = 1

[interfaces.wlp2s0]
hook = "auto"
default = "drop"

[zones]
lan = ["192.168.0.0/24"]

[services.sink]
ports = ["udp/7000"]
allow = ["lan"]
"#;

const LINK: Link = Link { source: LAN_MAC, destination: SERVER_MAC };
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 104);
const LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 50);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0x104);
const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 9);
/// Longer than anything takes on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);

fn deployed(hook: Hook) -> Result<(Deployment, Sender)> {
    let d = Deployment::with_policy(POLICY, hook)?;
    d.lab.isolate_server()?;
    let sender = Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?;
    Ok((d, sender))
}

/// A datagram that no service takes.
fn stray(port: u16) -> Vec<u8> {
    LINK.ip(&Path::new(LAN, SERVER).udp(4000, port, b"stray"))
}

fn number(event: &Value, key: &str) -> Result<u64> {
    event.get(key).and_then(Value::as_u64).with_context(|| format!("no number {key} in {event}"))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// How many bytes were ever written to the ring, by the kernel's own count.
fn written(tollgate: &Tollgate) -> Result<u64> {
    let map = MapData::from_pin(tollgate.pins().join("shared/EVENTS"))?;
    let page = NonZeroUsize::new(4096).context("a page")?;
    // SAFETY: a fresh mapping at an address of the kernel's choice. The second page holds the producer's position.
    let memory =
        unsafe { mmap(None, page, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, map.fd(), page.get() as i64) }?;
    // SAFETY: the mapping is a page long and begins with an aligned number; the kernel may change it meanwhile.
    let position = unsafe { memory.as_ptr().cast::<u64>().read_volatile() };
    // SAFETY: exactly what was mapped; no reference into it is left.
    unsafe { munmap(memory, page.get()) }?;
    Ok(position)
}

fn events_tell_what_came(hook: Hook) -> Result<()> {
    let (d, sender) = deployed(hook)?;
    let stray_v4 = Path::new(LAN, SERVER).udp(4000, 7001, b"stray");
    let mut malformed = LINK.ip(&stray_v4);
    // The length of the datagram: more than there is.
    malformed[ETHERNET_LEN + 24] = 0x7f;
    let tags = [(QINQ, 7), (VLAN, 8)];
    let refused = Path::new(OUTSIDE_V6, SERVER_V6).udp(4001, 7000, &[6; 900]);
    let (v4, v6) = (json!(LAN), json!(OUTSIDE_V6));
    let ends = |source: &Value, from: u16, to: u16| {
        let destination = if *source == v6 { json!(SERVER_V6) } else { json!(SERVER) };
        json!({"source": source, "source_port": from, "destination": destination, "destination_port": to})
    };
    // The kernel takes the outermost tag off before TC.
    let (vlans, visible) = if hook == Hook::Tc { (json!([8]), 4) } else { (json!([7, 8]), 0) };
    let cases = [
        (
            LINK.ip(&stray_v4),
            0,
            json!({"reason": "no-service", "rule": "default", "protocol": "udp"}),
            ends(&v4, 4000, 7001),
        ),
        (
            LINK.ip(&refused),
            0,
            json!({"reason": "service-refused", "rule": "sink", "protocol": "udp"}),
            ends(&v6, 4001, 7000),
        ),
        (
            LINK.tagged(&tags, IPV4, &Path::new(LAN, SERVER).tcp(4002, 22, SYN, 1, &[])),
            visible,
            json!({"reason": "no-service", "rule": "default", "protocol": "tcp", "detail": "SYN", "vlans": vlans}),
            ends(&v4, 4002, 22),
        ),
        (
            LINK.ip(&Path::new(LAN, SERVER).tcp(4003, 22, SYN | FIN, 1, &[])),
            0,
            json!({"reason": "tcp-flags", "rule": null, "protocol": "tcp", "detail": "FIN+SYN"}),
            ends(&v4, 4003, 22),
        ),
        (
            malformed,
            0,
            json!({"reason": "malformed-udp", "rule": null, "protocol": "udp"}),
            json!({"source": LAN, "destination": SERVER}),
        ),
        (
            LINK.frame(0x1234, b"garbage garbage"),
            0,
            json!({"reason": "unknown-ethertype", "rule": null, "protocol": null, "ethertype": 0x1234}),
            json!({"source": null, "destination": null, "source_port": null}),
        ),
        (
            LINK.ip(&Path::new(LAN, SERVER).packet(47, &[0; 24])),
            0,
            json!({"reason": "no-service", "rule": "default", "protocol": "ip/47", "detail": null}),
            json!({"source": LAN, "destination": SERVER, "destination_port": null}),
        ),
    ];
    let monitor = Monitor::start(&d.tollgate, &[])?;
    for (frame, tag, what, between) in &cases {
        // What passes is not told.
        sender.send(&[LINK.ip(&Path::new(LAN, SERVER).udp(4000, 7000, b"welcome")), frame.clone()])?;
        let event = monitor.event()?;
        let fixed = json!({"interface": UPLINK, "length": frame.len() - tag, "skipped": 0});
        for (key, value) in [what, between, &fixed].into_iter().flat_map(|part| part.as_object()).flatten() {
            ensure!(event.get(key) == Some(value), "{key} is not {value} in {event}");
        }
    }
    let (code, rest) = monitor.interrupt()?;
    ensure!(code == Some(0) && rest.is_empty(), "{code:?} {rest:?}");
    Ok(())
}

#[test]
fn events_tell_what_came_by_native_xdp() -> Result<()> {
    events_tell_what_came(Hook::AsWritten)
}

#[test]
fn events_tell_what_came_by_tc() -> Result<()> {
    events_tell_what_came(Hook::Tc)
}

#[test]
fn nothing_is_written_while_nobody_listens() -> Result<()> {
    let (mut d, sender) = deployed(Hook::AsWritten)?;
    // Nor is the daemon needed.
    d.tollgate.kill()?;
    sender.send(&vec![stray(9); 100])?;
    ensure!(d.tollgate.settled_stats()?.reason("no-service").packets == 100);
    ensure!(written(&d.tollgate)? == 0, "{} bytes written", written(&d.tollgate)?);

    let monitor = Monitor::start(&d.tollgate, &[])?;
    sender.send(&[stray(10)])?;
    let event = monitor.event()?;
    ensure!(number(&event, "destination_port")? == 10 && number(&event, "skipped")? == 0, "{event}");
    let (code, rest) = monitor.interrupt()?;
    ensure!(code == Some(0) && rest.is_empty(), "{code:?} {rest:?}");

    // Off at once after it, and the next one sees nothing of what came in between.
    let before = written(&d.tollgate)?;
    ensure!(before > 0, "the position does not move: it shows nothing");
    sender.send(&vec![stray(11); 100])?;
    ensure!(d.tollgate.settled_stats()?.reason("no-service").packets == 201);
    ensure!(written(&d.tollgate)? == before, "written without a listener");
    Ok(())
}

#[test]
fn a_killed_monitor_is_forgotten() -> Result<()> {
    let (d, sender) = deployed(Hook::AsWritten)?;
    let monitor = Monitor::start(&d.tollgate, &[])?;
    sender.send(&[stray(9)])?;
    monitor.event()?;
    monitor.kill()?;
    let end = Instant::now() + PATIENCE;
    loop {
        ensure!(Instant::now() < end, "events are written for a listener that is dead");
        thread::sleep(Duration::from_millis(200));
        let (counted, before) = (d.tollgate.stats()?.reason("no-service").packets, written(&d.tollgate)?);
        sender.send(&[stray(9)])?;
        let is_counted = d.tollgate.settled_stats()?.reason("no-service").packets > counted;
        if is_counted && written(&d.tollgate)? == before {
            break;
        }
    }
    // What was written for it is not for the next one.
    let monitor = Monitor::start(&d.tollgate, &[])?;
    sender.send(&[stray(10)])?;
    let event = monitor.event()?;
    ensure!(number(&event, "destination_port")? == 10 && number(&event, "skipped")? == 0, "{event}");
    Ok(())
}

/// Events and what they say was skipped.
fn tally(events: &[Value]) -> Result<u64> {
    events.iter().map(|event| Ok(1 + number(event, "skipped")?)).sum()
}

#[test]
fn a_flood_brings_few_events_and_none_of_its_packets_is_forgotten() -> Result<()> {
    const FRAMES: u64 = 200_000;

    let (d, sender) = deployed(Hook::AsWritten)?;
    let begin = Instant::now();
    let monitor = Monitor::start(&d.tollgate, &[])?;
    sender.flood(&(0..64).map(stray).collect::<Vec<_>>(), 50_000, FRAMES)?;
    let flood = d.tollgate.settled_stats()?.reason("no-service").packets;
    ensure!(flood == FRAMES, "{flood} counted");
    // What had no event on a processor is told with the next packet there: one is sent from each.
    let end = Instant::now() + PATIENCE;
    let cpus = sched_getaffinity(Pid::from_raw(0))?;
    let cpus: Vec<_> = (0..CpuSet::count()).filter(|cpu| cpus.is_set(*cpu).unwrap_or(false)).collect();
    let mut events = Vec::new();
    loop {
        for cpu in &cpus {
            thread::scope(|scope| scope.spawn(|| send_from(*cpu, &sender)).join())
                .map_err(|_| anyhow::anyhow!("a sender panicked"))??;
        }
        let counted = d.tollgate.settled_stats()?.reason("no-service").packets;
        events.extend(monitor.pending()?);
        let told = tally(&events)?;
        ensure!(told <= counted, "{told} told of {counted}");
        if told == counted {
            break;
        }
        ensure!(Instant::now() < end, "{told} told of {counted}");
        thread::sleep(Duration::from_millis(100));
    }
    let possible =
        (begin.elapsed().as_nanos() as u64 / EVENT_INTERVAL_NS + EVENT_BURST + 1) * cpus.len() as u64;
    ensure!((events.len() as u64) < possible, "{} events, {possible} possible", events.len());
    ensure!((events.len() as u64) < FRAMES / 2, "{} events: the flood was none", events.len());
    eprintln!("{} events of {FRAMES} packets", events.len());
    Ok(())
}

fn send_from(cpu: usize, sender: &Sender) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    sender.send(&[stray(9)])
}

#[test]
fn filters_choose_by_reason_rule_and_source() -> Result<()> {
    let (d, sender) = deployed(Hook::AsWritten)?;
    let refused = |source: Ipv4Addr| LINK.ip(&Path::new(source, SERVER).udp(4000, 7000, b"refused"));
    let all = [stray(9), refused(OUTSIDE), refused([198, 51, 100, 7].into()), LINK.frame(0x1234, b"garbage")];
    for (args, expected) in [
        (&[][..], 4),
        (&["--reason", "service-refused"][..], 2),
        (&["--reason", "no-service,unknown-ethertype"], 2),
        (&["--rule", "default"], 1),
        (&["--rule", "sink", "--rule", "default"], 3),
        (&["--source", "203.0.113.0/24"], 1),
        (&["--source", "2001:db8::/32"], 0),
        (&["--source", "198.51.100.7", "--reason", "service-refused", "--rule", "sink"], 1),
    ] {
        let monitor = Monitor::start(&d.tollgate, args)?;
        let before = written(&d.tollgate)?;
        sender.send(&all)?;
        let end = Instant::now() + PATIENCE;
        // A record is the event and eight bytes.
        while written(&d.tollgate)? < before + 4 * 168 {
            ensure!(Instant::now() < end, "{args:?}: not written");
            thread::sleep(Duration::from_millis(5));
        }
        let (code, events) = monitor.interrupt()?;
        ensure!(code == Some(0) && events.len() == expected, "{args:?}: {code:?} {events:?}");
    }
    let monitor = Monitor::start(&d.tollgate, &["--count", "2"])?;
    sender.send(&all)?;
    let (code, events) = monitor.ended()?;
    ensure!(code == Some(0) && events.len() == 2, "{code:?} {events:?}");
    let (code, events) = Monitor::start(&d.tollgate, &["--for", "50ms"])?.ended()?;
    ensure!(code == Some(0) && events.is_empty(), "{code:?} {events:?}");
    Ok(())
}

#[test]
fn what_can_not_be_is_refused() -> Result<()> {
    let (d, _) = deployed(Hook::AsWritten)?;
    for (args, wanted) in [
        (["--reason", "no-servise"], "service-refused"),
        (["--reason", "arp"], "no-service"),
        (["--rule", "sunk"], "default, sink"),
        (["--source", "192.168.0.1/24"], "192.168.0.0/24"),
        (["--for", "5"], "5s"),
        (["--count", "0"], "count"),
    ] {
        let output = d.tollgate.command()?.arg("monitor").args(args).output()?;
        let said = text(&output);
        ensure!(
            output.status.code() == Some(2) && said.contains(wanted),
            "{args:?}: {}: {said}",
            output.status
        );
    }
    let unwritable = d.tollgate.output(&["monitor", "--pcap", "/nowhere/drops.pcapng"])?;
    ensure!(
        unwritable.status.code() == Some(1) && text(&unwritable).contains("/nowhere/drops.pcapng"),
        "{unwritable:?}"
    );

    let monitor = Monitor::start(&d.tollgate, &[])?;
    let second = d.tollgate.output(&["monitor"])?;
    let said = text(&second);
    ensure!(second.status.code() == Some(1) && said.contains(&format!("pid {}", monitor.pid())), "{said}");
    // The first one has lost nothing by it.
    d.tollgate.detach()?;
    monitor.says("nothing is enforced")?;
    let late = d.tollgate.output(&["stats"])?;
    ensure!(late.status.success(), "{}", text(&late));
    drop(monitor);
    let none = d.tollgate.output(&["monitor"])?;
    ensure!(none.status.code() == Some(1) && text(&none).contains("nothing is enforced"), "{none:?}");
    Ok(())
}

#[test]
fn a_monitor_listens_on_when_enforcement_begins_anew() -> Result<()> {
    let (d, sender) = deployed(Hook::AsWritten)?;
    let monitor = Monitor::start(&d.tollgate, &[])?;
    let policy = d.write_policy("other.toml", &POLICY.replace("sink", "other"))?;
    let refused = [LINK.ip(&Path::new(OUTSIDE, SERVER).udp(4000, 7000, b"refused"))];
    // By another policy: the ring stays, names change.
    let output = d.tollgate.apply(&policy)?;
    ensure!(output.status.success(), "{}", text(&output));
    sender.send(&refused)?;
    let event = monitor.event()?;
    ensure!(event.get("rule") == Some(&"other".into()), "{event}");
    // By a ring that is another.
    d.tollgate.detach()?;
    monitor.says("nothing is enforced")?;
    let output = d.tollgate.apply(&policy)?;
    ensure!(output.status.success(), "{}", text(&output));
    monitor.says("listening again")?;
    sender.send(&refused)?;
    let event = monitor.event()?;
    ensure!(event.get("rule") == Some(&"other".into()), "{event}");
    Ok(())
}

/// Seconds since 1970.
fn unix_time() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

#[test]
fn wireshark_reads_the_capture() -> Result<()> {
    let (d, sender) = deployed(Hook::AsWritten)?;
    let long = LINK.ip(&Path::new(IpAddr::V6(OUTSIDE_V6), SERVER_V6).udp(4001, 7000, &[6; 900]));
    let begin = unix_time()?;
    let file = d.write_policy("drops.pcapng", "")?;
    let monitor = Monitor::start(&d.tollgate, &["--count", "2", "--pcap", &file.display().to_string()])?;
    sender.send(&[stray(9), long.clone()])?;
    let (code, events) = monitor.ended()?;
    ensure!(code == Some(0) && events.len() == 2, "{code:?} {events:?}");

    let fields = [
        "frame.interface_name",
        "frame.len",
        "frame.cap_len",
        "frame.comment",
        "udp.dstport",
        "frame.time_epoch",
    ];
    let lines = tshark(&file, &fields)?;
    ensure!(lines.len() == 2, "{lines:?}");
    ensure!(
        lines[0][..4] == [UPLINK, "47", "47", "dropped: no-service (rule default)"].map(str::to_owned),
        "{lines:?}"
    );
    let length = long.len().to_string();
    ensure!(
        lines[1][..4] == [UPLINK, &length, "128", "dropped: service-refused (rule sink)"].map(str::to_owned),
        "{lines:?}"
    );
    for (line, port) in lines.iter().zip(["9", "7000"]) {
        ensure!(line[4] == port, "{lines:?}");
        let time: f64 = line[5].parse()?;
        // A tick of the engine's clock, and a machine whose clock is being set.
        ensure!((begin - 1.0..unix_time()? + 1.0).contains(&time), "{time} since {begin}");
    }

    // By a pipe, and to its end: the same packets, and no lines among them.
    let piped = file.with_file_name("piped.pcapng");
    let mut command = d.tollgate.command()?;
    command.args(["monitor", "--count", "1", "--pcap", "-"]).stdout(File::create(&piped)?);
    let mut child = command.spawn()?;
    let end = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        ensure!(Instant::now() < end, "no packet was captured");
        sender.send(&[stray(11)])?;
        thread::sleep(Duration::from_millis(50));
    }
    let lines = tshark(&piped, &["udp.dstport"])?;
    ensure!(lines == [["11"]], "{lines:?}");
    Ok(())
}

fn tshark(file: &std::path::Path, fields: &[&str]) -> Result<Vec<Vec<String>>> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-T", "fields"]).args(fields.iter().flat_map(|field| ["-e", field]));
    let output = command.output().context("starting tshark (Debian: apt-get install tshark)")?;
    ensure!(output.status.success(), "tshark: {}", text(&output));
    let lines = String::from_utf8(output.stdout)?;
    Ok(lines.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}
