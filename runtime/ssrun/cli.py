"""The command `ssrun`."""

from __future__ import annotations

import glob
import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem
from ssimage import console
from ssimage.lazy import lazy
from ssimage.problems import Problem

from . import config
from .commands import HELP, Commands, Configured, add_to
from .errors import SsrunError
from .options import Seconds, log_options, serving_options, settings
from .settings import Limits, Options

if TYPE_CHECKING:
    from . import check as checking
    from . import handover, profile, web
    from . import serve as serving
else:  # For --help they are not needed.
    checking = lazy("ssrun.check")
    handover = lazy("ssrun.handover")
    profile = lazy("ssrun.profile")
    serving = lazy("ssrun.serve")
    web = lazy("ssrun.web")


NO_IMAGE = "say what to serve: ssrun IMAGE, or `image` in the file of --config"


def run(
    image_path: Path,
    options: Options,
    limits: Limits,
    as_json: bool,
    verify_content: bool,
    profile_path: Path | None,
) -> None:
    """Opens everything, serves, and closes everything. Raises SsrunError or ImageError."""
    if profile_path is not None and options.wait_for_interface:
        raise click.UsageError("--wait-for-interface would begin the profile anew: leave that or --profile out")
    if profile_path is not None and not profile_path.absolute().parent.is_dir():
        raise SsrunError(f"{profile_path}: no such folder; the profile is to be written there")
    asks = handover.asked()
    options.handover = handover.received()
    handed = options.handover.image if options.handover is not None else asks
    with web.open_image(Path(handed.path) if handed else image_path, verify_content, handed) as image:
        if asks is not None:
            handover.say_that_we_could()
            return

        def write_profile(server: profile.Measured) -> None:
            if profile_path is not None:
                profile.write(profile_path, profile.document(image, server))

        why_not = (
            "a profile is of one image: start ssrun again, or without --profile" if profile_path is not None else ""
        )
        service = web.Web(image, None if why_not else web.loader(verify_content), why_not)
        serving.serve(service, options, limits, as_json, write_profile)


def _refuse(file: config.ConfigFile) -> NoReturn:
    """Says all that is wrong with a configuration, and ends as after a wrong command line."""
    for problem in file.problems:
        console.say(f"ssrun: {problem}", err=True)
    sys.exit(2)


def _images(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For a shell that completes a line: a command, where one may stand, or an image; else whatever file there is."""
    commands = context.command.commands.items() if isinstance(context.command, click.Group) else []
    found = [CompletionItem(word, help=below.get_short_help_str()) for word, below in commands]
    found = [item for item in found if item.value.startswith(incomplete)]
    found += [CompletionItem(path) for path in sorted(glob.glob(f"{glob.escape(incomplete)}*.img"))]
    return found or [CompletionItem(incomplete, type="file")]


@click.command(cls=Commands, context_settings=HELP)
@click.argument(
    "image",
    metavar="IMAGE",
    required=False,
    type=click.Path(path_type=Path, readable=False),
    shell_complete=_images,
)
@config.config_option(_refuse)
@serving_options(port=80, keep_alive_s=65.0)
@log_options()
@click.option(
    "--profile",
    "profile_path",
    type=click.Path(path_type=Path),
    help="At the end write here what was asked for, for `sscc build --profile`.",
)
@click.option(
    "--no-verify-content", is_flag=True, help="Don't hash whole images, at start and when they are reloaded."
)
@click.option(
    "--swap-timeout",
    type=Seconds(0, 604800),
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="After a reload, who still gets an answer of the image before is reset after this.",
)
def main(
    image: Path | None,
    profile_path: Path | None,
    no_verify_content: bool,
    swap_timeout: float,
    as_json: bool,
    **values: Any,
) -> None:
    """Serves the packet image IMAGE; or one of the commands below. An image with such a name is ./NAME."""
    if image is None:
        raise click.UsageError(NO_IMAGE)
    with config.telling_origins(click.get_current_context()):
        options, limits = settings(values)
    limits = replace(limits, swap_s=swap_timeout)
    serving.exit_on_error("ssrun", lambda: run(image, options, limits, as_json, not no_verify_content, profile_path))


@click.pass_context
def _check(
    context: click.Context,
    /,
    image: Path | None,
    profile_path: Path | None,
    no_verify_content: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Looks at all that `ssrun` needs for the same options, without serving.

    That is the configuration, IMAGE, where it is to be served, and what rights are missing. The exit status is 1 if
    `ssrun` would not serve.
    """
    file = config.file_of(context)
    check = checking.Check()
    check.problems += [*(file.problems if file else []), *config.unknown_variables(main)]
    is_known = not (file and file.problems)  # else what is missing is most likely in what could not be read
    with ExitStack() as stack:
        opened = None
        if image is not None:
            opened = check.image(image, not no_verify_content, stack)
        elif is_known:
            check.problems.append(Problem(NO_IMAGE))
        if profile_path is not None:
            check.folder(profile_path, "--profile")
        try:
            with config.telling_origins(context):
                options, limits = settings(values)
        except click.UsageError as error:
            check.problems += [Problem(error.message)] if is_known else []
        else:
            check.options(options, limits, opened)
    # A file's `json` is for one that serves.
    is_for_programs = as_json and context.get_parameter_source("as_json") is ParameterSource.COMMANDLINE
    sys.exit(_report(check.problems, f"{image}: good", is_for_programs))


def _report(problems: list[Problem], good: str, as_json: bool) -> int:
    """Says what a check has found; its exit status."""
    has_failed = any(problem.severity == "error" for problem in problems)
    if as_json:
        console.write(json.dumps({"problems": [problem.document() for problem in problems]}) + "\n")
        return int(has_failed)
    for problem in problems:
        console.say(f"{problem.place or 'ssrun'}: {problem.severity}: {problem.text}", err=True)
    if not has_failed:
        console.say(good)
    return int(has_failed)


def _check_command() -> click.Command:
    """With the options that serving has, those that will be added too."""
    parameters = [parameter for parameter in main.params if parameter.name not in ("config", "version")]
    command = Configured("check", callback=_check, params=parameters, context_settings=HELP, help=_check.__doc__)
    command = config.config_option(lambda _: None)(command)
    config.from_environment(command)
    return command


config.from_environment(main)
add_to(main)
main.add_command(_check_command())

if __name__ == "__main__":
    main()
