"""Router advertisements that no router on the link can have sent, or that hide from whoever looks for them (RFC 7113)."""

from lab import ROUTER_MAC, write
from scapy.all import (
    Dot1AD,
    Dot1Q,
    Ether,
    ICMPv6ND_RA,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptRouteInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    PadN,
    Raw,
    raw,
)

ALL_NODES = Ether(src=ROUTER_MAC, dst="33:33:00:00:00:01")
# The end of a chain of headers: what follows is ICMPv6.
ICMPV6 = 58


def advertisement():
    """Everything that a host would take over: a router, an address, a route, an MTU, a hop limit."""
    return (
        ICMPv6ND_RA(routerlifetime=1800, chlim=17, prf=1)
        / ICMPv6NDOptPrefixInfo(prefix="2001:db8:bad::", prefixlen=64, L=1, A=1)
        / ICMPv6NDOptRouteInfo(prefix="2001:db8:113::", plen=48, rtlifetime=1800)
        / ICMPv6NDOptMTU(mtu=1300)
        / ICMPv6NDOptSrcLLAddr(lladdr=ROUTER_MAC)
    )


def whole(source="fe80::bad", destination="ff02::1", hops=255):
    """The advertisement with the checksum that it has in one piece."""
    packet = IPv6(src=source, dst=destination, hlim=hops) / advertisement()
    return raw(IPv6(raw(packet)).payload)


def below(*headers, source="fe80::bad", destination="ff02::1", hops=255):
    """The advertisement behind extension headers."""
    packet = IPv6(src=source, dst=destination, hlim=hops)
    for header in headers:
        packet = packet / header
    if not headers:
        packet.nh = ICMPV6
    return ALL_NODES / packet / Raw(whole(source, destination, hops))


def pieces(data, size, first_header, identification, order=1):
    """Data behind a fragment header, in pieces."""
    parts = [(at, data[at : at + size]) for at in range(0, len(data), size)][::order]
    for at, part in parts:
        more = int(at + size < len(data))
        header = IPv6ExtHdrFragment(id=identification, offset=at // 8, m=more, nh=first_header)
        yield ALL_NODES / IPv6(src="fe80::bad", dst="ff02::1", hlim=255) / header / Raw(part)


def cases():
    # From beyond the link: a router lowers the hop limit.
    for hops in (0, 1, 64, 254):
        yield below(hops=hops)
        yield below(destination="2001:db8:0:1::104", hops=hops)
    # From no link-local address.
    for source in ("2001:db8:0:1::bad", "2001:db8:198::77", "::", "::1", "ff02::2", "::ffff:192.168.0.1", "fec0::1"):
        yield below(source=source)
    # With a fragment header, in one piece or in several (RFC 6980).
    options = IPv6ExtHdrDestOpt(nh=ICMPV6, options=[PadN(optdata=b"\0" * 68)])
    yield below(IPv6ExtHdrFragment(id=1, nh=ICMPV6))
    yield below(IPv6ExtHdrHopByHop(), IPv6ExtHdrFragment(id=2, nh=ICMPV6))
    yield below(IPv6ExtHdrFragment(id=3), options)
    yield below(IPv6ExtHdrFragment(id=4), IPv6ExtHdrFragment(id=5, nh=ICMPV6))
    number = 10
    for size in (8, 16, 24, 48, 64):
        for order in (1, -1):
            yield from pieces(whole(), size, ICMPV6, number, order)
            # The kind of the packet comes only in the second piece (RFC 7112).
            yield from pieces(raw(options) + whole(), size, 60, number + 1, order)
            number += 2
    # Overlapping pieces: an echo request first, and the advertisement over it.
    yield from pieces(b"\x80\0\0\0" + b"\0" * 60, 32, ICMPV6, number)
    yield from pieces(whole(), 32, ICMPV6, number, -1)
    # Below more tags than are looked at; the kernel takes one off before TC sees the frame.
    yield ALL_NODES / Dot1AD(vlan=1) / Dot1AD(vlan=2) / Dot1Q(vlan=3) / Dot1Q(vlan=4) / below().payload


write(cases())
