//! The proxy before one upstream, with every host and path passed on: what hostile clients and suites of others are let loose on.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tempfile::TempDir;

use crate::certificates::Chain;
use crate::lab::{Host, Lab};
use crate::services::TEMP_PREFIX;
use crate::tollgate::Tollgate;

/// The name that its certificate is for, beside the server's addresses and `localhost`.
pub const NAME: &str = "a.example";
/// Its listeners, on all addresses of the server.
pub const HTTP: u16 = 80;
/// The same with TLS, HTTP/2 included.
pub const HTTPS: u16 = 443;
/// For the worker to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon with a proxy on the lab's server. Dropping it ends both.
#[derive(Debug)]
pub struct Proxied {
    /// The daemon.
    pub tollgate: Tollgate,
    /// What the proxy shows to clients.
    pub chain: Chain,
    folder: TempDir,
}

impl Proxied {
    /// Starts it before an upstream of the server (address and port), with these lines in `[proxy]` of the policy.
    ///
    /// # Errors
    /// A policy that is refused, or a proxy that does not listen within a minute.
    pub fn before(lab: &Lab, upstream: &str, settings: &str) -> Result<Self> {
        let prefix = format!("{TEMP_PREFIX}{}-proxied-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let chain = Chain::issue(folder.path(), &[NAME, "localhost", "127.0.0.1", crate::lab::SERVER_V4])?;
        let policy = folder.path().join("policy.toml");
        fs::write(&policy, text(&chain, upstream, settings))?;
        let tollgate = Tollgate::start(lab, &policy, &[])?;
        let proxied = Self { tollgate, chain, folder };
        for port in [HTTP, HTTPS] {
            proxied.listens(lab, port)?;
        }
        Ok(proxied)
    }

    /// Where other files may be put; it goes with the proxy.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn listens(&self, lab: &Lab, port: u16) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while lab.ns(Host::Server).in_ns(|| Ok(TcpStream::connect(("127.0.0.1", port))?)).is_err() {
            if Instant::now() > end {
                bail!("nothing listens on port {port}: {}", self.tollgate.log());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

fn text(chain: &Chain, upstream: &str, settings: &str) -> String {
    let (files, key) = (chain.chain.display(), chain.key.display());
    format!(
        "version = 1\n[interfaces.wlp2s0]\n[services.web]\nports = [\"tcp/{HTTP}\", \"tcp/{HTTPS}\"]\nallow = \"any\"\n\
         [proxy]\n{settings}\n[listeners.http]\nbind = \":{HTTP}\"\n[listeners.https]\nbind = \":{HTTPS}\"\n\
         tls = {{ certificates = [{{ chain = \"{files}\", key = \"{key}\" }}] }}\n\
         [upstreams.app]\nservers = [\"{upstream}\"]\n[routes.app]\nlisteners = [\"http\", \"https\"]\nto = \"app\"\n\
         websocket = true\n"
    )
}
