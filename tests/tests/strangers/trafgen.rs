//! trafgen of netsniff-ng: hundreds of thousands of frames of which most are nothing at all.

use std::net::Ipv6Addr;

use anyhow::Result;
use tollgate_tests::lab::{SERVER_MAC, SERVER_PORT, SERVER_V6};
use tollgate_tests::{Hook, Host};

use crate::scene::{Run, Sends, by_both_hooks, needs, strangers};

fn trafgen(hook: Hook) -> Result<()> {
    needs("trafgen", "netsniff-ng")?;
    let mac = SERVER_MAC.map(|byte| format!("0x{byte:02x}")).join(",");
    let head = format!("{mac},0x02,0x00,0xc0,0xa8,0x00,0x01");
    let addresses = "198,18,0,78,192,168,0,104";
    // To itself: a ping to nobody would pass, and the server, being a router, would say that it knows no way there.
    let to_server = SERVER_V6.parse::<Ipv6Addr>()?.octets().map(|byte| byte.to_string()).join(",");
    let frames = [
        format!("{{ {head}, drnd(2), drnd(46) }}"),
        format!("{{ {head}, c16(0x0800), drnd(60) }}"),
        format!("{{ {head}, c16(0x0800), 0x45, drnd(11), {addresses}, drnd(40) }}"),
        format!("{{ {head}, c16(0x0800), 0x45, 0, c16(60), drnd(5), 6, drnd(2), {addresses}, drnd(40) }}"),
        format!("{{ {head}, c16(0x86dd), drnd(60) }}"),
        format!("{{ {head}, c16(0x86dd), 0x60, drnd(3), c16(40), drnd(18), {to_server}, drnd(40) }}"),
    ];
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("frames");
    std::fs::write(&path, frames.join("\n"))?;
    strangers(
        hook,
        &[Run {
            name: "trafgen: malformed frames",
            sends: Sends::Tools {
                from: Host::Router,
                commands: format!(
                    "trafgen --dev {SERVER_PORT} --conf {} --num 200000 --cpus 1 --no-sock-mem --notouch-irq --no-cpu-stats",
                    path.display()
                ),
            },
            // One in 65,536 is for the open port, and so on.
            passes: &[
                "link-control",
                "service-allowed",
                "fragment-known",
                "icmp-error",
                "ping",
                "multicast-membership",
            ],
            drops: &[
                "fragment-malformed",
                "fragment-orphan",
                "malformed-ipv4",
                "malformed-ipv6",
                "malformed-tcp",
                "malformed-udp",
                "no-service",
                "source-invalid",
                "tcp-flags",
                "unknown-ethertype",
            ],
            random: true,
            // What finds the driver's ring full is lost before anybody counts it.
            frames: 50_000,
        }],
    )
}

by_both_hooks!(trafgen);
