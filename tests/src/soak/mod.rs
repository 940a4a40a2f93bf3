//! A long load of mixed traffic through the L7 proxy while everything changes: policies are applied ten times a second, certificates are
//! replaced each second, upstreams die and come back. Beside it nginx, which nobody touches, serves the same load from the same
//! upstreams. Run by the test `soak` for a while and by `cargo xtask soak` for as long as asked.
//!
//! ```text
//! clients ─┬─ tollgate :80 :443   ─┬─ upstream 1, dies and comes back
//!          └─ nginx    :8080 :8443 ─┴─ upstream 2, dies and comes back
//! ```

pub mod certificates;
pub mod client;
pub mod ledger;
pub mod upstream;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;

use self::certificates::Authority;
use self::client::{Crowd, Kind, NAME};
use self::ledger::Ledger;
use self::upstream::Upstream;
use crate::lab::{Host, Lab, Ns, SERVER_V4, UPLINK};
use crate::services::{Nginx, TEMP_PREFIX};
use crate::tollgate::Tollgate;

/// Where the upstreams listen.
const UPSTREAMS: [&str; 2] = ["127.0.0.1:9001", "127.0.0.1:9002"];
/// Between two applies.
const APPLY_EVERY: Duration = Duration::from_millis(100);
/// Between two replacements of the certificate.
const REPLACE_EVERY: Duration = Duration::from_secs(1);
/// Every so many replacements take a moment in which key and certificate do not fit.
const UNFIT_EVERY: u64 = 4;
const UNFIT_FOR: Duration = Duration::from_millis(250);
/// An upstream dies so often, the two in turn, and is gone for so long.
const DIES_EVERY: Duration = Duration::from_secs(3);
const GONE_FOR: Duration = Duration::from_secs(1);

/// What came of it.
pub struct Report {
    /// Through Tollgate, then through nginx.
    pub crowds: [Arc<Crowd>; 2],
    /// Policies that were applied.
    pub applied: u64,
    /// Policies that were refused because a key did not fit its certificate at that moment.
    pub refused: u64,
    /// Certificates that were replaced.
    pub replaced: u64,
    /// Upstreams that died.
    pub deaths: usize,
    /// Processes that served clients, one after the other.
    pub workers: Vec<u32>,
    /// Resident memory of the worker after the first quarter and at the end, in KiB.
    pub resident: [u64; 2],
    /// What the daemon said.
    pub log: String,
}

/// Runs it for so long.
pub fn run(length: Duration) -> Result<Report> {
    let prefix = format!("{TEMP_PREFIX}{}-soak-", std::process::id());
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
    let authority = Authority::new()?;
    authority.write(folder.path(), NAME)?;
    let lab = Lab::new()?;
    let server = lab.ns(Host::Server);
    let ledger = Arc::<Ledger>::default();
    let policies = [0, 1].map(|turn| folder.path().join(format!("policy-{turn}.toml")));
    for (turn, path) in policies.iter().enumerate() {
        fs::write(path, policy(folder.path(), turn))?;
    }
    let lives = Lives { ns: server.clone(), ledger: Arc::clone(&ledger), next: AtomicU64::new(0) };
    let first = [lives.start(0)?, lives.start(1)?];
    let nginx = Nginx::start(&server, 2, &beside(&folder))?;
    let tollgate = Tollgate::start(&lab, &policies[0], &[])?;
    let (began, until) = (Instant::now(), Instant::now() + length);
    let next = Arc::new(AtomicU64::new(1));
    let address: Ipv4Addr = SERVER_V4.parse()?;
    let crowds = [("tollgate", 80, 443), ("nginx", 8080, 8443)].map(|(proxy, plain, tls)| {
        Arc::new(Crowd {
            proxy,
            plain: (address, plain).into(),
            tls: (address, tls).into(),
            trust: authority.trust(b"http/1.1"),
            trust_http2: authority.trust(b"h2"),
            ledger: Arc::clone(&ledger),
            next: Arc::clone(&next),
            until,
            tallies: Mutex::new(BTreeMap::new()),
        })
    });
    wait_for(&lab, &crowds)?;
    let over = AtomicBool::new(false);
    let (resident, changes) = thread::scope(|scope| {
        let applying = scope.spawn(|| apply(&tollgate, &policies, &over));
        let replacing = scope.spawn(|| replace(&authority, folder.path(), &over));
        let dying = scope.spawn(|| lives.take_turns(first, &over));
        let clients = crowds.each_ref().map(|crowd| {
            let lan = lab.ns(Host::Lan);
            scope.spawn(move || lan.in_ns(|| runtime()?.block_on(crowd.run())))
        });
        let memory = || -> Result<[u64; 2]> {
            thread::sleep((began + length / 4).saturating_duration_since(Instant::now()));
            let early = resident(&tollgate)?;
            thread::sleep(until.saturating_duration_since(Instant::now()));
            Ok([early, resident(&tollgate)?])
        };
        let resident = memory();
        let panicked = |_| anyhow!("a thread panicked");
        let asked = clients.map(|client| client.join().map_err(panicked).and_then(|asked| asked));
        over.store(true, Ordering::Relaxed);
        let applied = applying.join().map_err(panicked)??;
        let replaced = replacing.join().map_err(panicked)??;
        dying.join().map_err(panicked)??;
        asked.into_iter().collect::<Result<Vec<()>>>()?;
        Ok::<_, anyhow::Error>((resident?, (applied, replaced)))
    })?;
    drop(nginx);
    let ((applied, refused), replaced) = changes;
    let log = tollgate.log();
    let workers = workers(&log);
    Ok(Report { crowds, applied, refused, replaced, deaths: ledger.deaths(), workers, resident, log })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    // One thread: it is in the namespace.
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Until both serve.
fn wait_for(lab: &Lab, crowds: &[Arc<Crowd>; 2]) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    for address in crowds.iter().flat_map(|crowd| [crowd.plain, crowd.tls]) {
        while lab.ns(Host::Lan).in_ns(|| Ok(std::net::TcpStream::connect(address)?)).is_err() {
            ensure!(Instant::now() < end, "nothing listens at {address}");
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Two policies that serve the same, with other headers, and of which one has a listener more.
fn policy(folder: &Path, turn: usize) -> String {
    let more = match turn {
        0 => "",
        _ => {
            "\n[listeners.more]\nbind = \"127.0.0.1:8099\"\n\n[routes.more]\nlisteners = \"more\"\nrespond = { status = 204 }\n"
        }
    };
    format!(
        "version = 1\n\n[interfaces.{UPLINK}]\ndefault = \"drop\"\n\n\
         [services.web]\nports = [\"tcp/80\", \"tcp/443\", \"tcp/8080\", \"tcp/8443\"]\nallow = \"any\"\n\n\
         [proxy]\nheaders = {{ X-Turn = \"{turn}\" }}\naccess-log = \"{dir}/access.log\"\n\n\
         [listeners.http]\nbind = \":80\"\n\n\
         [listeners.https]\nbind = \":443\"\n\
         tls = {{ certificates = [{{ chain = \"{dir}/site.crt\", key = \"{dir}/site.key\" }}] }}\n\n\
         [upstreams.app]\nservers = [\"{}\", \"{}\"]\nrest = \"1s\"\n\n\
         [routes.app]\nlisteners = [\"http\", \"https\"]\nto = \"app\"\nwebsocket = true\n{more}",
        UPSTREAMS[0],
        UPSTREAMS[1],
        dir = folder.display(),
    )
}

/// The same for nginx, with a certificate of its own that stays.
fn beside(folder: &TempDir) -> String {
    let certificate = |what| folder.path().join(format!("stays.{what}")).display().to_string();
    format!(
        "upstream app {{\n  server {} max_fails=3 fail_timeout=1s;\n  server {} max_fails=3 fail_timeout=1s;\n  keepalive 32;\n}}\n\
         map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}\n\
         server {{\n  listen 8080;\n  listen 8443 ssl http2;\n  ssl_certificate {};\n  ssl_certificate_key {};\n\
         keepalive_requests 1000000;\n  location / {{\n    proxy_pass http://app;\n    proxy_http_version 1.1;\n\
         proxy_set_header Host $host;\n    proxy_set_header Upgrade $http_upgrade;\n    proxy_set_header Connection $connection_upgrade;\n  }}\n}}",
        UPSTREAMS[0],
        UPSTREAMS[1],
        certificate("crt"),
        certificate("key"),
    )
}

/// Applies the policies in turn; gives how many were applied, and how many refused for a key that did not fit.
fn apply(tollgate: &Tollgate, policies: &[std::path::PathBuf; 2], over: &AtomicBool) -> Result<(u64, u64)> {
    let (mut applied, mut refused) = (0, 0);
    for path in policies.iter().rev().cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let next = Instant::now() + APPLY_EVERY;
        let output = tollgate.apply(path)?;
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => applied += 1,
            // The moment in which it does not fit.
            Some(2) if said.contains("site.key") => refused += 1,
            code => return Err(anyhow!("apply ended with {code:?}: {said}")),
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok((applied, refused))
}

/// Replaces key and certificate, file by file, as tools do.
fn replace(authority: &Authority, folder: &Path, over: &AtomicBool) -> Result<u64> {
    let mut replaced = 0;
    while !over.load(Ordering::Relaxed) {
        let next = Instant::now() + REPLACE_EVERY;
        let unfit = if replaced % UNFIT_EVERY == 0 { UNFIT_FOR } else { Duration::ZERO };
        authority.replace(folder, NAME, unfit)?;
        replaced += 1;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(replaced)
}

/// Starts upstreams, each life with a number of its own.
struct Lives {
    ns: Ns,
    ledger: Arc<Ledger>,
    next: AtomicU64,
}

impl Lives {
    fn start(&self, which: usize) -> Result<Upstream> {
        let life = self.next.fetch_add(1, Ordering::Relaxed) as ledger::Life;
        Upstream::start(&self.ns, UPSTREAMS[which], life, Arc::clone(&self.ledger))
    }

    /// One dies, comes back, then the other.
    fn take_turns(&self, first: [Upstream; 2], over: &AtomicBool) -> Result<()> {
        let mut upstreams = first.map(Some);
        let mut which = 0;
        while !over.load(Ordering::Relaxed) {
            thread::sleep(DIES_EVERY - GONE_FOR);
            upstreams[which].take().context("it lives")?.kill()?;
            thread::sleep(GONE_FOR);
            upstreams[which] = Some(self.start(which)?);
            which = 1 - which;
        }
        Ok(())
    }
}

/// The processes that served, by the daemon's log.
fn workers(log: &str) -> Vec<u32> {
    let of = |line: &str| line.split("the proxy's worker is process ").nth(1)?.trim().parse().ok();
    log.lines().filter_map(of).collect()
}

/// Resident memory of the process that serves, in KiB.
fn resident(tollgate: &Tollgate) -> Result<u64> {
    let worker = *workers(&tollgate.log()).last().context("no worker")?;
    let status = fs::read_to_string(format!("/proc/{worker}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim_end_matches("kB").trim().parse()?)
}

impl Report {
    /// Failures through a proxy that it could have helped, by the reckoning of [`Ledger::excuse`].
    pub fn failed(&self, proxy: &str) -> u64 {
        let crowds = self.crowds.iter().filter(|crowd| crowd.proxy == proxy);
        crowds.map(|crowd| crowd.sum(|tally| tally.failed)).sum()
    }

    /// Kinds of which nothing was answered through a proxy.
    pub fn silent(&self) -> Vec<String> {
        let mut silent = Vec::new();
        for crowd in &self.crowds {
            let tallies = crowd.tallies.lock().unwrap_or_else(PoisonError::into_inner);
            let kinds = Kind::ALL
                .iter()
                .filter(|(kind, _)| tallies.get(kind).is_none_or(|tally| tally.answered == 0));
            silent.extend(kinds.map(|(kind, _)| format!("{} {kind:?}", crowd.proxy)));
        }
        silent
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} policies applied, {} refused while a key did not fit; {} certificates replaced; {} deaths of upstreams; \
             {} workers, {} KiB then {} KiB",
            self.applied,
            self.refused,
            self.replaced,
            self.deaths,
            self.workers.len(),
            self.resident[0],
            self.resident[1],
        )?;
        for crowd in &self.crowds {
            write!(f, "{crowd}")?;
            crowd.described().iter().try_for_each(|one| writeln!(f, "  {one}"))?;
        }
        Ok(())
    }
}
