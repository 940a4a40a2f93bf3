//! Builds the kernel programs and leaves them where the binary embeds them from. Called by `build`, `check`, `test`,
//! `demo` and `bench`.

use std::env::{self, consts};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process;
use crate::setup::Kit;
use crate::workspace::Workspace;

/// The package, whose binary has the same name.
pub const PACKAGE: &str = "proxy-ebpf";
const TARGET: &str = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// Builds the object; gives its path.
pub fn build(workspace: &Workspace, kit: &Kit) -> Result<PathBuf> {
    let mut cargo = cargo(workspace, kit);
    cargo.args(["build", "--quiet", "--release"]).args(selection());
    process::run(&mut cargo).context("the kernel programs could not be built")?;
    let built = target_dir(workspace).join(TARGET).join("release").join(PACKAGE);
    let object = workspace.object();
    publish(&built, &object)?;
    Ok(object)
}

/// The arguments that select the kernel programs for any command of cargo. `core` is built from source, as nobody
/// ships it for this target.
pub fn selection() -> [&'static str; 6] {
    ["--package", PACKAGE, "--target", TARGET, "-Z", "build-std=core"]
}

/// The cargo that belongs to the compiler of the kernel programs. It may be another than the user's, so nothing that
/// the user's cargo or rustup has set for itself may reach it.
pub fn cargo(workspace: &Workspace, kit: &Kit) -> Command {
    let mut cargo = Command::new(kit.compiler.program("cargo"));
    for (name, _) in env::vars_os() {
        if is_for_the_host(&name.to_string_lossy()) {
            cargo.env_remove(&name);
        }
    }
    let bin = kit.compiler.sysroot.join("bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(std::iter::once(bin).chain(env::split_paths(&path)));
    cargo
        .current_dir(&workspace.root)
        .env("PATH", path.unwrap_or_default())
        .env("RUSTC", kit.compiler.program("rustc"))
        // `-Z build-std`, and the intrinsics of the programs, on a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", target_dir(workspace))
        .env("CARGO_ENCODED_RUSTFLAGS", flags(workspace, &kit.linker.script));
    cargo
}

/// A folder apart from the host's: two cargos in one would wait for each other and disagree about what is fresh.
fn target_dir(workspace: &Workspace) -> PathBuf {
    workspace.target.join("bpf-build")
}

/// Encoded, since paths may contain blanks.
fn flags(workspace: &Workspace, linker: &Path) -> OsString {
    let mut script = OsString::from("-Clinker=");
    script.push(linker);
    let mut flags = vec![
        // The kernel wants types (BTF) and shows source lines in the verifier's log; both come from debug info.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // Compare-and-exchange and 32-bit jumps; kernel 5.12.
        "-Ctarget-cpu=v3".into(),
        // The linker generates the code. Headers lie at odd addresses: without this each field is put together from bytes.
        // The verifier allows such loads wherever the processor does, and says so where it does not.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".into(),
        // Whose registers a program may ask for; aya-ebpf chooses by this.
        format!("--cfg=bpf_target_arch=\"{}\"", consts::ARCH).into(),
        script,
        // With these, every checkout and user gets the same object.
        remap(workspace.root.as_os_str(), "."),
    ];
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cargo").into());
    flags.extend(env::var_os("CARGO_HOME").or(home).map(|registry| remap(&registry, "/cargo")));
    flags.join(OsStr::new("\u{1f}"))
}

fn remap(from: &OsStr, to: &str) -> OsString {
    let mut flag = OsString::from("--remap-path-prefix=");
    flag.push(from);
    flag.push("=");
    flag.push(to);
    flag
}

/// Whether a variable was meant for the host's build. What configures cargo's network, home and output stays.
fn is_for_the_host(name: &str) -> bool {
    const KEEP: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "CARGO_BUILD_JOBS",
    ];
    if name.starts_with("CARGO") {
        return !KEEP.iter().any(|kept| name.starts_with(kept));
    }
    name.starts_with("RUSTC")
        || ["RUSTFLAGS", "RUSTDOCFLAGS", "RUSTUP_TOOLCHAIN", "RUST_TARGET_PATH", "LD_LIBRARY_PATH", "OUT_DIR"]
            .contains(&name)
}

/// Puts the object in place, whole or not at all, and only if it differs: whatever embeds it is rebuilt when the
/// file's time changes.
fn publish(built: &Path, object: &Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("cargo left no {}", built.display()))?;
    ensure!(is_bpf(&bytes), "{} is not a BPF object", built.display());
    if fs::read(object).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    let fresh = object.with_extension(std::process::id().to_string());
    object
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&fresh, bytes))
        .and_then(|()| fs::rename(&fresh, object))
        .with_context(|| format!("could not write {}", object.display()))
}

/// Whether this is an ELF file whose `e_machine` is EM_BPF.
fn is_bpf(bytes: &[u8]) -> bool {
    const EM_BPF: u16 = 247;
    bytes.starts_with(b"\x7fELF") && bytes.get(18..20) == Some(&EM_BPF.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(machine: u16) -> Vec<u8> {
        let mut bytes = b"\x7fELF".to_vec();
        bytes.resize(18, 0);
        bytes.extend(machine.to_ne_bytes());
        bytes
    }

    #[test]
    fn leaves_an_unchanged_object_alone() -> Result<()> {
        let home = tempfile::tempdir()?;
        let (built, object) = (home.path().join("built"), home.path().join("bpf/tollgate.o"));
        fs::write(&built, elf(247))?;
        publish(&built, &object)?;
        let first = fs::metadata(&object)?.modified()?;
        publish(&built, &object)?;
        assert_eq!(fs::metadata(&object)?.modified()?, first);

        fs::write(&built, [elf(247), vec![1]].concat())?;
        publish(&built, &object)?;
        assert_eq!(fs::read(&object)?.last(), Some(&1));
        assert_eq!(fs::read_dir(home.path().join("bpf"))?.count(), 1);
        Ok(())
    }

    #[test]
    fn refuses_an_object_of_another_machine() -> Result<()> {
        let home = tempfile::tempdir()?;
        let (built, object) = (home.path().join("built"), home.path().join("bpf/tollgate.o"));
        fs::write(&built, elf(62))?;
        assert!(publish(&built, &object).is_err());
        assert!(!object.exists());
        Ok(())
    }

    #[test]
    fn keeps_network_settings_and_drops_the_hosts_toolchain() {
        for dropped in
            ["CARGO", "CARGO_TARGET_DIR", "CARGO_PKG_NAME", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN"]
        {
            assert!(is_for_the_host(dropped), "{dropped}");
        }
        for kept in
            ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_REGISTRIES_CRATES_IO_PROTOCOL", "RUSTUP_HOME", "PATH"]
        {
            assert!(!is_for_the_host(kept), "{kept}");
        }
    }
}
