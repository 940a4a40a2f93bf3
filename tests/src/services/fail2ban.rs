//! The real fail2ban with a jail of its own: everything that it reads and writes is in a temporary folder.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::TEMP_PREFIX;
use crate::lab::Ns;
use crate::tollgate::{Tollgate, binary, workspace};

/// The action that ships.
const ACTION: &str = "packaging/fail2ban/action.d/tollgate.conf";
/// The jail, which is also what the ban says.
pub const JAIL: &str = "lab";
/// Failures that are too many.
pub const FAILURES: u32 = 3;
/// Its start takes a second; a loaded machine some more.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running fail2ban; dropping it ends it.
#[derive(Debug)]
pub struct Fail2ban {
    ns: Ns,
    folder: TempDir,
    server: Child,
}

impl Fail2ban {
    /// Starts it in the server's namespace, with a jail that bans by this firewall for `bantime` seconds.
    pub fn start(ns: &Ns, tollgate: &Tollgate, bantime: u64) -> Result<Self> {
        let prefix = format!("{TEMP_PREFIX}{}-fail2ban-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let place = |name: &str| folder.path().join(name);
        for name in ["action.d", "filter.d"] {
            fs::create_dir(place(name))?;
        }
        fs::copy(workspace().join(ACTION), place("action.d/tollgate.conf")).context(ACTION)?;
        let filter = "[Definition]\ndatepattern = ^Epoch\nfailregex = ^ failed login from <ADDR>$\n";
        fs::write(place("filter.d/lab.conf"), filter)?;
        fs::write(place("service.log"), "")?;
        let main = format!(
            "[Definition]\nloglevel = INFO\nlogtarget = {}\nsyslogsocket = auto\nsocket = {}\npidfile = {}\n\
             dbfile = {}\ndbpurgeage = 1d\ndbmaxmatches = 10\nallowipv6 = auto\n[Thread]\nstacksize = 0\n",
            place("fail2ban.log").display(),
            place("socket").display(),
            place("pid").display(),
            place("bans.sqlite3").display(),
        );
        fs::write(place("fail2ban.conf"), main)?;
        let jail = format!(
            "[DEFAULT]\nignoreself = false\nusedns = no\nbackend = polling\nfindtime = 600\nmaxretry = {FAILURES}\n\
             bantime = {bantime}\n[{JAIL}]\nenabled = true\nfilter = lab\nlogpath = {}\n\
             action = tollgate[tollgate=\"{}\", options=\"{}\"]\n",
            place("service.log").display(),
            binary()?.display(),
            tollgate.directories().join(" "),
        );
        fs::write(place("jail.conf"), jail)?;
        let said = File::create(place("server.log"))?;
        let server = ns
            .command("fail2ban-server")
            .arg("-c")
            .arg(folder.path())
            .arg("-s")
            .arg(place("socket"))
            .arg("-p")
            .arg(place("pid"))
            .args(["-f", "-x", "start"])
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()
            .context("starting fail2ban-server (Debian: apt-get install fail2ban)")?;
        let fail2ban = Self { ns: ns.clone(), folder, server };
        fail2ban.wait_until_ready()?;
        Ok(fail2ban)
    }

    /// What a service writes when `count` logins from an address have failed.
    pub fn fail(&self, from: IpAddr, count: u32) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut log = OpenOptions::new().append(true).open(self.folder.path().join("service.log"))?;
        for _ in 0..count {
            writeln!(log, "{now} failed login from {from}")?;
        }
        Ok(())
    }

    /// Asks the server, as an operator does.
    pub fn client(&self, args: &[&str]) -> Result<String> {
        let mut command = self.ns.command("fail2ban-client");
        command.arg("-c").arg(self.folder.path()).arg("-s").arg(self.folder.path().join("socket")).args(args);
        let output = command.output().context("starting fail2ban-client")?;
        ensure!(
            output.status.success(),
            "fail2ban-client {}: {}{}; its log: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        ["server.log", "fail2ban.log"]
            .map(|name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default())
            .concat()
    }

    /// SIGTERM; it ends its bans.
    pub fn terminate(&mut self) -> Result<()> {
        kill(Pid::from_raw(self.server.id() as i32), Signal::SIGTERM)?;
        let end = Instant::now() + PATIENCE;
        while self.server.try_wait()?.is_none() {
            ensure!(Instant::now() < end, "fail2ban does not end: {}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn wait_until_ready(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if self.client(&["status", JAIL]).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
        bail!("fail2ban did not start its jail: {}", self.log())
    }
}

impl Drop for Fail2ban {
    fn drop(&mut self) {
        if matches!(self.server.try_wait(), Ok(None)) && self.terminate().is_err() {
            let _ = self.server.kill();
            let _ = self.server.wait();
        }
    }
}
