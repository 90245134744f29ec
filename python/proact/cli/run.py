"""``proact run``: its help, and what it says when no program is named.

A program that is named never comes here: ``program.py`` reads those arguments itself, because it has to do so
without ``proact[cli]`` too, and because a command-line library would take the program's options for its own.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, NoReturn

import typer

from proact.cli.error import CommandError

#: Everything after the script's name goes to the script, even if it looks like an option.
CONTEXT: Final[dict[str, Any]] = {"allow_interspersed_args": False, "ignore_unknown_options": False}


def run(
    script: Annotated[
        str | None, typer.Argument(help="A Python script, or a folder or zip with __main__.py.")
    ] = None,
    args: Annotated[list[str] | None, typer.Argument(help="The program's own arguments.")] = None,
    module: Annotated[
        str | None,
        typer.Option("-m", metavar="MODULE", help="Run a module, as python -m does; ends the options."),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(metavar="NAME", help="auto, io_uring, epoll, poll or select.", envvar="PROACT_ENGINE"),
    ] = "auto",
) -> NoReturn:
    """\b
    Examples:
      proact run server.py --port 8080
      proact run --engine epoll server.py
      proact run -m mypackage.server --verbose
      python -m proact server.py        the same, also without the extra cli

    Run an asyncio program on proact's loop: asyncio.run(), asyncio.Runner() and asyncio.new_event_loop() make
    proact's loops. Everything else is as with python SCRIPT: arguments, paths, exit code.
    """
    raise CommandError("no script: proact run SCRIPT [ARGS]... or proact run -m MODULE [ARGS]...")
