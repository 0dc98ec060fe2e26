"""A read-only key-value store as something to serve."""

from __future__ import annotations

import json
import mmap
import os
import re
from pathlib import Path
from typing import Any

from ssimage._sandstorm import ffi, lib
from ssimage.loader import ELF_MAGIC, LZ4_MAGIC, Section

from .errors import SsrunError
from .ports.base import new_apart
from .report import Service
from .server import App

MTU_BYTES = 1500
BAD_IN_KEY = re.compile(rb"[\x00-\x20\x7f]")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    by_name = dict(pairs)
    if len(by_name) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return by_name


def _from_json(path: Path) -> dict[bytes, bytes]:
    contents = path.read_bytes()
    if contents.startswith((ELF_MAGIC, LZ4_MAGIC)):
        raise SsrunError(f"{path}: this is a packet image; serve it with ssrun")
    try:
        items = json.loads(contents, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise SsrunError(f"{path}: no JSON object of texts: {error}") from None
    if not isinstance(items, dict) or not all(isinstance(value, str) for value in items.values()):
        raise SsrunError(f'{path}: no JSON object of texts; write {{"key": "value", ...}}')
    try:
        return {key.encode(): value.encode() for key, value in items.items()}
    except UnicodeEncodeError as error:
        raise SsrunError(f"{path}: {error.object!r} is no text") from None


def _from_folder(path: Path) -> dict[bytes, bytes]:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {os.fsencode(file.relative_to(path)): file.read_bytes() for file in files}


def read(path: Path) -> dict[bytes, bytes]:
    """Keys and values: a JSON object of texts, or a folder's files under their paths. Raises SsrunError."""
    try:
        items = _from_folder(path) if path.is_dir() else _from_json(path)
    except OSError as error:
        raise SsrunError(f"{error.filename or path}: can't be read: {error.strerror}") from None
    for key, value in items.items():
        if not 0 < len(key) <= lib.KV_KEY_BYTES_MAX or BAD_IN_KEY.search(key):
            name = os.fsdecode(key)
            raise SsrunError(f"{path}: {name!r} is no key: 1 to {lib.KV_KEY_BYTES_MAX} bytes, no space")
        if len(value) > lib.KV_VALUE_BYTES_MAX:
            raise SsrunError(f"{path}: the value of {os.fsdecode(key)!r} is longer than {lib.KV_VALUE_BYTES_MAX}")
    return items


class Store:
    """The answers to all keys as prebuilt frames, in a file in memory. To be closed."""

    def __init__(self, items: dict[bytes, bytes], mtu_bytes: int = MTU_BYTES) -> None:
        """Lays everything out. Raises SsrunError if it is too large."""
        plan = ffi.new("struct kv_plan *")
        keep, array = self._items(items)
        if not lib.kv_plan_make(plan, array, len(items), mtu_bytes):
            raise SsrunError("the store is too large: its frames can't be numbered")
        slots_bytes = plan.slot_count * plan.slot_bytes
        self.fd = os.memfd_create("sandstorm-kv")
        os.ftruncate(self.fd, slots_bytes)
        self._map = mmap.mmap(self.fd, slots_bytes)
        self._buffer = ffi.from_buffer("uint8_t[]", self._map, require_writable=True)
        self._memory = new_apart("uint8_t[]", plan.memory_bytes)
        seed = os.urandom(lib.KV_SEED_BYTES)
        self.store = lib.kv_store_make(self._memory, self._buffer, plan, array, len(items), seed)
        assert self.store != ffi.NULL  # no key is twice in a dict
        del keep
        self.image = ffi.addressof(self.store, "image")
        self.slots = Section(0, slots_bytes)

    @staticmethod
    def _items(items: dict[bytes, bytes]) -> tuple[list[Any], Any]:
        """struct kv_item[], and what it points into."""
        keep: list[Any] = []
        array = ffi.new("struct kv_item[]", len(items))
        for place, (key, value) in zip(array, items.items(), strict=True):
            keep += [ffi.from_buffer("uint8_t[]", key), ffi.from_buffer("uint8_t[]", value)]
            place.key, place.value = keep[-2:]
            place.key_bytes, place.value_bytes = len(key), len(value)
        return keep, array

    @property
    def header(self) -> Any:
        """struct ssi_header"""
        return self.store.header

    def close(self) -> None:
        """Frees everything; the C structs must not be used any more."""
        ffi.release(self._buffer)
        self._map.close()
        os.close(self.fd)


class KeyValue(Service):
    """A store over memcached's text protocol."""

    name = "sskv"

    def __init__(self, path: Path, store: Store, keys: int) -> None:
        """The store must stay open."""
        self.path = path
        self.frames = store
        self.app = App(ffi.addressof(lib.kv_app), store.store)
        self.keys = keys

    def url(self, host: str, port: int) -> str:
        return f"tcp://{host}:{port}"

    def headline(self) -> str:
        return f"{self.path}: {self.keys} keys in {self.frames.header.frame_count} frames"

    def event(self) -> dict[str, Any]:
        header = self.frames.header
        return {
            "store": {
                "path": str(self.path),
                "keys": self.keys,
                "frames": header.frame_count,
                "bytes": header.slot_count * header.slot_bytes,
            }
        }

    def requests(self, counters: dict[str, int]) -> int:
        return counters.get("kv_requests", 0)
