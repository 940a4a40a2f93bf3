//! `tollgate monitor --json`, started and listened to. Called by tests of events.

use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::tollgate::{Tollgate, lines_of};

/// Longer than anything takes on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A monitor that listens. Dropping it kills it.
#[derive(Debug)]
pub struct Monitor {
    child: Child,
    lines: Receiver<String>,
    said: Receiver<String>,
}

impl Monitor {
    /// Starts one with further arguments, and waits until it listens.
    pub fn start(tollgate: &Tollgate, args: &[&str]) -> Result<Self> {
        let mut command: Command = tollgate.command()?;
        command.args(["monitor", "--json"]).args(args);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let lines = lines_of(child.stdout.take().context("no pipe")?);
        let said = lines_of(child.stderr.take().context("no pipe")?);
        let monitor = Self { child, lines, said };
        monitor.says("listening")?;
        Ok(monitor)
    }

    /// Waits until it says something with this in it, on standard error.
    pub fn says(&self, wanted: &str) -> Result<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.said.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(wanted) => return Ok(line),
                Ok(line) => ensure!(!line.contains("error"), "{line}"),
                Err(error) => bail!("the monitor did not say {wanted:?}: {error}"),
            }
        }
    }

    /// The next event, as soon as there is one.
    pub fn event(&self) -> Result<Value> {
        let line = self.lines.recv_timeout(PATIENCE).context("no event")?;
        serde_json::from_str(&line).with_context(|| line)
    }

    /// Events that have come and not been taken.
    pub fn pending(&self) -> Result<Vec<Value>> {
        self.lines.try_iter().map(|line| serde_json::from_str(&line).with_context(|| line)).collect()
    }

    /// Waits until it ends by itself; gives the exit code and the events that were left.
    pub fn ended(mut self) -> Result<(Option<i32>, Vec<Value>)> {
        let end = Instant::now() + PATIENCE;
        let mut events = Vec::new();
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => events.push(serde_json::from_str(&line)?),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("the monitor did not end within {PATIENCE:?}"),
            }
        }
        Ok((self.child.wait()?.code(), events))
    }

    /// Ctrl-C, and what comes of it.
    pub fn interrupt(self) -> Result<(Option<i32>, Vec<Value>)> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT)?;
        self.ended()
    }

    /// SIGKILL: no time for a word.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
