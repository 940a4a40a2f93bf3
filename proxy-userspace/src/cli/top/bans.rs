//! What `top` knows of bans: lists them, and has them made and ended by `tollgate ban` and `tollgate unban`, so that refusals,
//! locks and the memory of bans are those of the commands.

use std::env;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use anyhow::{Context, Result};
use ipnet::IpNet;

use super::app::Banned;
use super::screen::{BAN_FOR, name};
use crate::cli::Global;
use crate::dataplane::{DataplaneError, first_bans};

/// Bans that are looked at: single addresses, and prefixes.
const MOST: usize = 200;

/// What `tollgate bans` is to say of those that are made here.
const WHY: &str = "--why=by a key in tollgate top";

/// Bans of one firewall.
#[derive(Debug)]
pub struct Bans {
    global: Global,
    running: Option<Receiver<String>>,
}

impl Bans {
    /// Those of this firewall.
    pub const fn new(global: Global) -> Self {
        Self { global, running: None }
    }

    /// The first of them.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn list(&self) -> Result<Vec<Banned>, DataplaneError> {
        let found = first_bans(&self.global.pins(), MOST)?;
        Ok(found.into_iter().map(|(source, left)| Banned { source, left }).collect())
    }

    /// Begins to ban a source.
    pub fn ban(&mut self, source: IpNet) {
        self.begin(vec![
            "ban".to_owned(),
            name(source),
            "--for".to_owned(),
            BAN_FOR.to_owned(),
            WHY.to_owned(),
        ]);
    }

    /// Begins to end a ban.
    pub fn unban(&mut self, source: IpNet) {
        self.begin(vec!["unban".to_owned(), name(source)]);
    }

    /// What came of it, once it is known.
    pub fn outcome(&mut self) -> Option<String> {
        let outcome = self.running.as_ref()?.try_recv().ok()?;
        self.running = None;
        Some(outcome)
    }

    /// In a thread of its own: it may have to wait for somebody else's change.
    fn begin(&mut self, args: Vec<String>) {
        let Global { bpffs, run_dir, state_dir } = &self.global;
        let what = args.first().cloned().unwrap_or_default();
        let child = env::current_exe().context("this program's own path").map(|own| {
            let mut command = Command::new(own);
            command.arg("--bpffs").arg(bpffs).arg("--run-dir").arg(run_dir).arg("--state-dir").arg(state_dir);
            command.args(&args).stdin(Stdio::null());
            command
        });
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let output = child.and_then(|mut command| command.output().context("starting it"));
            // Nobody asks any more once the view has ended.
            let _ = sender.send(told(&what, output));
        });
        self.running = Some(receiver);
    }
}

/// What the command said, in one line.
fn told(what: &str, output: Result<Output>) -> String {
    let first = |said: &[u8]| {
        let said = String::from_utf8_lossy(said).into_owned();
        let line = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned();
        line.trim_start_matches("error:").trim().to_owned()
    };
    match output {
        Ok(output) if output.status.success() => first(&output.stdout),
        Ok(output) => format!("{what}: {}", first(&output.stderr)),
        Err(error) => format!("{what}: {error:#}"),
    }
}
