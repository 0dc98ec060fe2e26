"""What is said while something is served, to people or to machines."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from ssimage import console
from ssimage.loader import FrameSource

from .addresses import Endpoint
from .listen import Listening, SocketServer
from .ports.base import Opened
from .process import Exit
from .reload import Answer, ImageLoader, Reloaded, Served
from .server import App, Conflict, Server
from .wording import being_finished, not_zero, still_older


class Service(ABC):
    """An application with what it serves."""

    name: str  # of the command
    frames: FrameSource
    app: App
    asked_to_stop = False  # by a signal
    ends_on_hangup = False  # for those that are only ever started in a terminal
    goes_on_in_another_build = False  # its command line, started once more, would find all that it serves

    @abstractmethod
    def url(self, host: str, port: int) -> str:
        """How a client names it."""

    @abstractmethod
    def headline(self) -> str:
        """What is served, for people."""

    @abstractmethod
    def event(self) -> dict[str, Any]:
        """Says what is served, for machines."""

    @abstractmethod
    def requests(self, counters: dict[str, int]) -> int:
        """How many have come."""

    def written_s(self) -> float | None:
        """When the file that is served was written, seconds since 1970; None: nobody knows."""
        return None

    def check(self) -> None:
        """Raises an error if what is served is not what it was at the start."""
        return

    def reloading(self) -> tuple[Served, ImageLoader] | str:
        """What shows an image and how another is opened; or why no other can be served."""
        return f"{self.name} serves what it has begun with; start it again for something else"

    def newer(self) -> tuple[Path, Answer] | None:
        """What it wants to serve instead, and who is to be told what has become of that; None: nothing."""
        return None

    def urls(self, opened: Opened, port: int) -> list[str]:
        """Gives the URLs at all addresses that can be written without naming a link."""
        hosts = []
        for address in opened.addresses:
            if address.version == 6 and address.ip.is_link_local:
                continue
            hosts.append(str(address.ip) if address.version == 4 else f"[{address.ip}]")
        return [self.url(host, port) for host in hosts]


def reload_text(reloaded: Reloaded, headline: str) -> str:
    """What has become of it, for people."""
    if reloaded.error is not None:
        return f"{reloaded.error}; the old one is served on"
    if not reloaded.changed:
        return f"the file is the same as before: {headline}"
    what = f"serving {headline}"
    return f"{what}; {still_older(reloaded.connections)}" if reloaded.connections else what


def reload_answer(reloaded: Reloaded, service: Service) -> dict[str, Any]:
    """The same for machines."""
    answer = {
        "changed": reloaded.changed,
        "connections": reloaded.connections,
        "older_images": reloaded.older,
        **service.event(),
    }
    return answer | ({"reason": reloaded.error} if reloaded.error is not None else {})


class Output:
    """Lines for people, or for machines."""

    def __init__(self, service: Service, as_json: bool) -> None:
        """as_json: an object a line."""
        self.service = service
        self.as_json = as_json
        self.metrics: list[str] = []  # where they are to be had

    def serving(self, opened: Opened, server: Server, port: int) -> None:
        """We are ready to answer."""
        mode = "own-address" if opened.own_address else "shared"
        urls = self.service.urls(opened, port)
        event = {
            "event": "serving",
            "urls": urls,
            "backend": opened.backend,
            "interface": opened.interface,
            "mode": mode,
            "addresses": [str(address) for address in opened.addresses],
            "port": port,
            "workers": len(opened.ports),
            "superframe": opened.gather_max,
            "mtu_bytes": opened.mtu_bytes,
            "memory_bytes": server.memory_bytes,
            **server.described(),
            **self.service.event(),
            **({"metrics": self.metrics} if self.metrics else {}),
            "warnings": opened.warnings,
            **opened.details,
        }
        if self.as_json:
            self._line(event)
            return
        how = ", ".join(f"{key} {value}" for key, value in opened.details.items() if key != "host_addresses")
        console.say(self.service.headline())
        console.say(f"{opened.interface}: {opened.backend}{f' ({how})' if how else ''}, {mode} mode")
        for note in opened.warnings:
            console.say(f"note: {note}")
        self._say_where(urls)

    def _say_where(self, urls: list[str]) -> None:
        for place in self.metrics:
            console.say(f"metrics {place}")
        for url in urls:
            console.say(f"serving {url}")

    def listening_urls(self, listening: Listening) -> list[str]:
        """Gives the URLs at which clients on this host find us."""
        return [self.service.url(f"[{host}]" if ":" in host else host, port) for host, port in listening.hosts]

    def listening(self, listening: Listening, server: SocketServer) -> None:
        """We are ready to answer over sockets."""
        urls = self.listening_urls(listening)
        shown = [str(Endpoint(host, port)) for host, port in listening.addresses]
        event = {
            "event": "serving",
            "urls": urls,
            "backend": "sockets",
            "listen": shown,
            "workers": len(server.workers),
            "max_connections": server.connections,
            "memory_bytes": server.memory_bytes,
            **self.service.event(),
            **({"metrics": self.metrics} if self.metrics else {}),
            "warnings": listening.warnings,
        }
        if self.as_json:
            self._line(event)
            return
        console.say(self.service.headline())
        console.say(f"{', '.join(shown)}: the kernel's TCP, {len(server.workers)} workers")
        for note in listening.warnings:
            console.say(f"note: {note}")
        self._say_where(urls)

    def waiting(self, reason: str, text: str) -> None:
        """New connections have to wait; we go on."""
        if self.as_json:
            self._line({"event": "connections-wait", "reason": reason, "text": text})
        else:
            console.say(f"{self.service.name}: note: {text}", err=True)

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
            console.say(
                f"{self.service.name}: note: {conflict.address.ip} is also used by {conflict.mac} on {interface}; "
                "clients may reach either of us",
                err=True,
            )

    def capture_failed(self, path: Path, reason: str) -> None:
        """The capture is over, but we go on."""
        if self.as_json:
            self._line({"event": "capture-failed", "path": str(path), "reason": reason})
        else:
            console.say(f"{self.service.name}: note: {path}: {reason}; the capture ends here", err=True)

    def capture_incomplete(self, path: Path, dropped: int) -> None:
        """Reports at the end that frames are missing, to people; machines have the counter."""
        if not self.as_json:
            console.say(
                f"{self.service.name}: note: {path} lacks {dropped} frames, which came faster than they could be "
                "written; give more --pcapng-buffer or less --pcapng-snaplen",
                err=True,
            )

    def counters(self, counters: dict[str, int]) -> None:
        """Prints all that are not zero, as SIGUSR1 asks for them."""
        seen = not_zero(counters)
        if self.as_json:
            self._line({"event": "counters", "counters": seen})
            return
        for name, value in seen.items():
            console.say(f"{name} {value}")

    def link(self, text: str, **fields: Any) -> None:
        """Something is other than it was about the interface; fields: the same for machines."""
        if self.as_json:
            self._line({"event": "interface", **fields, "text": text})
        else:
            console.say(f"{self.service.name}: note: {text}", err=True)

    def crashed(self, how: Exit, delay_s: float) -> None:
        """The server process has ended without a word; another one goes on."""
        if self.as_json:
            self._line({"event": "server-crashed", "how": str(how), "again_in_s": delay_s})
        else:
            when = f"in {delay_s:g} s" if delay_s else "at once"
            console.say(
                f"{self.service.name}: note: the server process {how}; another one goes on {when}, with the "
                "connections that are open",
                err=True,
            )

    def access_log(self, text: str, **fields: Any) -> None:
        """Something is with the access log; fields: the same for machines."""
        if self.as_json:
            self._line({"event": "access-log", **fields, "text": text})
        else:
            console.say(f"{self.service.name}: note: {text}", err=True)

    def draining(self, connections: int, limit_s: float) -> None:
        """We have been told to stop, and answers go on."""
        if self.as_json:
            self._line({"event": "draining", "connections": connections, "limit_s": limit_s})
        else:
            how_long = f"for {limit_s:g} s at most; stop again to end at once"
            console.say(f"{self.service.name}: {being_finished(connections)}, {how_long}", err=True)

    def hangup(self, why_not: str) -> None:
        """SIGHUP, and nothing is to be read again."""
        if self.as_json:
            self._line({"event": "hangup", "error": why_not})
        else:
            console.say(f"{self.service.name}: note: SIGHUP changes nothing: {why_not}", err=True)

    def upgrading(self, version: str) -> None:
        """Another build goes on with all that is served."""
        if self.as_json:
            self._line({"event": "upgrading", "version": version})
        else:
            console.say(f"{self.service.name}: note: going over to version {version}", err=True)

    def reloaded(self, reloaded: Reloaded) -> None:
        """Another image was asked for."""
        if not self.as_json:
            what = reload_text(reloaded, self.service.headline())
            console.say(f"{self.service.name}: note: {what}", err=True)
        elif reloaded.error is not None:
            self._line({"event": "reload-refused", **reload_answer(reloaded, self.service)})
        else:
            self._line({"event": "reloaded", **reload_answer(reloaded, self.service)})

    def stopped(self, counters: dict[str, int]) -> None:
        """Reports that all has been undone."""
        seen = not_zero(counters)
        if self.as_json:
            self._line({"event": "stopped", "counters": seen})
        else:
            console.say(
                f"stopped: {self.service.requests(counters)} requests on {counters['tcp_opened']} connections, "
                f"{counters.get('port_tx_bytes', counters.get('sockets_tx_bytes', 0))} bytes sent"
            )

    @staticmethod
    def _line(event: dict[str, Any]) -> None:
        console.write(json.dumps(event) + "\n")
