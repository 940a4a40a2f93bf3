//! What a new policy changes for the L7 proxy: listeners, upstreams and routes, a line each. Called by [`super::difference()`].

use super::difference::{changed, compare, list, word};
use super::units::ServerAddress;
use crate::proxy::plan::{Action, Authority, Listener, Plan, Route, Upstream};

/// Adds the differences between a plan and the next.
pub(super) fn add(lines: &mut Vec<String>, before: Option<&Plan>, after: Option<&Plan>) {
    let nothing = Plan::default();
    let (before, after) = (before.unwrap_or(&nothing), after.unwrap_or(&nothing));
    let (one, other): (Vec<_>, Vec<_>) =
        (before.listeners.iter().collect(), after.listeners.iter().collect());
    compare(
        lines,
        "listener",
        (one.iter(), other.iter()),
        |named| named.0,
        |a, b| listener(a.1, b.1),
        |_, named| bind(named.1),
    );
    let (one, other): (Vec<_>, Vec<_>) =
        (before.authorities.iter().collect(), after.authorities.iter().collect());
    compare(
        lines,
        "authority",
        (one.iter(), other.iter()),
        |named| named.0,
        |a, b| authority(a.1, b.1),
        |_, named| named.1.directory.clone(),
    );
    let (one, other): (Vec<_>, Vec<_>) =
        (before.upstreams.iter().collect(), after.upstreams.iter().collect());
    compare(
        lines,
        "upstream",
        (one.iter(), other.iter()),
        |named| named.0,
        |a, b| upstream(a.1, b.1),
        |_, named| servers(named.1),
    );
    compare(
        lines,
        "route",
        (before.routes.iter(), after.routes.iter()),
        |route| &route.name,
        route,
        |_, route| format!("{} on {} to {}", requests(route), list(&route.listeners), action(&route.action)),
    );
    if before.common != after.common {
        lines.push("~ proxy".to_owned());
    }
}

fn listener(one: &Listener, other: &Listener) -> Vec<String> {
    let mut changes = Vec::new();
    changed(&mut changes, "bind", bind(one), bind(other));
    changed(&mut changes, "tls", tls(one), tls(other));
    if changes.is_empty() && one.tls != other.tls {
        changes.push("other TLS settings".to_owned());
    }
    changed(&mut changes, "http2", one.http2.to_string(), other.http2.to_string());
    changes
}

fn bind(listener: &Listener) -> String {
    list(&listener.bind.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn tls(listener: &Listener) -> String {
    let Some(tls) = &listener.tls else { return "none".to_owned() };
    let chains: Vec<_> = tls.certificates.iter().map(|one| one.chain.display().to_string()).collect();
    format!("from {} with {}", word(&tls.min_version), list(&chains))
}

fn authority(one: &Authority, other: &Authority) -> Vec<String> {
    let mut changes = Vec::new();
    changed(&mut changes, "directory", one.directory.clone(), other.directory.clone());
    changed(&mut changes, "challenge", word(&one.challenge), word(&other.challenge));
    if changes.is_empty() && one != other {
        changes.push("other settings".to_owned());
    }
    changes
}

fn upstream(one: &Upstream, other: &Upstream) -> Vec<String> {
    let mut changes = Vec::new();
    changed(&mut changes, "servers", servers(one), servers(other));
    changed(&mut changes, "protocol", word(&one.protocol), word(&other.protocol));
    let settings = Upstream { servers: one.servers.clone(), protocol: one.protocol, ..other.clone() };
    if *one != settings {
        changes.push("other settings".to_owned());
    }
    changes
}

fn servers(upstream: &Upstream) -> String {
    list(&upstream.servers.iter().map(|server| ServerAddress(server.clone()).to_string()).collect::<Vec<_>>())
}

/// Where a route stands in the file is no part of what it does.
fn route(one: &Route, other: &Route) -> Vec<String> {
    let mut changes = Vec::new();
    changed(&mut changes, "listeners", list(&one.listeners), list(&other.listeners));
    changed(&mut changes, "requests", requests(one), requests(other));
    changed(&mut changes, "action", action(&one.action), action(&other.action));
    if changes.is_empty() && one.action != other.action {
        changes.push("another answer".to_owned());
    }
    if one.limit != other.limit {
        changes.push("another limit".to_owned());
    }
    changed(&mut changes, "max-body", one.body.to_string(), other.body.to_string());
    if one.headers != other.headers {
        changes.push("other headers".to_owned());
    }
    changes
}

/// The requests that a route is for.
fn requests(route: &Route) -> String {
    let hosts = if route.hosts.is_empty() { "any host".to_owned() } else { list(&route.hosts) };
    format!("{hosts} {}", route.path)
}

fn action(action: &Action) -> String {
    match action {
        Action::Forward { upstream, websocket: false } => upstream.clone(),
        Action::Forward { upstream, websocket: true } => format!("{upstream} with WebSockets"),
        Action::Redirect { status, to } => format!("{status} {to}"),
        Action::Respond { status, .. } => format!("an answer {status}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{difference, parse};

    const PROXY: &str = "[listeners.http]\nbind = \":80\"\n[upstreams.app]\nservers = \"127.0.0.1:8000\"\n\
                         [routes.app]\nlisteners = \"http\"\nto = \"app\"\n";

    fn differences(before: &str, after: &str) -> Vec<String> {
        let policy = |text: &str| {
            let text = format!("version = 1\n[interfaces.eth0]\n{text}");
            parse(&text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"))
        };
        difference(&policy(before), &policy(after))
    }

    #[test]
    fn what_opens_and_closes_has_a_line() {
        let opened = [
            "+ listener http: 0.0.0.0:80, [::]:80",
            "+ upstream app: 127.0.0.1:8000",
            "+ route app: any host / on http to app",
        ];
        assert_eq!(differences("", PROXY), opened);
        assert_eq!(differences(PROXY, ""), opened.map(|line| line.replacen('+', "-", 1)));
    }

    #[test]
    fn what_changes_says_from_what_to_what() {
        let after = PROXY
            .replace(":80\"", "127.0.0.1:80\"")
            .replace("[upstreams.app]\n", "[upstreams.app]\nrest = \"1s\"\n")
            .replace(
                "to = \"app\"\n",
                "respond = { status = 503 }\nhosts = \"a.org\"\n[proxy]\nuser = \"www\"\n",
            );
        assert_eq!(
            differences(PROXY, &after),
            [
                "~ listener http: bind 127.0.0.1:80 (was 0.0.0.0:80, [::]:80)",
                "~ upstream app: other settings",
                "~ route app: requests a.org / (was any host /); action an answer 503 (was app)",
                "~ proxy",
            ]
        );
    }

    #[test]
    fn another_place_in_the_file_is_no_difference() {
        assert_eq!(differences(PROXY, &format!("\n\n{PROXY}")), [""; 0]);
    }
}
