//! SIGKILL at moments of a swap, a swap that is to be confirmed, a ban and a start that nobody chose: one whole policy is
//! enforced after each, nothing leaks, no ban that was acknowledged is lost, and a daemon that starts again takes over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tollgate_tests::alternate::{Judge, SESSION, TARGETS, Turn, each_had_a_verdict_of_one, fates, policy};
use tollgate_tests::bans::listed;
use tollgate_tests::expect::at;
use tollgate_tests::frames::{Link, Path};
use tollgate_tests::holdings::Holdings;
use tollgate_tests::lab::{OUTSIDE_V4, ROUTER_MAC, SERVER_MAC, SERVER_PORT, SERVER_V4};
use tollgate_tests::sender::Sender;
use tollgate_tests::services::TcpEcho;
use tollgate_tests::traffic::Stream;
use tollgate_tests::{Deployment, Hook, Host};

/// Moments for each kind of change: 60 in all.
const MOMENTS: usize = 12;
/// By TC, for the difference of the hooks.
const MOMENTS_BY_TC: usize = 3;
/// What the kernel frees takes a moment to be gone.
const REST: Duration = Duration::from_secs(30);

/// What is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// An apply of the other policy.
    Swap,
    /// The same, to be confirmed.
    Confirm,
    /// Commands that ban, which are killed too.
    Ban,
    /// The start of a daemon with the other policy, where one is enforced.
    Start,
    /// The same where none is.
    FirstStart,
}

const CHANGES: [Change; 5] = [Change::Swap, Change::Confirm, Change::Ban, Change::Start, Change::FirstStart];

/// A policy with a hash of its own: one that was rolled back is not started with again.
#[derive(Clone, Debug)]
struct Version {
    turn: Turn,
    text: String,
    file: PathBuf,
    hash: String,
}

struct Killed {
    d: Deployment,
    judge: Judge,
    hook: &'static str,
    random: StdRng,
    versions: Vec<Version>,
    acknowledged: BTreeSet<String>,
    banned: u32,
    /// How long a change takes that nobody cuts short.
    long: BTreeMap<String, Duration>,
}

impl Killed {
    fn new(hook: &'static str, seed: u64) -> Result<Self> {
        let text = policy(Turn::A, hook);
        let d = Deployment::with_policy(&text, Hook::AsWritten)?;
        let file = d.write_policy("policy.toml", &text)?;
        let hash = tollgate::policy::load(&file)?.hash;
        let judge = Judge::start(&d.lab)?;
        let random = StdRng::seed_from_u64(seed);
        let versions = vec![Version { turn: Turn::A, text, file, hash }];
        let (acknowledged, long) = (BTreeSet::new(), BTreeMap::new());
        Ok(Self { d, judge, hook, random, versions, acknowledged, banned: 0, long })
    }

    /// Another policy of this kind.
    fn version(&mut self, turn: Turn) -> Result<Version> {
        let number = self.versions.len();
        let text = format!("{}# number {number}\n", policy(turn, self.hook));
        let file = self.d.write_policy(&format!("number-{number}.toml"), &text)?;
        let hash = tollgate::policy::load(&file)?.hash;
        let version = Version { turn, text, file, hash };
        self.versions.push(version.clone());
        Ok(version)
    }

    /// The policy that a daemon starts with.
    fn start_with(&self, version: &Version) -> Result<()> {
        self.d.write_policy("policy.toml", &version.text).map(drop)
    }

    /// What the kernel's label says is in force; `None`: nothing.
    fn in_force(&self) -> Result<(Option<Version>, bool)> {
        let status = self.d.tollgate.status()?;
        let waits = !status["confirm_within_s"].is_null();
        if status["enforcing"] == Value::Bool(false) {
            return Ok((None, waits));
        }
        let found = self.versions.iter().find(|one| status["policy"]["hash"] == one.hash.as_str());
        Ok((Some(found.with_context(|| format!("no policy of ours is in force: {status}"))?.clone()), waits))
    }

    /// Fails unless packets fare as the policy in force has it, or all pass if none is; gives how many went to each target.
    fn is_whole(&self, version: Option<&Version>) -> Result<u64> {
        if let Some(version) = version {
            return self.judge.finds(&self.d.tollgate, version.turn);
        }
        let before = self.judge.arrived()?;
        let sent = self.judge.ask()?;
        let start = Instant::now();
        loop {
            let after = self.judge.arrived()?;
            if TARGETS.iter().all(|target| after[target.name] - before[target.name] == sent) {
                return Ok(sent);
            }
            ensure!(start.elapsed() < REST, "nothing is enforced, and not all arrives: {after:?}");
        }
    }

    /// Asks until it is time; gives how many packets went to each target.
    fn ask_until(&self, moment: Instant) -> Result<u64> {
        let mut sent = 0;
        while Instant::now() < moment {
            sent += self.judge.ask()?;
        }
        Ok(sent)
    }

    fn spawn(&self, args: &[&str]) -> Result<Child> {
        let mut command = self.d.tollgate.command()?;
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().context("starting tollgate")
    }

    fn ban_some(&mut self) -> Result<(Child, Vec<String>)> {
        let mut sources = Vec::new();
        for _ in 0..3 {
            let [.., high, low] = self.banned.to_be_bytes();
            sources.push(Ipv4Addr::new(198, 18, high, low).to_string());
            self.banned += 1;
        }
        let args: Vec<_> =
            ["ban", "--for", "2h"].into_iter().chain(sources.iter().map(String::as_str)).collect();
        Ok((self.spawn(&args)?, sources))
    }

    /// Begins a change and kills whoever makes it, at a moment within the time that it takes. Gives the packets sent meanwhile.
    fn cut_short(&mut self, change: Change, next: &Version) -> Result<u64> {
        let long = self.long.get(&change.to_string()).copied().unwrap_or(Duration::from_millis(300));
        let moment = Instant::now() + long.mul_f64(self.random.random_range(0.0..1.2));
        let file = next.file.display().to_string();
        match change {
            Change::Swap | Change::Confirm => {
                let args = ["apply", "--force", &file, "--confirm", "10m"];
                let args = if change == Change::Confirm { &args[..] } else { &args[..3] };
                let mut command = self.spawn(args)?;
                let sent = self.ask_until(moment)?;
                self.d.tollgate.kill()?;
                command.wait()?;
                Ok(sent)
            }
            Change::Start | Change::FirstStart => {
                self.d.tollgate.launch()?;
                let sent = self.ask_until(moment)?;
                self.d.tollgate.kill()?;
                Ok(sent)
            }
            Change::Ban => {
                let mut sent = 0;
                let (mut command, mut sources) = self.ban_some()?;
                while Instant::now() < moment {
                    sent += self.judge.ask()?;
                    if let Some(status) = command.try_wait()? {
                        ensure!(status.success(), "{sources:?} could not be banned");
                        self.acknowledged.append(&mut sources.into_iter().collect());
                        (command, sources) = self.ban_some()?;
                    }
                }
                self.d.tollgate.kill()?;
                if self.random.random() {
                    command.kill()?;
                }
                if command.wait()?.success() {
                    self.acknowledged.append(&mut sources.into_iter().collect());
                }
                Ok(sent)
            }
        }
    }

    /// Waits until the firewall holds what it held, and its daemon no more: one that has found its policy waiting has verified
    /// less.
    fn holds(&self, expected: &Holdings) -> Result<()> {
        let start = Instant::now();
        loop {
            let found = Holdings::of(&self.d.tollgate)?;
            let no_more =
                |(kind, count): (&String, &usize)| expected.open.get(kind).is_some_and(|most| count <= most);
            if found.pins == expected.pins
                && found.programs == expected.programs
                && found.open.iter().all(no_more)
            {
                return Ok(());
            }
            ensure!(start.elapsed() < REST, "something has leaked: {expected:#?}, then {found:#?}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// One moment: from a policy in force with a daemon, through a kill, to a policy in force with a daemon.
    fn moment(&mut self, change: Change, expected: &Holdings) -> Result<()> {
        let (now, _) = self.in_force()?;
        let now = now.context("nothing is enforced to begin with")?;
        let next = self.version(now.turn.other())?;
        match change {
            Change::Start => self.d.tollgate.kill()?,
            Change::FirstStart => {
                self.d.tollgate.kill()?;
                self.d.tollgate.detach()?;
            }
            _ => {}
        }
        if matches!(change, Change::Start | Change::FirstStart) {
            self.start_with(&next)?;
        }
        let before = match change {
            Change::FirstStart => None,
            _ => Some(self.judge.reading(&self.d.tollgate)?),
        };
        let mut sent = self.cut_short(change, &next)?;

        // Nobody has tidied up behind it.
        let (found, waits) = self.in_force().context("right after the kill")?;
        sent += self.is_whole(found.as_ref()).context("right after the kill")?;
        let may_be = |version: &Version| version.hash == next.hash || version.hash == now.hash;
        match &found {
            Some(version) => ensure!(may_be(version), "{version:?} is in force"),
            None => ensure!(change == Change::FirstStart, "nothing is enforced any more"),
        }
        ensure!(change == Change::Confirm || !waits, "{change} waits to be confirmed");

        // A new daemon takes it over; one that was cut short at its start gets what it was to have.
        let goes_on = match (change, &found) {
            (Change::Start | Change::FirstStart, _) | (_, None) => next.clone(),
            (_, Some(version)) => version.clone(),
        };
        self.start_with(&goes_on)?;
        self.d.tollgate.restart()?;
        let (taken, still_waits) = self.in_force()?;
        let taken = taken.context("a daemon runs, and nothing is enforced")?;
        ensure!(taken.hash == goes_on.hash && waits == still_waits, "{taken:?} instead of {goes_on:?}");
        sent += self.is_whole(Some(&taken)).context("after the restart")?;
        if waits {
            let (word, stays) = if self.random.random() { ("confirm", &next) } else { ("rollback", &now) };
            self.d.tollgate.checked(&[word])?;
            let (after, waits) = self.in_force()?;
            ensure!(
                !waits && after.as_ref().is_some_and(|one| one.hash == stays.hash),
                "{after:?} after {word}"
            );
            sent += self.is_whole(Some(stays)).context(word)?;
        }
        if let Some(before) = before {
            // Counters go on, and each packet has been judged.
            let fates = fates(&before, &self.judge.reading(&self.d.tollgate)?);
            each_had_a_verdict_of_one(&fates).context("all the while")?;
            ensure!(fates.values().all(|fate| fate.passed + fate.dropped == sent), "{sent} sent: {fates:?}");
        }
        self.bans_are_kept()?;
        self.holds(expected)
    }

    /// Each ban that was acknowledged is listed, and the file is whole.
    fn bans_are_kept(&self) -> Result<()> {
        let listed: BTreeSet<_> = listed(&self.d.tollgate)?.into_iter().map(|(prefix, _)| prefix).collect();
        let lost: Vec<_> = self
            .acknowledged
            .iter()
            .filter(|one| !listed.contains(*one) && !listed.contains(&format!("{one}/32")))
            .collect();
        ensure!(lost.is_empty(), "bans that were acknowledged are lost: {lost:?}, of {}", listed.len());
        let aside = self.d.tollgate.state_dir().join("bans.tgs.damaged");
        ensure!(!aside.exists(), "the file of bans was damaged: {}", self.d.tollgate.log());
        Ok(())
    }

    /// Each of them holds in the kernel, too.
    fn bans_hold(&self) -> Result<()> {
        let (link, to) =
            (Link { source: ROUTER_MAC, destination: SERVER_MAC }, SERVER_V4.parse::<Ipv4Addr>()?);
        let frame = |source: &String| {
            Ok(link.ip(&Path::new(source.parse::<Ipv4Addr>()?, to).udp(4000, 7000, b"banned")))
        };
        let frames: Vec<_> = self.acknowledged.iter().map(frame).collect::<Result<_>>()?;
        let before = self.d.tollgate.stats()?.reason("banned").packets;
        Sender::open(&self.d.lab.ns(Host::Router), SERVER_PORT)?.send(&frames)?;
        let start = Instant::now();
        loop {
            let banned = self.d.tollgate.stats()?.reason("banned").packets - before;
            if banned == frames.len() as u64 {
                return Ok(());
            }
            ensure!(start.elapsed() < REST, "{banned} of {} bans hold", frames.len());
        }
    }

    /// How long each change takes if nobody cuts it short.
    fn measure(&mut self) -> Result<()> {
        for change in [Change::Swap, Change::Confirm, Change::Start, Change::FirstStart, Change::Ban] {
            let now = self.in_force()?.0.map_or(Turn::B, |one| one.turn);
            let next = self.version(now.other())?;
            let file = next.file.display().to_string();
            let mut start = Instant::now();
            match change {
                Change::Swap => drop(self.d.tollgate.checked(&["apply", "--force", &file])?),
                Change::Confirm => {
                    self.d.tollgate.checked(&["apply", "--force", &file, "--confirm", "10m"])?;
                    self.d.tollgate.checked(&["confirm"])?;
                }
                Change::Start | Change::FirstStart => {
                    self.d.tollgate.kill()?;
                    if change == Change::FirstStart {
                        self.d.tollgate.detach()?;
                    }
                    self.start_with(&next)?;
                    start = Instant::now();
                    self.d.tollgate.restart()?;
                }
                Change::Ban => {
                    let (mut command, sources) = self.ban_some()?;
                    ensure!(command.wait()?.success(), "{sources:?} could not be banned");
                    self.acknowledged.extend(sources);
                }
            }
            self.long.insert(change.to_string(), start.elapsed());
        }
        eprintln!("undisturbed: {:?}", self.long);
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

fn seed() -> Result<u64> {
    match std::env::var("TOLLGATE_SEED") {
        Ok(text) => text.parse().context("TOLLGATE_SEED"),
        Err(_) => Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64),
    }
}

fn killed_at_any_moment(hook: &'static str, moments: usize) -> Result<()> {
    let seed = seed()?;
    eprintln!("TOLLGATE_SEED={seed}");
    let mut killed = Killed::new(hook, seed)?;
    let (server, outside) = (killed.d.lab.ns(Host::Server), killed.d.lab.ns(Host::Outside));
    let (_here, _there) = (TcpEcho::start(&server, SESSION)?, TcpEcho::start(&outside, SESSION)?);
    killed.measure()?;
    let expected = Holdings::of(&killed.d.tollgate)?;
    eprintln!(
        "held: {} pins, programs {:?}, open {:?}",
        expected.pins.len(),
        expected.programs,
        expected.open
    );
    // Sessions that the filter must not cut at any moment: of strangers, and of this host by its flow.
    let sessions = [
        Stream::start(&outside, at(SERVER_V4, SESSION)?)?,
        Stream::start(&server, at(OUTSIDE_V4, SESSION)?)?,
    ];
    for nth in 0..moments {
        for change in CHANGES {
            killed.moment(change, &expected).with_context(|| {
                format!("moment {nth} of {change}, TOLLGATE_SEED={seed}; log: {}", killed.d.tollgate.log())
            })?;
        }
    }
    killed.bans_hold()?;
    for session in sessions {
        let streamed = session.finish().context("a session")?;
        ensure!(streamed.lines > 0, "nothing was said");
        eprintln!("{streamed:?}");
    }
    eprintln!("{} moments, {} bans acknowledged", moments * CHANGES.len(), killed.acknowledged.len());

    // And nothing at all is left in the end.
    let shared = Holdings::of(&killed.d.tollgate)?;
    ensure!(!shared.programs.is_empty(), "no program was found to begin with: {shared:?}");
    killed.d.tollgate.terminate()?;
    killed.d.tollgate.detach()?;
    let left = Holdings::of(&killed.d.tollgate)?;
    ensure!(left.pins.is_empty(), "{left:?}");
    Ok(())
}

#[test]
fn a_kill_at_any_moment_leaves_one_whole_policy_by_native_xdp() -> Result<()> {
    killed_at_any_moment("hook = \"native\"", MOMENTS)
}

#[test]
fn a_kill_at_any_moment_leaves_one_whole_policy_by_tc() -> Result<()> {
    killed_at_any_moment("hook = \"tc\"", MOMENTS_BY_TC)
}
