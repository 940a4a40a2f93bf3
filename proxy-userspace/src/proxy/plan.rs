//! What the L7 proxy is to do: listeners, routes, upstreams and limits of a checked policy, as plain values.
//!
//! Made by [`crate::policy`] from the policy file, sent by the daemon to the worker process as JSON, and served there. Nothing
//! in it needs another look at the policy: names are resolved, defaults filled in, times in milliseconds. It holds paths of
//! certificates and keys, never their contents.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Everything that the proxy serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Where clients connect, by name.
    pub listeners: BTreeMap<String, Listener>,
    /// Where requests go to, by name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// What happens to requests. The most specific one that matches is taken: by listener, then host (exact, wildcard, any), then
    /// the longest path prefix. The order says nothing.
    pub routes: Vec<Route>,
    /// Names for clients' addresses in the access log, in the policy's order. Empty without a log.
    pub zones: Vec<Zone>,
    /// Who issues certificates, by name.
    #[serde(default)]
    pub authorities: BTreeMap<String, Authority>,
    /// What holds for all listeners.
    pub common: Common,
}

/// Most threads that serve; each has its own connections to upstreams.
pub const MOST_THREADS: u16 = 64;

/// A zone of the policy, by address alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// Its prefixes.
    pub prefixes: Vec<IpNet>,
}

impl Default for Common {
    /// What a policy that says nothing of it gets.
    fn default() -> Self {
        Self {
            user: "nobody".to_owned(),
            trusted: Vec::new(),
            access_log: None,
            threads: None,
            max_connections: 10_000,
            max_connections_per_source: 256,
            sizes: Sizes { target: 8 << 10, headers: 32 << 10, header_count: 100, body: 1 << 20 },
            timeouts: ClientTimeouts {
                handshake_ms: 10_000,
                header_ms: 15_000,
                body_ms: 30_000,
                send_ms: 30_000,
                idle_ms: 75_000,
                tunnel_ms: 3_600_000,
                drain_ms: 30_000,
            },
            buffer_memory: 16 << 20,
            abuse: None,
            headers: BTreeMap::new(),
        }
    }
}

/// What holds for all listeners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    /// The user that the worker runs as, by name.
    pub user: String,
    /// Proxies in front of this one: their `X-Forwarded-*` headers are believed, and they are never banned.
    pub trusted: Vec<IpNet>,
    /// Where each answered request is noted.
    pub access_log: Option<AccessLog>,
    /// Threads that serve; one for each processor, if the policy does not say.
    pub threads: Option<u16>,
    /// Open client connections at most.
    pub max_connections: u32,
    /// Open client connections of one source at most (IPv6: of one /64).
    pub max_connections_per_source: u32,
    /// Sizes of what clients send.
    pub sizes: Sizes,
    /// How long clients may take.
    pub timeouts: ClientTimeouts,
    /// Memory for bodies that are read ahead, of all requests together, bytes. Beyond it nothing is read ahead.
    pub buffer_memory: u64,
    /// Who fails TLS or HTTP again and again, after a completed handshake, is banned.
    pub abuse: Option<Escalation>,
    /// Headers set on every answer to a client, the proxy's own included, unless the upstream's has them.
    pub headers: BTreeMap<String, String>,
}

/// The access log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// Opened by the daemon for appending; made with mode 0640 if it does not exist.
    pub file: PathBuf,
    /// How a line is written.
    pub format: LogFormat,
}

/// How a line of the access log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// nginx's `combined`.
    Combined,
}

/// Sizes of what clients send, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// The request target, bytes: 414 beyond it.
    pub target: u32,
    /// All header lines together, bytes: 431 beyond it.
    pub headers: u32,
    /// Header lines: 431 beyond it.
    pub header_count: u16,
    /// The body, bytes: 413 beyond it. A route may say otherwise.
    pub body: u64,
}

/// How long clients may take, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientTimeouts {
    /// The TLS handshake, from the connection's first moment.
    pub handshake_ms: u64,
    /// A request's header, from its first byte.
    pub header_ms: u64,
    /// Between two parts of a request's body.
    pub body_ms: u64,
    /// Between two reads of an answer by the client.
    pub send_ms: u64,
    /// A connection without a request.
    pub idle_ms: u64,
    /// A WebSocket or other tunnel without traffic either way.
    pub tunnel_ms: u64,
    /// Connections in flight after a listener, a route or the daemon is gone.
    pub drain_ms: u64,
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Addresses to bind; an IPv6 one is for IPv6 alone.
    pub bind: Vec<SocketAddr>,
    /// TLS; without it plain HTTP.
    pub tls: Option<Tls>,
    /// HTTP/2 is spoken: by ALPN with TLS; without TLS never.
    pub http2: bool,
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// At least one. The first is the default: for clients that send no SNI, or a name that no certificate has.
    pub certificates: Vec<Certificate>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Names of cipher suites as rustls has them (`TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384`), in order of preference. Empty: rustls's own.
    pub ciphers: Vec<String>,
}

/// A certificate's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Chain, PEM, the server's own first.
    pub chain: PathBuf,
    /// Private key, PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// Server names it answers for, lower case, `*.` in front for one label; empty: those that the certificate itself has.
    pub names: Vec<String>,
    /// Who issues it, of [`Plan::authorities`]: `chain` and `key` are one file then, below the daemon's state directory, and it
    /// need not be there yet.
    #[serde(default)]
    pub authority: Option<String>,
}

/// Who issues certificates by ACME (RFC 8555).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// The URL of its directory (section 7.1.1).
    pub directory: String,
    /// Where it writes to, such as `mailto:admin@example.org` (section 7.3).
    pub contact: Vec<String>,
    /// How this host shows that a name is its own.
    pub challenge: Challenge,
    /// PEM: whose certificate the directory's server has. `None`: of one that this host trusts.
    pub roots: Option<PathBuf>,
    /// So long before a certificate ends it is renewed, milliseconds; `None`: a third of its life.
    pub renew_before_ms: Option<u64>,
}

/// How a host shows an authority that a name is its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Challenge {
    /// By an answer at port 80 (RFC 8555 section 8.3).
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// By a certificate at port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

impl Challenge {
    /// The port that authorities connect to.
    pub const fn port(self) -> u16 {
        match self {
            Self::Http01 => 80,
            Self::TlsAlpn01 => 443,
        }
    }
}

/// TLS versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V1_3,
}

/// A pool of servers that give the same answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// At least one.
    pub servers: Vec<Server>,
    /// What is spoken to them.
    pub protocol: UpstreamProtocol,
    /// Of a request's body that has no length, so many bytes are read before the upstream is asked, HTTP/1.1 only: one that ends
    /// within them gets a `Content-Length`.
    pub buffer: u64,
    /// What is longer goes on as chunked; else 411.
    pub chunked: bool,
    /// Idle connections kept for each server.
    pub keep: u16,
    /// How long an idle one is kept, milliseconds; below what the servers keep theirs.
    pub keep_ms: u64,
    /// Connecting, milliseconds: 504 beyond it.
    pub connect_ms: u64,
    /// From the end of a request to the first byte of its answer, and between two parts of the answer, milliseconds: 504 beyond it.
    pub response_ms: u64,
    /// Failures in a row after which a server rests.
    pub failures: u32,
    /// How long it rests, milliseconds.
    pub rest_ms: u64,
    /// Questions asked of each server, whether or not there are requests.
    pub health: Option<Health>,
}

/// A server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Server {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// What is spoken to an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, by prior knowledge.
    Http2,
}

/// Active health checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is asked for, by GET.
    pub path: String,
    /// The Host header of the question.
    pub host: String,
    /// Between two questions, milliseconds.
    pub every_ms: u64,
    /// For an answer, milliseconds.
    pub timeout_ms: u64,
}

/// What happens to some requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Unique; in logs and metrics.
    pub name: String,
    /// Where it stands in the policy file, `FILE:LINE`.
    pub place: String,
    /// Names of listeners; never empty.
    pub listeners: Vec<String>,
    /// Hosts without port, lower case; `*.example.org` for every name below it; empty: any.
    pub hosts: Vec<String>,
    /// A prefix of whole segments: `/api` matches `/api` and `/api/x`, not `/apix`. `/`: every path.
    pub path: String,
    /// What happens.
    pub action: Action,
    /// Requests of one source.
    pub limit: Option<RequestLimit>,
    /// The body, bytes: 413 beyond it.
    pub body: u64,
    /// Headers set on each answer, beside and before [`Common::headers`].
    pub headers: BTreeMap<String, String>,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It goes to an upstream.
    Forward {
        /// Its name.
        upstream: String,
        /// WebSocket upgrades are passed on.
        websocket: bool,
    },
    /// The client is sent elsewhere.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// The new location; `{uri}` is the target as the client sent it (path and query), `{host}` the validated host.
        to: String,
    },
    /// The answer is always the same.
    Respond {
        /// 200 to 599.
        status: u16,
        /// Its media type.
        content_type: String,
        /// Its body; read from a file when the policy was.
        body: String,
    },
}

/// A limit on requests (GCRA).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLimit {
    /// Between two requests at the sustained rate, nanoseconds.
    pub interval_ns: u64,
    /// Requests beyond it that pass at once, without delay.
    pub burst: u32,
    /// The answer to what is over: 429 unless the policy says otherwise.
    pub status: u16,
    /// Leading bits of an IPv6 source that share the limit.
    pub v6_prefix: u8,
    /// Who keeps exceeding is banned.
    pub exceed: Option<Escalation>,
}

/// When a client of the proxy is banned in the packet filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalation {
    /// How long, milliseconds.
    pub ban_ms: u64,
    /// Offences within a minute that lead to it.
    pub after: u32,
}
