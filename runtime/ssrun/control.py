"""The control socket: what an operator asks of an ssrun that serves, and its answers.

A UNIX socket for each that runs, called by its name. One line of JSON is asked and one is answered. Whoever asks is
root or the user that serves: the socket's mode says so, and the kernel tells who it is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import GoneError, SsrunError
from .events import Events
from .names import NAME_MAX
from .peer import peer
from .settings import TAP

RUN = Path("/run/ssrun")
SUFFIX = ".sock"
LOCK = ".lock"
LOCK_S, LOCK_POLL_S = 2.0, 0.02
SUFFIXES_TRIED = 1000
ASKED_BYTES_MAX = 16384
READ_BYTES = 65536
CONNECTIONS_MAX = 64  # who asks more has those end that have waited for longest
ACCEPTED_AT_ONCE = 16
LOOK_S = 1.0
ASKING_S = 10.0  # the line must be whole after this
ANSWER_S = 10.0  # a client waits so long, unless it has asked for what takes its time

Answer = Callable[[dict[str, Any]], None]
Handler = Callable[[dict[str, Any], Answer], None]


def folder() -> Path:
    """Where the sockets of this user are."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]  # of a service manager: systemd.exec(5)
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return RUN
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "ssrun" if runtime else Path(tempfile.gettempdir()) / f"ssrun-{os.geteuid()}"


def _folders() -> list[Path]:
    """Where to look for sockets: root sees those of services too."""
    if os.geteuid() != 0:
        return [folder()]
    try:
        below = sorted(path for path in RUN.iterdir() if path.is_dir())
    except OSError:
        below = []
    return list(dict.fromkeys([folder(), RUN, *below]))


def _make_folder(path: Path) -> None:
    """Raises SsrunError unless it is there and nobody else's."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
    seen = path.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & 0o022:
        raise SsrunError(f"{path}: must be a folder that only this user can write to; remove it")


@contextlib.contextmanager
def _at(path: Path) -> Iterator[str]:
    """The path of a socket, however long its folder's is: the kernel takes 107 bytes."""
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)


def _connected(path: Path) -> socket.socket | None:
    """A socket to whoever listens there; None: nobody does. Raises OSError if that can't be found out."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with _at(path) as name:
            sock.connect(name)
    except (ConnectionRefusedError, FileNotFoundError):
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    return sock


def _is_stale(path: Path) -> bool:
    """Nobody listens there: whoever did was killed."""
    try:
        sock = _connected(path)
    except OSError:  # as EAGAIN, when many ask
        return False
    if sock is None:
        return True
    sock.close()
    return False


@contextlib.contextmanager
def _locked(where: Path) -> Iterator[None]:
    """One at a time takes a name. Raises SsrunError if that lasts."""
    fd = os.open(where / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        end_s = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end_s:
                    raise SsrunError(f"{where / LOCK}: another ssrun holds it and does not go on") from None
                time.sleep(LOCK_POLL_S)
        yield
    finally:
        os.close(fd)


def _sweep(where: Path) -> None:
    """Sockets of those that were killed go."""
    for path in where.glob(f"*{SUFFIX}"):
        if _is_stale(path):
            with contextlib.suppress(OSError):
                path.unlink()


def _bound(path: Path) -> socket.socket:
    """A socket that listens there, for this user alone."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        with _at(path) as name:
            sock.bind(name)
        sock.listen(CONNECTIONS_MAX)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def _taken(name: str, where: Path) -> SsrunError:
    try:
        pid = ask(where / f"{name}{SUFFIX}", {"command": "list"}, timeout_s=1.0).get("pid")
    except SsrunError:
        pid = None
    who = f" (pid {pid})" if pid else ""
    return SsrunError(f"another ssrun is called {name}{who}; stop it, or choose another --name")


def _free_name(name: str, where: Path) -> str:
    """The name, or the first free one with a number behind it: what nobody chose keeps nobody from serving."""
    for number in range(1, SUFFIXES_TRIED):
        tried = name if number == 1 else f"{name[: NAME_MAX - 5]}-{number}"
        if not (where / f"{tried}{SUFFIX}").exists():
            return tried
    raise SsrunError(f"all names from {name} on are taken; choose a --name")


@dataclass
class _Asking:
    """Somebody who asks."""

    sock: socket.socket
    until_s: float | None  # None: it is answered when that can be
    data: bytearray = field(default_factory=bytearray)  # what has come; and then what is to go


class Control:
    """The socket of one that serves. All is the main thread's."""

    def __init__(self, name: str | None, derived: str, events: Events, handlers: dict[str, Handler]) -> None:
        """Takes a name, and answers what is asked when `events` waits. Raises SsrunError or OSError.

        name: the one that was chosen; without one it is derived, or like that.
        """
        self.events = events
        self.handlers = handlers
        self.asking: dict[int, _Asking] = {}  # by their descriptors; the oldest first
        self.paused = False  # no more descriptors are to be had
        self.looks_later = False
        self.closed = False
        where = folder()
        _make_folder(where)
        with _locked(where):
            _sweep(where)
            if name is not None and (where / f"{name}{SUFFIX}").exists():
                raise _taken(name, where)
            self.name = name if name is not None else _free_name(derived, where)
            self.path = where / f"{self.name}{SUFFIX}"
            self.sock = _bound(self.path)
            self.inode = self.path.lstat().st_ino
        events.watch(self.sock, self._accept)

    def close(self) -> None:
        """Nobody is answered any more."""
        self.closed = True
        for asking in list(self.asking.values()):
            self._end(asking)
        if not self.paused:
            self.events.forget(self.sock)
        with contextlib.suppress(OSError):
            if self.path.lstat().st_ino == self.inode:
                self.path.unlink()
        self.sock.close()

    def _look_later(self) -> None:
        if not self.looks_later:
            self.looks_later = True
            self.events.later(LOOK_S, self._look)

    def _look(self) -> None:
        """Who does not say what it wants goes; and perhaps there are descriptors again."""
        self.looks_later = False
        if self.closed:
            return
        now_s = time.monotonic()
        for asking in list(self.asking.values()):
            if asking.until_s is not None and now_s > asking.until_s:
                self._end(asking)
        if self.paused:
            self.events.watch(self.sock, self._accept)
            self.paused = False
        if self.asking:
            self._look_later()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, _ = self.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    self.events.forget(self.sock)  # it would be ready for ever
                    self.paused = True
                    self._look_later()
                return
            sock.setblocking(False)
            _, uid = peer(sock)
            if uid not in (0, os.geteuid()):
                sock.close()
                continue
            if len(self.asking) >= CONNECTIONS_MAX:
                self._end(next(iter(self.asking.values())))
            asking = _Asking(sock, time.monotonic() + ASKING_S)
            self.asking[sock.fileno()] = asking
            self._look_later()
            self.events.watch(sock, lambda asking=asking: self._read(asking))  # type: ignore[misc]

    def _end(self, asking: _Asking) -> None:
        if self.asking.pop(asking.sock.fileno(), None) is None:
            return
        self.events.forget(asking.sock)
        asking.sock.close()

    def _read(self, asking: _Asking) -> None:
        try:
            data = asking.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or asking.until_s is None or len(asking.data) + len(data) > ASKED_BYTES_MAX:
            self._end(asking)  # it has gone, or says more than one line
            return
        asking.data += data
        line, end, more = asking.data.partition(b"\n")
        if end:
            asking.until_s = None
            self._handle(line if not more else b"", lambda answer: self._answer(asking, answer))

    def _handle(self, line: bytes | bytearray, answer: Answer) -> None:
        try:
            asked = json.loads(line)
            handler = self.handlers.get(asked["command"])
        except (ValueError, TypeError, KeyError, RecursionError):
            answer({"error": 'one line of JSON is asked, as {"command": "list"}'})
            return
        if handler is None:
            answer(
                {"error": f"{str(asked['command'])[:NAME_MAX]!r} is no command; there are {', '.join(self.handlers)}"}
            )
            return
        try:
            handler(asked, answer)
        except SsrunError as error:
            answer({"error": str(error)})

    def _answer(self, asking: _Asking, answer: dict[str, Any]) -> None:
        if asking.sock.fileno() not in self.asking:
            return  # it did not wait for it
        asking.data = bytearray(json.dumps(answer).encode() + b"\n")
        asking.until_s = time.monotonic() + ASKING_S
        self.events.forget(asking.sock)
        self.events.watch(asking.sock, lambda: self._write(asking), writable=True)

    def _write(self, asking: _Asking) -> None:
        try:
            sent = asking.sock.send(asking.data)
        except BlockingIOError:
            return
        except OSError:
            self._end(asking)
            return
        del asking.data[:sent]
        if not asking.data:
            self._end(asking)


def _connected_at_last(path: Path, timeout_s: float | None) -> socket.socket | None:
    """The same, though many ask at once. Raises OSError."""
    end_s = time.monotonic() + (timeout_s if timeout_s is not None else ANSWER_S)
    while True:
        try:
            return _connected(path)
        except BlockingIOError:
            if time.monotonic() > end_s:
                raise TimeoutError from None
            time.sleep(LOCK_POLL_S)


def ask(path: Path, asked: dict[str, Any], timeout_s: float | None = ANSWER_S) -> dict[str, Any]:
    """What the one that serves there answers. Raises SsrunError if it refuses, or does not answer."""
    name = path.name.removesuffix(SUFFIX)
    try:
        sock = _connected_at_last(path, timeout_s)
        if sock is None:
            raise GoneError(f"{name}: it does not run any more")
        with sock:
            sock.settimeout(timeout_s)
            sock.sendall(json.dumps(asked).encode() + b"\n")
            with sock.makefile("rb") as file:
                line = file.readline()
    except TimeoutError:
        raise SsrunError(f"{name}: no answer in {timeout_s or ANSWER_S:g} s: it starts or hangs; ask again") from None
    except PermissionError:
        raise SsrunError(f"{name}: only root and the user that it runs as may ask it") from None
    except ConnectionError:
        raise GoneError(f"{name}: it has ended before it answered") from None
    except OSError as error:
        raise SsrunError(f"{name}: can't be asked: {error.strerror or error}") from None
    if not line.endswith(b"\n"):
        raise GoneError(f"{name}: it has ended before it answered")
    answer = json.loads(line)
    assert isinstance(answer, dict)
    if "error" in answer:
        raise SsrunError(f"{name}: {answer['error']}")
    return answer


def running() -> dict[str, Path]:
    """The sockets of all that run and may be asked by this user, by their names."""
    found: dict[str, Path] = {}
    for where in _folders():
        for path in sorted(where.glob(f"*{SUFFIX}")):
            if not _is_stale(path):
                found.setdefault(path.name.removesuffix(SUFFIX), path)
    return found


def find(name: str | None) -> Path:
    """The socket of the one that is meant: of that name, on that interface, or the only one. Raises SsrunError."""
    found = running()
    if name is not None:
        return found[name] if name in found else found[_on_interface(name, found)]
    if len(found) != 1:
        raise SsrunError("nothing runs here" if not found else f"several run here; say which: {', '.join(found)}")
    return next(iter(found.values()))


def _on_interface(interface: str, found: dict[str, Path]) -> str:
    """The name of the only one that serves there. Raises SsrunError."""
    names = []
    for name, path in found.items():
        with contextlib.suppress(SsrunError):  # one that does not answer is no other's matter
            where = str(ask(path, {"command": "list"}, timeout_s=LOOK_S).get("where"))
            if interface in (where, where.removeprefix(TAP)):
                names.append(name)
    if len(names) > 1:
        raise SsrunError(f"several serve on {interface}; say which: {', '.join(names)}")
    if not names:
        raise SsrunError(f"nothing that runs is called {interface}; {_others(found)}")
    return names[0]


def _others(found: dict[str, Path]) -> str:
    return f"there is {', '.join(found)}" if found else "nothing runs here"
