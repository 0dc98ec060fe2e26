"""A configuration file, and environment variables: whatever the command line can say, by the same names.

The file's keys and the variables are made from the command's own options, so a new option has both. The command line
comes before the environment, the environment before the file, and the file before what is so unless given.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource
from ssimage.console import printable
from ssimage.lazy import lazy
from ssimage.problems import Problem

if TYPE_CHECKING:
    import tomllib
else:  # Most often there is no file.
    tomllib = lazy("tomllib")

Command = TypeVar("Command", bound=Callable[..., Any])

PREFIX = "SSRUN_"
FILE_BYTES_MAX = 1 << 20
# What a file can't say: which file it is, and what is no serving.
COMMAND_LINE_ONLY = {"config", "help", "version"}
META = "ssrun.config"


def key_of(parameter: click.Parameter) -> str:
    """What a file calls an option or an argument: its long name."""
    long = [name for name in parameter.opts if name.startswith("--")]
    return long[0].removeprefix("--") if long else str(parameter.name)


def variable_of(parameter: click.Parameter) -> str:
    """What the environment calls it."""
    return PREFIX + key_of(parameter).upper().replace("-", "_")


def parameters(command: click.Command) -> dict[str, click.Parameter]:
    """What a file may say of a command, by key."""
    known = {key_of(parameter): parameter for parameter in command.params}
    return {key: parameter for key, parameter in known.items() if key not in COMMAND_LINE_ONLY}


def from_environment(command: click.Command) -> None:
    """Has all options of a command taken from the environment too; to be called when it has all of them."""
    for parameter in command.params:
        if key_of(parameter) not in COMMAND_LINE_ONLY - {"config"}:
            parameter.envvar = variable_of(parameter)


def unknown_variables(command: click.Command) -> list[Problem]:
    """Environment variables that look like ours and are not."""
    known = {variable_of(parameter) for parameter in command.params}
    found = []
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            help_ = _guess(name, known) or "leave it out; `ssrun --help` lists what there is"
            found.append(Problem(f"no option is called like the environment variable {name}", help=help_))
    return found


def _guess(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, sorted(known), 1)
    return f"did you mean {near[0]}?" if near else ""


class ConfigFile:
    """What stands in a file: values that the options take, and what is wrong with the others."""

    def __init__(self, path: Path) -> None:
        """Nothing is read yet."""
        self.path = path
        self.text = ""
        self.values: dict[str, Any] = {}  # by the name of the parameter, as click has them
        self.keys: dict[str, str] = {}  # in the file, by the name of the parameter
        self.problems: list[Problem] = []

    def read(self, context: click.Context) -> None:
        """Reads and checks all of it."""
        document = self._document()
        known = parameters(context.command)
        for key, value in document.items():
            parameter = known.get(key)
            if parameter is None:
                self._add(*_unknown(key, value, known), key)
                continue
            try:
                given = _as_words(value, parameter)
                given = self._beside(given, parameter.type)
                parameter.type_cast_value(context, given)
            except click.BadParameter as error:
                self._add(f"{key}: {error.message.rstrip('.')}", "", key)
            except ValueError as error:
                self._add(f"{key}: {error}", "", key)
            else:
                self._keep(parameter, key, given)

    def _beside(self, given: Any, type_: Any) -> Any:
        """A path, or several, beginning where the file is; what is absolute, or no path, stays as it is."""
        folder = self.path.absolute().parent
        if isinstance(given, list):
            return [self._beside(each, type_) for each in given]
        if isinstance(type_, click.Path):
            return str(folder / given)
        return type_.beside(given, folder) if hasattr(type_, "beside") else given  # types of our own say

    def _keep(self, parameter: click.Parameter, key: str, given: Any) -> None:
        assert parameter.name is not None
        if given is False:  # so it is unless given
            return
        self.values[parameter.name] = given
        self.keys[parameter.name] = key

    def _add(self, message: str, help_: str, key: str) -> None:
        line = self.line_of(key)
        self.problems.append(Problem(message, str(self.path), line, help=help_))

    def _document(self) -> dict[str, Any]:
        """What is in the file, as TOML has it; empty if that can't be had."""
        file = str(self.path)
        try:
            with self.path.open("rb") as source:
                data = source.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            self.problems.append(Problem(f"the configuration can't be read: {error.strerror}", file))
            return {}
        if len(data) > FILE_BYTES_MAX:
            self.problems.append(Problem("this is too large to be a configuration; name a TOML file", file))
            return {}
        try:
            self.text = data.decode("utf-8-sig").replace("\r\n", "\n")
            return tomllib.loads(self.text)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            self.problems.append(Problem("bytes that are no text; save it as UTF-8", file, line))
        except RecursionError:
            self.problems.append(Problem("too deeply nested; write a NAME = VALUE a line", file))
        except tomllib.TOMLDecodeError as error:
            self.problems.append(_no_toml(str(error), file, self.text))
        return {}

    def line_of(self, key: str) -> int:
        """Where a key stands; 0: somewhere. The first line that looks like it up to which all is whole."""
        lines = self.text.split("\n")
        looks_like_it = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[=.\]]""")
        for number, line in enumerate(lines):
            if looks_like_it.match(line):
                try:
                    tomllib.loads("\n".join(lines[:number]))
                except tomllib.TOMLDecodeError:
                    continue  # inside of a text or a list
                return number + 1
        return 0


def _no_toml(message: str, file: str, text: str) -> Problem:
    """What is wrong with a file that is no TOML. message: tomllib's."""
    what, _, place = message.rpartition(" (at ")
    found = re.search(r"line (\d+), column (\d+)", place)
    line, column = (int(found[1]), int(found[2])) if found else (text.rstrip("\n").count("\n") + 1, 0)
    helps = {
        "Invalid value": 'texts stand in quotes: iface = "eth0"',
        "Expected '='": 'write NAME = VALUE, as port = 8080 or iface = "eth0"',
        "Cannot overwrite": "name each option once; several values are a list: [..., ...]",
        "Invalid statement": 'write NAME = VALUE, as port = 8080 or iface = "eth0"',
    }
    help_ = next((help_ for start, help_ in helps.items() if what.startswith(start)), "https://toml.io says how")
    return Problem(f"this is no TOML: {what[:1].lower()}{what[1:]}", file, line, column, help=help_)


def _unknown(key: str, value: Any, known: dict[str, click.Parameter]) -> tuple[str, str]:
    """What to say of a key that is no option's."""
    plain = key.strip("-").replace("_", "-").lower()
    if key in COMMAND_LINE_ONLY:
        return f"{key} is for the command line only", "leave it out"
    if isinstance(value, dict):
        return f"there is no section {key}", "write all options at the top of the file, in no section"
    guess = f"did you mean {plain}?" if plain in known else _guess(plain, known)
    return f"unknown option {key}", guess or "`ssrun --help` lists what there is, without the --"


def _as_words(value: Any, parameter: click.Parameter) -> Any:
    """A value as the command line would have it. Raises ValueError, which says what is wrong."""
    if isinstance(parameter, click.Option) and parameter.is_flag:
        if not isinstance(value, bool):
            raise ValueError("this is switched on or off; write true or false")
        return value
    if isinstance(parameter, click.Option) and parameter.multiple:
        return [_as_word(each) for each in (value if isinstance(value, list) else [value])]
    if isinstance(value, list):
        raise ValueError("one value is meant, not a list; write it without the brackets")
    return _as_word(value)


def _as_word(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("a text or a number is meant; write it as on the command line, in quotes")
    if "\0" in str(value):
        raise ValueError("a NUL character is in it; leave that out")
    return str(value)


def config_option(refuse: Callable[[ConfigFile], None]) -> Callable[[Command], Command]:
    """The option --config. refuse: what to do with a file that has problems."""

    def read(context: click.Context, _: click.Parameter, path: Path | None) -> None:
        if path is None or context.resilient_parsing:  # a shell completes a line
            return
        file = ConfigFile(path)
        file.read(context)
        context.meta[META] = file
        context.default_map = file.values
        if file.problems:
            refuse(file)

    return click.option(
        "--config",
        metavar="FILE",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=read,
        help="Take what the command line leaves open from this TOML file: each option by its name.",
    )


def file_of(context: click.Context) -> ConfigFile | None:
    """The configuration that has been read."""
    found = context.meta.get(META)
    return found if isinstance(found, ConfigFile) else None


def origin(context: click.Context, parameter: click.Parameter) -> str:
    """Where a value comes from that is not on the command line; empty: it is there, or nobody gave one."""
    assert parameter.name is not None
    source = context.get_parameter_source(parameter.name)
    if source is ParameterSource.ENVIRONMENT:
        return f"the environment's {variable_of(parameter)}"
    file = file_of(context)
    if source is ParameterSource.DEFAULT_MAP and file is not None:
        line = file.line_of(file.keys[parameter.name])
        return printable(f"{file.path}:{line}" if line else str(file.path))
    return ""


@contextmanager
def telling_origins(context: click.Context) -> Iterator[None]:
    """Adds to what is said of wrong usage inside where the options come from, if that is not the command line."""
    try:
        yield
    except click.UsageError as error:
        named = set(re.findall(r"(?<![\w-])--([\w-]+)", error.message))
        if isinstance(error, click.BadParameter) and error.param is not None:
            named.add(key_of(error.param))
        places = {key: origin(context, parameter) for key, parameter in parameters(context.command).items()}
        told = [f"{key}: from {places[key]}" for key in sorted(named & places.keys()) if places[key]]
        if not told:
            raise
        said = error.format_message().rstrip(".")
        raise click.UsageError(f"{said} ({', '.join(told)})", error.ctx) from None
