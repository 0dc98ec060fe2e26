"""What this process may do, and what it lacks, by name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

# Numbers of linux/capability.h.
CAPABILITIES = {
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_IPC_LOCK": 14,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
# For each way of serving, as the table of docs/operations.md has it.
TAP = ("CAP_NET_ADMIN",)
PACKET = ("CAP_NET_RAW",)
PACKET_SHARED = ("CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE")
TCX = ("CAP_BPF", "CAP_PERFMON")  # beside those of PACKET_SHARED
AFXDP = ("CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON", "CAP_IPC_LOCK")
AFXDP_SHARED = (*AFXDP, "CAP_NET_BIND_SERVICE")
STATUS = Path("/proc/self/status")
TUN = Path("/dev/net/tun")


def effective(status: str) -> int:
    """The effective set of capabilities, from what /proc/PID/status says."""
    return next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)


def lacking(needed: tuple[str, ...], held: int) -> list[str]:
    """Which of the capabilities are not held."""
    return [name for name in needed if not held >> CAPABILITIES[name] & 1]


def lacked_here(needed: tuple[str, ...]) -> list[str]:
    """Which of the capabilities this process does not hold."""
    return lacking(needed, effective(STATUS.read_text()))


def hint(*needed: str) -> str:
    """What to do about EPERM where these capabilities are needed."""
    missing = lacked_here(needed)
    if missing:
        return f"this process lacks {' and '.join(missing)}; run it as root, or grant that (docs/operations.md)"
    return (
        f"it has {' and '.join(needed)}, so a container's or a security module's rules forbid it; run it outside, or "
        "allow it there"
    )


def tun_hint() -> str:
    """What to do when /dev/net/tun can't be opened."""
    try:
        mode = stat.filemode(TUN.stat().st_mode)
    except OSError:
        return f"{TUN} can't be reached; run it as root"
    return f"{TUN} has mode {mode}, which keeps user {os.geteuid()} out; run it as root, or `chmod 666 {TUN}`"
