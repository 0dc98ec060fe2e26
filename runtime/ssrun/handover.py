"""One build of ssrun goes over to another, in the same process: what outlives that, and how the new one finds it.

The old one first has the new one say, in a process of its own, that it could go on (`checked`). Then its server
leaves its connections as records, and the process becomes the new one (execve), which is told in the environment
where all is that was left: descriptors of what keeps the kernel from answering in our place meanwhile, of the image,
and of the records.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from ssimage import console
from ssimage._sandstorm import ffi, lib

from .errors import SsrunError

VARIABLE = "SANDSTORM_HANDOVER"  # of a file in memory: its descriptor
CHECK = "SANDSTORM_HANDOVER_CHECK"  # of the image alone, by who only asks
FORM = 1  # of what is in that file; another one is another build's
CHECK_S = 60.0
PROCESS = Path("/proc/self/comm")
NEW_STARTS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)  # would end who does not expect them yet


@dataclass
class HandedImage:
    """The image that is served."""

    path: str
    fd: int
    source: list[int]  # ImageFile.source


@dataclass
class Handover:
    """What one build leaves to the next. Descriptors are open in both."""

    image: HandedImage
    records_fd: int = -1
    workers: int = 0
    each_bytes: int = 0  # of the records of a worker
    secret: str = ""  # of the stacks, in hexadecimal digits
    is_drained: bool = False
    upgrades: int = 1  # that there have been since the process began
    reservation: dict[str, int] = field(default_factory=dict)  # PortReservation.sockets
    taps: list[int] = field(default_factory=list)  # a queue for each worker
    tap_addresses: list[str] = field(default_factory=list)  # ours, as 198.51.100.1/24
    tap_host_addresses: list[str] = field(default_factory=list)  # and the kernel's
    link_fd: int = -1  # nmio_filter_link
    xdp: str = ""  # as in Opened.details
    process: str = ""  # its name, as `ps` shows it

    def descriptors(self) -> list[int]:
        """All that must stay open."""
        all_of_them = [self.image.fd, self.records_fd, self.link_fd, *self.reservation.values(), *self.taps]
        return [fd for fd in all_of_them if fd >= 0]


def _file_of(document: dict[str, Any]) -> int:
    """A file in memory with this in it."""
    fd = os.memfd_create("sandstorm-handover")
    os.write(fd, json.dumps({"form": FORM, **document}).encode())
    return fd


NOT_KNOWN = "the build before this leaves what this one does not know; start ssrun again"


def _read(fd: int) -> dict[str, Any]:
    try:
        document = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
        os.close(fd)
    except (OSError, ValueError) as error:
        raise SsrunError(f"what the build before this has left can't be read: {error}") from None
    if not isinstance(document, dict) or document.pop("form", None) != FORM:
        raise SsrunError(NOT_KNOWN)
    return document


def received() -> Handover | None:
    """What another build has left us; None: nothing goes on. Raises SsrunError."""
    fd = os.environ.pop(VARIABLE, "")
    if not fd.isdigit():
        return None
    document = _read(int(fd))
    try:
        handover = Handover(image=HandedImage(**document.pop("image")), **document)
    except (TypeError, KeyError):
        raise SsrunError(NOT_KNOWN) from None
    for descriptor in handover.descriptors():
        os.set_inheritable(descriptor, False)
    with contextlib.suppress(OSError):  # which execve has made the interpreter's
        PROCESS.write_text(handover.process)
    return handover


def asked() -> HandedImage | None:
    """The image of one that asks whether we could go on; None: nobody asks. Raises SsrunError."""
    fd = os.environ.pop(CHECK, "")
    if not fd.isdigit():
        return None
    try:
        return HandedImage(**_read(int(fd)))
    except TypeError:
        raise SsrunError(NOT_KNOWN) from None


def say_that_we_could() -> None:
    """The answer to that, when the image has been opened."""
    console.write(json.dumps({"version": version("sandstorm"), "records": int(lib.RECORDS_VERSION)}) + "\n")


def _command() -> list[str]:
    """The command line that we were started with."""
    return [sys.executable, *sys.orig_argv[1:]]


def checked(image: HandedImage) -> str:
    """Has the build that is installed now say whether it could go on; its version. Raises SsrunError."""
    fd = _file_of(asdict(image))
    try:
        done = subprocess.run(
            _command(),
            env=os.environ | {CHECK: str(fd)},
            pass_fds=(fd, image.fd),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=CHECK_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SsrunError(f"the new build can't be started: {error}") from None
    finally:
        os.close(fd)
    return _version(done.returncode, done.stdout, done.stderr)


def _version(status: int, answer: str, error: str) -> str:
    lines = error.strip().splitlines()
    if status != 0:
        raise SsrunError(f"the new build could not go on: {lines[-1] if lines else f'status {status}'}")
    try:
        document = json.loads(answer)
        records, name = int(document["records"]), str(document["version"])
    except (ValueError, TypeError, KeyError):
        raise SsrunError("what is installed now is no ssrun that could go on; start it again instead") from None
    if records != lib.RECORDS_VERSION:
        raise SsrunError(
            f"connections of this build can't go on in {name}, which keeps them in another way; drain and start again"
        )
    return name


def records_file(size_bytes: int) -> int:
    """A file in memory for records, whose length nobody can change."""
    fd = os.memfd_create("sandstorm-records", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(fd, size_bytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


class Records:
    """Those of all workers, as they were left."""

    def __init__(self, handover: Handover) -> None:
        """Maps them. Raises SsrunError."""
        self.each_bytes = handover.each_bytes
        self.workers = handover.workers
        size_bytes = self.each_bytes * self.workers
        try:
            self._mapped = mmap.mmap(handover.records_fd, size_bytes, mmap.MAP_PRIVATE, mmap.PROT_READ)
        except (OSError, ValueError, OverflowError) as error:
            raise SsrunError(f"what the build before this has left can't be read: {error}") from None
        finally:
            os.close(handover.records_fd)
        self._memory = ffi.from_buffer(self._mapped)

    def of(self, worker: int) -> Any:
        """uint8_t * of a worker's."""
        return ffi.cast("uint8_t *", self._memory) + worker * self.each_bytes

    def close(self) -> None:
        """No worker needs them any more."""
        ffi.release(self._memory)
        self._mapped.close()


def become(handover: Handover) -> NoReturn:
    """The new build goes on in this process. Raises OSError if it can't even be started."""
    for number in NEW_STARTS:
        signal.signal(number, signal.SIG_IGN)
    for fd in handover.descriptors():
        os.set_inheritable(fd, True)
    with contextlib.suppress(OSError):
        handover.process = PROCESS.read_text().rstrip("\n")
    fd = _file_of(asdict(handover))
    os.set_inheritable(fd, True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, _command(), os.environ | {VARIABLE: str(fd)})
