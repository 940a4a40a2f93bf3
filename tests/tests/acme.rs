//! Certificates by ACME through the real proxy behind the real filter, from an authority that nobody here wrote: issued by both
//! challenges, kept over restarts, renewed under open connections, and waited for while the authority is away.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tollgate::proxy::privilege::is_harmless;
use tollgate_tests::lab::{Lab, OUTSIDE_V4, SERVER_V4};
use tollgate_tests::machine::{Machine, unit, until};
use tollgate_tests::scrape::{ADDRESS, Metrics};
use tollgate_tests::services::{Pebble, PebbleFiles, TEMP_PREFIX};
use tollgate_tests::{Host, Tollgate};

/// Longer than anything takes on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often something is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// A server whose certificates are issued.
struct Site {
    tollgate: Tollgate,
    lab: Lab,
    files: PebbleFiles,
    folder: TempDir,
}

impl Site {
    /// The daemon with a policy: these sections, and two listeners that answer everything.
    fn start(lab: Lab, files: PebbleFiles, sections: &str) -> Result<Self> {
        let prefix = format!("{TEMP_PREFIX}{}-acme-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let path = folder.path().join("policy.toml");
        fs::write(&path, sections)?;
        let tollgate = Tollgate::start(&lab, &path, &["--metrics", ADDRESS])?;
        Ok(Self { tollgate, lab, files, folder })
    }

    fn policy(&self) -> PathBuf {
        self.folder.path().join("policy.toml")
    }

    fn apply(&self, text: &str) -> Result<()> {
        fs::write(self.policy(), text)?;
        let output = self.tollgate.apply(&self.policy())?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn wait(&self, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !is_so()? {
            ensure!(
                Instant::now() < end,
                "{what}: not within {PATIENCE:?}\n{}\n{}",
                self.tollgate.log(),
                self.files.log()
            );
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn said(&self, what: &str) -> usize {
        self.tollgate.log().matches(what).count()
    }

    /// What a client on the LAN gets that trusts the authority and nobody else: status and body, or why not.
    fn curl(&self, url: &str) -> Result<String> {
        let root = self.folder.path().join("issued.pem");
        if !root.exists() {
            self.files.issued_root(&self.lab, &root)?;
        }
        let name = url.split('/').nth(2).context("a URL")?;
        let (root, resolve) = (root.display().to_string(), format!("{name}:443:{SERVER_V4}"));
        let argv = ["curl", "-sS", "--max-time", "20", "--cacert", &root, "--resolve", &resolve];
        let output = self.lab.ns(Host::Lan).output(&[&argv[..], &["-w", " %{http_code}", url]].concat())?;
        let text = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    }

    /// The certificate that a client is shown, and the handshake's words.
    fn shown(&self, name: &str, more: &[&str]) -> Result<String> {
        let to = format!("{SERVER_V4}:443");
        let argv = ["openssl", "s_client", "-connect", &to, "-servername", name];
        let output = self.lab.ns(Host::Lan).output(&[&argv[..], more].concat())?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    /// The text of that certificate, without what is around it.
    fn certificate(&self, name: &str) -> Result<String> {
        let shown = self.shown(name, &[])?;
        let pem = shown.split_once("-----BEGIN CERTIFICATE-----").map(|(_, rest)| rest);
        let pem = pem.and_then(|rest| rest.split_once("-----END CERTIFICATE-----"));
        Ok(pem.with_context(|| format!("no certificate: {shown}"))?.0.to_owned())
    }

    fn metric(&self, name: &str, file: &str) -> Result<f64> {
        Metrics::scrape(&self.lab.ns(Host::Server))?.get(&format!("{name}{{file=\"{file}\"}}"))
    }
}

/// A connection that stays open between two requests.
struct Held {
    client: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Held {
    fn open(lab: &Lab, name: &str) -> Result<Self> {
        let to = format!("{SERVER_V4}:443");
        let mut command = lab.ns(Host::Lan).command("openssl");
        command.args(["s_client", "-quiet", "-ign_eof", "-connect", &to, "-servername", name]);
        let mut client =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let to = client.stdin.take().context("no pipe")?;
        let from = BufReader::new(client.stdout.take().context("no pipe")?);
        Ok(Self { client, to, from })
    }

    /// The body of an answer.
    fn ask(&mut self, name: &str) -> Result<String> {
        write!(self.to, "GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")?;
        self.to.flush()?;
        let mut length = None;
        loop {
            let mut line = String::new();
            ensure!(self.from.read_line(&mut line)? > 0, "the connection was closed");
            let line = line.trim().to_ascii_lowercase();
            if let Some(number) = line.strip_prefix("content-length:") {
                length = Some(number.trim().parse::<usize>()?);
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length.context("no length")?];
        self.from.read_exact(&mut body)?;
        Ok(String::from_utf8(body)?)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// A policy: `authorities` and `certificates` are its own.
fn policy(authorities: &str, certificates: &str) -> String {
    format!(
        "version = 1\n[interfaces.wlp2s0]\ndefault = \"drop\"\n\
         [services.web]\nports = [\"tcp/80\", \"tcp/443\"]\nallow = \"any\"\n{authorities}\
         [listeners.http]\nbind = \":80\"\n\
         [listeners.https]\nbind = \":443\"\ntls = {{ certificates = [{certificates}] }}\n\
         [routes.site]\nlisteners = \"https\"\nrespond = {{ status = 200, body = \"the site\" }}\n\
         [routes.to-https]\nlisteners = \"http\"\nredirect = {{ status = 301, to = \"https://{{host}}{{uri}}\" }}\n"
    )
}

/// Processes of a daemon that talk to an authority. Each was started by a thread, and is listed with it.
fn clients(daemon: u32) -> Result<Vec<i32>> {
    let threads = fs::read_dir(format!("/proc/{daemon}/task"))?.flatten();
    let of_threads = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let all: Vec<String> = of_threads.collect();
    let pids = all.iter().flat_map(|one| one.split_whitespace()).filter_map(|pid| pid.parse().ok());
    let is_client = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"acme-client"))
    };
    Ok(pids.filter(is_client).collect())
}

fn authority(files: &PebbleFiles, name: &str, challenge: &str) -> String {
    format!(
        "[acme.{name}]\ndirectory = \"{}\"\nca = \"{}\"\ncontact = \"mailto:admin@a.example\"\n\
         terms-of-service-agreed = true\nchallenge = \"{challenge}\"\n",
        files.directory(),
        files.root().display()
    )
}

#[test]
fn both_challenges_get_certificates_that_clients_trust_and_a_restart_orders_no_others() -> Result<()> {
    let (lab, files) = (Lab::new()?, PebbleFiles::new()?);
    let _pebble = files.start(&lab, Duration::from_secs(86_400))?;
    let authorities =
        [authority(&files, "by-http", "http-01"), authority(&files, "by-tls", "tls-alpn-01")].concat();
    let certificates = "{ acme = \"by-http\", names = [\"a.example\", \"www.a.example\"] }, \
                        { acme = \"by-tls\", names = [\"b.example\", \"www.b.example\"] }";
    let mut site = Site::start(lab, files, &policy(&authorities, certificates))?;
    let mut has_no_rights = false;
    site.wait("two certificates", || {
        let clients = clients(site.tollgate.pid().context("no daemon")?)?;
        // One may have begun, or ended, between two looks.
        has_no_rights |= clients.into_iter().any(|pid| is_harmless(pid).unwrap_or(false));
        Ok(site.said("has issued a certificate for") == 2)
    })?;
    ensure!(has_no_rights, "who talks to the authority has rights:\n{}", site.tollgate.log());
    for name in ["a.example", "www.a.example", "b.example", "www.b.example"] {
        let url = format!("https://{name}/");
        site.wait(name, || Ok(site.curl(&url)? == "the site 200"))?;
    }
    // Each name was looked at, and where the policy says. Pebble writes down what it asks for by HTTP alone.
    let log = site.files.log();
    ensure!(log.matches("set VALID by completed challenge").count() == 4, "{log}");
    for (name, by_http) in [("a.example", true), ("www.a.example", true), ("b.example", false)] {
        let url = format!("Attempting to validate w/ HTTP: http://{name}:80/.well-known/acme-challenge/");
        ensure!(log.contains(&url) == by_http, "{name}: {log}");
    }
    for file in ["acme/by-http/a.example.pem", "acme/by-tls/b.example.pem"] {
        let path = site.tollgate.state_dir().join(file);
        let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{file} has mode {mode:o}");
        ensure!(site.metric("tollgate_proxy_certificate_stands_in", file)? == 0.0, "{file}");
        ensure!(site.metric("tollgate_proxy_certificate_order_failures", file)? == 0.0, "{file}");
        let days = site.metric("tollgate_proxy_certificate_expiry_days", file)?;
        ensure!((0.0..=1.0).contains(&days), "{file}: {days}");
    }
    // Nothing is pending any more: a challenge is a request like others, and a handshake that finds nothing.
    let asked = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}"];
    let url = format!("http://{SERVER_V4}/.well-known/acme-challenge/abc");
    let output = site.lab.ns(Host::Lan).output(&[&asked[..], &[&url]].concat())?;
    ensure!(output.stdout == b"301", "{}", String::from_utf8_lossy(&output.stdout));
    let looked_at = site.shown("b.example", &["-alpn", "acme-tls/1"])?;
    ensure!(!looked_at.contains("BEGIN CERTIFICATE"), "{looked_at}");
    // The next daemon has it all from its folder.
    let before = (site.certificate("a.example")?, site.certificate("b.example")?);
    site.tollgate.kill()?;
    site.tollgate.restart()?;
    site.wait("another worker", || Ok(site.said("the proxy's worker is process") >= 2))?;
    site.wait("the same certificates", || {
        Ok((site.certificate("a.example")?, site.certificate("b.example")?) == before)
    })?;
    // It looks each second.
    thread::sleep(Duration::from_secs(3));
    ensure!(site.said("ordering a certificate") == 2, "ordered again:\n{}", site.tollgate.log());
    Ok(())
}

#[test]
fn what_stands_in_and_what_is_old_stay_in_service_until_the_authority_is_back() -> Result<()> {
    let (lab, files) = (Lab::new()?, PebbleFiles::new()?);
    let authorities = authority(&files, "ours", "http-01");
    let text = policy(&authorities, "{ acme = \"ours\", names = \"a.example\" }");
    let site = Site::start(lab, files, &text)?;
    let file = "acme/ours/a.example.pem";
    // Nobody is there: it is told, and the site is served all the same.
    site.wait("a failure", || Ok(site.said("has issued no certificate for a.example") == 1))?;
    ensure!(site.said("it is tried again in 1m") == 1, "{}", site.tollgate.log());
    ensure!(site.shown("a.example", &[])?.contains("stands in until"), "{}", site.shown("a.example", &[])?);
    ensure!(site.metric("tollgate_proxy_certificate_stands_in", file)? == 1.0, "{}", site.tollgate.log());
    ensure!(
        site.metric("tollgate_proxy_certificate_order_failures", file)? == 1.0,
        "{}",
        site.tollgate.log()
    );
    let mut held = Held::open(&site.lab, "a.example")?;
    ensure!(held.ask("a.example")? == "the site", "no answer");
    // It comes, and looks for the name elsewhere: what it says of that is told.
    let astray = site.files.start_with(&site.lab, Duration::from_secs(15), OUTSIDE_V4)?;
    site.apply(&text)?;
    site.wait("its refusal", || Ok(site.said("it could not see that the name is ours: a.example: ") == 1))?;
    ensure!(site.said("connection refused") == 1, "{}", site.tollgate.log());
    ensure!(site.said("it is tried again in 2m") == 1, "{}", site.tollgate.log());
    drop(astray);
    // And it comes with certificates that are renewed after ten seconds; an apply tries at once.
    let pebble: Pebble = site.files.start(&site.lab, Duration::from_secs(15))?;
    site.apply(&text)?;
    site.wait("a certificate", || Ok(site.curl("https://a.example/")? == "the site 200"))?;
    let first = site.certificate("a.example")?;
    site.wait("a renewal", || Ok(site.certificate("a.example")? != first))?;
    ensure!(site.curl("https://a.example/")? == "the site 200", "{}", site.tollgate.log());
    ensure!(held.ask("a.example")? == "the site", "what was open before is closed");
    // It goes again, as something new is wanted of it: what there is stays.
    drop(pebble);
    let second = site.certificate("a.example")?;
    let failures = site.said("has issued no certificate");
    let wider = policy(&authorities, "{ acme = \"ours\", names = [\"a.example\", \"b.example\"] }");
    site.apply(&wider)?;
    site.wait("another failure", || Ok(site.said("has issued no certificate") > failures))?;
    ensure!(site.certificate("a.example")? == second, "the old certificate is gone");
    // It comes back and has forgotten everything, its own key and our account too.
    let _pebble = site.files.start(&site.lab, Duration::from_secs(86_400))?;
    fs::remove_file(site.folder.path().join("issued.pem"))?;
    site.apply(&wider)?;
    site.wait("a certificate for both", || Ok(site.curl("https://b.example/")? == "the site 200"))?;
    ensure!(site.curl("https://a.example/")? == "the site 200", "{}", site.tollgate.log());
    // As the one that looked elsewhere had.
    ensure!(site.said("a new one is registered") == 2, "{}", site.tollgate.log());
    ensure!(held.ask("a.example")? == "the site", "what was open before is closed");
    Ok(())
}

#[test]
fn the_unit_that_ships_lets_certificates_be_ordered_and_served() -> Result<()> {
    let (lab, files) = (Lab::new()?, PebbleFiles::new()?);
    let _pebble = files.start(&lab, Duration::from_secs(86_400))?;
    let empty = "version = 1\n[interfaces.wlp2s0]\n[services.web]\nports = [\"tcp/443\"]\nallow = \"any\"\n";
    let drop_in = fs::read_to_string(unit().with_file_name("proxy.conf"))?;
    let machine = Machine::boot(&lab, empty, &drop_in)?;
    machine.until_unit(&[("ActiveState", "active")])?;
    // Where a machine without a store of its own can read it.
    fs::copy(files.root(), machine.state_dir().join("root.pem"))?;
    let authority = authority(&files, "ours", "tls-alpn-01");
    let authority = authority.replace(&files.root().display().to_string(), "/var/lib/tollgate/root.pem");
    machine.write_policy(&policy(&authority, "{ acme = \"ours\", names = \"a.example\" }"))?;
    machine.run(&["tollgate", "apply", "--force", "/etc/tollgate/policy.toml"])?;
    until("a certificate", || Ok(machine.journal().contains("ours has issued a certificate for a.example")))
        .with_context(|| format!("{}\n{}", machine.journal(), files.log()))?;
    let (folder, to) = (tempfile::tempdir()?, format!("a.example:443:{SERVER_V4}"));
    let root = folder.path().join("issued.pem");
    files.issued_root(&lab, &root)?;
    let root = root.display().to_string();
    let argv = ["curl", "-sS", "--max-time", "20", "--cacert", &root, "--resolve", &to, "https://a.example/"];
    until("the next handshake", || Ok(lab.ns(Host::Lan).output(&argv)?.stdout == b"the site"))
        .with_context(|| machine.journal())
}
