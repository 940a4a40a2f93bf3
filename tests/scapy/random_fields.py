"""Headers whose fields scapy fills at random; only the ends are given."""

from lab import LINK, OUTSIDE_V4, OUTSIDE_V6, SERVER_V4, SERVER_V6, write
from scapy.all import ICMP, IP, TCP, UDP, ICMPv6Unknown, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrRouting, Raw, fuzz

EACH = 200


def cases():
    four = {"src": OUTSIDE_V4, "dst": SERVER_V4}
    six = {"src": OUTSIDE_V6, "dst": SERVER_V6}
    templates = [
        LINK / fuzz(IP(**four) / TCP()),
        LINK / fuzz(IP(**four) / TCP(dport=22)),
        LINK / fuzz(IP(**four) / UDP()),
        LINK / fuzz(IP(**four) / ICMP()),
        LINK / fuzz(IP(**four) / Raw()),
        LINK / IP(**four) / fuzz(TCP(dport=5432)),
        LINK / IP(**four) / fuzz(ICMP()),
        LINK / fuzz(IPv6(**six) / TCP(dport=22)),
        LINK / fuzz(IPv6(**six) / UDP()),
        LINK / fuzz(IPv6(**six) / ICMPv6Unknown()),
        LINK / IPv6(**six) / fuzz(IPv6ExtHdrFragment() / TCP(dport=22)),
        LINK / IPv6(**six) / fuzz(IPv6ExtHdrRouting() / TCP(dport=22)),
    ]
    for template in templates:
        for _ in range(EACH):
            yield template


write(cases())
