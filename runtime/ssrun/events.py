"""What other threads, signal handlers and descriptors have for the main thread."""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import time
from collections import deque
from collections.abc import Callable
from typing import Any


class Events:
    """A queue that waits for descriptors too. `put` may be called anywhere; all else is the main thread's."""

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self._closed = False
        self._items: deque[Any] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []  # a heap
        self._numbers = itertools.count()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_fd, selectors.EVENT_READ, self._woken)

    def put(self, item: Any) -> None:
        """Something for `wait` to return."""
        self._items.append(item)
        if not self._closed:
            os.eventfd_write(self._wake_fd, 1)

    def _woken(self) -> None:
        os.eventfd_read(self._wake_fd)

    def watch(self, source: Any, ready: Callable[[], None], *, writable: bool = False) -> None:
        """source: a descriptor, or what has one; ready is called by `wait` when it can be read, or written to."""
        self._selector.register(source, selectors.EVENT_WRITE if writable else selectors.EVENT_READ, ready)

    def forget(self, source: Any) -> None:
        """Watches a source no more; to be called before it is closed."""
        self._selector.unregister(source)

    def later(self, delay_s: float, do: Callable[[], None]) -> None:
        """Has `wait` call something when the time has passed."""
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._numbers), do))

    def _run_timers(self) -> None:
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()

    def wait(self, timeout_s: float | None) -> Any:
        """The next item; None after the time, or when a descriptor or a timer has been served."""
        self._run_timers()
        if not self._items:
            if self._timers:
                until_s = max(0.0, self._timers[0][0] - time.monotonic())
                timeout_s = until_s if timeout_s is None else min(timeout_s, until_s)
            for key, _ in self._selector.select(timeout_s):
                if self._selector.get_map().get(key.fd) is key:  # it may have been forgotten since
                    key.data()
        return self._items.popleft() if self._items else None

    def close(self) -> None:
        """Nothing comes out any more; what is put is lost."""
        self._closed = True
        self._selector.close()
        os.close(self._wake_fd)
