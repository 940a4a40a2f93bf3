//! What outlives a reboot, what a ban may not hit, and what is said of wrong input.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tollgate_tests::bans::{POLICY, Sources, ended_with, listed, said};
use tollgate_tests::deployment::with_hook;
use tollgate_tests::shared::Shared;
use tollgate_tests::tollgate::binary;
use tollgate_tests::{Hook, Host};

static SOURCES: Shared<Sources> = Shared::new();

/// A firewall without bans, for tests that do not end it.
fn sources(work: impl FnOnce(&Sources) -> Result<()>) -> Result<()> {
    SOURCES.with(
        || Sources::new(Hook::AsWritten),
        |s| {
            said(s.tollgate(), &["unban", "--all"], 0)?;
            work(s)
        },
    )
}

fn state_file(s: &Sources) -> PathBuf {
    s.tollgate().state_dir().join("bans.tgs")
}

/// A reboot takes the daemon, the programs and the maps, and leaves the files.
fn shut_down(s: &mut Sources) -> Result<()> {
    s.deployment.tollgate.terminate()?;
    s.tollgate().detach()
}

/// All bans with everything that is said of them and does not change by the second.
fn details(s: &Sources) -> Result<Vec<Value>> {
    let mut list = s.tollgate().json("bans")?;
    let bans = list.get_mut("bans").and_then(Value::as_array_mut).context("no list of bans")?;
    for ban in bans.iter_mut() {
        ban.as_object_mut().context("a ban is no object")?.remove("seconds_left").context("no seconds")?;
    }
    Ok(bans.clone())
}

#[test]
fn bans_come_back_after_a_reboot() -> Result<()> {
    let mut s = Sources::new(Hook::AsWritten)?;
    let table = [
        ("203.0.113.9", true),
        ("203.0.113.10", false),
        ("198.51.100.200", true),
        ("198.51.101.0", false),
        ("2001:db8:113::77", true),
        ("2001:db8:114::77", false),
    ];
    said(s.tollgate(), &["ban", "203.0.113.9", "--for", "1h", "--why", "scans"], 0)?;
    said(s.tollgate(), &["ban", "203.0.113.10"], 0)?;
    said(s.tollgate(), &["ban", "198.51.100.0/24", "2001:db8:113::1", "--why", "a list"], 0)?;
    said(s.tollgate(), &["unban", "203.0.113.10"], 0)?;
    // Over before anybody comes back.
    said(s.tollgate(), &["ban", "203.0.113.11", "--for", "1ms"], 0)?;
    s.are("at first", &table)?;
    let before = details(&s)?;
    ensure!(before.len() == 3, "{before:?}");

    shut_down(&mut s)?;
    let waiting = s.tollgate().json("bans")?;
    ensure!(waiting.get("enforced") == Some(&Value::Bool(false)), "{waiting}");
    ensure!(details(&s)? == before, "{before:?}, then {waiting}");
    let text = said(s.tollgate(), &["ban", "203.0.113.44"], 1)?;
    ensure!(text.contains("no policy is enforced"), "{text}");

    s.deployment.tollgate.restart()?;
    s.are("after the reboot", &table)?;
    let after = details(&s)?;
    ensure!(after == before, "{before:?}, then {after:?}");
    let log = s.tollgate().log();
    ensure!(log.contains("3 bans are enforced again"), "{log}");

    // What is taken back meanwhile does not come back.
    shut_down(&mut s)?;
    let text = said(s.tollgate(), &["unban", "203.0.113.9"], 0)?;
    ensure!(text == "unbanned 203.0.113.9\n", "{text}");
    s.deployment.tollgate.restart()?;
    s.are("after another", &[("203.0.113.9", false), ("198.51.100.200", true)])
}

#[test]
fn bans_come_back_when_a_daemon_enforces_again_after_detach() -> Result<()> {
    let s = Sources::new(Hook::Tc)?;
    said(s.tollgate(), &["ban", "203.0.113.9", "198.51.100.0/24"], 0)?;
    s.tollgate().detach()?;
    let path = s.deployment.write_policy("again.toml", &with_hook(POLICY, "tc")?)?;
    ended_with(s.tollgate().apply(&path)?, &["apply"], 0)?;
    s.are("after detach and apply", &[("203.0.113.9", true), ("198.51.100.9", true), ("203.0.113.8", false)])
}

#[test]
fn a_damaged_state_file_is_set_aside_and_the_rest_is_kept() -> Result<()> {
    let mut s = Sources::new(Hook::AsWritten)?;
    for source in ["203.0.113.1", "203.0.113.2", "203.0.113.3"] {
        said(s.tollgate(), &["ban", source, "--why", source], 0)?;
    }
    shut_down(&mut s)?;
    let mut bytes = fs::read(state_file(&s))?;
    let second = bytes.windows(11).position(|window| window == b"203.0.113.2").context("the second ban")?;
    bytes[second] ^= 0xff;
    fs::write(state_file(&s), &bytes)?;
    s.deployment.tollgate.restart()?;
    s.are("after the damage", &[("203.0.113.1", true), ("203.0.113.2", false), ("203.0.113.3", true)])?;
    let aside = s.tollgate().state_dir().join("bans.tgs.damaged");
    ensure!(fs::read(&aside)? == bytes, "the damaged file is not what it was");
    let log = s.tollgate().log();
    ensure!(log.contains("damaged") && log.contains(&aside.display().to_string()), "{log}");

    // The new one is whole; and a file that is lost altogether is written again by the next start.
    s.deployment.tollgate.terminate()?;
    fs::remove_file(state_file(&s))?;
    s.deployment.tollgate.restart()?;
    shut_down(&mut s)?;
    s.deployment.tollgate.restart()?;
    s.are("after the loss", &[("203.0.113.1", true), ("203.0.113.3", true)])?;
    ensure!(s.tollgate().log().matches("damaged").count() == log.matches("damaged").count());
    Ok(())
}

#[test]
fn a_million_bans_come_back() -> Result<()> {
    let mut s = Sources::new(Hook::AsWritten)?;
    let source = |n: u32| std::net::Ipv4Addr::from(0x1400_0000 + n * 7);
    let list: Vec<u8> = (0..1_000_000).flat_map(|n| format!("{}\n", source(n)).into_bytes()).collect();
    let args = ["ban", "--from", "-", "--for", "1h", "--why", "a list"];
    ended_with(s.tollgate().output_of(&args, &list)?, &args, 0)?;
    // One more must not write all of them.
    let begun = Instant::now();
    said(s.tollgate(), &["ban", "203.0.113.9"], 0)?;
    eprintln!(
        "one more ban beside a million: {:?}; the file has {} bytes",
        begun.elapsed(),
        fs::metadata(state_file(&s))?.len()
    );
    let before = fs::metadata(state_file(&s))?.len();
    said(s.tollgate(), &["ban", "203.0.113.10"], 0)?;
    let grown = fs::metadata(state_file(&s))?.len() - before;
    ensure!(grown < 4096, "one ban has written {grown} bytes");
    shut_down(&mut s)?;
    let begun = Instant::now();
    s.deployment.tollgate.restart()?;
    eprintln!("a start with a million bans: {:?}", begun.elapsed());
    ensure!(said(s.tollgate(), &["bans", "--count"], 0)? == "1000002\n");
    let sample = |offset: u32| -> Vec<std::net::IpAddr> {
        (0..300).map(|n| std::net::Ipv4Addr::from(u32::from(source(n * 3331)) + offset).into()).collect()
    };
    ensure!(s.banned(&sample(0))? == 300 && s.banned(&sample(1))? == 0);
    Ok(())
}

#[test]
fn what_one_needs_is_not_banned() -> Result<()> {
    sources(|s| {
        let t = s.tollgate();
        for (target, why) in [
            ("192.168.0.104", "this host's own address"),
            ("172.17.0.1", "this host's own address"),
            ("127.0.0.1", "this host's own address"),
            ("2001:db8:0:1::104", "this host's own address"),
            ("fe80::104/128", "this host's own address"),
            ("192.168.0.1", "the gateway"),
            ("2001:db8:0:1::1", "the gateway"),
            ("192.168.0.0/28", "the gateway"),
            ("10.0.0.0/15", "wider than /16"),
            ("2001:db8::/31", "wider than /32"),
            ("::/0", "wider than /32"),
        ] {
            // One that is refused takes the others with it.
            let text = said(t, &["ban", "203.0.113.9", target], 1)?;
            ensure!(text.contains(why) && text.contains("--force"), "{target}: {text}");
        }
        ensure!(listed(t)?.is_empty(), "{:?}", listed(t)?);
        // A neighbour in this host's own /64 is banned alone.
        let text = said(t, &["ban", "2001:db8:0:1::50"], 0)?;
        ensure!(text.contains("without the rest of its /64"), "{text}");
        s.are("in our own network", &[("2001:db8:0:1::50", true), ("2001:db8:0:1::51", false)])?;
        said(t, &["ban", "--force", "10.0.0.0/8", "192.168.0.1"], 0)?;
        s.are("by force", &[("10.255.255.255", true), ("11.0.0.0", false), ("192.168.0.1", true)])
    })
}

#[test]
fn the_other_end_of_the_session_is_not_banned() -> Result<()> {
    sources(|s| {
        let t = s.tollgate();
        for (variable, value) in
            [("SSH_CONNECTION", "203.0.113.9 50000 192.168.0.104 22"), ("SSH_CLIENT", "203.0.113.9 50000 22")]
        {
            let output = t.command()?.args(["ban", "203.0.113.9"]).env(variable, value).output()?;
            let text = ended_with(output, &["ban"], 1)?;
            ensure!(text.contains("the other end of this session"), "{text}");
            // As sudo runs it: the variable is its parent's alone, and the shell goes on after the command.
            let script = format!("env -u {variable} \"$0\" \"$@\"; exit $?");
            let mut command = s.deployment.lab.ns(Host::Server).command("sh");
            command.args(["-c", &script]).arg(binary()?).args(t.directories());
            command.args(["ban", "203.0.113.9"]).env(variable, value);
            let text = ended_with(command.output()?, &["ban"], 1)?;
            ensure!(text.contains("the other end of this session"), "by its parent: {text}");
        }
        ensure!(listed(t)?.is_empty());
        Ok(())
    })
}

#[test]
fn wrong_input_is_located_and_bans_nobody() -> Result<()> {
    sources(|s| {
        let t = s.tollgate();
        for (args, needle) in [
            (&["ban", "203.0.113.300"][..], "203.0.113.300"),
            (&["ban", "203.0.113.9/24"], "203.0.113.0/24"),
            (&["ban", "example.org"], "addresses, not names"),
            (&["ban", "203.0.113.9", "--for", "10"], "\"10s\""),
            (&["ban", "203.0.113.9", "--for", "0s"], "for no time"),
            (&["ban"], "<ADDR|PREFIX>"),
            (&["unban"], "<ADDR|PREFIX>"),
            (&["unban", "--all", "203.0.113.9"], "--all"),
            (&["bans", "--json", "--count"], "--count"),
        ] {
            let text = said(t, args, 2)?;
            ensure!(text.contains(needle), "{args:?}: {text}");
        }
        let long = "x".repeat(201);
        let text = said(t, &["ban", "203.0.113.9", "--why", &long], 2)?;
        ensure!(text.contains("200"), "{text}");
        for (list, needle) in [
            ("203.0.113.9\n\n203.0.113.256 # bad\n", "standard input:3:1"),
            ("203.0.113.9\n198.51.100.1/24\n", "standard input:2:1"),
            ("# nothing\n", "no prefix"),
        ] {
            for command in ["ban", "unban"] {
                let args = [command, "--from", "-"];
                let text = ended_with(t.output_of(&args, list.as_bytes())?, &args, 2)?;
                ensure!(text.contains(needle), "{list:?}: {text}");
            }
        }
        let path = t.state_dir().join("list.txt");
        fs::write(&path, "203.0.113.7\n2001:db8:7::7 ; comment\n2001:db8:8::8/128\nnonsense\n")?;
        let args = ["ban", "--from", &path.display().to_string()];
        let text = said(t, &args, 2)?;
        ensure!(text.contains("list.txt:4:1"), "{text}");
        ensure!(listed(t)?.is_empty());

        // Once it is right, an address of IPv6 means its network here too.
        fs::write(&path, "203.0.113.7\n2001:db8:7::7 ; comment\n2001:db8:8::8/128\n")?;
        said(t, &args, 0)?;
        let nets: Vec<_> = listed(t)?.into_iter().map(|(net, _)| net).collect();
        ensure!(nets == ["203.0.113.7/32", "2001:db8:7::/64", "2001:db8:8::8/128"], "{nets:?}");
        Ok(())
    })
}

#[test]
fn a_ban_that_can_not_be_kept_is_enforced_all_the_same() -> Result<()> {
    sources(|s| {
        let t = s.tollgate();
        // A file where the folder should be.
        let place = t.state_dir().join("file");
        fs::write(&place, "")?;
        let state_dir = place.display().to_string();
        let text = said(t, &["ban", "203.0.113.9", "198.51.100.0/24", "--state-dir", &state_dir], 1)?;
        ensure!(text.contains("will not outlive a reboot"), "{text}");
        s.are("without a file", &[("203.0.113.9", true), ("198.51.100.1", true), ("203.0.113.8", false)])
    })
}

#[test]
fn many_commands_at_a_time_lose_nothing() -> Result<()> {
    sources(|s| {
        let t = s.tollgate();
        thread::scope(|scope| -> Result<()> {
            let ban =
                |n: u32| move || said(t, &["ban", &format!("203.0.113.{n}"), &format!("100.64.{n}.0/24")], 0);
            let all: Vec<_> = (1..=16).map(|n| scope.spawn(ban(n))).collect();
            all.into_iter()
                .try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("a command panicked"))?.map(drop))
        })?;
        ensure!(listed(t)?.len() == 32, "{:?}", listed(t)?);
        let mut table = Vec::new();
        for n in 1..=16 {
            table.push(format!("203.0.113.{n}").parse()?);
            table.push(format!("100.64.{n}.7").parse()?);
        }
        ensure!(s.banned(&table)? == 32);
        // The file has them all as well.
        let bytes = fs::read(state_file(s))?;
        let has = |address: &[u8]| bytes.windows(address.len()).any(|window| window == address);
        for n in 1..=16 {
            ensure!(has(&[4, 32, 203, 0, 113, n]) && has(&[4, 24, 100, 64, n, 0]), "{n} is not in the file");
        }
        Ok(())
    })
}
