//! Policies that are good, and turn off what a host lives by: their author is told, with line and column, and what is lost.

use std::path::Path;

use tollgate::policy::{self, Diagnostic, Severity};

const POLICY: &str = "version = 1
[interfaces.wlp2s0]
default = \"drop\"
[zones]
lan = [\"192.168.0.0/24\"]
[services.clients]
ports = [\"tcp/22\"]
allow = [\"lan\"]
[plumbing]
router-advertisements = true
dhcp = true
dhcpv6 = true
multicast-membership = true
mdns = true
ping = true
";

fn warnings(text: &str) -> Vec<Diagnostic> {
    let path = Path::new("dir/policy.toml");
    policy::parse(text, path).unwrap_or_else(|error| panic!("{error}\n{text}")).warnings
}

/// Line, column and underlined text of each.
fn places(found: &[Diagnostic]) -> Vec<(usize, usize, &str)> {
    let place = |one: &'_ Diagnostic| one.place.as_ref().map(|place| (place.line, place.column));
    found
        .iter()
        .map(|one| {
            let (line, column) = place(one).expect("a place");
            (line, column, one.place.as_ref().map_or("", |place| place.text.as_str()))
        })
        .collect()
}

#[test]
fn each_switch_that_cuts_the_host_off_is_named_with_what_is_lost() {
    for (key, line, column, lost) in [
        ("router-advertisements", 10, 25, "default route"),
        ("dhcp", 11, 8, "lease"),
        ("dhcpv6", 12, 10, "DHCPv6"),
        ("multicast-membership", 13, 24, "neighbour solicitations"),
    ] {
        let found = warnings(&POLICY.replace(&format!("{key} = true"), &format!("{key} = false")));
        assert_eq!(places(&found), [(line, column, "false")], "{key}");
        assert_eq!(found[0].severity, Severity::Warning);
        assert!(
            found[0].message.contains(&format!("`{key}`")) && found[0].message.contains(lost),
            "{found:?}"
        );
        assert!(found[0].help.starts_with(&format!("write `{key} = true`")), "{found:?}");
    }
}

#[test]
fn what_a_host_can_do_without_is_nothing_to_warn_of() {
    assert_eq!(warnings(POLICY), []);
    assert_eq!(
        warnings(&POLICY.replace("mdns = true", "mdns = false").replace("ping = true", "ping = false")),
        []
    );
    let defaults = &POLICY[..POLICY.find("[plumbing]").expect("a section")];
    assert_eq!(warnings(defaults), []);
}

#[test]
fn warnings_come_in_the_order_of_the_file_and_look_like_this() {
    let text = POLICY
        .replace("dhcp = true", "dhcp = false")
        .replace("advertisements = true", "advertisements = false");
    let found = warnings(&text);
    assert_eq!(places(&found), [(10, 25, "false"), (11, 8, "false")]);
    let shown = found[1].to_string();
    let expected = "  --> dir/policy.toml:11:8
   |
11 | dhcp = false
   |        ^^^^^
help: write `dhcp = true`, unless all its IPv4 addresses are set by hand
";
    assert!(shown.starts_with("warning: with `dhcp` off") && shown.ends_with(expected), "{shown}");
    let line = found[1].in_one_line();
    assert!(line.starts_with("dir/policy.toml:11:8: with `dhcp` off") && !line.contains('\n'), "{line}");
}

#[test]
fn a_service_for_the_clients_port_takes_the_place_of_the_switch() {
    let off = POLICY.replace("dhcp = true", "dhcp = false").replace("dhcpv6 = true", "dhcpv6 = false");
    assert_eq!(warnings(&off).len(), 2);
    assert_eq!(warnings(&off.replace("\"tcp/22\"", "\"udp/60-70\", \"udp/546\"")), []);
    // The same ports of TCP, or for nobody, are no way in.
    assert_eq!(warnings(&off.replace("\"tcp/22\"", "\"tcp/60-70\", \"tcp/546\"")).len(), 2);
    let nobody =
        off.replace("\"tcp/22\"", "\"udp/68\", \"udp/546\"").replace("allow = [\"lan\"]", "allow = \"none\"");
    assert_eq!(warnings(&nobody).len(), 2);
}

#[test]
fn interfaces_that_accept_by_default_cut_nothing_off() {
    let off = POLICY.replace("advertisements = true", "advertisements = false");
    assert_eq!(warnings(&off.replace("\"drop\"", "\"accept\"")), []);
    assert_eq!(warnings(&off.replace("\"drop\"", "\"reject\"")).len(), 1);
    let both = off.replace("\"drop\"", "\"accept\"\n[interfaces.eth1]\ndefault = \"drop\"");
    assert_eq!(warnings(&both).len(), 1);
}

#[test]
fn a_policy_with_errors_has_errors_alone() {
    let text =
        POLICY.replace("dhcp = true", "dhcp = false").replace("allow = [\"lan\"]", "allow = [\"lann\"]");
    let error = policy::parse(&text, Path::new("p.toml")).expect_err("an unknown zone");
    assert!(error.0.iter().all(|one| one.severity == Severity::Error) && error.0.len() == 1, "{error}");
}
