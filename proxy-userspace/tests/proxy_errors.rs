//! Bad policies of the L7 proxy: each error names line, column and the offending text, and says what to write instead.

mod faults;

use std::fs;
use std::path::Path;

use tollgate::policy::{self, Diagnostic, PolicyError, Severity};

use faults::Case;

/// A good policy, a line a fact.
const GOOD: &str = r#"version = 1
[interfaces.wlp2s0]
[zones]
lan = ["192.168.0.0/24"]
all = "any"
[services.web]
ports = ["tcp/80", "tcp/443"]
allow = "any"
[proxy]
user = "nobody"
trusted = ["lan"]
access-log = { file = "/var/log/access.log", format = "json" }
headers = { X-Frame-Options = "DENY" }
idle-timeout = "75s"
abuse = { ban = "10m", after = 20 }
max-target = "8KiB"
[listeners.https]
bind = ["0.0.0.0:443", "[::]:443"]
http2 = true
[listeners.https.tls]
certificates = [{ chain = "/etc/a.crt", key = "/etc/a.key", names = ["a.org"] }]
min-version = "1.2"
ciphers = ["ECDHE-RSA-AES256-GCM-SHA384"]
[listeners.http]
bind = ":80"
[upstreams.crm]
servers = ["127.0.0.1:8082", "unix:/run/crm.sock"]
protocol = "http1"
keep-alive = { connections = 32, idle = "1500ms" }
health = { path = "/healthz", every = "5s", timeout = "2s" }
[routes.crm]
listeners = ["https"]
hosts = ["192.168.0.104", "*.example.org"]
path = "/api"
to = "crm"
websocket = true
limit = { requests = "10/s", burst = 20 }
[routes.other]
listeners = "http"
redirect = { status = 301, to = "https://192.168.0.104{uri}" }
[routes.down]
listeners = "https"
respond = { status = 503, body = "later" }
"#;

#[rustfmt::skip] // A table: a line a case.
const CASES: &[Case] = &[
    // [proxy]
    ("[proxy]", "[proxi]", (9, 2), "proxi", "unknown key \"proxi\"", "write `[proxy]` instead"),
    ("idle-timeout", "idle-timout", (14, 1), "idle-timout", "unknown key", "write `idle-timeout` instead"),
    ("\"nobody\"", "\"root\"", (10, 8), "\"root\"", "does not run as \"root\"", "write the name of a user that owns nothing, such as \"nobody\""),
    ("\"nobody\"", "\"no body\"", (10, 8), "\"no body\"", "is not the name of a user", "write the name of a user that owns nothing, such as \"nobody\""),
    ("trusted = [\"lan\"]", "trusted = [\"all\"]", (11, 11), "[\"all\"]", "every address would be trusted", "name zones of the proxies in front of this one, or leave `trusted` out"),
    ("trusted = [\"lan\"]", "trusted = \"any\"", (11, 11), "\"any\"", "every address would be trusted", "name zones of the proxies in front of this one, or leave `trusted` out"),
    ("trusted = [\"lan\"]", "trusted = [\"lna\"]", (11, 12), "\"lna\"", "unknown zone \"lna\"", "write \"lan\" instead"),
    ("\"/var/log/access.log\"", "\"access.log\"", (12, 23), "\"access.log\"", "is not the whole path of a file", "write its whole path, such as \"/var/log/tollgate/access.log\""),
    ("file = \"/var/log/access.log\", ", "", (12, 14), "{ format = \"json\" }", "the access log has no `file`", "write `file = \"/var/log/tollgate/access.log\"` in it"),
    ("format = \"json\"", "format = \"jsno\"", (12, 55), "\"jsno\"", "unknown word \"jsno\"", "write \"json\" instead"),
    ("X-Frame-Options =", "\"X Frame\" =", (13, 13), "\"X Frame\"", "\"X Frame\" is not the name of a header", "write a name such as X-Frame-Options: letters, digits and -"),
    ("X-Frame-Options =", "Content-Length =", (13, 13), "Content-Length", "is the proxy's own affair", "leave it out"),
    ("\"DENY\"", "\"DENY\\r\\nX: y\"", (13, 31), "\"DENY\\r\\nX: y\"", "is not the value of a header", "write up to 4096 printable ASCII characters, on one line, no space at either end"),
    ("\"DENY\"", "\"DENY\", x-frame-options = \"DENY\"", (13, 39), "x-frame-options", "given twice", "write it once"),
    ("\"75s\"", "75", (14, 16), "75", "the number 75 is not a duration", "write \"75s\""),
    ("\"75s\"", "\"0s\"", (14, 16), "\"0s\"", "not from 1s to 1h", "write a duration from \"1s\" to \"1h\", such as \"75s\""),
    ("after = 20", "after = 0", (15, 32), "0", "this number of offences is not from 1 to 30000", "write a number from 1 to 30000, or leave `after` out: it is 20 then"),
    ("ban = \"10m\", after", "after", (15, 9), "{ after = 20 }", "does not say for how long", "write `{ ban = \"10m\" }`"),
    ("\"8KiB\"", "\"1MiB\"", (16, 14), "\"1MiB\"", "not from 256B to 64KiB", "write a size from \"256B\" to \"64KiB\", such as \"8KiB\""),
    // Listeners.
    ("bind = \":80\"", "", (24, 12), "http", "does not say where it listens", "write `bind = \":80\"` in it"),
    ("bind = \":80\"", "bind = 80", (25, 8), "80", "the number 80 is not an address", "write \":80\""),
    ("bind = \":80\"", "bind = \"localhost:80\"", (25, 8), "\"localhost:80\"", "is not an address and a port", "write \"127.0.0.1:80\""),
    ("bind = \":80\"", "bind = []", (25, 8), "[]", "bound to nothing", "write `bind = \":80\"`"),
    ("bind = \":80\"", "bind = \":443\"", (25, 8), "\":443\"", "0.0.0.0:443 is bound already, by \"https\"", "bind each address and port once"),
    ("bind = \":80\"", "bind = \"127.0.0.1:443\"", (25, 8), "\"127.0.0.1:443\"", "127.0.0.1:443 and 0.0.0.0:443 of \"https\" take the same connections", "bind each address and port once"),
    ("bind = \":80\"", "bind = \":80\"\nhttp2 = true", (26, 9), "true", "with TLS alone", "leave `http2` out, or write `tls = { … }`"),
    ("[{ chain = \"/etc/a.crt\", key = \"/etc/a.key\", names = [\"a.org\"] }]", "[]", (21, 16), "[]", "this list of certificates is empty", "write `certificates = [{ chain = \"/etc/ssl/site.crt\", key = \"/etc/ssl/site.key\" }]`"),
    ("key = \"/etc/a.key\", ", "", (21, 17), "{ chain = \"/etc/a.crt\", names = [\"a.org\"] }", "the certificate has no `key`", "write `key = \"/etc/ssl/site.key\"` in it"),
    ("\"/etc/a.key\"", "\"a.key\"", (21, 47), "\"a.key\"", "is not the whole path of a file", "write its whole path, such as \"/etc/ssl/site.key\""),
    ("[\"a.org\"]", "[\"192.0.2.1\"]", (21, 70), "\"192.0.2.1\"", "no client sends the address", "leave it out, and put the certificate first: the first is for clients that send no name"),
    ("[\"a.org\"]", "[\"a.org\", \"A.org\"]", (21, 79), "\"A.org\"", "is given twice", "write it once, at the certificate that is to answer for it"),
    ("min-version = \"1.2\"", "min-version = \"SSLv3\"", (22, 15), "\"SSLv3\"", "unknown word \"SSLv3\"", "write \"1.2\" or \"1.3\""),
    ("min-version = \"1.2\"", "min-version = \"1.3\"", (23, 12), "\"ECDHE-RSA-AES256-GCM-SHA384\"", "which `min-version` rules out", "leave it out, or write `min-version = \"1.2\"`"),
    ("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA512", (23, 12), "\"ECDHE-RSA-AES256-GCM-SHA512\"", "there is no cipher suite", "write \"ECDHE-RSA-AES256-GCM-SHA384\""),
    ("ECDHE-RSA-AES256-GCM-SHA384", "DHE-RSA-AES256-GCM-SHA512", (23, 12), "\"DHE-RSA-AES256-GCM-SHA512\"", "there is no cipher suite", "write \"ECDHE-RSA-AES256-GCM-SHA384\""),
    ("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-SHA384", (23, 12), "\"ECDHE-RSA-AES256-SHA384\"", "CBC", "write \"ECDHE-RSA-AES256-GCM-SHA384\""),
    ("ECDHE-RSA-AES256-GCM-SHA384", "TLS_AES_128_GCM_SHA256", (23, 11), "[\"TLS_AES_128_GCM_SHA256\"]", "no cipher suite of TLS 1.2", "add one such as \"ECDHE-RSA-AES256-GCM-SHA384\", or write `min-version = \"1.3\"`"),
    ("[\"ECDHE-RSA-AES256-GCM-SHA384\"]", "[]", (23, 11), "[]", "this list of cipher suites is empty", "leave `ciphers` out: good ones are chosen then"),
    // Upstreams.
    ("upstreams.crm", "upstreams.CRM", (26, 12), "CRM", "\"CRM\" is not a name", "write \"crm\""),
    ("servers = [\"127.0.0.1:8082\", \"unix:/run/crm.sock\"]", "", (26, 12), "crm", "has no servers", "write `servers = [\"127.0.0.1:8000\"]` in it"),
    ("127.0.0.1:8082", "0.0.0.0:8082", (27, 12), "\"0.0.0.0:8082\"", "where a server listens", "write \"127.0.0.1:8082\""),
    ("127.0.0.1:8082", "app.internal:80", (27, 12), "\"app.internal:80\"", "names are not looked up", "write an address and a port such as \"127.0.0.1:8000\", or \"unix:/run/app.sock\""),
    ("unix:/run/crm.sock", "127.0.0.1:8082", (27, 30), "\"127.0.0.1:8082\"", "in this upstream twice", "write it once"),
    ("\"http1\"", "\"http3\"", (28, 12), "\"http3\"", "unknown word \"http3\"", "write \"http1\" instead"),
    ("connections = 32", "connections = -1", (29, 30), "-1", "not from 0 to 10000", "write a number from 0 to 10000"),
    ("path = \"/healthz\", ", "", (30, 10), "{ every = \"5s\", timeout = \"2s\" }", "does not say what to ask for", "write `path = \"/healthz\"` in it"),
    ("timeout = \"2s\"", "timeout = \"6s\"", (30, 55), "\"6s\"", "would still wait when the next one begins", "write at most \"5s\", or a longer `every`"),
    ("protocol = \"http1\"", "buffer-requests = 65536", (28, 19), "65536", "the number 65536 is not a size", "write \"65536B\""),
    ("protocol = \"http1\"", "buffer-requests = \"17MiB\"", (28, 19), "\"17MiB\"", "all requests together have \"16MiB\" for it", "write less, or more for `buffer-memory` in [proxy]"),
    ("protocol = \"http1\"", "protocol = \"http2\"\nchunked-requests = false", (29, 20), "false", "HTTP/2 shows where a body ends", "leave `buffer-requests` and `chunked-requests` out, or write `protocol = \"http1\"`"),
    // Routes.
    ("\"/api\"", "\"/a%00b\"", (34, 8), "\"/a%00b\"", "has an escape of what no path has", "write a path such as \"/api\""),
    ("listeners = [\"https\"]", "listeners = [\"htps\"]", (32, 14), "\"htps\"", "unknown listener \"htps\"", "write \"https\" instead"),
    ("listeners = [\"https\"]", "", (31, 9), "crm", "does not say where its requests arrive", "write `listeners = [\"…\"]` with names of listeners in it"),
    ("listeners = [\"https\"]", "listeners = [\"https\", \"https\"]", (32, 23), "\"https\"", "named twice", "write it once"),
    ("\"192.168.0.104\",", "\"192.168.0.104:443\",", (33, 10), "\"192.168.0.104:443\"", "is not a host", "write \"192.168.0.104\""),
    ("\"*.example.org\"", "\"bücher.example\"", (33, 27), "\"bücher.example\"", "ASCII", "write its ASCII form, which begins with xn-- (`idn2 NAME` prints it)"),
    ("\"*.example.org\"", "\"*\"", (33, 27), "\"*\"", "is not a host", "leave `hosts` out: a route without them is for any host"),
    ("path = \"/api\"", "path = \"api\"", (34, 8), "\"api\"", "does not begin with /", "write a path such as \"/api\""),
    ("path = \"/api\"", "path = \"/api/\"", (34, 8), "\"/api/\"", "ends with a /", "write \"/api\": it is for /api and what is below it"),
    ("path = \"/api\"", "path = \"/a/../b\"", (34, 8), "\"/a/../b\"", "one of dots", "write a path such as \"/api\""),
    ("path = \"/api\"", "path = \"/a?b\"", (34, 8), "\"/a?b\"", "a query", "write a path such as \"/api\""),
    ("to = \"crm\"", "to = \"crn\"", (35, 6), "\"crn\"", "unknown upstream \"crn\"", "write \"crm\" instead"),
    ("to = \"crm\"", "to = \"crm\"\nrespond = {}", (36, 11), "{}", "a route does one thing", "leave out `to` or `respond`"),
    ("redirect = { status = 301, to = \"https://192.168.0.104{uri}\" }", "", (38, 9), "other", "does not say what happens to requests", "write one of `to = \"…\"`, `redirect = { … }` and `respond = { … }` in it"),
    ("\"10/s\"", "10", (37, 22), "10", "the number 10 is not a rate", "write \"10/s\""),
    ("\"10/s\"", "\"0/s\"", (37, 22), "\"0/s\"", "not above zero", "write a rate such as \"10/s\"; `respond` answers everything the same"),
    ("\"10/s\", burst = 20", "\"1/h\", burst = 25", (37, 37), "25", "longer than a day", "write at most 24"),
    ("burst = 20", "burst = 20, status = 200", (37, 51), "200", "not from 400 to 599", "write a number from 400 to 599"),
    ("burst = 20", "burst = 20, v6-prefix = 65", (37, 54), "65", "not from 1 to 64", "write a length from 1 to 64; an IPv6 host has a whole /64 to itself"),
    ("burst = 20", "burst = 20, exceed = { ban = \"0s\" }", (37, 59), "\"0s\"", "from 1 second to 365 days", "write a duration such as \"10m\""),
    ("status = 301", "status = 200", (40, 23), "200", "sends nobody elsewhere", "write 301 or 308 (for good), 302 or 307 (for now), or 303"),
    ("\"https://192.168.0.104{uri}\"", "\"192.168.0.104{uri}\"", (40, 33), "\"192.168.0.104{uri}\"", "no place to send clients to", "write one such as `to = \"https://example.org{uri}\"`; {uri} is path and query of the request, {host} its host"),
    ("\"https://192.168.0.104{uri}\"", "\"https://a.org$request_uri{path}\"", (40, 33), "\"https://a.org$request_uri{path}\"", "nothing in braces but", "write one such as `to = \"https://example.org{uri}\"`; {uri} is path and query of the request, {host} its host"),
    ("\"https://192.168.0.104{uri}\"", "\"/{uri}\"", (40, 33), "\"/{uri}\"", "another host", "write one such as `to = \"https://example.org{uri}\"`; {uri} is path and query of the request, {host} its host"),
    ("status = 503", "status = 99", (43, 22), "99", "not from 200 to 599", "write a number from 200 to 599"),
    ("status = 503", "status = 204", (43, 34), "\"later\"", "has no body", "leave the body out, or write another status"),
    ("body = \"later\"", "body = \"later\", content-type = \"html\"", (43, 58), "\"html\"", "is not a media type", "write one such as \"text/plain; charset=utf-8\""),
    ("body = \"later\"", "file = \"none.html\"", (43, 34), "\"none.html\"", "there is no such body", "write the path of an existing file; a relative one starts at the policy's folder"),
    ("body = \"later\"", "bdoy = \"later\"", (43, 27), "bdoy", "unknown key \"bdoy\"", "write `body` instead"),
];

fn refused(text: &str) -> Vec<Diagnostic> {
    match policy::parse(text, Path::new("dir/policy.toml")) {
        Ok(_) => panic!("this is refused:\n{text}"),
        Err(PolicyError(diagnostics)) => diagnostics,
    }
}

fn warnings(text: &str) -> Vec<(Option<(usize, usize)>, String)> {
    let policy =
        policy::parse(text, Path::new("policy.toml")).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let warnings = policy.warnings.into_iter();
    warnings
        .map(|one| {
            assert_eq!(one.severity, Severity::Warning);
            (one.place.map(|place| (place.line, place.column)), one.message)
        })
        .collect()
}

#[test]
fn the_good_policy_is_good() {
    assert_eq!(warnings(GOOD), []);
}

#[test]
fn every_fault_is_located_and_put_right() {
    faults::each_is_located_and_put_right(GOOD, CASES);
}

#[test]
fn routes_for_the_same_requests_are_named_both() {
    let text = format!(
        "{GOOD}[routes.again]\nlisteners = [\"http\", \"https\"]\nhosts = \"*.EXAMPLE.org\"\npath = \"/api\"\nto = \"crm\"\n"
    );
    let expected = "error: the routes \"crm\" and \"again\" are both for the host \"*.example.org\" and the path \"/api\" of the listener \"https\"
  --> dir/policy.toml:46:9
   |
46 | hosts = \"*.EXAMPLE.org\"
   |         ^^^^^^^^^^^^^^^
note: the first one is here
  --> dir/policy.toml:33:27
   |
33 | hosts = [\"192.168.0.104\", \"*.example.org\"]
   |                           ^^^^^^^^^^^^^^^
help: give one of them another host or path
";
    assert_eq!(PolicyError(refused(&text)).to_string(), expected);
    // The same path in another writing.
    let text = format!(
        "{GOOD}[routes.again]\nlisteners = \"https\"\nhosts = \"192.168.0.104\"\npath = \"/%61pi\"\nto = \"crm\"\n"
    );
    let found = refused(&text);
    assert_eq!(found.len(), 1);
    assert!(found[0].message.contains("\"crm\" and \"again\" are both for the host"), "{}", found[0]);
    let text = format!("{GOOD}[routes.again]\nlisteners = \"http\"\nto = \"crm\"\n");
    let found = refused(&text);
    assert_eq!(found.len(), 1);
    assert!(found[0].message.contains("\"other\" and \"again\" are both for any other host"), "{}", found[0]);
}

#[test]
fn one_run_reports_errors_of_all_sections() {
    let text = GOOD
        .replace("\"nobody\"", "\"root\"")
        .replace("\":80\"", "\"80\"")
        .replace("127.0.0.1:8082", "localhost")
        .replace("\"/api\"", "\"api\"")
        .replace("status = 301", "status = 1");
    let lines: Vec<_> = refused(&text).iter().filter_map(|d| Some(d.place.as_ref()?.line)).collect();
    assert_eq!(lines, [10, 25, 27, 34, 40]);
}

#[test]
fn what_is_in_nobodys_reach_is_warned_of() {
    let unused = format!(
        "{GOOD}[listeners.idle]\nbind = \"127.0.0.1:9000\"\n[upstreams.idle]\nservers = \"127.0.0.1:1\"\n"
    );
    let found = warnings(&unused);
    assert_eq!(found.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [Some((44, 12)), Some((46, 12))]);
    assert!(
        found[0].1.contains("no route names this listener") && found[1].1.contains("no route goes to"),
        "{found:?}"
    );

    let closed = GOOD.replace("\":80\"", "\":8080\"");
    let found = warnings(&closed);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, Some((25, 8)));
    assert!(found[0].1.contains("tcp/8080"), "{found:?}");
    // A service for nobody lets nobody in; loopback is not filtered, and some interfaces accept everything.
    let nobody = GOOD.replace("allow = \"any\"", "allow = \"none\"");
    assert_eq!(warnings(&nobody).len(), 3);
    assert_eq!(warnings(&GOOD.replace("\":80\"", "[\"127.0.0.1:8080\", \"[::1]:8080\"]")), []);
    assert_eq!(
        warnings(&closed.replace("[interfaces.wlp2s0]", "[interfaces.wlp2s0]\ndefault = \"accept\"")),
        []
    );
}

#[test]
fn a_body_that_can_not_be_one_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("policy.toml");
    fs::write(&path, GOOD.replace("body = \"later\"", "file = \"down.html\"")).expect("a policy");
    let body = folder.path().join("down.html");
    let long = fs::File::create(&body).and_then(|file| file.set_len((1 << 20) + 1));
    long.expect("a file");
    let error = || policy::load(&path).expect_err("refused").to_string();
    assert!(error().contains("this body has more than 1 MiB"), "{}", error());
    fs::write(&body, b"caf\xe9").expect("a file");
    assert!(error().contains("this body is not UTF-8"), "{}", error());
    fs::remove_file(&body).and_then(|()| fs::create_dir(&body)).expect("a folder");
    assert!(error().contains("this body is a directory"), "{}", error());
}
