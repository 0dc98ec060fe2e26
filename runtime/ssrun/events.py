"""What other threads, signal handlers and descriptors have for the main thread."""

from __future__ import annotations

import os
import selectors
from collections import deque
from collections.abc import Callable
from typing import Any


class Events:
    """A queue that waits for descriptors too. `put` may be called anywhere; all else is the main thread's."""

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self._closed = False
        self._items: deque[Any] = deque()
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

    def watch(self, source: Any, ready: Callable[[], None]) -> None:
        """source: a descriptor, or what has one; ready is called by `wait` when it can be read."""
        self._selector.register(source, selectors.EVENT_READ, ready)

    def forget(self, source: Any) -> None:
        """Watches a source no more; to be called before it is closed."""
        self._selector.unregister(source)

    def wait(self, timeout_s: float | None) -> Any:
        """The next item; None after the time, or when a descriptor has been served."""
        if not self._items:
            for key, _ in self._selector.select(timeout_s):
                key.data()
        return self._items.popleft() if self._items else None

    def close(self) -> None:
        """Nothing comes out any more; what is put is lost."""
        self._closed = True
        self._selector.close()
        os.close(self._wake_fd)
