"""Where lines of the access log go: a file, what reads our output, journald, syslog. Nothing here stops serving."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .addresses import parse_endpoint

PIPE_BYTES = select.PIPE_BUF  # that are written whole where a pipe can be written to
WAIT_S = 0.1  # for a reader that is slow, before it is asked whether to go on
FILE_MODE = 0o640
JOURNAL = "/run/systemd/journal/socket"
DEV_LOG = "/dev/log"
SYSLOG_PORT = 514
PRIORITY_INFO = 6
SYSLOG_PRI = 23 * 8 + PRIORITY_INFO  # facility local7, as nginx's
TAG = "ssrun"


@dataclass(frozen=True)
class Loss:
    """Lines that were not written."""

    lines: int
    reason: str


class Sink(ABC):
    """One place."""

    name: str  # for people

    @abstractmethod
    def open(self) -> None:
        """Opens it, anew if it is open; that stays so if this fails. Raises OSError."""

    @abstractmethod
    def write(self, lines: bytes, is_over: Callable[[], bool]) -> Loss | None:
        """Writes whole lines. is_over: there is no time to wait any more for who reads them."""

    @abstractmethod
    def close(self) -> None:
        """Ends it."""

    def was_moved(self) -> bool:
        """It is not any more what its name says."""
        return False


def _why(error: OSError) -> str:
    if error.errno == errno.ENXIO:
        return "nobody reads from it"
    return error.strerror or str(error)


class _SlowError(OSError):
    """Whoever reads does not."""

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, "who reads it is too slow")


def _await_writable(fd: int, is_over: Callable[[], bool]) -> None:
    """Raises _SlowError when there is no time any more."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    while not poll.poll(WAIT_S * 1000):
        if is_over():
            raise _SlowError


class _Descriptor(Sink):
    """What is written to with write(2)."""

    fd = -1
    is_file = False  # a regular one: it can be written to at any time
    is_torn = False  # the last line is not whole

    def write(self, lines: bytes, is_over: Callable[[], bool]) -> Loss | None:
        first = 0
        if self.is_torn:
            lines, first = b"\n" + lines, 1
        at = 0
        try:
            while at < len(lines):
                at += self._write(lines, at, is_over)
        except OSError as error:
            if at > 0:
                self.is_torn = lines[at - 1 : at] != b"\n"
            return Loss(lines.count(b"\n", max(at, first)), _why(error))
        self.is_torn = False
        return None

    def _write(self, lines: bytes, at: int, is_over: Callable[[], bool]) -> int:
        if self.is_file:
            return os.write(self.fd, memoryview(lines)[at:])
        _await_writable(self.fd, is_over)
        end = at + PIPE_BYTES
        if end < len(lines):
            end = lines.rfind(b"\n", at, end) + 1 or end
        try:
            return os.write(self.fd, memoryview(lines)[at:end])
        except BlockingIOError:  # somebody else writes there too
            time.sleep(WAIT_S / 10)
            if is_over():
                raise _SlowError from None
            return 0

    def close(self) -> None:
        if self.fd > 2:
            os.close(self.fd)
        self.fd = -1


class File(_Descriptor):
    """A file, a FIFO or a device, by its path."""

    def __init__(self, path: Path) -> None:
        """Nothing is opened yet."""
        self.name = str(path)
        self.path = path

    def open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
        fd = os.open(self.path, flags | os.O_NONBLOCK, FILE_MODE)
        self.close()
        self.fd = fd
        self.is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self.is_torn = False

    def write(self, lines: bytes, is_over: Callable[[], bool]) -> Loss | None:
        if self.fd < 0:
            try:
                self.open()
            except OSError as error:
                return Loss(lines.count(b"\n"), _why(error))
        loss = super().write(lines, is_over)
        if loss is not None and not self.is_file:  # a FIFO whose reader has gone: perhaps another one comes
            self.close()
        return loss

    def was_moved(self) -> bool:
        if not self.is_file or self.fd < 0:
            return False
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return not os.path.samestat(now, os.fstat(self.fd))


class Output(_Descriptor):
    """Our own standard output."""

    name = "standard output"
    fd = 1

    def open(self) -> None:
        self.is_file = stat.S_ISREG(os.fstat(self.fd).st_mode)

    def close(self) -> None:
        return


class _Datagrams(Sink):
    """A datagram a line."""

    def __init__(self, family: int, address: Any) -> None:
        """Nothing is opened yet."""
        self.family = family
        self.address = address
        self.sock: socket.socket | None = None

    def open(self) -> None:
        sock = socket.socket(self.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.connect(self.address)
        except OSError:
            sock.close()
            raise
        self.close()
        self.sock = sock

    @abstractmethod
    def datagram(self, line: bytes) -> bytes:
        """What is sent of a line."""

    def write(self, lines: bytes, is_over: Callable[[], bool]) -> Loss | None:
        lost, reason = 0, ""
        for line in lines.splitlines():
            try:
                self._send(self.datagram(line), is_over)
            except OSError as error:
                lost, reason = lost + 1, _why(error)
        return Loss(lost, reason) if lost else None

    def _send(self, datagram: bytes, is_over: Callable[[], bool]) -> None:
        if self.sock is None:
            self.open()
        assert self.sock is not None
        try:
            self.sock.send(datagram)
        except BlockingIOError:
            _await_writable(self.sock.fileno(), is_over)
            self.sock.send(datagram)
        except (
            ConnectionError,
            FileNotFoundError,
        ):  # whoever took them has been started anew, or was; UDP says it late
            self.close()
            self.open()
            self.sock.send(datagram)

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
        self.sock = None


class Journal(_Datagrams):
    """systemd's, by its own protocol: fields, a line each."""

    name = "journald"

    def __init__(self, path: str = JOURNAL) -> None:
        """Where it listens."""
        super().__init__(socket.AF_UNIX, path)

    def datagram(self, line: bytes) -> bytes:
        return b"PRIORITY=%d\nSYSLOG_IDENTIFIER=%s\nMESSAGE=%s\n" % (PRIORITY_INFO, TAG.encode(), line)


class Syslog(_Datagrams):
    """By RFC 3164, as nginx does: on this host, or at an address over UDP."""

    def __init__(self, where: str) -> None:
        """where: nothing, the path of a socket, or ADDR[:PORT]. Raises ValueError."""
        self.name = f"syslog:{where}" if where else "syslog"
        if not where or where.startswith("/"):
            super().__init__(socket.AF_UNIX, where or DEV_LOG)
            self.host = b""
            return
        endpoint = parse_endpoint(where if _has_port(where) else f"{where}:{SYSLOG_PORT}")
        host = endpoint.hosts[0]
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__(family, (host, endpoint.port))
        self.host = socket.gethostname().encode("ascii", "replace") + b" "

    def datagram(self, line: bytes) -> bytes:
        stamp = time.strftime("%b %e %H:%M:%S ").encode()
        return b"<%d>%s%s%s[%d]: %s" % (SYSLOG_PRI, stamp, self.host, TAG.encode(), os.getpid(), line)


def _has_port(where: str) -> bool:
    return "]:" in where if where.startswith("[") else where.count(":") == 1


def sink(target: str) -> Sink:
    """What `--access-log` names. Raises ValueError for a syslog that is none."""
    if target == "-":
        return Output()
    if target == "journald":
        return Journal()
    kind, _, where = target.partition(":")
    return Syslog(where) if kind == "syslog" else File(Path(target))
