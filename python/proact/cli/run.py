"""``proact run``: any asyncio program on proact's loop. How is in ``program.py``."""

from __future__ import annotations

import os
from typing import Annotated, Any, Final

import typer

from proact.cli.error import CommandError
from proact.cli.program import Program
from proact.lab.registry import missing_engine

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
) -> Program:
    """\b
    Examples:
      proact run server.py --port 8080
      proact run --engine epoll server.py
      proact run -m mypackage.server --verbose

    Run an asyncio program on proact's loop: asyncio.run(), asyncio.Runner() and asyncio.new_event_loop() make
    proact's loops. Everything else is as with python SCRIPT: arguments, paths, exit code.
    """
    check_engine(engine)
    if engine != "auto":
        os.environ["PROACT_ENGINE"] = engine  # also for the loops that the program's children make
    given = ([script] if script is not None else []) + (args or [])
    if module is not None:
        return Program(module=module, script=None, arguments=tuple(given), engine=engine)
    if not given:
        raise CommandError("no script: proact run SCRIPT [ARGS]... or proact run -m MODULE [ARGS]...")
    return Program(module=None, script=given[0], arguments=tuple(given[1:]), engine=engine)


def check_engine(engine: str) -> None:
    """Raise CommandError if there is no such engine, or if this machine refuses it."""
    from proact import ENGINES

    if engine == "auto":
        return
    if engine not in ENGINES:
        raise CommandError(f"unknown engine {engine!r}: choose auto, {', '.join(ENGINES)}")
    if reason := missing_engine(engine):
        raise CommandError(reason, exit_code=1)
