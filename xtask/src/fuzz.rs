//! Builds the fuzz targets, runs them, and says in a line each what came of it. Called by people and by CI.
//!
//! What cargo-fuzz would do, without it and without a nightly compiler: coverage instrumentation is a pass of LLVM that
//! every rustc can be told to run. The address sanitizer is used where the compiler has its runtime.

use std::ffi::OsString;
use std::fs::{self, File};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, thread};

use anyhow::{Context, Result, ensure};

use crate::setup::{self, Needs};
use crate::workspace::Workspace;
use crate::{object, process};

/// What libFuzzer needs of the code: a counter for each edge, where it is, and the operands of comparisons.
const FLAGS: [&str; 8] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Branches must stay branches to be counted.
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    // One table of counters for each crate: the linker drops those of units that it thinks unused.
    "-Ccodegen-units=1",
];
/// An input that takes longer, seconds, is a find: nobody may stall a reader.
const TIMEOUT: u32 = 20;
/// Most bytes of an input. Longer ones find nothing new, and slow everything down.
const MOST_BYTES: u32 = 16 << 10;

/// Runs the targets, all if none is named.
pub fn run(workspace: &Workspace, seconds: u32, names: &[String]) -> Result<ExitCode> {
    let names = select(names, &targets(workspace)?)?;
    let binaries = build(workspace)?;
    let ground = Ground { seeds: workspace.fuzz(), finds: home(workspace), binaries, seconds };

    let workers = thread::available_parallelism().map_or(1, NonZero::get).min(names.len());
    eprintln!("fuzzing {}, {seconds} s each, {workers} at a time", names.join(", "));
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut crashes = 0;
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = ground.run(name)?;
            println!("{}", result.sentence(name));
            crashes += usize::from(result.crash.is_some());
        }
        Ok(crashes)
    };
    let crashes: Result<usize> = thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok(1))).sum()
    });
    Ok(if crashes? == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every target, by the files of the programs.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let folder = workspace.fuzz().join("fuzz_targets");
    let files = fs::read_dir(&folder).with_context(|| format!("could not read {}", folder.display()))?;
    let mut names: Vec<_> =
        files.flatten().filter_map(|file| Some(file.path().file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

fn select(wanted: &[String], all: &[String]) -> Result<Vec<String>> {
    let unknown: Vec<_> = wanted.iter().filter(|name| !all.contains(name)).cloned().collect();
    ensure!(
        unknown.is_empty(),
        "there is no fuzz target {}; there are: {}",
        unknown.join(", "),
        all.join(", ")
    );
    Ok(if wanted.is_empty() { all.to_vec() } else { wanted.to_vec() })
}

/// A folder apart from the other builds, whose flags differ, and outside the source tree.
fn home(workspace: &Workspace) -> PathBuf {
    workspace.target.join("fuzz")
}

/// Builds all targets; gives the folder with their programs.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let kit = setup::ensure(workspace, Needs::Fuzz)?;
    let object = object::build(workspace, &kit)?;
    let home = home(workspace);
    // By name, so that build scripts and macros, which run on this machine, get no instrumentation.
    let host = host(workspace)?;
    let mut flags = FLAGS.map(OsString::from).to_vec();
    let mut cargo = workspace.cargo();
    if has_sanitizer()? {
        flags.push("-Zsanitizer=address".into());
        // The flag is one of nightly's.
        cargo.env("RUSTC_BOOTSTRAP", "1");
    } else {
        eprintln!("this compiler has no address sanitizer; fuzzing without");
    }
    cargo
        .current_dir(workspace.fuzz())
        .args(["build", "--quiet", "--release", "--bins", "--target", &host])
        .env("CARGO_TARGET_DIR", &home)
        .env("TOLLGATE_BPF_OBJECT", object)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}".as_ref()));
    eprintln!("building the fuzz targets");
    process::run(&mut cargo).context("the fuzz targets could not be built")?;
    Ok(home.join(host).join("release"))
}

/// The target triple of this machine.
fn host(workspace: &Workspace) -> Result<String> {
    let version = process::output(workspace.cargo().arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`cargo -vV` names no host")?.to_owned())
}

/// Whether the compiler that cargo will use has the runtime of the address sanitizer. Distributions leave it out.
fn has_sanitizer() -> Result<bool> {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let folder = process::output(rustc.args(["--print", "target-libdir"]))?;
    let files = fs::read_dir(folder.trim()).context("rustc has no library folder")?;
    Ok(files.flatten().any(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        name.starts_with("librustc") && name.ends_with("_rt.asan.a")
    }))
}

/// Where targets find and leave things.
struct Ground {
    /// `fuzz/` in the source tree: read only.
    seeds: PathBuf,
    /// `fuzz/` in the target folder.
    finds: PathBuf,
    binaries: PathBuf,
    seconds: u32,
}

impl Ground {
    fn run(&self, name: &str) -> Result<Outcome> {
        let (corpus, crashes) = (self.finds.join("corpus").join(name), self.finds.join("crashes").join(name));
        let log = self.finds.join(format!("{name}.log"));
        for folder in [&corpus, &crashes] {
            fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
        }
        let file = File::create(&log).with_context(|| format!("could not write {}", log.display()))?;
        let program = self.binaries.join(name);
        let mut target = Command::new(&program);
        target
            .arg(format!("-max_total_time={}", self.seconds))
            .arg(format!("-timeout={TIMEOUT}"))
            .arg(format!("-max_len={MOST_BYTES}"))
            .args(["-rss_limit_mb=2048", "-print_final_stats=1"])
            .arg(format!("-artifact_prefix={}/", crashes.display()));
        let words = self.seeds.join("dictionaries").join(format!("{name}.dict"));
        if words.is_file() {
            target.arg(format!("-dict={}", words.display()));
        }
        // New finds go to the first folder.
        target.arg(corpus);
        for folder in ["corpus", "regressions"] {
            target.args(Some(self.seeds.join(folder).join(name)).filter(|folder| folder.is_dir()));
        }
        let sound = target
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .status()
            .with_context(|| format!("could not start {}", program.display()))?
            .success();
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        Ok(Outcome { stats: Stats::read(&text), crash: (!sound).then(|| Crash::read(&text, &program, &log)) })
    }
}

/// What came of a target.
struct Outcome {
    stats: Stats,
    crash: Option<Crash>,
}

impl Outcome {
    fn sentence(&self, name: &str) -> String {
        let Stats { runs, per_second, cov, ft, corpus } = &self.stats;
        let mut line = format!(
            "{name:<8} {runs:>10} runs {per_second:>7}/s  cov {cov:>5}  ft {ft:>6}  corpus {corpus:>5}  {} crashes",
            usize::from(self.crash.is_some())
        );
        if let Some(Crash { why, command }) = &self.crash {
            line.push_str(&format!("\n  {why}\n  again: {command}"));
        }
        line
    }
}

/// What libFuzzer counts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stats {
    /// Inputs that were tried.
    runs: u64,
    per_second: u64,
    /// Edges of the code that were reached.
    cov: u64,
    /// Features: edges by how often, and comparisons.
    ft: u64,
    /// Inputs that were kept.
    corpus: u64,
}

impl Stats {
    /// From lines such as `#4096 NEW    cov: 88 ft: 120 corp: 33/1kb lim: 43 exec/s: 2048 rss: 50Mb`.
    fn read(log: &str) -> Self {
        let mut stats = Self::default();
        for line in log.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |label| {
                let value = words.iter().skip_while(|word| **word != label).nth(1)?;
                value.split('/').next()?.parse::<u64>().ok()
            };
            if let Some(runs) = words.first().and_then(|word| word.strip_prefix('#')?.parse().ok()) {
                stats.runs = runs;
                for (label, field) in
                    [("cov:", &mut stats.cov), ("ft:", &mut stats.ft), ("corp:", &mut stats.corpus)]
                {
                    *field = after(label).unwrap_or(*field);
                }
            }
            stats.runs = after("stat::number_of_executed_units:").unwrap_or(stats.runs);
            stats.per_second = after("stat::average_exec_per_sec:").unwrap_or(stats.per_second);
        }
        stats
    }
}

/// An input that a target did not survive.
#[derive(Debug, PartialEq, Eq)]
struct Crash {
    why: String,
    /// What shows it again.
    command: String,
}

impl Crash {
    fn read(log: &str, program: &Path, log_file: &Path) -> Self {
        let lines = || log.lines().map(str::trim);
        // A panic says where on one line and why on the next.
        let panic =
            lines().skip_while(|line| !line.contains("panicked at")).take(4).collect::<Vec<_>>().join(" ");
        let summary = || lines().find(|line| line.starts_with("SUMMARY:") || line.contains("ERROR:"));
        let why =
            if panic.is_empty() { summary().unwrap_or("it ended without a word").to_owned() } else { panic };
        let input = lines().find_map(|line| line.split_once("Test unit written to ").map(|(_, file)| file));
        let command = match input {
            Some(input) => format!("{} {input}", program.display()),
            None => format!("see {}", log_file.display()),
        };
        Self { why, command }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "INFO: Seed: 1\n#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 40Mb\n\
        #4096\tpulse  cov: 88 ft: 120 corp: 33/1024b lim: 43 exec/s: 2048 rss: 50Mb\n";

    #[test]
    fn reads_what_libfuzzer_counts() {
        let stats = Stats::read(LOG);
        assert_eq!(stats, Stats { runs: 4096, per_second: 0, cov: 88, ft: 120, corpus: 33 });
        let ended =
            format!("{LOG}stat::number_of_executed_units: 5000\nstat::average_exec_per_sec:     2500\n");
        let stats = Stats::read(&ended);
        assert_eq!((stats.runs, stats.per_second, stats.cov), (5000, 2500, 88));
        assert_eq!(Stats::read("nothing"), Stats::default());
    }

    #[test]
    fn a_crash_names_its_reason_and_input() {
        let log = "thread '<unnamed>' (7) panicked at src/list.rs:9:5:\na list is another list\n\
            artifact_prefix='/t/'; Test unit written to /t/crash-1\n";
        let crash = Crash::read(log, Path::new("/b/list"), Path::new("/t/list.log"));
        assert!(crash.why.contains("a list is another list"), "{crash:?}");
        assert_eq!(crash.command, "/b/list /t/crash-1");
        let crash = Crash::read("", Path::new("/b/list"), Path::new("/t/list.log"));
        assert_eq!(crash.command, "see /t/list.log");
    }

    #[test]
    fn an_unknown_target_is_told_the_known_ones() {
        let all = ["engine".to_owned(), "packet".to_owned()];
        assert_eq!(select(&[], &all).expect("all"), all);
        assert_eq!(select(&all[1..], &all).expect("one"), ["packet"]);
        let error = select(&["pocket".to_owned()], &all).expect_err("no such target");
        assert_eq!(error.to_string(), "there is no fuzz target pocket; there are: engine, packet");
    }
}
