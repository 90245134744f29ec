"""``proact lab``: the laboratory's commands. They check what was asked for; ``proact.lab`` does the work."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from proact.cli.error import CommandError
from proact.lab.echo import Settings, run
from proact.lab.limits import TooManyConnectionsError, allow_connections
from proact.lab.progress import watch
from proact.lab.registry import MODELS
from proact.lab.summary import failed
from proact.lab.table import console, render

if TYPE_CHECKING:
    from proact.lab.results import Document

#: The load generator keeps a message of each connection in memory.
MAX_SIZE: Final = 16 << 20

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def lab() -> None:
    """\b
    Examples:
      proact lab echo                   every I/O model under the same load
      proact lab echo --help            how to choose models and loads

    The laboratory: what each I/O model costs on this machine.
    """


@app.command(short_help="Echo through every I/O model: speed, latency, CPU, system calls, memory.")
def echo(
    connections: Annotated[str, typer.Option(metavar="N,...", help="Connections at once.")] = "1,10,100",
    size: Annotated[
        str, typer.Option(metavar="BYTES,...", help="Bytes per message; 64K and 1M work.")
    ] = "1024",
    duration: Annotated[float, typer.Option(help="Seconds each cell is timed.")] = 1.0,
    warmup: Annotated[float, typer.Option(help="Seconds of load before that.")] = 0.2,
    repeat: Annotated[int, typer.Option(help="How often each cell is measured.")] = 1,
    models: Annotated[str, typer.Option(metavar="NAME,...", help=f"Of: {', '.join(MODELS)}.")] = "all",
    json_file: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Write the raw results; - is stdout, no table."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the random order of the cells.")] = None,
) -> int:
    """\b
    Examples:
      proact lab echo
      proact lab echo --models asyncio,uvloop,proact-io_uring --connections 100 --repeat 5
      proact lab echo --size 64,1K,64K --json echo.json

    Echo over loopback through every I/O model: a fresh server process for each cell (model x connections x
    size x repeat), in random order, with a load that verifies every byte. Exit code 1 if a model failed.
    """
    settings = Settings(
        models=chosen_models(models),
        connections=numbers("--connections", connections, most=1_000_000),
        sizes=numbers("--size", size, most=MAX_SIZE),
        duration=seconds("--duration", duration, least=0.01),
        warmup=seconds("--warmup", warmup, least=0.0),
        repeat=repeat,
        **({} if seed is None else {"seed": seed}),
    )
    if repeat < 1:
        raise CommandError(f"--repeat is {repeat}: it must be 1 or more")
    try:
        allow_connections(max(settings.connections))
    except TooManyConnectionsError as error:
        raise CommandError(str(error)) from None
    if json_file not in (None, "-"):
        check_writable(json_file)
    os.environ.pop("PROACT_ENGINE", None)  # each model names its own engine
    try:
        with watch() as progress:
            document = run(settings, progress)
    except KeyboardInterrupt:
        raise CommandError("interrupted", exit_code=130) from None
    show(document, json_file)
    return 1 if failed(document) else 0


def show(document: Document, json_file: str | None) -> None:
    """The tables on stdout, and the raw results where they were asked for."""
    text = json.dumps(document, indent=1) + "\n"
    if json_file == "-":
        sys.stdout.write(text)
        return
    out = console()
    out.print(render(document, out.width))
    if json_file is not None:
        Path(json_file).write_text(text)
        print(f"proact: raw results in {json_file}", file=sys.stderr)


def chosen_models(text: str) -> tuple[str, ...]:
    """The models named in a comma list, each once. Raises CommandError for one that does not exist."""
    if text.strip() == "all":
        return tuple(MODELS)
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in MODELS:
            raise CommandError(f"unknown model {name!r}: choose from {', '.join(MODELS)}")
    return names


def numbers(option: str, text: str, most: int) -> tuple[int, ...]:
    """A comma list of whole numbers from 1 to ``most``, each once; K and M count in 1024s."""
    found = []
    for part in (part.strip() for part in text.split(",")):
        unit = {"K": 1 << 10, "M": 1 << 20}.get(part[-1:].upper(), 1)
        digits = part[:-1] if unit > 1 else part
        if not (digits.isascii() and digits.isdigit() and 1 <= int(digits) * unit <= most):
            raise CommandError(
                f"{option} has {part!r}: it takes whole numbers from 1 to {most:,}, with commas between"
            )
        found.append(int(digits) * unit)
    return tuple(dict.fromkeys(found))


def seconds(option: str, value: float, least: float) -> float:
    """A number of seconds from ``least`` to an hour."""
    if not (math.isfinite(value) and least <= value <= 3600):
        raise CommandError(f"{option} is {value:g}: it must be from {least:g} to 3600 seconds")
    return value


def check_writable(path: str) -> None:
    """Raise CommandError if ``path`` cannot be written; before the run, not after minutes of it."""
    existed = Path(path).exists()
    try:
        with Path(path).open("a"):
            pass
        if not existed:
            Path(path).unlink()
    except OSError as error:
        raise CommandError(f"can't write {path!r}: {error.strerror}") from None
