//! Packet tools that nobody here wrote (hping3, thc-ipv6, scapy, trafgen) against the shipped policy, from the outside and
//! from the server's own link. Whatever they send, what should not pass does not, each frame is counted once, and the
//! services stay up.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tollgate_tests::counters::{Stats, Verdict};
use tollgate_tests::lab::{SERVER_MAC, SERVER_PORT, SERVER_V4, UPLINK};
use tollgate_tests::shared::Shared;
use tollgate_tests::traffic::{http_get, psql_select_1};
use tollgate_tests::witness::{Testimony, Witness};
use tollgate_tests::{Deployment, Hook, Host};

/// No tool runs for longer, in seconds.
const LONGEST: &str = "20";
/// What passes on any link, whatever a tool sends.
const LINK: [&str; 2] = ["arp", "neighbour-discovery"];
/// Counters that grow if a packet to a closed port reaches the protocol behind it, or is answered.
const SILENT: [&str; 10] = [
    "Tcp.InSegs",
    "Tcp.OutRsts",
    "Udp.InDatagrams",
    "Udp.NoPorts",
    "Udp.InErrors",
    "Udp6InDatagrams",
    "Udp6NoPorts",
    "Udp6InErrors",
    "Icmp.OutDestUnreachs",
    "Icmp6OutDestUnreachs",
];

/// Like the lab's `SPOOFED_V4`: sources of scapy's frames.
const SPOOFED_V6: &str = "2001:db8:198::/48";

/// A few runs of tools at a time, after which everything must hold.
struct Run {
    name: &'static str,
    from: Host,
    /// Commands, one a line.
    commands: String,
    /// Reasons besides [`LINK`] by which packets may pass.
    passes: &'static [&'static str],
    /// At least so many frames arrive: the tools did what they were meant to.
    frames: u64,
}

/// A deployment with its witness.
struct Scene {
    deployment: Deployment,
    witness: Witness,
}

fn scene(hook: Hook) -> Result<Scene> {
    let deployment = Deployment::platform(hook)?;
    // Nobody says of the scripts' sources that they can't be reached: such errors would come in between.
    deployment.lab.ns(Host::Router).run(&["ip", "route", "add", "blackhole", SPOOFED_V6])?;
    let witness = Witness::start(&deployment.lab)?;
    Ok(Scene { deployment, witness })
}

/// Fails with a sentence if a program is not there.
fn needs(program: &str, package: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    ensure!(found, "`{program}` is missing (Debian: apt-get install {package})");
    Ok(())
}

fn start(scene: &Scene, from: Host, command: &str) -> Result<Child> {
    let mut process = scene.deployment.lab.ns(from).command("timeout");
    process.args(["--kill-after", "1", LONGEST]).args(command.split_whitespace());
    process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    process.spawn().with_context(|| format!("starting `{command}`"))
}

/// Runs the commands at the same time, to their ends. Whether a tool was content with what it saw is not asked.
fn run_tools(scene: &Scene, run: &Run) -> Result<()> {
    let commands: Vec<_> = run.commands.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let children: Vec<_> =
        commands.iter().map(|command| start(scene, run.from, command)).collect::<Result<_>>()?;
    for (command, child) in commands.iter().zip(children) {
        let output = child.wait_with_output()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        // timeout(1): 125 to 127 if the command could not be run.
        let code = output.status.code();
        ensure!(!matches!(code, None | Some(125..=127)), "`{command}`: {}: {text}", output.status);
        ensure!(!text.contains("Traceback"), "`{command}`: {text}");
    }
    Ok(())
}

/// The counters once the last frames have been counted.
fn readings(scene: &Scene) -> Result<(Stats, u64, Testimony)> {
    let d = &scene.deployment;
    let stats = d.tollgate.settled_stats()?;
    let received = d.lab.ns(Host::Server).received(UPLINK)?.packets;
    Ok((stats, received, scene.witness.testimony()?))
}

fn check(scene: &Scene, run: &Run) -> Result<()> {
    let began = Instant::now();
    let (stats, received, testimony) = readings(scene)?;
    run_tools(scene, run)?;
    let took = began.elapsed();
    let (stats_after, received_after, testimony_after) = readings(scene)?;
    let delta = stats_after.since(&stats);
    let received = received_after - received;
    let behind = testimony_after.since(&testimony);
    let summary = format!(
        "{}: {} frames in {:.1} s\n  passed: {:?}\n  dropped: {:?}",
        run.name,
        delta.seen.packets,
        took.as_secs_f64(),
        delta.named(Verdict::Pass),
        delta.named(Verdict::Drop)
    );
    eprintln!("{summary}");
    let story = format!("{summary}\n  behind: {behind:?}");

    ensure!(delta.seen.packets >= run.frames, "{} frames were to come; {story}", run.frames);
    delta.adds_up().with_context(|| story.clone())?;
    ensure!(delta.seen.packets == received, "the interface received {received}; {story}");
    ensure!(delta.reason("table-fault").packets == 0, "a table's fault; {story}");

    let may_pass: BTreeSet<_> = LINK.iter().chain(run.passes).copied().collect();
    for (name, (verdict, count)) in &delta.reasons {
        let fine = *verdict == Verdict::Drop || count.packets == 0 || may_pass.contains(name.as_str());
        ensure!(fine, "`{name}` must not pass here; {story}");
    }
    for rule in ["django", "crm-dev", "crm", "postgres", "stripe-dashboard", "default"] {
        let allowed = delta.outcome(rule, "service-allowed").packets;
        ensure!(allowed == 0, "{allowed} packets reached {rule}; {story}");
    }
    ensure!(behind.leaked() == 0, "nft would have dropped some of what passed; {story}");
    // The open port may answer; what was allowed there is not counted as silent.
    if delta.reason("service-allowed").packets == 0 {
        for counter in SILENT {
            ensure!(behind.count(counter) == 0, "{counter} has grown; {story}");
        }
    }
    services_are_up(&scene.deployment).with_context(|| story)
}

fn services_are_up(d: &Deployment) -> Result<()> {
    for (host, port) in [(Host::Outside, 80), (Host::Outside, 443), (Host::Lan, 80), (Host::Lan, 8000)] {
        let at = SocketAddr::new(SERVER_V4.parse().context("an address")?, port);
        let answer = http_get(&d.lab.ns(host), at, "/", Duration::from_secs(3))?;
        ensure!(answer.is_answered_by_port(port), "{host}, {port}: {answer}");
    }
    let answer = psql_select_1(&d.lab.ns(Host::Lan), SERVER_V4)?;
    ensure!(answer.is_answered(), "psql: {answer}");
    Ok(())
}

fn daemon_is_well(d: &Deployment) -> Result<()> {
    let status = d.tollgate.status()?;
    ensure!(status.pointer("/daemon/running") == Some(&true.into()), "the daemon: {status}");
    let log = d.tollgate.log();
    let bad = ["error", "panic", "fault"];
    let complaint = log.lines().find(|line| bad.iter().any(|word| line.to_lowercase().contains(word)));
    ensure!(complaint.is_none(), "the daemon's log: {log}");
    Ok(())
}

static XDP: Shared<Scene> = Shared::new();
static TC: Shared<Scene> = Shared::new();

/// Makes the runs one after the other, where the hook is in force.
fn strangers(hook: Hook, runs: &[Run]) -> Result<()> {
    let shared = if hook == Hook::Tc { &TC } else { &XDP };
    shared.with(
        || scene(hook),
        |scene| {
            let (in_force, _) = scene.deployment.tollgate.hook_and_mode()?;
            ensure!(in_force == hook.expected(), "{in_force} is in force");
            services_are_up(&scene.deployment)?;
            for run in runs {
                check(scene, run).with_context(|| run.name)?;
            }
            daemon_is_well(&scene.deployment)
        },
    )
}

/// One command for each of the arguments.
fn each<'a>(template: &str, arguments: impl IntoIterator<Item = &'a str>) -> String {
    arguments.into_iter().map(|argument| format!("{template} {argument}\n")).collect()
}

/// Most runs send on the server's own link under an outside address, so that no router mends or drops anything.
fn hping3(hook: Hook) -> Result<()> {
    needs("hping3", "hping3")?;
    let spoofed = format!("hping3 -q -n -i u500 -c 60 -a 198.18.0.77 {SERVER_V4}");
    let few = format!("hping3 -q -n -i u1000 -c 5 -a 198.18.0.77 {SERVER_V4}");
    let icmp = [0, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 30, 37, 40, 42, 255]
        .map(|kind| format!("-1 --force-icmp -C {kind} -K {}", kind % 3));
    let raw = [0, 2, 4, 6, 17, 41, 47, 50, 51, 58, 89, 94, 103, 112, 132, 136, 142, 200, 253, 255]
        .map(|protocol| format!("-0 -H {protocol} -d 40"));
    strangers(
        hook,
        &[
            Run {
                name: "hping3: floods from random sources",
                from: Host::Outside,
                commands: each(
                    &format!("hping3 -q -n --rand-source {SERVER_V4}"),
                    ["-S -p 22 -c 6000 -i u50", "-A -p 22 -c 2000 -i u100", "-2 -p 53 -c 2000 -i u100"],
                ),
                passes: &[],
                frames: 8000,
            },
            Run {
                name: "hping3: fragments",
                from: Host::Lan2,
                commands: each(
                    &spoofed,
                    [
                        "-S -p 5432 -f -d 120",
                        "-S -p 5432 -x",
                        "-S -p 22 -x -f -d 60",
                        "-S -p 8000 --mtu 8 -d 100",
                        "-S -p 8000 --mtu 24 -d 200",
                        "-S -p 22 --mtu 1000 -d 1400",
                        "-S -p 5432 -g 8",
                        "-S -p 5432 -g 65528 -d 100",
                        "-2 -p 53 -f -d 100",
                        "-1 -C 13 -f -d 100",
                    ],
                ),
                passes: &[],
                frames: 2000,
            },
            Run {
                name: "hping3: odd flags and headers",
                from: Host::Lan2,
                commands: each(
                    &spoofed,
                    [
                        "-p 22 --xmas",
                        "-p 22 --ymas",
                        "-p 5432 --xmas --ymas -S",
                        "-p 5432 --xmas --ymas",
                        "-p 22",
                        "-p 5432 -F -S -R -P -A -U -X -Y",
                        "-p 5432 -F -P -U",
                        "-p 5432 -A",
                        "-p 8000 -S -A",
                        "-p 8000 -R",
                        "-p 8083 -F",
                        "-p 22 -S -O 3",
                        "-p 22 -S -O 15",
                        "-p 5432 -S -b",
                        "-p 5432 -S -w 0 -s 0 -k",
                        "-p 0 -S",
                        "-p 8000 -S -d 1000 --tcp-timestamp --tcp-mss 1",
                    ],
                ),
                passes: &[],
                frames: 1000,
            },
            Run {
                name: "hping3: every kind of ICMP",
                from: Host::Lan2,
                commands: each(&few, icmp.each_ref().map(String::as_str)),
                passes: &["ping"],
                frames: 80,
            },
            Run {
                name: "hping3: protocols without a service, datagrams, IP options",
                from: Host::Lan2,
                commands: each(&few, raw.each_ref().map(String::as_str))
                    + &each(
                        &spoofed,
                        [
                            "-2 -p 53",
                            "-2 -p 5432 -s 53 -k",
                            "-2 -p 0 -s 0",
                            "-S -p 5432 -G",
                            "-1 -C 13 -G",
                            "-S -p 22 --lsrr 192.168.0.104/203.0.113.9",
                            "-S -p 5432 --ssrr 192.168.0.104/203.0.113.9",
                        ],
                    ),
                passes: &[],
                frames: 300,
            },
        ],
    )
}

/// The test cases of a tool of thc-ipv6 that waits seconds for each answer: all at a time.
fn numbered(template: &str, cases: u32) -> String {
    (1..=cases).map(|number| format!("timeout 2 {template} {number}\n")).collect()
}

const SERVER: &str = "2001:db8:0:1::104";

fn thc_ipv6(hook: Hook) -> Result<()> {
    needs("atk6-firewall6", "thc-ipv6")?;
    let on = |template: &str| template.replace("SERVER", SERVER);
    strangers(
        hook,
        &[
            Run {
                name: "thc-ipv6: ways round a firewall",
                from: Host::Outside,
                commands: numbered(&on("atk6-firewall6 eth0 SERVER 22"), 40)
                    + &numbered(&on("atk6-firewall6 eth0 SERVER 5432"), 40)
                    + &numbered(&on("atk6-firewall6 -u eth0 SERVER 53"), 40),
                passes: &["ping", "fragment-known"],
                frames: 300,
            },
            Run {
                name: "thc-ipv6: fragments, checks of implementations, old exploits",
                from: Host::Lan2,
                commands: numbered(&on("atk6-fragmentation6 -p eth0 SERVER"), 40)
                    + &numbered(&on("atk6-implementation6 -p eth0 SERVER"), 60)
                    + &numbered(&on("atk6-exploit6 eth0 SERVER"), 7),
                // One of the exploits is meant for a web server.
                passes: &["ping", "fragment-known", "icmp-error", "multicast-membership", "service-allowed"],
                frames: 300,
            },
            Run {
                name: "thc-ipv6: false routers on the link",
                from: Host::Lan2,
                commands: "atk6-fake_router26 -A 2001:db8:bad::/64 -n 3 -i 0 eth0\n\
                     atk6-fake_router26 -E F -A 2001:db8:bad::/64 -n 3 -i 0 eth0\n\
                     atk6-fake_router26 -E D -A 2001:db8:bad::/64 -n 3 -i 0 eth0\n\
                     atk6-fake_router26 -E o -A 2001:db8:bad::/64 -n 3 -i 0 eth0\n\
                     atk6-fake_router26 -E H111 -A 2001:db8:bad::/64 -n 3 -i 0 eth0\n\
                     timeout 1 atk6-fake_router6 eth0 2001:db8:bad::/64\n\
                     timeout 0.3 atk6-flood_router26 eth0\n\
                     timeout 0.3 atk6-flood_router26 -F eth0"
                    .to_owned(),
                passes: &["router-advertisement"],
                frames: 100,
            },
            Run {
                name: "thc-ipv6: random headers and floods",
                from: Host::Lan2,
                commands: on("timeout 2 atk6-fuzz_ip6 -a -I -F -S -D -H -R -J -1 eth0 SERVER\n\
                     timeout 2 atk6-fuzz_ip6 -a -x -s 22 eth0 SERVER\n\
                     timeout 2 atk6-fuzz_ip6 -a -x -4 eth0 SERVER\n\
                     timeout 2 atk6-randicmp6 eth0 SERVER\n\
                     timeout 0.5 atk6-thcsyn6 -R eth0 SERVER 22\n\
                     timeout 0.5 atk6-thcsyn6 -a -d -f -r eth0 SERVER 22\n\
                     timeout 1 atk6-denial6 eth0 SERVER 1\n\
                     timeout 1 atk6-denial6 eth0 SERVER 3\n\
                     timeout 1 atk6-denial6 eth0 SERVER 5\n\
                     timeout 1 atk6-redir6 eth0 SERVER 2001:db8:113::9 fe80::1 fe80::51\n\
                     timeout 1 atk6-toobig6 -u eth0 SERVER 2001:db8:113::9 1280"),
                passes: &[
                    "ping",
                    "fragment-known",
                    "icmp-error",
                    "multicast-membership",
                    "router-advertisement",
                ],
                frames: 1000,
            },
        ],
    )
}

fn script(name: &str) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scapy").join(name);
    ensure!(path.is_file(), "no script {}", path.display());
    Ok(path)
}

fn scapy(hook: Hook) -> Result<()> {
    let import = std::process::Command::new("/usr/bin/python3").args(["-c", "import scapy"]).output();
    let found = import.is_ok_and(|output| output.status.success());
    ensure!(found, "scapy is missing for /usr/bin/python3 (Debian: apt-get install python3-scapy)");
    let run = |name, file: &str, passes, frames| -> Result<Run> {
        let commands = format!("/usr/bin/python3 -B {} {SERVER_PORT}", script(file)?.display());
        Ok(Run { name, from: Host::Router, commands, passes, frames })
    };
    strangers(
        hook,
        &[
            // First fragments to the open port are allowed, and so is what follows them.
            run(
                "scapy: fragments",
                "fragments.py",
                &["service-allowed", "fragment-known", "ping"] as &[_],
                464,
            )?,
            run(
                "scapy: extension headers",
                "extensions.py",
                &["service-allowed", "fragment-known", "ping"] as &[_],
                378,
            )?,
            // IP behind an LLC header is a frame of the link to the filter, and nothing at all to the host.
            run("scapy: disguises", "disguises.py", &["link-control"] as &[_], 1952)?,
            run(
                "scapy: random fields",
                "random_fields.py",
                &["ping", "icmp-error", "fragment-known"] as &[_],
                2400,
            )?,
        ],
    )
}

/// Frames of which most are nothing at all.
fn trafgen(hook: Hook) -> Result<()> {
    needs("trafgen", "netsniff-ng")?;
    let mac = SERVER_MAC.map(|byte| format!("0x{byte:02x}")).join(",");
    let head = format!("{mac},0x02,0x00,0xc0,0xa8,0x00,0x01");
    let addresses = "198,18,0,78,192,168,0,104";
    let frames = [
        format!("{{ {head}, drnd(2), drnd(46) }}"),
        format!("{{ {head}, c16(0x0800), drnd(60) }}"),
        format!("{{ {head}, c16(0x0800), 0x45, drnd(11), {addresses}, drnd(40) }}"),
        format!("{{ {head}, c16(0x0800), 0x45, 0, c16(60), drnd(5), 6, drnd(2), {addresses}, drnd(40) }}"),
        format!("{{ {head}, c16(0x86dd), drnd(60) }}"),
        format!("{{ {head}, c16(0x86dd), 0x60, drnd(3), c16(40), drnd(2), drnd(72) }}"),
    ];
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("frames");
    std::fs::write(&path, frames.join("\n"))?;
    strangers(
        hook,
        &[Run {
            name: "trafgen: malformed frames",
            from: Host::Router,
            commands: format!(
                "trafgen --dev {SERVER_PORT} --conf {} --num 200000 --cpus 1 --no-sock-mem --notouch-irq --no-cpu-stats",
                path.display()
            ),
            // One in 65,536 is for the open port, and so on.
            passes: &[
                "link-control",
                "service-allowed",
                "fragment-known",
                "icmp-error",
                "ping",
                "multicast-membership",
            ],
            frames: 50_000,
        }],
    )
}

#[test]
fn hping3_gets_nothing_through_by_native_xdp() -> Result<()> {
    hping3(Hook::AsWritten)
}

#[test]
fn hping3_gets_nothing_through_by_tc() -> Result<()> {
    hping3(Hook::Tc)
}

#[test]
fn thc_ipv6_gets_nothing_through_by_native_xdp() -> Result<()> {
    thc_ipv6(Hook::AsWritten)
}

#[test]
fn thc_ipv6_gets_nothing_through_by_tc() -> Result<()> {
    thc_ipv6(Hook::Tc)
}

#[test]
fn scapy_gets_nothing_through_by_native_xdp() -> Result<()> {
    scapy(Hook::AsWritten)
}

#[test]
fn scapy_gets_nothing_through_by_tc() -> Result<()> {
    scapy(Hook::Tc)
}

#[test]
fn trafgen_gets_nothing_through_by_native_xdp() -> Result<()> {
    trafgen(Hook::AsWritten)
}

#[test]
fn trafgen_gets_nothing_through_by_tc() -> Result<()> {
    trafgen(Hook::Tc)
}
