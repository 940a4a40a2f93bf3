"""IPv4 fragments that hide a port, or change it: tiny, overlapping, reordered, beyond the end, without end."""

from lab import CLOSED, LINK, OPEN, SERVER_V4, V4, syn, whole, write
from scapy.all import ICMP, IP, UDP, raw

FIRST, LAST = 1, 0


def piece(identification, offset, more, data, protocol=6):
    """A fragment; the offset counts in units of 8 bytes."""
    header = V4.copy()
    header.id, header.frag, header.flags, header.proto = identification, offset, more, protocol
    return LINK / header / data


def cases():
    number = 1
    for port in CLOSED:
        closed = whole(V4 / syn(port) / (b"A" * 36))
        allowed = whole(V4 / syn(OPEN) / (b"A" * 36))
        for size in (8, 16, 24, 32):
            parts = [(at, closed[at : at + size]) for at in range(0, len(closed), size)]
            for order in (parts, parts[::-1], parts[1:] + parts[:1], parts + parts):
                number += 1
                for at, data in order:
                    yield piece(number, at // 8, FIRST if at + size < len(closed) else LAST, data)
        # RFC 3128: a first fragment that is allowed, and a second one over its ports or its flags.
        for over, data in ((0, closed), (0, closed[:24]), (1, closed[8:]), (1, closed[8:24])):
            number += 1
            yield piece(number, 0, FIRST, allowed[:24])
            yield piece(number, over, LAST, data)
            number += 1
            yield piece(number, over, LAST, data)
            yield piece(number, 0, FIRST, allowed[:24])
            yield piece(number, 3, LAST, allowed[24:])
        # The same identification for a datagram that is allowed and for one that is not.
        number += 1
        yield piece(number, 0, FIRST, allowed[:24])
        yield piece(number, 0, FIRST, closed[:24])
        yield piece(number, 3, LAST, closed[24:])
        # Another protocol under the identification that is known.
        yield piece(number, 0, FIRST, raw(UDP(sport=4000, dport=port, len=40, chksum=0) / (b"B" * 16)), 17)
        yield piece(number, 3, LAST, b"B" * 16, 17)
        # An allowed ping whose rest is a SYN.
        number += 1
        yield piece(number, 0, FIRST, raw(ICMP(id=1) / (b"C" * 16)), 1)
        yield piece(number, 3, LAST, closed, 1)
        yield piece(number, 0, LAST, closed)
        # Beyond 65,535 bytes; a whole datagram with an offset; more fragments to come, which never do.
        yield piece(number + 1, 8189, LAST, closed)
        yield piece(number + 2, 1, LAST, closed)
        yield piece(number + 3, 0, FIRST, closed)
        yield piece(number + 4, 0, FIRST, closed[:20])
        # A hole that is not a multiple of 8; the reserved flag; do not fragment, and yet a fragment.
        yield piece(number + 5, 0, FIRST, closed[:27])
        yield piece(number + 6, 0, 4 | FIRST, closed[:24])
        yield piece(number + 7, 0, 2 | FIRST, closed[:24])
        yield LINK / IP(src="0.0.0.0", dst=SERVER_V4, flags=1) / closed
        number += 7


write(cases())
