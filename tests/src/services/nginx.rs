//! The real nginx with a configuration of the test's own: what the L7 proxy stands in the place of.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::TEMP_PREFIX;
use crate::lab::Ns;

/// It listens at once; a loaded machine needs some more.
const START: Duration = Duration::from_secs(30);

/// A running nginx; dropping it ends it.
#[derive(Debug)]
pub struct Nginx {
    server: Child,
    folder: TempDir,
}

impl Nginx {
    /// Starts one in a namespace, and waits until it takes connections at `ready`. `http` is what stands in the section of this name;
    /// everything that it writes is in a temporary folder.
    pub fn start(ns: &Ns, http: &str, ready: SocketAddr) -> Result<Self> {
        let prefix = format!("{TEMP_PREFIX}{}-nginx-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|what| format!("{what}_temp_path {};\n", at(what)))
            .collect();
        let text = format!(
            "daemon off;\nmaster_process off;\nuser root;\npid {};\nerror_log {} info;\nevents {{}}\nhttp {{\n\
             access_log {};\n{temporary}{http}}}\n",
            at("pid"),
            at("error.log"),
            at("access.log"),
        );
        fs::write(folder.path().join("nginx.conf"), text)?;
        let said = File::create(folder.path().join("said"))?;
        let server = ns
            .command("nginx")
            .args(["-e", &at("error.log"), "-p", &folder.path().display().to_string()])
            .args(["-c", &at("nginx.conf")])
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()
            .context("starting nginx (Debian: apt-get install nginx)")?;
        let mut nginx = Self { server, folder };
        let end = Instant::now() + START;
        while Instant::now() < end {
            if let Some(status) = nginx.server.try_wait()? {
                bail!("nginx ended at once ({status}): {}", nginx.log());
            }
            if ns.in_ns(|| Ok(TcpStream::connect_timeout(&ready, Duration::from_millis(500)).is_ok()))? {
                return Ok(nginx);
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("nginx did not listen within {START:?}: {}", nginx.log())
    }

    /// What it has complained of.
    pub fn log(&self) -> String {
        let text = |name: &str| fs::read_to_string(Path::new(self.folder.path()).join(name));
        ["said", "error.log"].map(|name| text(name).unwrap_or_default()).concat()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.server.id() as i32), Signal::SIGTERM);
        let end = Instant::now() + Duration::from_secs(5);
        while matches!(self.server.try_wait(), Ok(None)) {
            if Instant::now() > end {
                let _ = self.server.kill();
                let _ = self.server.wait();
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
