//! hping3: floods from random sources, fragments, odd flags and headers, every kind of ICMP, other protocols.

use anyhow::Result;
use tollgate_tests::lab::SERVER_V4;
use tollgate_tests::{Hook, Host};

use crate::scene::{Run, Sends, by_both_hooks, each, needs, strangers};

/// Most runs send on the server's own link under an outside address, so that no router mends or drops anything.
fn hping3(hook: Hook) -> Result<()> {
    needs("hping3", "hping3")?;
    let spoofed = format!("hping3 -q -n -i u500 -c 60 -a 198.18.0.77 {SERVER_V4}");
    let few = format!("hping3 -q -n -i u1000 -c 5 -a 198.18.0.77 {SERVER_V4}");
    let icmp = [0, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 30, 37, 40, 42, 255]
        .map(|kind| format!("-1 --force-icmp -C {kind} -K {}", kind % 3));
    let raw = [0, 2, 4, 6, 17, 41, 47, 50, 51, 58, 89, 94, 103, 112, 132, 136, 142, 200, 253, 255]
        .map(|protocol| format!("-0 -H {protocol} -d 40"));
    let from_the_link = |commands| Sends::Tools { from: Host::Lan2, commands };
    strangers(
        hook,
        &[
            Run {
                name: "hping3: floods from random sources",
                sends: Sends::Tools {
                    from: Host::Outside,
                    commands: each(
                        &format!("hping3 -q -n --rand-source {SERVER_V4}"),
                        ["-S -p 22 -c 6000 -i u50", "-A -p 22 -c 2000 -i u100", "-2 -p 53 -c 2000 -i u100"],
                    ),
                },
                passes: &[],
                drops: &["no-service"],
                random: true,
                frames: 8000,
            },
            Run {
                name: "hping3: fragments",
                sends: from_the_link(each(
                    &spoofed,
                    [
                        "-S -p 5432 -f -d 120",
                        "-S -p 5432 -x",
                        "-S -p 22 -x -f -d 60",
                        "-S -p 8000 --mtu 8 -d 100",
                        "-S -p 8000 --mtu 24 -d 200",
                        "-S -p 22 --mtu 1000 -d 1400",
                        "-S -p 5432 -g 8",
                        "-S -p 5432 -g 65528 -d 100",
                        "-2 -p 53 -f -d 100",
                        "-1 -C 13 -f -d 100",
                    ],
                )),
                passes: &[],
                drops: &["fragment-malformed", "fragment-orphan", "no-service", "service-refused"],
                random: false,
                frames: 2000,
            },
            Run {
                name: "hping3: odd flags and headers",
                sends: from_the_link(each(
                    &spoofed,
                    [
                        "-p 22 --xmas",
                        "-p 22 --ymas",
                        "-p 5432 --xmas --ymas -S",
                        "-p 5432 --xmas --ymas",
                        "-p 22",
                        "-p 5432 -F -S -R -P -A -U -X -Y",
                        "-p 5432 -F -P -U",
                        "-p 5432 -A",
                        "-p 8000 -S -A",
                        "-p 8000 -R",
                        "-p 8083 -F",
                        "-p 22 -S -O 3",
                        "-p 22 -S -O 15",
                        "-p 5432 -S -b",
                        "-p 5432 -S -w 0 -s 0 -k",
                        "-p 0 -S",
                        "-p 8000 -S -d 1000 --tcp-timestamp --tcp-mss 1",
                    ],
                )),
                passes: &[],
                drops: &["malformed-tcp", "no-service", "service-refused", "tcp-flags"],
                random: false,
                frames: 1000,
            },
            Run {
                name: "hping3: every kind of ICMP",
                sends: from_the_link(each(&few, icmp.each_ref().map(String::as_str))),
                passes: &["ping"],
                drops: &["icmp-error-unknown", "no-service"],
                random: false,
                frames: 80,
            },
            Run {
                name: "hping3: protocols without a service, datagrams, IP options",
                sends: from_the_link(
                    each(&few, raw.each_ref().map(String::as_str))
                        + &each(
                            &spoofed,
                            [
                                "-2 -p 53",
                                "-2 -p 5432 -s 53 -k",
                                "-2 -p 0 -s 0",
                                "-S -p 5432 -G",
                                "-1 -C 13 -G",
                                "-S -p 22 --lsrr 192.168.0.104/203.0.113.9",
                                "-S -p 5432 --ssrr 192.168.0.104/203.0.113.9",
                            ],
                        ),
                ),
                passes: &[],
                drops: &["malformed-ipv4", "no-service", "service-refused"],
                random: true,
                frames: 300,
            },
        ],
    )
}

by_both_hooks!(hping3);
