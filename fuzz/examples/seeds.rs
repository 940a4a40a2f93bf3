//! Writes the seed corpora: `cargo run --no-default-features --example seeds`, in `fuzz/`.
//!
//! Frames of every kind, histories over the policy of the target `engine`, policies, lists and requests. What is
//! written does not depend on the machine, so that a change shows in version control.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, PacketBuilder};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const HERE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THERE: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OFFICE: [u8; 4] = [192, 0, 2, 7];
const HOST: [u8; 4] = [192, 0, 2, 1];
const OFFICE6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const HOST6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const LINK6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const ALL6: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn main() -> Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let frames = frames()?;
    for (name, frame) in &frames {
        write(&corpus, "packet", name, frame)?;
    }
    for (name, history) in histories(&frames) {
        write(&corpus, "engine", name, &history)?;
    }
    for (name, text) in policies()? {
        write(&corpus, "policy", name, text.as_bytes())?;
    }
    for (name, list) in LISTS {
        write(&corpus, "list", name, list)?;
    }
    for (name, request) in PROXIED {
        write(&corpus, "request", name, request)?;
    }
    for (name, request) in REQUESTS {
        write(&corpus, "control", name, request.as_bytes())?;
    }
    Ok(())
}

/// Requests and answers of the proxy: the first byte has version, peer and body.
const PROXIED: [(&str, &[u8]); 8] = [
    ("get", b"\0GET /a?b=c\nHost: a.example\nCookie: a=1\nCookie: b=2\n\n200\nServer: x\nContent-Length: 3\n"),
    ("post", b"\x0cPOST / \nHost: a.example:80\nContent-Length: 3\nExpect: 100-continue\n\n204\nContent-Length: 0\n"),
    ("chunked", b"\x14PUT /\nHost: A.Example.\nTransfer-Encoding: chunked\nTrailer: X-A\n\n200\nTransfer-Encoding: chunked\n"),
    ("http2", b"\x02GET http://x.two.example/x\nTE: trailers\n\n200\nTrailer: grpc-status\n"),
    (
        "websocket",
        b"\0GET /ws\nHost: a.example\nConnection: keep-alive, Upgrade\nUpgrade: websocket\nSec-WebSocket-Key: \
          dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\n101\nConnection: upgrade\nUpgrade: websocket\n",
    ),
    ("trusted", b"\0GET /\nHost: a.example\nX-Forwarded-For: 198.51.100.7, 192.0.2.3\nX-Forwarded-Proto: https\n\n200\n"),
    ("redirect", b"\x01GET //there/../x\nHost: old.example\n"),
    ("dots", b"\0GET /a/%2e%2e/admin/x\nHost: a.example\nX_Real_IP: 1\nConnection: x-real-ip, host\nX-Real-IP: 1\n"),
];

fn write(corpus: &Path, target: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let folder = corpus.join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(name), bytes)?)
}

/// Named frames: each kind that the parser tells apart, right and wrong.
fn frames() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let v4 = |ttl| PacketBuilder::ethernet2(THERE, HERE).ipv4(OFFICE, HOST, ttl);
    let v6 = |hops| PacketBuilder::ethernet2(THERE, HERE).ipv6(OFFICE6, HOST6, hops);
    let link = |to, hops| PacketBuilder::ethernet2(THERE, HERE).ipv6(LINK6, to, hops);
    let mut frames = Vec::new();
    macro_rules! frame {
        ($name:literal, $builder:expr, $payload:expr) => {{
            let mut frame = Vec::new();
            $builder.write(&mut frame, $payload)?;
            frames.push(($name, frame));
        }};
    }
    frame!("v4-syn", v4(64).tcp(49152, 80, 1, 64240).syn(), &[]);
    frame!("v4-syn-ack", v4(64).tcp(443, 49152, 1, 64240).syn().ack(2), &[]);
    frame!("v4-ack-data", v4(64).tcp(49152, 5432, 1, 64240).ack(2).psh(), b"hello");
    frame!("v4-fin", v4(64).tcp(49152, 22, 1, 64240).fin().ack(2), &[]);
    frame!("v4-rst", v4(64).tcp(49152, 22, 1, 0).rst(), &[]);
    frame!("v4-null-flags", v4(64).tcp(49152, 22, 1, 0), &[]);
    frame!(
        "v4-syn-options",
        v4(64).tcp(49152, 22, 1, 1).options_raw(&[2, 4, 5, 180, 1, 3, 3, 7])?.syn(),
        &[]
    );
    frame!("v4-dns", v4(64).udp(49152, 53), b"question");
    frame!("v4-dhcp", v4(64).udp(67, 68), &[2; 200]);
    frame!(
        "v4-mdns",
        PacketBuilder::ethernet2(THERE, HERE).ipv4(OFFICE, [224, 0, 0, 251], 255).udp(5353, 5353),
        b"m"
    );
    frame!("v4-closed", v4(64).tcp(49152, 9, 1, 64240).syn(), &[]);
    frame!("v6-closed", v6(64).udp(49152, 9), b"odd");
    frame!("v4-ping", v4(64).icmpv4_echo_request(1, 2), b"abcdefgh");
    frame!("v4-pong", v4(64).icmpv4_echo_reply(1, 2), b"abcdefgh");
    frame!("v6-syn", v6(64).tcp(49152, 443, 1, 64240).syn(), &[]);
    frame!("v6-dns", v6(64).udp(49152, 53), b"question");
    frame!("v6-dhcp", link(HOST6, 64).udp(547, 546), &[7; 60]);
    frame!("v6-ping", v6(64).icmpv6_echo_request(1, 2), b"abcdefgh");
    frame!("v6-pong", v6(64).icmpv6_echo_reply(1, 2), b"abcdefgh");
    for (name, kind, hops) in [
        ("v6-router-solicitation", 133, 255),
        ("v6-router-advertisement", 134, 255),
        ("v6-neighbour-solicitation", 135, 255),
        ("v6-neighbour-forged", 136, 64),
        ("v6-redirect", 137, 255),
        ("v6-mld-query", 130, 1),
        ("v6-mld-report", 143, 1),
    ] {
        let mut frame = Vec::new();
        link(ALL6, hops).icmpv6_raw(kind, 0, [0; 4]).write(&mut frame, &[0; 16])?;
        frames.push((name, frame));
    }
    frame!(
        "vlan",
        PacketBuilder::ethernet2(THERE, HERE).single_vlan(7.try_into()?).ipv4(OFFICE, HOST, 64).udp(9, 53),
        b"x"
    );
    frame!(
        "vlan-double",
        PacketBuilder::ethernet2(THERE, HERE)
            .double_vlan(7.try_into()?, 8.try_into()?)
            .ipv6(OFFICE6, HOST6, 64)
            .udp(9, 53),
        b"x"
    );

    // What can't be built is made by hand from what can.
    let of = |name: &str| frames.iter().find(|(n, _)| *n == name).map(|(_, f)| f.clone()).unwrap_or_default();
    let mut more = vec![
        ("arp", [&HERE[..], &THERE, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]].concat()),
        ("eapol", [&HERE[..], &THERE, &[0x88, 0x8e, 1, 0, 0, 0]].concat()),
        ("spanning-tree", [&HERE[..], &THERE, &[0, 38, 0x42, 0x42, 3], &[0; 35]].concat()),
        ("unknown-ethertype", [&HERE[..], &THERE, &[0x88, 0x47, 0, 0, 1, 64]].concat()),
        ("short", HERE.to_vec()),
        (
            "vlan-triple",
            [&HERE[..], &THERE, &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 7, 0x81, 0, 0, 7, 8, 0]].concat(),
        ),
        ("v4-cut", of("v4-syn")[..40].to_vec()),
        ("v4-padded", [of("v4-rst"), vec![0; 6]].concat()),
        ("v4-igmp", other(2, &[0x16, 0, 0, 0, 224, 0, 0, 9], 1, None)?),
        ("v4-gre", other(47, &[0; 12], 64, None)?),
        ("v4-fragment-first", other(17, &of("v4-dns")[34..50], 64, Some((0, true)))?),
        ("v4-fragment-later", other(17, &[9; 16], 64, Some((2, false)))?),
        ("v4-fragment-tiny", other(6, &of("v4-syn")[34..42], 64, Some((0, true)))?),
        ("v4-unreachable", error(&of("v4-pong")[..34], 1, 3, &of("v4-dns")[14..])),
        ("v4-needs-fragments", error(&of("v4-pong")[..34], 1, 3, &of("v4-syn")[14..42])),
        ("v6-too-big", error(&of("v6-pong")[..54], 58, 2, &of("v6-dns")[14..])),
        ("v6-time-exceeded", error(&of("v6-pong")[..54], 58, 3, &of("v6-ping")[14..])),
    ];
    let udp = of("v6-dns");
    for (name, chain) in [
        ("v6-hop-by-hop", &[(0, vec![0, 1, 4, 0, 0, 0, 0])][..]),
        ("v6-destination", &[(60, vec![1; 15]), (60, vec![0; 7])]),
        ("v6-routing", &[(43, vec![2, 0, 1, 0, 0, 0, 0])]),
        ("v6-routing-done", &[(43, vec![0, 2, 0, 0, 0, 0, 0])]),
        ("v6-authentication", &[(51, vec![4; 23])]),
        ("v6-fragment-first", &[(44, vec![0, 0, 1, 0, 0, 0, 9])]),
        ("v6-fragment-later", &[(44, vec![0, 0, 8, 0, 0, 0, 9])]),
        ("v6-fragment-atomic", &[(44, vec![0, 0, 0, 0, 0, 0, 9])]),
        ("v6-fragment-twice", &[(44, vec![0, 0, 1, 0, 0, 0, 9]), (44, vec![0, 0, 1, 0, 0, 0, 9])]),
        ("v6-hop-by-hop-late", &[(60, vec![0; 7]), (0, vec![0; 7])]),
        (
            "v6-long-chain",
            &[
                (60, vec![0; 7]),
                (60, vec![0; 7]),
                (60, vec![0; 7]),
                (60, vec![0; 7]),
                (60, vec![0; 7]),
                (60, vec![0; 7]),
                (60, vec![0; 7]),
                (60, vec![0; 7]),
                (60, vec![0; 7]),
            ],
        ),
        ("v6-mobility-hip-shim", &[(135, vec![0; 7]), (139, vec![0; 7]), (140, vec![0; 7])]),
    ] {
        more.push((name, chained(&udp, chain)));
    }
    frames.extend(more);
    Ok(frames)
}

/// IPv4 with any protocol, perhaps a fragment (offset in units of eight bytes, more to follow).
fn other(protocol: u8, payload: &[u8], ttl: u8, fragment: Option<(u16, bool)>) -> Result<Vec<u8>> {
    let mut header = Ipv4Header::new(payload.len() as u16, ttl, IpNumber(protocol), OFFICE, HOST)?;
    header.identification = 9;
    if let Some((offset, more)) = fragment {
        header.dont_fragment = false;
        header.fragment_offset = IpFragOffset::try_new(offset)?;
        header.more_fragments = more;
    }
    header.header_checksum = header.calc_header_checksum();
    let mut frame = [&HERE[..], &THERE, &[8, 0]].concat();
    header.write(&mut frame)?;
    frame.extend(payload);
    Ok(frame)
}

/// An ICMP error behind the headers of another packet.
fn error(headers: &[u8], protocol: u8, kind: u8, quoted: &[u8]) -> Vec<u8> {
    let mut frame = [headers, &[kind, 0, 0, 0, 0, 0, 5, 0], quoted].concat();
    if protocol == 58 {
        let len = (8 + quoted.len()) as u16;
        frame[18..20].copy_from_slice(&len.to_be_bytes());
    } else {
        let len = (20 + 8 + quoted.len()) as u16;
        frame[16..18].copy_from_slice(&len.to_be_bytes());
    }
    frame
}

/// An IPv6 packet with extension headers: the kind of each, and what follows its first byte.
fn chained(frame: &[u8], chain: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut headers = Vec::new();
    for (at, (_, rest)) in chain.iter().enumerate() {
        headers.push(chain.get(at + 1).map_or(frame[20], |(kind, _)| *kind));
        headers.extend(rest);
    }
    let mut whole = [&frame[..54], &headers, &frame[54..]].concat();
    whole[20] = chain[0].0;
    let len = (whole.len() - 54) as u16;
    whole[18..20].copy_from_slice(&len.to_be_bytes());
    whole
}

/// Histories in the form that the target `engine` reads: interface, then packets, each with a byte that says how it is made.
fn histories(frames: &[(&'static str, Vec<u8>)]) -> Vec<(&'static str, Vec<u8>)> {
    const RAW: u8 = 4;
    const AGAIN: u8 = 5;
    const ANSWER: u8 = 6;
    const EGRESS: u8 = 8;
    // Longer ones would be cut, and so be malformed: the target `packet` has them.
    let short: Vec<_> = frames.iter().filter(|(_, frame)| frame.len() <= 255).collect();
    let raw = |what: u8, frame: &[u8]| [&[what | RAW, frame.len() as u8][..], frame].concat();
    let mut histories: Vec<_> =
        short.iter().map(|(name, frame)| (*name, [&[0][..], &raw(0, frame)].concat())).collect();
    let of = |name: &str| short.iter().find(|(n, _)| *n == name).map_or(&[][..], |(_, frame)| frame);
    let flow = |name: &str, after: &[u8]| [&[0][..], &raw(EGRESS, of(name)), after].concat();
    let rejected =
        |name: &str, after: &[u8], later: &[u8]| [&[3][..], &raw(0, of(name)), after, later].concat();
    histories.extend([
        // SYN out, SYN-ACK in, data after a while, FIN, and data again.
        (
            "flow-tcp",
            flow(
                "v4-syn",
                &[ANSWER, 1, 0x80 | ANSWER, 2, EGRESS | ANSWER, 3, 0xa0 | ANSWER, 2, 0xb0 | AGAIN],
            ),
        ),
        ("flow-udp", flow("v4-dns", &[ANSWER, 0, 0xc0 | AGAIN, 0xd0 | AGAIN])),
        ("flow-ping", flow("v6-ping", &[ANSWER, 0, 0x90 | AGAIN])),
        // The second answer, more than a second after the question, is noted: the flow lives 30 s from there.
        ("flow-noted", flow("v4-dns", &[0x80 | ANSWER, 0, 0x60 | AGAIN, 0xc0 | AGAIN])),
        // So is the third one, more than an eighth of the timeout after. What the host sends in between begins nothing.
        (
            "flow-noted-short",
            flow(
                "v4-ping",
                &[0x50 | ANSWER, 0, 0x50 | AGAIN, 0x50 | AGAIN, 0x80 | EGRESS | AGAIN, 0x80 | AGAIN],
            ),
        ),
        ("flow-unreachable", [&flow("v4-dns", &[])[..], &raw(0, of("v4-unreachable"))].concat()),
        ("flow-too-big", [&flow("v6-dns", &[])[..], &raw(0, of("v6-too-big"))].concat()),
        (
            "limit-ping",
            [&[0][..], &raw(0, of("v4-ping")), &[AGAIN, AGAIN, AGAIN, 0x80 | AGAIN, AGAIN]].concat(),
        ),
        (
            "limit-web",
            [&[1][..], &raw(0, of("v4-syn")), &[AGAIN, AGAIN, AGAIN, 0x60 | AGAIN, AGAIN, 0x50 | AGAIN]]
                .concat(),
        ),
        // Answered at once until there were too many, and then again.
        ("reject-tcp", rejected("v4-closed", &[AGAIN; 22], &[0x60 | AGAIN, 0x60 | AGAIN])),
        ("reject-udp", rejected("v6-closed", &[AGAIN], &[])),
        ("reject-others", rejected("v4-gre", &[AGAIN], &[])),
        // A SYN amid a connection of this host.
        ("reject-own", [&[3][..], &raw(EGRESS, of("v4-closed")), &[ANSWER, 0, AGAIN]].concat()),
        (
            "fragments",
            [&[0][..], &raw(0, of("v4-fragment-first")), &raw(0, of("v4-fragment-later")), &[0xd0 | AGAIN]]
                .concat(),
        ),
        (
            "fragments-v6",
            [&[2][..], &raw(0, of("v6-fragment-first")), &raw(0, of("v6-fragment-later"))].concat(),
        ),
    ]);
    // Frames from few bytes, of each family and shape.
    for (name, shape) in
        [("built-v4", 0), ("built-v6", 1), ("built-options", 2), ("built-chain", 7), ("built-tagged", 0x80)]
    {
        let mut history = vec![shape & 1];
        for kind in 0..32u8 {
            history.extend([
                kind << 4 & 0x30 | (kind & 1) << 3,
                shape,
                kind.wrapping_mul(37),
                kind.wrapping_mul(11),
            ]);
            history.extend([kind.wrapping_mul(53), kind.wrapping_mul(29)]);
            if shape & 4 != 0 {
                history.extend([kind, 0, kind & 1]);
            }
        }
        histories.push((name, history));
    }
    histories
}

/// The shipped policies, the one of the target `engine`, the examples of the page, and a few with errors.
fn policies() -> Result<Vec<(&'static str, String)>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    // Without comments: a fuzzer would spend most of its time on them.
    let read = |path: &str| -> Result<String> {
        let text = fs::read_to_string(root.join(path))?;
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim_end());
        Ok(lines.filter(|line| !line.is_empty()).fold(String::new(), |text, line| text + line + "\n"))
    };
    let mut policies = vec![
        ("minimal", read("policies/minimal.toml")?),
        ("platform", read("policies/platform.toml")?),
        ("platform-strict", read("policies/platform-strict.toml")?),
        ("engine", read("fuzz/engine.toml")?),
    ];
    policies.extend(POLICIES.map(|(name, text)| (name, text.to_owned())));
    Ok(policies)
}

const POLICIES: [(&str, &str); 14] = [
    ("empty", ""),
    ("no-interface", "version = 1\n"),
    ("version", "version = 2\n[interfaces.eth0]\n"),
    ("not-toml", "version = \n[interfaces\n"),
    ("smallest", "version = 1\n[interfaces.eth0]\n"),
    (
        "hooks",
        "version = 1\n[interfaces.a]\nhook = \"native\"\n[interfaces.b]\nhook = \"generic\"\n[interfaces.\"c*\"]\nhook = \"tc\"\ndefault = \"accept\"\n",
    ),
    (
        "zones",
        "version = 1\n[interfaces.eth0]\ndeny = [\"b\", \"c\"]\n[zones]\na = \"any\"\nb = [\"192.0.2.0/24\", \"::1\", \"0.0.0.0/0\"]\nc = { prefixes = [\"fe80::/10\"], interfaces = [\"eth*\", \"lo\"] }\n",
    ),
    ("list-missing", "version = 1\n[interfaces.eth0]\n[zones]\nbad = { file = \"list.txt\" }\n"),
    (
        "limits",
        "version = 1\n[interfaces.eth0]\n[limits.a]\nper-source = { packets = \"2000/s\", burst = 4000, connections = \"50/s\", v6-prefix = 56 }\nper-prefix = { bytes = \"10MB/s\", bytes-burst = \"1MiB\", v4-prefix = 24, v6-prefix = 48 }\nservice = { connections = \"10/m\" }\nexceed = \"drop\"\n[services.a]\nports = [\"tcp/80\", \"udp/80-90\"]\nallow = \"any\"\nlimit = \"a\"\n",
    ),
    (
        "services",
        "version = 1\n[interfaces.eth0]\n[zones]\nx = [\"10.0.0.0/8\"]\n[services.a]\nports = [\"tcp/1-65535\"]\nallow = [\"x\"]\n[services.b]\nports = [\"udp/53\"]\nallow = \"none\"\n[services.c]\nports = [\"udp/54\"]\nallow = \"any\"\ndeny = \"x\"\n",
    ),
    (
        "plumbing",
        "version = 1\n[interfaces.eth0]\n[plumbing]\nrouter-advertisements = false\ndhcp = false\ndhcpv6 = false\nmulticast-membership = false\nmdns = true\nping = true\nping-limit = \"none\"\n[timeouts]\ntcp-opening = \"1s\"\ntcp-established = \"30d\"\ntcp-closing = \"5m\"\nudp = \"1000ms\"\nicmp = \"4h\"\n",
    ),
    (
        "tests",
        "version = 1\n[interfaces.eth0]\n[services.a]\nports = [\"tcp/22\"]\nallow = \"any\"\n[[test]]\nfrom = \"203.0.113.9\"\nto = \"tcp/22\"\nexpect = \"pass\"\n[[test]]\nfrom = \"fe80::1\"\nto = \"ping\"\ninterface = \"eth0\"\nexpect = \"drop\"\n",
    ),
    (
        "errors",
        "version = 1\n[interfaces.eth0.100]\nhok = 1\n[zones]\nany = []\nb = [\"192.0.2.1/24\", 5, \"::ffff:1.2.3.4\"]\n[limits.x]\nper-source = { packets = 0 }\n[services.a]\nports = [80, \"tcp/0\", \"tcp/80\", \"tcp/80\"]\nallow = [\"lann\"]\n[timeouts]\nudp = \"1.5 m\"\n",
    ),
    (
        "unicode",
        "version = 1\n[interfaces.\"\u{e4}\u{202e}\"]\n# \u{1f600}\n[zones]\n\"w\u{f6}rld\" = [\"\u{661}.0.0.0\"]\n",
    ),
];

const LISTS: [(&str, &[u8]); 12] = [
    ("empty", b""),
    ("comments", b"# a list\n; of nothing\n\n   \t\n"),
    (
        "prefixes",
        b"198.51.100.0/24\n2001:db8:bad::/48      # host bits must be zero\n203.0.113.77\n::1\n0.0.0.0/0\n",
    ),
    ("marks", b"\xef\xbb\xbf192.0.2.0/24\r\n192.0.2.0/24 ; SBL1\r\n"),
    ("no-newline", b"203.0.113.0/24"),
    ("host-bits", b"192.0.2.1/24\n2001:db8::1/32\n"),
    ("lengths", b"192.0.2.0/33\n192.0.2.0/\n192.0.2.0/024\n::/129\n192.0.2.0/255.255.255.0\n"),
    ("mapped", b"::ffff:192.0.2.0/120\n::ffff:0:0/96\n"),
    ("not-addresses", b"example.net\n192.0.2\n10.0.0.1-10.0.0.9\nfe80::1%eth0\nany\n*\n"),
    ("not-utf-8", b"\xff\xfe1\x000\x00\n192.0.2.0/24 # \xe9\n"),
    ("many-errors", b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\n"),
    ("zeros", b"\0\0\0\0\n0/0\n00.0.0.0\n"),
];

const REQUESTS: [(&str, &str); 18] = [
    ("apply", "{\"version\":2,\"command\":{\"apply\":{\"file\":\"/etc/tollgate/policy.toml\"}}}\n"),
    (
        "apply-escaped",
        "{\"version\":2,\"command\":{\"apply\":{\"file\":\"/\\u00e9\\ud83d\\ude00 \\\"\\n\"}}}",
    ),
    ("spaces", " { \"command\" : { \"apply\" : { \"file\" : \"\" } } ,\t\"version\" : 2 } "),
    ("version", "{\"version\":3,\"command\":{\"dance\":1}}"),
    ("version-only", "{\"version\":2}"),
    ("version-huge", "{\"version\":4294967296}"),
    ("version-float", "{\"version\":2.0,\"command\":{}}"),
    ("unknown-key", "{\"version\":2,\"command\":{\"apply\":{\"file\":\"/a\"}},\"x\":1}"),
    ("unknown-command", "{\"version\":2,\"command\":{\"fly\":{}}}"),
    ("twice", "{\"version\":2,\"version\":2,\"command\":{\"apply\":{\"file\":\"/a\"}}}"),
    ("nested", "[[[[[[[[[[{\"version\":[[[[[[[[]]]]]]]]}]]]]]]]]]]"),
    (
        "answer-applied",
        "{\"applied\":{\"file\":\"/a\",\"hash\":\"00\",\"interfaces\":[{\"name\":\"eth0\",\"hook\":\"xdp\",\"mode\":\"native\"}],\"tests\":2,\"notes\":[\"n\"]}}",
    ),
    ("answer-bad-input", "{\"bad-input\":\"why\"}"),
    ("answer-refused", "{\"refused\":\"why\"}"),
    ("stats", "{\"version\":2,\"command\":\"stats\"}\n"),
    ("history", "{\"version\":2,\"command\":\"history\"}\n"),
    (
        "answer-stats",
        "{\"stats\":{\"seen\":{\"packets\":3,\"bytes\":300},\"reasons\":[{\"name\":\"arp\",\"verdict\":\"pass\",\"packets\":3,\"bytes\":300}],\"rules\":[{\"name\":\"web\",\"active\":true,\"packets\":0,\"bytes\":0,\"outcomes\":[]}],\"answers\":{\"sent\":0,\"throttled\":0,\"failed\":0},\"flows\":{\"known\":1,\"most\":65536},\"interfaces\":[]}}",
    ),
    (
        "answer-bans",
        "{\"bans\":{\"enforced\":true,\"bans\":[{\"prefix\":\"192.0.2.1/32\",\"since\":\"2026-01-31T10:00:07Z\",\"until\":null,\"seconds_left\":null,\"why\":\"\"}]}}",
    ),
];
