//! What listens in the lab: the deployment's services on the server, and what the server itself talks to outside.

pub mod browser;
pub mod django;
mod echo;
pub mod fail2ban;
mod http;
mod nginx;
mod pebble;
mod postgres;
mod udp;

use anyhow::Result;

use crate::lab::{Host, Lab};

pub use django::Django;
pub use echo::TcpEcho;
pub use http::HttpServer;
pub use nginx::Nginx;
pub use pebble::{Pebble, PebbleFiles};
pub use postgres::Postgres;
pub(crate) use postgres::program as postgres_program;
pub use udp::{ECHO, UdpService};

/// Temporary directories of services begin with it; the owner's pid follows.
pub const TEMP_PREFIX: &str = "tollgate-lab-";

/// Web services of the server: address, port.
const ON_THE_SERVER: [(&str, u16); 4] = [
    ("[::]", 8000),
    ("[::]", 8082),
    ("[::]", 8083),
    // The Stripe dashboard, bound to this host alone.
    ("127.0.0.1", 8081),
];
/// What stands in the place of the L7 proxy, for tests of packets.
const IN_PLACE_OF_THE_PROXY: [(&str, u16); 3] = [("[::]", 80), ("[::]", 443), ("127.0.0.1", 8006)];

/// All services but the database; dropping it ends them.
#[derive(Debug)]
pub struct Services {
    _http: Vec<HttpServer>,
    _dns: UdpService,
}

impl Services {
    /// Starts what the deployment lists, and web and DNS servers outside and in the container. Servers of the lab stand in the place of
    /// the L7 proxy.
    pub fn start(lab: &Lab) -> Result<Self> {
        Self::listening(lab, ON_THE_SERVER.iter().chain(&IN_PLACE_OF_THE_PROXY))
    }

    /// The same without anything in the place of the L7 proxy.
    pub fn behind_the_proxy(lab: &Lab) -> Result<Self> {
        Self::listening(lab, ON_THE_SERVER.iter())
    }

    fn listening<'a>(lab: &Lab, on_the_server: impl Iterator<Item = &'a (&'a str, u16)>) -> Result<Self> {
        let mut http = Vec::new();
        for (address, port) in on_the_server {
            http.push(HttpServer::start(&lab.ns(Host::Server), &format!("{address}:{port}"))?);
        }
        http.push(HttpServer::start(&lab.ns(Host::Outside), "[::]:80")?);
        http.push(HttpServer::start(&lab.ns(Host::Container), "[::]:80")?);
        let dns = UdpService::start(&lab.ns(Host::Outside), 53)?;
        Ok(Self { _http: http, _dns: dns })
    }
}
