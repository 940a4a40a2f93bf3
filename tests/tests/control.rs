//! The control socket: who may ask, who may change, and that no client, however hostile, keeps the daemon from its work or
//! others from the daemon.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tollgate_tests::Deployment;
use tollgate_tests::shared::Shared;
use tollgate_tests::tollgate::binary;

const POLICY: &str =
    "version = 1\n[interfaces.wlp2s0]\n[services.web]\nports = [\"tcp/8000\"]\nallow = \"any\"\n";
/// Nobody's: users and groups need no names to be told apart.
const READERS: &str = "4000700";
const MEMBER: &str = "4000001";
const STRANGER: &str = "4000002";
/// Longer than anything here takes on any machine; an apply verifies programs.
const PATIENCE: Duration = Duration::from_secs(60);

static DEPLOYMENT: Shared<Deployment> = Shared::new();

fn deployed(work: impl FnOnce(&Deployment) -> Result<()>) -> Result<()> {
    DEPLOYMENT.with(|| Deployment::with_arguments(POLICY, &["--read-group", READERS]), |d| work(d))
}

fn socket(d: &Deployment) -> PathBuf {
    d.tollgate.run_dir().join("control.sock")
}

/// A program as another user, with one more group.
fn command_as(uid: &str, group: Option<&str>, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--bounding-set=-all"]);
    command.arg(group.map_or_else(|| "--clear-groups".to_owned(), |group| format!("--groups={group}")));
    command.arg("--").arg(program);
    command
}

/// The program under test where everybody may run it.
fn public_binary() -> Result<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let path = folder.path().join("tollgate");
    fs::copy(binary()?, &path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok((folder, path))
}

/// `tollgate` as another user.
fn tollgate_as(d: &Deployment, uid: &str, group: Option<&str>, args: &[&str]) -> Result<Output> {
    let (_folder, path) = public_binary()?;
    let output = command_as(uid, group, path).args(d.tollgate.directories()).args(args).output();
    output.context("setpriv")
}

fn member(d: &Deployment, args: &[&str]) -> Result<Output> {
    tollgate_as(d, MEMBER, Some(READERS), args)
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// One line of the daemon's answer.
fn answer(stream: &UnixStream) -> Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

/// An apply and a question are served.
fn works(d: &Deployment, when: &str) -> Result<()> {
    let begun = Instant::now();
    let policy = d.write_policy("again.toml", &format!("{POLICY}# {when}\n"))?;
    let applied = d.tollgate.apply(&policy)?;
    ensure!(applied.status.success(), "apply {when}: {}", said(&applied));
    let asked = member(d, &["status", "--json"])?;
    ensure!(asked.status.success(), "a question {when}: {}", said(&asked));
    ensure!(begun.elapsed() < PATIENCE, "{when}: {:?}", begun.elapsed());
    ensure!(!d.tollgate.log().contains("panicked"), "{}", d.tollgate.log());
    Ok(())
}

#[test]
fn members_of_the_group_see_what_root_sees() -> Result<()> {
    deployed(|d| {
        d.tollgate.checked(&["ban", "198.51.100.7", "--why", "scans"])?;
        for command in ["status", "history", "bans", "stats"] {
            // Packets come at any time; bans without end show no clock.
            let end = Instant::now() + PATIENCE;
            loop {
                let before = d.tollgate.checked(&[command, "--json"])?.stdout;
                let theirs = member(d, &[command, "--json"])?;
                ensure!(theirs.status.success(), "{command}: {}", said(&theirs));
                let after = d.tollgate.checked(&[command, "--json"])?.stdout;
                if before == after {
                    ensure!(theirs.stdout == before, "{command}: {}", said(&theirs));
                    break;
                }
                ensure!(Instant::now() < end, "{command} never came to rest");
            }
            let people = member(d, &[command])?;
            ensure!(people.status.success() && !people.stdout.is_empty(), "{command}: {}", said(&people));
        }
        d.tollgate.checked(&["unban", "198.51.100.7"])?;
        let mode = |path: PathBuf| -> Result<u32> { Ok(fs::metadata(path)?.permissions().mode() & 0o777) };
        ensure!(mode(socket(d))? == 0o660, "the socket: {:o}", mode(socket(d))?);
        ensure!(mode(d.tollgate.run_dir().to_owned())? == 0o710, "the run directory");
        for lock in ["daemon.lock", "change.lock"] {
            ensure!(mode(d.tollgate.run_dir().join(lock))? == 0o600, "{lock}");
        }
        Ok(())
    })
}

#[test]
fn members_of_the_group_change_nothing() -> Result<()> {
    deployed(|d| {
        let before = d.tollgate.status()?;
        let policy = d.write_policy("theirs.toml", &format!("{POLICY}# theirs\n"))?.display().to_string();
        for args in [
            &["rollback"][..],
            &["confirm"],
            &["ban", "198.51.100.7"],
            &["unban", "198.51.100.7"],
            &["detach"],
            &["monitor"],
            &["run", "--policy", &policy],
        ] {
            let output = member(d, args)?;
            ensure!(output.status.code() == Some(1), "{args:?}: {}: {}", output.status, said(&output));
        }
        // And whatever they write by hand.
        for request in [
            format!(r#"{{"version":2,"command":{{"apply":{{"file":"{policy}"}}}}}}"#),
            r#"{"version":2,"command":{"apply-revision":{"revision":1}}}"#.to_owned(),
            r#"{"version":2,"command":{"rollback":{}}}"#.to_owned(),
        ] {
            let line = by_hand(d, MEMBER, Some(READERS), &request)?;
            ensure!(line.contains("refused") && line.contains("change nothing"), "{request}: {line}");
        }
        ensure!(d.tollgate.status()? == before, "something has changed");
        Ok(())
    })
}

/// Sends a line over the socket as another user, by a program that knows nothing of Tollgate.
fn by_hand(d: &Deployment, uid: &str, group: Option<&str>, request: &str) -> Result<String> {
    // Who is turned away finds the answer before the question is out, as `client` does.
    const PROGRAM: &str = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
        try: s.sendall(sys.argv[2].encode()+b'\\n')\nexcept BrokenPipeError: pass\nprint(s.makefile().readline())";
    let output = command_as(uid, group, "/usr/bin/python3")
        .args(["-c", PROGRAM])
        .arg(socket(d))
        .arg(request)
        .stdin(Stdio::null())
        .output()?;
    Ok(said(&output))
}

#[test]
fn strangers_are_told_so() -> Result<()> {
    deployed(|d| {
        for (uid, group) in [(STRANGER, None), (STRANGER, Some(MEMBER))] {
            for command in ["status", "stats", "bans", "history"] {
                let output = tollgate_as(d, uid, group, &[command])?;
                let said = said(&output);
                ensure!(
                    output.status.code() == Some(1) && said.contains("--read-group"),
                    "{command}: {said}"
                );
            }
        }
        // Also where somebody has opened the socket by hand.
        let (run_dir, socket) = (d.tollgate.run_dir(), socket(d));
        let set = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        set(run_dir, 0o755)?;
        set(&socket, 0o666)?;
        let line = by_hand(d, STRANGER, None, r#"{"version":2,"command":"stats"}"#);
        set(&socket, 0o660)?;
        set(run_dir, 0o710)?;
        let line = line?;
        ensure!(line.contains("may not command this firewall"), "{line}");
        Ok(())
    })
}

#[test]
fn another_version_is_told_so() -> Result<()> {
    deployed(|d| {
        for version in ["1", "3", "4294967295"] {
            let mut stream = UnixStream::connect(socket(d))?;
            writeln!(stream, r#"{{"version":{version},"command":{{"something":"new"}}}}"#)?;
            let line = answer(&stream)?;
            ensure!(line.contains(&format!("version {version} ")), "{line}");
            ensure!(line.contains("use the same tollgate for both"), "{line}");
        }
        Ok(())
    })
}

#[test]
fn what_is_no_request_gets_a_sentence() -> Result<()> {
    deployed(|d| {
        let garbage: Vec<u8> = (0..=255_u8).filter(|byte| *byte != b'\n').collect();
        for (what, bytes) in [
            ("nothing", &b""[..]),
            ("half a request", br#"{"version":2,"comm"#),
            ("garbage", &garbage),
            ("another command", b"{\"version\":2,\"command\":\"fly\"}"),
        ] {
            let mut stream = UnixStream::connect(socket(d))?;
            stream.write_all(bytes)?;
            stream.shutdown(Shutdown::Write)?;
            let line = answer(&stream)?;
            let parsed: Value = serde_json::from_str(&line).with_context(|| format!("{what}: {line}"))?;
            ensure!(parsed.get("bad-input").is_some(), "{what}: {line}");
        }
        // A whole request and the end of it, without a newline.
        let mut stream = UnixStream::connect(socket(d))?;
        stream.write_all(br#"{"version":2,"command":"status"}"#)?;
        stream.shutdown(Shutdown::Write)?;
        ensure!(answer(&stream)?.starts_with(r#"{"status":"#), "half-closed");
        works(d, "after garbage")
    })
}

#[test]
fn a_request_without_an_end_is_cut_off() -> Result<()> {
    deployed(|d| {
        let mut stream = UnixStream::connect(socket(d))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let chunk = vec![b'{'; 1 << 20];
        // A GiB is offered; a MiB is taken.
        let mut sent = 0_u64;
        while sent < 1 << 30 && stream.write_all(&chunk).is_ok() {
            sent += chunk.len() as u64;
        }
        ensure!(sent < 16 << 20, "{sent} bytes were taken");
        let mut line = String::new();
        // The daemon has hung up on what it did not read; what it said before is there.
        let _ = BufReader::new(&stream).read_line(&mut line);
        ensure!(line.contains("at most 1048576 bytes"), "{line}");
        works(d, "after a GiB")
    })
}

#[test]
fn slow_clients_and_a_thousand_connections_keep_nobody_out() -> Result<()> {
    deployed(|d| {
        // A member of the group: a thousand connections that say nothing, and more that say a byte at a time.
        const PROGRAM: &str = "import socket,sys,time\nheld=[]\n\
            while len(held)<1000:\n s=socket.socket(socket.AF_UNIX)\n s.settimeout(5)\n \
            try:\n  s.connect(sys.argv[1]); held.append(s)\n except BlockingIOError: time.sleep(0.01)\n\
            print(len(held),flush=True)\n\
            while True:\n for s in held:\n  \
            try: s.send(b'{')\n  except OSError: pass\n time.sleep(0.2)\n";
        let mut hostile = command_as(MEMBER, Some(READERS), "/usr/bin/python3")
            .args(["-c", PROGRAM])
            .arg(socket(d))
            .stdout(Stdio::piped())
            .spawn()?;
        let mut first = String::new();
        BufReader::new(hostile.stdout.take().context("no pipe")?).read_line(&mut first)?;
        let during = (|| {
            ensure!(first.trim() == "1000", "connected: {first}");
            // Another member, since one user has so many seats; and root.
            let begun = Instant::now();
            let other = tollgate_as(d, "4000003", Some(READERS), &["status"])?;
            ensure!(other.status.success(), "another member: {}", said(&other));
            let policy = d.write_policy("meanwhile.toml", &format!("{POLICY}# meanwhile\n"))?;
            let applied = d.tollgate.apply(&policy)?;
            ensure!(applied.status.success(), "root: {}", said(&applied));
            ensure!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
            Ok(())
        })();
        hostile.kill()?;
        hostile.wait()?;
        during?;
        // Root's own slow clients.
        let slow: Vec<_> = (0..20).map(|_| UnixStream::connect(socket(d))).collect::<Result<_, _>>()?;
        let policy = d.write_policy("beside.toml", &format!("{POLICY}# beside\n"))?;
        let applied = d.tollgate.apply(&policy)?;
        ensure!(applied.status.success(), "beside slow ones: {}", said(&applied));
        for stream in &slow {
            ensure!(answer(stream)?.contains("no whole request within"), "a slow client");
        }
        let mut rest = String::new();
        let last = slow.last().context("no client")?;
        last.set_read_timeout(Some(PATIENCE))?;
        ensure!((&*last).read_to_string(&mut rest)? == 0, "the daemon has not hung up: {rest}");
        thread::sleep(Duration::from_millis(100));
        works(d, "after them")
    })
}
