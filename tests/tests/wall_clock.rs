//! The wall clock is set while a policy waits to be confirmed, hours forwards and hours back: the kernel's deadline stays.
//!
//! No namespace has a wall clock of its own (a time namespace covers the clocks that no one can set), so it is the machine's,
//! for some seconds. In a file of its own, since cargo runs the files one after the other: no other test runs meanwhile.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use tollgate_tests::alternate::{Judge, TARGETS, Turn, policy};
use tollgate_tests::{Deployment, Hook};

const HOOK: &str = "hook = \"native\"";
/// How far it is set.
const HOURS: Duration = Duration::from_secs(3 * 3600);
/// The deadline: long enough for a look at everything on a slow machine.
const WITHIN: Duration = Duration::from_secs(10);
/// So long after the deadline it must have been kept.
const AT_MOST: Duration = Duration::from_secs(60);

/// The machine's wall clock; dropping it puts it right again, by the clock that nobody can set, whatever has happened.
struct WallClock {
    wall: Duration,
    since: Instant,
}

impl WallClock {
    fn new() -> Result<Self> {
        Ok(Self { wall: clock_gettime(ClockId::CLOCK_REALTIME)?.into(), since: Instant::now() })
    }

    fn right(&self) -> Duration {
        self.wall + self.since.elapsed()
    }

    fn set(time: Duration) -> Result<()> {
        clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(time))
            .context("setting the wall clock (this test needs CAP_SYS_TIME)")
    }
}

impl Drop for WallClock {
    fn drop(&mut self) {
        if let Err(error) = Self::set(self.right()) {
            eprintln!("THE WALL CLOCK IS WRONG: {error:#}");
        }
    }
}

/// Which of the two policies judges, by what becomes of packets; the counters behind the filter alone are asked.
fn judging(judge: &Judge) -> Result<Turn> {
    let before = judge.arrived()?;
    let sent = judge.ask()?;
    let start = Instant::now();
    loop {
        let after = judge.arrived()?;
        let arrived = |name: &str| after[name] - before[name];
        for turn in [Turn::A, Turn::B] {
            if TARGETS.iter().all(|one| arrived(one.name) == if one.is_open(turn) { sent } else { 0 }) {
                return Ok(turn);
            }
        }
        ensure!(start.elapsed() < AT_MOST, "neither of the two: {before:?}, then {after:?}");
    }
}

fn the_deadline_stays(first: i32) -> Result<()> {
    let d = Deployment::with_policy(&policy(Turn::A, HOOK), Hook::AsWritten)?;
    let judge = Judge::start(&d.lab)?;
    let next = d.write_policy("next.toml", &policy(Turn::B, HOOK))?.display().to_string();
    ensure!(judging(&judge)? == Turn::A, "before");
    let earliest = Instant::now() + WITHIN;
    d.tollgate.checked(&["apply", "--force", &next, "--confirm", &format!("{}s", WITHIN.as_secs())])?;
    let latest = Instant::now() + WITHIN;

    let clock = WallClock::new()?;
    let mut looks = 0;
    // One after the other; the last stays until the deadline is over.
    for direction in [first, -first] {
        let right = clock.right();
        WallClock::set(if direction > 0 { right + HOURS } else { right.saturating_sub(HOURS) })?;
        let left = d.tollgate.status()?["confirm_within_s"].as_u64();
        let turn = judging(&judge)?;
        if Instant::now() < earliest {
            let left = left.context("nothing waits any more")?;
            ensure!(turn == Turn::B && left <= WITHIN.as_secs(), "{turn:?} judges, {left} s are left");
            looks += 1;
        }
    }
    ensure!(looks == 2, "this machine is too slow: {looks} looks within {WITHIN:?}");
    while judging(&judge)? == Turn::B {
        ensure!(Instant::now() < latest + AT_MOST, "the deadline has not come");
    }
    let back = Instant::now();
    ensure!(back >= earliest, "the deadline came {:?} too early", earliest - back);
    drop(clock);
    eprintln!(
        "the policy before was back {:?} after its time at the latest",
        back.saturating_duration_since(earliest)
    );
    Ok(())
}

#[test]
fn a_deadline_is_not_moved_by_the_wall_clock() -> Result<()> {
    let (wall, since) = (SystemTime::now(), Instant::now());
    the_deadline_stays(1)?;
    the_deadline_stays(-1)?;
    let error = wall.elapsed()?.abs_diff(since.elapsed());
    ensure!(error < Duration::from_secs(5), "the wall clock is off by {error:?} afterwards");
    Ok(())
}
