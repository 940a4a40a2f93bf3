//! The command line: wrong input ends with code 2, says where and what, and changes nothing in the kernel.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tollgate_tests::counters::Stats;
use tollgate_tests::shared::Shared;
use tollgate_tests::{Deployment, Hook};

/// The policy in force; each bad one is this with a fault.
const GOOD: &str = r#"version = 1

[interfaces.wlp2s0]
hook = "auto"
default = "drop"

[zones]
lan = ["192.168.0.0/24", "fe80::/10"]

[limits.web]
per-source = { packets = "2000/s", burst = 4000 }

[services.django]
ports = ["tcp/8000"]
allow = ["lan"]
limit = "web"
"#;

/// What the fault is, the good text, the bad text, and what the message must name.
const FAULTS: &[(&str, &str, &str, &str)] = &[
    ("not TOML", "[zones]", "[zones", "[zones"),
    ("a value that is no TOML", "version = 1", "version = one", "one"),
    ("an unknown key", "limit = \"web\"", "limits = \"web\"", "limits"),
    ("an unknown table", "[zones]", "[zone]", "zone"),
    ("an unknown version", "version = 1", "version = 99", "99"),
    ("an unknown hook", "hook = \"auto\"", "hook = \"fast\"", "fast"),
    ("an unknown default", "default = \"drop\"", "default = \"maybe\"", "maybe"),
    ("host bits in a prefix", "192.168.0.0/24", "192.168.0.7/24", "192.168.0.7/24"),
    ("a prefix that is too long", "192.168.0.0/24", "192.168.0.0/33", "192.168.0.0/33"),
    ("no address at all", "192.168.0.0/24", "our network", "our network"),
    ("a port out of range", "tcp/8000", "tcp/80000", "80000"),
    ("port zero", "tcp/8000", "tcp/0", "tcp/0"),
    ("a port range upside down", "tcp/8000", "tcp/8010-8000", "8010"),
    ("an unknown protocol", "tcp/8000", "tpc/8000", "tpc"),
    ("a port twice", "[\"tcp/8000\"]", "[\"tcp/8000\", \"tcp/8000\"]", "8000"),
    ("an unknown zone", "allow = [\"lan\"]", "allow = [\"wan\"]", "wan"),
    ("an unknown limit", "limit = \"web\"", "limit = \"wbe\"", "wbe"),
    ("an empty allow", "allow = [\"lan\"]", "allow = []", "allow"),
    ("a rate of zero", "2000/s", "0/s", "0/s"),
    ("a rate without a unit", "2000/s", "2000", "2000"),
    ("a burst below one packet", "burst = 4000", "burst = 0", "burst"),
    (
        "a burst below one tick of the clock",
        "\"2000/s\", burst = 4000",
        "\"1000000000/s\", burst = 1",
        "burst",
    ),
    ("a wrong type", "ports = [\"tcp/8000\"]", "ports = 8000", "8000"),
];

static DEPLOYMENT: Shared<Deployment> = Shared::new();

fn deployed(work: impl FnOnce(&Deployment) -> Result<()>) -> Result<()> {
    DEPLOYMENT.with(|| Deployment::with_policy(GOOD, Hook::AsWritten), |d| work(d))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What is in the kernel, as far as the commands show it. Counts may grow by an ARP request at any time.
fn in_kernel(d: &Deployment) -> Result<(Value, Vec<String>, Vec<String>)> {
    let stats: Stats = d.tollgate.stats()?;
    let mut pins: Vec<_> = walk(d.tollgate.pins())?;
    pins.sort_unstable();
    Ok((d.tollgate.status()?, stats.rules.into_keys().collect(), pins))
}

fn walk(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(walk(&path)?);
        }
        found.push(path.display().to_string());
    }
    Ok(found)
}

/// Runs `check` and `apply` on a bad file: both refuse it with code 2, name the file and say `needle`.
fn is_refused(d: &Deployment, what: &str, path: &Path, needle: &str) -> Result<String> {
    let name = path.display().to_string();
    let mut said = String::new();
    for command in ["check", "apply"] {
        let output = d.tollgate.output(&[command, &name])?;
        said = text(&output);
        ensure!(output.status.code() == Some(2), "{command} on {what}: {}: {said}", output.status);
        ensure!(said.contains(&name), "{command} on {what} does not name the file: {said}");
        ensure!(said.contains(needle), "{command} on {what} does not say {needle:?}: {said}");
        ensure!(said.len() < 4096, "{command} on {what} says too much: {} bytes", said.len());
        ensure!(!said.contains("panicked"), "{command} on {what}: {said}");
    }
    Ok(said)
}

/// Line and column that follow the file's name.
fn location(said: &str, path: &Path) -> Option<(usize, usize)> {
    let (_, rest) = said.split_once(&format!("{}:", path.display()))?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[test]
fn a_fault_in_a_policy_is_located_and_changes_nothing() -> Result<()> {
    deployed(|d| {
        let before = in_kernel(d)?;
        for (what, good, bad, needle) in FAULTS {
            let at = GOOD.find(good).with_context(|| format!("{what}: the good policy has no {good}"))?;
            let line = GOOD[..at].lines().count().max(1);
            let line = if GOOD[..at].ends_with('\n') && at > 0 { line + 1 } else { line };
            let path = d.write_policy("bad.toml", &GOOD.replacen(good, bad, 1))?;
            let said = is_refused(d, what, &path, needle)?;
            let found = location(&said, &path);
            let (at_line, column) =
                found.with_context(|| format!("{what}: no line and column in: {said}"))?;
            // TOML notices an open bracket at the end of its line or the start of the next.
            let near = at_line == line || (*what == "not TOML" && at_line == line + 1);
            ensure!(near && column >= 1, "{what}: {at_line}:{column}, the fault is in line {line}: {said}");
        }
        ensure!(in_kernel(d)? == before, "something changed in the kernel");
        Ok(())
    })
}

#[test]
fn a_port_of_two_services_is_located() -> Result<()> {
    deployed(|d| {
        let twice = format!("{GOOD}\n[services.other]\nports = [\"tcp/8000\"]\nallow = [\"lan\"]\n");
        let path = d.write_policy("bad.toml", &twice)?;
        let said = is_refused(d, "a port of two services", &path, "8000")?;
        ensure!(said.contains("django") && said.contains("other"), "both services are named: {said}");
        ensure!(location(&said, &path).is_some_and(|(line, _)| line >= 14), "{said}");
        Ok(())
    })
}

#[test]
fn an_interface_that_does_not_exist_is_refused() -> Result<()> {
    deployed(|d| {
        let before = in_kernel(d)?;
        let path = d.write_policy("bad.toml", &GOOD.replace("wlp2s0", "wlan77"))?;
        let output = d.tollgate.output(&["apply", &path.display().to_string()])?;
        ensure!(output.status.code() == Some(2), "{}: {}", output.status, text(&output));
        ensure!(text(&output).contains("wlan77"), "{}", text(&output));
        ensure!(in_kernel(d)? == before, "something changed in the kernel");
        Ok(())
    })
}

#[test]
fn files_that_are_no_policies_are_refused() -> Result<()> {
    deployed(|d| {
        let before = in_kernel(d)?;
        let place = d.write_policy("empty.toml", "")?;
        is_refused(d, "an empty file", &place, "version")?;
        let directory = place.with_file_name("directory.toml");
        fs::create_dir_all(&directory)?;
        is_refused(d, "a directory", &directory, "directory")?;
        is_refused(d, "a missing file", &place.with_file_name("missing.toml"), "")?;
        let binary = place.with_file_name("binary.toml");
        fs::write(&binary, b"version = 1\n# \xff\xfe\n")?;
        let said = is_refused(d, "invalid UTF-8", &binary, "UTF-8")?;
        ensure!(location(&said, &binary).is_some_and(|(line, _)| line == 2), "{said}");
        let huge = place.with_file_name("huge.toml");
        fs::write(&huge, vec![b'j'; 100 << 20])?;
        is_refused(d, "100 MB of junk", &huge, "")?;
        fs::remove_file(&huge)?;
        ensure!(in_kernel(d)? == before, "something changed in the kernel");
        Ok(())
    })
}

#[test]
fn a_bad_line_of_a_block_list_is_located() -> Result<()> {
    deployed(|d| {
        let list = d.write_policy("blocked.txt", "# known\n198.51.100.0/24\n198.51.100.300\n")?;
        let policy = GOOD.replace("[zones]\n", "[zones]\nbad = { file = \"blocked.txt\" }\n");
        let path = d.write_policy("bad.toml", &policy)?;
        let output = d.tollgate.output(&["check", &path.display().to_string()])?;
        let said = text(&output);
        ensure!(output.status.code() == Some(2), "{}: {said}", output.status);
        ensure!(location(&said, &list).is_some_and(|(line, _)| line == 3), "{said}");
        ensure!(said.contains("198.51.100.300"), "{said}");
        Ok(())
    })
}

#[test]
fn a_file_that_one_may_not_read_is_refused() -> Result<()> {
    deployed(|d| {
        let path = d.write_policy("secret.toml", GOOD)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        // The program itself may lie where only root can look: nobody gets a copy.
        let open = tempfile::tempdir()?;
        fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755))?;
        let program = open.path().join("tollgate");
        fs::copy(tollgate_tests::tollgate::binary()?, &program)?;
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .arg("check")
            .arg(&path)
            .current_dir("/")
            .output()?;
        let said = text(&output);
        ensure!(output.status.code() == Some(2), "{}: {said}", output.status);
        ensure!(said.contains("secret.toml"), "{said}");
        Ok(())
    })
}

#[test]
fn the_policies_that_ship_are_good() -> Result<()> {
    deployed(|d| {
        for name in ["platform", "platform-strict", "minimal"] {
            let path = tollgate_tests::deployment::policy(name);
            let output = d.tollgate.output(&["check", &path.display().to_string()])?;
            ensure!(output.status.success(), "{name}: {}: {}", output.status, text(&output));
        }
        Ok(())
    })
}

#[test]
fn global_flags_stand_before_or_after_the_command() -> Result<()> {
    deployed(|d| {
        let directories = d.tollgate.directories();
        let before = d.tollgate.bare_command()?.args(&directories).args(["stats", "--json"]).output()?;
        let after = d.tollgate.bare_command()?.args(["stats", "--json"]).args(&directories).output()?;
        for output in [before, after] {
            ensure!(output.status.success(), "{}: {}", output.status, text(&output));
            Stats::parse(&serde_json::from_slice(&output.stdout)?)?;
        }
        Ok(())
    })
}

#[test]
fn help_teaches_every_command() -> Result<()> {
    deployed(|d| {
        let output = d.tollgate.bare_command()?.arg("--help").output()?;
        ensure!(output.status.success(), "{}", text(&output));
        for command in ["run", "check", "apply", "status", "stats", "monitor", "top", "detach", "completions"]
        {
            ensure!(text(&output).contains(command), "no {command} in: {}", text(&output));
            let help = d.tollgate.bare_command()?.args([command, "--help"]).output()?;
            ensure!(help.status.success() && help.stdout.len() > 100, "{command}: {}", text(&help));
        }
        Ok(())
    })
}

#[test]
fn people_get_tables_and_wrong_arguments_get_code_2() -> Result<()> {
    deployed(|d| {
        for command in ["status", "stats"] {
            let output = d.tollgate.checked(&[command])?;
            ensure!(text(&output).contains("wlp2s0") || command == "stats", "{}", text(&output));
            ensure!(!output.stdout.contains(&0x1b), "colours in a pipe: {}", text(&output));
        }
        for args in [&["fly"][..], &["stats", "--jason"], &["check"], &["run"]] {
            let output = d.tollgate.output(args)?;
            ensure!(output.status.code() == Some(2), "{args:?}: {}: {}", output.status, text(&output));
        }
        Ok(())
    })
}
