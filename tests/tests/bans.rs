//! Bans: who is hit and who is not, until when, and that neither a change of the policy nor the daemon's end changes it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tollgate_tests::Hook;
use tollgate_tests::bans::{POLICY, Sources, ended_with, listed, said};

/// Longer than anything here takes on any machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn one_address_is_banned_and_unbanned(hook: Hook) -> Result<()> {
    let s = Sources::new(hook)?;
    let t = s.tollgate();
    let neighbours = |banned| [("203.0.113.8", false), ("203.0.113.9", banned), ("203.0.113.10", false)];
    s.are("at first", &neighbours(false))?;
    let text = said(t, &["ban", "203.0.113.9", "--for", "1h", "--why", "scans"], 0)?;
    ensure!(text == "banned 203.0.113.9 for 1h\n", "{text}");
    s.are("while it is banned", &neighbours(true))?;
    ensure!(listed(t)? == [("203.0.113.9/32".to_owned(), "scans".to_owned())]);
    let text = said(t, &["unban", "203.0.113.9"], 0)?;
    ensure!(text == "unbanned 203.0.113.9\n", "{text}");
    s.are("after it", &neighbours(false))?;
    let text = said(t, &["unban", "203.0.113.9"], 0)?;
    ensure!(text == "203.0.113.9 was not banned\n", "{text}");
    // As a program that listens on [::] sees it.
    said(t, &["ban", "::ffff:203.0.113.9"], 0)?;
    s.are("by its mapped form", &neighbours(true))
}

#[test]
fn one_address_is_banned_and_unbanned_by_native_xdp() -> Result<()> {
    one_address_is_banned_and_unbanned(Hook::AsWritten)
}

#[test]
fn one_address_is_banned_and_unbanned_by_tc() -> Result<()> {
    one_address_is_banned_and_unbanned(Hook::Tc)
}

fn an_ipv6_address_is_banned_with_its_64(hook: Hook) -> Result<()> {
    let s = Sources::new(hook)?;
    let t = s.tollgate();
    let table = |network| {
        [
            ("2001:db8:112:ffff:ffff:ffff:ffff:ffff", false),
            ("2001:db8:113::", network),
            ("2001:db8:113::9", true),
            ("2001:db8:113:0:ffff:ffff:ffff:ffff", network),
            ("2001:db8:113:1::", false),
            // The IPv4 address that has the same leading bits.
            ("32.1.13.184", false),
        ]
    };
    let text = said(t, &["ban", "2001:db8:113::9"], 0)?;
    ensure!(text.contains("2001:db8:113::/64"), "the /64 is not named: {text}");
    s.are("by its /64", &table(true))?;
    // The address alone, told by its length, besides its network.
    said(t, &["ban", "2001:db8:113::9/128"], 0)?;
    said(t, &["unban", "2001:db8:113::/64"], 0)?;
    s.are("by its /128", &table(false))?;
    said(t, &["ban", "2001:db8:113::9"], 0)?;
    let text = said(t, &["unban", "2001:db8:113::9"], 0)?;
    ensure!(text == "ended 2 bans\n", "both are meant: {text}");
    s.are("after both", &table(false).map(|(source, _)| (source, false)))
}

#[test]
fn an_ipv6_address_is_banned_with_its_64_by_native_xdp() -> Result<()> {
    an_ipv6_address_is_banned_with_its_64(Hook::AsWritten)
}

#[test]
fn an_ipv6_address_is_banned_with_its_64_by_tc() -> Result<()> {
    an_ipv6_address_is_banned_with_its_64(Hook::Tc)
}

fn a_prefix_is_banned_from_its_first_to_its_last_address(hook: Hook) -> Result<()> {
    let s = Sources::new(hook)?;
    let t = s.tollgate();
    let table = |banned| {
        [
            ("198.51.100.63", false),
            ("198.51.100.64", banned),
            ("198.51.100.127", banned),
            ("198.51.100.128", false),
            ("2001:db8:9fff:ffff:ffff:ffff:ffff:ffff", false),
            ("2001:db8:a000::", banned),
            ("2001:db8:afff:ffff:ffff:ffff:ffff:ffff", banned),
            ("2001:db8:b000::", false),
            ("2001:db8:113::8", false),
            ("2001:db8:113::a", banned),
            ("2001:db8:113::b", banned),
            ("2001:db8:113::c", false),
        ]
    };
    said(t, &["ban", "198.51.100.64/26", "2001:db8:a000::/36", "2001:db8:113::a/127"], 0)?;
    s.are("while they are banned", &table(true))?;
    said(t, &["unban", "198.51.100.64/26", "2001:db8:a000::/36", "2001:db8:113::a/127"], 0)?;
    s.are("after it", &table(false))
}

#[test]
fn a_prefix_is_banned_from_its_first_to_its_last_address_by_native_xdp() -> Result<()> {
    a_prefix_is_banned_from_its_first_to_its_last_address(Hook::AsWritten)
}

#[test]
fn a_prefix_is_banned_from_its_first_to_its_last_address_by_tc() -> Result<()> {
    a_prefix_is_banned_from_its_first_to_its_last_address(Hook::Tc)
}

/// Waits until a source passes again.
fn until_it_passes(s: &Sources, source: &str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    let address = source.parse().context("an address")?;
    while s.banned(&[address])? != 0 {
        ensure!(Instant::now() < end, "{source} is banned for ever");
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[test]
fn a_narrow_ban_that_ends_does_not_open_a_wide_one() -> Result<()> {
    let s = Sources::new(Hook::AsWritten)?;
    let t = s.tollgate();
    said(t, &["ban", "198.51.100.0/24", "--for", "1h"], 0)?;
    said(t, &["ban", "198.51.100.64/26", "--for", "1s"], 0)?;
    // The other way about: the wide one comes later.
    said(t, &["ban", "203.0.113.64/26", "--for", "1s"], 0)?;
    said(t, &["ban", "203.0.113.0/24", "--for", "1h"], 0)?;
    // By its own word the narrow one is over, not by a time that a machine may take.
    let end = Instant::now() + PATIENCE;
    while listed(t)?.len() != 2 {
        ensure!(Instant::now() < end, "{:?}", listed(t)?);
        thread::sleep(Duration::from_millis(100));
    }
    let inside =
        [("198.51.100.64", true), ("198.51.100.1", true), ("203.0.113.64", true), ("203.0.113.1", true)];
    s.are("after the narrow ones", &inside)?;
    let text = said(t, &["unban", "198.51.100.64/26"], 0)?;
    ensure!(text.contains("still banned, with all of 198.51.100.0/24"), "{text}");
    said(t, &["unban", "198.51.100.0/24"], 0)?;
    s.are(
        "after the wide one",
        &[("198.51.100.64", false), ("198.51.100.1", false), ("203.0.113.64", true)],
    )?;
    // A narrow ban goes on when the wide one is taken away.
    said(t, &["ban", "203.0.113.128/25", "--for", "2h"], 0)?;
    said(t, &["unban", "203.0.113.0/24"], 0)?;
    s.are(
        "without the wide one",
        &[("203.0.113.64", false), ("203.0.113.127", false), ("203.0.113.128", true)],
    )
}

#[test]
fn the_kernel_ends_a_ban_by_itself() -> Result<()> {
    let mut s = Sources::new(Hook::AsWritten)?;
    s.deployment.tollgate.kill()?;
    let (single, prefix) = ("203.0.113.9", "198.51.100.1");
    // A machine may be too slow to see a short ban; it is not too slow for each of these.
    for seconds in [3u64, 12, 48] {
        let begun = Instant::now();
        let time = format!("{seconds}s");
        said(s.tollgate(), &["ban", single, "198.51.100.0/24", "--for", &time], 0)?;
        let banned = s.banned(&[single.parse()?, prefix.parse()?])?;
        if begun.elapsed() < Duration::from_secs(seconds) {
            ensure!(banned == 2, "{banned} of 2 are banned");
            // No daemon, no command that changes anything.
            until_it_passes(&s, single)?;
            until_it_passes(&s, prefix)?;
            ensure!(begun.elapsed() >= Duration::from_secs(seconds), "it ended before its time");
            ensure!(listed(s.tollgate())?.is_empty());
            return Ok(());
        }
    }
    anyhow::bail!("this machine did not send two packets within 48 seconds")
}

#[test]
fn a_ban_is_renewed_for_its_new_time() -> Result<()> {
    let s = Sources::new(Hook::AsWritten)?;
    said(s.tollgate(), &["ban", "203.0.113.9", "--for", "5d", "--why", "once"], 0)?;
    said(s.tollgate(), &["ban", "203.0.113.9", "--for", "1s", "--why", "twice"], 0)?;
    until_it_passes(&s, "203.0.113.9")?;
    said(s.tollgate(), &["ban", "203.0.113.9", "--why", "for ever"], 0)?;
    s.are("without end", &[("203.0.113.9", true)])?;
    let list = s.tollgate().json("bans")?;
    let ban = list.pointer("/bans/0").context("no ban")?;
    ensure!(ban.get("until").is_some_and(serde_json::Value::is_null), "{ban}");
    ensure!(said(s.tollgate(), &["bans"], 0)?.contains("never"), "people are told so too");
    ensure!(said(s.tollgate(), &["bans", "--count"], 0)? == "1\n");
    Ok(())
}

fn bans_survive_applies_and_daemons(hook: Hook) -> Result<()> {
    let mut s = Sources::new(hook)?;
    let table =
        [("203.0.113.9", true), ("198.51.100.7", true), ("2001:db8:113::7", true), ("203.0.113.10", false)];
    said(s.tollgate(), &["ban", "203.0.113.9", "198.51.100.0/24", "2001:db8:113::1", "--for", "1h"], 0)?;
    s.are("at first", &table)?;
    let text = POLICY.replace("default = \"drop\"", "default = \"accept\"");
    let path = s.deployment.write_policy("other.toml", &hook.of(&text)?)?;
    let output = s.tollgate().apply(&path)?;
    ended_with(output, &["apply"], 0)?;
    s.are("after an apply", &table)?;
    s.deployment.tollgate.kill()?;
    s.are("after SIGKILL", &table)?;
    s.deployment.tollgate.restart()?;
    s.are("after the restart", &table)?;
    ensure!(listed(s.tollgate())?.len() == 3);
    let log = s.tollgate().log();
    ensure!(!log.contains("enforced again"), "there was nothing to bring back: {log}");
    Ok(())
}

#[test]
fn bans_survive_applies_and_daemons_by_native_xdp() -> Result<()> {
    bans_survive_applies_and_daemons(Hook::AsWritten)
}

#[test]
fn bans_survive_applies_and_daemons_by_tc() -> Result<()> {
    bans_survive_applies_and_daemons(Hook::Tc)
}

#[test]
fn a_million_bans_come_from_standard_input() -> Result<()> {
    const MILLION: u32 = 1_000_000;
    const MORE: u32 = 10_000;

    let s = Sources::new(Hook::AsWritten)?;
    let t = s.tollgate();
    // Spread, with room between any two.
    let source = |n: u32| std::net::Ipv4Addr::from(0x1400_0000 + n * 7);
    let list = |from: u32, count: u32| -> Vec<u8> {
        (from..from + count).flat_map(|n| format!("{}\n", source(n)).into_bytes()).collect()
    };
    let args = ["ban", "--from", "-", "--for", "1h", "--why", "a list"];
    let begun = Instant::now();
    let text = ended_with(t.output_of(&args, &list(0, MILLION))?, &args, 0)?;
    let took = begun.elapsed();
    eprintln!("a million bans from standard input: {took:?}");
    ensure!(text.contains(&MILLION.to_string()), "{text}");
    ensure!(took < Duration::from_secs(60), "{took:?}");
    ensure!(said(t, &["bans", "--count"], 0)? == format!("{MILLION}\n"));
    let sample = |offset: u32| -> Vec<std::net::IpAddr> {
        (0..500).map(|n| std::net::Ipv4Addr::from(u32::from(source(n * 1997)) + offset).into()).collect()
    };
    ensure!(s.banned(&sample(0))? == 500, "some of the list are not banned");
    ensure!(s.banned(&sample(3))? == 0, "some that are not on it are");

    let begun = Instant::now();
    thread::scope(|scope| -> Result<()> {
        let traffic = scope.spawn(|| s.flood([203, 0, 113, 9].into(), 20_000, 100_000));
        ended_with(t.output_of(&args, &list(MILLION, MORE))?, &args, 0)?;
        eprintln!("10,000 more under traffic: {:?}", begun.elapsed());
        traffic.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?
    })?;
    ensure!(said(t, &["bans", "--count"], 0)? == format!("{}\n", MILLION + MORE));
    ensure!(s.banned(&[source(MILLION + MORE - 1).into()])? == 1);

    // What is taken away passes again, and nobody else.
    let args = ["unban", "--from", "-"];
    ended_with(t.output_of(&args, &list(0, MILLION / 2))?, &args, 0)?;
    ensure!(s.banned(&[source(0).into(), source(MILLION / 2 - 1).into()])? == 0);
    ensure!(s.banned(&[source(MILLION / 2).into(), source(MILLION).into()])? == 2);
    said(t, &["unban", "--all"], 0)?;
    ensure!(s.banned(&sample(0))? == 0);
    ensure!(said(t, &["bans"], 0)? == "nobody is banned\n");
    Ok(())
}
