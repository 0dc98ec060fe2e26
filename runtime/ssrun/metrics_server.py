"""HTTP for whoever scrapes: /metrics, /healthz and /readyz, at an address or a UNIX socket of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import stat
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from .addresses import Endpoint, parse_endpoint
from .errors import SsrunError
from .metrics import Metrics

UNIX = "unix:"
REQUEST_S = 5.0  # a scraper must have asked and taken its answer after this
AT_ONCE = 16  # who comes beyond is refused
TEXT = "text/plain; charset=utf-8"


class _Handler(BaseHTTPRequestHandler):
    """One request a connection."""

    timeout = REQUEST_S
    metrics: Metrics
    registry: CollectorRegistry

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        answer = {"/metrics": self._metrics, "/healthz": self._healthz, "/readyz": self._readyz}.get(path)
        if answer is None:
            self._answer(404, TEXT, b"there is /metrics, /healthz and /readyz\n")
        else:
            answer()

    do_HEAD = do_GET  # noqa: N815

    def _metrics(self) -> None:
        encode, media_type = choose_encoder(self.headers.get("Accept", ""))
        self._answer(200, media_type, encode(self.registry))

    def _healthz(self) -> None:
        alive = self.metrics.is_alive()
        self._answer(200 if alive else 503, TEXT, b"ok\n" if alive else b"workers do not go round\n")

    def _readyz(self) -> None:
        state = self.metrics.state()
        ready = state == "serving"
        self._answer(200 if ready else 503, TEXT, b"ok\n" if ready else state.encode() + b"\n")

    def _answer(self, status: int, media_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "ssrun"

    def log_message(self, *_: Any) -> None:
        """Says nothing of scrapes."""


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = AT_ONCE

    def __init__(self, sock: socket.socket, handler: type[_Handler]) -> None:
        self.places = threading.BoundedSemaphore(AT_ONCE)
        super().__init__(sock.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = sock

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.release()

    def handle_error(self, *_: Any) -> None:
        """Whoever asked has gone."""


class MetricsServer:
    """All sockets of one --metrics, a thread each."""

    def __init__(self, where: str, metrics: Metrics) -> None:
        """where: ADDR:PORT or unix:PATH. Listens and answers. Raises SsrunError."""
        self.path: str | None = None
        self.urls: list[str] = []
        self.servers: list[_Server] = []
        registry = CollectorRegistry()
        registry.register(_Described(metrics))
        handler = type("Handler", (_Handler,), {"metrics": metrics, "registry": registry})
        for sock in self._sockets(where):
            server = _Server(sock, handler)
            self.servers.append(server)
            threading.Thread(target=server.serve_forever, args=(0.1,), name="metrics", daemon=True).start()

    def close(self) -> None:
        """Answers no more."""
        for server in self.servers:
            server.shutdown()
            server.socket.close()
        if self.path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.path)

    def _sockets(self, where: str) -> list[socket.socket]:
        if where.startswith(UNIX):
            self.path = where.removeprefix(UNIX)
            self.urls = [where]
            return [_unix(self.path)]
        endpoint = parse_endpoint(where)
        sockets: list[socket.socket] = []
        try:
            port = endpoint.port
            for host in endpoint.hosts:
                try:
                    sockets.append(_tcp(host, port))
                except OSError:
                    if not sockets:
                        raise
                    continue  # this host has no IPv6
                port = sockets[-1].getsockname()[1]
                self.urls.append(f"http://{Endpoint(host, port)}/metrics")
        except OSError as error:
            raise SsrunError(
                f"--metrics {where}: can't be listened on: {error.strerror or error}; choose another address or port"
            ) from None
        return sockets


class _Described:
    """The collector without its first collection, which would be made to find names that are there twice."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def collect(self) -> Any:
        return self.metrics.collect()

    @staticmethod
    def describe() -> list[Any]:
        return []


def _tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(AT_ONCE)
    except BaseException:
        sock.close()
        raise
    return sock


def _unix(path: str) -> socket.socket:
    """For this user and its group. Raises SsrunError."""
    try:
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        before = os.umask(0o117)
        try:
            sock.bind(path)
            sock.listen(AT_ONCE)
        except BaseException:
            sock.close()
            raise
        finally:
            os.umask(before)
    except OSError as error:
        why = "somebody listens there" if isinstance(error, FileExistsError) else error.strerror or error
        raise SsrunError(f"--metrics {UNIX}{path}: can't be listened on: {why}; choose another path") from None
    return sock


def _remove_stale(path: str) -> None:
    """Whoever listened there was killed. Raises OSError if somebody does, or if it is no socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(0, "it is there and no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise FileExistsError(path)
