"""The access log of a stack or a worker in this process, read as ssrun reads it."""

from __future__ import annotations

from typing import Any

from ssimage._sandstorm import ffi, lib

COMBINED = '$remote_addr - - [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"'


def following(followed_max: int = 64, *, heads: bool = True, read: bool = True) -> dict[str, Any]:
    """What a configuration has for answers to be followed. The caller keeps it."""
    web = ffi.new("struct web_config *", {"followed_max": followed_max, "log_read": read, "log_heads": heads})
    return {"app": ffi.addressof(lib.web_followed_app), "app_data": web}


class Reader:
    """Of one log. wall_us: what the log's clock lacks."""

    def __init__(self, state: Any, pattern: str = COMBINED, *, sample: int = 1, wall_us: int = 0) -> None:
        self.state = state
        self.format = ffi.new("struct access_format *")
        error = lib.access_format_read(self.format, pattern.encode(), ffi.new("uint32_t *"))
        assert error == ffi.NULL, ffi.string(error)
        self.reader = ffi.new("struct access_reader *")
        lib.access_reader_open(self.reader, lib.web_access_log(state))
        self.reader.sample = sample
        self.reader.wall_us = wall_us
        self.out = ffi.new("uint8_t[]", lib.ACCESS_OUT_BYTES_MIN)

    def text(self) -> bytes:
        """All that there is."""
        found = b""
        while count := lib.access_log_read(self.reader, self.format, self.out, len(self.out)):
            found += bytes(ffi.buffer(self.out, count))
        return found

    def lines(self) -> list[str]:
        return self.text().decode().splitlines()
