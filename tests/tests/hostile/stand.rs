//! The proxy and nginx side by side in a lab, each before a recording upstream of its own, nginx as the deployment had it.

use anyhow::Result;
use tollgate_tests::certificates::Chain;
use tollgate_tests::lab::{Host, Lab};
use tollgate_tests::proxied::{HTTP, HTTPS, Proxied};
use tollgate_tests::recorder::Recorder;
use tollgate_tests::services::Nginx;

use crate::client::{IDLE, Ports};

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
        let nginx = Nginx::start(&server, 1, &config(&proxied.chain, 7002))?;
        Ok(Self { proxied, _nginx: nginx, ours, theirs, lab })
    }
}

fn config(chain: &Chain, upstream: u16) -> String {
    let (certificate, key, seconds) = (chain.chain.display(), chain.key.display(), IDLE.as_secs());
    let Ports { http, https } = THEIRS;
    format!(
        "  client_header_timeout {seconds}s; client_body_timeout {seconds}s; keepalive_timeout {seconds}s; send_timeout {seconds}s;
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
"
    )
}
