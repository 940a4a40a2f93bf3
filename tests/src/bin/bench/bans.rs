//! What bans cost those who are not banned: with a million of them, and without any. Called by `main.rs`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use ipnet::IpNet;
use proxy_common::abi::reason::Reason;
use proxy_common::abi::scatter;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tollgate::dataplane::{Trial, TrialHook, time_of_empty_program, time_of_scattering};
use tollgate::policy::compile::Compiled;
use tollgate_tests::Hook;
use tollgate_tests::bans::{Sources, ended_with};
use tollgate_tests::frames::{ACK, Path};

use super::{KEYS, LINK, REPEAT, ROUNDS, SERVER, TICKS, leads_to, median};

/// Bans, where there are some.
const BANNED: u32 = 1_000_000;
/// Sources that are not banned.
const STRANGERS: usize = 20_000;
/// Runs in a row of a hundredth of them.
const WARM: u32 = 1000;
/// Packets that a driver's poll loop takes at most before others have their turn: the kernel's `NAPI_POLL_WEIGHT`.
const BATCH: u32 = 64;
/// Batches in a round.
const BATCHES: usize = 200;
/// Words that are read between batches: 16 MiB, more than the caches of one processor hold.
const CACHED_WORDS: usize = 2 << 20;
/// Words of a cache line.
const WORDS_OF_LINE: usize = 8;
/// Rounds of real packets, each with and without bans.
const ROUNDS_OF_TRAFFIC: usize = 3;

/// What bans cost those who are not banned.
pub fn what_they_cost(short: &Compiled) -> Result<()> {
    println!(
        "\nThe same packet from {STRANGERS} random sources, none of which is banned. Cold: each source once, so that whatever \
         is\nlooked at comes from memory, and the timer is in the number. Warm: {WARM} runs in a row of each. Back to back: \
         {REPEAT}\npackets without a system call or a clock between, each from another of 2^30 sources; in batches: {BATCH} of \
         them, with\nother memory in the processor's own caches before each batch. What gives them their sources is in the number."
    );
    for (hook, name) in [(TrialHook::Xdp, "XDP"), (TrialHook::Tc, "TC")] {
        println!("\n{}", bans(hook, name, short)?.trim_end());
    }
    println!(
        "\nThe same under real packets to a closed port, by the kernel's own count, its clock included.\n"
    );
    for (hook, name) in [(Hook::AsWritten, "XDP"), (Hook::Tc, "TC")] {
        println!("{}", bans_under_traffic(hook, name)?);
    }
    Ok(())
}

/// The table of one hook with bans.
fn bans(hook: TrialHook, name: &str, compiled: &Compiled) -> Result<String> {
    let mut trials =
        [Trial::new(compiled, 0, hook, TICKS, KEYS)?, Trial::new(compiled, 0, hook, TICKS, KEYS)?];
    let list: Vec<_> = (0..BANNED).map(|n| IpNet::from(IpAddr::from(banned(n)))).collect();
    trials[1].ban(&list)?;
    let to_open = |source| LINK.ip(&Path::new(source, SERVER).tcp(40_000, 83, ACK, 1, &[]));
    for n in [0, BANNED / 2, BANNED - 1] {
        leads_to(&mut trials[0], &to_open(banned(n)), Reason::ServiceAllowed)?;
        leads_to(&mut trials[1], &to_open(banned(n)), Reason::Banned)?;
    }
    let strangers: Vec<_> = random_sources().map(to_open).collect();
    for stranger in strangers.iter().take(100) {
        leads_to(&mut trials[1], stranger, Reason::ServiceAllowed)?;
    }
    let mut random = StdRng::seed_from_u64(2);
    let mut somebody = || to_open(Ipv4Addr::from(scatter::next(random.random())));
    // Not zeros, which the kernel would keep in one page.
    let elsewhere = vec![1u64; CACHED_WORDS];
    let mut samples: [[Vec<f64>; 4]; 2] = Default::default();
    let mut floors = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (trial, [cold, warm, in_a_row, in_batches]) in trials.iter_mut().zip(&mut samples) {
            let each = |frames: &[Vec<u8>], repeat| -> Result<Vec<_>> {
                frames.iter().map(|frame| Ok(trial.time(frame, repeat)?)).collect()
            };
            cold.push(mean(each(&strangers, 1)?));
            warm.push(mean(each(&strangers[..STRANGERS / 100], WARM)?));
            in_a_row.push(mean(trial.time_scattered([somebody()], REPEAT)?));
            let batches = (0..BATCHES).map(|_| {
                black_box(elsewhere.iter().step_by(WORDS_OF_LINE).sum::<u64>());
                somebody()
            });
            // An interrupt hits many of them, and each is a mean already.
            let times = trial.time_scattered(batches, BATCH)?;
            in_batches.push(median(times.iter().map(|time| time.as_nanos() as f64).collect()));
        }
        floors[0].push(mean(vec![time_of_empty_program(hook, &somebody(), REPEAT)?]));
        floors[1].push(mean(vec![time_of_scattering(hook, &somebody(), REPEAT)?]));
    }
    let mut table = String::new();
    writeln!(table, "{name:<52} {:>6} {:>11}", "total", "more")?;
    let [without, with] = samples.map(|rows| rows.map(median));
    let rows = ["cold", "warm", "back to back", "in batches"];
    for (what, (without, with)) in rows.iter().zip(without.into_iter().zip(with)) {
        writeln!(table, "{:<52} {without:>6.0}", format!("allow, random sources, no bans, {what}"))?;
        let row = format!("allow, random sources, a million bans, {what}");
        writeln!(table, "{row:<52} {with:>6.0} {:>11.0}", with - without)?;
    }
    let [empty, scattering] = floors.map(median);
    writeln!(table, "{:<52} {empty:>6.0}", "empty program")?;
    writeln!(table, "{:<52} {scattering:>6.0} {:>11.0}", "nothing but another source", scattering - empty)?;
    Ok(table)
}

/// The mean in nanoseconds, without the hundredth that an interrupt hit.
fn mean(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.truncate(times.len() - times.len() / 100);
    times.iter().sum::<Duration>().as_nanos() as f64 / times.len() as f64
}

/// What a program takes, with a million bans and without any, while packets of random sources come one after the other.
fn bans_under_traffic(hook: Hook, name: &str) -> Result<String> {
    let sources = Sources::new(hook)?;
    let list: Vec<u8> = (0..BANNED).flat_map(|n| format!("{}\n", banned(n)).into_bytes()).collect();
    let strangers: Vec<_> = random_sources().map(IpAddr::from).collect();
    let _counting = enable_stats(Stats::RunTime)?;
    let mut samples = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS_OF_TRAFFIC {
        for (args, samples) in [["unban", "--all"], ["ban", "--from=-"]].iter().zip(&mut samples) {
            ended_with(sources.tollgate().output_of(args, &list)?, args, 0)?;
            let before = run_times()?;
            sources.flood_closed(&strangers, 100_000, 300_000)?;
            let after = run_times()?;
            // Other programs of this machine may run too: ours is the one that has run this often.
            let ours = after.iter().filter_map(|(id, (count, time))| {
                let (count_before, time_before) = before.get(id).copied().unwrap_or_default();
                Some((count.checked_sub(count_before)?, *time - time_before))
            });
            let (count, time) = ours.max_by_key(|(count, _)| *count).context("no program has run")?;
            ensure!(count >= 300_000, "the program has run {count} times");
            samples.push(time.as_nanos() as f64 / count as f64);
        }
    }
    let [without, with] = samples.map(median);
    Ok(format!("{name}: {without:.0} without bans, {with:.0} with a million: {:.0} more", with - without))
}

/// How often programs have run, and for how long in all, by their ids.
fn run_times() -> Result<HashMap<u32, (u64, Duration)>> {
    let ours = |name: &[u8]| name.starts_with(b"xdp_ingress") || name.starts_with(b"tc_ingress");
    // One that ends meanwhile is not ours.
    let programs = loaded_programs().filter_map(Result::ok).filter(|program| ours(program.name()));
    Ok(programs.map(|program| (program.id(), (program.run_count(), program.run_time()))).collect())
}

/// Sources of which none is banned.
fn random_sources() -> impl Iterator<Item = Ipv4Addr> {
    let mut random = StdRng::seed_from_u64(1);
    (0..STRANGERS).map(move |_| Ipv4Addr::from(scatter::FIRST + random.random_range(0..scatter::COUNT)))
}

/// The nth banned address.
fn banned(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(20, 0, 0, 0)) + n * 7)
}
