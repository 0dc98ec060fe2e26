"""Chromium driven over its DevTools protocol, through a pair of pipes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import selectors
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.e2e.pages import CHROMIUM
from tests.net import Running

WAIT_S = 60


class Tab:
    """A tab, by the pipes of its browser: commands are JSON, each with a zero byte behind it."""

    def __init__(self, commands: int, answers: int) -> None:
        self.commands = commands
        self.answers = answers
        self.data = b""
        self.events: list[dict[str, Any]] = []
        self.numbers = itertools.count(1)
        self.session: dict[str, str] = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")

    def receive(self) -> dict[str, Any]:
        """The next message."""
        deadline = time.monotonic() + WAIT_S
        with selectors.DefaultSelector() as selector:
            selector.register(self.answers, selectors.EVENT_READ)
            while b"\0" not in self.data:
                assert selector.select(deadline - time.monotonic()), f"nothing came for {WAIT_S} s"
                piece = os.read(self.answers, 1 << 20)
                assert piece, "the browser has ended"
                self.data += piece
        message, _, self.data = self.data.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command's result; events until then are kept."""
        number = next(self.numbers)
        message = json.dumps({"id": number, "method": method, "params": params, **self.session})
        os.write(self.commands, message.encode() + b"\0")
        while (answer := self.receive()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def loaded(self, method: str, **params: Any) -> None:
        """A command that loads a page, until that has fired its load event."""
        self.events.clear()
        self.call(method, **params)
        while all(event["method"] != "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())

    def value(self, expression: str) -> Any:
        """What a script's expression comes to, promises kept."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def failures(self) -> list[str]:
        """What could not be loaded since the last page began."""
        return [event["params"]["errorText"] for event in self.events if event["method"] == "Network.loadingFailed"]


@contextlib.contextmanager
def browser(running: Running, origin: str, profile: Path) -> Iterator[Tab]:
    """A browser in the client's namespace, to which the origin counts as secure, so that scripts may hash."""
    commands_out, commands_in = os.pipe()
    answers_out, answers_in = os.pipe()
    options = [option for option in CHROMIUM if "virtual-time" not in option]
    options += [f"--user-data-dir={profile}", f"--unsafely-treat-insecure-origin-as-secure={origin}"]
    # It reads from descriptor 3 and writes to 4.
    script = f'exec chromium "$@" 3<&{commands_out} 4>&{answers_in} 2>{profile}.log'
    words = ["bash", "-c", script, "bash", *options, "--remote-debugging-pipe", "about:blank"]
    running.client.settle()
    process = running.client.popen(*words, pass_fds=(commands_out, answers_in))
    os.close(commands_out)
    os.close(answers_in)
    try:
        tab = Tab(commands_in, answers_out)
        yield tab
        tab.call("Browser.close")
    finally:
        os.close(commands_in)  # which ends it too
        os.close(answers_out)
        process.wait(WAIT_S)
