//! thc-ipv6: ways round a firewall, fragments and extension headers, checks of implementations, old exploits, floods.

use anyhow::Result;
use tollgate_tests::lab::SERVER_V6;
use tollgate_tests::{Hook, Host};

use crate::scene::{Run, Sends, by_both_hooks, needs, strangers};

/// The test cases of a tool that waits seconds for each answer: all at a time.
fn numbered(template: &str, cases: u32) -> String {
    (1..=cases).map(|number| format!("timeout 2 {template} {number}\n")).collect()
}

fn thc_ipv6(hook: Hook) -> Result<()> {
    needs("atk6-firewall6", "thc-ipv6")?;
    let on = |template: &str| template.replace("SERVER", SERVER_V6);
    strangers(
        hook,
        &[
            Run {
                name: "thc-ipv6: ways round a firewall",
                sends: Sends::Tools {
                    from: Host::Outside,
                    commands: numbered(&on("atk6-firewall6 eth0 SERVER 22"), 40)
                        + &numbered(&on("atk6-firewall6 eth0 SERVER 5432"), 40)
                        + &numbered(&on("atk6-firewall6 -u eth0 SERVER 53"), 40),
                },
                passes: &["ping", "fragment-known"],
                drops: &[
                    "fragment-malformed",
                    "fragment-orphan",
                    "ipv6-header-chain",
                    "no-service",
                    "service-refused",
                ],
                random: true,
                frames: 300,
            },
            Run {
                name: "thc-ipv6: fragments, checks of implementations, old exploits",
                sends: Sends::Tools {
                    from: Host::Lan2,
                    commands: numbered(&on("atk6-fragmentation6 -p eth0 SERVER"), 40)
                        + &numbered(&on("atk6-implementation6 -p eth0 SERVER"), 60)
                        + &numbered(&on("atk6-exploit6 eth0 SERVER"), 7),
                },
                // One of the exploits is meant for a web server.
                passes: &["ping", "fragment-known", "icmp-error", "multicast-membership", "service-allowed"],
                drops: &[
                    "fragment-malformed",
                    "fragment-orphan",
                    "ipv6-header-chain",
                    "ipv6-routing-header",
                    "malformed-ipv6",
                    "neighbour-discovery-forged",
                    "no-service",
                    "source-invalid",
                ],
                random: true,
                frames: 300,
            },
            Run {
                name: "thc-ipv6: random headers and floods",
                sends: Sends::Tools {
                    from: Host::Lan2,
                    commands: on("timeout 2 atk6-fuzz_ip6 -a -I -F -S -D -H -R -J -1 eth0 SERVER\n\
                         timeout 2 atk6-fuzz_ip6 -a -x -s 22 eth0 SERVER\n\
                         timeout 2 atk6-fuzz_ip6 -a -x -4 eth0 SERVER\n\
                         timeout 2 atk6-randicmp6 eth0 SERVER\n\
                         timeout 0.5 atk6-thcsyn6 -R eth0 SERVER 22\n\
                         timeout 0.5 atk6-thcsyn6 -a -d -f -r eth0 SERVER 22\n\
                         timeout 1 atk6-denial6 eth0 SERVER 1\n\
                         timeout 1 atk6-denial6 eth0 SERVER 3\n\
                         timeout 1 atk6-denial6 eth0 SERVER 5\n\
                         timeout 1 atk6-redir6 eth0 SERVER 2001:db8:113::9 fe80::1 fe80::51\n\
                         timeout 1 atk6-toobig6 -u eth0 SERVER 2001:db8:113::9 1280"),
                },
                passes: &[
                    "ping",
                    "fragment-known",
                    "icmp-error",
                    "multicast-membership",
                    "router-advertisement",
                ],
                drops: &["icmp-error-unknown", "no-service", "tcp-flags"],
                random: true,
                frames: 1000,
            },
        ],
    )
}

by_both_hooks!(thc_ipv6);
