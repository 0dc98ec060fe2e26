"""What Prometheus and others may ask while something is served: metrics, and whether rounds advance."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from ssimage._sandstorm import ffi, lib

from .listen import SocketServer
from .losses import SOCKET_LOSSES, Losses, losses_of
from .server import Server

PREFIX = "sandstorm_"
STATUS_CLASSES = ("closed", "1xx", "2xx", "3xx", "4xx", "5xx")  # closed: instead of an answer
ANY_HOST, OTHER_SITES, NO_SITE = "*", "(other)", "(none)"  # no host is called so
DROP = re.compile(r"([a-z0-9]+)_drop_(\w+)")
SHOWN_BY_SITE = re.compile(r"http_status_\dxx")
ADVANCE_S, ADVANCE_POLL_S = 1.0, 0.005  # within which each worker must go round
MICROSECONDS = 1e6


class Sites:
    """The names of sites. Workers count them at places of their own, which say by a hash whose they are."""

    def __init__(self) -> None:
        """No image has been taken up yet."""
        self.names: dict[int, str] = {}  # by their hash

    def take_up(self, image: Any) -> None:
        """image: struct image *, our own, which somebody will serve."""
        seen = set()
        for host in image.hosts[0 : image.header.host_count]:
            if host.site in seen:
                continue
            seen.add(host.site)
            name = image.strings + host.name_offset
            text = bytes(ffi.buffer(name, host.name_bytes)).decode("ascii", "backslashreplace")
            self.names[int(lib.web_site_hash(name, host.name_bytes))] = text or ANY_HOST

    def places(self, followed: Any) -> dict[int, str]:
        """Where a worker counts whom. followed: struct web_followed *."""
        found = {int(lib.WEB_SITES_OTHER): OTHER_SITES, int(lib.WEB_SITES_NONE): NO_SITE}
        a_hash = ffi.new("uint64_t *")
        place = 0
        while lib.web_site_at(followed, place, a_hash):
            found[place] = self.names.get(int(a_hash[0]), OTHER_SITES)
            place += 1
        return found


Key = TypeVar("Key")


def _add_to(mine: dict[Key, int], theirs: dict[Key, int]) -> None:
    for key, value in theirs.items():
        mine[key] = mine.get(key, 0) + value


@dataclass
class Numbers:
    """What has been counted."""

    counters: dict[str, int] = field(default_factory=dict)
    answers: dict[tuple[str, str], int] = field(default_factory=dict)  # by site and class
    acked_bytes: dict[str, int] = field(default_factory=dict)  # by site
    latency_counts: list[list[int]] = field(
        default_factory=lambda: [[0] * lib.WEB_LATENCY_BUCKETS for _ in range(lib.WEB_LATENCIES)]
    )
    latency_sums_us: list[int] = field(default_factory=lambda: [0] * lib.WEB_LATENCIES)
    losses: dict[str, int] = field(default_factory=dict)

    def add(self, other: Numbers) -> None:
        """Adds what another time has counted."""
        _add_to(self.counters, other.counters)
        _add_to(self.answers, other.answers)
        _add_to(self.acked_bytes, other.acked_bytes)
        _add_to(self.losses, other.losses)
        for counts, more in zip(self.latency_counts, other.latency_counts, strict=True):
            counts[:] = [one + two for one, two in zip(counts, more, strict=True)]
        self.latency_sums_us = [
            one + two for one, two in zip(self.latency_sums_us, other.latency_sums_us, strict=True)
        ]


@dataclass
class Watched:
    """A server, and where it counts: opened before anybody may write there who is not trusted."""

    server: Server | SocketServer
    followed: list[Any]  # struct web_followed *
    losses: Losses | None

    def numbers(self, sites: Sites) -> Numbers:
        """All of them, now."""
        numbers = Numbers(counters=self.server.counters())
        for followed in self.followed:
            _add_sites(numbers, followed, sites)
            for latency in range(lib.WEB_LATENCIES):
                for bucket in range(lib.WEB_LATENCY_BUCKETS):
                    numbers.latency_counts[latency][bucket] += lib.web_latency_count(followed, latency, bucket)
                numbers.latency_sums_us[latency] += lib.web_latency_sum_us(followed, latency)
        if self.losses is not None:
            numbers.losses = self.losses.sockets()
        return numbers


def _add_sites(numbers: Numbers, followed: Any, sites: Sites) -> None:
    for place, name in sites.places(followed).items():
        for index, status_class in enumerate(STATUS_CLASSES):
            key = (name, status_class)
            numbers.answers[key] = numbers.answers.get(key, 0) + lib.web_site_answers(followed, place, index)
        numbers.acked_bytes[name] = numbers.acked_bytes.get(name, 0) + lib.web_site_bytes(followed, place)


def watched(server: Server | SocketServer) -> Watched:
    """To be called before the server begins."""
    opened = []
    for state in server.app_states:
        followed = ffi.new("struct web_followed *")
        lib.web_followed_open(followed, state)
        opened.append(followed)
    return Watched(server, opened, losses_of(server))


class Metrics(Collector):
    """What there is to be told, through all times that something is served. From any thread."""

    def __init__(self, state: Callable[[], str], log: Callable[[], dict[str, int]]) -> None:
        """state: of the run. log: the access log's counters. No image has been taken up."""
        self.sites = Sites()
        self.state = state
        self.log = log
        self.lock = threading.Lock()  # of the memory that workers count in
        self.watched: Watched | None = None
        self.totals = Numbers()
        self.carried: dict[str, int] = {}  # by a server on its way to another: what is shown is no less meanwhile
        self.image: dict[str, Any] = {}
        self.served_since_s = time.time()

    def attach(self, server: Watched) -> None:
        """A server begins."""
        with self.lock:
            self.watched = server

    def detach(self, *, goes_on: bool = False) -> None:
        """It has ended, and its memory goes. goes_on: another comes for it, which takes its counters over."""
        with self.lock:
            if self.watched is not None:
                numbers = self.watched.numbers(self.sites)
                self.carried = {}
                if goes_on:
                    self.carried, numbers.counters = numbers.counters, {}
                self.totals.add(numbers)
            self.watched = None

    def image_taken_up(self, struct_image: Any, event: dict[str, Any]) -> None:
        """New requests are answered from an image. event: as Service.event has it."""
        with self.lock:
            self.sites.take_up(struct_image)
            self.image = event
            self.served_since_s = time.time()

    def _numbers(self) -> tuple[Numbers, dict[str, int], dict[str, float]]:
        """All that has been counted, the interface's numbers, and what is so now."""
        with self.lock:
            numbers = Numbers()
            numbers.add(self.totals)
            link: dict[str, int] = {}
            now = {"workers": 0.0, "memory_bytes": 0.0}
            if self.watched is not None:
                numbers.add(self.watched.numbers(self.sites))
                link = self.watched.losses.link() if self.watched.losses is not None else {}
                now["workers"] = len(self.watched.server.workers)
                now["memory_bytes"] = self.watched.server.memory_bytes
            for name, value in self.carried.items():
                numbers.counters[name] = max(numbers.counters.get(name, 0), self.totals.counters.get(name, 0) + value)
        numbers.counters |= self.log()
        opened, closed = (numbers.counters.get(f"tcp_{name}", 0) for name in ("opened", "closed"))
        state = self.state()
        now |= {"connections": opened - closed, "ready": state == "serving", "draining": state == "draining"}
        return numbers, link, now

    def collect(self) -> Iterator[Metric]:
        """All, as Prometheus wants them."""
        numbers, link, now = self._numbers()
        yield from _images(self.image, self.served_since_s)
        yield from _gauges(now)
        yield from _by_site(numbers)
        yield from _latencies(numbers)
        yield from _counters(numbers.counters)
        yield from _lost(numbers, link)

    def rounds(self) -> list[int] | None:
        """How often each worker has gone round; None: nothing is served."""
        with self.lock:
            return self.watched.server.rounds() if self.watched is not None else None

    def is_alive(self) -> bool:
        """Each worker goes round, now that it is woken."""
        before = self.rounds()
        end_s = time.monotonic() + ADVANCE_S
        while before is not None and time.monotonic() < end_s:
            time.sleep(ADVANCE_POLL_S)
            now = self.rounds()
            if now is None or len(now) != len(before):
                return False
            if all(after > at_first for after, at_first in zip(now, before, strict=True)):
                return True
        return False


GAUGES = {
    "workers": "Threads that serve.",
    "memory_bytes": "Memory laid out for all workers.",
    "connections": "TCP connections open now.",
    "ready": "1: new connections are answered.",
    "draining": "1: asked to drain: no new connections are accepted.",
}
LATENCIES = {
    lib.WEB_LATENCY_FIRST_BYTE: (
        "http_first_byte_seconds",
        "Time from when a request was whole until the first byte of its answer was sent.",
    ),
    lib.WEB_LATENCY_LAST_ACK: (
        "http_response_seconds",
        "Time from when a request was whole until the last byte of its answer was acknowledged; with --listen, was "
        "taken by the kernel.",
    ),
}


def _images(image: dict[str, Any], since_s: float) -> Iterator[Metric]:
    path = str(image.get("path", ""))
    info = InfoMetricFamily(PREFIX + "image", "The image that new requests are answered from.")
    info.add_metric([], {"build_id": str(image.get("build_id", "")), "path": path})
    yield info
    since = GaugeMetricFamily(PREFIX + "image_served_since_timestamp_seconds", "Since when it is served.", since_s)
    yield since
    try:
        made_s = Path(path).stat().st_mtime
    except OSError:  # moved away since
        return
    yield GaugeMetricFamily(PREFIX + "image_file_timestamp_seconds", "When its file was written last.", made_s)


def _gauges(now: dict[str, float]) -> Iterator[Metric]:
    for name, text in GAUGES.items():
        yield GaugeMetricFamily(PREFIX + name, text, float(now[name]))


def _by_site(numbers: Numbers) -> Iterator[Metric]:
    answers = CounterMetricFamily(
        PREFIX + "http_responses", "Answers, by site and hundreds of their status.", labels=["site", "code"]
    )
    for (site, status_class), count in numbers.answers.items():
        if count or status_class not in ("closed", "1xx"):
            answers.add_metric([site, status_class], count)
    yield answers
    acked = CounterMetricFamily(
        PREFIX + "http_response_acked_bytes",
        "Bytes of answers that have arrived, when they have ended.",
        labels=["site"],
    )
    for site, count in numbers.acked_bytes.items():
        acked.add_metric([site], count)
    yield acked


def _latencies(numbers: Numbers) -> Iterator[Metric]:
    for latency, (name, text) in LATENCIES.items():
        total, buckets = 0, []
        for bucket, count in enumerate(numbers.latency_counts[latency]):
            total += count
            buckets.append((repr((2 << bucket) / MICROSECONDS), float(total)))
        buckets[-1] = ("+Inf", float(total))
        sum_s = numbers.latency_sums_us[latency] / MICROSECONDS
        yield HistogramMetricFamily(PREFIX + name, text, buckets=buckets, sum_value=sum_s)


def _counters(counters: dict[str, int]) -> Iterator[Metric]:
    dropped = CounterMetricFamily(
        PREFIX + "dropped", "Frames, packets and segments dropped, by layer and reason.", labels=["layer", "reason"]
    )
    for name, value in sorted(counters.items()):
        drop = DROP.fullmatch(name)
        if drop is not None:
            dropped.add_metric([drop[1], drop[2]], value)
        elif SHOWN_BY_SITE.fullmatch(name) is None:
            yield CounterMetricFamily(PREFIX + name, f"The counter {name} of `ssrun counters`.", value)
    yield dropped


def _lost(numbers: Numbers, link: dict[str, int]) -> Iterator[Metric]:
    lost = CounterMetricFamily(
        PREFIX + "kernel_lost",
        "Frames that the kernel lost between the interface and us, as its sockets count.",
        labels=["why"],
    )
    for why in SOCKET_LOSSES:
        if why in numbers.losses:
            lost.add_metric([why], numbers.losses[why])
    yield lost
    for name, value in link.items():
        yield CounterMetricFamily(f"{PREFIX}link_{name}", f"The interface's {name}, as `ip -s link` shows it.", value)
