"""What a stack can't be made of is refused, and said."""

from __future__ import annotations

import re
from contextlib import ExitStack
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest
from ssimage._sandstorm import ffi, lib
from ssrun.errors import SsrunError
from ssrun.events import Events
from ssrun.ports.base import Opened
from ssrun.server import WEB, Server
from ssrun.settings import Limits

from tests.host import Host, Image
from tests.model import ModelImage, Page

CSRC = Path(__file__).resolve().parents[2] / "runtime" / "csrc"
# By what an operator reads: struct, member, value.
WRONG = {
    "there is no application": ("stack", "app", ffi.NULL),
    "there is no address to serve": ("eth", "address_count", 0),
    "there are more addresses than 32": ("eth", "address_count", 33),
    "how addresses are come by is not known": ("eth", "acd", 4),
    "the number of connections is not from 1 to 16,777,216": ("tcpip", "max_connections", (1 << 24) + 1),
    "the number of incomplete requests is not from 1 to that of connections": (
        "tcpip",
        "max_incomplete_requests",
        65,
    ),
    "a superframe's number of segments is not one that ports take": ("tcpip", "gather_max", 45),
    "frames are copied and gathered at once": ("tcpip", "tx_memcpy", True),
    "the interface's MTU is not from 576 to 65,535 bytes": ("tcpip", "mtu_bytes", 575),
    "a time limit is 0": ("tcpip", "request_ms", 0),
    "the congestion control is not known": ("tcpip", "congestion", 2),
    "the port's chunks are not as long as the image's slots": ("region", "chunk_bytes", 4096),
    "the port has no buffers": ("region", "buffer_count", 0),
    "the image has no slots": ("image", "slots", ffi.NULL),
    "the port has some of the image's slots, but not all": ("region", "resident_count", 1),
    "the port has fewer slots than the image": ("region", "slot_count", 1),
    "the port has more slots than chunks": ("region", "slot_count", 1 << 20),
    "the port's slots are not among its chunks": ("region", "first_slot", 1 << 20),
}
MORE = [
    ("tcpip", "max_connections", 0, "the number of connections is not"),
    ("tcpip", "max_incomplete_requests", 0, "the number of incomplete requests is not"),
    ("tcpip", "gather_max", 0, "a superframe's number of segments"),
    ("tcpip", "mtu_bytes", 65536, "the interface's MTU is not"),
    ("tcpip", "keep_alive_ms", 0, "a time limit is 0"),
    ("tcpip", "send_ms", 0, "a time limit is 0"),
]


@pytest.mark.parametrize(
    ("where", "member", "value", "text"), [*((*place, text) for text, place in WRONG.items()), *MORE]
)
def test_what_is_out_of_bounds_is_said(where: str, member: str, value: Any, text: str) -> None:
    image = Image(ModelImage({"/": Page(b"hello")}).sections)
    host = Host(image, max_connections=64, gather_max=44)
    config, region = host.stack_config, host.region
    assert lib.stack_config_error(config, image.image, region) == ffi.NULL
    structs = {"stack": config, "eth": config.eth, "tcpip": config.tcpip, "region": region, "image": image.image}
    setattr(structs[where], member, value)
    assert text in ffi.string(lib.stack_config_error(config, image.image, region)).decode()
    assert lib.stack_memory_bytes(config, image.image, region) == 0


def test_an_operator_reads_it() -> None:
    """And not that memory is short, which it is not."""
    image = Image(ModelImage({"/": Page(b"hello")}).sections)
    host = Host(image)
    port = ffi.new("struct nmio_port *", {"region": host.region})
    addresses = [ip_interface("192.0.2.1/24")]
    opened = Opened("memory", "lo", bytes(6), mtu_bytes=300, own_address=True, addresses=addresses, ports=[port])
    with ExitStack() as stack, pytest.raises(SsrunError, match=r"can't serve like this: .* MTU is not from 576"):
        Server(WEB, image.image, opened, 80, Limits(), Events(), stack)


def test_no_bound_is_left_out() -> None:
    source = (CSRC / "stack.c").read_text() + (CSRC / "libtcpip" / "tcpip.c").read_text()
    said = re.findall(r'(?:return|\?|:) "([a-z].*?)"', source)
    assert sorted(said) == sorted(WRONG)
