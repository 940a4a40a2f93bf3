//! Where the shapes are sent: the deployment's applications by the real Django, the routes that ship on one address of the server, and
//! nginx with the same routes on another.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::odd::Odd;
use super::outcome::{Outcome, Seen, flat};
use super::{HERE, How, NGINX, Shape, Via, wire};
use crate::lab::{Host, Lab, UPLINK};
use crate::routes::platform;
use crate::services::django::Server;
use crate::services::{Django, Nginx, Postgres, TEMP_PREFIX};
use crate::tollgate::Tollgate;

/// Longer than anything takes on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);
/// Refused while the application still reads: its note follows the answer.
const A_MOMENT: Duration = Duration::from_millis(30);

/// What each application of the deployment is served by.
const APPLICATIONS: [(Server, Ipv4Addr, u16); 4] = [
    (Server::Gunicorn(2), Ipv4Addr::UNSPECIFIED, 8000),
    (Server::Gunicorn(1), Ipv4Addr::LOCALHOST, 8081),
    (Server::Development, Ipv4Addr::UNSPECIFIED, 8082),
    (Server::Gunicorn(3), Ipv4Addr::UNSPECIFIED, 8083),
];
/// The upstream that answers with odd bytes.
const ODD: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8090);

/// Routes beside those that ship: to the odd upstream, also with little patience, to one that refuses, and to one that says nothing.
const MORE_ROUTES: &str = r#"
[upstreams.odd]
servers = "127.0.0.1:8090"

[upstreams.down]
servers = "127.0.0.1:8099"

[routes.odd]
listeners = "https"
hosts = "odd.example"
to = "odd"
websocket = true

[routes.part]
listeners = "https"
hosts = "part.example"
path = "/api"
to = "odd"

[upstreams.slow]
servers = "127.0.0.1:8090"
response-timeout = "1s"

[upstreams.away]
servers = "198.18.0.1:80"
connect-timeout = "1s"

[routes.slow]
listeners = "https"
hosts = "slow.example"
to = "slow"

[routes.away]
listeners = "https"
hosts = "away.example"
to = "away"

[routes.down]
listeners = "https"
hosts = "down.example"
to = "down"
"#;

/// What nginx was told before, with the same routes more.
const HTTP: &str = r#"
access_log off;
server_tokens on;
limit_req_zone $binary_remote_addr zone=dashboard:1m rate=10r/s;
add_header X-Frame-Options DENY;
add_header X-Content-Type-Options nosniff;
add_header X-XSS-Protection "1; mode=block";
proxy_set_header Host $host;
proxy_set_header X-Real-IP $remote_addr;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_set_header X-Forwarded-Proto $scheme;
ssl_protocols TLSv1.2 TLSv1.3;
server {
  listen 192.168.0.105:80;
  server_name 192.168.0.104;
  return 301 https://192.168.0.104$request_uri;
}
server {
  listen 192.168.0.105:80 default_server;
  server_name _;
  location / { limit_req zone=dashboard burst=20 nodelay; proxy_pass http://127.0.0.1:8081; }
}
server {
  listen 192.168.0.105:443 ssl http2 default_server;
  server_name 192.168.0.104;
  ssl_certificate CERTIFICATES/crm.crt;
  ssl_certificate_key CERTIFICATES/crm.key;
  location / { proxy_pass http://127.0.0.1:8082; proxy_read_timeout 120s; }
}
server {
  listen 192.168.0.105:443 ssl http2;
  server_name dashboard.krystal.technology;
  ssl_certificate CERTIFICATES/dashboard.crt;
  ssl_certificate_key CERTIFICATES/dashboard.key;
  location / { proxy_pass http://127.0.0.1:8000; }
}
server {
  listen 192.168.0.105:443 ssl http2;
  server_name odd.example;
  ssl_certificate CERTIFICATES/crm.crt;
  ssl_certificate_key CERTIFICATES/crm.key;
  location / { proxy_pass http://127.0.0.1:8090; }
  location /ws {
    proxy_pass http://127.0.0.1:8090;
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";
    proxy_set_header Host $host;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
  }
}
server {
  listen 192.168.0.105:443 ssl http2;
  server_name part.example;
  ssl_certificate CERTIFICATES/crm.crt;
  ssl_certificate_key CERTIFICATES/crm.key;
  location / { return 404; }
  location /api/ { proxy_pass http://127.0.0.1:8090; }
}
server {
  listen 192.168.0.105:443 ssl http2;
  server_name slow.example;
  ssl_certificate CERTIFICATES/crm.crt;
  ssl_certificate_key CERTIFICATES/crm.key;
  location / { proxy_pass http://127.0.0.1:8090; proxy_read_timeout 1s; }
}
server {
  listen 192.168.0.105:443 ssl http2;
  server_name away.example;
  ssl_certificate CERTIFICATES/crm.crt;
  ssl_certificate_key CERTIFICATES/crm.key;
  location / { proxy_pass http://198.18.0.1:80; proxy_connect_timeout 1s; }
}
server {
  listen 192.168.0.105:443 ssl http2;
  server_name down.example;
  ssl_certificate CERTIFICATES/crm.crt;
  ssl_certificate_key CERTIFICATES/crm.key;
  location / { proxy_pass http://127.0.0.1:8099; }
}
server {
  listen 127.0.0.2:8006;
  location / { proxy_pass http://127.0.0.1:8081; }
}
"#;

/// One of the two proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// nginx.
    Nginx,
    /// Tollgate.
    Here,
}

impl Side {
    const fn address(self) -> Ipv4Addr {
        match self {
            Self::Nginx => NGINX,
            Self::Here => HERE,
        }
    }
}

/// Everything runs. Fields are dropped in this order.
#[derive(Debug)]
pub struct Stage {
    /// The proxy under test, in its firewall.
    pub tollgate: Tollgate,
    nginx: Nginx,
    applications: Vec<Django>,
    odd: Odd,
    _postgres: Postgres,
    /// The namespaces.
    pub lab: Lab,
    _folder: TempDir,
}

impl Stage {
    /// Builds the lab and starts both.
    pub fn start() -> Result<Self> {
        let prefix = format!("{TEMP_PREFIX}{}-parity-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let lab = Lab::new()?;
        let server = lab.ns(Host::Server);
        server.run(&["ip", "addr", "add", &format!("{NGINX}/24"), "dev", UPLINK])?;
        let mut applications: Vec<Django> = APPLICATIONS
            .iter()
            .map(|(kind, address, port)| Django::start(&server, *kind, SocketAddr::from((*address, *port))))
            .collect::<Result<_>>()?;
        let postgres = Postgres::start(&lab)?;
        let odd = Odd::start(&server, ODD.into())?;
        let policy = folder.path().join("policy.toml");
        fs::write(&policy, Self::policy(folder.path())?)?;
        let http = HTTP.replace("CERTIFICATES", &folder.path().display().to_string());
        let nginx = Nginx::start(&server, 1, &http)?;
        let tollgate = Tollgate::start(&lab, &policy, &[])?;
        for application in &mut applications {
            application.wait()?;
        }
        let stage = Self { tollgate, nginx, applications, odd, _postgres: postgres, lab, _folder: folder };
        stage.wait()?;
        Ok(stage)
    }

    /// The policy that ships, on one address of two, with routes to what the deployment does not have.
    fn policy(folder: &Path) -> Result<String> {
        let text = platform(folder)?;
        let bound = text
            .replace("bind = \":80\"", &format!("bind = \"{HERE}:80\""))
            .replace("bind = \":443\"", &format!("bind = \"{HERE}:443\""));
        ensure!(
            bound.matches(&HERE.to_string()).count() > text.matches(&HERE.to_string()).count() + 1,
            "no listeners"
        );
        let tests = bound.find("[[test]]").context("the policy has no tests")?;
        let (before, after) = bound.split_at(tests);
        Ok(format!("{before}{MORE_ROUTES}\n{after}"))
    }

    /// Until the worker serves every application.
    fn wait(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        for url in ["http://127.0.0.1:8006/plain", "https://192.168.0.104/plain"] {
            let argv = ["curl", "-skf", "-o", "/dev/null", "--max-time", "5", url];
            while !self.lab.ns(Host::Server).output(&argv)?.status.success() {
                ensure!(Instant::now() < end, "{url} is not served: {}", self.tollgate.log());
                thread::sleep(Duration::from_millis(50));
            }
        }
        self.seen().map(drop)
    }

    /// Sends a shape to one side.
    pub fn ask(&self, shape: &Shape, side: Side) -> Result<Outcome> {
        let address = side.address();
        let said = match &shape.how {
            How::Steps(via, steps) => {
                let host = if *via == Via::Local { Host::Server } else { Host::Lan };
                wire::steps(&self.lab.ns(host), address, via, steps)
            }
            How::Http2(args) => wire::http2(&self.lab.ns(Host::Lan), address, args),
        };
        let said = said.with_context(|| format!("{} by {side:?}", shape.name))?;
        let refused = said.answers.is_empty() || said.answers.iter().any(|answer| answer.status >= 400);
        if refused {
            thread::sleep(A_MOMENT);
        }
        Ok(Outcome {
            handshake: said.handshake,
            answers: said.answers,
            tunnel: said.tunnel,
            end: said.end,
            seen: self.seen()?,
        })
    }

    /// The requests that applications have seen since this was last asked.
    fn seen(&self) -> Result<Vec<Seen>> {
        let mut all = self.odd.seen();
        for application in &self.applications {
            all.extend(application.seen()?.iter().map(flat));
        }
        Ok(all)
    }

    /// What both proxies and the applications have complained of.
    pub fn logs(&self) -> String {
        let applications: String = self.applications.iter().map(Django::log).collect();
        format!("tollgate: {}\nnginx: {}\n{applications}", self.tollgate.log(), self.nginx.log())
    }
}
