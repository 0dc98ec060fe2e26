"""The command `ssrun`."""

from __future__ import annotations

import json
import re
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from . import profile
from ._sandstorm import lib
from .errors import SsrunError
from .loader import ImageError, ImageFile
from .network import Interface4or6
from .ports import BACKENDS, Opened, Opener, Options, parse_address
from .server import CONGESTION, WEB, Conflict, Limits, Server


class Address(click.ParamType[Interface4or6]):
    """ADDR or ADDR/LEN."""

    name = "ADDR/LEN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Interface4or6:
        """An ipaddress interface."""
        try:
            return parse_address(str(value))
        except ValueError:
            self.fail(f"{value!r} is no IPv4 or IPv6 address; write 192.0.2.10/24 or 2001:db8::10/64", param, ctx)


class Size(click.ParamType[int]):
    """Bytes, with K, M or G behind: powers of ten."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """A number of bytes."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)B?", str(value).upper())
        if match is None:
            self.fail(f"{value!r} is no size; write 512M or 2G", param, ctx)
        return int(float(match[1]) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}[match[2]])


def _urls(opened: Opened, port: int) -> list[str]:
    suffix = "" if port == 80 else f":{port}"
    hosts = []
    for address in opened.addresses:
        if address.version == 6 and address.ip.is_link_local:
            continue
        hosts.append(str(address.ip) if address.version == 4 else f"[{address.ip}]")
    return [f"http://{host}{suffix}/" for host in hosts]


class Output:
    """Lines for people, or for machines."""

    def __init__(self, as_json: bool) -> None:
        """as_json: an object a line."""
        self.as_json = as_json

    def serving(self, image: ImageFile, opened: Opened, server: Server, port: int) -> None:
        """We are ready to answer."""
        header = image.header
        mode = "own-address" if opened.own_address else "shared"
        event = {
            "event": "serving",
            "urls": _urls(opened, port),
            "backend": opened.backend,
            "interface": opened.interface,
            "mode": mode,
            "addresses": [str(address) for address in opened.addresses],
            "port": port,
            "workers": len(opened.ports),
            "superframe": opened.gather_max,
            "mtu_bytes": opened.mtu_bytes,
            "memory_bytes": server.memory_bytes,
            "image": {
                "path": str(image.path),
                "build_id": image.build_id.hex(),
                "routes": header.route_count,
                "frames": header.frame_count,
                "slots": header.slot_count,
                "bytes": header.slot_count * header.slot_bytes,
            },
            "notes": opened.notes,
            **opened.details,
        }
        if self.as_json:
            self._line(event)
            return
        how = ", ".join(f"{key} {value}" for key, value in opened.details.items() if key != "host_addresses")
        click.echo(f"{image.path}: {header.route_count} routes in {header.frame_count} frames")
        click.echo(f"{opened.interface}: {opened.backend}{f' ({how})' if how else ''}, {mode} mode")
        for note in opened.notes:
            click.echo(f"note: {note}")
        for url in _urls(opened, port):
            click.echo(f"serving {url}")
        sys.stdout.flush()

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
            click.echo(
                f"ssrun: note: {conflict.address.ip} is also used by {conflict.mac} on {interface}; "
                "clients may reach either of us",
                err=True,
            )

    def stopped(self, counters: dict[str, int]) -> None:
        """All has been undone."""
        seen = {name: value for name, value in counters.items() if value}
        if self.as_json:
            self._line({"event": "stopped", "counters": seen})
        else:
            click.echo(
                f"stopped: {counters['http_requests']} requests on {counters['tcp_opened']} connections, "
                f"{counters['port_tx_bytes']} bytes sent"
            )

    @staticmethod
    def _line(event: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()


def run(
    image_path: Path,
    options: Options,
    limits: Limits,
    output: Output,
    verify_content: bool,
    profile_path: Path | None,
) -> None:
    """Opens everything, serves, and closes everything. Raises SsrunError or ImageError."""
    if profile_path is not None and not profile_path.absolute().parent.is_dir():
        raise SsrunError(f"{profile_path}: no such folder; the profile is to be written there")
    with ExitStack() as stack:
        image = stack.enter_context(ImageFile(image_path, verify_content=verify_content))
        opened = Opener(options, image, stack).open()
        server = Server(WEB, image.image, opened, options.port, limits, stack)
        stack.callback(server.stop)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.request_stop())
        server.start()
        try:
            if server.claim_addresses():
                output.serving(image, opened, server, options.port)
                server.serve_until_stopped(lambda conflict: output.conflict(conflict, opened.interface))
        finally:
            server.stop()
            if profile_path is not None:
                profile.write(profile_path, profile.document(image, server.stacks))
            output.stopped(server.counters())


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--iface",
    required=True,
    metavar="NAME",
    help="An interface, tap:NAME (made, and gone on exit), netmap:PORT (VALE or pipe) or pcap:IN:OUT.",
)
@click.option("--address", "addresses", type=Address(), multiple=True, help="Be this host on the link (repeatable).")
@click.option("--host-address", "host_addresses", type=Address(), multiple=True, help="The kernel's side of a TAP.")
@click.option("--port", type=click.IntRange(1, 65535), default=80, show_default=True, help="TCP port to serve.")
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="How to reach the interface.",
)
@click.option("--workers", type=click.IntRange(1, 64), help="Threads; one a queue unless given.")
@click.option(
    "--superframe",
    type=click.IntRange(1, 44),
    default=44,
    show_default=True,
    help="Segments behind one header, on virtual interfaces; 1: frame by frame.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(1, 1 << 24),
    default=65536,
    show_default=True,
    help="Of each worker.",
)
@click.option(
    "--keep-alive",
    type=click.FloatRange(0.1, 86400),
    default=65.0,
    show_default=True,
    metavar="SECONDS",
    help="An idle connection is closed after this.",
)
@click.option(
    "--request-timeout",
    type=click.FloatRange(0.1, 86400),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="A request must be whole after this.",
)
@click.option(
    "--congestion",
    type=click.Choice(tuple(CONGESTION)),
    default="cubic",
    show_default=True,
    help="Congestion control.",
)
@click.option("--pacing", is_flag=True, help="Spread each window over the round trip instead of sending bursts.")
@click.option(
    "--arena",
    type=Size(),
    help="Memory of each worker to send from; less than the image makes it a cache. The whole image unless given.",
)
@click.option(
    "--tx",
    type=click.Choice(("zero-copy", "memcpy")),
    default="zero-copy",
    show_default=True,
    help="Send frames from where they lie, or copy each one, to compare.",
)
@click.option(
    "--profile",
    "profile_path",
    type=click.Path(path_type=Path),
    help="At the end write here what was asked for, for `sscc build --profile`.",
)
@click.option("--no-address-check", is_flag=True, help="Don't ask the link whether an --address is taken.")
@click.option("--verify-checksums", is_flag=True, help="Verify received checksums on veth with AF_XDP too.")
@click.option("--no-verify-content", is_flag=True, help="Don't hash the whole image at start.")
@click.option("--busy-poll", is_flag=True, help="Spin instead of sleeping.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line; the first when ready.")
@click.version_option(package_name="sandstorm")
def main(
    image: Path,
    iface: str,
    addresses: tuple[Interface4or6, ...],
    host_addresses: tuple[Interface4or6, ...],
    port: int,
    backend: str,
    workers: int | None,
    superframe: int,
    max_connections: int,
    keep_alive: float,
    request_timeout: float,
    congestion: str,
    pacing: bool,
    arena: int | None,
    tx: str,
    profile_path: Path | None,
    no_address_check: bool,
    verify_checksums: bool,
    no_verify_content: bool,
    busy_poll: bool,
    as_json: bool,
) -> None:
    """Serves the packet image IMAGE."""
    if len(addresses) > lib.STACK_ADDRESSES_MAX:
        raise click.UsageError(f"at most {lib.STACK_ADDRESSES_MAX} addresses")
    options = Options(
        iface,
        backend,
        list(addresses),
        list(host_addresses),
        port,
        workers,
        1 if tx == "memcpy" else superframe,
        verify_checksums,
        not no_address_check,
        arena,
    )
    limits = Limits(max_connections, keep_alive, request_timeout, busy_poll, congestion, pacing, tx == "memcpy")
    try:
        run(image, options, limits, Output(as_json), not no_verify_content, profile_path)
    except (SsrunError, ImageError) as error:
        click.echo(f"ssrun: {error}", err=True)
        sys.exit(1)
    except (OSError, MemoryError) as error:
        click.echo(f"ssrun: {error or 'out of memory'}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
