"""A run of what is served, from start to end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssimage import console
from ssimage.lazy import lazy
from ssimage.loader import ImageError, ImageFile

from . import activation, handover
from .access_log import AccessLog, web_config
from .addresses import PASSED, Endpoint, families
from .control import Answer, Control, Handler
from .errors import InterfaceGoneError, SsrunError
from .events import Events
from .link import LINK_COUNTERS, Follower, await_carrier, counter_of, has_gone, wait_for
from .listen import SocketServer, listen, worker_count
from .names import derived_name
from .notify import Watchdog, notify, notify_reloading
from .ports.base import Opened
from .ports.capture import Capture
from .ports.kernel import Interface
from .ports.open import open_ports
from .profile import Measured
from .reload import Reloaded, Reloads
from .report import Output, Service, reload_answer, reload_text
from .server import CHECK_POLL_S, STOP, App, Crashed, Ended, Server, followed
from .settings import TAP, CaptureOptions, Limits, Options
from .tracing import Tracing
from .upgrades import Upgrades
from .wording import not_zero

if TYPE_CHECKING:
    from . import metrics, metrics_server
else:  # Most often nobody asks for them.
    metrics = lazy("ssrun.metrics")
    metrics_server = lazy("ssrun.metrics_server")

DRAIN_POLL_S = 0.02


def serve(
    service: Service,
    options: Options,
    limits: Limits,
    as_json: bool,
    at_end: Callable[[Measured], None] = lambda _: None,
) -> None:
    """Opens ports, serves until told to stop, and closes everything. Raises SsrunError.

    at_end: what to do when the workers have ended, before their memory is gone.
    """
    with ExitStack() as stack:
        run = Run(service, options, limits, Output(service, as_json), at_end)
        stack.callback(run.events.close)
        for number in (signal.SIGTERM, signal.SIGINT):
            _on_signal(number, run.stop)
        _on_signal(signal.SIGHUP, run.stop if service.ends_on_hangup else partial(run.events.put, run.reload))
        _on_signal(signal.SIGUSR1, partial(run.events.put, lambda: run.output.counters(run.counters())))
        _on_signal(signal.SIGUSR2, partial(run.events.put, run.reopen))
        if run.reloads is not None:
            stack.callback(run.reloads.close)
        run.open_control(stack)
        run.open_log(stack)
        run.open_metrics(stack)
        try:
            run.to_the_end()
        finally:
            if run.served:
                run.output.stopped(run.counters())


class Run:
    """One run, from start to end; where the interface is waited for, several times that something is served."""

    def __init__(
        self,
        service: Service,
        options: Options,
        limits: Limits,
        output: Output,
        at_end: Callable[[Measured], None],
    ) -> None:
        """Nothing is opened yet."""
        self.service = service
        self.options = options
        self.limits = limits
        self.output = output
        self.at_end = at_end
        self.events = Events()
        self.server: Server | SocketServer | None = None
        self.served = False
        self.totals: dict[str, int] = {}  # of the times before
        self.link_counters = dict.fromkeys(LINK_COUNTERS, 0)
        self.follower: Follower | None = None
        self.control: Control | None = None
        self.warnings: list[str] = []  # to be told with those of what is opened
        self.state = "starting"  # see shown_state
        self.urls: list[str] = []
        upgrades = options.handover.upgrades if options.handover is not None else 0
        self.upgrades = Upgrades(upgrades, self.events, self._why_no_upgrade, self._handed_image, self._go_over)
        self.is_drained = options.handover is not None and options.handover.is_drained  # as an operator has asked
        self.tracing = Tracing(self.events)
        self.started_s = time.monotonic()
        self.serving_since_s: float | None = None  # by that clock; None: nothing is served yet
        self.image_since_s = self.started_s  # that one is served
        # What runs over TCP follows its answers if somebody wants to know what becomes of them.
        follows = options.access_log is not None or options.metrics is not None
        self.app: App = followed(web_config(limits, options.access_log)) if follows else service.app
        self.log: AccessLog | None = None
        self.metrics: metrics.Metrics | None = None
        reloading = service.reloading()
        self.why_no_reload = reloading if isinstance(reloading, str) else ""
        self.reloads: Reloads | None = None
        if not isinstance(reloading, str):
            self.reloads = Reloads(*reloading, service.name, limits.swap_s, self.events, self._reloaded)

    def counters(self) -> dict[str, int]:
        """Sums the counters of all times that something was served."""
        return self._with_those_before(self._counters_now())

    def _counters_now(self) -> dict[str, int]:
        return self.server.counters() if self.server is not None else {}

    def _with_those_before(self, now: dict[str, int]) -> dict[str, int]:
        return _sum(self.totals, now) | self._own_counters()

    def _own_counters(self) -> dict[str, int]:
        """Counts what no worker does."""
        link = {} if self.options.listen else self.link_counters
        return link | (self.log.counters() if self.log is not None else {})

    @property
    def shown_state(self) -> str:
        """Says what an operator can expect: nobody is answered over an interface that is down."""
        follower = self.follower  # we may be asked by another thread
        is_cut_off = follower is not None and not follower.runs
        return "waiting" if self.state == "serving" and is_cut_off else self.state

    def open_log(self, stack: ExitStack) -> None:
        """Opens the access log, if there is to be one; closed with the stack. Raises SsrunError."""
        if self.options.access_log is None:
            return

        def tell(text: str, **fields: Any) -> None:
            say = partial(self.output.access_log, text, **fields)
            if threading.current_thread() is threading.main_thread():
                say()
            else:
                self.events.put(say)

        self.log = AccessLog(self.options.access_log, tell)
        self.warnings += self.log.warnings
        stack.callback(self.log.close)

    def open_metrics(self, stack: ExitStack) -> None:
        """Has metrics served, if they are to be; closed with the stack. Raises SsrunError."""
        if self.options.metrics is None:
            return
        self.metrics = metrics.Metrics(lambda: self.shown_state, self._own_counters)
        self.metrics.image_taken_up(self.service.frames.image, self.service.event()["image"])
        server = metrics_server.MetricsServer(self.options.metrics, self.metrics)
        stack.callback(server.close)
        self.output.metrics = server.urls

    def reopen(self) -> None:
        """Files that we write and others move away are opened anew."""
        if self.log is not None:
            self.log.reopen()

    @contextmanager
    def _followed(self, server: Server | SocketServer) -> Iterator[None]:
        """What becomes of answers is taken while a server serves; it has not begun yet, and has ended at the end."""
        with ExitStack() as stack:
            if self.log is not None:
                self.log.attach(server.app_states)
                stack.callback(self._detach_log, self.log, server)
            if self.metrics is not None:
                self.metrics.attach(metrics.watched(server))
                stack.callback(self.metrics.detach)
            if isinstance(server, Server):
                server.around_restart = partial(self._followed_anew, server)
            yield

    def _detach_log(self, log: AccessLog, server: Server | SocketServer) -> None:
        log.detach()
        self._tell_what_lacks(server.counters())

    @contextmanager
    def _followed_anew(self, server: Server) -> Iterator[None]:
        """Another process goes on: what was under way in the one before is logged as far as it came."""
        if self.log is not None:
            self.log.detach()
        if self.metrics is not None:
            self.metrics.detach(goes_on=True)
        try:
            yield
        finally:
            if self.metrics is not None:
                self.metrics.attach(metrics.watched(server))
            if self.log is not None:
                self.log.attach(server.app_states)
                self.events.put(self.log.start)  # when the process has been forked: it has none of our threads

    def _tell_what_lacks(self, counters: dict[str, int]) -> None:
        dropped = counters.get("log_dropped", 0)
        if dropped > 0:
            self.output.access_log(
                f"the access log lacks {dropped} answers, which came faster than lines could be written",
                change="dropped",
                answers=dropped,
            )

    def open_control(self, stack: ExitStack) -> None:
        """Lets operators ask; closed with the stack. Raises SsrunError if the name that was chosen is another's."""
        handlers: dict[str, Handler] = {
            "list": self._answer_list,
            "counters": self._answer_counters,
            "stat": self._answer_stat,
            "trace": self.tracing.begin,
            "trace-read": self.tracing.read,
            "trace-end": self.tracing.end,
            "drain": self._answer_drain,
            "reload": self._answer_reload,
            "upgrade": self._answer_upgrade,
        }
        try:
            self.control = Control(self.options.name, _name_of(self.options), self.events, handlers)
        except (SsrunError, OSError) as error:
            if self.options.name is not None:
                raise
            self.warnings = [f"no control socket, so `ssrun list` and the like won't find this one: {error}"]
            return
        stack.callback(self.control.close)

    def _answer_list(self, _: dict[str, Any], answer: Answer) -> None:
        answer(self._described(self._counters_now()))

    def _described(self, counters: dict[str, int]) -> dict[str, Any]:
        return {
            "command": self.service.name,
            "pid": os.getpid(),
            "state": self.shown_state,
            "upgrades": self.upgrades.count,
            "urls": self.urls,
            "where": self.options.iface or " ".join(str(endpoint) for endpoint in self.options.listen),
            "what": self.service.headline(),
            "connections": counters.get("tcp_opened", 0) - counters.get("tcp_closed", 0),
            **self.service.event(),
        }

    def _answer_stat(self, _: dict[str, Any], answer: Answer) -> None:
        """All that `ssrun stat` shows; of two such answers it makes rates."""
        now_s, now = time.monotonic(), self._counters_now()
        counters = self._with_those_before(now)
        process = self.server.process if isinstance(self.server, Server) else None
        written_s = self.service.written_s()
        answer(
            {
                **self._described(now),
                "clock_s": now_s,
                "started_s": self.started_s,
                "serving_since_s": self.serving_since_s,
                "image_since_s": self.image_since_s,
                "image_age_s": time.time() - written_s if written_s is not None else None,
                "server_pid": process.pid if process is not None else None,
                "older_images": self.reloads.older if self.reloads is not None else 0,
                "is_reloading": self.reloads is not None and self.reloads.is_busy,
                "requests": self.service.requests(counters),
                "counters": not_zero(counters),
            }
        )

    def _answer_counters(self, _: dict[str, Any], answer: Answer) -> None:
        answer({"counters": not_zero(self.counters())})

    def _answer_drain(self, _: dict[str, Any], answer: Answer) -> None:
        """Answers when the workers have taken it up."""
        assert self.control is not None
        name = self.control.name
        self.is_drained = True
        self.state = "draining"
        if self.server is not None:
            self.server.drain()
        self._when_drained(lambda connections: answer({"name": name, "connections": connections}))

    def _answer_reload(self, asked: dict[str, Any], answer: Answer) -> None:
        """Answers when it has become of it what it does."""
        assert self.control is not None
        name, path = self.control.name, asked.get("image")
        if not (path is None or (isinstance(path, str) and path.startswith("/") and "\0" not in path)):
            raise SsrunError('"image" must be an absolute path; or leave it out')
        if self.reloads is None:
            raise SsrunError(self.why_no_reload)

        def done(reloaded: Reloaded) -> None:
            if reloaded.error is not None:
                answer({"error": reload_text(reloaded, self.service.headline())})
            else:
                answer({"name": name, **reload_answer(reloaded, self.service)})

        self.reloads.ask(Path(path) if path is not None else None, done)

    def _answer_upgrade(self, _: dict[str, Any], answer: Answer) -> None:
        assert self.control is not None
        self.upgrades.ask(self.control.name, answer)

    def _why_no_upgrade(self) -> str:
        """Why no other build can go on now; empty: one can."""
        server = self.server
        if not isinstance(server, Server) or server.process is None or not self.service.goes_on_in_another_build:
            return "only what serves over TAP, AF_PACKET or AF_XDP goes on in another build; start it again instead"
        if self.reloads is None:
            return self.why_no_reload
        if self.options.capture is not None:
            return "it writes a capture, which another build would begin anew; start it again instead"
        if self.reloads.is_busy:
            return "another image is being taken up; ask again later"
        if self.state not in ("serving", "draining") or server.process.ended is not None:
            return "it is starting or stopping; ask again later"
        return self.follower.why_not_opened_again(self.options.iface) if self.follower is not None else ""

    def _handed_image(self) -> handover.HandedImage:
        image = self.service.frames
        assert isinstance(image, ImageFile)
        return handover.HandedImage(str(image.path), image.fd, list(image.source))

    def _go_over(self, version: str, upgrades: int) -> None:
        """Raises SsrunError or OSError if that can't be; then all ends."""
        server = self.server
        assert isinstance(server, Server)
        left = handover.Handover(self._handed_image(), upgrades=upgrades, is_drained=self.is_drained)
        server.describe(left)
        left.records_fd = handover.records_file(left.each_bytes * left.workers)
        notify_reloading()
        self.output.upgrading(version)
        server.leave(left.records_fd)
        self.at_end(server)
        if self.log is not None:
            self.log.detach()
            self.log.close()
        handover.become(left)

    def _reloaded(self, reloaded: Reloaded) -> None:
        """Another image was asked for, and this has become of it."""
        is_another = reloaded.changed and reloaded.error is None
        if is_another:
            self.image_since_s = time.monotonic()
        if self.metrics is not None and is_another:
            self.metrics.image_taken_up(self.service.frames.image, self.service.event()["image"])
        self.output.reloaded(reloaded)

    def reload(self) -> None:
        """SIGHUP: files that have been moved away are opened again, and what is served is looked at again."""
        self.reopen()
        try:
            if self.reloads is None:
                raise SsrunError(self.why_no_reload)
            self.reloads.ask(None, lambda _: None)
        except SsrunError as error:
            self.output.hangup(str(error))

    def _when_drained(self, do: Callable[[int], None]) -> None:
        left = self.server.unfinished() if self.server is not None else 0
        if left is not None:
            do(left)
        else:
            self.events.later(DRAIN_POLL_S, partial(self._when_drained, do))

    def _begins(self, server: Server | SocketServer, urls: list[str]) -> None:
        """We are ready to answer."""
        if self.log is not None:
            self.log.start()
        self.urls = urls
        self.state = "serving"
        self.tracing.begins(server)
        if self.serving_since_s is None:
            self.serving_since_s = time.monotonic()
        if self.is_drained:  # while we waited for the interface
            self.state = "draining"
            server.drain()
        if self.reloads is not None and server.swapper is not None:
            self.reloads.begins(server.swapper)

    def _starting(self, stack: ExitStack) -> list[tuple[int, int]]:
        """What is served now stays, until the stack is closed or workers serve; where it is in memory."""
        if self.reloads is None:
            return []
        self.reloads.starting()
        stack.callback(self.reloads.ended)
        return self.reloads.mappings()

    def _check(self) -> None:
        self.service.check()
        newer = self.service.newer()
        if newer is not None and self.reloads is not None:
            self.reloads.ask(*newer)
        if self.reloads is not None:
            self.reloads.check()

    def stop(self) -> None:
        """Stops the run; to be called from a signal handler."""
        self.service.asked_to_stop = True
        self.events.put(STOP)

    def to_the_end(self) -> None:
        """Returns when told to stop, or when a capture has been replayed. Raises SsrunError."""
        if self.options.listen:
            self._over_sockets()
            return
        if not self.options.wait_for_interface:
            self._once()
            return
        versions = set() if self.options.addresses else families(self.service.frames)
        while (interface := self._wait(versions)) is not None:
            try:
                self._once()
            except (SsrunError, OSError) as error:
                # There may be one of that name again; or it went while ports were opened on it.
                if not isinstance(error, InterfaceGoneError) and not has_gone(interface, versions):
                    raise
                self._gone(self.options.iface)
                self.state, self.urls, self.serving_since_s = "waiting", [], None
            else:
                return

    def _gone(self, name: str) -> None:
        """There is no such interface any more."""
        self._tell_link(f"{name}: the interface is gone", interface=name, change="gone")

    def _tell_link(self, text: str, **fields: Any) -> None:
        """Something is other than it was about the interface."""
        counter = counter_of(fields)
        if counter is not None:
            self.link_counters[counter] += 1
        self.output.link(text, **fields)

    def _wait(self, versions: set[int]) -> Interface | None:
        """Waits for the interface. None: we have been told to stop."""
        name = self.options.iface
        is_reported = False

        def stopped(timeout_s: float) -> bool:
            nonlocal is_reported
            if not is_reported:
                what = f"waiting for {name}, up" + (" and with an address" if versions else "")
                self._tell_link(what, interface=name, change="waiting")
                self.state = "waiting"
            is_reported = True
            return self._stopped(timeout_s)

        return wait_for(name, versions, stopped)

    def _stopped(self, timeout_s: float) -> bool:
        """Waits; True: we have been told to stop."""
        event = self.events.wait(timeout_s)
        if callable(event):
            event()
        return event is STOP

    def _once(self) -> None:
        with ExitStack() as stack:
            mappings = self._starting(stack)
            stack.callback(setattr, self.options, "handover", None)  # when we begin once more all of it is gone
            opened = open_ports(self.options, self.service.frames, stack)
            opened.warnings += self.warnings
            capture = _capture(self.options.capture, opened, self.output, stack)
            image = self.service.frames.image
            left = self.options.handover
            server = Server(self.app, image, opened, self.options.port, self.limits, self.events, stack, left)
            stack.callback(server.stop)
            if opened.reservation is not None:
                opened.reservation.reset_this_host(self.events)
            if opened.link is not None and not await_carrier(opened.link, self._stopped):
                return
            check = self._follow(opened, server, stack)
            self.server = server
            stack.enter_context(self._followed(server))
            server.start(mappings)
            stack.callback(self.tracing.ended)
            try:
                if server.confirm_addresses():
                    self._begins(server, self.service.urls(opened, self.options.port))
                    self.output.serving(opened, server, self.options.port)
                    notify("READY=1")
                    server.serve_until_stopped(
                        lambda conflict: self.output.conflict(conflict, opened.interface),
                        _watched(server, check),
                        self.output.crashed,
                    )
                    self._drain(server)
            finally:
                server.stop()
                self.served = True
                self.at_end(server)
                self.totals = _sum(self.counters(), _captured(capture, self.output))
                self.server = None

    def _drain(self, server: Server | SocketServer) -> None:
        """Lets answers end that have been begun, until the limit, or until we are told to stop once more."""
        self.state = "stopping"
        notify("STOPPING=1")
        if self.reloads is not None:
            self.reloads.stops()
        if not self.service.asked_to_stop or self.limits.drain_s == 0:
            return
        server.drain()
        try:
            self._await_unfinished(server)
        except InterfaceGoneError as gone:  # we end as we were told to; what was unfinished can't be ended over it
            self._gone(gone.interface)

    def _await_unfinished(self, server: Server | SocketServer) -> None:
        """Raises InterfaceGoneError."""
        end_s, is_told = time.monotonic() + self.limits.drain_s, False
        self._look_at_link()
        while (left := server.unfinished()) != 0 and time.monotonic() < end_s:
            if left is not None and not is_told:
                self.output.draining(left, self.limits.drain_s)
                is_told = True
            event = self.events.wait(DRAIN_POLL_S)
            if isinstance(event, Crashed) and event.exit.by_signal and isinstance(server, Server):
                server.crashed(event.exit)  # another one lets them end
            elif isinstance(event, Ended) and isinstance(server, Server) and server.is_gone():
                raise InterfaceGoneError(server.opened.interface)
            elif event is STOP or isinstance(event, Ended | Crashed):
                return
            elif event is not None:
                event()

    def _look_at_link(self) -> None:
        """While answers end, as while something is served."""
        if self.follower is not None:
            self.follower.tick()
            self.events.later(CHECK_POLL_S, self._look_at_link)

    def _over_sockets(self) -> None:
        with ExitStack() as stack:
            self._starting(stack)
            listening = listen(self.options.listen, worker_count(self.options.workers), stack)
            listening.warnings += self.warnings
            service = self.service
            server = SocketServer(self.app, service.frames, listening, self.limits, self.events, stack)
            stack.callback(server.stop)
            self.server = server
            stack.enter_context(self._followed(server))
            server.start()
            stack.callback(self.tracing.ended)
            try:
                self._begins(server, self.output.listening_urls(listening))
                self.output.listening(listening, server)
                notify("READY=1")
                server.serve_until_stopped(_watched(server, self._check), self.output.waiting)
                self._drain(server)
            finally:
                server.stop()
                self.served = True
                self.at_end(server)
                self.totals = server.counters()
                self.server = None

    def _follow(self, opened: Opened, server: Server, stack: ExitStack) -> Callable[[], None]:
        """Has what changes of the interface followed; what to do once a second."""
        if opened.link is None:
            return self._check
        frames = self.service.frames
        report = partial(self._report_change, opened)
        follower = Follower(opened.link, opened, server, families(frames), int(frames.header.mtu_bytes), report)
        stack.callback(self._follow_no_more, follower)
        self.follower = follower
        server.after_restart = follower.tick
        self.events.watch(follower.doorbell, follower.rung)
        stack.callback(self.events.forget, follower.doorbell)
        self.events.put(follower.look)  # it may have changed since it was opened

        def check() -> None:
            self._check()
            follower.tick()

        return check

    def _follow_no_more(self, follower: Follower) -> None:
        follower.close()
        self.follower = None

    def _report_change(self, opened: Opened, text: str, **fields: Any) -> None:
        self._tell_link(text, interface=opened.interface, **fields)


def _watched(server: Server | SocketServer, check: Callable[[], None]) -> Callable[[], None]:
    """What to do once a second, with a word to a service manager that wants to know whether we live."""
    watchdog = Watchdog()

    def both() -> None:
        check()
        watchdog.look(server.rounds)

    return both


def _name_of(options: Options) -> str:
    """What an operator will most likely call it."""
    if options.listen and options.listen[0].host == PASSED and (passed := activation.first_address()) is not None:
        return derived_name(str(Endpoint(*passed)))
    if options.listen:
        return derived_name(str(options.listen[0]).lstrip(":"))
    own = str(options.addresses[0].ip) if options.addresses and not options.iface.startswith(TAP) else ""
    return derived_name(options.iface.removeprefix(TAP), own, str(options.port))


def _sum(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in one | other}


def _on_signal(number: int, do: Callable[[], None]) -> None:
    """Handles a signal to the very end: after serving files are written, and no handler kills us meanwhile."""
    signal.signal(number, lambda *_: do())


def _capture(options: CaptureOptions | None, opened: Opened, output: Output, stack: ExitStack) -> Capture | None:
    """Puts a capture around all ports, if one is asked for; it is closed with the stack."""
    if options is None:
        return None
    capture = Capture(options)
    stack.callback(capture.close)
    opened.ports = capture.wrap(opened.ports, opened.interface, opened.backend)
    opened.details["pcapng"] = str(options.path)
    capture.start(lambda reason: output.capture_failed(options.path, reason))
    return capture


def _captured(capture: Capture | None, output: Output) -> dict[str, int]:
    """Ends the capture; its counters when all is written."""
    if capture is None:
        return {}
    capture.finish()
    counters = capture.counters()
    if counters["capture_dropped"] > 0:
        output.capture_incomplete(capture.options.path, counters["capture_dropped"])
    return counters


class Interrupted(BaseException):
    """We are to end, and nothing is served yet."""


def _interrupt(*_: Any) -> None:
    raise Interrupted


def exit_on_error(name: str, run: Callable[[], None]) -> None:
    """Whatever an operator can do something about is one line, and status 1. Being told to end is no error."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):  # of them there is something to say once we serve
        signal.signal(number, signal.SIG_IGN)
    try:
        run()
    except Interrupted:
        return
    except (SsrunError, ImageError) as error:
        console.say(f"{name}: {error}", err=True)
        sys.exit(1)
    except (OSError, MemoryError) as error:
        console.say(f"{name}: {error or 'out of memory'}", err=True)
        sys.exit(1)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):  # all is undone; Python would let one kill it on its way out
            signal.signal(number, signal.SIG_IGN)
