"""A SYN to a closed port inside or behind something else: tags, tunnels, IP options, lengths that lie."""

import itertools

from lab import CLOSED, LINK, OUTSIDE_V6, SERVER_V4, SERVER_V6, V4, V6, syn, write
from scapy.all import (
    GRE,
    IP,
    LLC,
    SNAP,
    TCP,
    UDP,
    VXLAN,
    Dot1AD,
    Dot1Q,
    Ether,
    IPv6,
    Raw,
    raw,
)
from scapy.contrib.mpls import MPLS
from scapy.utils import checksum


def options():
    """IPv4 options: source routes, record route, timestamp, router alert, security, and broken ones."""
    for kind in (3, 9):
        for pointer in (4, 8, 40):
            yield bytes([131 if kind == 3 else 137, 11, pointer]) + b"\xc0\xa8\x00\x68" * 2 + b"\0"
    yield bytes([7, 39, 4]) + b"\0" * 37
    yield bytes([68, 40, 5, 0]) + b"\0" * 36
    yield bytes([148, 4, 0, 0])
    yield bytes([130, 11]) + b"\0" * 10
    for broken in ([131, 0], [131, 1], [131, 255], [7, 40], [0xFF, 4], [1] * 40, [0] * 40):
        yield bytes(broken).ljust((len(broken) + 3) // 4 * 4, b"\0")


def with_options(data, packet):
    """The packet with options put behind its header, whatever they are."""
    header, rest = bytearray(raw(packet)[:20]), raw(packet)[20:]
    header[0] = 0x40 | (5 + len(data) // 4)
    header[2:4] = (20 + len(data) + len(rest)).to_bytes(2, "big")
    header[10:12] = b"\0\0"
    header[10:12] = checksum(bytes(header) + data).to_bytes(2, "big")
    return Ether(src=LINK.src, dst=LINK.dst, type=0x0800) / Raw(bytes(header) + data + rest)


def tags():
    for first, second in itertools.product((0, 1, 7, 4095), (None, 0, 1, 4095)):
        yield Dot1Q(vlan=first) if second is None else Dot1Q(vlan=first) / Dot1Q(vlan=second)
        yield Dot1AD(vlan=first) if second is None else Dot1AD(vlan=first) / Dot1Q(vlan=second)
    yield Dot1Q() / Dot1Q() / Dot1Q()
    yield Dot1AD() / Dot1AD() / Dot1Q() / Dot1Q()


def tunnels(inner4, inner6):
    for outer in (V4, V6):
        for inner, kind, protocol in ((inner4, 0x0800, 4), (inner6, 0x86DD, 41)):
            base = outer.copy()
            if outer is V4:
                base.proto = protocol
            else:
                base.nh = protocol
            yield base / Raw(raw(inner))
            yield outer / GRE(proto=kind) / inner
            yield outer / GRE(proto=kind, chksum_present=1, key_present=1, seqnum_present=1) / inner
            yield outer / UDP(sport=4000, dport=4789) / VXLAN(vni=1) / Ether() / inner
            yield outer / UDP(sport=4000, dport=6081) / Raw(b"\0\0\x65\x58\0\0\1\0" + raw(Ether() / inner))
        yield outer / GRE(proto=0x6558) / Ether() / inner4
        yield outer / GRE(proto=0x880B, version=1) / inner4


def cases():
    for port in CLOSED:
        inner4 = IP(src="192.168.0.50", dst=SERVER_V4) / syn(port)
        inner6 = IPv6(src="fe80::50", dst=SERVER_V6) / syn(port)
        plain = V4 / syn(port)
        for tag in tags():
            for packet in (plain, V6 / syn(port)):
                yield LINK / tag / packet
        for packet in tunnels(inner4, inner6):
            yield LINK / packet
            yield LINK / Dot1Q(vlan=0) / packet
        for data in options():
            yield with_options(data, plain)
            yield with_options(data, V4 / UDP(sport=53, dport=port) / b"data")
        for offset in range(16):
            yield LINK / V4 / syn(port, dataofs=offset)
            yield LINK / V6 / syn(port, dataofs=offset)
        for flags in range(256):
            yield LINK / V4 / TCP(sport=4000, dport=port, flags=flags)
        for length in (0, 19, 20, 39, 41, 1500, 65535):
            yield LINK / IP(src=V4.src, dst=SERVER_V4, len=length) / syn(port)
        for version, ihl in itertools.product((0, 4, 5, 6, 15), (0, 4, 5, 6, 15)):
            yield LINK / IP(src=V4.src, dst=SERVER_V4, version=version, ihl=ihl) / syn(port)
        for source in ("127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", SERVER_V4, "172.17.0.2"):
            yield LINK / IP(src=source, dst=SERVER_V4) / syn(port)
        for source in ("::", "::1", "ff02::1", SERVER_V6, "::ffff:192.168.0.50", "::192.168.0.50"):
            yield LINK / IPv6(src=source, dst=SERVER_V6) / syn(port)
        # The one family under the other's EtherType, and IP below other link protocols.
        yield Ether(src=LINK.src, dst=LINK.dst, type=0x86DD) / Raw(raw(plain))
        yield Ether(src=LINK.src, dst=LINK.dst, type=0x0800) / Raw(raw(IPv6(src=OUTSIDE_V6, dst=SERVER_V6) / syn(port)))
        yield LINK / MPLS(label=16, s=1) / plain
        yield Ether(src=LINK.src, dst=LINK.dst, type=0x8864) / Raw(b"\x11\0\0\1\0\x2a\0\x21" + raw(plain))
        yield Ether(src=LINK.src, dst=LINK.dst, type=60) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=0x0800) / plain
        # As if the server were the router: it forwards, and what it forwards is judged too.
        yield LINK / IP(src=V4.src, dst="172.17.0.2") / syn(port)


write(cases())
