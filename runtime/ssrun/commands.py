"""Commands to an ssrun that serves: `ssrun list`, `counters`, `stat`, `trace`, `drain`, `reload`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from ssimage import console
from ssimage.lazy import lazy

from . import config
from .errors import SsrunError
from .options import Seconds
from .wording import being_finished, still_older

if TYPE_CHECKING:
    from . import control, live_view, trace_view
else:  # For --help they are not needed.
    control = lazy("ssrun.control")
    live_view = lazy("ssrun.live_view")
    trace_view = lazy("ssrun.trace_view")

UPGRADE_S, UPGRADE_POLL_S = 30.0, 0.05
HELP = {"help_option_names": ["-h", "--help"]}
as_json_option = click.option("--json", "as_json", is_flag=True, help="For programs: a JSON object a line.")


def _running(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """For a shell that completes a line: the names of those that run here."""
    return [name for name in control.running() if name.startswith(incomplete)]


name_argument = click.argument("name", required=False, shell_complete=_running)


class Commands(console.Command, click.Group):
    """A command that has others: a first word that is one's name is that one; all else is for the command itself."""

    allow_extra_args = False  # three things that are as of a command that has no others
    allow_interspersed_args = True
    ignore_unknown_options = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes what a click command takes."""
        super().__init__(*args, **{"no_args_is_help": False, "invoke_without_command": True, **kwargs})

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the command that is meant."""
        below = self.commands.get(args[0]) if args else None
        if below is not None:
            return below.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As of a command that has no others."""
        with config.telling_origins(ctx):
            return click.Command.parse_args(self, ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Likewise; the others stand below."""
        return click.Command.collect_usage_pieces(self, ctx)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command that is meant."""
        if ctx.command is not self:
            return ctx.command.invoke(ctx)
        return console.escaped(lambda: click.Command.invoke(self, ctx))


class Configured(console.Command):
    """A command that takes what serving takes, from the same places."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Says of mistakes where they are."""
        with config.telling_origins(ctx):
            return super().parse_args(ctx, args)


def exit_on_error(run: Callable[[], None]) -> None:
    """What can't be had is one line, and status 1."""
    try:
        run()
    except SsrunError as error:
        console.say(f"ssrun: {error}", err=True)
        sys.exit(1)


def _say(answer: dict[str, Any]) -> None:
    console.write(json.dumps(answer) + "\n")


def _ask_one(name: str | None, command: str, as_json: bool, show: Callable[[dict[str, Any]], None]) -> None:
    """Asks the one that is meant. show: its answer, for people."""

    def run() -> None:
        answer = control.ask(control.find(name), {"command": command})
        if as_json:
            _say(answer)
        else:
            show(answer)

    exit_on_error(run)


@click.command("list", cls=console.Command, context_settings=HELP)
@as_json_option
def list_command(as_json: bool) -> None:
    """Shows what runs here."""

    def run() -> None:
        for name, path in control.running().items():
            try:
                answer = control.ask(path, {"command": "list"})
            except SsrunError as error:
                console.say(f"ssrun: {error}", err=True)
                continue
            if as_json:
                _say({**answer, "name": name})
            else:
                where = " ".join(answer["urls"]) or answer["where"]
                console.say(
                    f"{name}: {answer['command']} (pid {answer['pid']}), {answer['state']}, {where}, {answer['what']}"
                )

    exit_on_error(run)


@click.command("counters", cls=console.Command, context_settings=HELP)
@name_argument
@as_json_option
def counters_command(name: str | None, as_json: bool) -> None:
    """Shows the counters of NAME, those that are not zero."""

    def show(answer: dict[str, Any]) -> None:
        for counter, value in answer["counters"].items():
            console.say(f"{counter} {value}")

    _ask_one(name, "counters", as_json, show)


@click.command("stat", cls=console.Command, context_settings=HELP)
@name_argument
@click.option(
    "--interval",
    type=Seconds(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time from one look to the next; rates are of that time.",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="Ends after N looks, instead of at Ctrl-C.")
@as_json_option
def stat_command(name: str | None, interval: float, count: int | None, as_json: bool) -> None:
    """Shows how NAME does, until Ctrl-C: requests and bytes a second, statuses, what was dropped.

    NAME is what `ssrun list` shows, or an interface. In a terminal it is a view; in a pipe or a file it is a line for
    each look.
    """
    exit_on_error(lambda: live_view.run(name, interval, count, as_json))


class ClientAddress(click.ParamType["trace_view.Client"]):
    """Whose segments are wanted."""

    name = "CLIENT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> trace_view.Client:
        """An address, perhaps with a port."""
        try:
            return trace_view.parse_client(str(value))
        except ValueError:
            self.fail(f"{value!r} is no address of a client; write ADDR, ADDR:PORT or [ADDR]:PORT", param, ctx)


@click.command("trace", cls=console.Command, context_settings=HELP)
@click.argument("client", metavar="CLIENT", type=ClientAddress())
@click.option("--name", metavar="NAME", help="Of which one, where several run.", shell_complete=_running)
@click.option(
    "--count",
    type=click.IntRange(1, 1_000_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="Ends after N segments.",
)
@click.option(
    "--seconds",
    type=Seconds(0.1, 86400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Ends after this time.",
)
@as_json_option
def trace_command(client: trace_view.Client, name: str | None, count: int, seconds: float, as_json: bool) -> None:
    """Shows the TCP segments of CLIENT as they come and go: an address, or ADDR:PORT.

    The time is that since the first; sequence numbers begin at 0 with each connection that is seen to begin. Only
    headers are looked at. One client can be traced at a time.
    """
    exit_on_error(lambda: trace_view.run(name, client, count, seconds, as_json))


@click.command("drain", cls=console.Command, context_settings=HELP)
@name_argument
@as_json_option
def drain_command(name: str | None, as_json: bool) -> None:
    """Has NAME accept no more connections; answers that have been begun end. It runs on until it is told to stop."""

    def show(answer: dict[str, Any]) -> None:
        what = being_finished(answer["connections"])
        console.say(f"{answer['name']} accepts no more connections; {what}")

    _ask_one(name, "drain", as_json, show)


@click.command("reload", cls=console.Command, context_settings=HELP)
@click.argument("image", type=click.Path(path_type=Path, readable=False), required=False)
@click.option("--name", metavar="NAME", help="Of which one, where several run.")
@as_json_option
def reload_command(image: Path | None, name: str | None, as_json: bool) -> None:
    """Has IMAGE served from now on; without IMAGE the file that is served is read again.

    Answers that have been begun end as they were. One that can't be served is refused, and nothing changes."""

    def run() -> None:
        asked = {"command": "reload", **({"image": str(image.absolute())} if image is not None else {})}
        answer = control.ask(control.find(name), asked, timeout_s=None)
        if as_json:
            _say(answer)
            return
        image_, connections = answer["image"], answer["connections"]
        what = f"{image_['path']}: {image_['routes']} routes, build-id {image_['build_id'][:16]}"
        if not answer["changed"]:
            console.say(f"{answer['name']}: the file is the same as before: {what}")
        else:
            console.say(f"{answer['name']} serves {what}{f'; {still_older(connections)}' if connections else ''}")

    exit_on_error(run)


@click.command("upgrade", cls=console.Command, context_settings=HELP)
@name_argument
@as_json_option
def upgrade_command(name: str | None, as_json: bool) -> None:
    """Has the ssrun that is installed now go on in the place of NAME, which has been started from an older one.

    Connections go on, after a pause of a second or so; answers of an image that a reload has replaced are reset. If
    the new one could not go on, nothing changes."""

    def run() -> None:
        path = control.find(name)
        answer = control.ask(path, {"command": "upgrade"}, timeout_s=None)
        serving = _await_upgrade(path, answer["upgrades"])
        answer = {**answer, "pid": serving["pid"], "connections": serving["connections"]}
        if as_json:
            _say(answer)
        else:
            goes_on = f"{answer['connections']} connection{'' if answer['connections'] == 1 else 's'}"
            console.say(f"{answer['name']} (pid {answer['pid']}) is version {answer['version']} now, with {goes_on}")

    exit_on_error(run)


def _await_upgrade(path: Path, upgrades: int) -> dict[str, Any]:
    """What the new build says of itself when it serves. Raises SsrunError if it does not come to that."""
    end_s = time.monotonic() + UPGRADE_S
    while time.monotonic() < end_s:
        time.sleep(UPGRADE_POLL_S)
        try:
            answer = control.ask(path, {"command": "list"})
        except SsrunError:
            continue  # it does not listen yet
        if answer["upgrades"] == upgrades and answer["state"] in ("serving", "draining"):
            return answer
    raise SsrunError(
        f"the new build does not serve after {UPGRADE_S:g} s; look at what it has said, and start it again"
    )


def add_to(group: click.Group) -> None:
    """Gives a command these as others."""
    asking = (list_command, counters_command, stat_command, trace_command)
    for command in (*asking, drain_command, reload_command, upgrade_command):
        group.add_command(command)
