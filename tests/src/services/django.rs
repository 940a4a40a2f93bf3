//! The real Django: a small project of the lab's own, served by gunicorn or by its development server. It notes each request as
//! an application sees it.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::TEMP_PREFIX;
use crate::lab::Ns;

/// The project, file by file.
const PROJECT: [(&str, &str); 4] = [
    ("manage.py", include_str!("django/manage.py")),
    ("lab_settings.py", include_str!("django/lab_settings.py")),
    ("lab_wsgi.py", include_str!("django/lab_wsgi.py")),
    ("lab_views.py", include_str!("django/lab_views.py")),
];
/// Where the project notes what it sees.
const SEEN: &str = "seen.jsonl";
/// Python starts within a second; a loaded machine needs some more.
const START: Duration = Duration::from_secs(60);

/// What serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// gunicorn with so many workers, and two minutes for a request.
    Gunicorn(u8),
    /// `manage.py runserver`.
    Development,
}

/// A running application; dropping it ends it.
#[derive(Debug)]
pub struct Django {
    ns: Ns,
    address: SocketAddr,
    server: Child,
    folder: TempDir,
    read: Mutex<usize>,
}

impl Django {
    /// Starts it at an address of the namespace; [`Self::wait`] is to follow.
    pub fn start(ns: &Ns, server: Server, address: SocketAddr) -> Result<Self> {
        let prefix = format!("{TEMP_PREFIX}{}-django-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        for (name, text) in PROJECT {
            fs::write(folder.path().join(name), text)?;
        }
        File::create(folder.path().join(SEEN))?;
        let bound = address.to_string();
        let argv = match server {
            Server::Gunicorn(workers) => vec![
                "gunicorn".to_owned(),
                format!("--workers={workers}"),
                "--timeout=120".to_owned(),
                format!("--bind={bound}"),
                "lab_wsgi:application".to_owned(),
            ],
            // One process, and the system's Python: another may come first on `PATH`.
            Server::Development => ["/usr/bin/python3", "manage.py", "runserver", "--noreload", &bound]
                .map(str::to_owned)
                .to_vec(),
        };
        let log = File::create(folder.path().join("log"))?;
        let (program, args) = argv.split_first().context("a program")?;
        let server = ns
            .command(program)
            .args(args)
            .current_dir(folder.path())
            .env("LAB_FOLDER", folder.path())
            .env("LAB_SEEN", folder.path().join(SEEN))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| {
                format!("starting {program} (Debian: apt-get install gunicorn python3-django)")
            })?;
        Ok(Self { ns: ns.clone(), address, server, folder, read: Mutex::new(0) })
    }

    /// Waits until it answers.
    pub fn wait(&mut self) -> Result<()> {
        let mut local = self.address;
        if local.ip().is_unspecified() {
            local.set_ip([127, 0, 0, 1].into());
        }
        let end = Instant::now() + START;
        while Instant::now() < end {
            if let Some(status) = self.server.try_wait()? {
                bail!("Django at {local} ended at once ({status}): {}", self.log());
            }
            let connect = || Ok(TcpStream::connect_timeout(&local, Duration::from_millis(500)).is_ok());
            if self.ns.in_ns(connect)? {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("Django at {local} did not listen within {START:?}: {}", self.log())
    }

    /// The requests that it has seen since this was last asked, in its own words.
    pub fn seen(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.folder.path().join(SEEN))?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let new = text.get(*read..).unwrap_or("");
        // What is being written now is for the next time.
        let whole = new.rfind('\n').map_or(0, |end| end + 1);
        *read += whole;
        let lines = new[..whole].lines();
        lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// What it has written to its standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Django {
    fn drop(&mut self) {
        // gunicorn ends its workers; the development server just ends.
        let _ = kill(Pid::from_raw(self.server.id() as i32), Signal::SIGINT);
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
