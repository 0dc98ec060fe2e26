"""Runs workers over open ports until told to stop."""

from __future__ import annotations

import errno
import os
import queue
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ._sandstorm import ffi, lib
from .errors import SsrunError
from .loader import ImageFile
from .ports import Opened

SECRET_BYTES = 16
CONGESTION = {"cubic": lib.CONGESTION_CUBIC, "newreno": lib.CONGESTION_NEWRENO}


@dataclass
class Limits:
    """Of each worker."""

    max_connections: int = 65536
    keep_alive_s: float = 65.0
    request_s: float = 20.0
    busy_poll: bool = False
    congestion: str = "cubic"
    pacing: bool = False


def counter_names() -> list[str]:
    """Names of all counters, in their order."""
    return [ffi.string(lib.stack_counter_name(index)).decode() for index in range(lib.stack_counter_count())]


class Server:
    """Workers, a thread each."""

    def __init__(self, image: ImageFile, opened: Opened, port: int, limits: Limits, stack: ExitStack) -> None:
        """Lays out all memory; nothing is allocated later."""
        self.opened = opened
        self.workers: list[Any] = []
        self.threads: list[threading.Thread] = []
        self.ended: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        config = self._config(opened, port, limits)
        for nmio_port in opened.ports:
            worker = lib.worker_create(config, image.image, nmio_port, limits.busy_poll)
            if worker == ffi.NULL:
                raise SsrunError("a worker's memory can't be had; lower --max-connections")
            stack.callback(lib.worker_destroy, worker)
            self.workers.append(worker)

    @staticmethod
    def _config(opened: Opened, port: int, limits: Limits) -> Any:
        config = ffi.new(
            "struct stack_config *",
            {
                "mac": opened.mac,
                "tcp_port": port,
                "own_address": opened.own_address,
                "address_count": len(opened.addresses),
                "mtu_bytes": opened.mtu_bytes,
                "gather_max": opened.gather_max,
                "max_connections": limits.max_connections,
                "max_half_requests": max(1, limits.max_connections // 16),
                "keep_alive_ms": int(limits.keep_alive_s * 1000),
                "request_ms": int(limits.request_s * 1000),
                "congestion": CONGESTION[limits.congestion],
                "pacing": limits.pacing,
                "secret": os.urandom(SECRET_BYTES),
            },
        )
        for entry, address in zip(config.addresses, opened.addresses, strict=False):
            entry.family = lib.SSI_FAMILY_IPV4 if address.version == 4 else lib.SSI_FAMILY_IPV6
            entry.prefix_bits = address.network.prefixlen
            ffi.memmove(entry.bytes, address.ip.packed, len(address.ip.packed))
        return config

    @property
    def memory_bytes(self) -> int:
        """Of all workers' stacks."""
        return sum(lib.worker_memory_bytes(worker) for worker in self.workers)

    def start(self) -> None:
        """Starts a thread for each worker."""
        for worker in self.workers:
            thread = threading.Thread(target=self._run, args=(worker,))
            thread.start()
            self.threads.append(thread)

    def _run(self, worker: Any) -> None:
        self.ended.put(lib.worker_run(worker))

    def request_stop(self) -> None:
        """Asks serve_until_stopped to return; from a signal handler."""
        self.ended.put(None)

    def serve_until_stopped(self) -> None:
        """Returns after request_stop, or when a capture has been replayed. Raises SsrunError if a worker fails."""
        reason = self.ended.get()
        if reason is None or (reason == -errno.ENODATA and self.opened.backend == "pcap"):
            return
        raise SsrunError(
            f"{self.opened.interface}: {os.strerror(-reason)}; the interface went away or down? Start ssrun again"
        )

    def stop(self) -> None:
        """Ends all workers and waits for them."""
        for worker in self.workers:
            lib.worker_stop(worker)
        for thread in self.threads:
            thread.join()
        self.threads.clear()

    def counters(self) -> dict[str, int]:
        """Sums over all workers, and of their ports."""
        totals = dict.fromkeys(counter_names(), 0)
        for worker in self.workers:
            stack = lib.worker_stack(worker)
            for index, name in enumerate(totals):
                totals[name] += lib.stack_counter(stack, index)
        for port in self.opened.ports:
            for name in ("rx_frames", "rx_bytes", "tx_frames", "tx_bytes", "tx_dropped"):
                totals[f"port_{name}"] = totals.get(f"port_{name}", 0) + getattr(port, name)
        return totals
