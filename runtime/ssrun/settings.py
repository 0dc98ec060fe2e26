"""What a command line asks for of whatever serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ssimage._sandstorm import lib

if TYPE_CHECKING:
    from .addresses import Endpoint, Interface4or6
    from .handover import Handover

BACKENDS = ("auto", "afxdp", "packet", "tap", "netmap")
TAP, PCAP, NETMAP = "tap:", "pcap:", "netmap:"
CONGESTION = {"cubic": lib.CONGESTION_CUBIC, "newreno": lib.CONGESTION_NEWRENO}
WAKE = {
    "balanced": lib.WAKE_BALANCED,
    "latency": lib.WAKE_LATENCY,
    "power": lib.WAKE_POWER,
    "busy": lib.WAKE_BUSY,  # --busy-poll
}
RING_BYTES = 32_000_000
SNAP_BYTES = int(lib.CAPTURE_SNAP_BYTES_MAX)


@dataclass(frozen=True)
class CaptureOptions:
    """What the command line asks for."""

    path: Path
    snap_bytes: int = SNAP_BYTES  # of each frame
    ring_bytes: int = RING_BYTES  # of each worker, for frames on their way to the file


@dataclass(frozen=True)
class AccessLogOptions:
    """What the command line asks for."""

    target: str  # a path, or what log_sinks.sink knows
    pattern: str
    sample: int = 1  # one answer of so many; errors always


@dataclass
class Options:
    """What the command line asks for."""

    iface: str
    backend: str = "auto"
    addresses: list[Interface4or6] = field(default_factory=list)
    host_addresses: list[Interface4or6] = field(default_factory=list)
    port: int = 80
    workers: int | None = None
    superframe: int = lib.NMIO_GATHER_MAX
    address_check: bool = True
    arena_bytes: int | None = None  # None: the whole image and spares
    resident: bool = False  # all of the image in memory from the start
    capture: CaptureOptions | None = None
    kept_tap: bool = False  # a KeptTap has made the device
    wait_for_interface: bool = False
    listen: list[Endpoint] = field(default_factory=list)  # over the kernel's sockets; there is no interface then
    access_log: AccessLogOptions | None = None
    metrics: str | None = None  # where they are to be had: ADDR:PORT or unix:PATH
    name: str | None = None  # what operators call it; None: by what it serves on
    handover: Handover | None = None  # what another build has left, which we go on with


@dataclass
class Limits:
    """What each worker keeps to."""

    max_connections: int = 65536
    keep_alive_s: float = 65.0
    request_s: float = 20.0
    send_s: float = 60.0
    drain_s: float = 8.0  # at the end, for answers that have been begun
    wake: str = "balanced"
    congestion: str = "cubic"
    pacing: bool = False
    tx_memcpy: bool = False
    user: str | None = None  # whose the server process is; None: nobody's, if we are root
    swap_s: float = 3600.0  # so long an image may be needed that is served no more
