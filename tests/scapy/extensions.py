"""IPv6 extension headers in front of a SYN or a datagram: chains, atomic and nested fragments, routing headers."""

from lab import CLOSED, LINK, OPEN, SERVER_V6, V6, syn, whole, write
from scapy.all import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Jumbo,
    PadN,
    Raw,
    UDP,
    raw,
)

HOP, DEST, FRAGMENT, ROUTING = IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrRouting


def chains():
    """Headers by themselves, in any order and number."""
    for count in (1, 2, 3, 6, 7, 8, 9, 20):
        yield [DEST() for _ in range(count)]
        yield [HOP()] + [DEST(options=[PadN(optdata=b"\0" * 4)]) for _ in range(count)]
        yield [FRAGMENT(id=count) for _ in range(count)]
        yield [x for _ in range(count) for x in (FRAGMENT(id=count), DEST())]
        yield [HOP() for _ in range(count)]
    yield [DEST(), HOP()]
    yield [HOP(options=[PadN(optdata=b"\0" * 250)])]
    yield [HOP(options=[Jumbo(jumboplen=70000)])]
    for kind in (0, 1, 2, 3, 4, 43, 253, 255):
        for left in (0, 1, 2, 255):
            yield [ROUTING(type=kind, segleft=left, addresses=[SERVER_V6])]
            yield [HOP(), ROUTING(type=kind, segleft=left, addresses=[SERVER_V6, SERVER_V6]), DEST()]


def chained(headers, rest):
    packet = V6.copy()
    for header in headers:
        packet = packet / header
    return LINK / packet / rest


def by_hand(next_header, data, **fields):
    """A packet whose first next header is a number, whatever follows."""
    return LINK / IPv6(src=V6.src, dst=SERVER_V6, nh=next_header, **fields) / Raw(data)


def piece(identification, offset, more, next_header, data):
    header = FRAGMENT(id=identification, offset=offset, m=more, nh=next_header)
    return LINK / V6 / header / Raw(data)


def cases():
    number = 1000
    for port in CLOSED:
        for headers in chains() if port == CLOSED[1] else ():
            yield chained(headers, syn(port))
            yield chained(headers, UDP(sport=53, dport=port) / b"data")
        closed = whole(V6 / syn(port) / (b"A" * 36))
        allowed = whole(V6 / syn(OPEN) / (b"A" * 36))
        # Authentication headers of any length, ESP, mobility, HIP, shim6, and nothing.
        for length in (0, 1, 2, 4, 255):
            yield by_hand(51, bytes([6, length]) + b"\0" * 22 + closed)
        for kind in (50, 59, 135, 139, 140, 253, 254):
            yield by_hand(kind, bytes([6, 0]) + b"\0" * 6 + closed)
        # Lengths that lie.
        for length in (0, 1, 19, 65535):
            yield by_hand(6, closed, plen=length)
        yield by_hand(0, bytes([6, 255]) + closed)
        yield by_hand(60, bytes([6, 255]) + closed)
        # A header chain that goes on in the second fragment (RFC 7112), and ports that come only there.
        for first in (8, 16, 24):
            options = raw(DEST(nh=6, options=[PadN(optdata=b"\0" * 12)]))
            data = options + closed
            for order in (1, -1):
                number += 1
                parts = [(0, 1, data[:first]), (first // 8, 0, data[first:])][::order]
                for offset, more, part in parts:
                    yield piece(number, offset, more, 60, part)
        # Overlaps: RFC 5722 discards them all.
        for over, data in ((0, closed), (1, closed[8:]), (0, closed[:24])):
            number += 1
            yield piece(number, 0, 1, 6, allowed[:24])
            yield piece(number, over, 0, 6, data)
        # The rest says another next header than the first; a fragment within a fragment.
        number += 1
        yield piece(number, 0, 1, 58, b"\x80\0\0\0" + b"C" * 20)
        yield piece(number, 3, 0, 6, closed)
        inner = raw(FRAGMENT(id=number, nh=6)) + closed
        yield piece(number + 1, 0, 1, 44, inner[:24])
        yield piece(number + 1, 3, 0, 44, inner[24:])
        yield piece(number + 2, 8189, 0, 6, closed)
        number += 2


write(cases())
