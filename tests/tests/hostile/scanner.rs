//! TLS before a scanner of somebody else's: sslyze, against Mozilla's "intermediate" recommendation.

use anyhow::{Result, ensure};
use tollgate_tests::lab::{Host, Lab};
use tollgate_tests::proxied::{HTTPS, NAME, Proxied};
use tollgate_tests::recorder::Recorder;
use tollgate_tests::tollgate::workspace;

#[test]
fn sslyze_finds_what_mozilla_recommends() -> Result<()> {
    let sslyze = workspace().join(".tools/sslyze/bin/sslyze");
    ensure!(sslyze.is_file(), "there is no {}: run `cargo xtask setup`", sslyze.display());
    let lab = Lab::new()?;
    let server = lab.ns(Host::Server);
    let _recorder = Recorder::start(&server, 7001)?;
    let proxied = Proxied::before(&lab, "127.0.0.1:7001", "max-connections-per-source = 1000")?;
    let (program, root) = (sslyze.display().to_string(), proxied.chain.root.display().to_string());
    let target = format!("127.0.0.1:{HTTPS}");
    let output = server.output(&[
        &program,
        "--mozilla_config=intermediate",
        "--sni",
        NAME,
        "--certinfo",
        "--certinfo_ca_file",
        &root,
        "--early_data",
        "--resum",
        &target,
    ])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}: {said}", output.status);
    for wanted in [
        "OK - Compliant.",
        "OK - Certificate is trusted",
        "OK - Order is valid",
        "Not vulnerable to Heartbleed",
        "OK - Not vulnerable to OpenSSL CCS injection",
        "OK - Compression disabled",
    ] {
        ensure!(said.contains(wanted), "sslyze does not say {wanted:?}:\n{said}");
    }
    // Nobody but this test trusts its root.
    let found = said
        .lines()
        .find(|line| line.contains("VULNERABLE") || line.contains("FAILED - ") && !line.contains("CA Store"));
    ensure!(found.is_none(), "sslyze found {found:?}:\n{said}");
    Ok(())
}
