//! A real Docker engine in the lab: its daemon in the server's network namespace, with mounts, state and control groups of
//! its own, and containers of an image that is made here. It publishes ports as it does anywhere: by iptables, and a proxy.
//!
//! Nothing of the machine's own Docker, if it has one, is read or changed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::lab::{Host, Lab};
use crate::services::TEMP_PREFIX;
use crate::tollgate::workspace;

/// The daemon must answer within this time.
const START: Duration = Duration::from_secs(90);
/// It must end within this time after SIGTERM.
const STOP: Duration = Duration::from_secs(20);
/// No container lives for longer, in seconds, should nobody end it.
const LONGEST: &str = "600";
/// Read even if there is none for us: the trust key is written there.
const SETTINGS: &str = "/etc/docker";
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";
const IMAGE: &str = "lab:1";

/// The daemon's own mounts: what it would leave in /run, and what of the machine's settings it would read.
const APART: &str = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /etc/docker && exec \"$@\"";

/// An engine; dropping it ends its containers and itself.
#[derive(Debug)]
pub struct Docker {
    daemon: Child,
    tools: PathBuf,
    directory: TempDir,
    group: String,
    made_settings: bool,
}

impl Docker {
    /// Takes the lab's own container network away from the server, and starts an engine in its place.
    pub fn start(lab: &Lab) -> Result<Self> {
        let tools = workspace().join(".tools/docker");
        ensure!(
            tools.join("usr/sbin/dockerd").exists(),
            "there is no Docker engine: run `cargo xtask setup`"
        );
        let ns = lab.ns(Host::Server);
        ns.run(&["nft", "delete", "table", "ip", "docker"])?;
        ns.run(&["ip", "link", "del", "veth-ctr"])?;
        ns.run(&["ip", "link", "del", "docker0"])?;

        let prefix = format!("{TEMP_PREFIX}{}-docker-", std::process::id());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        // Somewhere to mount on; it stays empty.
        let made_settings = fs::create_dir(SETTINGS).is_ok();
        fs::write(directory.path().join("daemon.json"), "{}")?;
        let group = lab.id().to_owned();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let daemon = ns
            .command("unshare")
            .args(["--mount", "--propagation", "private", "--", "sh", "-c", APART, "sh"])
            .arg(tools.join("usr/sbin/dockerd"))
            .args([
                "--config-file",
                &at("daemon.json"),
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
            ])
            .args(["--pidfile", &at("pid"), "--host", &socket(&directory), "--storage-driver", "vfs"])
            .args(["--iptables=true", "--bip", "172.17.0.1/16", "--log-level", "warn"])
            .args(["--cgroup-parent", &format!("/{group}")])
            .env("PATH", path_with(&tools))
            .env("LD_LIBRARY_PATH", libraries(&tools))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(directory.path().join("log"))?)
            .spawn()
            .context("starting dockerd")?;
        let mut docker = Self { daemon, tools, directory, group, made_settings };
        docker.wait()?;
        docker.make_image()?;
        Ok(docker)
    }

    /// Starts a container that serves a page on its port 80, and publishes that; the page names the container's port.
    pub fn publish(&self, name: &str, port: u16) -> Result<()> {
        let serve = ["timeout", LONGEST, "/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/www"];
        let published = format!("{port}:80");
        let run = ["run", "--detach", "--name", name, "--publish", &published, IMAGE, "/bin/busybox"];
        self.checked(&[&run[..], &serve].concat())?;
        // Docker says that the container runs, not that its server listens.
        let end = Instant::now() + START;
        while !self.busybox(name, &["netstat", "-ltn"])?.contains(":80 ") {
            ensure!(Instant::now() < end, "nothing listens in {name} within {START:?}");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Runs an applet of busybox in a container, and gives what it prints.
    pub fn busybox(&self, name: &str, argv: &[&str]) -> Result<String> {
        let output = self.checked(&[&["exec", name, "/bin/busybox"][..], argv].concat())?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn client(&self, args: &[&str]) -> Result<Output> {
        let mut client = Command::new(self.tools.join("usr/bin/docker"));
        client.args([
            "--config",
            &self.directory.path().display().to_string(),
            "--host",
            &socket(&self.directory),
        ]);
        client.args(args).stdin(Stdio::null()).output().context("starting docker")
    }

    fn checked(&self, args: &[&str]) -> Result<Output> {
        let output = self.client(args)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "docker {}: {}\n{}", args.join(" "), said.trim(), self.log());
        Ok(output)
    }

    fn wait(&mut self) -> Result<()> {
        let end = Instant::now() + START;
        while Instant::now() < end {
            if let Some(status) = self.daemon.try_wait()? {
                bail!("dockerd ended at once ({status}): {}", self.log());
            }
            if self.client(&["version"])?.status.success() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
        bail!("dockerd did not answer within {START:?}: {}", self.log())
    }

    /// An image with nothing but busybox and a page.
    fn make_image(&self) -> Result<()> {
        let root = self.directory.path().join("image");
        for folder in ["bin", "www"] {
            fs::create_dir_all(root.join(folder))?;
        }
        fs::copy(self.tools.join("bin/busybox"), root.join("bin/busybox"))?;
        fs::write(root.join("www/index.html"), "this is port 80\n")?;
        let archive = self.directory.path().join("image.tar").display().to_string();
        let packed = Command::new("tar").args(["-cf", &archive, "-C"]).arg(&root).arg(".").status()?;
        ensure!(packed.success(), "tar: {packed}");
        self.checked(&["import", &archive, IMAGE]).map(drop)
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        // What matters comes last.
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Ok(output) = self.client(&["ps", "--all", "--quiet"]) {
            for id in String::from_utf8_lossy(&output.stdout).split_whitespace() {
                let _ = self.client(&["rm", "--force", id]);
            }
        }
        let _ = kill(Pid::from_raw(self.daemon.id() as i32), Signal::SIGTERM);
        let end = Instant::now() + STOP;
        while Instant::now() < end && matches!(self.daemon.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(50));
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        // Should the lab be gone already, and with it the daemon, containers still run.
        let end = Instant::now() + STOP;
        while !remove_groups(Path::new(CONTROL_GROUPS), &self.group) && Instant::now() < end {
            thread::sleep(Duration::from_millis(50));
        }
        if self.made_settings {
            let _ = fs::remove_dir(SETTINGS);
        }
    }
}

/// Ends what runs in the daemon's control groups and removes them: one in each hierarchy of version 1, or the one of version
/// 2. True if none is left.
fn remove_groups(root: &Path, group: &str) -> bool {
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut none_left = true;
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        let folder = hierarchy.join(group);
        for inner in fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let inside = fs::read_to_string(inner.join("cgroup.procs")).unwrap_or_default();
            for pid in inside.lines().filter_map(|line| line.parse().ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            // The files of a group go with it; only groups can be removed.
            let _ = fs::remove_dir(inner);
        }
        let _ = fs::remove_dir(&folder);
        none_left &= !folder.exists();
    }
    none_left
}

fn socket(directory: &TempDir) -> String {
    format!("unix://{}", directory.path().join("docker.sock").display())
}

/// The engine starts containerd, runc and its proxy by name.
fn path_with(tools: &Path) -> String {
    let own = ["usr/sbin", "usr/bin"].map(|folder| tools.join(folder).display().to_string());
    format!("{}:{}", own.join(":"), std::env::var("PATH").unwrap_or_default())
}

/// Folders of libraries that came with the engine, by architecture.
fn libraries(tools: &Path) -> String {
    let below = |folder: &str| fs::read_dir(tools.join(folder)).into_iter().flatten().flatten();
    let folders = below("lib").chain(below("usr/lib")).map(|entry| entry.path());
    let with_libraries = folders.filter(|folder| folder.to_string_lossy().ends_with("-linux-gnu"));
    with_libraries.map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":")
}
