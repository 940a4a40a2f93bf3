//! Decides what this machine still lacks, and gets it. Called by `setup` for everything, by the other tasks for the
//! part that they need.
//!
//! There is no stamp that says "all is well": each tool is looked at each time, since looking is cheap and a stamp
//! would hide what was removed in the meantime. Progress goes to standard error; the output of a task stays clean.

use anyhow::Result;

use crate::workspace::Workspace;

mod apt;
mod compiler;
mod coverage;
mod cxx;
mod docker;
mod lab;
mod linker;
mod rustc;
mod sslyze;

pub use compiler::Compiler;
pub use coverage::Coverage;
pub use linker::Linker;

/// What a task needs of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// To compile the kernel programs.
    Build,
    /// Also to run them, in the lab.
    Lab,
    /// To compile them, and the fuzz targets.
    Fuzz,
    /// All of it.
    Everything,
}

/// What compiles the kernel programs.
#[derive(Debug)]
pub struct Kit {
    /// A compiler that has the source of its library.
    pub compiler: Compiler,
    /// The linker for the BPF target, bound to that compiler's LLVM.
    pub linker: Linker,
}

/// Prepares the machine and reports each step.
pub fn everything(workspace: &Workspace, allow_rustup: bool) -> Result<()> {
    prepare(workspace, Needs::Everything, &Options { allow_rustup, report: true }).map(drop)
}

/// Prepares what a task needs. Silent about what is there.
pub fn ensure(workspace: &Workspace, needs: Needs) -> Result<Kit> {
    prepare(workspace, needs, &Options { allow_rustup: false, report: false })
}

/// Prepares what counting coverage needs besides, and says where it is.
pub fn coverage() -> Result<Coverage> {
    coverage::ensure(&Options { allow_rustup: false, report: false }, &mut apt::Apt::default())
}

/// How a step behaves.
#[derive(Debug)]
struct Options {
    allow_rustup: bool,
    report: bool,
}

impl Options {
    /// Says what was found; only for those who asked.
    fn found(&self, step: &str, text: &str) {
        if self.report {
            eprintln!("{step:>12}  {text}");
        }
    }

    /// Says what is about to be done to the machine, and why; always.
    #[expect(clippy::unused_self, reason = "the counterpart of `found`")]
    fn doing(&self, step: &str, text: &str) {
        eprintln!("{step:>12}  {text}");
    }
}

fn prepare(workspace: &Workspace, needs: Needs, options: &Options) -> Result<Kit> {
    let mut apt = apt::Apt::default();
    let compiler = compiler::ensure(options, &mut apt)?;
    let linker = linker::ensure(workspace, &compiler, options)?;
    if matches!(needs, Needs::Lab | Needs::Everything) {
        lab::ensure(options, &mut apt)?;
        docker::ensure(workspace, options, &mut apt)?;
        sslyze::ensure(workspace, options, &mut apt)?;
    }
    if matches!(needs, Needs::Fuzz | Needs::Everything) {
        cxx::ensure(options, &mut apt)?;
    }
    if needs == Needs::Everything {
        coverage::ensure(options, &mut apt)?;
    }
    Ok(Kit { compiler, linker })
}
