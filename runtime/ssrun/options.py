"""The options that all commands that serve have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from ssimage._sandstorm import lib
from ssimage.parameters import Size

from .addresses import PASSED, Endpoint, Interface4or6, parse_address, parse_endpoint, why_no_host
from .log_formats import FORMATS, PatternError, compile_format
from .log_sinks import sink
from .names import check_name
from .settings import (
    BACKENDS,
    CONGESTION,
    NETMAP,
    PCAP,
    RING_BYTES,
    SNAP_BYTES,
    TAP,
    AccessLogOptions,
    CaptureOptions,
    Limits,
    Options,
)

Command = TypeVar("Command", bound=Callable[..., Any])


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


class Listen(click.ParamType[Endpoint]):
    """ADDR:PORT of this host."""

    name = "ADDR:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Endpoint:
        """Where to listen."""
        if value == PASSED:
            return Endpoint(PASSED, 0)
        try:
            return parse_endpoint(str(value))
        except ValueError:
            self.fail(
                f"{value!r} is no address and port; write 127.0.0.1:8080, [::1]:8080, localhost:8080, or :8080 for "
                "all addresses of this host; systemd for sockets that it passes",
                param,
                ctx,
            )


class Seconds(click.FloatRange):
    """A time."""

    name = "SECONDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """A number of seconds."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):  # which is in every range
            self.fail(f"{value!r} is no time; write a number of seconds, as 20 or 0.5", param, ctx)
        return number


class Name(click.ParamType[str]):
    """What one that serves is called."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """A name."""
        why = check_name(str(value))
        if why is not None:
            self.fail(f"{value!r} is no name: {why}", param, ctx)
        return str(value)


class LogTarget(click.ParamType[str]):
    """Where the access log goes."""

    name = "PATH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As log_sinks has it."""
        target = str(value)
        try:
            sink(target)
        except ValueError:
            self.fail(
                f"{target!r} is no syslog; write syslog (this host's), syslog:/PATH of a socket, or syslog:ADDR:PORT",
                param,
                ctx,
            )
        if target == "":
            self.fail("it is empty; write a path, -, journald or syslog", param, ctx)
        return target

    def beside(self, value: str, folder: Path) -> str:
        """A file's path that begins where a configuration is."""
        is_file = value not in ("", "-", "journald") and value.partition(":")[0] != "syslog"
        return str(folder / value) if is_file else value


class MetricsPlace(click.ParamType[str]):
    """Where metrics are to be had."""

    name = "ADDR:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """ADDR:PORT, or unix:PATH."""
        text = str(value)
        try:
            if not text.startswith("unix:"):
                parse_endpoint(text)
        except ValueError:
            self.fail(
                f"{text!r} is no place for metrics; write 127.0.0.1:9100 or unix:/run/ssrun.metrics", param, ctx
            )
        if text == "unix:":
            self.fail("it has no path; write unix:/run/ssrun.metrics", param, ctx)
        return text

    def beside(self, value: str, folder: Path) -> str:
        """A socket's path that begins where a configuration is."""
        path = value.removeprefix("unix:")
        return f"unix:{folder / path}" if path != value and path else value


class LogFormat(click.ParamType[str]):
    """A format's name, or a pattern."""

    name = "FORMAT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """A pattern."""
        text = str(value)
        if text not in FORMATS and "$" not in text:
            self.fail(
                f"{text!r} is no format; write one of {', '.join(FORMATS)}, or a pattern with nginx's variables, as "
                "'$remote_addr $status'",
                param,
                ctx,
            )
        pattern = FORMATS.get(text, text)
        try:
            compile_format(pattern)
        except PatternError as error:
            self.fail(f"{text!r}: {error}", param, ctx)
        return pattern


def log_options() -> Callable[[Command], Command]:
    """Gives a command those of what is to be known of HTTP answers."""
    return _decorated(
        [
            click.option(
                "--access-log",
                type=LogTarget(),
                metavar="PATH",
                help="A line for each answer: into a file, or - (standard output), journald, syslog, "
                "syslog:ADDR:PORT. SIGUSR2 opens it anew.",
            ),
            click.option(
                "--access-log-format",
                type=LogFormat(),
                metavar="FORMAT",
                help="common, combined (unless given), json, caddy, or a pattern with nginx's variables.",
            ),
            click.option(
                "--access-log-sample",
                type=click.IntRange(1, 1_000_000),
                metavar="N",
                help="One answer of N; all that are errors or did not arrive.",
            ),
            click.option(
                "--metrics",
                type=MetricsPlace(),
                metavar="ADDR:PORT",
                help="For Prometheus: /metrics, /healthz and /readyz there, or at unix:PATH.",
            ),
        ]
    )


def serving_options(port: int, keep_alive_s: float) -> Callable[[Command], Command]:
    """Gives a command the options that all have; `settings` takes their values, but for as_json.

    port, keep_alive_s: what the application's clients are used to.
    """
    limits = _limit_options(keep_alive_s)
    return _decorated(
        [*_reaching_options(port), *limits, *_sending_options(), *_capture_options(), *_running_options()]
    )


def _reaching_options(port: int) -> list[Callable[[Command], Command]]:
    return [
        click.option(
            "--iface",
            metavar="NAME",
            help="An interface, tap:NAME (made, and gone on exit), netmap:PORT (VALE or pipe) or pcap:IN:OUT.",
        ),
        click.option(
            "--listen",
            type=Listen(),
            multiple=True,
            help="Serve through the kernel's TCP instead, without privilege (repeatable); :PORT is all addresses, "
            "systemd the sockets that it passes.",
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
        click.option(
            "--workers",
            type=click.IntRange(1, 64),
            help="Threads; one a queue unless given; with --listen, a core.",
        ),
        click.option(
            "--superframe",
            type=click.IntRange(1, 44),
            default=44,
            show_default=True,
            help="Segments behind one header, on virtual interfaces; 1: frame by frame.",
        ),
    ]


def _limit_options(keep_alive_s: float) -> list[Callable[[Command], Command]]:
    seconds = Seconds(0.1, 86400)
    return [
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
        click.option(
            "--drain-timeout",
            type=Seconds(0, 86400),
            default=8.0,
            show_default=True,
            metavar="SECONDS",
            help="When told to stop, answers that have been begun may take so long to end; 0: none.",
        ),
    ]


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
        click.option(
            "--name", type=Name(), help="What `ssrun list` and the like call it; unless given by what it serves on."
        ),
        click.option("--no-address-check", is_flag=True, help="Don't ask the link whether an --address is taken."),
        click.option(
            "--wait-for-interface",
            is_flag=True,
            help="Wait for it, up and with an address, at the start and whenever it has gone.",
        ),
        click.option(
            "--wake",
            type=click.Choice(("balanced", "latency", "power")),
            help="Prefer a short wait for each client, or little CPU at light load; balanced unless given.",
        ),
        click.option(
            "--user",
            metavar="NAME",
            help="Whose the process is that serves, when root starts it; nobody unless given.",
        ),
        click.option("--busy-poll", is_flag=True, help="Spin instead of sleeping, always."),
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


# What there is of the kernel's TCP is the kernel's to decide.
NOT_WITH_LISTEN = {
    "addresses": "--address",
    "host_addresses": "--host-address",
    "port": "--port",
    "backend": "--backend",
    "superframe": "--superframe",
    "congestion": "--congestion",
    "pacing": "--pacing",
    "arena": "--arena",
    "resident": "--resident",
    "tx": "--tx",
    "pcapng": "--pcapng",
    "pcapng_snaplen": "--pcapng-snaplen",
    "pcapng_buffer": "--pcapng-buffer",
    "no_address_check": "--no-address-check",
    "wait_for_interface": "--wait-for-interface",
    "wake": "--wake",
    "user": "--user",
    "busy_poll": "--busy-poll",
}


def _reached(values: dict[str, Any]) -> None:
    """Raises click.UsageError unless it is said, once, where to serve."""
    if values["iface"] is None and not values["listen"]:
        raise click.UsageError(
            "say where to serve: --iface NAME for an interface, or --listen ADDR:PORT for the kernel's TCP, which "
            "takes no privilege"
        )
    if not values["listen"]:
        return
    if values["iface"] is not None:
        raise click.UsageError("--iface and --listen are two ways to serve: leave one out")
    context = click.get_current_context()
    for name, option in NOT_WITH_LISTEN.items():
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"{option} is for --iface; with --listen the kernel's TCP does that: leave it out")


def _make_sense(values: dict[str, Any]) -> None:
    """Raises click.UsageError where they do not go together."""
    _reached(values)
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
    if values["busy_poll"] and values["wake"] is not None:
        raise click.UsageError("--busy-poll never sleeps, so --wake has nothing to choose: leave one out")
    if values["wait_for_interface"]:
        _can_wait(values)


def _access_log(values: dict[str, Any]) -> AccessLogOptions | None:
    """Raises click.UsageError."""
    target = values.get("access_log")
    if target is None:
        for name in ("access_log_format", "access_log_sample"):
            if values.get(name) is not None:
                option = "--" + name.replace("_", "-")
                raise click.UsageError(f"{option} is for an access log; give --access-log PATH too")
        return None
    return AccessLogOptions(
        target, values["access_log_format"] or FORMATS["combined"], values["access_log_sample"] or 1
    )


def settings(values: dict[str, Any]) -> tuple[Options, Limits]:
    """The values of serving_options. Raises click.UsageError."""
    _make_sense(values)
    copied = values["tx"] == "memcpy"
    capture = None
    if values["pcapng"] is not None:
        capture = CaptureOptions(values["pcapng"], values["pcapng_snaplen"], values["pcapng_buffer"])
    options = Options(
        values["iface"] or "",
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
        listen=list(values["listen"]),
        access_log=_access_log(values),
        metrics=values.get("metrics"),
        name=values["name"],
    )
    limits = Limits(
        values["max_connections"],
        values["keep_alive"],
        values["request_timeout"],
        values["send_timeout"],
        values["drain_timeout"],
        "busy" if values["busy_poll"] else values["wake"] or "balanced",
        values["congestion"],
        values["pacing"],
        copied,
        values["user"],
    )
    return options, limits
