"""The server: the process that runs workers, with few rights. We, who open all that it uses, are its supervisor."""

from __future__ import annotations

import array
import os
import pwd
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ssimage._sandstorm import ffi, lib
from ssimage.loader import ImageFile

from .errors import SsrunError
from .swaps import Told, nobody

FORKED = ("afxdp", "packet", "tap")  # backends whose workers use nothing that two processes can't share
NOBODY = "nobody"
NOBODY_ID = 65534  # where it has no name
START_S = 10.0  # until the server must have begun
END_S = 5.0  # after its workers have been told to end
NEWS_AT_ONCE = 64  # whatever it tells, we have other things to do
ANY_CPU = -1


@dataclass(frozen=True)
class User:
    """Whose the server is."""

    name: str
    uid: int
    gid: int


def user_named(name: str) -> User:
    """Raises SsrunError if there is none of that name."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise SsrunError(
            f"--user {name}: there is no such user; make one (`useradd --system {name}`), or name another"
        ) from None
    return User(name, entry.pw_uid, entry.pw_gid)


def user_name() -> str:
    """Whose we are; a number where it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def server_user(name: str | None) -> User | None:
    """Whose the server is to be; None: ours, as we may not choose. name: as it was asked for. Raises SsrunError."""
    if os.geteuid() == 0:
        try:
            return user_named(name or NOBODY)
        except SsrunError:
            if name is not None:
                raise
            return User(NOBODY, NOBODY_ID, NOBODY_ID)
    if name is not None and user_named(name).uid != os.geteuid():
        raise SsrunError(f"--user {name}: only root may start a server as somebody else; leave --user out")
    return None


# Bits of what it is kept from, as they are told.
CONFINED = {"files": lib.SERVER_FILES_CONFINED, "calls": lib.SERVER_CALLS_CONFINED}
NOT_CONFINED = {
    "files": "this kernel has no Landlock: the process that serves could open what its user may",
    "calls": "this kernel filters no system calls (seccomp): the process that serves could make any",
}


# struct server_order has them in this order.
TABLES = (
    *("header", "strings", "hosts", "sites", "buckets", "routes", "variants", "responses", "patches", "errors"),
    "frames",
)
IMAGE_NEWS = (lib.SWAPS_SERVED, lib.SWAPS_REFUSED, lib.SWAPS_GONE)


def _order(number: int, image: ImageFile, fault_line: bytes) -> Any:
    """struct server_order * that has an image served."""
    order = ffi.new("struct server_order *")
    order.kind = lib.SERVER_SWAP
    order.number = number
    order.slots_offset, order.slots_bytes = image.slots.offset, image.slots.size_bytes
    order.tables_bytes = image.tables_bytes
    for place, name in enumerate(TABLES):
        table = image.table_place(name)
        order.tables[place].offset, order.tables[place].bytes = table.offset, table.size_bytes
    line = fault_line[: lib.FAULT_LINE_BYTES - 1]
    ffi.memmove(order.fault_line, line, len(line))
    return order


def _mappings(found: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """struct swaps_mapping[]"""
    return [{"address": ffi.cast("void *", address), "bytes": size_bytes} for address, size_bytes in found]


class Images:
    """The images of servers, one after the other: what each is told, and the next begins with."""

    def __init__(self) -> None:
        """Servers begin with what their workers are laid out for."""
        self.told: Told = nobody
        self.keeps_first = True  # workers are laid out for it, again and again
        self.served: tuple[int, ImageFile] | None = None  # instead of that
        self.swaps = 0  # that the server has taken up
        self._process: ServerProcess | None = None
        self._older: set[int] = set()
        self._waiting: tuple[int, ImageFile, bytes] | None = None  # to be taken up

    def begins(self, process: ServerProcess) -> None:
        """It serves what is served; it knows of none before that, nor of one that the server before was given."""
        self._process = process
        process.told = self._told
        self.swaps = 0 if self.served is None else 1
        older, self._older = self._older, set()
        for number in older:
            self.told(lib.SWAPS_GONE, number, 0)
        if self._waiting is not None:
            process.swap(*self._waiting)

    def swap(self, number: int, image: ImageFile, fault_line: bytes) -> None:
        """Has it serve another image, and tell what becomes of that. Raises SsrunError."""
        self._waiting = number, image, fault_line
        if self._process is None or self._process.ended is not None:
            return  # the next one will
        try:
            self._process.swap(number, image, fault_line)
        except SsrunError:
            self._waiting = None
            raise

    def end_image(self, number: int) -> None:
        """Has it reset the connections that still need an image."""
        if self._process is not None and self._process.ended is None:
            self._process.end_image(number)

    def _told(self, kind: int, number: int, result: int) -> None:
        waits = self._waiting is not None and self._waiting[0] == number
        if kind == lib.SWAPS_SERVED and waits:
            assert self._waiting is not None
            self._older.add(self.served[0] if self.served is not None else 0)
            self.served = number, self._waiting[1]
            self.swaps += 1
        if waits and kind in (lib.SWAPS_SERVED, lib.SWAPS_REFUSED):
            self._waiting = None
        if kind == lib.SWAPS_GONE:
            self._older.discard(number)
        self.told(kind, number, result)


@dataclass(frozen=True)
class Exit:
    """How the server has ended."""

    status: int  # as waitpid gives it

    @property
    def by_signal(self) -> bool:
        """Has it crashed, or been killed? Else it has said why it ends."""
        return os.WIFSIGNALED(self.status)

    def __str__(self) -> str:
        """Says it in words."""
        if self.by_signal:
            return f"was killed by {signal.Signals(os.WTERMSIG(self.status)).name}"
        return f"ended with status {os.waitstatus_to_exitcode(self.status)}"


class DiedEarlyError(SsrunError):
    """The server has been killed, or has crashed, before it had begun."""

    def __init__(self, how: Exit) -> None:
        """how: it has ended."""
        super().__init__(f"the server process {how}")
        self.exit = how


class ServerProcess:
    """One server, from its fork to its end."""

    def __init__(
        self,
        workers: list[Any],
        cpus: list[int | None],
        user: User | None,
        app: Any,
        mappings: Sequence[tuple[int, int]] = (),
        swapped: tuple[int, ImageFile] | None = None,
        traces: Sequence[Any] = (),
    ) -> None:
        """Forks it; its workers run when this returns. Raises SsrunError.

        workers: struct worker *. app: theirs, const struct tcpip_app *.
        mappings: ImageFile.mappings of what they are laid out for, which are the server's to give back.
        swapped: what they are to serve instead, and its number. traces: of their ports, struct trace *.
        """
        self._sock: socket.socket | None = None
        self.told: Told = nobody
        self.traced: Callable[[int], None] = lambda _: None  # the frames of a session are kept
        self.ended: Exit | None = None
        self.confined = 0  # SERVER_*_CONFINED
        places = ffi.new("int32_t[]", [ANY_CPU if cpu is None else cpu for cpu in cpus])
        pointers = ffi.new("struct worker *[]", workers)
        rings = ffi.new("struct trace *[]", list(traces))
        options = ffi.new(
            "struct server_options *",
            {
                "traces": rings,
                "trace_count": len(rings),
                "workers": pointers,
                "cpus": places,
                "worker_count": len(workers),
                "change_user": user is not None,
                "uid": user.uid if user else 0,
                "gid": user.gid if user else 0,
                "app": app,
                "mappings": _mappings(mappings),
            },
        )
        if swapped is not None:
            number, image = swapped
            options.swapped, options.swapped_number = image.image, number
            options.swapped_mappings = _mappings(image.mappings())
        fd = ffi.new("int *")
        self.pid = int(lib.server_fork(options, fd))
        if self.pid < 0:
            raise SsrunError(f"the server process can't be started: {os.strerror(-self.pid)}")
        self._sock = socket.socket(fileno=fd[0])
        self._await_start()

    def _await_start(self) -> None:
        assert self._sock is not None
        self._sock.settimeout(START_S)
        try:
            news = self._receive()
        except TimeoutError:
            self._reap(kill=True)
            raise SsrunError(f"the server process has not begun within {START_S:g} s; start again") from None
        if news is None or news.kind != lib.SERVER_READY:
            ended = self._reap(kill=False)
            if news is None and ended.by_signal:
                raise DiedEarlyError(ended)
            why = f"can't give up its rights: {os.strerror(-news.result)}" if news is not None else str(ended)
            raise SsrunError(f"the server process {why}")
        self._sock.setblocking(False)
        self.confined = int(news.confined)

    def _receive(self) -> Any:
        """struct server_news *; None at the end."""
        assert self._sock is not None
        news = ffi.new("struct server_news *")
        try:
            got = self._sock.recv_into(ffi.buffer(news))
        except ConnectionError:
            return None
        return news if got == ffi.sizeof("struct server_news") else None

    def runs(self) -> bool:
        """Has it not ended, as far as the kernel knows?"""
        return self.ended is None and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def confined_by(self) -> list[str]:
        """What it is kept from: words of CONFINED."""
        return [name for name, bit in CONFINED.items() if self.confined & bit]

    def fileno(self) -> int:
        """What can be read when there is news."""
        assert self._sock is not None
        return self._sock.fileno()

    def news(self, worker_ended: Callable[[int], None]) -> Exit | None:
        """Takes what it has told; worker_ended gets the result of a worker. How it has ended, if it has."""
        for _ in range(NEWS_AT_ONCE):
            try:
                news = self._receive()
            except BlockingIOError:
                return None
            if news is None:
                return self._reap(kill=False)
            if news.kind == lib.SERVER_WORKER_ENDED:
                worker_ended(int(news.result))
            if news.kind == lib.SERVER_TRACED:
                self.traced(int(news.number))
            if news.kind in IMAGE_NEWS:
                self.told(int(news.kind), int(news.number), int(news.result))
        return None

    def swap(self, number: int, image: ImageFile, fault_line: bytes) -> None:
        """Has it serve another image, and tell what becomes of that. Raises SsrunError."""
        self._send(_order(number, image, fault_line), [image.fd, image.tables_fd])

    def end_image(self, number: int) -> None:
        """Has it reset the connections that still need an image."""
        order = ffi.new("struct server_order *", {"kind": lib.SERVER_END, "number": number})
        self._send(order, [])

    def leave(self, fd: int, each_bytes: int) -> Exit:
        """Has it end, with the connections of each worker as records in a file. Raises SsrunError."""
        order = ffi.new("struct server_order *", {"kind": lib.SERVER_LEAVE, "records_bytes": each_bytes})
        self._send(order, [fd, fd])
        return self.await_end()

    def trace(self, client: dict[str, Any]) -> None:
        """Has it keep the heads of a client's frames. client: struct trace_filter. Raises SsrunError."""
        self._send(ffi.new("struct server_order *", {"kind": lib.SERVER_TRACE, "trace": client}), [])

    def _send(self, order: Any, fds: list[int]) -> None:
        assert self._sock is not None
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([ffi.buffer(order)], rights)
        except OSError as error:
            raise SsrunError(f"the server process takes nothing ({error.strerror}); start ssrun again") from None

    def await_end(self) -> Exit:
        """Waits until it has ended, as its workers have been told to; one that does not is killed."""
        assert self._sock is not None
        self._sock.settimeout(END_S)
        try:
            while self._receive() is not None:
                pass
        except TimeoutError:
            return self._reap(kill=True)
        return self._reap(kill=False)

    def _reap(self, *, kill: bool) -> Exit:
        """Waits for its last moment; nothing is left of it then. kill: as it does not come to that by itself."""
        assert self._sock is not None
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        self._sock.close()
        self._sock = None
        self.ended = Exit(status)
        return self.ended
