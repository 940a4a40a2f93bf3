//! The proxy and nginx side by side in a lab, each before a recording upstream of its own, nginx as the deployment had it.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tollgate_tests::certificates::Chain;
use tollgate_tests::lab::{Host, Lab};
use tollgate_tests::proxied::{HTTP, HTTPS, Proxied};
use tollgate_tests::recorder::Recorder;

use crate::client::{IDLE, Ports};

const PATIENCE: Duration = Duration::from_secs(60);

/// Fields are dropped in this order.
pub struct Stand {
    pub proxied: Proxied,
    _nginx: Nginx,
    pub ours: Recorder,
    pub theirs: Recorder,
    pub lab: Lab,
}

pub const OURS: Ports = Ports { http: HTTP, https: HTTPS };
pub const THEIRS: Ports = Ports { http: 8080, https: 8443 };

struct Nginx(Child);

impl Stand {
    pub fn start() -> Result<Self> {
        let lab = Lab::new()?;
        let server = lab.ns(Host::Server);
        let (ours, theirs) = (Recorder::start(&server, 7001)?, Recorder::start(&server, 7002)?);
        let seconds = IDLE.as_secs();
        let settings: String = ["header", "body", "send", "idle"]
            .map(|what| format!("{what}-timeout = \"{seconds}s\"\n"))
            .concat();
        let settings = format!("{settings}max-connections-per-source = 1000\n");
        let proxied = Proxied::before(&lab, "127.0.0.1:7001", &settings)?;
        let nginx = Nginx::start(&lab, &proxied, 7002)?;
        Ok(Self { proxied, _nginx: nginx, ours, theirs, lab })
    }
}

impl Nginx {
    fn start(lab: &Lab, proxied: &Proxied, upstream: u16) -> Result<Self> {
        let folder = proxied.folder();
        let path = folder.join("nginx.conf");
        fs::write(&path, config(&proxied.chain, &folder.display().to_string(), upstream))?;
        let log = fs::File::create(folder.join("nginx.out"))?;
        let child = lab
            .ns(Host::Server)
            .command("nginx")
            .arg("-c")
            .arg(&path)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .context("`nginx` could not be started (Debian: apt-get install nginx)")?;
        let nginx = Self(child);
        let end = Instant::now() + PATIENCE;
        let server = lab.ns(Host::Server);
        while server.in_ns(|| Ok(TcpStream::connect(("127.0.0.1", THEIRS.https))?)).is_err() {
            let said = || fs::read_to_string(folder.join("nginx.out")).unwrap_or_default();
            ensure!(Instant::now() < end, "nginx does not listen: {}", said());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn config(chain: &Chain, folder: &str, upstream: u16) -> String {
    let (certificate, key, seconds) = (chain.chain.display(), chain.key.display(), IDLE.as_secs());
    let Ports { http, https } = THEIRS;
    format!(
        "daemon off; master_process off; user root; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 2000; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_header_timeout {seconds}s; client_body_timeout {seconds}s; keepalive_timeout {seconds}s; send_timeout {seconds}s;
  server {{
    listen {http} default_server;
    listen {https} ssl http2 default_server;
    ssl_certificate {certificate}; ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    location / {{
      proxy_pass http://127.0.0.1:{upstream};
      proxy_set_header Host $host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
    }}
  }}
}}
"
    )
}
