//! The program under test: started in the server's namespace, asked, killed, and cleared away.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::counters::Stats;
use crate::lab::{Host, Lab, Ns, UPLINK};
use crate::services::TEMP_PREFIX;

/// Directories of pins of test runs begin with it; the owner's pid follows.
pub const PINS_PREFIX: &str = "tg-test-";
/// The daemon must enforce within this time: verifying takes seconds of one processor, which others may want too. One that
/// ends is noticed at once.
const START: Duration = Duration::from_secs(90);
/// The counters must come to rest within this time.
const REST: Duration = Duration::from_secs(30);
/// The daemon must end within this time after SIGTERM.
const STOP: Duration = Duration::from_secs(30);

/// A daemon with pins and a run directory of its own. Dropping it detaches and stops.
#[derive(Debug)]
pub struct Tollgate {
    ns: Ns,
    bpffs: PathBuf,
    run_dir: TempDir,
    state_dir: TempDir,
    policy: PathBuf,
    extra: Vec<String>,
    daemon: Option<Child>,
    announcement: String,
}

impl Tollgate {
    /// Starts `tollgate run` on the server and waits until it says that it enforces `policy`.
    pub fn start(lab: &Lab, policy: &Path, extra: &[&str]) -> Result<Self> {
        let mut tollgate = Self::prepare(lab, policy, extra)?;
        tollgate.restart()?;
        Ok(tollgate)
    }

    /// Everything but the start.
    pub fn prepare(lab: &Lab, policy: &Path, extra: &[&str]) -> Result<Self> {
        static INSTANCES: AtomicU32 = AtomicU32::new(0);

        binary()?;
        let instance = INSTANCES.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        // As the daemon makes them.
        let folder = |what| {
            let private = fs::Permissions::from_mode(0o700);
            tempfile::Builder::new()
                .permissions(private)
                .prefix(&format!("{TEMP_PREFIX}{pid}-{what}-"))
                .tempdir()
        };
        let (run_dir, state_dir) = (folder("run")?, folder("state")?);
        Ok(Self {
            ns: lab.ns(Host::Server),
            bpffs: PathBuf::from(format!("/sys/fs/bpf/{PINS_PREFIX}{pid}-{instance}")),
            run_dir,
            state_dir,
            policy: policy.to_owned(),
            extra: extra.iter().map(|arg| (*arg).to_owned()).collect(),
            daemon: None,
            announcement: String::new(),
        })
    }

    /// Starts the daemon again, with the same pins and run directory.
    pub fn restart(&mut self) -> Result<()> {
        let lines = self.spawn()?;
        match wait_for_enforcing(&lines) {
            Ok(line) => self.announcement = line,
            Err(error) => {
                self.kill()?;
                return Err(error.context(format!("tollgate's log: {}", self.log())));
            }
        }
        Ok(())
    }

    /// The same without waiting for anything: for who ends it before it enforces.
    pub fn launch(&mut self) -> Result<()> {
        self.spawn().map(drop)
    }

    fn spawn(&mut self) -> Result<Receiver<String>> {
        ensure!(self.daemon.is_none(), "the daemon still runs");
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut daemon = self
            .command()?
            .args(["run", "--policy"])
            .arg(&self.policy)
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("starting tollgate")?;
        let lines = lines_of(daemon.stdout.take().context("no pipe from tollgate")?);
        self.daemon = Some(daemon);
        Ok(lines)
    }

    /// The daemon's process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// A command of this firewall: `tollgate --bpffs DIR --run-dir DIR --state-dir DIR …`, in the server's namespace.
    pub fn command(&self) -> Result<Command> {
        let mut command = self.bare_command()?;
        command.args(self.directories());
        Ok(command)
    }

    /// `tollgate` in the server's namespace without any argument.
    pub fn bare_command(&self) -> Result<Command> {
        Ok(self.ns.command(binary()?))
    }

    /// The global flags that name this firewall.
    pub fn directories(&self) -> [String; 6] {
        [
            "--bpffs".to_owned(),
            self.bpffs.display().to_string(),
            "--run-dir".to_owned(),
            self.run_dir.path().display().to_string(),
            "--state-dir".to_owned(),
            self.state_dir.path().display().to_string(),
        ]
    }

    /// Runs a command to its end, whatever its exit code.
    pub fn output(&self, args: &[&str]) -> Result<Output> {
        self.command()?.args(args).stdin(Stdio::null()).output().context("starting tollgate")
    }

    /// The same with something to read.
    pub fn output_of(&self, args: &[&str], input: &[u8]) -> Result<Output> {
        let mut command = self.command()?;
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting tollgate")?;
        // One that refuses its arguments reads nothing.
        let _ = child.stdin.take().context("no pipe to tollgate")?.write_all(input);
        Ok(child.wait_with_output()?)
    }

    /// Asks the daemon to change to another policy. With force: the services of the lab run in this process, and their clients
    /// look like the session that the command runs in.
    pub fn apply(&self, policy: &Path) -> Result<Output> {
        self.command()?.args(["apply", "--force"]).arg(policy).output().context("starting tollgate apply")
    }

    /// The counters.
    pub fn stats(&self) -> Result<Stats> {
        Stats::parse(&self.json("stats")?)
    }

    /// What is enforced where.
    pub fn status(&self) -> Result<Value> {
        self.json("status")
    }

    /// Hook and mode on the uplink, as `status` names them.
    pub fn hook_and_mode(&self) -> Result<(String, String)> {
        let status = self.status()?;
        let interfaces = status.get("interfaces").and_then(Value::as_array);
        let uplink = interfaces
            .and_then(|all| all.iter().find(|one| one.get("name") == Some(&UPLINK.into())))
            .with_context(|| format!("no {UPLINK} in {status}"))?;
        let text = |key: &str| {
            let found = uplink.get(key).and_then(Value::as_str);
            found.map(str::to_owned).with_context(|| format!("no {key} in {status}"))
        };
        Ok((text("hook")?, text("mode")?))
    }

    /// The counters once nothing is on its way any more: two readings in a row say the same.
    pub fn settled_stats(&self) -> Result<Stats> {
        self.settled_with(|| Ok(())).map(|(stats, ())| stats)
    }

    /// The counters once nothing is on its way any more, with something else that was read while they were at rest.
    pub fn settled_with<T>(&self, read: impl Fn() -> Result<T>) -> Result<(Stats, T)> {
        let end = Instant::now() + REST;
        let mut last = self.stats()?;
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(40));
            let other = read()?;
            let now = self.stats()?;
            if now == last {
                return Ok((now, other));
            }
            last = now;
        }
        bail!("the counters did not come to rest within {REST:?}")
    }

    /// What a command says for programs.
    pub fn json(&self, command: &str) -> Result<Value> {
        let output = self.checked(&[command, "--json"])?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{command} --json: {}", String::from_utf8_lossy(&output.stdout)))
    }

    /// Runs a command that must succeed.
    pub fn checked(&self, args: &[&str]) -> Result<Output> {
        let output = self.output(args)?;
        if !output.status.success() {
            bail!(
                "tollgate {}: {}: {}",
                args.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(output)
    }

    /// Removes enforcement.
    pub fn detach(&self) -> Result<()> {
        self.checked(&["detach"]).map(drop)
    }

    /// SIGKILL: the daemon has no time for anything.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill()?;
            daemon.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and the exit code that follows.
    pub fn terminate(&mut self) -> Result<Option<i32>> {
        let mut daemon = self.daemon.take().context("no daemon runs")?;
        kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM)?;
        let end = Instant::now() + STOP;
        while Instant::now() < end {
            if let Some(status) = daemon.try_wait()? {
                return Ok(status.code());
            }
            thread::sleep(Duration::from_millis(10));
        }
        daemon.kill()?;
        daemon.wait()?;
        bail!("tollgate did not end within {STOP:?} after SIGTERM")
    }

    /// The line by which the daemon said that it enforces.
    pub fn announcement(&self) -> &str {
        &self.announcement
    }

    /// Where its pins are.
    pub fn pins(&self) -> &Path {
        &self.bpffs
    }

    /// Its run directory.
    pub fn run_dir(&self) -> &Path {
        self.run_dir.path()
    }

    /// Where it keeps what outlives a reboot.
    pub fn state_dir(&self) -> &Path {
        self.state_dir.path()
    }

    /// What the daemon has written to its standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.run_dir.path().join("daemon.log")
    }
}

impl Drop for Tollgate {
    fn drop(&mut self) {
        let _ = self.output(&["detach"]);
        if self.daemon.is_some() {
            let _ = self.terminate();
        }
        // Whatever detach has left would keep programs and maps in the kernel.
        let _ = fs::remove_dir_all(&self.bpffs);
    }
}

/// The program under test: `$TOLLGATE_BIN`, else what `cargo xtask build` leaves.
pub fn binary() -> Result<PathBuf> {
    let path = std::env::var_os("TOLLGATE_BIN")
        .map_or_else(|| workspace().join("target/release/tollgate"), PathBuf::from);
    ensure!(
        path.is_file(),
        "there is no tollgate at {}: run `cargo xtask build`, or set TOLLGATE_BIN",
        path.display()
    );
    path.canonicalize().context("tollgate's path")
}

/// The top of the source tree.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// Lines of a child's pipe; the thread reads on, so that the child never blocks on a full one.
pub(crate) fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            // The pipe is emptied also when nobody listens.
            let _ = sender.send(line);
        }
    });
    receiver
}

fn wait_for_enforcing(lines: &Receiver<String>) -> Result<String> {
    let end = Instant::now() + START;
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line.contains("enforcing") => return Ok(line),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => bail!("tollgate did not enforce within {START:?}"),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(anyhow!("tollgate ended before it enforced"));
            }
        }
    }
}
