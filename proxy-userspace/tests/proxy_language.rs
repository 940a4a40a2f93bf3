//! What a good policy means for the L7 proxy: defaults, names, files, and what ships.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tollgate::policy::{self, Lists, Policy};
use tollgate::proxy::plan::{
    Action, Common, Escalation, LogFormat, Plan, RequestLimit, Server, TlsVersion, UpstreamProtocol,
};

fn small(rest: &str) -> Policy {
    let text = format!("version = 1\n[interfaces.eth0]\n{rest}");
    policy::parse(&text, Path::new("policy.toml")).unwrap_or_else(|error| panic!("{error}"))
}

fn plan(rest: &str) -> Plan {
    small(rest).proxy.expect("a plan")
}

const APP: &str = "[listeners.http]\nbind = \":80\"\n[upstreams.app]\nservers = \"127.0.0.1:8000\"\n\
                   [routes.app]\nlisteners = \"http\"\nto = \"app\"\n";

/// Every key, none with its default.
const EVERY_KEY: &str = r#"[zones]
balancers = ["192.0.2.0/28", "2001:db8::/64"]
[proxy]
user = "www-data"
trusted = "balancers"
threads = 3
max-connections = 500
max-connections-per-source = 50
access-log = { file = "/var/log/a.log", format = "combined" }
headers = { X-Frame-Options = "DENY" }
max-target = "4KiB"
max-headers = "16KiB"
max-header-count = 60
max-body = "2MiB"
buffer-memory = "4MiB"
handshake-timeout = "1s"
header-timeout = "2s"
body-timeout = "3s"
send-timeout = "4s"
idle-timeout = "5s"
tunnel-timeout = "6s"
drain-timeout = "7s"
abuse = { ban = "10m" }
[listeners.https]
bind = ["192.0.2.1:443", "[2001:db8::1]:443"]
http2 = false
tls = { certificates = [{ chain = "/a.crt", key = "/a.key" }, { chain = "/b.crt", key = "/b.key", names = ["B.example", "*.b.example"] }], ciphers = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES256-GCM-SHA384"] }
[upstreams.app]
servers = ["unix:/run/a.sock", "[::1]:8000"]
protocol = "http2"
keep-alive = { connections = 0, idle = "4s" }
connect-timeout = "100ms"
response-timeout = "120s"
fail-after = 7
rest = "30s"
health = { path = "/healthz", host = "app.example", every = "3s", timeout = "1s" }
[upstreams.old]
servers = "127.0.0.1:8001"
buffer-requests = "3MiB"
chunked-requests = false
[routes.api]
listeners = ["https"]
hosts = ["A.example", "2001:db8::1"]
path = "/api/v1"
to = "app"
websocket = true
max-body = "10MiB"
headers = { Cache-Control = "no-store" }
limit = { requests = "30/m", burst = 5, status = 503, v6-prefix = 56, exceed = { ban = "1h", after = 9 } }
[routes.by-length]
listeners = ["https"]
path = "/old"
to = "old"
[routes.old]
listeners = ["https"]
redirect = { status = 308, to = "/new{uri}" }
"#;

#[test]
fn nothing_listens_unless_the_policy_says_so() {
    assert_eq!(small("").proxy, None);
    assert_eq!(small("[proxy]\nuser = \"www\"\n").proxy, None);
}

#[test]
fn what_is_left_out_has_its_default() {
    let plan = plan(APP);
    assert_eq!(plan.common, Common::default());
    let http = &plan.listeners["http"];
    assert_eq!(http.bind.iter().map(ToString::to_string).collect::<Vec<_>>(), ["0.0.0.0:80", "[::]:80"]);
    assert!(http.tls.is_none() && !http.http2);
    let app = &plan.upstreams["app"];
    assert_eq!(app.servers, [Server::Tcp("127.0.0.1:8000".parse().expect("an address"))]);
    assert_eq!((app.protocol, app.buffer, app.chunked), (UpstreamProtocol::Http1, 64 << 10, true));
    assert_eq!((app.keep, app.keep_ms, app.connect_ms, app.response_ms), (32, 1500, 5000, 60_000));
    assert_eq!((app.failures, app.rest_ms, &app.health), (3, 10_000, &None));
    let route = &plan.routes[0];
    assert_eq!((route.name.as_str(), route.path.as_str(), route.body), ("app", "/", 1 << 20));
    assert_eq!(route.place, "policy.toml:7");
    assert!(route.hosts.is_empty() && route.limit.is_none() && route.headers.is_empty());
    assert_eq!(route.action, Action::Forward { upstream: "app".to_owned(), websocket: false });
}

#[test]
fn every_key_arrives_in_the_plan() {
    let plan = plan(EVERY_KEY);
    let c = &plan.common;
    assert_eq!(c.user, "www-data");
    assert_eq!(
        c.trusted.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["192.0.2.0/28", "2001:db8::/64"]
    );
    assert_eq!((c.threads, c.max_connections, c.max_connections_per_source), (Some(3), 500, 50));
    let log = c.access_log.as_ref().expect("a log");
    assert_eq!((log.file.as_path(), log.format), (Path::new("/var/log/a.log"), LogFormat::Combined));
    assert_eq!(c.headers, BTreeMap::from([("x-frame-options".to_owned(), "DENY".to_owned())]));
    let s = &c.sizes;
    assert_eq!((s.target, s.headers, s.header_count, s.body), (4096, 16_384, 60, 2 << 20));
    assert_eq!(c.buffer_memory, 4 << 20);
    let t = &c.timeouts;
    assert_eq!(
        [t.handshake_ms, t.header_ms, t.body_ms, t.send_ms, t.idle_ms, t.tunnel_ms, t.drain_ms],
        [1000, 2000, 3000, 4000, 5000, 6000, 7000]
    );
    assert_eq!(c.abuse, Some(Escalation { ban_ms: 600_000, after: 20 }));
    let https = &plan.listeners["https"];
    assert!(!https.http2);
    let tls = https.tls.as_ref().expect("TLS");
    assert_eq!(tls.min_version, TlsVersion::V1_2);
    assert_eq!(tls.certificates[1].names, ["b.example", "*.b.example"]);
    // Those of TLS 1.3 go on, though no name of one is there.
    assert_eq!(
        tls.ciphers,
        [
            "TLS13_AES_256_GCM_SHA384",
            "TLS13_AES_128_GCM_SHA256",
            "TLS13_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        ]
    );
    let app = &plan.upstreams["app"];
    assert_eq!(app.servers[0], Server::Unix(PathBuf::from("/run/a.sock")));
    assert_eq!((app.protocol, app.keep, app.keep_ms), (UpstreamProtocol::Http2, 0, 4000));
    assert_eq!((app.connect_ms, app.response_ms, app.failures, app.rest_ms), (100, 120_000, 7, 30_000));
    let health = app.health.as_ref().expect("health checks");
    assert_eq!((health.path.as_str(), health.host.as_str()), ("/healthz", "app.example"));
    assert_eq!((health.every_ms, health.timeout_ms), (3000, 1000));
    let by_length = &plan.upstreams["old"];
    assert_eq!((by_length.buffer, by_length.chunked), (3 << 20, false));
    let [api, _, old] = plan.routes.as_slice() else { panic!("{:?}", plan.routes) };
    assert_eq!(api.hosts, ["a.example", "[2001:db8::1]"]);
    assert_eq!((api.path.as_str(), api.body), ("/api/v1", 10 << 20));
    assert_eq!(api.headers["cache-control"], "no-store");
    assert_eq!(api.action, Action::Forward { upstream: "app".to_owned(), websocket: true });
    assert_eq!(
        api.limit,
        Some(RequestLimit {
            interval_ns: 2_000_000_000,
            burst: 5,
            status: 503,
            v6_prefix: 56,
            exceed: Some(Escalation { ban_ms: 3_600_000, after: 9 }),
        })
    );
    assert_eq!(old.action, Action::Redirect { status: 308, to: "/new{uri}".to_owned() });
    assert_eq!(old.body, 2 << 20);
}

#[test]
fn bodies_come_from_files_beside_the_policy_and_are_part_of_its_hash() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("policy.toml");
    let text = format!(
        "version = 1\n[interfaces.eth0]\n{APP}[routes.down]\nlisteners = \"http\"\npath = \"/x\"\nrespond = {{ status = 503, file = \"down.html\" }}\n"
    );
    fs::write(folder.path().join("down.html"), "<p>Later").expect("a body");
    let first = policy::parse(&text, &path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(first.files().collect::<Vec<_>>(), ["down.html"]);
    let answer = |policy: &Policy| policy.proxy.as_ref().map(|plan| plan.routes[1].action.clone());
    let later = |body: &str| {
        let content_type = "text/html; charset=utf-8".to_owned();
        Some(Action::Respond { status: 503, content_type, body: body.to_owned() })
    };
    assert_eq!(answer(&first), later("<p>Later"));
    // The operator's file changes; what stands in for it, as in the history, does not.
    let kept = folder.path().join("kept");
    fs::rename(folder.path().join("down.html"), &kept).expect("a file");
    fs::write(folder.path().join("down.html"), "<p>Soon").expect("a body");
    let second = policy::parse(&text, &path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(answer(&second), later("<p>Soon"));
    assert_ne!(first.hash, second.hash);
    let lists = Lists::from([("down.html".to_owned(), kept)]);
    let again = policy::parse_with(&text, &path, &lists).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again, first);
}

#[test]
fn the_log_names_zones_but_no_lists_without_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let list: String =
        (0..70_000u32).map(|n| format!("{}\n", std::net::Ipv4Addr::from(0x0b00_0000 + n))).collect();
    fs::write(folder.path().join("list"), list).expect("a list");
    let text = |log: &str| {
        format!(
            "version = 1\n[interfaces.eth0]\ndeny = [\"bad\"]\n[zones]\nbad = {{ file = \"list\" }}\n\
             world = \"any\"\nlan = [\"10.0.0.0/8\"]\n[services.web]\nports = [\"tcp/80\"]\nallow = \"any\"\n\
             [proxy]\n{log}{APP}"
        )
    };
    let zones = |log: &str| {
        let policy = policy::parse(&text(log), &folder.path().join("policy.toml"));
        policy.unwrap_or_else(|error| panic!("{error}")).proxy.expect("a plan").zones
    };
    assert_eq!(zones(""), []);
    let zones = zones("access-log = \"/var/log/a.log\"\n");
    let shown: Vec<_> = zones.iter().map(|zone| (zone.name.as_str(), zone.prefixes.len())).collect();
    assert_eq!(shown, [("world", 2), ("lan", 1)]);
}

#[test]
fn a_plan_survives_the_way_to_the_worker() {
    let plan = plan(APP);
    let sent = serde_json::to_string(&plan).expect("JSON");
    assert_eq!(serde_json::from_str::<Plan>(&sent).expect("a plan"), plan);
}

/// What the deployment's proxy does, route by route: name, listener, hosts, what happens.
#[test]
fn the_platform_has_the_routes_of_its_deployment() {
    for name in ["platform", "platform-strict"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../policies/{name}.toml"));
        let policy = policy::load(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(policy.warnings, [], "{name}");
        let plan = policy.proxy.expect("a plan");
        let forward = |upstream: &str| Action::Forward { upstream: upstream.to_owned(), websocket: false };
        let server = |upstream: &str| match &plan.upstreams[upstream].servers[..] {
            [Server::Tcp(address)] => address.to_string(),
            other => panic!("{other:?}"),
        };
        let routes: Vec<_> = plan
            .routes
            .iter()
            .map(|route| {
                assert_eq!(route.path, "/");
                (
                    route.listeners[0].as_str(),
                    route.hosts.join(" "),
                    route.action.clone(),
                    route.limit.is_some(),
                )
            })
            .collect();
        let to_https = Action::Redirect { status: 301, to: "https://192.168.0.104{uri}".to_owned() };
        assert_eq!(
            routes,
            [
                ("https", "dashboard.krystal.technology".to_owned(), forward("django"), false),
                ("https", String::new(), forward("crm"), false),
                ("http", "192.168.0.104".to_owned(), to_https, false),
                ("http", String::new(), forward("stripe-dashboard"), true),
                ("local", String::new(), forward("stripe-dashboard"), false),
            ]
        );
        assert_eq!(
            [server("django"), server("crm"), server("stripe-dashboard")],
            ["127.0.0.1:8000", "127.0.0.1:8082", "127.0.0.1:8081"]
        );
        let limit = plan.routes[3].limit.as_ref().expect("a limit");
        assert_eq!((limit.interval_ns, limit.burst, limit.status), (100_000_000, 20, 429));
        let bind = |listener: &str| {
            plan.listeners[listener].bind.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            [bind("http"), bind("https"), bind("local")],
            ["0.0.0.0:80 [::]:80", "0.0.0.0:443 [::]:443", "127.0.0.1:8006"]
        );
        let tls = plan.listeners["https"].tls.as_ref().expect("TLS");
        assert_eq!(tls.min_version, TlsVersion::V1_2);
        let default = &tls.certificates[0];
        assert_eq!(
            (default.chain.as_path(), default.key.as_path()),
            (Path::new("/etc/ssl/crm/crm.crt"), Path::new("/etc/ssl/crm/crm.key"))
        );
        assert_eq!(tls.certificates[1].names, ["dashboard.krystal.technology"]);
        let headers: Vec<_> =
            plan.common.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(
            headers,
            ["x-content-type-options: nosniff", "x-frame-options: DENY", "x-xss-protection: 1; mode=block"]
        );
    }
}

proptest! {
    #[test]
    fn no_damaged_policy_panics(at in 0..EVERY_KEY.len(), gone in 0..20usize, put in "\\PC{0,8}") {
        let end = (at + gone).min(EVERY_KEY.len());
        let text = format!("version = 1\n[interfaces.eth0]\n{}{put}{}", &EVERY_KEY[..at], &EVERY_KEY[end..]);
        if let Err(error) = policy::parse(&text, Path::new("p.toml")) {
            prop_assert!(error.0.iter().all(|d| !d.message.is_empty() && !d.help.is_empty()));
        }
    }

    #[test]
    fn no_shuffled_policy_panics(lines in prop::collection::vec(prop::sample::select(EVERY_KEY.lines().collect::<Vec<_>>()), 0..40)) {
        let text = format!("version = 1\n[interfaces.eth0]\n{}", lines.join("\n"));
        if let Err(error) = policy::parse(&text, Path::new("p.toml")) {
            prop_assert!(!error.0.is_empty() && !error.to_string().is_empty());
        }
    }
}
