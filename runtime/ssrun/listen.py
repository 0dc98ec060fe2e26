"""Serves over the kernel's own TCP, which takes no rights: listening sockets, and a worker for each processor."""

from __future__ import annotations

import errno
import os
import resource
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssimage._sandstorm import ffi, lib
from ssimage.loader import IN_PLACE, FrameSource

from . import activation
from .addresses import ANY4, ANY6, LOOPBACK4, LOOPBACK6, PASSED, Endpoint
from .errors import SsrunError
from .events import Events
from .server import CHECK_POLL_S, SECRET_BYTES, STOP, App, Ended, add_unfinished
from .settings import Limits
from .swaps import OwnThreads

BACKLOG = 4096  # connections that wait to be accepted; the kernel may have a lower limit, sysctl net.core.somaxconn
SPARE_DESCRIPTORS = 64  # beside those that are open: a worker's own, and what Python opens
CONNECTIONS_FEW = 1024  # fewer than these are told
UNPRIVILEGED_PORTS = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
WAIT_NOTE_S = 60.0  # at most one note in this time that connections wait


@dataclass
class Listening:
    """Sockets that listen, the same addresses for each worker."""

    addresses: list[tuple[str, int]] = field(default_factory=list)  # as they are bound
    sockets: list[list[socket.socket]] = field(default_factory=list)  # of each worker
    warnings: list[str] = field(default_factory=list)

    def close(self) -> None:
        """Whoever connects is refused from now on."""
        for sockets in self.sockets:
            for sock in sockets:
                sock.close()

    @property
    def hosts(self) -> list[tuple[str, int]]:
        """Where a client on this host finds each."""
        known = {ANY4: LOOPBACK4, ANY6: LOOPBACK6}
        return [(known.get(host, host), port) for host, port in self.addresses]


def _why_not(host: str, port: int, error: OSError) -> SsrunError:
    """What to do about an address that can't be listened on."""
    shown = str(Endpoint(host, port))
    if error.errno == errno.EADDRINUSE:
        return SsrunError(
            f"{shown}: the port is taken; choose another, or look who has it: ss -ltnp 'sport = :{port}'"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        try:
            first = UNPRIVILEGED_PORTS.read_text().strip()
        except OSError:
            first = "1024"
        return SsrunError(
            f"{shown}: only root, or who has CAP_NET_BIND_SERVICE, may listen on ports below {first}; choose a "
            f"higher one, as {Endpoint(host, 8080)}"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return SsrunError(f"{shown}: this host has no such address; `ip addr` shows those it has")
    if error.errno == errno.EAFNOSUPPORT:
        return SsrunError(f"{shown}: this host has no IPv6; write an IPv4 address")
    return SsrunError(f"{shown}: can't be listened on: {error.strerror}")


def _bound(host: str, port: int) -> socket.socket:
    """The first socket of an address. Nobody else may have it: so it is bound without SO_REUSEPORT, which
    comes then for our other workers. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        _prepare(sock)
        sock.bind(_sockaddr(host, port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _prepare(sock: socket.socket) -> None:
    """Connections have these options from it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # in spite of those in TIME-WAIT
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own


def _sockaddr(host: str, port: int) -> Any:
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)[0][4]


def _one_more(first: socket.socket) -> socket.socket:
    """For another worker."""
    sock = socket.socket(first.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        _prepare(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(first.getsockname())
    except BaseException:
        sock.close()
        raise
    return sock


def _overlap(one: str, other: str) -> bool:
    """Of two addresses with the same port."""
    return one == other or ((":" in one) == (":" in other) and bool({one, other} & {ANY4, ANY6}))


def all_different(endpoints: list[Endpoint]) -> None:
    """Raises SsrunError for addresses that are given twice."""
    for number, endpoint in enumerate(endpoints):
        for before in endpoints[:number]:
            same_port = endpoint.port == before.port != 0
            if endpoint.host == before.host == PASSED:
                raise SsrunError(f"--listen {PASSED} is all sockets that are passed; once is enough")
            if same_port and any(_overlap(one, other) for one in endpoint.hosts for other in before.hosts):
                raise SsrunError(f"--listen {endpoint} is what --listen {before} listens on too; leave one out")


def _optional(endpoint: Endpoint, host: str, error: OSError) -> bool:
    """All addresses are asked for, or localhost, and there is no IPv6 on this host."""
    lacking = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
    return ":" in host and len(endpoint.hosts) > 1 and error.errno in lacking


def _listen(host: str, port: int, listening: Listening, stack: ExitStack) -> int:
    """On an address, for each worker; the port. Raises OSError."""
    first = stack.enter_context(_bound(host, port))
    port = int(first.getsockname()[1])
    others = [stack.enter_context(_one_more(first)) for _ in listening.sockets[1:]]
    for sockets, sock in zip(listening.sockets, [first, *others], strict=True):
        sock.listen(BACKLOG)
        sockets.append(sock)
    listening.addresses.append((host, port))
    return port


def _listen_on_passed(listening: Listening, stack: ExitStack) -> None:
    """Serves what a service manager has opened. Raises SsrunError.

    All workers have the same sockets, as those are not ours to bind again. Who is not accepted waits for whoever gets
    them next."""
    for first in activation.take():
        stack.enter_context(first)
        first.setblocking(False)
        first.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        others = [stack.enter_context(first.dup()) for _ in listening.sockets[1:]]
        for sockets, sock in zip(listening.sockets, [first, *others], strict=True):
            sockets.append(sock)
        listening.addresses.append(first.getsockname()[:2])


def _listen_on_all(endpoint: Endpoint, listening: Listening, stack: ExitStack) -> None:
    """Raises SsrunError. If any port was asked for, the other family gets the same."""
    if endpoint.host == PASSED:
        _listen_on_passed(listening, stack)
        return
    port = endpoint.port
    for host in endpoint.hosts:
        try:
            port = _listen(host, port, listening, stack)
        except OSError as error:
            if not _optional(endpoint, host, error):
                raise _why_not(host, port, error) from None
            listening.warnings.append(f"{endpoint}: this host has no IPv6; IPv4 alone is served")


def listen(endpoints: list[Endpoint], workers: int, stack: ExitStack) -> Listening:
    """Listens on all of them for each worker; all is closed with the stack. Raises SsrunError."""
    if sum(len(endpoint.hosts) for endpoint in endpoints) > lib.SOCKETS_LISTENERS_MAX:
        raise SsrunError(f"at most {lib.SOCKETS_LISTENERS_MAX} addresses can be listened on")
    all_different(endpoints)
    listening = Listening(sockets=[[] for _ in range(workers)])
    for endpoint in endpoints:
        _listen_on_all(endpoint, listening, stack)
    if len(listening.addresses) > lib.SOCKETS_LISTENERS_MAX:
        raise SsrunError(f"at most {lib.SOCKETS_LISTENERS_MAX} sockets can be listened on; pass fewer")
    return listening


def check(endpoints: list[Endpoint]) -> list[tuple[SsrunError, bool]]:
    """Why some could not be listened on, and of each whether only somebody else's doing so is in the way."""
    found: list[tuple[SsrunError, bool]] = []
    try:
        all_different(endpoints)
    except SsrunError as error:
        found.append((error, False))
    for endpoint in endpoints:
        for host in endpoint.hosts if endpoint.host != PASSED else ():  # those are open already
            try:
                _bound(host, endpoint.port).close()
            except OSError as error:
                if not _optional(endpoint, host, error):
                    found.append((_why_not(host, endpoint.port, error), error.errno == errno.EADDRINUSE))
    return found


def worker_count(wanted: int | None) -> int:
    """One for each processor that we may run on, unless told otherwise."""
    return wanted if wanted is not None else min(64, len(os.sched_getaffinity(0)))


def raise_descriptors() -> int:
    """Has the kernel let us open as many files as we may; how many there are left for connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = 1 << 30 if hard == resource.RLIM_INFINITY else hard
    return limit - len(os.listdir("/proc/self/fd")) - SPARE_DESCRIPTORS


class SocketServer:
    """Workers over sockets, a thread each."""

    def __init__(
        self, app: App, frames: FrameSource, listening: Listening, limits: Limits, events: Events, stack: ExitStack
    ) -> None:
        """Lays out all memory; nothing is allocated later. events: gets an Ended of each worker."""
        self.listening = listening
        self.events = events
        self.workers: list[Any] = []
        self.threads: list[threading.Thread] = []
        self.waiting: dict[str, int] = {}
        self.waiting_told_s = -WAIT_NOTE_S
        self.connections = min(limits.max_connections, max(1, raise_descriptors() // len(listening.sockets)))
        if self.connections < min(limits.max_connections, CONNECTIONS_FEW):
            listening.warnings.append(
                f"only {self.connections} connections for each worker, as so few files may be open; raise that with "
                "`ulimit -n`, or LimitNOFILE= in a unit"
            )
        for sockets in listening.sockets:
            config = self._config(app, sockets, limits)
            error = lib.sockets_config_error(config, frames.image)
            if error != ffi.NULL:
                raise SsrunError(f"can't serve like this: {ffi.string(error).decode()}")
            worker = lib.sockets_create(config, frames.image)
            if worker == ffi.NULL:
                raise SsrunError(
                    f"a worker can't be had: {os.strerror(ffi.errno)}; lower --max-connections or --workers"
                )
            stack.callback(lib.sockets_destroy, worker)
            self.workers.append(worker)
        self.swapper = OwnThreads(app.hooks, self.workers, events, sockets=True)

    def _config(self, app: App, sockets: list[socket.socket], limits: Limits) -> Any:
        tcpip = {
            "mtu_bytes": 1500,  # these two are nobody's here
            "gather_max": 1,
            "max_connections": self.connections,
            "max_incomplete_requests": max(1, self.connections // 16),
            "keep_alive_ms": int(limits.keep_alive_s * 1000),
            "request_ms": int(limits.request_s * 1000),
            "send_ms": int(limits.send_s * 1000),
            "secret": os.urandom(SECRET_BYTES),
        }
        return ffi.new(
            "struct sockets_config *",
            {
                "tcpip": tcpip,
                "app": app.hooks,
                "app_data": app.data,
                "listener_count": len(sockets),
                "listeners": [sock.fileno() for sock in sockets],
            },
        )

    @property
    def memory_bytes(self) -> int:
        """The memory of all workers; what no connection has used is not taken from the machine."""
        return sum(lib.sockets_memory_bytes(worker) for worker in self.workers)

    @property
    def app_states(self) -> list[Any]:
        """What the application keeps in each worker."""
        return [lib.sockets_app_state(worker) for worker in self.workers]

    def start(self) -> None:
        """Starts a thread for each worker."""
        for worker in self.workers:
            thread = threading.Thread(target=self._run, args=(worker,))
            thread.start()
            self.threads.append(thread)

    def _run(self, worker: Any) -> None:
        self.events.put(Ended(self, lib.sockets_run(worker)))

    def serve_until_stopped(self, check: Callable[[], None], report: Callable[[str, str], None]) -> None:
        """Returns after STOP. Raises SsrunError if a worker fails.

        check: raises an error if there is no going on; called once a second.
        report: what to do when connections have to wait to be accepted; gets a word and a sentence.
        """
        while True:
            event = self.events.wait(CHECK_POLL_S)
            if event is STOP:
                return
            if isinstance(event, Ended):
                if event.reason == -errno.EFAULT:
                    check()
                    raise SsrunError(f"the image can't be read any more; {IN_PLACE}")
                raise SsrunError(f"a worker has ended: {os.strerror(-event.reason)}; start ssrun again")
            if event is not None:
                event()
            check()
            self._tell_who_waits(report)

    def _tell_who_waits(self, report: Callable[[str, str], None]) -> None:
        counters = self.counters()
        names = {
            "sockets_paused_descriptors": (
                "descriptors",
                "no more files may be open, so new connections wait; raise that limit (`ulimit -n`, LimitNOFILE=) or "
                "lower --max-connections",
            ),
            "sockets_paused_full": (
                "connections",
                "all connections are in use, so new ones wait; raise --max-connections",
            ),
        }
        grown = [name for name in names if counters[name] > self.waiting.get(name, 0)]
        if not grown or time.monotonic() < self.waiting_told_s + WAIT_NOTE_S:
            return
        self.waiting = {name: counters[name] for name in names}
        self.waiting_told_s = time.monotonic()
        report(*names[grown[0]])

    def rounds(self) -> list[int]:
        """How often each worker has gone round; each is woken to go once more."""
        counts = [int(lib.sockets_rounds(worker)) for worker in self.workers]
        for worker in self.workers:
            lib.sockets_poke(worker)
        return counts

    def drain(self) -> None:
        """Has idle connections closed, and the others end with the answer they are in. New ones are refused."""
        for worker in self.workers:
            lib.sockets_drain(worker)

    def unfinished(self) -> int | None:
        """Connections that have not come to that; None: workers have still to look."""
        count = add_unfinished([lib.sockets_unfinished(worker) for worker in self.workers])
        if count is not None:
            self.listening.close()
        return count

    def stop(self) -> None:
        """Ends all workers and waits for them; what is unfinished is reset."""
        for worker in self.workers:
            lib.sockets_stop(worker)
        for thread in self.threads:
            thread.join()
        self.threads.clear()
        self.swapper.close()

    def counters(self) -> dict[str, int]:
        """Sums over all workers."""
        totals: dict[str, int] = {}
        for worker in self.workers:
            for index, name in enumerate(counter_names(worker)):
                totals[name] = totals.get(name, 0) + lib.sockets_counter(worker, index)
        return totals

    def response_uses(self, response: int) -> int:
        """How often a response has been begun."""
        return sum(int(lib.sockets_response_uses(worker, response)) for worker in self.workers)

    def frame_high_water(self, _: int) -> int:
        """No frame has a slot of its own."""
        return 0


def counter_names(worker: Any) -> list[str]:
    """Names of all counters, in their order."""
    return [
        ffi.string(lib.sockets_counter_name(worker, index)).decode()
        for index in range(lib.sockets_counter_count(worker))
    ]
