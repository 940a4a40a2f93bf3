//! Bad policies: each error names file, line, column and the offending text, and says what to write instead.

mod faults;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tollgate::policy::{self, Diagnostic, PolicyError};

use faults::Case;

/// A good policy, a line a fact.
const GOOD: &str = r#"version = 1
[interfaces.wlp2s0]
hook = "auto"
default = "drop"
[zones]
lan = ["192.168.0.0/24"]
bad = ["198.51.100.0/24"]
[limits.web]
per-source = { packets = "2000/s", burst = 4000 }
[services.django]
ports = ["tcp/8000"]
allow = ["lan"]
limit = "web"
[plumbing]
ping = true
[timeouts]
udp = "180s"
[[test]]
from = "192.168.0.9"
to = "tcp/8000"
expect = "pass"
"#;

#[rustfmt::skip] // A table: a line a case.
const CASES: &[Case] = &[
    // Not TOML.
    ("[zones]", "[zones", (5, 7), "", "this is not TOML", "write `key = value` or `[table]`, text in double quotes, lists in [ ]"),
    ("\"drop\"", "drop", (4, 11), "drop", "text must be in quotes", "write \"drop\""),
    ("\"drop\"", "", (4, 11), "", "there is no value", "write a value after the `=`"),
    ("hook = \"auto\"", "default = \"drop\"", (4, 1), "default", "duplicate key", "write each key and each table once"),
    // Keys and types.
    ("version = 1", "version = 2", (1, 11), "2", "not a version", "write `version = 1`"),
    ("version = 1", "version = \"1\"", (1, 11), "\"1\"", "not a version", "write `version = 1`"),
    ("[zones]", "[zone]", (5, 2), "zone", "unknown key \"zone\"", "write `[zones]` instead"),
    ("[[test]]", "[test]", (18, 1), "[test]", "not a list of tables", "write `[[test]]`, with two brackets"),
    ("ports =", "prots =", (11, 1), "prots", "unknown key \"prots\"", "write `ports` instead"),
    ("burst =", "brst =", (9, 36), "brst", "unknown key \"brst\"", "write `burst` instead"),
    ("\"auto\"", "\"xdp\"", (3, 8), "\"xdp\"", "unknown word \"xdp\"", "write \"auto\", \"native\", \"generic\", \"tc\" or \"clsact\""),
    ("default = \"drop\"", "default = \"droop\"", (4, 11), "\"droop\"", "unknown word \"droop\"", "write \"drop\" instead"),
    ("[\"tcp/8000\"]", "\"tcp/8000\"", (11, 9), "\"tcp/8000\"", "expected a list, found text", "write a list: [\"tcp/8000\"]"),
    ("\"2000/s\"", "2000", (9, 26), "2000", "the number 2000 is not a rate", "write \"2000/s\""),
    ("\"180s\"", "180", (17, 7), "180", "the number 180 is not a duration", "write \"180s\""),
    ("\"tcp/8000\"]", "8000]", (11, 10), "8000", "the number 8000 is not a port", "write \"tcp/8000\""),
    ("ping = true", "ping = \"yes\"", (15, 8), "\"yes\"", "expected true or false, found text", "write true or false, without quotes"),
    ("burst = 4000", "burst = \"4000\"", (9, 44), "\"4000\"", "in quotes", "write 4000 without quotes, or with a unit for bytes: \"4000B\""),
    ("burst = 4000", "v6-prefix = \"64\"", (9, 48), "\"64\"", "expected a number, found text", "write a whole number, without quotes"),
    // Interfaces.
    ("wlp2s0", "\"sixteen-letters-\"", (2, 13), "\"sixteen-letters-\"", "16 bytes, names have at most 15", "write the name of an interface such as \"eth0\", or a pattern such as \"br-*\"; `ip link` lists the names"),
    ("wlp2s0", "\"wl/0\"", (2, 13), "\"wl/0\"", "it has a '/' in it", "write the name of an interface such as \"eth0\", or a pattern such as \"br-*\"; `ip link` lists the names"),
    ("wlp2s0", "eth0.100", (2, 18), "100", "unknown key \"100\"", "write a name with dots in quotes: [interfaces.\"eth0.100\"]"),
    ("hook = \"auto\"", "deny = [\"bda\"]", (3, 9), "\"bda\"", "unknown zone \"bda\"", "write \"bad\" instead"),
    ("to = \"tcp/8000\"", "to = \"tcp/8000\"\ninterface = \"wlp2s1\"", (21, 13), "\"wlp2s1\"", "unknown interface \"wlp2s1\"", "write \"wlp2s0\" instead"),
    ("to = \"tcp/8000\"", "to = \"tcp/8000\"\ninterface = \"eth0\"", (21, 13), "\"eth0\"", "unknown interface \"eth0\"", "write one of this policy's, such as \"wlp2s0\", or add `[interfaces.eth0]`"),
    ("to = \"tcp/8000\"", "to = \"tcp/8000\"\ninterface = \"wl*\"", (21, 13), "\"wl*\"", "is a pattern", "write the name of an interface that the pattern means"),
    ("hook = \"auto\"\ndefault = \"drop\"", "hook = \"native\"\ndefault = \"reject\"", (3, 8), "\"native\"", "not answer them", "write \"tc\", or \"auto\", which then takes TC; or reject nothing: write \"drop\" there"),
    ("hook = \"auto\"\ndefault = \"drop\"", "default = \"reject\"\nhook = \"generic\"", (4, 8), "\"generic\"", "not answer them", "write \"tc\", or \"auto\", which then takes TC; or reject nothing: write \"drop\" there"),
    ("default = \"drop\"", "default = \"refuse\"", (4, 11), "\"refuse\"", "unknown word \"refuse\"", "write \"drop\", \"accept\" or \"reject\""),
    // Zones.
    ("192.168.0.0/24", "192.168.0.5/24", (6, 8), "\"192.168.0.5/24\"", "host bits set", "write \"192.168.0.0/24\", or \"192.168.0.5\" for that one host"),
    ("192.168.0.0/24", "192.168.0.0/33", (6, 8), "\"192.168.0.0/33\"", "not a number from 0 to 32", "write \"192.168.0.0\" for that one host, or a length up to 32"),
    ("192.168.0.0/24", "192.168.0.300", (6, 8), "\"192.168.0.300\"", "is not a prefix", "write a prefix such as \"192.168.0.0/24\" or \"fe80::/10\", or an address"),
    ("[\"192.168.0.0/24\"]", "[]", (6, 1), "lan", "the zone \"lan\" has no addresses", "write its prefixes, \"any\", or leave the zone out"),
    ("[\"192.168.0.0/24\"]", "\"all\"", (6, 7), "\"all\"", "\"all\" is not a zone", "write a list of prefixes such as [\"192.168.0.0/24\"], or \"any\""),
    ("lan = [\"192.168.0.0/24\"]", "lan = [\"192.168.0.0/24\"]\nany = \"any\"", (7, 1), "any", "the name \"any\" is taken", "write another name, such as \"my-any\""),
    ("[\"198.51.100.0/24\"]", "{ prefixes = [\"198.51.100.0/24\"], interfaces = [\"\"] }", (7, 55), "\"\"", "it is empty", "write the name of an interface such as \"eth0\", or a pattern such as \"br-*\"; `ip link` lists the names"),
    ("[\"198.51.100.0/24\"]", "{ file = \"none.txt\" }", (7, 16), "\"none.txt\"", "there is no such list", "write the path of an existing file; a relative one starts at the policy's folder"),
    // Limits.
    ("2000/s", "0/s", (9, 26), "\"0/s\"", "a rate of no packets lets nothing through", "write a rate above zero; to close a service, write `allow = \"none\"` in it"),
    ("burst = 4000", "burst = 0", (9, 44), "0", "a burst of zero lets nothing through", "write at least 20"),
    ("burst = 4000", "burst = 19", (9, 44), "19", "smaller than what arrives in one tick of the kernel's clock (10 ms): 20 packets", "write at least 20"),
    ("packets = \"2000/s\", burst = 4000", "bytes = \"1MB/s\", burst = \"1500B\"", (9, 41), "\"1500B\"", "smaller than one packet", "write at least \"64KiB\""),
    ("packets = \"2000/s\", burst = 4000", "bytes = \"1B/s\"", (9, 24), "\"1B/s\"", "longer than 4 hours to refill", "write at least \"16KiB/h\""),
    ("\"2000/s\", burst = 4000", "\"3/h\", burst = 20", (9, 41), "20", "longer than 4 hours to refill", "write at most 12"),
    ("2000/s", "100000001/s", (9, 26), "\"100000001/s\"", "above 100000000/s", "write at most \"100000000/s\", or leave the limit out"),
    ("burst = 4000", "burst = -1", (9, 44), "-1", "-1 is below zero", "write a number of at least 1"),
    ("burst = 4000", "burst = \"4kB\"", (9, 44), "\"4kB\"", "a burst of packets, not of bytes", "write a number such as 2000"),
    ("burst = 4000", "bytes-burst = \"1MB\"", (9, 50), "\"1MB\"", "no rate of bytes is given", "write a rate too, `bytes = \"…/s\"`, or leave `bytes-burst` out"),
    ("packets = \"2000/s\", burst", "bytes = \"1MB/s\", connections = \"1/s\", burst", (9, 62), "4000", "`burst` is of packets", "write `bytes-burst` or `connections-burst`"),
    ("burst = 4000", "v6-prefix = 128", (9, 48), "128", "not from 1 to 64", "write a length from 1 to 64; an IPv6 host has a whole /64 to itself"),
    ("per-source = { packets = \"2000/s\", burst = 4000 }", "", (8, 9), "web", "limits nothing", "write `per-source = { packets = \"2000/s\" }`, `per-prefix = { … }` or `service = { … }`"),
    ("{ packets = \"2000/s\", burst = 4000 }", "{}", (9, 14), "{}", "limits nothing", "write a rate: `packets = \"2000/s\"`, `bytes` or `connections`"),
    ("burst = 4000 }", "burst = 4000 }\nexceed = \"ban\"", (10, 10), "\"ban\"", "is nothing that can be done about what is over a limit", "write \"drop\", or `{ ban = \"10m\" }`"),
    ("burst = 4000 }", "burst = 4000 }\nexceed = {}", (10, 10), "{}", "does not say for how long", "write `{ ban = \"10m\" }`"),
    ("burst = 4000 }", "burst = 4000 }\nexceed = { ban = \"10ms\" }", (10, 18), "\"10ms\"", "from 1 second to 365 days", "write a duration such as \"10m\""),
    ("burst = 4000 }", "burst = 4000 }\nexceed = { ban = \"10m\", after = 0 }", (10, 33), "0", "not from 1 to 30000", "write a number from 1 to 30000, or leave `after` out: it is 100 then"),
    ("per-source = { packets = \"2000/s\", burst = 4000 }", "service = { packets = \"2000/s\" }\nexceed = { ban = \"10m\" }", (10, 10), "{ ban = \"10m\" }", "counts none by source", "write `per-source = { … }` too, or leave `exceed` out"),
    // Services.
    ("tcp/8000\"]", "tcp/80000\"]", (11, 10), "\"tcp/80000\"", "out of range", "write a port from 1 to 65535"),
    ("tcp/8000\"]", "tcp/8010-8000\"]", (11, 10), "\"tcp/8010-8000\"", "run backwards", "write \"tcp/8000-8010\""),
    ("[\"tcp/8000\"]", "[\"tcp/8000-8001\", \"tcp/8001\"]", (11, 27), "\"tcp/8001\"", "tcp/8001 is in this service twice", "write it once"),
    ("[\"tcp/8000\"]", "[]", (11, 9), "[]", "this list of ports is empty", "write `ports = [\"tcp/8000\"]`"),
    ("ports = [\"tcp/8000\"]", "", (10, 11), "django", "has no ports", "write `ports = [\"tcp/8000\"]` in it"),
    ("allow = [\"lan\"]", "", (10, 11), "django", "does not say who may reach it", "write `allow = [\"…\"]` with zones in it, `allow = \"any\"`, or `allow = \"none\"`"),
    ("allow = [\"lan\"]", "allow = []", (12, 9), "[]", "this list allows nobody", "write `allow = \"none\"` to keep the service closed and count its drops under its name"),
    ("allow = [\"lan\"]", "allow = [\"lann\"]", (12, 10), "\"lann\"", "unknown zone \"lann\"", "write \"lan\" instead"),
    ("allow = [\"lan\"]", "allow = [\"office\"]", (12, 10), "\"office\"", "unknown zone \"office\"", "write `office = [\"192.0.2.0/24\"]` with its addresses under [zones], or name another zone"),
    ("allow = [\"lan\"]", "allow = [\"none\"]", (12, 10), "\"none\"", "\"none\" is not a zone", "write `allow = \"none\"`, without a list, for a service that nobody may reach; leave out an empty `deny`"),
    ("allow = [\"lan\"]", "allow = [\"lan\", \"lan\"]", (12, 17), "\"lan\"", "named twice", "write it once"),
    ("allow = [\"lan\"]", "allow = [\"lan\"]\ndeny = [\"lan\"]", (12, 9), "[\"lan\"]", "nobody can reach \"django\"", "leave out one of them, or write `allow = \"none\"` and no `deny`"),
    ("192.168.0.0/24\"]", "127.0.0.0/8\", \"::1\"]", (12, 9), "[\"lan\"]", "never have these sources", "write `allow = \"none\"`; this host itself reaches its own services in any case"),
    ("limit = \"web\"", "limit = \"wbe\"", (13, 9), "\"wbe\"", "unknown limit \"wbe\"", "write \"web\" instead"),
    ("limit = \"web\"", "limit = \"other\"", (13, 9), "\"other\"", "unknown limit \"other\"", "write `[limits.other]` and its rates, or leave `limit` out"),
    ("limit = \"web\"", "refuse = \"accept\"", (13, 10), "\"accept\"", "unknown word \"accept\"", "write \"drop\" or \"reject\""),
    ("services.django", "services.default", (10, 11), "default", "the name \"default\" is taken", "write another name, such as \"my-default\""),
    ("services.django", "services.Django", (10, 11), "Django", "\"Django\" is not a name", "write \"django\""),
    ("hook = \"auto\"", "isolate = [\"lann\"]", (3, 12), "\"lann\"", "unknown zone \"lann\"", "write \"lan\" instead"),
    ("hook = \"auto\"", "isolate = \"any\"", (3, 11), "\"any\"", "this host itself", "name zones of the networks behind this host, or write `deny` to take nothing from them"),
    // The rest.
    ("ping = true", "ping-limit = \"wep\"", (15, 14), "\"wep\"", "unknown limit \"wep\"", "write \"web\" instead"),
    ("ping = true", "ping = false\nping-limit = \"web\"", (16, 14), "\"web\"", "ping is off", "leave `ping-limit` out, or write `ping = true`"),
    ("180s", "0s", (17, 7), "\"0s\"", "not from 1s to 30d", "write a duration from \"1s\" to \"30d\", such as \"3m\""),
    ("180s", "180 seconds", (17, 7), "\"180 seconds\"", "is not a duration", "write \"180s\""),
    ("\"192.168.0.9\"", "\"192.168.0.0/24\"", (19, 8), "\"192.168.0.0/24\"", "is not an address", "write one address: \"192.168.0.1\""),
    ("to = \"tcp/8000\"", "to = \"tcp/8000-8001\"", (20, 6), "\"tcp/8000-8001\"", "more than one port", "write \"tcp/8000\""),
    ("to = \"tcp/8000\"", "", (18, 1), "[[test]]", "the test has no `to`", "write `to = \"tcp/22\"` in it"),
    ("\"pass\"", "\"accept\"", (21, 10), "\"accept\"", "unknown word \"accept\"", "write \"pass\" or \"drop\""),
];

fn refused(text: &str) -> Vec<Diagnostic> {
    match policy::parse(text, Path::new("dir/policy.toml")) {
        Ok(_) => panic!("this is refused:\n{text}"),
        Err(PolicyError(diagnostics)) => diagnostics,
    }
}

#[test]
fn a_service_that_rejects_is_named_where_the_hook_can_not() {
    let text = GOOD.replace("\"auto\"", "\"native\"").replace("limit = \"web\"", "refuse = \"reject\"");
    let found = refused(&text);
    let [error] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(error.place.as_ref().map(|place| (place.line, place.column)), Some((3, 8)));
    assert_eq!(error.notes[0].place.line, 13);
    // Whoever is allowed is not refused: nothing is rejected, and any hook will do.
    let open = text.replace("allow = [\"lan\"]", "allow = \"any\"");
    assert!(policy::parse(&open, Path::new("policy.toml")).is_ok());
}

#[test]
fn the_good_policy_is_good() {
    if let Err(error) = policy::parse(GOOD, Path::new("policy.toml")) {
        panic!("{error}");
    }
}

#[test]
fn every_fault_is_located_and_put_right() {
    faults::each_is_located_and_put_right(GOOD, CASES);
}

#[test]
fn an_error_looks_like_this() {
    let text = GOOD.replace("allow = [\"lan\"]", "allow = [\"lann\"]");
    let expected = "error: unknown zone \"lann\"
  --> dir/policy.toml:12:10
   |
12 | allow = [\"lann\"]
   |          ^^^^^^
help: write \"lan\" instead
";
    assert_eq!(PolicyError(refused(&text)).to_string(), expected);
}

#[test]
fn a_port_of_two_services_names_both_places() {
    let text = format!("{GOOD}[services.other]\nports = [\"tcp/7000-8000\"]\nallow = \"any\"\n");
    let expected = "error: tcp/8000 is already the port of \"django\"
  --> dir/policy.toml:23:10
   |
23 | ports = [\"tcp/7000-8000\"]
   |          ^^^^^^^^^^^^^^^
note: it is here first
  --> dir/policy.toml:11:10
   |
11 | ports = [\"tcp/8000\"]
   |          ^^^^^^^^^^
help: leave it out of \"django\" or of \"other\"
";
    assert_eq!(PolicyError(refused(&text)).to_string(), expected);
}

#[test]
fn one_run_reports_errors_of_all_sections() {
    let text = GOOD
        .replace("192.168.0.0/24", "192.168.0.5/24")
        .replace("2000/s", "0/s")
        .replace("tcp/8000\"]", "tcp/80000\"]")
        .replace("180s", "180")
        .replace("\"pass\"", "\"accept\"");
    let lines: Vec<_> = refused(&text).iter().filter_map(|d| Some(d.place.as_ref()?.line)).collect();
    assert_eq!(lines, [6, 9, 11, 17, 21]);
}

#[test]
fn a_policy_without_version_or_interface_is_refused() {
    let found = refused("");
    let messages: Vec<_> = found.iter().map(|d| d.message.as_str()).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[0].contains("version") && messages[1].contains("no interface"));
    assert!(found[0].place.is_none() && found[0].to_string().contains("\n --> dir/policy.toml\n"));
}

#[test]
fn too_many_of_anything_is_refused() {
    let many = |n: usize, line: &dyn Fn(usize) -> String| (0..n).map(line).collect::<String>();
    for (text, at, message) in [
        (
            many(256, &|i| format!("[zones.z{i}]\nprefixes = [\"10.0.0.0/8\"]\n")),
            22 + 2 * 253,
            "more than 255 zones",
        ),
        (
            many(249, &|i| format!("[limits.l{i}]\nservice = {{ packets = \"1/s\" }}\n")),
            22 + 2 * 248,
            "more than 249 limits",
        ),
        (
            many(1000, &|i| format!("[services.s{i}]\nports = [\"udp/{}\"]\nallow = \"none\"\n", i + 1)),
            22 + 3 * 999,
            "more than 1000 services",
        ),
    ] {
        let found = refused(&format!("{GOOD}{text}"));
        let hit = found
            .iter()
            .find(|d| d.message.contains(message))
            .unwrap_or_else(|| panic!("no {message}: {found:?}"));
        assert_eq!(hit.place.as_ref().map(|p| p.line), Some(at), "{hit}");
    }
}

/// A folder with a policy in it.
fn written(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("policy.toml");
    fs::write(&path, bytes).expect("a file");
    (folder, path)
}

/// The one error of a file, and its message.
fn only_error(path: &Path) -> Diagnostic {
    match policy::load(path) {
        Ok(_) => panic!("{} is refused", path.display()),
        Err(PolicyError(mut all)) => {
            assert_eq!(all.len(), 1, "{all:?}");
            all.remove(0)
        }
    }
}

#[test]
fn invalid_utf8_is_located() {
    let (_folder, path) = written(b"version = 1\n# caf\xe9 \xff\n");
    let error = only_error(&path);
    assert_eq!(error.message, "this is not UTF-8: byte 18 of the file is 0xe9");
    let place = error.place.as_ref().expect("a place");
    assert_eq!((place.line, place.column), (2, 6));
    assert!(error.help.contains("UTF-8"));
}

#[test]
fn what_is_no_file_is_refused_by_name() {
    let (folder, path) = written(GOOD.as_bytes());
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let circle = folder.path().join("circle");
    std::os::unix::fs::symlink(&circle, &circle).expect("a link");
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    for (path, message) in [
        (folder.path().join("missing.toml"), "there is no such policy"),
        (path.join("below"), "a part of its path is not a directory"),
        (folder.path().to_owned(), "this policy is a directory"),
        (pipe, "this policy is a pipe"),
        (socket, "this policy is a socket"),
        (PathBuf::from("/dev/zero"), "this policy is a device"),
        (circle, "a loop of symbolic links"),
    ] {
        let error = only_error(&path);
        assert!(error.message.contains(message), "{error}");
        assert!(
            error.place.is_none() && error.file == path && error.help.starts_with("write the path"),
            "{error}"
        );
    }
}

#[test]
fn an_unreadable_file_is_refused() {
    let (folder, path) = written(GOOD.as_bytes());
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("permissions");
    // Root reads everything: this thread becomes nobody as far as files are concerned.
    let error = std::thread::spawn(move || {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
        only_error(&path)
    });
    let error = error.join().expect("an error");
    assert_eq!(error.message, "this policy may not be read");
    assert_eq!(error.help, "make it readable for this user, or run as root");
}

#[test]
fn a_hundred_megabytes_are_refused_unread() {
    let (_folder, path) = written(b"");
    // Sparse: the size is what is looked at.
    fs::File::options().write(true).open(&path).and_then(|f| f.set_len(100 << 20)).expect("a length");
    let error = only_error(&path);
    assert_eq!(error.message, "this policy has more than 1 MiB");
    assert!(error.help.contains("file = \"list.txt\""), "{error}");
}

#[test]
fn a_megabyte_of_junk_is_refused_briefly() {
    let junk: Vec<u8> =
        (0..1u32 << 20).map(|i| b' ' + (i.wrapping_mul(2_654_435_761) >> 24) as u8 % 95).collect();
    let (_folder, path) = written(&junk);
    let error = policy::load(&path).expect_err("junk");
    assert!(error.0.len() <= 5 && error.to_string().len() < 4096, "{error}");
}

#[test]
fn a_bad_line_of_a_list_names_the_list() {
    let text = GOOD.replace("[\"198.51.100.0/24\"]", "{ file = \"list.txt\" }");
    let (folder, path) = written(text.as_bytes());
    let list = folder.path().join("list.txt");
    fs::write(&list, "# known\n198.51.100.0/24\n  198.51.100.7/24 # one\n").expect("a list");
    let error = only_error(&path);
    assert_eq!(error.file, list);
    let place = error.place.as_ref().expect("a place");
    assert_eq!((place.line, place.column, place.text.as_str()), (3, 3, "198.51.100.7/24"));
    assert_eq!(error.help, "write \"198.51.100.0/24\", or \"198.51.100.7\" for that one host");
    assert_eq!(place.source_line, "  198.51.100.7/24 # one");

    for (make, message) in [
        (&(|| fs::write(&list, "# nothing\n")) as &dyn Fn() -> std::io::Result<()>, "has no addresses"),
        (&|| fs::remove_file(&list), "there is no such list"),
        (&|| fs::create_dir(&list), "this list is a directory"),
    ] {
        make().expect("a file");
        let error = only_error(&path);
        assert!(error.message.contains(message), "{error}");
        assert_eq!((error.file.as_path(), error.place.as_ref().map(|p| p.line)), (path.as_path(), Some(7)));
    }
}
