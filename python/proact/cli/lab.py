"""``proact lab``: the laboratory's commands. They check the arguments; ``proact.lab`` does the work."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proact.cli.error import CommandError, help_without_command
from proact.cli.stopping import StoppedError, stoppable
from proact.lab.asked import chosen
from proact.lab.export import as_objects, differences, to_csv
from proact.lab.job import Job, asked_loads, of_load
from proact.lab.progress import watch
from proact.lab.registry import MODELS, USUAL
from proact.lab.report import drawing
from proact.lab.report.page import to_html
from proact.lab.results import ResultsError, load
from proact.lab.run import Settings
from proact.lab.summary import empty, failed
from proact.lab.table import console, render_differences
from proact.lab.view import render_all
from proact.lab.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from proact.lab.results import Document

app = typer.Typer(rich_markup_mode=None)

# Options that several commands share.
Connections = Annotated[str, typer.Option(metavar="N,...", help="Connections at once.")]
Size = Annotated[
    str | None, typer.Option(metavar="BYTES,...", help="Bytes per message; 64K and 1M work (default: 1K).")
]
Duration = Annotated[float, typer.Option(help="Seconds of timing per cell.")]
Warmup = Annotated[float, typer.Option(help="Seconds of load before that.")]
Repeat = Annotated[int, typer.Option(help="How often each cell is measured.")]
Models = Annotated[
    str, typer.Option(metavar="NAME,...", help=f"usual, all, or some of: {', '.join(MODELS)}.")
]
Json = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write the raw results; - is stdout, no table.")
]
Csv = Annotated[
    str | None,
    typer.Option("--csv", metavar="FILE", help="Write a line per cell; - is stdout, no table."),
]
Html = Annotated[
    str | None,
    typer.Option("--html", metavar="FILE", help="Write the report, one file; - is stdout, no table."),
]
Seed = Annotated[int | None, typer.Option(help="Seed of the random order of the cells.")]
Results = Annotated[str, typer.Argument(metavar="FILE", help="Results, as --json wrote them.")]


@app.callback(invoke_without_command=True)
def lab(context: typer.Context) -> None:
    """\b
    Examples:
      proact lab choose                 which I/O model to use, and why
      proact lab best --p99 10ms        how many messages a second within a limit of latency
      proact lab run                    the usual I/O models under the same load
      proact lab run --workload idle    many connections of which one is active
      proact lab report old.json        the tables of an earlier run
      proact lab compare a.json b.json  two machines, or two versions
      proact lab timeline               one request: where each model waits, and who copies
      proact lab claims                 what textbooks say, tested on this machine
      proact lab model epoll            one model's server, for wrk or a browser
      proact lab serve                  the laboratory in a browser

    The laboratory: what each I/O model costs on this machine.
    """
    help_without_command(context)


@app.command(short_help="I/O models under the same loads: speed, latency, CPU, system calls, memory.")
def run(
    workload: Annotated[
        str, typer.Option(metavar="NAME,...", help=f"Some of: {', '.join(WORKLOADS)}, files, idle.")
    ] = "echo",
    connections: Annotated[
        str | None, typer.Option(metavar="N,...", help="Connections at once (default: 1,100).")
    ] = None,
    active: Annotated[
        str | None, typer.Option(metavar="N,...", help="How many of them send (default: all).")
    ] = None,
    size: Size = None,
    rate: Annotated[
        str | None,
        typer.Option(metavar="N,...", help="Messages per second, at fixed times (default: closed loop)."),
    ] = None,
    duration: Duration = 0.3,
    warmup: Warmup = 0.1,
    repeat: Repeat = 5,
    models: Models = "usual",
    split: Annotated[bool, typer.Option(help="Measure where the time goes, in a separate pass.")] = True,
    timelines: Annotated[bool, typer.Option(help="Take a timeline of each model as well.")] = False,
    json_file: Json = None,
    csv_file: Csv = None,
    html_file: Html = None,
    seed: Seed = None,
) -> int:
    """\b
    Examples:
      proact lab run
      proact lab run --workload echo,web --connections 1,100,1000 --repeat 5 --json web.json
      proact lab run --workload idle --models select,poll,epoll,proact-io_uring
      proact lab run --workload mixed --connections 10 --rate 500
      proact lab run --workload files --models threads,epoll,aio,proact-io_uring
      proact lab run --models asyncio,uvloop,proact-io_uring --size 64,1K,64K --csv -
      proact lab run --repeat 5 --html report.html

    The same work through each I/O model: a fresh server process for each cell (model x workload x
    connections x size x rate x repeat), in random order, with a load that verifies every byte. Workloads:
    echo; churn (echo, a connection for each message); web (HTTP with keep-alive); mixed (web, while one
    connection has the server read a slow disk); cpu, wait and file (handlers: cpu-20us, wait-2ms); tls;
    fanout (a proxy that asks three servers); slow-readers (echo, beside clients that read slowly); idle
    (echo over many connections of which few send); files (many small files, and reads and appends of large
    ones: files-small, files-random, files-direct and files-append, with so many operations at once as
    --connections says; default: 1,16). With --rate latencies count from when a message was
    intended (open loop), so that a stall is not hidden. Exit code 1 if a model failed.
    """
    settings = Settings(
        models=chosen("model", models, MODELS, USUAL),
        duration=duration,
        warmup=warmup,
        repeat=repeat,
        split=split,
        **asked_loads(workload, connections or "", active or "", size or "", rate or ""),
    )
    if seed is not None:
        settings = replace(settings, seed=seed)
    return carry_out(of_load(settings, timelines=timelines), json_file, csv_file, html_file)


@app.command(short_help="Echo through I/O models: `run` with its usual workload.")
def echo(
    connections: Connections = "1,100",
    size: Size = None,
    duration: Duration = 0.3,
    warmup: Warmup = 0.1,
    repeat: Repeat = 5,
    models: Models = "usual",
    json_file: Json = None,
    html_file: Html = None,
    seed: Seed = None,
) -> int:
    """\b
    Examples:
      proact lab echo
      proact lab echo --models asyncio,uvloop,proact-io_uring --connections 100 --repeat 5
      proact lab echo --size 64,1K,64K --json echo.json

    Echo over loopback through each I/O model, closed loop; a fresh server process for each cell (model x
    connections x size x repeat). `proact lab run` has the other workloads and loads. Exit code 1 if a model
    failed.
    """
    return run(
        connections=connections,
        size=size,
        duration=duration,
        warmup=warmup,
        repeat=repeat,
        models=models,
        split=False,
        json_file=json_file,
        html_file=html_file,
        seed=seed,
    )


@app.command(short_help="Draw the tables of earlier results again.")
def report(file: Results, csv_file: Csv = None, html_file: Html = None) -> int:
    """\b
    Examples:
      proact lab report old.json
      proact lab report old.json --csv old.csv
      proact lab report old.json --html old.html

    Exit code 1 if a model had failed in that run.
    """
    document = read_results(file)
    check_files(None, csv_file, html_file, source=file)
    show(document, None, csv_file, html_file)
    return 1 if failed(document) else 0


@app.command(short_help="Two results side by side: two machines, or two versions.")
def compare(
    first: Results,
    second: Results,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout, no table.")] = False,
) -> int:
    """\b
    Examples:
      proact lab compare before.json after.json
      proact lab compare laptop.json server.json --json

    Ratios of the second to the first, for each model and load that both have. "level" means that the
    intervals of the messages per second overlap; "unknown" that one of the runs had fewer than five
    repeats.
    """
    documents = read_results(first), read_results(second)
    found = differences(*documents)
    if not found:
        raise CommandError("the two runs have no model with numbers under the same load in common")
    if as_json:
        json.dump(as_objects(found), sys.stdout, indent=1)
        print()
        return 0
    out = console()
    out.print(render_differences(documents, found, out.width))
    return 0


def carry_out(
    job: Job,
    json_file: str | None,
    csv_file: str | None,
    html_file: str | None,
    drawn: Callable[[Document, int], RenderableType] = render_all,
) -> int:
    """Measure and show the results; return the exit code. A run that is stopped early shows what it has."""
    check_files(json_file, csv_file, html_file)
    os.environ.pop("PROACT_ENGINE", None)  # each model names its own engine
    document = job.begin()
    try:
        with stoppable(), watch() as progress:
            complete = job.measure(document, progress)
    except StoppedError:
        if not empty(document):
            show(document, json_file, csv_file, html_file)
        raise
    show(document, json_file, csv_file, html_file, drawn)
    return 0 if complete else 1


def show(
    document: Document,
    json_file: str | None,
    csv_file: str | None,
    html_file: str | None,
    drawn: Callable[[Document, int], RenderableType] = render_all,
) -> None:
    """Print the tables; write the raw results and the report if the user asked for them."""
    if "-" not in (json_file, csv_file, html_file):
        out = console()
        out.print(drawn(document, out.width))
    wanted: tuple[tuple[str | None, str, Callable[[Document], str]], ...] = (
        (json_file, "raw results", lambda found: json.dumps(found) + "\n"),
        (csv_file, "raw results", to_csv),
        (html_file, "the report", to_html),
    )
    for file, what, written in wanted:
        if file is not None:
            write(file, what, written(document))


def write(file: str, what: str, text: str) -> None:
    """Write a result to a file, or to stdout if it is ``-``. Raises CommandError."""
    # A name from somebody's results may be no Unicode (half of a surrogate pair), which no file can hold.
    if file == "-":
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # as the page says of itself
        sys.stdout.write(text)
        return
    try:
        Path(file).write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise CommandError(f"can't write {file!r}: {error.strerror}", exit_code=1) from None
    print(f"proact: {what} in {file}", file=sys.stderr)


def read_results(path: str) -> Document:
    """Read results from a file. Raises CommandError."""
    try:
        return load(path)
    except ResultsError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"can't read {path!r}: {error.strerror}") from None


def check_files(
    json_file: str | None, csv_file: str | None, html_file: str | None, *, source: str | None = None
) -> None:
    """Raise CommandError if a requested file cannot be written or the report cannot be drawn.

    ``source`` is the file with the results, which none of them may replace.
    """
    files = (json_file, csv_file, html_file)
    if files.count("-") > 1:
        raise CommandError("only one of --json, --csv and --html can go to stdout")
    named = [os.path.realpath(path) for path in files if path not in (None, "-", os.devnull)]
    if len(set(named)) < len(named):
        raise CommandError("--json, --csv and --html would write over each other: name different files")
    if source is not None and os.path.realpath(source) in named:
        raise CommandError(f"{source!r} holds the results, and would be written over: name another file")
    for path in files:
        check_writable(path)
    if html_file is not None:
        try:
            drawing.require()
        except drawing.DrawingError as error:
            raise CommandError(str(error)) from None


def check_writable(path: str | None) -> None:
    """Raise CommandError if ``path`` cannot be written; before the run, not after minutes of it."""
    if path in (None, "-"):
        return
    existed = Path(path).exists()
    try:
        with Path(path).open("a"):
            pass
        if not existed:
            Path(path).unlink()
    except OSError as error:
        raise CommandError(f"can't write {path!r}: {error.strerror}") from None
