//! The routes of `policies/platform.toml`, through the real worker in the lab: who gets what, and that nothing that happens to
//! daemon, worker, certificates or policy costs a client its answer.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tollgate::proxy::privilege::is_harmless;
use tollgate_tests::bans::{listed, said};
use tollgate_tests::lab::{Lab, SERVER_V4};
use tollgate_tests::routes::{CRM, DASHBOARD, certificate, platform};
use tollgate_tests::services::{Services, TEMP_PREFIX, browser};
use tollgate_tests::{Host, Tollgate};

/// Longer than anything takes on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);
/// A certificate that was replaced is served: at once, and later than that only by way of the look every five seconds.
const NOTICED: Duration = Duration::from_secs(4);

/// The deployment with its routes, certificates and log.
struct Routes {
    tollgate: Tollgate,
    _services: Services,
    lab: Lab,
    folder: TempDir,
}

impl Routes {
    fn start() -> Result<Self> {
        let prefix = format!("{TEMP_PREFIX}{}-routes-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let lab = Lab::new()?;
        let services = Services::behind_the_proxy(&lab)?;
        let path = folder.path().join("policy.toml");
        fs::write(&path, platform(folder.path())?)?;
        let tollgate = Tollgate::start(&lab, &path, &[])?;
        let routes = Self { tollgate, _services: services, lab, folder };
        routes.worker()?;
        Ok(routes)
    }

    fn policy(&self) -> PathBuf {
        self.folder.path().join("policy.toml")
    }

    /// The worker's process, once there is one that serves.
    fn worker(&self) -> Result<i32> {
        self.worker_besides(0)
    }

    fn worker_besides(&self, gone: i32) -> Result<i32> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let log = self.tollgate.log();
            let last = log
                .lines()
                .filter_map(|line| line.split("the proxy's worker is process ").nth(1))
                .next_back();
            let pid: Option<i32> = last.and_then(|pid| pid.trim().parse().ok());
            if let Some(pid) = pid.filter(|pid| *pid != gone && Path::new(&format!("/proc/{pid}")).exists()) {
                return Ok(pid);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("no worker: {}", self.tollgate.log())
    }

    /// What curl says: the status, then the end of the answer's body.
    fn curl(&self, from: Host, args: &[&str]) -> Result<String> {
        let mut argv = vec!["curl", "-sk", "--max-time", "30", "-w", "\n%{http_code} %{redirect_url}"];
        argv.extend(args);
        let output = self.lab.ns(from).output(&argv)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", &text));
        Ok(format!("{} {}", status.trim(), body.trim()))
    }
}

#[test]
fn every_route_of_the_platform_leads_where_it_should() -> Result<()> {
    let routes = Routes::start()?;
    let dashboard = format!("{DASHBOARD}:443:{CRM}");
    for (who, from, args, wanted) in [
        (
            "the address is sent to TLS",
            Host::Lan,
            vec!["http://192.168.0.104/a?b=c"],
            "301 https://192.168.0.104/a?b=c",
        ),
        (
            "any other host is the dashboard for payments",
            Host::Lan,
            vec!["-H", "Host: other.example", "http://192.168.0.104/"],
            "200 this is port 8081",
        ),
        (
            "and from outside",
            Host::Outside,
            vec!["-H", "Host: other.example", "http://192.168.0.104/"],
            "200 this is port 8081",
        ),
        ("TLS without a name is the CRM", Host::Lan, vec!["https://192.168.0.104/"], "200 this is port 8082"),
        (
            "the platform has a name",
            Host::Outside,
            vec!["--resolve", &dashboard, "https://dashboard.krystal.technology/api/sso/"],
            "200 this is port 8000",
        ),
        (
            "HTTP/1.1 too",
            Host::Outside,
            vec!["--http1.1", "--resolve", &dashboard, "https://dashboard.krystal.technology/"],
            "200 this is port 8000",
        ),
        (
            "this host has a door of its own",
            Host::Server,
            vec!["http://127.0.0.1:8006/"],
            "200 this is port 8081",
        ),
        ("nobody else has", Host::Lan, vec!["--connect-timeout", "2", "http://192.168.0.104:8006/"], "000"),
        (
            "the LAN reaches the platform directly",
            Host::Lan,
            vec!["http://192.168.0.104:8000/"],
            "200 this is port 8000",
        ),
    ] {
        let got = routes.curl(from, &args)?;
        ensure!(
            got.trim_start().starts_with(wanted),
            "{who}: {got:?}, not {wanted:?}\n{}",
            routes.tollgate.log()
        );
    }
    for (name, args) in [(CRM, vec![]), (DASHBOARD, vec!["-servername", DASHBOARD])] {
        let mut argv = vec!["openssl", "s_client", "-connect", "192.168.0.104:443"];
        argv.extend(args);
        let output = routes.lab.ns(Host::Lan).output(&argv)?;
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let der = shown.contains("BEGIN CERTIFICATE");
        ensure!(der, "no certificate for {name}: {shown}");
    }
    let head = routes.lab.ns(Host::Lan).output(&["curl", "-skI", "https://192.168.0.104/"])?;
    let head = String::from_utf8_lossy(&head.stdout).to_lowercase();
    for header in
        ["x-frame-options: deny", "x-content-type-options: nosniff", "x-xss-protection: 1; mode=block"]
    {
        ensure!(head.contains(header), "no {header} in\n{head}");
    }
    let log = || fs::read_to_string(routes.folder.path().join("access.log")).unwrap_or_default();
    let end = Instant::now() + PATIENCE;
    while log().lines().count() < 8 {
        ensure!(Instant::now() < end, "the log has {}", log());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn the_worker_owns_nothing_and_its_end_costs_nobody_an_answer() -> Result<()> {
    let routes = Routes::start()?;
    let worker = routes.worker()?;
    ensure!(
        is_harmless(worker)?,
        "the worker has rights: {}",
        fs::read_to_string(format!("/proc/{worker}/status"))?
    );
    // Connections that come while there is no worker wait for the next one.
    kill(Pid::from_raw(worker), Signal::SIGKILL)?;
    let got = routes.curl(Host::Lan, &["https://192.168.0.104/"])?;
    ensure!(got.contains("port 8082"), "{got}: {}", routes.tollgate.log());
    let next = routes.worker_besides(worker)?;
    ensure!(is_harmless(next)?, "the next worker has rights");
    // The certificates are replaced: the next handshake has them, nobody restarts anything.
    let before = fs::read_to_string(routes.folder.path().join("crm.crt"))?;
    let served = |routes: &Routes| -> Result<String> {
        let output =
            routes.lab.ns(Host::Lan).output(&["openssl", "s_client", "-connect", "192.168.0.104:443"])?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let middle = |pem: &str| pem.lines().nth(2).unwrap_or_default().to_owned();
    ensure!(served(&routes)?.contains(&middle(&before)), "another certificate than that of the file");
    certificate(routes.folder.path(), "next", CRM)?;
    let after = fs::read_to_string(routes.folder.path().join("next.crt"))?;
    // One after the other, as whoever renews them does: for a moment they don't go together.
    for kind in ["crt", "key"] {
        let place = |name: &str| routes.folder.path().join(format!("{name}.{kind}"));
        fs::rename(place("next"), place("crm"))?;
        std::thread::sleep(Duration::from_millis(300));
    }
    let end = Instant::now() + NOTICED;
    while !served(&routes)?.contains(&middle(&after)) {
        ensure!(Instant::now() < end, "the new certificate is not served: {}", routes.tollgate.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(!routes.tollgate.log().contains("new certificates are not used"), "half a pair was told of");
    // A key that does not fit is told of and not used.
    let other = rcgen::generate_simple_self_signed(["x".to_owned()])?;
    fs::write(routes.folder.path().join("crm.key"), other.signing_key.serialize_pem())?;
    let end = Instant::now() + PATIENCE;
    while !routes.tollgate.log().contains("new certificates are not used") {
        ensure!(Instant::now() < end, "nothing was said of the key: {}", routes.tollgate.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(served(&routes)?.contains(&middle(&after)), "the certificate of before is gone");
    // And an apply with it is refused, with everything as it was.
    let output = routes.tollgate.apply(&routes.policy())?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(2) && stderr.contains("crm.key"), "{:?} {stderr}", output.status);
    ensure!(routes.curl(Host::Lan, &["https://192.168.0.104/"])?.contains("port 8082"), "the CRM is gone");
    Ok(())
}

#[test]
fn a_policy_whose_address_is_taken_changes_nothing() -> Result<()> {
    let routes = Routes::start()?;
    let taken = routes.lab.ns(Host::Server).in_ns(|| Ok(std::net::TcpListener::bind("0.0.0.0:8099")?))?;
    let before = fs::read_to_string(routes.policy())?;
    let more = "\n[listeners.more]\nbind = [\"0.0.0.0:8099\"]\n\n[routes.more]\nlisteners = [\"more\"]\n\
                respond = { status = 200, body = \"more\" }\n";
    fs::write(routes.policy(), format!("{before}{more}"))?;
    let hash = routes.tollgate.status()?["policy"]["hash"].clone();
    let output = routes.tollgate.apply(&routes.policy())?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{:?} {stderr}", output.status);
    ensure!(stderr.contains("0.0.0.0:8099 can't be bound") && stderr.contains("ss -tlnp"), "{stderr}");
    ensure!(routes.tollgate.status()?["policy"]["hash"] == hash, "another policy is in force");
    drop(taken);
    let output = routes.tollgate.apply(&routes.policy())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let got = routes.curl(Host::Server, &["http://127.0.0.1:8099/"])?;
    ensure!(got.trim() == "200 more", "{got}");
    Ok(())
}

#[test]
fn who_floods_the_dashboard_is_answered_limited_and_then_banned() -> Result<()> {
    let routes = Routes::start()?;
    let before = fs::read_to_string(routes.policy())?;
    let limited: Vec<_> = before.lines().filter(|line| line.trim_start().starts_with("limit = {")).collect();
    let [limited] = limited[..] else { bail!("one route has a limit in line: {limited:?}") };
    let banning = "limit = { requests = \"10/m\", burst = 20, exceed = { ban = \"1h\", after = 30 } }";
    fs::write(routes.policy(), before.replace(limited, banning))?;
    let output = routes.tollgate.apply(&routes.policy())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let one = |host: Host| {
        routes.curl(host, &["--connect-timeout", "2", "-H", "Host: x.example", "http://192.168.0.104/"])
    };
    let mut statuses = Vec::new();
    let end = Instant::now() + PATIENCE;
    while listed(&routes.tollgate)?.is_empty() {
        ensure!(Instant::now() < end, "not banned after {statuses:?}: {}", routes.tollgate.log());
        statuses.push(one(Host::Lan)?.trim().chars().take(3).collect::<String>());
    }
    let served = statuses.iter().filter(|status| *status == "200").count();
    let refused = statuses.iter().filter(|status| *status == "429").count();
    // A minute has passed at most, which adds ten to the burst.
    ensure!((20..=30).contains(&served), "{served} were served: {statuses:?}");
    ensure!(refused >= 30, "{refused} were refused: {statuses:?}");
    let bans = listed(&routes.tollgate)?;
    ensure!(bans.len() == 1 && bans[0].0 == "192.168.0.50/32", "{bans:?}");
    let text = said(&routes.tollgate, &["bans"], 0)?;
    ensure!(text.contains("proxy: "), "{text}");
    ensure!(one(Host::Lan)?.trim().starts_with("000"), "the banned are served");
    // Who has the other seat on the same LAN is not: nor limited, though a browser asks for all of a page at once.
    let page = browser::page(&routes.lab.ns(Host::Lan2), "http://x.example/page?parts=15", "x.example", CRM)?;
    let missing: Vec<_> = (0..15).filter(|part| !page.contains(&format!("part {part};"))).collect();
    ensure!(
        missing.is_empty(),
        "parts {missing:?} of the page are missing: {page}\n{}",
        routes.tollgate.log()
    );
    Ok(())
}

#[test]
fn who_sends_garbage_in_place_of_tls_is_banned_and_who_distrusts_the_certificate_is_not() -> Result<()> {
    const AFTER: usize = 8;
    let routes = Routes::start()?;
    let before = fs::read_to_string(routes.policy())?;
    let abuse = format!("[proxy]\nabuse = {{ ban = \"1h\", after = {AFTER} }}\n");
    fs::write(routes.policy(), before.replace("[proxy]\n", &abuse))?;
    routes.tollgate.checked(&["apply", &routes.policy().display().to_string()])?;
    // Neither a client without the issuer, nor one that forgot the `s`.
    for _ in 0..2 * AFTER {
        let output = routes.lab.ns(Host::Lan2).output(&["curl", "-sS", "https://192.168.0.104/"])?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(60), "the certificate was believed: {stderr}");
        routes.curl(Host::Lan2, &["http://192.168.0.104:443/"])?;
    }
    let garbage = || -> Result<()> {
        let mut stream = TcpStream::connect("192.168.0.104:443")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"\xde\xad\xbe\xef is no handshake")?;
        // Until the other end closes, by whatever means.
        let _ = stream.read_to_end(&mut Vec::new());
        Ok(())
    };
    for _ in 1..AFTER {
        routes.lab.ns(Host::Lan).in_ns(garbage)?;
    }
    ensure!(listed(&routes.tollgate)?.is_empty(), "banned before it was too much: {}", routes.tollgate.log());
    routes.lab.ns(Host::Lan).in_ns(garbage)?;
    let end = Instant::now() + PATIENCE;
    while listed(&routes.tollgate)?.is_empty() {
        ensure!(Instant::now() < end, "not banned: {}", routes.tollgate.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let bans = listed(&routes.tollgate)?;
    ensure!(bans.len() == 1 && bans[0].0 == "192.168.0.50/32", "{bans:?}");
    ensure!(
        routes.curl(Host::Lan2, &["https://192.168.0.104/"])?.contains("port 8082"),
        "who did nothing wrong"
    );
    Ok(())
}

#[test]
fn a_daemon_that_is_killed_and_started_again_serves_again() -> Result<()> {
    let mut routes = Routes::start()?;
    let worker = routes.worker()?;
    routes.tollgate.kill().context("killing the daemon")?;
    routes.tollgate.restart()?;
    routes.worker_besides(worker)?;
    let end = Instant::now() + PATIENCE;
    while !routes.curl(Host::Lan, &["https://192.168.0.104/"])?.contains("port 8082") {
        ensure!(Instant::now() < end, "nothing serves: {}", routes.tollgate.log());
    }
    let end = Instant::now() + PATIENCE;
    while Path::new(&format!("/proc/{worker}")).exists() {
        ensure!(Instant::now() < end, "the worker of the daemon before is still there");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[test]
fn routes_go_back_with_a_policy_that_is_taken_back() -> Result<()> {
    let routes = Routes::start()?;
    let before = fs::read_to_string(routes.policy())?;
    let more = "\n[listeners.more]\nbind = [\"127.0.0.1:8099\"]\n\n[routes.more]\nlisteners = [\"more\"]\n\
                respond = { status = 200, body = \"more\" }\n";
    fs::write(routes.policy(), format!("{before}{more}"))?;
    let path = routes.policy().display().to_string();
    routes.tollgate.checked(&["apply", "--confirm", "600s", &path])?;
    let more = || routes.curl(Host::Server, &["http://127.0.0.1:8099/"]);
    ensure!(more()?.trim() == "200 more", "the new route is not served: {}", routes.tollgate.log());
    // By a command, which does it without the daemon.
    routes.tollgate.checked(&["rollback"])?;
    let end = Instant::now() + PATIENCE;
    while !more()?.trim().starts_with("000") {
        ensure!(Instant::now() < end, "the route is served still: {}", routes.tollgate.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let got = routes.curl(Host::Lan, &["https://192.168.0.104/"])?;
    ensure!(got.contains("port 8082"), "{got}: {}", routes.tollgate.log());
    Ok(())
}

#[test]
fn another_number_of_threads_is_another_process_and_costs_nobody_an_answer() -> Result<()> {
    let routes = Routes::start()?;
    let threads = |pid: i32| -> Result<usize> {
        let names = fs::read_dir(format!("/proc/{pid}/task"))?
            .map(|task| Ok(fs::read_to_string(task?.path().join("comm"))?))
            .collect::<Result<Vec<String>>>()?;
        Ok(names.iter().filter(|name| name.starts_with("serve-")).count())
    };
    let worker = routes.worker()?;
    let processors = std::thread::available_parallelism()?.get().min(64);
    ensure!(threads(worker)? == processors, "{} threads, {processors} processors", threads(worker)?);
    // A client in the middle of a connection.
    let connect = || Ok(TcpStream::connect((SERVER_V4, 80))?);
    let mut client = routes.lab.ns(Host::Lan).in_ns(connect)?;
    client.set_read_timeout(Some(PATIENCE))?;
    let mut ask = || -> Result<String> {
        client.write_all(b"GET / HTTP/1.1\r\nHost: x.example\r\n\r\n")?;
        let (mut answer, mut part) = (String::new(), [0; 4096]);
        loop {
            let read = client.read(&mut part)?;
            ensure!(read > 0, "closed after {answer:?}");
            answer.push_str(&String::from_utf8_lossy(&part[..read]));
            let Some((head, body)) = answer.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.parse().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return Ok(answer);
            }
        }
    };
    ensure!(ask()?.starts_with("HTTP/1.1 200"), "no answer before");
    let before = fs::read_to_string(routes.policy())?;
    fs::write(routes.policy(), before.replacen("[proxy]\n", "[proxy]\nthreads = 1\n", 1))?;
    let output = routes.tollgate.apply(&routes.policy())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let next = routes.worker_besides(worker)?;
    ensure!(threads(next)? == 1, "{} threads, one was asked for", threads(next)?);
    ensure!(ask()?.starts_with("HTTP/1.1 200"), "the connection of before gets no answer");
    let got = routes.curl(Host::Lan, &["https://192.168.0.104/"])?;
    ensure!(got.contains("port 8082"), "{got}");
    Ok(())
}
