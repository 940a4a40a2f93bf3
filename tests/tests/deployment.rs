//! The deployment's policy, row by row, with real services and real clients, by both hooks.
//!
//! Each row says who reaches what; a refusal must also be counted under the rule that refused.

use anyhow::{Result, ensure};
use tollgate_tests::expect::{PATIENCE, SILENCE, at, counted, is_answered, is_dropped, reaches};
use tollgate_tests::lab::{OUTSIDE_V4, OUTSIDE_V6, PUBLISHED, SERVER_LINK_LOCAL, SERVER_V4, SERVER_V6};
use tollgate_tests::services::HttpServer;
use tollgate_tests::shared::Shared;
use tollgate_tests::traffic::{http_get, ping, psql_select_1, tcp_connect, udp_round_trip};
use tollgate_tests::{Deployment, Hook, Host, Outcome};

/// The lab's rule for what containers send to the outside.
const MASQUERADE: &str =
    "add rule ip docker postrouting ip saddr 172.17.0.0/16 oifname \"wlp2s0\" masquerade";

/// Services for the LAN: port and rule.
const FOR_THE_LAN: [(u16, &str); 3] = [(8000, "django"), (8082, "crm-dev"), (8083, "crm")];

/// A public name for each row, under the module of each hook.
macro_rules! rows {
    ($($name:ident),* $(,)?) => {
        mod as_written {
            use super::*;
            static DEPLOYMENT: Shared<Deployment> = Shared::new();
            $(#[test]
            fn $name() -> Result<()> {
                DEPLOYMENT.with(|| Deployment::platform(Hook::AsWritten), |d| super::$name(d))
            })*

            #[test]
            fn the_hook_is_native_xdp() -> Result<()> {
                DEPLOYMENT.with(|| Deployment::platform(Hook::AsWritten), |d| {
                    let (hook, mode) = d.tollgate.hook_and_mode()?;
                    ensure!(hook == "xdp" && mode == "native", "{hook}, {mode}");
                    Ok(())
                })
            }
        }

        mod by_tc {
            use super::*;
            static DEPLOYMENT: Shared<Deployment> = Shared::new();
            $(#[test]
            fn $name() -> Result<()> {
                DEPLOYMENT.with(|| Deployment::platform(Hook::Tc), |d| super::$name(d))
            })*

            #[test]
            fn the_hook_is_tc() -> Result<()> {
                DEPLOYMENT.with(|| Deployment::platform(Hook::Tc), |d| {
                    let (hook, mode) = d.tollgate.hook_and_mode()?;
                    ensure!(hook == "tc" && ["tcx", "clsact"].contains(&mode.as_str()), "{hook}, {mode}");
                    Ok(())
                })
            }
        }
    };
}

rows![
    the_lan_reaches_the_web_applications,
    the_lan_queries_the_database,
    the_outside_is_refused_by_the_web_applications,
    the_outside_is_refused_by_the_database,
    everyone_reaches_the_proxy_ports,
    the_lan_reaches_the_platform_by_its_link_local_address,
    the_outside_is_refused_over_ipv6,
    the_stripe_dashboard_is_for_the_host_alone,
    what_no_service_names_is_dropped,
    a_port_that_docker_publishes_is_no_way_around,
    a_container_is_not_addressed_directly,
    the_host_reaches_itself,
    containers_and_the_host_reach_each_other,
    containers_reach_the_outside,
    the_server_reaches_the_outside,
    the_server_can_be_pinged,
];

fn the_lan_reaches_the_web_applications(d: &Deployment) -> Result<()> {
    for (port, rule) in FOR_THE_LAN {
        reaches(d, Host::Lan, at(SERVER_V4, port)?, rule)?;
        reaches(d, Host::Lan2, at(SERVER_V4, port)?, rule)?;
    }
    Ok(())
}

fn the_lan_queries_the_database(d: &Deployment) -> Result<()> {
    let delta = counted(d, || {
        let answer = psql_select_1(&d.lab.ns(Host::Lan), SERVER_V4)?;
        ensure!(answer == Outcome::Answered("1\n".to_owned()), "{answer}");
        Ok(())
    })?;
    ensure!(delta.outcome("postgres", "service-allowed").packets >= 3, "{delta:#?}");
    Ok(())
}

fn the_outside_is_refused_by_the_web_applications(d: &Deployment) -> Result<()> {
    for (port, rule) in FOR_THE_LAN {
        is_dropped(d, Host::Outside, at(SERVER_V4, port)?, rule, "service-refused")?;
    }
    Ok(())
}

fn the_outside_is_refused_by_the_database(d: &Deployment) -> Result<()> {
    is_dropped(d, Host::Outside, at(SERVER_V4, 5432)?, "postgres", "service-refused")?;
    let delta = counted(d, || {
        let answer = psql_select_1(&d.lab.ns(Host::Outside), SERVER_V4)?;
        ensure!(answer == Outcome::TimedOut, "{answer}");
        Ok(())
    })?;
    ensure!(delta.outcome("postgres", "service-refused").packets >= 1, "{delta:#?}");
    Ok(())
}

fn everyone_reaches_the_proxy_ports(d: &Deployment) -> Result<()> {
    for port in [80, 443] {
        for host in [Host::Lan, Host::Lan2, Host::Outside] {
            for address in [SERVER_V4, SERVER_V6] {
                reaches(d, host, at(address, port)?, "web")?;
            }
        }
    }
    Ok(())
}

fn the_lan_reaches_the_platform_by_its_link_local_address(d: &Deployment) -> Result<()> {
    let lan = d.lab.ns(Host::Lan);
    for (port, rule) in FOR_THE_LAN {
        reaches(d, Host::Lan, lan.link_local(SERVER_LINK_LOCAL, "eth0", port)?, rule)?;
    }
    Ok(())
}

fn the_outside_is_refused_over_ipv6(d: &Deployment) -> Result<()> {
    for (port, rule) in FOR_THE_LAN.into_iter().chain([(5432, "postgres")]) {
        is_dropped(d, Host::Outside, at(SERVER_V6, port)?, rule, "service-refused")?;
    }
    Ok(())
}

fn the_stripe_dashboard_is_for_the_host_alone(d: &Deployment) -> Result<()> {
    for port in [8081, 8006] {
        let answer = http_get(&d.lab.ns(Host::Server), at("127.0.0.1", port)?, "/", PATIENCE)?;
        ensure!(answer.is_answered_by_port(port), "{answer}");
        for host in [Host::Lan, Host::Outside] {
            is_dropped(d, host, at(SERVER_V4, port)?, "stripe-dashboard", "service-refused")?;
        }
    }
    Ok(())
}

fn what_no_service_names_is_dropped(d: &Deployment) -> Result<()> {
    for host in [Host::Lan, Host::Outside] {
        is_dropped(d, host, at(SERVER_V4, 22)?, "default", "no-service")?;
        let delta = counted(d, || {
            let outcome = udp_round_trip(&d.lab.ns(host), at(SERVER_V4, 9)?, SILENCE)?;
            ensure!(outcome == Outcome::TimedOut, "{outcome}");
            Ok(())
        })?;
        ensure!(delta.outcome("default", "no-service").packets == 1, "{delta:#?}");
    }
    Ok(())
}

fn a_port_that_docker_publishes_is_no_way_around(d: &Deployment) -> Result<()> {
    is_dropped(d, Host::Outside, at(SERVER_V4, PUBLISHED)?, "default", "no-service")
}

/// Whoever makes the server a router to its containers: a neighbour on the LAN, or the LAN's own router for everybody.
fn a_container_is_not_addressed_directly(d: &Deployment) -> Result<()> {
    const CONTAINER: &str = "172.17.0.2";
    let container = d.lab.ns(Host::Container);
    let _listeners: Vec<_> = ["[::]:443", "[::]:8000", "[::]:5432"]
        .iter()
        .map(|address| HttpServer::start(&container, address))
        .collect::<Result<_>>()?;
    for host in [Host::Lan, Host::Router] {
        d.lab.ns(host).run(&["ip", "route", "replace", "172.17.0.0/16", "via", SERVER_V4])?;
    }
    for host in [Host::Lan, Host::Outside] {
        for port in [80, 443, 8000, 5432, PUBLISHED] {
            let delta = counted(d, || {
                let outcome = tcp_connect(&d.lab.ns(host), at(CONTAINER, port)?, SILENCE)?;
                ensure!(outcome == Outcome::TimedOut, "{host} to {CONTAINER}, {port}: {outcome}");
                Ok(())
            })?;
            ensure!(delta.reason("destination-isolated").packets == 1, "{host}, {port}: {delta:#?}");
        }
        // The bridge's own address is the server's, at which everything listens.
        let delta = counted(d, || {
            let pong = ping(&d.lab.ns(host), CONTAINER.parse()?)?;
            ensure!(!pong.is_answered(), "{host} pings {CONTAINER}: {pong}");
            let outcome = tcp_connect(&d.lab.ns(host), at("172.17.0.1", 8000)?, SILENCE)?;
            ensure!(outcome == Outcome::TimedOut, "{host} to the bridge: {outcome}");
            Ok(())
        })?;
        ensure!(delta.reason("destination-isolated").packets >= 2, "{host}: {delta:#?}");
        ensure!(delta.reason("ping").packets == 0, "{host}: {delta:#?}");
    }
    // What the container begins is answered, also where nobody translates its address.
    let server = d.lab.ns(Host::Server);
    server.run(&["nft", "flush", "chain", "ip", "docker", "postrouting"])?;
    let delta = counted(d, || {
        let page = http_get(&container, at(OUTSIDE_V4, 80)?, "/", PATIENCE)?;
        ensure!(page.is_answered_by_port(80), "{page}");
        let pong = ping(&container, OUTSIDE_V4.parse()?)?;
        ensure!(pong.is_answered(), "{pong}");
        Ok(())
    })?;
    server.run(&["nft", MASQUERADE])?;
    ensure!(delta.reason("reply").packets >= 3, "{delta:#?}");
    Ok(())
}

fn the_host_reaches_itself(d: &Deployment) -> Result<()> {
    let server = d.lab.ns(Host::Server);
    for address in ["127.0.0.1", "::1", SERVER_V4, SERVER_V6] {
        let answer = http_get(&server, at(address, 8000)?, "/", PATIENCE)?;
        ensure!(answer.is_answered_by_port(8000), "{address}: {answer}");
    }
    let answer = psql_select_1(&server, "127.0.0.1")?;
    ensure!(answer.is_answered(), "{answer}");
    Ok(())
}

fn containers_and_the_host_reach_each_other(d: &Deployment) -> Result<()> {
    let container = d.lab.ns(Host::Container);
    for port in [8000, 8082, 8083, 80] {
        let answer = http_get(&container, at("172.17.0.1", port)?, "/", PATIENCE)?;
        ensure!(answer.is_answered_by_port(port), "{answer}");
    }
    let answer = psql_select_1(&container, "172.17.0.1")?;
    ensure!(answer.is_answered(), "{answer}");
    let answer = http_get(&d.lab.ns(Host::Server), at("172.17.0.2", 80)?, "/", PATIENCE)?;
    ensure!(answer.is_answered_by_port(80), "{answer}");
    Ok(())
}

fn containers_reach_the_outside(d: &Deployment) -> Result<()> {
    is_answered(&d.lab.ns(Host::Container), OUTSIDE_V4)
}

fn the_server_reaches_the_outside(d: &Deployment) -> Result<()> {
    let server = d.lab.ns(Host::Server);
    for address in [OUTSIDE_V4, OUTSIDE_V6] {
        let delta = counted(d, || is_answered(&server, address))?;
        // The SYN-ACK and the page, the DNS answer, the pong.
        ensure!(delta.reason("reply").packets >= 4, "{address}: {delta:#?}");
    }
    Ok(())
}

fn the_server_can_be_pinged(d: &Deployment) -> Result<()> {
    let delta = counted(d, || {
        for host in [Host::Lan, Host::Outside] {
            for address in [SERVER_V4, SERVER_V6] {
                let pong = ping(&d.lab.ns(host), address.parse()?)?;
                ensure!(pong.is_answered(), "{host} to {address}: {pong}");
            }
        }
        Ok(())
    })?;
    ensure!(delta.reason("ping").packets == 4, "{delta:#?}");
    Ok(())
}
