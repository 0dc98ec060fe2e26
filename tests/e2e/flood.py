"""Sends a flood of frames out of a device: flood.py DEVICE IPV4 syn|malformed COUNT. Prints how many went out.

syn: SYNs from random sources. malformed: frames cut short, with random bytes, wrong lengths and checksums, fragments,
options that overrun, unknown types; every tenth wholly random behind the addresses.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import time
from pathlib import Path


def ones_sum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def neighbour(device: str, host: str) -> bytes:
    """The server's Ethernet address, from the kernel's table."""
    for line in Path("/proc/net/arp").read_text().splitlines()[1:]:
        words = line.split()
        if words[0] == host and words[5] == device:
            return bytes.fromhex(words[3].replace(":", ""))
    raise SystemExit(f"no neighbour {host} on {device}: talk to it first")


def frame(
    rng: random.Random, ether: bytes, server: bytes, flags: int = 2, options: bytes = b"\x02\x04\x05\xb4"
) -> bytes:
    """A well-formed segment to port 80 from somebody."""
    source = bytes((rng.randrange(1, 224), rng.randrange(256), rng.randrange(256), rng.randrange(1, 255)))
    if source[0] == 127:
        source = b"\x0a" + source[1:]
    offset = (20 + len(options)) // 4 << 4
    tcp = struct.pack(
        ">HHIIBBHHH", rng.randrange(1024, 65536), 80, rng.getrandbits(32), 0, offset, flags, 64240, 0, 0
    )
    tcp += options
    check = ~ones_sum(source + server + struct.pack(">HH", 6, len(tcp)) + tcp) & 0xFFFF
    tcp = tcp[:16] + struct.pack(">H", check) + tcp[18:]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + source + server
    head = head[:10] + struct.pack(">H", ~ones_sum(head) & 0xFFFF) + head[12:]
    return ether + head + tcp


def malformed(rng: random.Random, ether: bytes, server: bytes) -> bytes:
    """A frame that is wrong in one way or another."""
    good = frame(rng, ether, server, rng.randrange(256), rng.randbytes(rng.choice((0, 4, 12, 40))))
    kind = rng.randrange(10)
    if kind == 0:
        return good[: rng.randrange(14, len(good))]
    if kind == 1:
        return ether + rng.randbytes(rng.randrange(1, 1400))
    if kind == 2:
        return ether[:12] + b"\x86\xdd" + rng.randbytes(rng.randrange(1, 1400))
    if kind == 3:
        return ether[:12] + rng.randbytes(rng.randrange(2, 60))
    if kind == 4:
        return ether[:12] + b"\x08\x06" + rng.randbytes(rng.randrange(1, 60))
    spoiled = bytearray(good)
    for _ in range(kind - 4):
        at = rng.choice((14, 15, 16, 17, 20, 21, 23, 24, 26, 34, 46, 47, rng.randrange(14, len(good))))
        spoiled[at] = rng.randrange(256)
    return bytes(spoiled)


def main() -> None:
    device, host, kind, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    rng = random.Random(7)
    mine = bytes.fromhex(Path(f"/sys/class/net/{device}/address").read_text().strip().replace(":", ""))
    ether = neighbour(device, host) + mine + b"\x08\x00"
    make = frame if kind == "syn" else malformed
    server = socket.inet_aton(host)
    sent = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((device, 0))
        while sent < count:
            data = make(rng, ether, server)
            try:
                wire.send(data)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                if error.errno != 105:  # ENOBUFS: the queue is full for a moment
                    raise
                time.sleep(0.001)
                continue
            sent += 1
    print(sent)


if __name__ == "__main__":
    main()
