//! An authority that issues certificates by ACME: Pebble, outside the router, with a DNS server of its own that knows one
//! address for every name. It looks at challenges as the public ones do, at ports 80 and 443.

use std::fs;
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::TEMP_PREFIX;
use crate::lab::{Host, Lab, OUTSIDE_V4, SERVER_V4};

/// Longer than it takes to start on any machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PORT: u16 = 14000;
const MANAGEMENT: u16 = 15000;
const DNS: u16 = 8053;

/// Its files, which outlive it.
#[derive(Debug)]
pub struct PebbleFiles {
    folder: TempDir,
}

/// A running one. What it knows of accounts, orders and keys ends with it.
#[derive(Debug)]
pub struct Pebble {
    // Dropped in this order.
    pebble: Process,
    _dns: Process,
}

/// A process that ends with this.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl PebbleFiles {
    /// Makes its certificate, for its address, and the root that clients trust for it.
    pub fn new() -> Result<Self> {
        let prefix = format!("{TEMP_PREFIX}{}-pebble-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let root_key = rcgen::KeyPair::generate()?;
        let mut root = rcgen::CertificateParams::default();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        // Another name than the server's: who has the same for both is taken for its own issuer.
        root.distinguished_name.push(rcgen::DnType::CommonName, "root of the lab's authority");
        let root_pem = root.self_signed(&root_key)?.pem();
        let issuer = rcgen::Issuer::new(root, root_key);
        let key = rcgen::KeyPair::generate()?;
        let mut own = rcgen::CertificateParams::default();
        let address: IpAddr = OUTSIDE_V4.parse()?;
        own.subject_alt_names = vec![rcgen::SanType::IpAddress(address)];
        let own = own.signed_by(&key, &issuer)?;
        fs::write(folder.path().join("root.pem"), root_pem)?;
        fs::write(folder.path().join("own.pem"), own.pem())?;
        fs::write(folder.path().join("own.key"), key.serialize_pem())?;
        Ok(Self { folder })
    }

    /// The root of its web server: what a policy names as `ca`.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://{OUTSIDE_V4}:{PORT}/dir")
    }

    /// Starts one whose certificates are good for so long. Every name is the server's.
    pub fn start(&self, lab: &Lab, good_for: Duration) -> Result<Pebble> {
        self.start_with(lab, good_for, SERVER_V4)
    }

    /// Starts one that finds every name at this address.
    pub fn start_with(&self, lab: &Lab, good_for: Duration, address: &str) -> Result<Pebble> {
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("{OUTSIDE_V4}:{PORT}"),
            "managementListenAddress": format!("{OUTSIDE_V4}:{MANAGEMENT}"),
            "certificate": self.folder.path().join("own.pem"),
            "privateKey": self.folder.path().join("own.key"),
            "httpPort": 80,
            "tlsPort": 443,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": good_for.as_secs(),
        }});
        let path = self.folder.path().join("pebble.json");
        fs::write(&path, config.to_string())?;
        let log = self.folder.path().join("pebble.log");
        let ns = lab.ns(Host::Outside);
        let started = |mut command: Command| -> Result<Process> {
            let file = fs::File::options().create(true).append(true).open(&log)?;
            command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
            Ok(Process(command.spawn().context("starting Pebble (Debian: apt-get install pebble)")?))
        };
        let mut dns = ns.command("pebble-challtestsrv");
        dns.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", "127.0.0.1:8055"]);
        dns.args(["-dns01", &format!("127.0.0.1:{DNS}"), "-defaultIPv4", address, "-defaultIPv6", ""]);
        let dns = started(dns)?;
        let mut pebble = ns.command("pebble");
        pebble.args(["-dnsserver", &format!("127.0.0.1:{DNS}"), "-config"]).arg(&path);
        pebble.env("PEBBLE_VA_NOSLEEP", "1");
        let mut pebble = Pebble { pebble: started(pebble)?, _dns: dns };
        let end = Instant::now() + PATIENCE;
        for port in [PORT, MANAGEMENT] {
            while ns.in_ns(|| Ok(TcpStream::connect((OUTSIDE_V4, port)).is_err()))? {
                if let Some(status) = pebble.pebble.0.try_wait()? {
                    bail!("Pebble ended ({status}): {}", fs::read_to_string(&log)?);
                }
                ensure!(Instant::now() < end, "Pebble does not listen: {}", fs::read_to_string(&log)?);
                thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(pebble)
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("pebble.log")).unwrap_or_default()
    }

    /// Writes the root of the certificates that it issues into a file: another one each time that it starts.
    pub fn issued_root(&self, lab: &Lab, into: &Path) -> Result<()> {
        let url = format!("https://{OUTSIDE_V4}:{MANAGEMENT}/roots/0");
        let (root, into) = (self.root().display().to_string(), into.display().to_string());
        let argv = ["curl", "-sS", "--fail", "--max-time", "30", "--cacert", &root, "-o", &into, &url];
        lab.ns(Host::Outside).run(&argv).map(drop)
    }
}
