//! Ports that address translation leads to a container, past the host's own firewall: by iptables in both its forms, and by a
//! real Docker engine. Who may reach one is what the policy says of the published port; containers reach the outside and get
//! their answers. (By nft it is a row of `deployment`.)

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tollgate_tests::deployment::packets_of;
use tollgate_tests::docker::Docker;
use tollgate_tests::expect::{PATIENCE, at, counted, is_answered, is_dropped, reaches};
use tollgate_tests::lab::{OUTSIDE_V4, PUBLISHED, SERVER_V4};
use tollgate_tests::services::Services;
use tollgate_tests::traffic::http_get;
use tollgate_tests::{Deployment, Hook, Host, Lab};

/// What Docker writes for a container that publishes its port 80, and for its network.
const RULES: &str = "\
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 9000 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
COMMIT
";

/// The shipped policy, with the published port for the LAN.
fn with_published_port(hook: Hook) -> Result<String> {
    let shipped = packets_of("platform")?;
    let text = format!(
        "{shipped}\n[services.published]\nports = [\"tcp/{PUBLISHED}\"]\nallow = [\"lan\"]\nlimit = \"lan\"\n"
    );
    hook.of(&text)
}

/// Puts the policy in force by a hook.
fn enforced_by(d: &Deployment, hook: Hook) -> Result<()> {
    let file = d.write_policy("published.toml", &with_published_port(hook)?)?;
    d.tollgate.checked(&["apply", &file.to_string_lossy()])?;
    let (in_force, _) = d.tollgate.hook_and_mode()?;
    ensure!(in_force == hook.expected(), "{in_force} is in force");
    Ok(())
}

/// The outside gets through to the container, as it would without a filter: what follows is the filter's doing.
fn is_open_without_a_filter(lab: &Lab) -> Result<()> {
    let page = http_get(&lab.ns(Host::Outside), at(SERVER_V4, PUBLISHED)?, "/", PATIENCE)?;
    ensure!(page.is_answered_by_port(80), "without a filter: {page}");
    Ok(())
}

/// The published port is for the LAN, and the container's own is no way to it either.
fn is_for_the_lan_alone(d: &Deployment) -> Result<()> {
    let published = at(SERVER_V4, PUBLISHED)?;
    for host in [Host::Lan, Host::Lan2] {
        let delta = counted(d, || {
            let page = http_get(&d.lab.ns(host), published, "/", PATIENCE)?;
            ensure!(page.is_answered_by_port(80), "{host}: {page}");
            Ok(())
        })?;
        ensure!(delta.outcome("published", "service-allowed").packets >= 2, "{host}: {delta:#?}");
    }
    is_dropped(d, Host::Outside, published, "published", "service-refused")?;
    // The neighbours of the published port are no services.
    is_dropped(d, Host::Outside, at(SERVER_V4, PUBLISHED + 1)?, "default", "no-service")?;
    reaches(d, Host::Outside, at(SERVER_V4, 443)?, "web")
}

/// The lab's container, whose address is translated on the way out.
fn container_reaches_the_outside(d: &Deployment) -> Result<()> {
    let container = d.lab.ns(Host::Container);
    let delta = counted(d, || is_answered(&container, OUTSIDE_V4))?;
    // The SYN-ACK and the page, the DNS answer, the pong.
    ensure!(delta.reason("reply").packets >= 4, "{delta:#?}");
    Ok(())
}

fn translate(lab: &Lab, restore: &str) -> Result<()> {
    let server = lab.ns(Host::Server);
    let mut process = server.command(restore).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    process.stdin.take().context("no pipe")?.write_all(RULES.as_bytes())?;
    let output = process.wait_with_output()?;
    ensure!(output.status.success(), "{restore}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// `restore` is the form's iptables-restore: `iptables-nft-restore` or `iptables-legacy-restore`.
fn translated_by(restore: &str) -> Result<()> {
    let lab = Lab::new()?;
    lab.ns(Host::Server).run(&["nft", "delete", "table", "ip", "docker"])?;
    translate(&lab, restore)?;
    let services = Services::start(&lab)?;
    is_open_without_a_filter(&lab)?;
    let text = with_published_port(Hook::AsWritten)?;
    let d = Deployment::enforce(lab, None, services, &text, Hook::AsWritten)?;
    for hook in [Hook::AsWritten, Hook::Tc] {
        enforced_by(&d, hook)?;
        is_for_the_lan_alone(&d).with_context(|| format!("{hook:?}"))?;
        container_reaches_the_outside(&d).with_context(|| format!("{hook:?}"))?;
    }
    d.tollgate.detach()?;
    is_open_without_a_filter(&d.lab)
}

#[test]
fn a_port_published_by_iptables_is_for_whom_the_policy_says() -> Result<()> {
    translated_by("iptables-nft-restore")
}

#[test]
fn a_port_published_by_legacy_iptables_is_for_whom_the_policy_says() -> Result<()> {
    translated_by("iptables-legacy-restore")
}

#[test]
fn a_port_published_by_docker_is_for_whom_the_policy_says() -> Result<()> {
    let lab = Lab::new()?;
    let docker = Docker::start(&lab)?;
    docker.publish("web", PUBLISHED)?;
    let services = Services::start(&lab)?;
    is_open_without_a_filter(&lab)?;
    let text = with_published_port(Hook::AsWritten)?;
    let d = Deployment::enforce(lab, None, services, &text, Hook::AsWritten)?;
    let outcome = published_by(&docker, &d);
    // Before the lab ends: it would take the daemon away from its containers.
    drop(docker);
    outcome
}

fn published_by(docker: &Docker, d: &Deployment) -> Result<()> {
    for hook in [Hook::AsWritten, Hook::Tc] {
        enforced_by(d, hook)?;
        is_for_the_lan_alone(d).with_context(|| format!("{hook:?}"))?;
        let delta = counted(d, || {
            let page = docker.busybox("web", &["wget", "-q", "-O", "-", &format!("http://{OUTSIDE_V4}/")])?;
            ensure!(page == "this is port 80\n", "the outside, for a container: {page}");
            docker.busybox("web", &["ping", "-c", "1", "-W", "2", OUTSIDE_V4]).map(drop)
        })?;
        ensure!(delta.reason("reply").packets >= 3, "{hook:?}: {delta:#?}");
    }
    d.tollgate.detach()?;
    is_open_without_a_filter(&d.lab)
}
