//! One namespace: how tests run processes and closures in it.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

/// A handle on a network namespace; it does not keep the namespace alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ns {
    name: String,
}

/// What an interface has received, by its own count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Frames.
    pub packets: u64,
    /// Their bytes, counted as the driver does.
    pub bytes: u64,
}

impl Ns {
    pub(super) const fn new(name: String) -> Self {
        Self { name }
    }

    /// The name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run in the namespace.
    ///
    /// By `nsenter`: `ip netns exec` mounts a fresh /sys, which hides the BPF file system. The process keeps
    /// the pid of the child, since entering a network namespace needs no fork.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs a process to its end; an exit code other than 0 is an error with what it wrote.
    pub fn run(&self, argv: &[&str]) -> Result<Output> {
        let output = self.output(argv)?;
        if !output.status.success() {
            bail!(
                "`{}` in {}: {}: {}",
                argv.join(" "),
                self.name,
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(output)
    }

    /// Runs a process to its end, whatever its exit code.
    pub fn output(&self, argv: &[&str]) -> Result<Output> {
        self.prepare(argv)?.output().with_context(|| format!("starting `{}`", argv.join(" ")))
    }

    /// Starts a process; dropping the lab kills what still runs.
    pub fn spawn(&self, argv: &[&str]) -> Result<Child> {
        self.prepare(argv)?.spawn().with_context(|| format!("starting `{}`", argv.join(" ")))
    }

    fn prepare(&self, argv: &[&str]) -> Result<Command> {
        let (program, args) = argv.split_first().context("an empty command")?;
        let mut command = self.command(program);
        command.args(args);
        Ok(command)
    }

    /// Runs a closure in a thread of its own that is in the namespace; sockets that it makes stay there.
    pub fn in_ns<T, F>(&self, work: F) -> Result<T>
    where
        T: Send,
        F: FnOnce() -> Result<T> + Send,
    {
        let file = File::open(self.path()).with_context(|| format!("namespace {}", self.name))?;
        let worker = || {
            setns(&file, CloneFlags::CLONE_NEWNET).context("setns")?;
            work()
        };
        thread::scope(|scope| scope.spawn(worker).join())
            .map_err(|_| anyhow!("a closure panicked in namespace {}", self.name))?
    }

    /// Writes sysctls; only those under `net.` belong to a namespace.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.in_ns(|| {
            for (key, value) in settings {
                let path = PathBuf::from("/proc/sys").join(key.replace('.', "/"));
                std::fs::write(&path, value).with_context(|| format!("{} = {value}", path.display()))?;
            }
            Ok(())
        })
    }

    /// Index of an interface in this namespace.
    pub fn ifindex(&self, interface: &str) -> Result<u32> {
        self.in_ns(|| {
            nix::net::if_::if_nametoindex(interface)
                .with_context(|| format!("no interface {interface} in {}", self.name))
        })
    }

    /// A link-local address as this namespace must name it: with the interface that leads there.
    pub fn link_local(&self, address: &str, interface: &str, port: u16) -> Result<SocketAddr> {
        let address: Ipv6Addr = address.parse().context("a link-local address")?;
        Ok(SocketAddrV6::new(address, port, 0, self.ifindex(interface)?).into())
    }

    /// What an interface has received since it exists.
    pub fn received(&self, interface: &str) -> Result<Received> {
        let output = self.run(&["ip", "-s", "-j", "link", "show", "dev", interface])?;
        let links: Value = serde_json::from_slice(&output.stdout).context("`ip -j`")?;
        let rx = links.pointer("/0/stats64/rx").context("`ip -s -j link` without stats64")?;
        let number = |key: &str| rx.get(key).and_then(Value::as_u64).context("not a number");
        Ok(Received { packets: number("packets")?, bytes: number("bytes")? })
    }
}
