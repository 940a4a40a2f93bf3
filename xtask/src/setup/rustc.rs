//! Which of several compilers builds the kernel programs: the facts about each, and the choice.
//!
//! Pure; `compiler` gathers the facts and acts on the choice.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// The LLVM that the pinned linker understands. A compiler writes bitcode that only a linker with the same LLVM
/// reads reliably.
pub const LLVM: u32 = 22;

/// What `rustc -vV` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// For instance `1.96.0` or `1.97.0-nightly`.
    pub release: String,
    /// For instance `22.1.8`.
    pub llvm: String,
}

impl Version {
    /// Reads the output of `rustc -vV`.
    pub fn parse(text: &str) -> Result<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .map(|value| value.trim().to_owned())
                .with_context(|| format!("`rustc -vV` names no {name}"))
        };
        Ok(Self { release: field("release")?, llvm: field("LLVM version")? })
    }

    /// The number by which LLVM's programs and packages are named.
    pub fn llvm_major(&self) -> Option<u32> {
        self.llvm.split('.').next()?.parse().ok()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rustc {} (LLVM {})", self.release, self.llvm)
    }
}

/// Where a compiler comes from. In order of preference: a rustup toolchain is what most people have and keep up to date.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// rustup's `stable`.
    Stable,
    /// rustup's `nightly`.
    Nightly,
    /// Another toolchain of rustup, by name.
    Named(String),
    /// The compiler beside the cargo that started us, installed by other means.
    Running,
    /// The distribution's, in /usr/bin.
    Distribution,
}

impl Origin {
    /// The origin of a toolchain by its folder's name, such as `stable-x86_64-unknown-linux-gnu`.
    pub fn of_toolchain(name: &str) -> Self {
        match name.split('-').next() {
            Some("stable") => Self::Stable,
            // A dated nightly was installed for some purpose of its own; it is one of the others.
            Some("nightly") if !name.starts_with("nightly-2") => Self::Nightly,
            _ => Self::Named(name.to_owned()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stable => f.write_str("rustup's stable"),
            Self::Nightly => f.write_str("rustup's nightly"),
            Self::Named(name) => write!(f, "rustup's {name}"),
            Self::Running => f.write_str("the compiler in use"),
            Self::Distribution => f.write_str("the distribution's compiler"),
        }
    }
}

/// The library source that lies in a compiler's sysroot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// There is none.
    Missing,
    /// It came with the compiler, in one component.
    Bundled,
    /// It is a package of its own and says which release it is.
    Release(String),
}

/// A compiler and what matters about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Where it comes from.
    pub origin: Origin,
    /// `bin/rustc` and the libraries are below this folder.
    pub sysroot: PathBuf,
    /// Whether `bin/cargo` is there too.
    pub has_cargo: bool,
    /// The library source.
    pub source: Source,
    /// Known if the compiler was asked; one without source need not be.
    pub version: Option<Version>,
}

impl Candidate {
    /// Why this compiler can't build the kernel programs.
    fn refusal(&self) -> Option<String> {
        let version = match (&self.source, &self.version) {
            (Source::Missing, _) => return Some("has no library source".to_owned()),
            (_, None) => return Some("does not say its version".to_owned()),
            (_, Some(version)) => version,
        };
        if version.llvm_major() != Some(LLVM) {
            return Some(format!("is {version}, LLVM {LLVM} is needed"));
        }
        match &self.source {
            Source::Release(release) if *release != version.release => {
                Some(format!("is {version}, but its library source is {release}"))
            }
            _ if !self.has_cargo => Some("has no cargo beside it".to_owned()),
            _ => None,
        }
    }
}

/// The best compiler that will do, or why each won't.
pub fn choose(candidates: &[Candidate]) -> Result<&Candidate, Vec<String>> {
    let mut by_preference: Vec<_> = candidates.iter().collect();
    by_preference.sort_by(|a, b| a.origin.cmp(&b.origin));
    let mut refusals = Vec::new();
    for candidate in by_preference {
        match candidate.refusal() {
            None => return Ok(candidate),
            Some(reason) => {
                refusals.push(format!("{} ({}) {reason}", candidate.origin, candidate.sysroot.display()));
            }
        }
    }
    Err(refusals)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBOSE: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
        commit-hash: ac68faa20\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";

    fn version(release: &str, llvm: &str) -> Version {
        Version { release: release.into(), llvm: llvm.into() }
    }

    fn candidate(origin: Origin, source: Source, version: Version) -> Candidate {
        Candidate { origin, sysroot: "/toolchain".into(), has_cargo: true, source, version: Some(version) }
    }

    #[test]
    fn reads_the_verbose_version() {
        let parsed = Version::parse(VERBOSE).expect("a version");
        assert_eq!(parsed, version("1.96.0", "22.1.8"));
        assert_eq!(parsed.llvm_major(), Some(22));
    }

    #[test]
    fn refuses_a_version_without_llvm() {
        let error = Version::parse("release: 1.96.0\n").expect_err("no LLVM");
        assert_eq!(error.to_string(), "`rustc -vV` names no LLVM version");
    }

    #[test]
    fn knows_toolchains_by_name() {
        assert_eq!(Origin::of_toolchain("stable-aarch64-unknown-linux-gnu"), Origin::Stable);
        assert_eq!(Origin::of_toolchain("nightly-x86_64-unknown-linux-gnu"), Origin::Nightly);
        let dated = "nightly-2026-01-02-x86_64-unknown-linux-gnu";
        assert_eq!(Origin::of_toolchain(dated), Origin::Named(dated.into()));
        assert_eq!(Origin::of_toolchain("mine"), Origin::Named("mine".into()));
    }

    #[test]
    fn prefers_stable_then_nightly_then_others_then_the_distribution() {
        let good = |origin| candidate(origin, Source::Bundled, version("1.96.0", "22.1.8"));
        let all = [
            good(Origin::Distribution),
            good(Origin::Named("1.96.0".into())),
            good(Origin::Nightly),
            good(Origin::Stable),
        ];
        assert_eq!(choose(&all).map(|c| &c.origin), Ok(&Origin::Stable));
        assert_eq!(choose(&all[..3]).map(|c| &c.origin), Ok(&Origin::Nightly));
        assert_eq!(choose(&all[..2]).map(|c| &c.origin), Ok(&Origin::Named("1.96.0".into())));
        assert_eq!(choose(&all[..1]).map(|c| &c.origin), Ok(&Origin::Distribution));
    }

    #[test]
    fn takes_the_distributions_if_rustup_has_no_source() {
        let bare = Candidate {
            version: None,
            ..candidate(Origin::Stable, Source::Missing, version("1.95.0", "22.1.2"))
        };
        let packaged =
            candidate(Origin::Distribution, Source::Release("1.96.0".into()), version("1.96.0", "22.1.8"));
        assert_eq!(choose(&[bare, packaged.clone()]), Ok(&packaged));
    }

    #[test]
    fn refuses_another_llvm_and_says_so() {
        let old = candidate(Origin::Distribution, Source::Bundled, version("1.85.0", "19.1.7"));
        let refusals = choose(std::slice::from_ref(&old)).expect_err("LLVM 19");
        assert_eq!(
            refusals,
            ["the distribution's compiler (/toolchain) is rustc 1.85.0 (LLVM 19.1.7), LLVM 22 is needed"]
        );
    }

    #[test]
    fn refuses_source_of_another_release() {
        let torn =
            candidate(Origin::Distribution, Source::Release("1.95.0".into()), version("1.96.0", "22.1.8"));
        let refusals = choose(std::slice::from_ref(&torn)).expect_err("two releases");
        assert!(refusals[0].ends_with("but its library source is 1.95.0"), "{refusals:?}");
    }

    #[test]
    fn refuses_a_compiler_without_cargo() {
        let alone = Candidate {
            has_cargo: false,
            ..candidate(Origin::Distribution, Source::Bundled, version("1.96.0", "22.1.8"))
        };
        assert!(choose(&[alone]).is_err());
    }

    #[test]
    fn has_nothing_to_say_of_no_compilers() {
        assert_eq!(choose(&[]), Err(Vec::new()));
    }
}
