//! A terminal of its own for programs that draw on one: a shell in tmux, its screen as text. Called by the tests of `top` and by
//! the captures.

use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::lab::Ns;
use crate::services::TEMP_PREFIX;

/// Longer than anything takes on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A shell on a terminal, in a namespace, so that it goes when the lab goes. Dropping it ends it.
#[derive(Debug)]
pub struct Tmux {
    ns: Ns,
    folder: TempDir,
}

impl Tmux {
    /// Starts one of so many columns and rows.
    pub fn start(ns: &Ns, columns: u16, rows: u16) -> Result<Self> {
        let prefix = format!("{TEMP_PREFIX}{}-tmux-", std::process::id());
        let tmux = Self { ns: ns.clone(), folder: tempfile::Builder::new().prefix(&prefix).tempdir()? };
        let size = [columns.to_string(), rows.to_string()];
        tmux.tmux(&["new-session", "-d", "-x", &size[0], "-y", &size[1], "PS1='$ ' exec sh"])?;
        tmux.shows("$")?;
        Ok(tmux)
    }

    /// Types a command, and what shows its exit code.
    pub fn run(&self, command: &Command) -> Result<()> {
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        // What is typed must not look like what is printed.
        self.write(&format!("clear; {}; echo exi''t=$?", words.join(" ")))?;
        self.press("Enter")
    }

    /// Types a text as it is.
    pub fn write(&self, text: &str) -> Result<()> {
        self.tmux(&["send-keys", "-l", text]).map(drop)
    }

    /// Presses a key, by tmux's name for it.
    pub fn press(&self, key: &str) -> Result<()> {
        self.tmux(&["send-keys", key]).map(drop)
    }

    /// What is on the screen.
    pub fn screen(&self) -> Result<String> {
        let output = self.tmux(&["capture-pane", "-p"])?;
        String::from_utf8(output.stdout).context("the screen")
    }

    /// Waits until a text is on the screen; gives the screen.
    pub fn shows(&self, text: &str) -> Result<String> {
        self.comes(&format!("{text:?}"), |screen| screen.contains(text))
    }

    /// Waits until the screen is as it should be.
    pub fn comes(&self, what: &str, mut is_so: impl FnMut(&str) -> bool) -> Result<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen()?;
            if is_so(&screen) {
                return Ok(screen);
            }
            ensure!(Instant::now() < end, "{what} does not come on the screen:\n{screen}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// True if a program has the alternate screen, as full-screen programs do.
    pub fn is_taken_over(&self) -> Result<bool> {
        let output = self.tmux(&["display-message", "-p", "#{alternate_on}"])?;
        Ok(output.stdout.trim_ascii() == b"1")
    }

    fn tmux(&self, args: &[&str]) -> Result<Output> {
        let mut tmux = self.ns.command("tmux");
        // Nobody's settings, and UTF-8 whatever the locale.
        tmux.arg("-u").args(["-f", "/dev/null", "-S"]).arg(self.folder.path().join("socket")).args(args);
        let output = tmux.output().context("starting tmux (Debian: apt-get install tmux)")?;
        if !output.status.success() {
            bail!("tmux {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output)
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}
