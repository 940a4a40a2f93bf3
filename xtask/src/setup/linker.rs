//! Gets bpf-linker, and binds it to the one LLVM that may be used with it. Called by `setup`.
//!
//! The linker loads the first file named `libLLVM*` that it meets in `LD_LIBRARY_PATH` and then beside `PATH`; an
//! older LLVM in any of those folders makes it crash. So rustc is given a script as its linker, which sets that
//! variable, for the linker alone, to a folder that holds one symbolic link. Setting it for cargo instead would not
//! do: cargo puts folders of its own before it.
//!
//! The linker itself takes a minute to compile and is the same for all checkouts, so it is kept in the cache outside
//! of them. The script and the link belong to a checkout and its compiler, and lie in `.tools`.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Compiler, Options};
use crate::process;
use crate::workspace::{Workspace, cache, host_cargo};

/// Its LLVM is `rustc::LLVM`; the two change together.
const VERSION: &str = "0.10.3";
const STEP: &str = "linker";

/// The linker, bound to its LLVM.
#[derive(Debug)]
pub struct Linker {
    /// What rustc calls.
    pub script: PathBuf,
}

/// Finds the linker, or compiles it, and binds it to the compiler's LLVM.
pub fn ensure(workspace: &Workspace, compiler: &Compiler, options: &Options) -> Result<Linker> {
    let cache = cache()?;
    let folder = cache.join(format!("tools/bpf-linker-{VERSION}"));
    let program = folder.join("bin/bpf-linker");
    if !is_wanted_version(&program) {
        install(&cache, &folder, &program, options)?;
    }
    options.found(STEP, &format!("bpf-linker {VERSION}: {}", program.display()));

    let bound = workspace.tools().join(format!("bpf-linker-{VERSION}"));
    let llvm = bound.join("llvm");
    link_only(&llvm, &compiler.llvm_library)?;
    let script = bound.join("bpf-linker");
    write_script(&script, &program, &llvm)?;
    options.found(
        "LLVM",
        &format!("the compiler's own, for the linker too: {}", compiler.llvm_library.display()),
    );
    Ok(Linker { script })
}

fn is_wanted_version(program: &Path) -> bool {
    let says = process::output(Command::new(program).arg("--version").env_remove("LD_LIBRARY_PATH"));
    says.is_ok_and(|text| text.split_whitespace().eq(["bpf-linker", VERSION]))
}

fn install(cache: &Path, folder: &Path, program: &Path, options: &Options) -> Result<()> {
    fs::create_dir_all(cache).with_context(|| format!("could not make {}", cache.display()))?;
    // Two checkouts may be set up at the same time; the second then finds the first one's work.
    let lock = File::create(cache.join("lock")).and_then(|file| file.lock().map(|()| file));
    let _lock = lock.with_context(|| format!("could not lock {}", cache.display()))?;
    if is_wanted_version(program) {
        return Ok(());
    }
    options.doing(
        STEP,
        &format!("compiling bpf-linker {VERSION} into {} (about a minute, once): rustc needs it for the BPF target", folder.display()),
    );
    let mut cargo = host_cargo();
    cargo
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force", "--quiet", "--root"])
        .arg(folder)
        // Settings of the checkout are not meant for this.
        .current_dir(cache)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    process::run(&mut cargo).with_context(|| {
        format!("bpf-linker {VERSION} could not be compiled; it needs the crates.io registry and a C linker (Debian: apt-get install gcc libc6-dev)")
    })?;
    ensure!(is_wanted_version(program), "{} is not bpf-linker {VERSION}", program.display());
    Ok(())
}

/// Makes `folder` hold one symbolic link, to `library`, and nothing else.
fn link_only(folder: &Path, library: &Path) -> Result<()> {
    const NAME: &str = "libLLVM.so";
    fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    let link = folder.join(NAME);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() != NAME {
            fs::remove_file(entry.path())
                .with_context(|| format!("{} does not belong here", entry.path().display()))?;
        }
    }
    if fs::read_link(&link).ok().as_deref() != Some(library) {
        // Put in place by a rename, since another build of this checkout may be linking now.
        let fresh = folder.with_extension(std::process::id().to_string());
        symlink(library, &fresh)
            .and_then(|()| fs::rename(&fresh, &link))
            .with_context(|| format!("could not make the link {}", link.display()))?;
    }
    Ok(())
}

fn write_script(script: &Path, program: &Path, llvm: &Path) -> Result<()> {
    let text = format!(
        "#!/bin/sh\n# Written by `cargo xtask setup`: the linker must meet no other LLVM than the compiler's.\n\
         LD_LIBRARY_PATH={} exec {} \"$@\"\n",
        quoted(llvm)?,
        quoted(program)?
    );
    if fs::read_to_string(script).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let fresh = script.with_extension(std::process::id().to_string());
    fs::write(&fresh, text)
        .and_then(|()| fs::set_permissions(&fresh, Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&fresh, script))
        .with_context(|| format!("could not write {}", script.display()))
}

/// A path as one word of a shell script.
fn quoted(path: &Path) -> Result<String> {
    let path = path.to_str().with_context(|| format!("{} is not valid UTF-8", path.display()))?;
    ensure!(!path.contains(':'), "{path}: a folder with a colon can't be part of a search path");
    Ok(format!("'{}'", path.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_paths_for_the_shell() -> Result<()> {
        assert_eq!(quoted(Path::new("/a b/c"))?, "'/a b/c'");
        assert_eq!(quoted(Path::new("/it's"))?, r"'/it'\''s'");
        assert!(quoted(Path::new("/a:b")).is_err());
        Ok(())
    }

    #[test]
    fn leaves_one_link_whatever_was_there() -> Result<()> {
        let home = tempfile::tempdir()?;
        let llvm = home.path().join("llvm");
        fs::create_dir(&llvm)?;
        fs::write(llvm.join("libLLVM-14.so"), "a trap")?;
        symlink("/elsewhere", llvm.join("libLLVM.so"))?;
        for library in ["/one/libLLVM.so.22.1", "/other/libLLVM.so.22.1"].map(Path::new) {
            link_only(&llvm, library)?;
            let names: Vec<_> = fs::read_dir(&llvm)?.flatten().map(|entry| entry.file_name()).collect();
            assert_eq!(names, ["libLLVM.so"]);
            assert_eq!(fs::read_link(llvm.join("libLLVM.so"))?, library);
        }
        Ok(())
    }

    #[test]
    fn script_gives_the_linker_one_llvm() -> Result<()> {
        let home = tempfile::tempdir()?;
        let script = home.path().join("bpf-linker");
        write_script(&script, Path::new("/usr/bin/env"), Path::new("/only/here"))?;
        let told = process::output(Command::new(&script).env("LD_LIBRARY_PATH", "/usr/lib"))?;
        assert!(told.lines().any(|line| line == "LD_LIBRARY_PATH=/only/here"), "{told}");
        Ok(())
    }
}
