//! Finds or installs a compiler that has the source of its own library, and the LLVM that it is linked with.
//!
//! `core` is not shipped compiled for the BPF target, so it is built from source, and from the source of the same
//! release. Called by `setup`; the choice itself is in `rustc`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Error, Result, anyhow};

use super::Options;
use super::apt::Apt;
use super::rustc::{Candidate, LLVM, Origin, Source, Version, choose};
use crate::process;

const STEP: &str = "compiler";

/// A compiler that can build the kernel programs.
#[derive(Debug)]
pub struct Compiler {
    /// `bin/rustc` and `bin/cargo` are below this folder.
    pub sysroot: PathBuf,
    /// The shared library that holds its LLVM, for the linker to use as well.
    pub llvm_library: PathBuf,
}

impl Compiler {
    /// A program of this compiler's distribution.
    pub fn program(&self, name: &str) -> PathBuf {
        self.sysroot.join("bin").join(name)
    }
}

/// Finds a compiler, and installs one if there is none.
pub fn ensure(options: &Options, apt: &mut Apt) -> Result<Compiler> {
    let refusals = match choose(&candidates()) {
        Ok(candidate) => return accept(candidate, options),
        Err(refusals) => refusals,
    };
    options
        .doing(STEP, "none here can build the kernel programs, which need the library's source and LLVM 22:");
    for refusal in &refusals {
        options.doing("", &format!("- {refusal}"));
    }
    if options.allow_rustup {
        add_rust_src(options).map_err(with_advice)?;
    } else {
        apt.install_compiler(options).map_err(with_advice)?;
    }
    match choose(&candidates()) {
        Ok(candidate) => accept(candidate, options),
        Err(refusals) => Err(with_advice(anyhow!("still no compiler will do:\n- {}", refusals.join("\n- ")))),
    }
}

/// What went wrong, and what someone can do whom we can't help.
fn with_advice(error: Error) -> Error {
    anyhow!(
        "{error:#}\n\
         The kernel programs need a Rust compiler with LLVM {LLVM} and the source of its library. Any of these gives one:\n\
         - rustup: rustup component add rust-src   (or let us do that: cargo xtask setup --allow-rustup)\n\
         - Debian 12: apt-get install rustc-web cargo-web rust-web-src\n\
         - Debian 13, Ubuntu: apt-get install rustc cargo rust-src   (if that rustc is 1.95 or newer)\n\
         Then run this again."
    )
}

fn accept(candidate: &Candidate, options: &Options) -> Result<Compiler> {
    let rustc = candidate.sysroot.join("bin/rustc");
    let llvm_library = llvm_library(&rustc)?;
    let version = candidate.version.as_ref().map(ToString::to_string).unwrap_or_default();
    options.found(
        STEP,
        &format!("{version}, {}, with its library's source: {}", candidate.origin, rustc.display()),
    );
    Ok(Compiler { sysroot: candidate.sysroot.clone(), llvm_library })
}

/// Every compiler on this machine. Looks into rustup's folder instead of asking rustup: that takes no process, and
/// can't make rustup fetch anything.
fn candidates() -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let mut add = |origin: Origin, sysroot: &Path| {
        // A toolchain may be a link, to another of rustup's or (by `rustup toolchain link`) to the distribution's.
        if let Ok(sysroot) = sysroot.canonicalize()
            && sysroot.join("bin/rustc").is_file()
            && found.iter().all(|known| known.sysroot != sysroot)
        {
            found.push(examine(origin, sysroot));
        }
    };
    for (name, folder) in rustup_toolchains() {
        add(Origin::of_toolchain(&name), &folder);
    }
    if let Some(sysroot) =
        env::var_os("CARGO").map(PathBuf::from).as_deref().and_then(|cargo| cargo.ancestors().nth(2))
    {
        add(if sysroot == Path::new("/usr") { Origin::Distribution } else { Origin::Running }, sysroot);
    }
    add(Origin::Distribution, Path::new("/usr"));
    found
}

fn rustup_toolchains() -> Vec<(String, PathBuf)> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".rustup")));
    let Some(folder) = home.and_then(|home| fs::read_dir(home.join("toolchains")).ok()) else {
        return Vec::new();
    };
    let mut toolchains: Vec<_> = folder
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        // Real folders before links, so that a toolchain goes by the name that it was installed under.
        .map(|(name, path)| (path.is_symlink(), name, path))
        .collect();
    toolchains.sort();
    toolchains.into_iter().map(|(_, name, path)| (name, path)).collect()
}

fn examine(origin: Origin, sysroot: PathBuf) -> Candidate {
    let source = source_of(&sysroot);
    let version = (source != Source::Missing)
        .then(|| {
            let mut rustc = Command::new(sysroot.join("bin/rustc"));
            rustc.arg("-vV").env_remove("LD_LIBRARY_PATH").current_dir("/");
            process::output(&mut rustc).and_then(|text| Version::parse(&text)).ok()
        })
        .flatten();
    Candidate { origin, has_cargo: sysroot.join("bin/cargo").is_file(), sysroot, source, version }
}

/// A distribution packages the source apart from the compiler, so the two can be of different releases; then it has
/// the tarball's `src/version`. rustup's component has only the library.
fn source_of(sysroot: &Path) -> Source {
    let source = sysroot.join("lib/rustlib/src/rust");
    if !source.join("library/core").is_dir() {
        return Source::Missing;
    }
    match fs::read_to_string(source.join("src/version")) {
        Ok(release) => Source::Release(release.trim().to_owned()),
        Err(_) => Source::Bundled,
    }
}

/// The LLVM that a compiler really loads. The loader is asked, since names and places differ between distributions
/// and other versions often lie beside the right one.
fn llvm_library(rustc: &Path) -> Result<PathBuf> {
    let mut ldd = Command::new("ldd");
    ldd.arg(rustc).env_remove("LD_LIBRARY_PATH").env("LC_ALL", "C");
    let listing = process::output(&mut ldd)?;
    let library = llvm_in(&listing).with_context(|| {
        format!(
            "{} does not load LLVM as a shared library, which the linker needs to share it",
            rustc.display()
        )
    })?;
    library.canonicalize().with_context(|| format!("{} is not there", library.display()))
}

/// The LLVM among the libraries that `ldd` lists.
fn llvm_in(listing: &str) -> Option<PathBuf> {
    listing.lines().find_map(|line| {
        let (name, rest) = line.trim().split_once(" => ")?;
        let path = rest.rsplit_once(" (")?.0;
        (name.starts_with("libLLVM") && path.starts_with('/')).then(|| path.into())
    })
}

/// Adds the source to the toolchain in use. Only with the user's word, since it changes what rustup has installed.
fn add_rust_src(options: &Options) -> Result<()> {
    let toolchain = env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "stable".to_owned());
    options
        .doing(STEP, &format!("rustup component add rust-src, for {toolchain}, as --allow-rustup permits"));
    let mut rustup = Command::new("rustup");
    process::run(rustup.args(["component", "add", "rust-src", "--toolchain", &toolchain]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_llvm_among_the_libraries() {
        let listing = "\tlinux-vdso.so.1 (0x00007fd7d1bd2000)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fd7cbe1e000)\n\
            \tlibLLVM.so.22.1 => /lib/x86_64-linux-gnu/libLLVM.so.22.1 (0x00007fd7c2e00000)\n";
        assert_eq!(llvm_in(listing), Some("/lib/x86_64-linux-gnu/libLLVM.so.22.1".into()));
    }

    #[test]
    fn finds_no_llvm_where_it_is_missing_or_static() {
        assert_eq!(llvm_in("\tlibLLVM.so.22.1 => not found\n"), None);
        assert_eq!(llvm_in("\tstatically linked\n"), None);
    }

    #[test]
    fn reads_the_release_of_packaged_source() -> Result<()> {
        let sysroot = tempfile::tempdir()?;
        assert_eq!(source_of(sysroot.path()), Source::Missing);
        let source = sysroot.path().join("lib/rustlib/src/rust");
        fs::create_dir_all(source.join("library/core"))?;
        assert_eq!(source_of(sysroot.path()), Source::Bundled);
        fs::create_dir_all(source.join("src"))?;
        fs::write(source.join("src/version"), "1.96.0\n")?;
        assert_eq!(source_of(sysroot.path()), Source::Release("1.96.0".into()));
        Ok(())
    }
}
