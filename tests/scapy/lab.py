"""What the scripts of this folder share: who sends, who is meant, and how frames leave.

They run with the system's Python (`/usr/bin/python3 -B NAME.py`) and write frames, which tests/strangers/scapy.rs sends on
the server's link: no router in between mends or drops anything. Sources are outside addresses.
"""

import logging
import random

logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.all import IP, TCP, Ether, IPv6, raw  # noqa: E402

SERVER_MAC = "02:00:c0:a8:00:68"
ROUTER_MAC = "02:00:c0:a8:00:01"
SERVER_V4 = "192.168.0.104"
SERVER_V6 = "2001:db8:0:1::104"
# From outside; the router swallows what is sent there.
OUTSIDE_V4 = "198.18.0.77"
OUTSIDE_V6 = "2001:db8:198::77"
# Nothing listens on 22; the others are for the LAN.
CLOSED = [22, 5432, 8000, 8083]
# For everyone.
OPEN = 80

LINK = Ether(src=ROUTER_MAC, dst=SERVER_MAC)
V4 = IP(src=OUTSIDE_V4, dst=SERVER_V4)
V6 = IPv6(src=OUTSIDE_V6, dst=SERVER_V6, hlim=60)


def syn(port, **fields):
    """A SYN from a port of its own."""
    return TCP(sport=random.randint(1024, 65535), dport=port, seq=random.getrandbits(32), flags="S", **fields)


def whole(packet):
    """The bytes of a transport header with the checksum that it has below this IP header."""
    return raw(packet.__class__(raw(packet)).payload)


def write(frames):
    """Writes frames, each a line of hexadecimal digits; the same ones each time, whatever is random in them."""
    random.seed(1)
    for frame in frames:
        data = raw(frame)
        if 14 <= len(data) <= 1514:
            print(data.hex())
