"""How a command ends that can't do what it was asked for."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import click
from ssimage import console
from ssimage.lazy import lazy

from ..errors import Problem, Report, SsccError
from ..signals import ended_by_signals
from ..target import STDOUT

if TYPE_CHECKING:
    from . import diagnostics
else:
    diagnostics = lazy("sscc.cli.diagnostics")


def documents(problems: Iterable[Problem]) -> dict[str, Any]:
    """What --json says of problems."""
    return {"problems": [problem.document() for problem in problems]}


def fail(error: SsccError, status: int = 1) -> NoReturn:
    """A message for each problem, or one JSON document where that is wanted; and the exit status."""
    context = click.get_current_context(silent=True)
    if context is not None and context.params.get("as_json"):
        click.echo(json.dumps(documents(error.problems), indent=1), err=context.params.get("output") == STDOUT)
    else:
        diagnostics.show(error.problems)
    sys.exit(status)


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turns our errors, and those of the system that nobody caught, into lines."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with ended_by_signals():
                return function(*args, **kwargs)
        except SsccError as error:
            fail(error)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            fail(SsccError(Problem(error.strerror or str(error), str(error.filename or ""))))
        except MemoryError:
            fail(SsccError("out of memory"))

    return wrapped


@contextlib.contextmanager
def reporting(report: Report) -> Iterator[None]:
    """Adds what was found beside an error that ends the command; what comes of it is reported by others."""
    try:
        yield
    except SsccError as error:
        reported = set(report.problems)
        report.add(*(problem for problem in error.problems if problem not in reported))
        raise SsccError(*report.sorted()) from None


class Commands(click.Group):
    """What goes wrong outside of a command, as in writing its help, is reported as what goes wrong in one."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the command as click does."""
        console.prepare()
        return command(super().main)(*args, **kwargs)
