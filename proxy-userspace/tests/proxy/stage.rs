//! A proxy in front of a backend: what most tests begin with.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tollgate::proxy::plan::*;
use tollgate::proxy::serve::tls::Certificates;
use tollgate::proxy::serve::{Ban, Record, Service, Sink};

/// A line of the access log, as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    pub status: u16,
    pub reason: Option<&'static str>,
    pub received: u64,
    pub sent: u64,
    pub upstream: Option<String>,
    pub zone: Option<String>,
}

/// Keeps what the proxy says.
#[derive(Default)]
pub struct Notes {
    pub accesses: Mutex<Vec<Noted>>,
    pub bans: Mutex<Vec<Ban>>,
}

impl Sink for Notes {
    fn access(&self, record: &Record<'_>) {
        self.accesses.lock().expect("notes").push(Noted {
            status: record.status,
            reason: record.reason.map(|reason| reason.name()),
            received: record.received,
            sent: record.sent,
            upstream: record.upstream.map(str::to_owned),
            zone: record.zone.map(str::to_owned),
        });
    }

    fn offence(&self, ban: Ban) {
        self.bans.lock().expect("notes").push(ban);
    }
}

/// A proxy that runs.
pub struct Stage {
    pub service: Arc<Service>,
    pub notes: Arc<Notes>,
    pub plan: Plan,
    pub address: SocketAddr,
    pub certificates: Certificates,
}

/// A listening socket, and where.
pub fn socket() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("its address");
    (socket, address)
}

/// Servers of an upstream that nothing goes wrong with.
pub fn upstream(servers: &[SocketAddr]) -> Upstream {
    Upstream {
        servers: servers.iter().map(|address| Server::Tcp(*address)).collect(),
        protocol: UpstreamProtocol::Http1,
        buffer: 0,
        chunked: true,
        keep: 16,
        keep_ms: 30_000,
        connect_ms: 5_000,
        response_ms: 20_000,
        failures: 3,
        rest_ms: 30_000,
        health: None,
    }
}

/// Threads that serve, on every machine.
pub const THREADS: u16 = 2;

/// One listener without TLS, one route for everything, patient.
pub fn plan(address: SocketAddr, upstream: Upstream) -> Plan {
    let mut common = Common { threads: Some(THREADS), ..Common::default() };
    let patient = 30_000;
    common.timeouts = ClientTimeouts {
        handshake_ms: patient,
        header_ms: patient,
        body_ms: patient,
        send_ms: patient,
        idle_ms: patient,
        tunnel_ms: patient,
        drain_ms: patient,
    };
    Plan {
        listeners: BTreeMap::from([(
            "web".to_owned(),
            Listener { bind: vec![address], tls: None, http2: true },
        )]),
        upstreams: BTreeMap::from([("app".to_owned(), upstream)]),
        routes: vec![Route {
            name: "all".to_owned(),
            place: "test:1".to_owned(),
            listeners: vec!["web".to_owned()],
            hosts: Vec::new(),
            path: "/".to_owned(),
            action: Action::Forward { upstream: "app".to_owned(), websocket: true },
            limit: None,
            body: 1 << 20,
            headers: BTreeMap::new(),
        }],
        zones: Vec::new(),
        authorities: BTreeMap::new(),
        common,
    }
}

impl Stage {
    /// A proxy before one backend.
    pub fn before(backend: SocketAddr) -> Self {
        Self::with(upstream(&[backend]), |_| {})
    }

    /// A proxy whose plan is changed first.
    pub fn with(upstream: Upstream, change: impl FnOnce(&mut Plan)) -> Self {
        Self::with_certificates(upstream, Certificates::default(), change)
    }

    pub fn with_certificates(
        upstream: Upstream,
        certificates: Certificates,
        change: impl FnOnce(&mut Plan),
    ) -> Self {
        let (socket, address) = socket();
        let mut plan = plan(address, upstream);
        change(&mut plan);
        let notes = Arc::<Notes>::default();
        let sockets = vec![("web".to_owned(), socket)];
        let service =
            Service::start(plan.clone(), &certificates, sockets, notes.clone()).expect("a good plan");
        Self { service: Arc::new(service), notes, plan, address, certificates }
    }

    /// What was noted, once there are as many lines.
    pub async fn noted(&self, lines: usize) -> Vec<Noted> {
        within(async {
            loop {
                let noted = self.notes.accesses.lock().expect("notes").clone();
                if noted.len() >= lines {
                    return noted;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "{what}: {:?}", self.service.snapshot());
    }

    /// How often the proxy gave this reason.
    pub fn reasons(&self, reason: &str) -> u64 {
        self.service.snapshot().reasons.get(reason).copied().unwrap_or_default()
    }
}

/// What must end in time on a slow machine too.
pub async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it ends in time")
}
