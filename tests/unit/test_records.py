"""Connections as one build leaves them to another: records, which may be cut short, and may be anybody's."""

from __future__ import annotations

from typing import Any

import pytest
from ssimage._sandstorm import ffi, lib

from tests.host import Client, Host, Image
from tests.unit.test_resume import SMALL, Records, finish, pages, request


@pytest.fixture(scope="module")
def image() -> Image:
    return pages()


@pytest.fixture
def busy(image: Image) -> Host:
    """With all kinds of connections."""
    host = Host(image)
    for number, path in enumerate(["/big", "/small", "/moved?a", "/small"]):
        client = Client(host, port=30000 + number)
        client.connect()
        client.request(request(path), check=False)
        client.request(request("/big")[: 7 * number], check=False)
    return host


def test_records_end_anywhere(busy: Host) -> None:
    """As when the disk that memory is on was full: what is whole goes on, and nothing behind the end is read."""
    whole = Records(busy)
    header_bytes = ffi.sizeof("struct records_header")
    for size in range(0, whole.used_bytes + 8, 8):
        less = Records(busy, size)
        new = Host(busy.image, start_ns=busy.now_ns)
        assert less.go_on(new) == (size >= header_bytes)
        assert new.counters().get("tcp_resumed", 0) <= 4
        cut = ffi.new("uint8_t[]", size)
        ffi.memmove(cut, whole.memory, min(size, whole.used_bytes))
        new = Host(busy.image, start_ns=busy.now_ns)
        assert lib.stack_resume_records(new.stack, cut, size) == (size >= whole.used_bytes)
    assert new.counters()["tcp_resumed"] == 4


def test_records_of_another_version(busy: Host) -> None:
    records = Records(busy)
    header = ffi.cast("struct records_header *", records.memory)
    assert header.version == lib.RECORDS_VERSION
    header.version += 1
    new = Host(busy.image, start_ns=busy.now_ns)
    assert not records.go_on(new)
    assert lib.stack_connections(new.stack) == 0


class Swapped(Host):
    """Its addresses have another order."""

    @staticmethod
    def _config(*args: Any) -> Any:
        config = Host._config(*args)
        size = ffi.sizeof("struct eth_address")
        both = ffi.buffer(config.eth.addresses, 2 * size)
        both[:] = both[size:] + both[:size]
        return config


def test_to_other_places(image: Image) -> None:
    """Addresses may have another order where they go on, or be served no more."""
    host = Host(image)
    clients = [Client(host, port=30000 + i, v6=i % 2 == 1) for i in range(6)]
    for client in clients:
        client.connect()
    records = Records(host)
    new = Swapped(image, start_ns=host.now_ns)
    assert records.go_on(new)
    assert new.counters()["tcp_resumed"] == 6
    for client in clients:
        client.host = new
        client.request(request("/small"), check=False)
        finish(client, SMALL)
    new = Host(image, start_ns=host.now_ns, config={"address_count": 1})
    assert records.go_on(new)
    assert new.counters()["tcp_resumed"] == 3
