"""Writes what a package has beside the commands, made from the commands: manual pages, and completion for shells.

    python runtime/packaging/share.py FOLDER

FOLDER gets what belongs into /usr/share. SOURCE_DATE_EPOCH is the date of the pages.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import get_completion_class
from sscc.cli import commands as sscc
from ssrun import cli as ssrun
from ssrun import kv as sskv

COMMANDS: dict[str, click.Command] = {"sscc": sscc.main, "ssrun": ssrun.main, "sskv": sskv.main}
# Where distributions look, below /usr/share.
COMPLETION = {
    "bash": "bash-completion/completions/{}",
    "zsh": "zsh/vendor-completions/_{}",
    "fish": "fish/vendor_completions.d/{}.fish",
}
EXIT_STATUS = {
    "ssrun": (
        ("0", "after SIGTERM or SIGINT"),
        ("1", "it can't serve, or not any more; a line on standard error says what to do"),
        ("2", "the command line, the configuration or the environment is wrong"),
    ),
    "ssrun check": (("0", "`ssrun` would serve"), ("1", "it would not"), ("2", "the command line is wrong")),
    "sscc diff": (("0", "there is no difference"), ("1", "there is one"), ("2", "there was trouble")),
}
BEHIND = "The command line comes before these, and these come before the file of `--config`."
LINE_CHARACTERS = 78  # mandoc(1) wants no more than 80
USUAL_STATUS = (
    ("0", "done"),
    ("1", "it can't be done; a line on standard error says what to do"),
    ("2", "wrong usage"),
)


def each_command(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """A command and those below it, by their whole names."""
    yield name, command
    if isinstance(command, click.Group):
        for word, below in sorted(command.commands.items()):
            yield from each_command(f"{name} {word}", below)


def roff(text: str) -> str:
    """Text as troff takes it, in short lines; what is in backquotes stands out."""
    text = (
        text.replace("\\", "\\e")
        .replace("-", "\\-")
        .replace("'", "\\(aq")
        .replace("^", "\\(ha")
        .replace("~", "\\(ti")
    )
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    lines = textwrap.wrap(text, LINE_CHARACTERS, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"\\&{line}" if line.startswith(".") else line for line in lines)


def _paragraphs(text: str) -> list[str]:
    """Texts as the docstrings have them, which are wrapped."""
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]


def _synopsis(context: click.Context) -> str:
    pieces = context.command.collect_usage_pieces(context)
    return " ".join(f"\\fI{roff(piece)}\\fR" for piece in pieces)


def _options(context: click.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is None:
            continue
        names, help_ = record
        yield ".TP"
        yield re.sub(
            r"(?<![\w-])(--?[\w?][\w-]*)", lambda found: f"\\fB{roff(found[1])}\\fR", names.replace("\\", "")
        )
        yield roff(help_)


def _environment(command: click.Command) -> Iterator[str]:
    """Variables that say what options and arguments do."""
    for parameter in command.params:
        if parameter.envvar:
            name = (
                parameter.opts[0]
                if isinstance(parameter, click.Option)
                else parameter.make_metavar(click.Context(command))
            )
            yield from (".TP", f"\\fB{roff(str(parameter.envvar))}\\fR", roff(f"as `{name}`"))


def page(name: str, command: click.Command, version: str, date: str) -> str:
    """A manual page, in man(7)'s macros."""
    context = click.Context(command, info_name=name)
    first, *rest = _paragraphs(command.help or "")
    lines = [f'.TH "{roff(name.replace(" ", "-").upper())}" 1 "{date}" "Sandstorm {version}" "Sandstorm"']
    lines += [".nh", ".ad l"]
    lines += [".SH NAME", roff(f"{name.replace(' ', '-')} - {_headline(first)}")]
    lines += [".SH SYNOPSIS", f"\\fB{roff(name)}\\fR {_synopsis(context)}"]
    lines += [".SH DESCRIPTION", roff(first)]
    for paragraph in rest:
        lines += [".PP", roff(paragraph)]
    lines += [".SH OPTIONS", *_options(context)]
    below = sorted(command.commands.items()) if isinstance(command, click.Group) else []
    if below:
        lines.append(".SH COMMANDS")
    for word, other in below:
        lines += [".TP", f"\\fB{roff(f'{name}-{word}')}\\fR(1)", roff(_paragraphs(other.help or "")[0])]
    variables = list(_environment(command))
    if variables:
        lines += [".SH ENVIRONMENT", roff(BEHIND), *variables]
    lines.append(".SH EXIT STATUS")
    for status, meaning in EXIT_STATUS.get(name, USUAL_STATUS):
        lines += [".TP", f"\\fB{status}\\fR", roff(f"{meaning}.")]
    lines += [".SH SEE ALSO", ", ".join(_others(name, command))]
    return "\n".join(lines) + "\n"


def _headline(text: str) -> str:
    """The first part of a sentence, for whatis(1)."""
    return re.split(r"[.;:](?: |$)", text)[0]


def _others(name: str, command: click.Command) -> list[str]:
    top = name.split(maxsplit=1)[0]
    names = [other for other in COMMANDS if other != name]
    names += [f"{name}-{word}" for word in command.commands] if isinstance(command, click.Group) else []
    if " " in name:
        names = [top, *(f"{top}-{word}" for word in _words(top) if f"{top} {word}" != name)]
    return [f"\\fB{roff(other)}\\fR(1)" for other in sorted(set(names))]


def _words(top: str) -> list[str]:
    command = COMMANDS[top]
    return list(command.commands) if isinstance(command, click.Group) else []


def pages(version: str, date: str) -> dict[str, str]:
    """All manual pages, by their paths below /usr/share."""
    return {
        f"man/man1/{whole.replace(' ', '-')}.1": page(whole, command, version, date)
        for name, top in COMMANDS.items()
        for whole, command in each_command(name, top)
    }


def completions() -> dict[str, str]:
    """What shells read to complete our commands, by its paths below /usr/share."""
    found = {}
    for shell, path in COMPLETION.items():
        kind = get_completion_class(shell)
        assert kind is not None
        for name, command in COMMANDS.items():
            made = kind(command, {}, name, f"_{name.upper()}_COMPLETE")
            # Not source(), which would look for bash here.
            found[path.format(name)] = made.source_template % made.source_vars()
    return found


def main(folder: Path) -> None:
    """Writes all of it."""
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    date = time.strftime("%Y-%m-%d", time.gmtime(epoch))
    for path, text in {**pages(importlib.metadata.version("sandstorm"), date), **completions()}.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
