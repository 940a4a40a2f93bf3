//! What a run of a tool is, and what must hold after it. Called by each tool's file.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tollgate_tests::counters::{Stats, Verdict};
use tollgate_tests::lab::{Lab, SERVER_PORT, SERVER_V4, UPLINK};
use tollgate_tests::sender::Sender;
use tollgate_tests::services::{HttpServer, UdpService};
use tollgate_tests::shared::Shared;
use tollgate_tests::traffic::{http_get, psql_select_1};
use tollgate_tests::witness::{Testimony, Witness};
use tollgate_tests::{Deployment, Hook, Host};

/// A port of TCP that is for nobody, and at which somebody listens.
pub const CLOSED_TCP: u16 = 22;
/// The same of UDP.
const CLOSED_UDP: u16 = 53;
/// No tool runs for longer, in seconds.
const LONGEST: &str = "20";
/// Frames a second that the lab's own socket sends.
const RATE: u64 = 20_000;
/// What passes on any link, whatever a tool sends.
const LINK: [&str; 2] = ["arp", "neighbour-discovery"];
/// Longer than a connection takes to end on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rules that none of the tools may satisfy.
const CLOSED_RULES: [&str; 6] = ["django", "crm-dev", "crm", "postgres", "stripe-dashboard", "default"];
/// The protocols' counters of packets that got to them although no policy here has a service of UDP.
const SILENT: [&str; 8] = [
    "Udp.InDatagrams",
    "Udp.NoPorts",
    "Udp.InErrors",
    "Udp6InDatagrams",
    "Udp6NoPorts",
    "Udp6InErrors",
    "Icmp.OutDestUnreachs",
    "Icmp6OutDestUnreachs",
];
/// The same of TCP, as long as no packet was for the open ports.
const SILENT_TCP: [&str; 2] = ["Tcp.InSegs", "Tcp.OutRsts"];
/// Sources of the scapy frames, like the lab's `SPOOFED_V4`.
const SPOOFED_V6: &str = "2001:db8:198::/48";

/// A few runs of tools at a time, after which everything must hold.
pub struct Run {
    pub name: &'static str,
    pub sends: Sends,
    /// Reasons besides [`LINK`] by which packets may pass.
    pub passes: &'static [&'static str],
    /// Reasons that must each have dropped something.
    pub drops: &'static [&'static str],
    /// Other reasons may have dropped something too: fields are random.
    pub random: bool,
    /// At least so many frames arrive: the tools did what they were meant to.
    pub frames: u64,
}

/// Where the frames of a run come from.
pub enum Sends {
    /// Commands, one a line, all at the same time.
    Tools { from: Host, commands: String },
    /// Frames as they are, on the server's own link.
    Frames(Vec<Vec<u8>>),
}

/// A deployment with its witness, and with listeners behind closed ports.
struct Scene {
    deployment: Deployment,
    witness: Witness,
    _closed_tcp: HttpServer,
    closed_udp: UdpService,
}

impl Scene {
    fn new(hook: Hook) -> Result<Self> {
        let deployment = Deployment::platform(hook)?;
        let server = deployment.lab.ns(Host::Server);
        // Nobody says of the frames' sources that they can't be reached: such errors would come in between.
        deployment.lab.ns(Host::Router).run(&["ip", "route", "add", "blackhole", SPOOFED_V6])?;
        Ok(Self {
            witness: Witness::start(&deployment.lab)?,
            _closed_tcp: HttpServer::start(&server, &format!("[::]:{CLOSED_TCP}"))?,
            closed_udp: UdpService::start(&server, CLOSED_UDP)?,
            deployment,
        })
    }

    /// The counters once the last frames have been counted, what the interface has received by then, and what the witness
    /// says.
    fn readings(&self) -> Result<(Stats, u64, Testimony)> {
        let server = self.deployment.lab.ns(Host::Server);
        let (stats, (received, testimony)) = self
            .deployment
            .tollgate
            .settled_with(|| Ok((server.received(UPLINK)?.packets, self.witness.testimony()?)))?;
        Ok((stats, received, testimony))
    }

    /// Waits until the last connection of the lab's own clients is over: its end is no packet of the next tool.
    fn hang_up(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let states = ["established", "fin-wait-1", "fin-wait-2", "close-wait", "last-ack", "closing"];
        let server = SERVER_V4.to_string();
        let mut argv = vec!["ss", "-Htn"];
        argv.extend(states.iter().flat_map(|state| ["state", state]));
        argv.extend(["src", &server]);
        loop {
            let open = self.deployment.lab.ns(Host::Server).run(&argv)?.stdout;
            if open.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "still open: {}", String::from_utf8_lossy(&open));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn check(&self, run: &Run) -> Result<()> {
        self.hang_up()?;
        let began = Instant::now();
        let (stats, received, testimony) = self.readings()?;
        match &run.sends {
            Sends::Tools { from, commands } => run_tools(&self.deployment.lab, *from, commands)?,
            Sends::Frames(frames) => {
                let sender = Sender::open(&self.deployment.lab.ns(Host::Router), SERVER_PORT)?;
                sender.flood(frames, RATE, frames.len() as u64)?;
            }
        }
        let took = began.elapsed();
        let (stats_after, received_after, testimony_after) = self.readings()?;
        let delta = stats_after.since(&stats);
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
        counted(run, &delta, received_after - received).with_context(|| story.clone())?;
        silent(&delta, &behind).with_context(|| story.clone())?;
        ensure!(self.closed_udp.received() == 0, "a datagram reached a closed port; {story}");
        services_are_up(&self.deployment).with_context(|| story)
    }
}

/// Each frame was counted once, and under a reason that fits.
fn counted(run: &Run, delta: &Stats, received: u64) -> Result<()> {
    ensure!(delta.seen.packets >= run.frames, "{} frames were to come", run.frames);
    delta.adds_up()?;
    ensure!(delta.seen.packets == received, "the interface received {received}");
    let may_pass: BTreeSet<_> = LINK.iter().chain(run.passes).copied().collect();
    for (name, (verdict, count)) in &delta.reasons {
        let name = name.as_str();
        let fits = match verdict {
            Verdict::Pass => may_pass.contains(name),
            Verdict::Drop => name != "table-fault" && (run.random || run.drops.contains(&name)),
        };
        ensure!(fits || count.packets == 0, "{} packets as `{name}`, which does not fit", count.packets);
    }
    for reason in run.drops {
        ensure!(delta.reason(reason).packets > 0, "nothing was dropped as `{reason}`");
    }
    for rule in CLOSED_RULES {
        let allowed = delta.outcome(rule, "service-allowed").packets;
        ensure!(allowed == 0, "{allowed} packets reached {rule}");
    }
    Ok(())
}

/// Nothing got to a closed port, and nothing came back from one.
fn silent(delta: &Stats, behind: &Testimony) -> Result<()> {
    ensure!(behind.leaked() == 0, "nft would have dropped some of what passed");
    ensure!(behind.answered() == 0, "a closed port has given itself away");
    let allowed = delta.reason("service-allowed").packets > 0;
    let tcp = if allowed { &[][..] } else { &SILENT_TCP[..] };
    for counter in SILENT.iter().chain(tcp) {
        ensure!(behind.count(counter) <= to_itself(counter, delta, behind), "{counter} has grown");
    }
    Ok(())
}

/// Unreachables that the host has sent to itself: an answer of seconds ago, perhaps of an earlier run, was to a neighbour whom
/// nobody has found since. They arrive at the host too, and what else arrives of their kind has passed the filter.
fn to_itself(counter: &str, delta: &Stats, behind: &Testimony) -> u64 {
    let Some(protocol) = counter.strip_suffix("OutDestUnreachs") else { return 0 };
    behind.count(&format!("{protocol}InDestUnreachs")).saturating_sub(delta.reason("icmp-error").packets)
}

fn start(lab: &Lab, from: Host, command: &str) -> Result<Child> {
    let mut process = lab.ns(from).command("timeout");
    process.args(["--kill-after", "1", LONGEST]).args(command.split_whitespace());
    process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    process.spawn().with_context(|| format!("starting `{command}`"))
}

/// Runs the commands at the same time, to their ends. Whether a tool was content with what it saw is not asked.
pub fn run_tools(lab: &Lab, from: Host, commands: &str) -> Result<()> {
    let commands: Vec<_> = commands.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let children: Vec<_> = commands.iter().map(|command| start(lab, from, command)).collect::<Result<_>>()?;
    for (command, child) in commands.iter().zip(children) {
        let output = child.wait_with_output()?;
        let text = [output.stdout, output.stderr].concat();
        // timeout(1): 125 to 127 if the command could not be run.
        let code = output.status.code();
        let ran = !matches!(code, None | Some(125..=127));
        ensure!(ran, "`{command}`: {}: {}", output.status, String::from_utf8_lossy(&text));
    }
    Ok(())
}

fn services_are_up(d: &Deployment) -> Result<()> {
    for (host, port) in [(Host::Outside, 80), (Host::Outside, 443), (Host::Lan, 80), (Host::Lan, 8000)] {
        let at = SocketAddr::new(SERVER_V4.parse().context("an address")?, port);
        let answer = http_get(&d.lab.ns(host), at, "/", Duration::from_secs(5))?;
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
pub fn strangers(hook: Hook, runs: &[Run]) -> Result<()> {
    let shared = if hook == Hook::Tc { &TC } else { &XDP };
    shared.with(
        || Scene::new(hook),
        |scene| {
            let (in_force, _) = scene.deployment.tollgate.hook_and_mode()?;
            ensure!(in_force == hook.expected(), "{in_force} is in force");
            services_are_up(&scene.deployment)?;
            for run in runs {
                scene.check(run).with_context(|| run.name)?;
            }
            daemon_is_well(&scene.deployment)
        },
    )
}

/// One command for each of the arguments.
pub fn each<'a>(template: &str, arguments: impl IntoIterator<Item = &'a str>) -> String {
    arguments.into_iter().map(|argument| format!("{template} {argument}\n")).collect()
}

/// Fails with a sentence if a program is not there.
pub fn needs(program: &str, package: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    ensure!(found, "`{program}` is missing (Debian: apt-get install {package})");
    Ok(())
}

/// The test of a tool by each hook.
macro_rules! by_both_hooks {
    ($name:ident) => {
        #[test]
        fn gets_nothing_through_by_native_xdp() -> anyhow::Result<()> {
            $name(tollgate_tests::Hook::AsWritten)
        }

        #[test]
        fn gets_nothing_through_by_tc() -> anyhow::Result<()> {
            $name(tollgate_tests::Hook::Tc)
        }
    };
}
pub(crate) use by_both_hooks;
