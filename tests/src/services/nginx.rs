//! The real nginx, with a configuration that the test writes: everything that it reads and writes is in a temporary folder.

use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::TEMP_PREFIX;
use crate::lab::Ns;

/// It starts at once; a loaded machine takes some more.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running nginx; dropping it ends it.
#[derive(Debug)]
pub struct Nginx {
    folder: TempDir,
    server: Child,
}

impl Nginx {
    /// Starts it in a namespace. `http` is what stands in its `http` block; `{dir}` in it is the folder that it may use.
    pub fn start(ns: &Ns, workers: u32, http: &str) -> Result<Self> {
        let prefix = format!("{TEMP_PREFIX}{}-nginx-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let dir = folder.path().display().to_string();
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("    {what}_temp_path {dir}/{what};\n"))
            .concat();
        // Not as another user, who could not read keys of the test.
        let text = format!(
            "user root;\ndaemon off;\nworker_processes {workers};\npid {dir}/pid;\nerror_log {dir}/error.log warn;\n\
             events {{ worker_connections 4096; }}\nhttp {{\naccess_log {dir}/access.log;\n{paths}{}\n}}\n",
            http.replace("{dir}", &dir)
        );
        let configuration = folder.path().join("nginx.conf");
        fs::write(&configuration, text)?;
        let said = File::create(folder.path().join("said.log"))?;
        let server = ns
            .command("nginx")
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&configuration)
            .arg("-e")
            .arg(folder.path().join("error.log"))
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()
            .context("`nginx` could not be started (Debian: apt-get install nginx)")?;
        let mut nginx = Self { folder, server };
        nginx.wait()?;
        Ok(nginx)
    }

    /// It writes its process number once it listens.
    fn wait(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while fs::read(self.folder.path().join("pid")).map_or(true, |pid| pid.is_empty()) {
            ensure!(self.server.try_wait()?.is_none(), "nginx ended: {}", self.log());
            ensure!(Instant::now() < end, "nginx does not start: {}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// What it said.
    pub fn log(&self) -> String {
        ["said.log", "error.log"]
            .map(|file| fs::read_to_string(self.folder.path().join(file)).unwrap_or_default())
            .concat()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it only if it is asked.
        if kill(Pid::from_raw(self.server.id().cast_signed()), Signal::SIGTERM).is_err() {
            let _ = self.server.kill();
        }
        let _ = self.server.wait();
    }
}
