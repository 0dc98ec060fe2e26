"""Runs inside the machine that vm.py boots: ssrun over the real netmap, and curl against it. A JSON line each case.

guest.py FOLDER PATTERN; the folder has site.img and the site's files in site/.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import re
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SSRUN = ROOT / ".venv" / "bin" / "ssrun"
PARAMETERS = Path("/sys/module/netmap/parameters")
NETMAP_API, NETMAP_REQ_VALE_ATTACH, NETMAP_REQ_VALE_DETACH, NR_REG_ALL_NIC = 14, 3, 4, 1
NIOCCTRL = 0xC0586997
KERNELS, OURS, PEERS = "192.0.2.1", "192.0.2.10", "192.0.2.2"
COMPLAINTS = re.compile(r"netmap|double|BUG|WARNING|Oops|DMAR", re.IGNORECASE)


class CaseError(Exception):
    """What went wrong."""


def sh(command: str, check: bool = True) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise CaseError(f"{command}: {(done.stderr or done.stdout)[-300:]}")
    return done.stdout


def kernel_log() -> list[str]:
    """What the kernel has said since the last look."""
    lines = sh("dmesg -c").splitlines()
    return [line for line in lines if COMPLAINTS.search(line)]


class Ssrun:
    """A running server."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [SSRUN, folder / "site.img", "--json", "--max-connections", "1024", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise CaseError(f"ssrun: {self.process.communicate()[1].strip()}")
        self.serving = json.loads(line)

    def stop(self) -> dict[str, int]:
        """Its counters."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate()
        if self.process.returncode != 0:
            raise CaseError(f"ssrun ended with {self.process.returncode}: {err}")
        counters: dict[str, int] = json.loads(out.splitlines()[-1])["counters"]
        return counters


def fetch_all(folder: Path, address: str) -> int:
    """All files with one curl in the peer's namespace, byte by byte. How many."""
    got = Path("/run/got")
    sh(f"rm -rf {got}")
    got.mkdir()
    files = sorted((folder / "site").iterdir())
    config = Path("/run/curl")
    config.write_text("".join(f'url = "http://{address}/{f.name}"\noutput = "{got / f.name}"\n' for f in files))
    sh(f"ip netns exec peer curl -sS --fail --parallel --parallel-max 8 --max-time 120 -K {config}")
    for file in files:
        if (got / file.name).read_bytes() != file.read_bytes():
            raise CaseError(f"{file.name} differs")
    return len(files)


def link(interface: str, peer: str) -> None:
    """Addresses on both ends of a link, one of them in the namespace peer."""
    sh(f"ip link set {peer} netns peer")
    for where, name, address in (("", interface, KERNELS), ("ip netns exec peer ", peer, PEERS)):
        sh(f"{where}ip addr add {address}/24 dev {name}")
        sh(f"{where}ip link set {name} up")


def unlink(interface: str, peer: str) -> None:
    sh(f"ip -n peer link set {peer} netns 1", check=False)
    sh(f"ip addr flush dev {interface}; ip addr flush dev {peer}")


def offloads(name: str) -> list[str]:
    return re.findall(r"^(?:tx-checksumming|generic-segmentation-offload): (\w+)", sh(f"ethtool -k {name}"), re.M)


def served(folder: Path, *options: str, address: str, pings: bool = False) -> dict[str, Any]:
    """Serves the site and fetches all of it; with pings the kernel is reachable meanwhile."""
    server = Ssrun(folder, *options)
    try:
        files = fetch_all(folder, address)
        if pings:
            sh(f"ip netns exec peer ping -c 3 -i 0.2 -W 5 -s 1400 {KERNELS}")
    except CaseError as error:
        server.process.terminate()
        raise CaseError(f"{error}; ssrun: {server.process.communicate()}") from None
    counters = server.stop()
    if counters.get("arena_stalls"):
        raise CaseError("the arena stalled")
    details = {key: server.serving.get(key) for key in ("sending", "ring_slots", "warnings", "mode")}
    shown = ("port_tx_frames", "port_tx_dropped", "arena_copies_made", "arena_misses", "arena_evictions")
    drops = {key: value for key, value in counters.items() if "drop" in key and value}
    return {"files": files, **details, **{key: counters.get(key, 0) for key in shown}, "drops": drops}


def serve(folder: Path, interface: str, *options: str, address: str = KERNELS, pings: bool = False) -> dict[str, Any]:
    """The same from an interface, which the kernel has back afterwards as it was."""
    before = offloads(interface)
    result = served(folder, "--iface", interface, "--backend", "netmap", *options, address=address, pings=pings)
    sh(f"ip netns exec peer ping -c 1 -W 10 {KERNELS}")
    if offloads(interface) != before:
        raise CaseError(f"offloads were {before}, now {offloads(interface)}")
    return result


def vale(request: int, name: str) -> None:
    """NETMAP_REQ_VALE_ATTACH or _DETACH of an interface."""
    body = bytearray(64)  # struct nmreq_vale_attach: a struct nmreq_register first, of which nr_mode counts
    struct.pack_into("I", body, 36, NR_REG_ALL_NIC)
    memory = (ctypes.c_char * len(body)).from_buffer(body)
    header = struct.pack("HHI64sQQ", NETMAP_API, request, 0, name.encode(), 0, ctypes.addressof(memory))
    with Path("/dev/netmap").open("r+b", buffering=0) as device:
        fcntl.ioctl(device, NIOCCTRL, header)


def switched(folder: Path, interface: str) -> dict[str, Any]:
    """A port of a VALE switch, to which an interface is attached as well."""
    vale(NETMAP_REQ_VALE_ATTACH, f"vale0:{interface}")
    try:
        result = served(folder, "--iface", "netmap:vale0:a", "--address", f"{OURS}/24", address=OURS)
    finally:
        vale(NETMAP_REQ_VALE_DETACH, f"vale0:{interface}")
    return expect(result, "copied")


def two_workers(folder: Path, interface: str) -> dict[str, Any]:
    """Each has a pair of rings."""
    own = ("--address", f"{OURS}/24", "--workers", "2")
    return expect(serve(folder, interface, *own, address=OURS), "in place")


def expect(result: dict[str, Any], sending: str) -> dict[str, Any]:
    if result["sending"] != sending:
        raise CaseError(f"sent {result['sending']}, not {sending}: {result['warnings']}")
    return result


def fails(folder: Path, *options: str, says: str) -> dict[str, Any]:
    try:
        Ssrun(folder, *options).stop()
    except CaseError as error:
        if says in str(error):
            return {"said": str(error)}
        raise
    raise CaseError("it served")


def with_parameter(name: str, value: int, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """With another value of a parameter of the module, which counts once nobody uses it."""
    was = (PARAMETERS / name).read_text()
    (PARAMETERS / name).write_text(str(value))
    try:
        return run()
    finally:
        (PARAMETERS / name).write_text(was)


def huge_pages(count: int) -> None:
    """Reserves them, of the size that is usual."""
    Path("/proc/sys/vm/nr_hugepages").write_text(str(count))
    if int(Path("/proc/sys/vm/nr_hugepages").read_text()) != count:
        raise CaseError(f"no {count} huge pages can be had")


def external(folder: Path, name: str) -> dict[str, Any]:
    """The image in memory of ours, where the module takes it: there is not one buffer to spare in its own."""
    takes_it = "netmap_mem_ext_create" in Path("/proc/kallsyms").read_text()
    huge_pages(16)
    try:
        result = expect(serve(folder, name, pings=True), "in place, external memory" if takes_it else "in place")
        free = int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())
        if free != 16:
            raise CaseError(f"{16 - free} huge pages are still in use")
        return result
    finally:
        huge_pages(0)


def cases(folder: Path, name: str, ring_slots: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """On one interface."""
    rings = 4 * ring_slots  # buffers for them, and the host's
    own = ("--address", f"{OURS}/24")
    return {
        "shared": lambda: expect(serve(folder, name, pings=True), "in place"),
        "own address": lambda: expect(serve(folder, name, *own, address=OURS, pings=True), "in place"),
        "external memory": lambda: external(folder, name),
        "few buffers": lambda: with_parameter(
            "buf_num",
            rings + ring_slots + ring_slots // 4,
            lambda: expect(serve(folder, name, pings=True), "in place, cached"),
        ),
        "no buffers to spare": lambda: with_parameter(
            "buf_num", rings + ring_slots // 2, lambda: expect(serve(folder, name, pings=True), "copied")
        ),
        "buffers of another size": lambda: with_parameter(
            "buf_size", 4096, lambda: expect(serve(folder, name, pings=True), "copied")
        ),
        "again": lambda: expect(serve(folder, name, pings=True), "in place"),
    }


def report(name: str, run: Callable[[], dict[str, Any]]) -> None:
    if not re.search(sys.argv[2], name):
        return
    start = time.monotonic()
    result: dict[str, Any] = {"case": name, "passed": False}
    try:
        result |= run()
        result["passed"] = True
    except CaseError as error:
        result["error"] = str(error)
    except Exception:
        result["error"] = traceback.format_exc()
    result["seconds"] = round(time.monotonic() - start, 1)
    result["kernel"] = kernel_log()
    print(json.dumps(result), flush=True)


def main() -> None:
    folder = Path(sys.argv[1])
    report("netmap is there", lambda: {"device": Path("/dev/netmap").exists(), "links": sh("ip -br link")})
    sh("ip netns add peer; ip -n peer link set lo up; ip link set lo up")
    sh("ip link add ours0 type veth peer name peer0")
    links = [("veth", "ours0", "peer0", 1024)]
    ethernet = sorted(path.name for path in Path("/sys/class/net").glob("e*"))
    if len(ethernet) == 2:
        links.append(("e1000", *ethernet, 256))
    for kind, interface, peer, ring_slots in links:
        link(interface, peer)
        sh(f"ip netns exec peer ethtool -K {peer} tx off gso off tso off", check=False)
        for name, run in cases(folder, interface, ring_slots).items():
            report(f"{kind}: {name}", run)
        report(f"{kind}: VALE", lambda name=interface: switched(folder, name))
        unlink(interface, peer)
    sh("ip link add ours1 numtxqueues 2 numrxqueues 2 type veth peer name peer1 numtxqueues 2 numrxqueues 2")
    link("ours1", "peer1")
    sh("ip netns exec peer ethtool -K peer1 tx off gso off tso off", check=False)
    report("veth: two workers", lambda: two_workers(folder, "ours1"))
    unlink("ours1", "peer1")
    report(
        "no such port",
        lambda: fails(folder, "--iface", "netmap:nothing", "--address", f"{OURS}/24", says="no port of that name"),
    )
    report("the end", dict)


if __name__ == "__main__":
    main()
