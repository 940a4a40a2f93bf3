//! `cargo xtask`: everything that is done to Tollgate's source tree, from the first set-up to the test run.
//!
//! Decides which task runs. Called through the alias in `.cargo/config.toml`, by people and by `.ci/run`. Each task
//! prepares what it needs by itself, so that a fresh clone needs no other command first.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::fuzz::Work;
use crate::setup::Needs;
use crate::workspace::Workspace;

mod build;
mod check;
mod fuzz;
mod lab;
mod object;
mod process;
mod setup;
mod tally;
mod test;
mod workspace;

/// Tasks for working on Tollgate, a packet filter whose rules run in the Linux kernel.
///
/// Tollgate is two programs in one file: a kernel part, compiled to eBPF, and the `tollgate` binary that carries it
/// inside and loads it. The kernel part needs a compiler with its library's source and a linker of its own; these
/// tasks find or fetch them, and never touch your default toolchain.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

const AFTER_HELP: &str = "\
New here? As root, on a machine with Rust and nothing else:
  cargo xtask demo     see the filter work on a network made of namespaces; your own interfaces are left alone
  cargo xtask test     run every test

Then, day by day:
  cargo xtask build    after a change in the kernel part; plain `cargo build` does for the rest
  cargo xtask check    before a commit
  cargo xtask fuzz     after a change in what reads packets, policies, lists or requests
  cargo xtask differential --seed N
                       after a change in what judges packets: other policies and packets than those of the tests

Variables:
  TOLLGATE_CACHE       where the linker is kept, for all checkouts [default: $XDG_CACHE_HOME/tollgate or ~/.cache/tollgate]
  CARGO_TARGET_DIR     where everything is built [default: target]";

#[derive(Subcommand)]
enum Task {
    /// Prepare this machine: compiler, linker, and the programs that the tests use.
    ///
    /// Says what it does and why, and changes only what is missing, so that it can be run again at any time. Each
    /// other task does the part that it needs by itself. Missing system packages are installed by apt-get if this
    /// is run as root; else, and on other systems, it says what to install.
    Setup {
        /// Let rustup add the library source to the toolchain in use, if no installed compiler has it.
        ///
        /// Without this flag rustup is never asked to change anything.
        #[arg(long)]
        allow_rustup: bool,
    },
    /// Build the kernel programs and the `tollgate` binary that contains them.
    ///
    /// Leaves target/bpf/tollgate.o and target/release/tollgate. Once the object is there, plain `cargo build`,
    /// `cargo test` and `cargo clippy` work too; run this again after a change in proxy-ebpf or proxy-common.
    Build {
        /// Stop after the kernel programs (target/bpf/tollgate.o).
        #[arg(long)]
        object_only: bool,
    },
    /// Check formatting, lints, documentation links and Cargo.lock, with warnings as errors.
    Check,
    /// Run every test, or those whose name contains a FILTER. Needs root.
    ///
    /// First the tests that need no kernel, then those in network namespaces with real services. The last line is
    /// `N passed, N failed`, and the exit code is not 0 if a test failed or none ran.
    Test {
        /// Passed on to the test programs: parts of names, or their options (`--nocapture`, `--exact`).
        #[arg(value_name = "FILTER", trailing_var_arg = true, allow_hyphen_values = true)]
        filters: Vec<String>,
    },
    /// Feed everything that reads what strangers write with inputs that a fuzzer finds.
    ///
    /// Builds the targets in fuzz/ with coverage instrumentation and runs each for a while, as many at a time as there
    /// are processors. What was found lives in target/fuzz, so that the next run goes on from there. The exit code is 1 if
    /// an input crashed a target; its file and the command that repeats it are named.
    Fuzz {
        /// How long each target runs.
        #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// Run nothing; bring what runs have found into fuzz/corpus, as far as it reaches what is not reached there.
        #[arg(long, conflicts_with_all = ["seconds", "coverage"])]
        merge: bool,
        /// Run nothing; print which part of the engine's and the policy reader's source fuzz/corpus reaches.
        #[arg(long, conflicts_with = "seconds")]
        coverage: bool,
        /// The targets: the names of the files in fuzz/fuzz_targets [default: all].
        #[arg(value_name = "TARGET")]
        targets: Vec<String>,
    },
    /// Have random packets under random policies judged by three implementations. Needs root.
    ///
    /// The reference interpreter of docs/policy.md, the engine on the host, and the kernel's programs at XDP and TC must
    /// agree on every packet: verdict, reason, rule and counter. Prints how often each reason occurred and the first packet of
    /// each policy on which they do not agree, with the seed that repeats it. The exit code is 1 if there is one, or if a
    /// reason did not occur in a run of 100,000 packets or more.
    ///
    /// Options, each with a number:
    ///   --policies      how many policies [default: 1000]
    ///   --packets       how many packets under each, those that the host sends included [default: 1250]
    ///   --seed          where they come from; the n-th policy is that of the seed plus n [default: 1]
    ///   --kernel-every  ask the kernel about every n-th family of 40 policies; 0: never [default: 1]
    ///   --threads       how many families at a time [default: one a processor]
    #[command(verbatim_doc_comment)]
    Differential {
        /// Passed on to the program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Show policies/platform.toml in action, with real clients and a flood. Needs root.
    ///
    /// Builds a network of namespaces, runs the services and the filter in it, says of each connection whether it
    /// got through and why not, and cleans up. Your own interfaces are left alone.
    Demo {
        /// Passed on to the demo.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Write screen captures of `top`, `stats`, `monitor` and `explain` for the docs, from the lab. Needs root.
    ///
    /// Leaves docs/captures/*.txt. Run it after a change of what these commands show, and read the difference.
    Captures,
    /// Load the L7 proxy for ten minutes while everything about it changes, beside nginx. Needs root.
    ///
    /// Mixed traffic (HTTPS with kept and new connections, HTTP/2, plain HTTP, long answers, WebSockets) goes through Tollgate and
    /// through an nginx that nobody touches, to the same upstreams. Meanwhile policies are applied every 100 ms, the certificate is
    /// replaced each second, also by one that does not fit for a moment, and upstreams die and come back. The exit code is 1 if a
    /// request through Tollgate failed that could have been answered: whose upstream had not begun to answer and may be asked twice.
    ///
    /// Option: --seconds N   how long [default: 600]
    #[command(verbatim_doc_comment)]
    Soak {
        /// Passed on to the program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Let a program loose on the L7 proxy, such as a suite of somebody else's. Needs root.
    ///
    /// Starts the proxy in the lab before a server that answers each request with its body, and then the program on the
    /// lab's server. In its arguments {host} stands for the proxy's address, {http} and {https} for its ports, {root} for
    /// the file of the certificate to trust. Ends with the program's exit code.
    Suite {
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Measure what each path through the filter costs in nanoseconds a packet, or how fast the proxy is. Needs root.
    ///
    ///   bench        every path through the filter, and what bans cost (`bench bans`: those alone)
    ///   bench proxy  the proxy beside nginx and HAProxy; writes docs/performance.md. Takes some eleven minutes
    ///
    /// Options of `bench proxy`:
    ///   --quick    one short round, a minute in all; writes nothing
    ///   --profile  also find out by `perf` where the time goes in what misses its goal
    ///   1 … 7      these loads alone, as they are listed in docs/performance.md; writes nothing
    ///   slow       only what a client notices of slow ones; writes nothing
    #[command(verbatim_doc_comment)]
    Bench {
        /// Passed on to the benchmark.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    let started = Instant::now();
    let workspace = Workspace::locate()?;
    match task {
        Task::Setup { allow_rustup } => {
            setup::everything(&workspace, allow_rustup)?;
            eprintln!("ready in {:.1} s; next: `cargo xtask demo`", started.elapsed().as_secs_f64());
            Ok(ExitCode::SUCCESS)
        }
        Task::Build { object_only } => {
            let kit = setup::ensure(&workspace, Needs::Build)?;
            let object = object::build(&workspace, &kit)?;
            let built = if object_only { object } else { build::binary(&workspace)? };
            eprintln!("built {} in {:.1} s", built.display(), started.elapsed().as_secs_f64());
            Ok(ExitCode::SUCCESS)
        }
        Task::Check => check::run(&workspace),
        Task::Test { filters } => test::run(&workspace, &filters),
        Task::Differential { args } => match lab::run(&workspace, "differential", &args)? {},
        Task::Fuzz { seconds, merge, coverage, targets } => {
            let work = match (merge, coverage) {
                (true, _) => Work::Merge,
                (_, true) => Work::Coverage,
                _ => Work::Run { seconds },
            };
            fuzz::run(&workspace, work, &targets)
        }
        Task::Demo { args } => match lab::run(&workspace, "demo", &args)? {},
        Task::Captures => match lab::run(&workspace, "captures", &[])? {},
        Task::Soak { args } => match lab::run(&workspace, "soak", &args)? {},
        Task::Suite { command } => match lab::run(&workspace, "suite", &command)? {},
        Task::Bench { args } => match lab::run(&workspace, "bench", &args)? {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn passes_options_of_the_differential_test_on() {
        let cli = Cli::try_parse_from(["xtask", "differential", "--policies", "40", "--seed", "7"]);
        let Ok(Cli { task: Task::Differential { args } }) = cli else {
            panic!("not understood");
        };
        assert_eq!(args, ["--policies", "40", "--seed", "7"]);
    }

    #[test]
    fn passes_options_of_the_test_programs_on() {
        let cli = Cli::try_parse_from(["xtask", "test", "limits", "--nocapture"]);
        let Ok(Cli { task: Task::Test { filters } }) = cli else {
            panic!("not understood");
        };
        assert_eq!(filters, ["limits", "--nocapture"]);
    }
}
