//! Lets a program loose on the proxy: suites of others that are fetched by hand, and scanners. See CONTRIBUTING.md.
//!
//! Ends with the program's exit code, with 1 if it could not be run, and says if the proxy or its worker has ended meanwhile.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use tollgate_tests::lab::{Host, Lab};
use tollgate_tests::proxied::{HTTP, HTTPS, Proxied};
use tollgate_tests::recorder::Recorder;

const UPSTREAM: u16 = 7001;
/// Suites wait for the end of connections that they broke, and open many.
const SETTINGS: &str =
    "header-timeout = \"10s\"\nbody-timeout = \"10s\"\nmax-connections-per-source = 2000\n";

fn main() -> ExitCode {
    let command: Vec<String> = std::env::args().skip(1).collect();
    match run(&command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("suite: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &[String]) -> Result<u8> {
    let (program, arguments) =
        command.split_first().context("which program? See `cargo xtask suite --help`")?;
    let lab = Lab::new()?;
    let server = lab.ns(Host::Server);
    let recorder = Recorder::start(&server, UPSTREAM)?;
    let proxied = Proxied::before(&lab, &format!("127.0.0.1:{UPSTREAM}"), SETTINGS)?;
    let root = proxied.chain.root.display().to_string();
    let filled = |argument: &String| {
        argument
            .replace("{host}", "127.0.0.1")
            .replace("{https}", &HTTPS.to_string())
            .replace("{http}", &HTTP.to_string())
            .replace("{root}", &root)
    };
    let status = server
        .command(program)
        .args(arguments.iter().map(filled))
        .status()
        .with_context(|| format!("`{program}` could not be started"))?;
    for strange in recorder.strange() {
        eprintln!("suite: the upstream got what is no HTTP: {strange}");
    }
    ensure!(recorder.strange().is_empty(), "something was smuggled");
    let said = proxied.tollgate.log();
    ensure!(
        said.matches("worker is process").count() == 1 && proxied.tollgate.status().is_ok(),
        "the proxy has ended: {said}"
    );
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
