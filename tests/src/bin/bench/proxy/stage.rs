//! What is measured and what stands behind it: three proxies on loopback in a namespace, each before the same upstream. Built by
//! `mod.rs`; dropped, all of it ends.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tollgate_tests::Tollgate;
use tollgate_tests::lab::Lab;
use tollgate_tests::services::TEMP_PREFIX;

use super::client::{self, Connection, Fate, NAME};
use super::configuration::{self, SOCKETS};
use super::family::Family;
use super::websocket;

/// For whatever has to happen before something can be measured.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// This project's proxy.
    Tollgate,
    /// What it is compared with.
    Nginx,
    /// For information.
    Haproxy,
}

impl Contender {
    /// In the order of the tables.
    pub const ALL: [Self; 3] = [Self::Tollgate, Self::Nginx, Self::Haproxy];

    /// For tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tollgate => "Tollgate",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
        }
    }

    /// Where it listens with a P-256 certificate.
    pub fn ecdsa(self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 4431 + 10 * self as u16))
    }

    /// The same with RSA-2048.
    pub fn rsa(self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 4432 + 10 * self as u16))
    }
}

/// All of it, ready.
pub struct Stage {
    /// Clients' tasks and the servers of WebSockets.
    pub runtime: Runtime,
    /// For clients that speak HTTP/1.1 and HTTP/2.
    pub http1: Arc<ClientConfig>,
    pub http2: Arc<ClientConfig>,
    /// What the daemon's memory is without a proxy.
    pub before: u64,
    tollgate: Tollgate,
    // Before the folder that they write into.
    servers: [Server; 3],
    folder: TempDir,
}

/// A server of Debian's packages; asked to end when it is dropped.
struct Server(Child);

impl Server {
    fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let log = File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self(command.spawn().with_context(|| format!("starting {command:?}"))?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            let _ = self.0.wait();
        }
    }
}

impl Stage {
    /// Called by a thread that is in the lab's namespace of the server.
    pub fn build(lab: &Lab) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let prefix = format!("{TEMP_PREFIX}{}-bench-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let path = folder.path();
        let certificates = [
            certificate(path, "ecdsa", &PKCS_ECDSA_P256_SHA256)?,
            certificate(path, "rsa", &PKCS_RSA_SHA256)?,
        ];
        for file in ["policy", "other"] {
            fs::write(path.join(format!("{file}.toml")), configuration::policy(path, file == "other"))?;
        }
        fs::write(path.join("bare.toml"), configuration::BARE)?;
        fs::write(path.join("1m"), vec![b'x'; 1 << 20])?;
        let nginx = |name: &str, text: String| -> Result<Server> {
            let file = path.join(format!("{name}.conf"));
            fs::write(&file, text)?;
            let mut command = Command::new("nginx");
            command.arg("-p").arg(path).arg("-c").arg(&file).args(["-g", "daemon off;"]);
            Server::start(&mut command, &path.join(format!("{name}.log")))
        };
        let upstream = nginx("upstream", configuration::upstream(path))?;
        runtime.block_on(websocket::serve(SOCKETS))?;
        let start = |file: &str| -> Result<(Tollgate, u64)> {
            let tollgate = Tollgate::start(lab, &path.join(file), &[])?;
            // It goes on for a moment after it says that it enforces.
            thread::sleep(Duration::from_secs(2));
            let memory = Family::of(tollgate.pid().context("no daemon")?)?.memory()?;
            Ok((tollgate, memory))
        };
        let (_, before) = start("bare.toml")?;
        let (tollgate, _) = start("policy.toml")?;
        let nginx = nginx("nginx", configuration::nginx(path))?;
        fs::write(path.join("haproxy.cfg"), configuration::haproxy(path))?;
        let mut haproxy = Command::new("haproxy");
        haproxy.args(["-W", "-f"]).arg(path.join("haproxy.cfg")).arg("-p").arg(path.join("haproxy.pid"));
        let haproxy = Server::start(&mut haproxy, &path.join("haproxy.log"))?;
        let stage = Self {
            http1: client::config(&certificates, "http/1.1")?,
            http2: client::config(&certificates, "h2")?,
            runtime,
            before,
            tollgate,
            servers: [upstream, nginx, haproxy],
            folder,
        };
        for contender in Contender::ALL {
            for address in [contender.ecdsa(), contender.rsa()] {
                stage
                    .answers(address)
                    .with_context(|| format!("{}: {}", contender.name(), stage.log(contender)))?;
            }
        }
        Ok(stage)
    }

    /// Waits until there is an answer over HTTP/1.1 and over HTTP/2.
    fn answers(&self, address: SocketAddr) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        for config in [&self.http1, &self.http2] {
            loop {
                let answered = self.runtime.block_on(async {
                    let mut connection = Connection::open(address, config).await?;
                    anyhow::Ok(connection.ask().await)
                });
                match answered {
                    Ok(Fate::Answered) => break,
                    other => ensure!(Instant::now() < end, "{address} does not answer: {other:?}"),
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }

    fn log(&self, contender: Contender) -> String {
        let file = |name: &str| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        match contender {
            Contender::Tollgate => self.tollgate.log(),
            Contender::Nginx => file("nginx.log"),
            Contender::Haproxy => file("haproxy.log"),
        }
    }

    fn root(&self, contender: Contender) -> Result<u32> {
        match contender {
            Contender::Tollgate => self.tollgate.pid().context("no daemon"),
            Contender::Nginx => Ok(self.servers[1].0.id()),
            Contender::Haproxy => Ok(self.servers[2].0.id()),
        }
    }

    /// Its processes now.
    pub fn family(&self, contender: Contender) -> Result<Family> {
        Family::of(self.root(contender)?)
    }

    /// Has it take another configuration, each time, as its own manual says; for nginx and HAProxy that is new processes.
    pub fn reload(&self, contender: Contender, turn: usize) -> Result<()> {
        let signal = match contender {
            Contender::Tollgate => {
                let file = if turn.is_multiple_of(2) { "policy.toml" } else { "other.toml" };
                let output = self.tollgate.apply(&self.folder.path().join(file))?;
                let said = String::from_utf8_lossy(&output.stderr);
                ensure!(output.status.success(), "tollgate apply: {said}");
                return Ok(());
            }
            Contender::Nginx => Signal::SIGHUP,
            Contender::Haproxy => Signal::SIGUSR2,
        };
        Ok(kill(Pid::from_raw(i32::try_from(self.root(contender)?)?), signal)?)
    }

    /// Lines of its access log.
    pub fn logged(&self, contender: Contender) -> Result<u64> {
        let file = match contender {
            Contender::Tollgate => "tollgate-access.log",
            Contender::Nginx => "nginx-access.log",
            Contender::Haproxy => "haproxy.log",
        };
        let bytes = fs::read(self.folder.path().join(file))?;
        Ok(bytes.iter().filter(|byte| **byte == b'\n').count() as u64)
    }

    /// The folder of all files.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

/// A certificate that signs itself, as each contender wants it: chain and key apart, and in one file.
fn certificate(
    folder: &Path,
    file: &str,
    algorithm: &'static SignatureAlgorithm,
) -> Result<CertificateDer<'static>> {
    let key = KeyPair::generate_for(algorithm)?;
    let certificate = CertificateParams::new([NAME.to_owned()])?.self_signed(&key)?;
    let (chain, private) = (certificate.pem(), key.serialize_pem());
    fs::write(folder.join(format!("{file}.crt")), &chain)?;
    for (ending, text) in [("key", private.clone()), ("pem", format!("{chain}{private}"))] {
        let path = folder.join(format!("{file}.{ending}"));
        fs::write(&path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    Ok(certificate.der().clone())
}

/// What of each is installed.
pub fn versions() -> Result<[String; 3]> {
    let first = |program: &str| -> Result<String> {
        let output =
            Command::new(program).arg("-v").output().with_context(|| format!("starting {program}"))?;
        let text = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
    };
    let number = |line: String| {
        let found =
            line.split([' ', '/', '-']).find(|word| word.starts_with(|byte: char| byte.is_ascii_digit()));
        found.map(str::to_owned).context(line.clone())
    };
    let ours = env!("CARGO_PKG_VERSION").to_owned();
    Ok([ours, number(first("nginx")?)?, number(first("haproxy")?)?])
}
