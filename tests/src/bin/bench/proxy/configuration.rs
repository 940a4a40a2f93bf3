//! How each contender is set up: two TLS listeners, 1 KiB, 1 MiB and a WebSocket from the same upstream, the same headers to it, an
//! access log and a limit that nobody exceeds. Used by `stage.rs`.
//!
//! Everything else is as it comes: Debian's `nginx.conf` has no `buffer` for its access log either.

use std::path::Path;

use super::stage::Contender;

/// The port of what serves 1 KiB and 1 MiB.
pub const APPLICATION: u16 = 8100;
/// The port of what speaks WebSocket.
pub const SOCKETS: u16 = 8101;
/// Connections to the upstream that are kept, with all.
const KEPT: u32 = 64;

/// The packet filter alone.
pub const BARE: &str =
    "version = 1\n\n[interfaces.wlp2s0]\n\n[services.web]\nports = [\"tcp/443\"]\nallow = \"any\"\n";

/// The policy with the proxy, or another one that differs in a route.
pub fn policy(folder: &Path, other: bool) -> String {
    let folder = folder.display();
    let (ecdsa, rsa) = (Contender::Tollgate.ecdsa(), Contender::Tollgate.rsa());
    let more = if other {
        "\n[routes.more]\nlisteners = [\"ecdsa\"]\npath = \"/more\"\nrespond = { body = \"more\" }\n"
    } else {
        ""
    };
    format!(
        r#"{BARE}
[proxy]
access-log = {{ file = "{folder}/tollgate-access.log", format = "combined" }}
max-connections-per-source = 10000

[listeners.ecdsa]
bind = "{ecdsa}"
tls = {{ certificates = [{{ chain = "{folder}/ecdsa.crt", key = "{folder}/ecdsa.key" }}] }}

[listeners.rsa]
bind = "{rsa}"
tls = {{ certificates = [{{ chain = "{folder}/rsa.crt", key = "{folder}/rsa.key" }}] }}

[upstreams.app]
servers = "127.0.0.1:{APPLICATION}"
keep-alive = {{ connections = {KEPT}, idle = "60s" }}

[upstreams.sockets]
servers = "127.0.0.1:{SOCKETS}"

[routes.app]
listeners = ["ecdsa", "rsa"]
to = "app"
limit = {{ requests = "1000000/s", burst = 1000000 }}

[routes.sockets]
listeners = ["ecdsa"]
path = "/ws"
to = "sockets"
websocket = true
{more}"#
    )
}

/// What both nginx have: Debian's own settings, without limits of requests on a connection.
fn common(folder: &Path, name: &str) -> String {
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("    {what}_temp_path {folder}/{name}-{what};\n"))
        .collect();
    format!(
        "user root;\nworker_processes 2;\npid {folder}/{name}.pid;\nerror_log stderr;\n\
         worker_rlimit_nofile 16384;\nevents {{ worker_connections 8192; }}\nhttp {{\n    sendfile on;\n    tcp_nopush on;\n\
         keepalive_requests 100000000;\n{temporary}"
    )
}

/// What answers for all: from memory and the page cache.
pub fn upstream(folder: &Path) -> String {
    let body = "x".repeat(1024);
    format!(
        "{}    access_log off;\n    open_file_cache max=10;\n    keepalive_timeout 300;\n    server {{\n        \
         listen 127.0.0.1:{APPLICATION};\n        location = /1k {{ return 200 \"{body}\"; }}\n        \
         location / {{ root {}; }}\n    }}\n}}\n",
        common(folder, "upstream"),
        folder.display()
    )
}

/// nginx as a proxy.
pub fn nginx(folder: &Path) -> String {
    let (name, path) = (Contender::Nginx, folder.display());
    // A location with one of its own inherits none.
    let headers: String = [
        ("Host", "$host"),
        ("X-Real-IP", "$remote_addr"),
        ("X-Forwarded-For", "$remote_addr"),
        ("X-Forwarded-Proto", "$scheme"),
        ("X-Request-ID", "$request_id"),
    ]
    .iter()
    .map(|(name, value)| format!("            proxy_set_header {name} {value};\n"))
    .collect();
    let server = |address: std::net::SocketAddr, key: &str| {
        format!(
            r#"
    server {{
        listen {address} ssl http2;
        ssl_certificate {path}/{key}.crt;
        ssl_certificate_key {path}/{key}.key;
        location / {{
            limit_req zone=all burst=1000000 nodelay;
            proxy_pass http://app;
            proxy_set_header Connection "";
{headers}        }}
        location /ws {{
            proxy_pass http://127.0.0.1:{SOCKETS};
            proxy_set_header Connection upgrade;
            proxy_set_header Upgrade $http_upgrade;
{headers}            proxy_read_timeout 1h;
        }}
    }}
"#
        )
    };
    format!(
        r#"{}
    access_log {path}/nginx-access.log;
    ssl_protocols TLSv1.2 TLSv1.3;
    limit_req_zone $binary_remote_addr zone=all:1m rate=1000000r/s;
    upstream app {{
        server 127.0.0.1:{APPLICATION};
        keepalive {KEPT};
        keepalive_requests 100000000;
    }}
    proxy_http_version 1.1;
{}{}}}
"#,
        common(folder, "nginx"),
        server(name.ecdsa(), "ecdsa"),
        server(name.rsa(), "rsa"),
    )
}

/// `HAProxy` as a proxy.
pub fn haproxy(folder: &Path) -> String {
    let (name, path) = (Contender::Haproxy, folder.display());
    format!(
        r#"global
    nbthread 2
    maxconn 8192
    log stdout format raw local0

defaults
    mode http
    log global
    option httplog
    option dontlognull
    timeout connect 5s
    timeout client 75s
    timeout server 60s
    timeout tunnel 1h
    http-reuse always

frontend all
    bind {} ssl crt {path}/ecdsa.pem alpn h2,http/1.1
    bind {} ssl crt {path}/rsa.pem alpn h2,http/1.1
    stick-table type ip size 100k expire 10s store http_req_rate(1s)
    http-request track-sc0 src
    http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1000000 }}
    unique-id-format %{{+X}}o%ci%cp%Ts%rt%pid
    unique-id-header X-Request-ID
    http-request set-header X-Real-IP %[src]
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto https
    use_backend sockets if {{ path /ws }}
    default_backend app

backend app
    server app 127.0.0.1:{APPLICATION} pool-max-conn {KEPT}

backend sockets
    server sockets 127.0.0.1:{SOCKETS}
"#,
        name.ecdsa(),
        name.rsa()
    )
}
