"""What all commands that serve have in common: their options, what they say, and a run from start to end."""

from __future__ import annotations

import json
import math
import re
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from ssimage import console
from ssimage._sandstorm import lib
from ssimage.loader import FrameSource, ImageError

from .errors import SsrunError
from .events import Events
from .link import Follower, has_gone, wait_for
from .ports.capture import RING_BYTES, SNAP_BYTES, Capture, CaptureOptions
from .ports.kernel import Interface, Interface4or6
from .ports.open import BACKENDS, NETMAP, PCAP, TAP, Opened, Opener, Options, families, parse_address, why_no_host
from .server import CONGESTION, STOP, App, Conflict, Limits, Server

Command = TypeVar("Command", bound=Callable[..., Any])
SIZE_MAX = 1 << 62


class Address(click.ParamType[Interface4or6]):
    """ADDR or ADDR/LEN of a host."""

    name = "ADDR/LEN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Interface4or6:
        """An ipaddress interface."""
        try:
            address = parse_address(str(value))
        except ValueError:
            self.fail(f"{value!r} is no IPv4 or IPv6 address; write 192.0.2.10/24 or 2001:db8::10/64", param, ctx)
        why = why_no_host(address)
        if why is not None:
            self.fail(f"{value} is {why}", param, ctx)
        return address


class Size(click.ParamType[int]):
    """Bytes, with K, M or G behind: powers of ten."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """A number of bytes."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)B?", str(value).upper())
        if match is None:
            self.fail(f"{value!r} is no size; write 512M or 2G", param, ctx)
        size = float(match[1]) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}[match[2]]
        if size >= SIZE_MAX:
            self.fail(f"{str(value)[:20]!r}... is more than any machine has; write 512M or 2G", param, ctx)
        return int(size)


class Seconds(click.FloatRange):
    """A time."""

    name = "SECONDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """A number of seconds."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):  # which is in every range
            self.fail(f"{value!r} is no time; write a number of seconds, as 20 or 0.5", param, ctx)
        return number


def serving_options(port: int, keep_alive_s: float) -> Callable[[Command], Command]:
    """Gives a command the options that all have; `settings` takes their values, but for as_json.

    port, keep_alive_s: what the application's clients are used to.
    """
    seconds = Seconds(0.1, 86400)
    options = [
        click.option(
            "--iface",
            required=True,
            metavar="NAME",
            help="An interface, tap:NAME (made, and gone on exit), netmap:PORT (VALE or pipe) or pcap:IN:OUT.",
        ),
        click.option(
            "--address", "addresses", type=Address(), multiple=True, help="Be this host on the link (repeatable)."
        ),
        click.option(
            "--host-address", "host_addresses", type=Address(), multiple=True, help="The kernel's side of a TAP."
        ),
        click.option(
            "--port", type=click.IntRange(1, 65535), default=port, show_default=True, help="TCP port to serve."
        ),
        click.option(
            "--backend",
            type=click.Choice(BACKENDS),
            default="auto",
            show_default=True,
            help="How to reach the interface.",
        ),
        click.option("--workers", type=click.IntRange(1, 64), help="Threads; one a queue unless given."),
        click.option(
            "--superframe",
            type=click.IntRange(1, 44),
            default=44,
            show_default=True,
            help="Segments behind one header, on virtual interfaces; 1: frame by frame.",
        ),
        click.option(
            "--max-connections",
            type=click.IntRange(1, 1 << 24),
            default=65536,
            show_default=True,
            help="Of each worker.",
        ),
        click.option(
            "--keep-alive",
            type=seconds,
            default=keep_alive_s,
            show_default=True,
            metavar="SECONDS",
            help="An idle connection is closed after this.",
        ),
        click.option(
            "--request-timeout",
            type=seconds,
            default=20.0,
            show_default=True,
            metavar="SECONDS",
            help="A request must be whole after this, its body too.",
        ),
        click.option(
            "--send-timeout",
            type=seconds,
            default=60.0,
            show_default=True,
            metavar="SECONDS",
            help="A client that takes nothing of its answer is reset after this.",
        ),
    ]
    return _decorated([*options, *_sending_options(), *_capture_options(), *_running_options()])


def _sending_options() -> list[Callable[[Command], Command]]:
    return [
        click.option(
            "--congestion",
            type=click.Choice(tuple(CONGESTION)),
            default="cubic",
            show_default=True,
            help="Congestion control.",
        ),
        click.option("--pacing", is_flag=True, help="Spread each window over the round trip instead of bursts."),
        click.option(
            "--arena",
            type=Size(),
            help="Memory of each worker to send from; less than the image makes it a cache. The whole image unless "
            "given.",
        ),
        click.option(
            "--resident",
            is_flag=True,
            help="Read all that is sent into memory of each worker at start, in huge pages if there are any. AF_XDP "
            "always does.",
        ),
        click.option(
            "--tx",
            type=click.Choice(("zero-copy", "memcpy")),
            default="zero-copy",
            show_default=True,
            help="Send frames from where they lie, or copy each one, to compare.",
        ),
    ]


def _capture_options() -> list[Callable[[Command], Command]]:
    return [
        click.option(
            "--pcapng",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="Write what is received and sent here, for Wireshark. A file that is there is overwritten.",
        ),
        click.option(
            "--pcapng-snaplen",
            metavar="BYTES",
            type=click.IntRange(1, SNAP_BYTES),
            default=SNAP_BYTES,
            help="Keep so much of each frame; all of it unless given.",
        ),
        click.option(
            "--pcapng-buffer",
            type=Size(),
            default=RING_BYTES,
            help="Memory of each worker for frames on their way to the file; 32M unless given.",
        ),
    ]


def _running_options() -> list[Callable[[Command], Command]]:
    return [
        click.option("--no-address-check", is_flag=True, help="Don't ask the link whether an --address is taken."),
        click.option(
            "--wait-for-interface",
            is_flag=True,
            help="Wait for it, up and with an address, at the start and whenever it has gone.",
        ),
        click.option("--busy-poll", is_flag=True, help="Spin instead of sleeping."),
        click.option("--json", "as_json", is_flag=True, help="A JSON object a line; the first when ready."),
        click.version_option(package_name="sandstorm"),
    ]


def _decorated(options: list[Callable[[Any], Any]]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _can_wait(values: dict[str, Any]) -> None:
    """Raises click.UsageError where --wait-for-interface makes no sense."""
    if values["iface"].startswith((TAP, PCAP, NETMAP)):
        raise click.UsageError("--wait-for-interface is for an interface of the kernel's; leave it out")
    if values["pcapng"] is not None:
        raise click.UsageError("--wait-for-interface would begin the capture anew: leave that or --pcapng out")


def settings(values: dict[str, Any]) -> tuple[Options, Limits]:
    """The values of serving_options. Raises click.UsageError."""
    if len(values["addresses"]) > lib.ETH_ADDRESSES_MAX:
        raise click.UsageError(f"at most {lib.ETH_ADDRESSES_MAX} addresses")
    for name in ("addresses", "host_addresses"):
        given = [address.ip for address in values[name]]
        for ip in given:
            if given.count(ip) > 1:
                raise click.UsageError(f"{ip} is given twice; each address once")
    if values["pcapng_buffer"] < lib.CAPTURE_RING_BYTES_MIN:
        raise click.UsageError(f"--pcapng-buffer must be {lib.CAPTURE_RING_BYTES_MIN} bytes at least")
    if values["resident"] and values["arena"] is not None:
        raise click.UsageError("--resident is the whole image in memory, --arena a part of it: leave one out")
    if values["wait_for_interface"]:
        _can_wait(values)
    copied = values["tx"] == "memcpy"
    capture = None
    if values["pcapng"] is not None:
        capture = CaptureOptions(values["pcapng"], values["pcapng_snaplen"], values["pcapng_buffer"])
    options = Options(
        values["iface"],
        values["backend"],
        list(values["addresses"]),
        list(values["host_addresses"]),
        values["port"],
        values["workers"],
        1 if copied else values["superframe"],
        not values["no_address_check"],
        values["arena"],
        values["resident"],
        capture,
        wait_for_interface=values["wait_for_interface"],
    )
    limits = Limits(
        values["max_connections"],
        values["keep_alive"],
        values["request_timeout"],
        values["send_timeout"],
        values["busy_poll"],
        values["congestion"],
        values["pacing"],
        copied,
    )
    return options, limits


class Service(ABC):
    """An application with what it serves."""

    name: str  # of the command
    frames: FrameSource
    app: App
    asked_to_stop = False  # by a signal
    ends_on_hangup = False  # for those that are only ever started in a terminal

    @abstractmethod
    def url(self, host: str, port: int) -> str:
        """How a client names it."""

    @abstractmethod
    def headline(self) -> str:
        """What is served, for people."""

    @abstractmethod
    def event(self) -> dict[str, Any]:
        """The same for machines."""

    @abstractmethod
    def requests(self, counters: dict[str, int]) -> int:
        """How many have come."""

    def check(self) -> None:
        """Raises an error if what is served is not what it was at the start."""
        return

    def urls(self, opened: Opened, port: int) -> list[str]:
        """At all addresses that can be written without naming a link."""
        hosts = []
        for address in opened.addresses:
            if address.version == 6 and address.ip.is_link_local:
                continue
            hosts.append(str(address.ip) if address.version == 4 else f"[{address.ip}]")
        return [self.url(host, port) for host in hosts]


class Output:
    """Lines for people, or for machines."""

    def __init__(self, service: Service, as_json: bool) -> None:
        """as_json: an object a line."""
        self.service = service
        self.as_json = as_json

    def serving(self, opened: Opened, server: Server, port: int) -> None:
        """We are ready to answer."""
        mode = "own-address" if opened.own_address else "shared"
        urls = self.service.urls(opened, port)
        event = {
            "event": "serving",
            "urls": urls,
            "backend": opened.backend,
            "interface": opened.interface,
            "mode": mode,
            "addresses": [str(address) for address in opened.addresses],
            "port": port,
            "workers": len(opened.ports),
            "superframe": opened.gather_max,
            "mtu_bytes": opened.mtu_bytes,
            "memory_bytes": server.memory_bytes,
            **self.service.event(),
            "notes": opened.notes,
            **opened.details,
        }
        if self.as_json:
            self._line(event)
            return
        how = ", ".join(f"{key} {value}" for key, value in opened.details.items() if key != "host_addresses")
        console.say(self.service.headline())
        console.say(f"{opened.interface}: {opened.backend}{f' ({how})' if how else ''}, {mode} mode")
        for note in opened.notes:
            console.say(f"note: {note}")
        for url in urls:
            console.say(f"serving {url}")

    def conflict(self, conflict: Conflict, interface: str) -> None:
        """Somebody else uses an address of ours; we go on."""
        if self.as_json:
            self._line(
                {
                    "event": "address-conflict",
                    "address": str(conflict.address.ip),
                    "mac": conflict.mac,
                    "interface": interface,
                    "frames": conflict.frames,
                }
            )
        else:
            console.say(
                f"{self.service.name}: note: {conflict.address.ip} is also used by {conflict.mac} on {interface}; "
                "clients may reach either of us",
                err=True,
            )

    def capture_failed(self, path: Path, reason: str) -> None:
        """The capture is over, but we go on."""
        if self.as_json:
            self._line({"event": "capture-failed", "path": str(path), "reason": reason})
        else:
            console.say(f"{self.service.name}: note: {path}: {reason}; the capture ends here", err=True)

    def capture_incomplete(self, path: Path, dropped: int) -> None:
        """At the end, for people; machines have the counter."""
        if not self.as_json:
            console.say(
                f"{self.service.name}: note: {path} lacks {dropped} frames, which came faster than they could be "
                "written; give more --pcapng-buffer or less --pcapng-snaplen",
                err=True,
            )

    def counters(self, counters: dict[str, int]) -> None:
        """All that are not zero, as SIGUSR1 asks for them."""
        seen = {name: value for name, value in counters.items() if value}
        if self.as_json:
            self._line({"event": "counters", "counters": seen})
            return
        for name, value in seen.items():
            console.say(f"{name} {value}")

    def link(self, text: str, **fields: Any) -> None:
        """Something is other than it was about the interface; fields: the same for machines."""
        if self.as_json:
            self._line({"event": "interface", **fields, "text": text})
        else:
            console.say(f"{self.service.name}: note: {text}", err=True)

    def hangup(self) -> None:
        """SIGHUP: a terminal has gone, or somebody expects a new image to be read."""
        if self.as_json:
            self._line({"event": "hangup"})
        else:
            console.say(
                f"{self.service.name}: note: SIGHUP changes nothing; start {self.service.name} again to serve a new "
                "image",
                err=True,
            )

    def stopped(self, counters: dict[str, int]) -> None:
        """All has been undone."""
        seen = {name: value for name, value in counters.items() if value}
        if self.as_json:
            self._line({"event": "stopped", "counters": seen})
        else:
            console.say(
                f"stopped: {self.service.requests(counters)} requests on {counters['tcp_opened']} connections, "
                f"{counters['port_tx_bytes']} bytes sent"
            )

    @staticmethod
    def _line(event: dict[str, Any]) -> None:
        console.write(json.dumps(event) + "\n")


def serve(
    service: Service,
    options: Options,
    limits: Limits,
    as_json: bool,
    at_end: Callable[[Server], None] = lambda _: None,
) -> None:
    """Opens ports, serves until told to stop, and closes everything. Raises SsrunError.

    at_end: what to do when the workers have ended, before their memory is gone.
    """
    with ExitStack() as stack:
        run = Run(service, options, limits, Output(service, as_json), at_end)
        stack.callback(run.events.close)
        for number in (signal.SIGTERM, signal.SIGINT):
            _on_signal(number, run.stop)
        _on_signal(signal.SIGHUP, run.stop if service.ends_on_hangup else partial(run.events.put, run.output.hangup))
        _on_signal(signal.SIGUSR1, partial(run.events.put, lambda: run.output.counters(run.counters())))
        try:
            run.to_the_end()
        finally:
            if run.served:
                run.output.stopped(run.counters())


class Run:
    """From start to end; where the interface is waited for, several times that something is served."""

    def __init__(
        self,
        service: Service,
        options: Options,
        limits: Limits,
        output: Output,
        at_end: Callable[[Server], None],
    ) -> None:
        """Nothing is opened yet."""
        self.service = service
        self.options = options
        self.limits = limits
        self.output = output
        self.at_end = at_end
        self.events = Events()
        self.server: Server | None = None
        self.served = False
        self.totals: dict[str, int] = {}  # of the times before

    def counters(self) -> dict[str, int]:
        """Of all times."""
        return _sum(self.totals, self.server.counters() if self.server is not None else {})

    def stop(self) -> None:
        """From a signal handler."""
        self.service.asked_to_stop = True
        self.events.put(STOP)

    def to_the_end(self) -> None:
        """Returns when told to stop, or when a capture has been replayed. Raises SsrunError."""
        if not self.options.wait_for_interface:
            self._once()
            return
        versions = set() if self.options.addresses else families(self.service.frames)
        while (interface := self._wait(versions)) is not None:
            try:
                self._once()
            except (SsrunError, OSError):
                if not has_gone(interface, versions):  # perhaps while ports were opened on it
                    raise
                self.output.link(
                    f"{self.options.iface}: the interface is gone", interface=self.options.iface, change="gone"
                )
            else:
                return

    def _wait(self, versions: set[int]) -> Interface | None:
        """None: we have been told to stop."""
        name = self.options.iface
        told = False

        def stopped(timeout_s: float) -> bool:
            nonlocal told
            if not told:
                what = f"waiting for {name}, up" + (" and with an address" if versions else "")
                self.output.link(what, interface=name, change="waiting")
            told = True
            event = self.events.wait(timeout_s)
            if callable(event):
                event()
            return event is STOP

        return wait_for(name, versions, stopped)

    def _once(self) -> None:
        with ExitStack() as stack:
            opened = Opener(self.options, self.service.frames, stack).open()
            capture = _capture(self.options.capture, opened, self.output, stack)
            image = self.service.frames.image
            server = Server(self.service.app, image, opened, self.options.port, self.limits, self.events, stack)
            stack.callback(server.stop)
            if opened.reservation is not None:
                opened.reservation.reset_this_host(self.events)
            check = self._follow(opened, server, stack)
            self.server = server
            server.start()
            try:
                if server.claim_addresses():
                    self.output.serving(opened, server, self.options.port)
                    server.serve_until_stopped(
                        lambda conflict: self.output.conflict(conflict, opened.interface), check
                    )
            finally:
                server.stop()
                self.served = True
                self.at_end(server)
                self.totals = _sum(self.counters(), _captured(capture, self.output))
                self.server = None

    def _follow(self, opened: Opened, server: Server, stack: ExitStack) -> Callable[[], None]:
        """Has what changes of the interface followed; what to do once a second."""
        if opened.link is None:
            return self.service.check
        frames = self.service.frames
        tell = partial(self._tell, opened)
        follower = Follower(opened.link, opened, server, families(frames), int(frames.header.mtu_bytes), tell)
        stack.callback(follower.close)
        self.events.watch(follower.doorbell, follower.rung)
        stack.callback(self.events.forget, follower.doorbell)
        self.events.put(follower.look)  # it may have changed since it was opened

        def check() -> None:
            self.service.check()
            follower.tick()

        return check

    def _tell(self, opened: Opened, text: str, **fields: Any) -> None:
        self.output.link(text, interface=opened.interface, **fields)


def _sum(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in one | other}


def _on_signal(number: int, do: Callable[[], None]) -> None:
    """To the end: after we have served too there are files to be written, and no handler kills us meanwhile."""
    signal.signal(number, lambda *_: do())


def _capture(options: CaptureOptions | None, opened: Opened, output: Output, stack: ExitStack) -> Capture | None:
    """Puts a capture around all ports, if one is asked for; it is closed with the stack."""
    if options is None:
        return None
    capture = Capture(options)
    stack.callback(capture.close)
    opened.ports = capture.wrap(opened.ports, opened.interface, opened.backend)
    opened.details["pcapng"] = str(options.path)
    capture.start(lambda reason: output.capture_failed(options.path, reason))
    return capture


def _captured(capture: Capture | None, output: Output) -> dict[str, int]:
    """Its counters when all is written."""
    if capture is None:
        return {}
    capture.finish()
    counters = capture.counters()
    if counters["capture_dropped"] > 0:
        output.capture_incomplete(capture.options.path, counters["capture_dropped"])
    return counters


class Interrupted(BaseException):
    """We are to end, and nothing is served yet."""


def _interrupt(*_: Any) -> None:
    raise Interrupted


def exit_on_error(name: str, run: Callable[[], None]) -> None:
    """Whatever an operator can do something about is one line, and status 1. Being told to end is no error."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    for number in (signal.SIGHUP, signal.SIGUSR1):  # of them there is something to say once we serve
        signal.signal(number, signal.SIG_IGN)
    try:
        run()
    except Interrupted:
        return
    except (SsrunError, ImageError) as error:
        console.say(f"{name}: {error}", err=True)
        sys.exit(1)
    except (OSError, MemoryError) as error:
        console.say(f"{name}: {error or 'out of memory'}", err=True)
        sys.exit(1)
