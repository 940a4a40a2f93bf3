//! A machine that boots by systemd, as the server of a lab: the shipped unit in it, the program under test, and a policy.
//!
//! It is the lab's server namespace with a systemd of its own as first process, by `machine.sh`; kernel and /usr are shared.
//! Its end takes its BPF file system away, and with that all enforcement: as a reboot does. Used by `tests/tests/boot.rs`.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::lab::{Host, Lab, Ns, UPLINK, is_alive, owner};
use crate::services::TEMP_PREFIX;
use crate::tollgate::{binary, workspace};

/// Whatever is waited for must come within this time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where control groups of version 2 may have their top.
const GROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Names of control groups begin with it; the owner's pid follows.
const PREFIX: &str = "tg";
const POLICY: &str = "policy.toml";
/// What a machine needs to know who root is.
const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
const USER_GROUPS: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";
/// All that boots: ours, the journal, and what looks when the network may be set up.
const TARGET: &str =
    "[Unit]\nDefaultDependencies=no\nWants=sysinit.target probe.service\nAfter=probe.service\n";
const PROBE: &str = "[Unit]\nDefaultDependencies=no\nAfter=network-pre.target\n[Service]\nType=oneshot\n\
                     RemainAfterExit=yes\nExecStart=/bin/sh -c \"tollgate status --json >/run/at-network-pre\"\n";
/// They would touch what is shared with the caller, or wait for what there is not.
const NOT_HERE: [&str; 12] = [
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-sysctl.service",
    "systemd-modules-load.service",
    "systemd-binfmt.service",
    "proc-sys-fs-binfmt_misc.automount",
    "systemd-random-seed.service",
    "systemd-hwdb-update.service",
    "systemd-firstboot.service",
    "systemd-networkd.service",
    "networking.service",
    "nftables.service",
];

/// A machine; dropping it ends everything in it.
#[derive(Debug)]
pub struct Machine {
    ns: Ns,
    directory: TempDir,
    group: String,
    running: Option<Child>,
}

impl Machine {
    /// Boots the lab's server with this policy in /etc/tollgate, and waits until all is started. `drop_in` adds to the unit.
    pub fn boot(lab: &Lab, policy: &str, drop_in: &str) -> Result<Self> {
        sweep();
        let prefix = format!("{TEMP_PREFIX}{}-machine-", std::process::id());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let group = format!("{}-machine", lab.id());
        let mut machine = Self { ns: lab.ns(Host::Server), directory, group, running: None };
        machine.furnish(drop_in)?;
        machine.write_policy(policy)?;
        machine.start()?;
        Ok(machine)
    }

    /// The power fails, and comes back: what is on the disk is there, and what was in the kernel is not.
    pub fn reboot(&mut self) -> Result<()> {
        self.power_off();
        let free = || {
            let link = self.ns.run(&["ip", "-d", "link", "show", "dev", UPLINK])?;
            Ok(!String::from_utf8_lossy(&link.stdout).contains("xdp"))
        };
        until("the kernel to take the programs of before away", free)?;
        self.start()
    }

    /// Writes the policy file.
    pub fn write_policy(&self, text: &str) -> Result<()> {
        let path = self.etc().join("tollgate").join(POLICY);
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    /// Adds to the unit, in place of what was added before; in force from the next boot on.
    pub fn write_drop_in(&self, text: &str) -> Result<()> {
        let folder = self.etc().join("systemd/system/tollgate.service.d");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("test.conf"), text).context("the drop-in")
    }

    /// Where the machine's `/var/lib/tollgate` is.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.path().join("var/lib/tollgate")
    }

    /// Runs a command in the machine to its end, whatever its exit code.
    pub fn output(&self, argv: &[&str]) -> Result<Output> {
        let first = self.first_process()?.to_string();
        let enter = ["--target", &first, "--mount", "--pid", "--net", "--ipc", "--uts", "--"];
        let mut command = std::process::Command::new("nsenter");
        command.args(enter).args(argv).stdin(Stdio::null()).env("SYSTEMD_PAGER", "");
        command.output().with_context(|| format!("starting `{}`", argv.join(" ")))
    }

    /// Runs a command that must succeed, and gives what it prints.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        let output = self.output(argv)?;
        let said = String::from_utf8_lossy(&output.stderr);
        let succeeded = output.status.success();
        ensure!(succeeded, "{}: {}: {}\n{}", argv.join(" "), output.status, said.trim(), self.journal());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A property of the unit, as `systemctl show` has it.
    pub fn property(&self, name: &str) -> Result<String> {
        let value = self.run(&["systemctl", "show", "--value", "--property", name, "tollgate.service"])?;
        Ok(value.trim().to_owned())
    }

    /// Waits until properties of the unit have these values.
    pub fn until_unit(&self, wanted: &[(&str, &str)]) -> Result<()> {
        let what = format!("{wanted:?}");
        let all = || {
            for (name, value) in wanted {
                if self.property(name)? != *value {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        until(&what, all).with_context(|| self.journal())
    }

    /// What the unit has said since the boot.
    pub fn journal(&self) -> String {
        let journal = self.output(&["journalctl", "--no-pager", "--output=short", "--unit=tollgate.service"]);
        let text = journal.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let early = |name: &str| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        text.unwrap_or_default() + &early("log") + &early("console")
    }

    fn etc(&self) -> PathBuf {
        self.directory.path().join("etc")
    }

    fn furnish(&self, drop_in: &str) -> Result<()> {
        let units = self.etc().join("systemd/system");
        let programs = self.directory.path().join("usr-local/bin");
        for folder in [&units.join("sysinit.target.wants"), &programs, &self.etc().join("tollgate")] {
            fs::create_dir_all(folder)?;
        }
        fs::create_dir_all(self.directory.path().join("var/lib"))?;
        fs::copy(binary()?, programs.join("tollgate")).context("the program under test")?;
        fs::copy(unit(), units.join("tollgate.service")).context("the unit")?;
        // As `systemctl enable` does.
        symlink("../tollgate.service", units.join("sysinit.target.wants/tollgate.service"))?;
        NOT_HERE.iter().try_for_each(|unit| symlink("/dev/null", units.join(unit)))?;
        self.write_drop_in(drop_in)?;
        for (name, text) in [
            ("systemd/system/default.target", TARGET),
            ("systemd/system/probe.service", PROBE),
            ("passwd", USERS),
            ("group", USER_GROUPS),
            ("machine-id", "0123456789abcdef0123456789abcdef\n"),
            ("os-release", "ID=lab\n"),
            ("fstab", ""),
        ] {
            fs::write(self.etc().join(name), text).with_context(|| name.to_owned())?;
        }
        // Where libraries are.
        fs::copy("/etc/ld.so.cache", self.etc().join("ld.so.cache")).map(drop).context("ld.so.cache")
    }

    fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.directory.path().join("log"))?;
        // Should this process end in any way, so does the machine.
        let mut command = self.ns.command("setpriv");
        command
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private", "--pid", "--uts"])
            .args(["--ipc", "--fork", "--kill-child", "--"])
            .arg(workspace().join("tests/src/machine.sh"))
            .arg(self.directory.path())
            .arg(&self.group)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.running = Some(command.spawn().context("starting a machine")?);
        let booted = || {
            // Nothing answers before systemd does.
            let output = self.first_process().and_then(|_| {
                self.output(&["systemctl", "show", "--value", "--property=ActiveState", "default.target"])
            });
            Ok(output.is_ok_and(|output| output.stdout.starts_with(b"active")))
        };
        until("the machine to boot", booted).with_context(|| self.journal())
    }

    /// systemd's pid, as it is known outside.
    fn first_process(&self) -> Result<u32> {
        let outside = self.running.as_ref().context("the machine is off")?.id();
        let children = fs::read_to_string(format!("/proc/{outside}/task/{outside}/children"))?;
        let first: u32 = children.trim().parse().context("the machine has no first process")?;
        let name = fs::read_to_string(format!("/proc/{first}/comm"))?;
        ensure!(name.trim() == "systemd", "the first process is {name}");
        Ok(first)
    }

    fn power_off(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.kill();
            let _ = running.wait();
        }
        let gone = until("the machine's processes to end", || Ok(remove_group(&self.group)));
        if let Err(error) = gone {
            eprintln!("{error}");
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.power_off();
    }
}

/// The unit that ships.
pub fn unit() -> PathBuf {
    workspace().join("packaging/systemd/tollgate.service")
}

/// Asks again until it is so.
pub fn until(what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        if so()? {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("waited {PATIENCE:?} in vain for {what}");
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Removes the control groups of machines whose test has been killed; the machines have ended with it.
fn sweep() {
    for top in GROUPS {
        for name in fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.file_name()) {
            let Some(name) = name.to_str().filter(|name| name.ends_with("-machine")) else { continue };
            if owner(name, PREFIX).is_some_and(|pid| !is_alive(pid)) {
                remove_group(name);
            }
        }
    }
}

/// Ends what runs in a control group and those below it, and removes them. True if none is left.
fn remove_group(name: &str) -> bool {
    let folders = GROUPS.map(|top| Path::new(top).join(name));
    folders.iter().for_each(|folder| empty(folder));
    !folders.iter().any(|folder| folder.exists())
}

fn empty(folder: &Path) {
    for inner in fs::read_dir(folder).into_iter().flatten().flatten() {
        if inner.file_type().is_ok_and(|kind| kind.is_dir()) {
            empty(&inner.path());
        }
    }
    let inside = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in inside.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    // The files of a group go with it; only groups can be removed.
    let _ = fs::remove_dir(folder);
}
