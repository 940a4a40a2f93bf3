//! A real PostgreSQL cluster of its own, in a temporary directory, for one lab.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tempfile::TempDir;

use super::TEMP_PREFIX;
use crate::lab::{Host, Lab};

/// The operating system's user that the database runs as; PostgreSQL refuses root.
const USER: &str = "postgres";
const START: Duration = Duration::from_secs(20);

/// A running database server; dropping it stops it and removes its data.
#[derive(Debug)]
pub struct Postgres {
    server: Child,
    _directory: TempDir,
}

impl Postgres {
    /// Starts a fresh cluster in the server's namespace, on port 5432 of all addresses, with superuser `postgres`
    /// and no password for anyone: whether a query gets there is the packet filter's decision alone.
    pub fn start(lab: &Lab) -> Result<Self> {
        let directory =
            tempfile::Builder::new().prefix(&format!("{TEMP_PREFIX}{}-pg-", std::process::id())).tempdir()?;
        give_to_user(directory.path())?;
        let data = directory.path().join("data");
        fresh_cluster(&data)?;
        let log = fs::File::create(directory.path().join("log"))?;
        let server = lab
            .ns(Host::Server)
            .command("setpriv")
            .args(as_user())
            .arg(program("postgres")?)
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=*", "-c", "port=5432", "-c", "fsync=off"])
            .args(["-c", "shared_buffers=16MB", "-c", "max_connections=20", "-c", "jit=off"])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", directory.path().display()))
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting postgres")?;
        let mut postgres = Self { server, _directory: directory };
        postgres.wait(lab)?;
        Ok(postgres)
    }

    fn wait(&mut self, lab: &Lab) -> Result<()> {
        let address = SocketAddr::from(([127, 0, 0, 1], 5432));
        let end = Instant::now() + START;
        while Instant::now() < end {
            if let Some(status) = self.server.try_wait()? {
                bail!("postgres ended at once ({status}): {}", self.log());
            }
            let open = lab
                .ns(Host::Server)
                .in_ns(|| Ok(TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()))?;
            if open {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("postgres did not listen within {START:?}: {}", self.log())
    }

    fn log(&self) -> String {
        fs::read_to_string(self._directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Immediate shutdown: nothing in it is worth a checkpoint.
        let _ = kill(Pid::from_raw(self.server.id() as i32), Signal::SIGQUIT);
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            if !matches!(self.server.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A program of the newest installed server.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .collect();
    versions.sort_unstable();
    let found = versions
        .iter()
        .rev()
        .map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin/{name}")))
        .find(|path| path.exists());
    found.with_context(|| {
        format!("no `{name}` under /usr/lib/postgresql (Debian: apt-get install postgresql)")
    })
}

fn as_user() -> [String; 3] {
    [format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned()]
}

fn give_to_user(path: &Path) -> Result<()> {
    let user = User::from_name(USER)?
        .with_context(|| format!("no user {USER} (Debian: apt-get install postgresql)"))?;
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
        .with_context(|| format!("giving {} to {USER}", path.display()))
}

/// Puts a fresh cluster into `data`. The process makes one by initdb and copies it for every further lab.
fn fresh_cluster(data: &Path) -> Result<()> {
    static TEMPLATE: Mutex<Option<PathBuf>> = Mutex::new(None);

    let mut template = TEMPLATE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(template) = template.as_deref().filter(|path| path.exists()) {
        return checked(Command::new("cp").args(["-a", "--reflink=auto"]).arg(template).arg(data));
    }
    let directory = std::env::temp_dir().join(format!("{TEMP_PREFIX}{}-template", std::process::id()));
    fs::create_dir_all(&directory)?;
    give_to_user(&directory)?;
    let made = directory.join("data");
    checked(
        Command::new("setpriv")
            .args(as_user())
            .arg(program("initdb")?)
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--no-locale", "--encoding=UTF8"])
            .arg("-D")
            .arg(&made)
            .current_dir(&directory),
    )?;
    let mut access = fs::OpenOptions::new().append(true).open(made.join("pg_hba.conf"))?;
    writeln!(access, "host all all 0.0.0.0/0 trust\nhost all all ::/0 trust")?;
    checked(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&made).arg(data))?;
    *template = Some(made);
    crate::shared::at_exit(move || drop(fs::remove_dir_all(directory)));
    Ok(())
}

fn checked(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
