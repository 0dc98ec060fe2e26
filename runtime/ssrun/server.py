"""Runs workers over open ports until told to stop."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from ssimage._sandstorm import ffi, lib

from .addresses import Interface4or6, put_address
from .errors import InterfaceGoneError, SsrunError
from .events import Events
from .handover import Handover, Records
from .ports import kernel
from .ports.base import Opened
from .process import FORKED, NOT_CONFINED, DiedEarlyError, Exit, Images, ServerProcess, server_user, user_name
from .restarts import Backoff
from .settings import CONGESTION, WAKE, Limits
from .swaps import OwnThreads, Swapper
from .traces import NOBODY, Traces

SECRET_BYTES = 16
UINT32_MAX = 0xFFFFFFFF
ATTEMPTS_MAX = 3  # to take connections over from the same memory
ACD_POLL_S = 0.01
CHECK_POLL_S = 1.0  # of conflicts and of the image
CONFLICT_NOTE_S = 60.0  # at most one note an address in this time


def nothing() -> None:
    """Nobody waits for it."""


@dataclass(frozen=True)
class App:
    """What runs over TCP."""

    hooks: Any  # const struct tcpip_app *
    data: Any = ffi.NULL  # what it reads from beside the image


WEB = App(ffi.addressof(lib.web_app))


def followed(config: Any) -> App:
    """HTTP whose answers are followed to their end. config: struct web_config *."""
    return App(ffi.addressof(lib.web_followed_app), config)


class Stop:
    """We have been asked to end."""


STOP = Stop()


@dataclass(frozen=True)
class Ended:
    """A worker has ended: 0, or -errno of its port."""

    server: object
    reason: int


@dataclass(frozen=True)
class Crashed:
    """The process that runs workers has ended, and nobody has told it to."""

    server: object
    exit: Exit


@dataclass
class Conflict:
    """Somebody else uses an address of ours."""

    address: Interface4or6
    mac: str  # whose frame said so last
    frames: int  # that said so since the start


class ConflictNotes:
    """Which conflicts are to be reported now: new ones, and each address once in CONFLICT_NOTE_S."""

    def __init__(self) -> None:
        """Nothing has been reported yet."""
        self.reported: dict[Interface4or6, tuple[float, int]] = {}  # when, and of how many frames

    def due(self, conflicts: list[Conflict], now_s: float) -> list[Conflict]:
        """Gives conflicts of which there is something new; they count as reported."""
        due = []
        for conflict in conflicts:
            reported_s, frames = self.reported.get(conflict.address, (-CONFLICT_NOTE_S, 0))
            if conflict.frames > frames and now_s >= reported_s + CONFLICT_NOTE_S:
                self.reported[conflict.address] = (now_s, conflict.frames)
                due.append(conflict)
        return due


PORT_COUNTERS = [name for name, _ in ffi.typeof("struct nmio_port_counters").fields]


def counter_names(view: Any) -> list[str]:
    """Names of all counters, in their order. view: struct stack_view *."""
    return [
        ffi.string(lib.stack_counter_name(view, index)).decode() for index in range(lib.stack_counter_count(view))
    ]


def wake_counters(wake: Any) -> dict[str, int]:
    """How a worker has waited."""
    counters, index = {}, 0
    while (name := lib.wake_counter_name(index)) != ffi.NULL:
        counters[ffi.string(name).decode()] = int(lib.wake_counter(wake, index))
        index += 1
    return counters


def add_unfinished(counts: list[int]) -> int | None:
    """Sums workers' connections that are unfinished; None: one does not know yet."""
    return None if UINT32_MAX in counts else sum(counts)


class Server:
    """Workers, a thread each, in a process of their own; in this one where two can't share what they use."""

    def __init__(
        self,
        app: App,
        image: Any,
        opened: Opened,
        port: int,
        limits: Limits,
        events: Events,
        stack: ExitStack,
        handover: Handover | None = None,
    ) -> None:
        """Lays out all memory; nothing is allocated later. image: struct image *, whose frames app answers with.
        events: gets an Ended of each worker; has STOP when we are to stop, and else functions to be called.
        handover: what goes on of another build."""
        self.app = app
        self.opened = opened
        self.events = events
        self.swapper: Swapper | None = None  # from start on
        self.workers: list[Any] = []
        self.threads: list[threading.Thread] = []
        self.process: ServerProcess | None = None
        self.own_threads: OwnThreads | None = None
        self._images = Images()
        self._mappings: Sequence[tuple[int, int]] = ()
        self.user = server_user(limits.user) if opened.backend in FORKED else None
        self.image = image
        self.is_confirmed = False  # our addresses are ours
        self._backoff = Backoff()
        self._started_s = 0.0
        self._report_crash: Callable[[Exit, float], None] | None = None
        self.around_restart: Callable[[], AbstractContextManager[None]] = nullcontext  # when memory is another
        self.after_restart: Callable[[], None] = lambda: None  # of a process that takes over
        self._restarts = 0
        self._attempts = 0  # to take over, in vain
        self._is_stopping = False
        self.traces = Traces(opened.ports, stack)
        self._traced = NOBODY
        self._when_traced: Callable[[], None] = nothing
        secret = bytes.fromhex(handover.secret) if handover is not None else None
        self.config = config = self._config(app, opened, port, limits, secret)
        for nmio_port in opened.ports:
            config.eth.acd = self._acd(opened, first=not self.workers)
            error = lib.stack_config_error(config, image, nmio_port.region)
            if error != ffi.NULL:
                raise SsrunError(f"can't serve like this: {ffi.string(error).decode()}")
            worker = lib.worker_create(config, image, nmio_port, WAKE[limits.wake])
            if worker == ffi.NULL:
                raise SsrunError("a worker's memory can't be had; lower --max-connections")
            stack.callback(lib.worker_destroy, worker)
            self.workers.append(worker)
        self._records: Records | None = None
        if handover is not None:
            self._take_over(Records(handover))

    def _take_over(self, records: Records) -> None:
        """What another build has left goes on: of each worker where it was."""
        self._records = records
        for number, worker in enumerate(self.workers[: records.workers]):
            lib.worker_take_over(worker, records.of(number), records.each_bytes)

    def records_bytes(self) -> int:
        """Which the records of a worker are at most; whole pages."""
        page_bytes = os.sysconf("SC_PAGESIZE")
        most = max(int(lib.worker_records_bytes(worker)) for worker in self.workers)
        return -(-most // page_bytes) * page_bytes

    def describe(self, handover: Handover) -> None:
        """Says of all that must outlive this build where it is."""
        opened = self.opened
        handover.workers, handover.each_bytes = len(self.workers), self.records_bytes()
        handover.secret = bytes(self.config.tcpip.secret).hex()
        if opened.backend == "tap":
            handover.taps = [int(port.fd) for port in opened.ports]
            handover.tap_addresses = [str(address) for address in opened.addresses]
            handover.tap_host_addresses = list(opened.details["host_addresses"])
        if opened.reservation is not None:
            handover.reservation = {str(ip): sock.fileno() for ip, sock in opened.reservation.sockets.items()}
        if opened.filter is not None:
            handover.link_fd = int(lib.nmio_filter_link(opened.filter))
            handover.xdp = str(opened.details.get("xdp", ""))

    def leave(self, fd: int) -> None:
        """Ends all workers; their connections are in the file then, records_bytes for each. Raises SsrunError."""
        assert self.process is not None
        self._is_stopping = True
        self.events.forget(self.process)
        self.process.leave(fd, self.records_bytes())

    @staticmethod
    def _config(app: App, opened: Opened, port: int, limits: Limits, secret: bytes | None) -> Any:
        eth = {
            "mac": opened.mac,
            "own_address": opened.own_address,
            "address_count": len(opened.addresses),
        }
        tcpip = {
            "tcp_port": port,
            # Fragments may come to another worker than their connection's, which would reset it.
            "reassemble": opened.own_address and len(opened.ports) == 1,
            "mtu_bytes": opened.mtu_bytes,
            "gather_max": opened.gather_max,
            "max_connections": limits.max_connections,
            "max_incomplete_requests": max(1, limits.max_connections // 16),
            "keep_alive_ms": int(limits.keep_alive_s * 1000),
            "request_ms": int(limits.request_s * 1000),
            "send_ms": int(limits.send_s * 1000),
            "congestion": CONGESTION[limits.congestion],
            "pacing": limits.pacing,
            "tx_memcpy": limits.tx_memcpy,
            "secret": os.urandom(SECRET_BYTES) if secret is None else secret,
        }
        config = ffi.new(
            "struct stack_config *", {"app": app.hooks, "app_data": app.data, "eth": eth, "tcpip": tcpip}
        )
        for entry, address in zip(config.eth.addresses, opened.addresses, strict=False):
            put_address(entry, address)
        return config

    @staticmethod
    def _acd(opened: Opened, *, first: bool) -> int:
        """One worker asks and announces; the others wait for it and watch, as an answer may come to their queue."""
        if first:
            return opened.acd
        return int(lib.ETH_ACD_FOLLOW if opened.acd == lib.ETH_ACD_CHECK else lib.ETH_ACD_NONE)

    @property
    def views(self) -> list[Any]:
        """struct stack_view * of each worker."""
        return [lib.worker_view(worker) for worker in self.workers]

    @property
    def app_states(self) -> list[Any]:
        """What the application keeps in each worker. Before the server begins, which may write there."""
        return [lib.stack_app_state(lib.worker_stack(worker)) for worker in self.workers]

    def response_uses(self, response: int) -> int:
        """How often a response has been begun, by all workers."""
        return sum(int(lib.stack_response_uses(view, response)) for view in self.views)

    def frame_high_water(self, frame: int) -> int:
        """The most slots that a frame has held at once, of the worker where it held the most."""
        return max(int(lib.stack_frame_high_water(view, frame)) for view in self.views)

    @property
    def memory_bytes(self) -> int:
        """The memory of all workers' stacks."""
        return sum(lib.worker_memory_bytes(worker) for worker in self.workers)

    def start(self, mappings: Sequence[tuple[int, int]] = ()) -> None:
        """Starts a thread for each worker. mappings: ImageFile.mappings of what is served. Raises SsrunError."""
        self._mappings = mappings
        if self.opened.backend in FORKED:
            self.swapper = self._images
            self._fork()
            assert self.process is not None
            confined = self.process.confined_by()
            self.opened.warnings += [text for name, text in NOT_CONFINED.items() if name not in confined]
            return
        self.own_threads = self.swapper = OwnThreads(self.app.hooks, self.workers, self.events)
        for worker, cpu in zip(self.workers, self._cpus(), strict=True):
            thread = threading.Thread(target=self._run, args=(worker, cpu))
            thread.start()
            self.threads.append(thread)

    def _fork(self) -> None:
        self._started_s = time.monotonic()
        self.process = ServerProcess(
            self.workers,
            self._cpus(),
            self.user,
            self.app.hooks,
            self._mappings,
            self._images.served,
            self.traces.rings,
        )
        self.process.traced = self._begun_to_trace
        self.events.watch(self.process, self._news)
        if self._traced is not NOBODY:
            self.trace(self._traced, self._when_traced)
        self._images.begins(self.process)

    def trace(self, client: dict[str, Any], begun: Callable[[], None]) -> None:
        """Has the heads of a client's frames kept; of NOBODY: none. begun: from now on.

        client: struct trace_filter, of a session of its own."""
        self._traced, self._when_traced = client, begun
        if self.process is None:
            self.traces.set_here(client)
            self._begun_to_trace(client["session"])
        elif self.process.ended is None:
            with suppress(SsrunError):  # it has just died: the next one is told
                self.process.trace(client)

    def _begun_to_trace(self, session: int) -> None:
        if session == self._traced["session"]:
            begun, self._when_traced = self._when_traced, nothing
            begun()

    def crashed(self, how: Exit) -> None:
        """The server has ended without a word: another goes on for it, at once or in a while.

        Raises SsrunError if it has said why, or has not got as far as to serve.
        """
        if not how.by_signal or not self.is_confirmed:
            raise SsrunError(f"the server process {how}; start ssrun again")
        delay_s = self._backoff.delay_s(time.monotonic() - self._started_s)
        if self._report_crash is not None:
            self._report_crash(how, delay_s)
        self.events.later(delay_s, self._restart)

    def _restart(self) -> None:
        """Forks another server, whose workers take over what goes on of the connections. Raises SsrunError."""
        if self._is_stopping:
            return
        for read in self.opened.read_again:
            read()
        with self.around_restart():
            self._lay_out_again()
        self._restarts += 1
        try:
            self._fork()
        except DiedEarlyError as died:
            self.crashed(died.exit)
        else:
            self.after_restart()

    def _forget_taken_over(self) -> None:
        """Gives memory back that is needed no more since connections go on from another."""
        for worker in self.workers:
            if lib.worker_resumed(worker):
                lib.worker_forget(worker)
        going_on = self.workers[: self._records.workers] if self._records is not None else []
        if self._records is not None and all(lib.worker_resumed(worker) for worker in going_on):
            self._records.close()
            self._records = None

    def _lay_out_again(self) -> None:
        have_gone_on = self._restarts == 0 or all(lib.worker_resumed(worker) for worker in self.workers)
        self._attempts = 0 if have_gone_on else self._attempts + 1
        for number, worker in enumerate(self.workers):
            # Nobody is asked whose the addresses are: they are ours.
            announces = number == 0 and self.opened.acd != lib.ETH_ACD_NONE
            self.config.eth.acd = lib.ETH_ACD_ANNOUNCE if announces else lib.ETH_ACD_NONE
            if not lib.worker_restart(worker, self.config, self.image):
                raise SsrunError("a worker's memory can't be had again; lower --max-connections")
            if self._attempts >= ATTEMPTS_MAX:  # it may be that which it dies of
                lib.worker_forget(worker)
            error = lib.worker_port_reopen(worker)
            if error:
                raise self._failure(f"can't be opened again: {os.strerror(-error)}")
            lib.worker_swapped(worker, self._images.swaps)

    def _cpus(self) -> list[int | None]:
        """A processor for each worker; None: any. One worker goes where there is room; several stay out of each
        other's way, if there are processors enough."""
        cpus: list[int | None] = [*sorted(os.sched_getaffinity(0))]
        if len(self.workers) == 1 or len(cpus) < len(self.workers):
            return [None] * len(self.workers)
        return cpus[: len(self.workers)]

    def described(self) -> dict[str, Any]:
        """The process that serves, for machines; empty: it is this one."""
        if self.process is None:
            return {}
        user = self.user.name if self.user is not None else user_name()
        return {"server": {"pid": self.process.pid, "user": user, "confined": self.process.confined_by()}}

    def _news(self) -> None:
        assert self.process is not None
        fd = self.process.fileno()
        ended = self.process.news(lambda result: self.events.put(Ended(self, result)))
        if ended is not None:
            self.events.forget(fd)
            self.events.put(Crashed(self, ended))

    def _run(self, worker: Any, cpu: int | None) -> None:
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})  # of this thread
        self.events.put(Ended(self, lib.worker_run(worker)))

    def _stopped(self, timeout_s: float | None) -> bool:
        """Waits for STOP, or for a capture to end; False in vain. Raises SsrunError if a worker fails."""
        event = self.events.wait(timeout_s)
        if callable(event):
            event()
            return False
        if event is None or (isinstance(event, Ended | Crashed) and event.server is not self):
            return False
        if isinstance(event, Crashed):
            self.crashed(event.exit)
            return False
        if event is STOP or (event.reason == -errno.ENODATA and self.opened.backend == "pcap"):
            return True
        raise self._failure(os.strerror(-event.reason))

    def _failure(self, what: str) -> SsrunError:
        """Of a port; perhaps its interface is gone."""
        if self.is_gone():
            return InterfaceGoneError(self.opened.interface)
        return SsrunError(f"{self.opened.interface}: {what}; start ssrun again")

    def is_gone(self) -> bool:
        """Is there no interface any more?"""
        return self.opened.link is not None and kernel.look_up_index(self.opened.link.index) is None

    def confirm_addresses(self) -> bool:
        """Waits until our addresses are ours; False after STOP. Raises SsrunError if another host has one."""
        stack = lib.worker_stack(self.workers[0])
        states = [lib.ETH_ADDRESS_TENTATIVE]
        while lib.ETH_ADDRESS_TENTATIVE in states:
            states = [lib.stack_address_state(stack, place) for place in range(len(self.opened.addresses))]
            conflicts = self._conflicts(lib.ETH_ADDRESS_CONFLICT)
            if conflicts:
                ip, mac = conflicts[0].address.ip, conflicts[0].mac
                raise SsrunError(f"{ip} is used by {mac} on {self.opened.interface}; choose another --address")
            if lib.ETH_ADDRESS_TENTATIVE in states and self._stopped(ACD_POLL_S):
                return False
        for worker in self.workers[1:]:
            lib.worker_addresses_confirmed(worker)
        self.is_confirmed = True
        return True

    def _conflicts(self, state: int) -> list[Conflict]:
        """Gives conflicts of addresses that any worker has in this state."""
        by_address: dict[Interface4or6, Conflict] = {}
        mac = ffi.new("uint8_t[6]")
        for worker in self.workers:
            stack = lib.worker_stack(worker)
            for place, address in enumerate(self.opened.addresses):
                frames = lib.stack_address_conflicts(stack, place, mac)
                if frames == 0 or lib.stack_address_state(stack, place) != state:
                    continue
                conflict = by_address.setdefault(address, Conflict(address, "", 0))
                conflict.mac = bytes(mac).hex(":")
                conflict.frames += frames
        return list(by_address.values())

    def serve_until_stopped(
        self,
        report: Callable[[Conflict], None],
        check: Callable[[], None],
        crashed: Callable[[Exit, float], None],
    ) -> None:
        """Returns after STOP, or when a capture has been replayed. Raises SsrunError if a worker fails.

        report: what to do with an address of ours that somebody else uses too.
        check: raises an error if there is no going on; called once a second.
        crashed: what to say of a server that has ended, and is started again in so many seconds.
        """
        self._report_crash = crashed
        notes = ConflictNotes()
        while not self._stopped(CHECK_POLL_S):
            self._forget_taken_over()
            check()
            for conflict in notes.due(self._conflicts(lib.ETH_ADDRESS_OURS), time.monotonic()):
                report(conflict)

    def rounds(self) -> list[int]:
        """How often each worker has gone round; each is woken to go once more. While none runs, we do."""
        if self.process is not None and self.process.ended is not None:
            return [time.monotonic_ns()]
        counts = [int(lib.worker_wake(worker).counters.loop_rounds) for worker in self.workers]
        for worker in self.workers:
            lib.worker_poke(worker)
        return counts

    def runs(self) -> bool:
        """Is there anybody who takes up what workers are told?"""
        return self.process is None or self.process.runs()

    def drain(self) -> None:
        """Has idle connections closed, and the others end with the answer they are in."""
        for worker in self.workers:
            lib.worker_drain(worker)

    def unfinished(self) -> int | None:
        """Connections that have not come to that; None: workers have still to look."""
        return add_unfinished([lib.worker_unfinished(worker) for worker in self.workers])

    def stop(self) -> None:
        """Ends all workers and waits for them; what is unfinished is reset."""
        self._is_stopping = True
        for worker in self.workers:
            lib.worker_stop(worker)
        if self.process is not None and self.process.ended is None:
            self.events.forget(self.process)
            self.process.await_end()
        for thread in self.threads:
            thread.join()
        self.threads.clear()
        if self.own_threads is not None:
            self.own_threads.close()

    def counters(self) -> dict[str, int]:
        """Sums over all workers, and of their ports."""
        totals: dict[str, int] = {}
        for worker in self.workers:
            view = lib.worker_view(worker)
            for index, name in enumerate(counter_names(view)):
                totals[name] = totals.get(name, 0) + lib.stack_counter(view, index)
            for name, value in wake_counters(lib.worker_wake(worker)).items():
                totals[name] = totals.get(name, 0) + value
            counters = lib.worker_port_counters(worker)
            for name in PORT_COUNTERS:
                totals[f"port_{name}"] = totals.get(f"port_{name}", 0) + getattr(counters, name)
        return totals
