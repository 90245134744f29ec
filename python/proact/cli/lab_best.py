"""``proact lab best``: checks the arguments; ``proact.lab.best`` searches."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from proact.cli.error import CommandError
from proact.cli.lab import Duration, Models, Repeat  # noqa: TC001 - typer reads the annotations
from proact.cli.stopping import StoppedError, stoppable
from proact.lab.asked import chosen, number, period, seconds
from proact.lab.asked import duration as time
from proact.lab.best import Asked, Found, best, sentence
from proact.lab.job import MAX_REPEAT
from proact.lab.limits import MAX_SIZE
from proact.lab.progress import duration as shown
from proact.lab.progress import plural
from proact.lab.registry import MODELS, USUAL
from proact.lab.summary import ENOUGH
from proact.lab.table import SATURATED_NOTE, bar, console, counted, describe
from proact.lab.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Sequence


def find_best(
    p99: Annotated[str, typer.Option(metavar="TIME", help="The limit of the 99th percentile: 500us, 10ms.")],
    workload: Annotated[str, typer.Option(metavar="NAME", help=f"One of: {', '.join(WORKLOADS)}.")] = "echo",
    connections: Annotated[str, typer.Option(metavar="N", help="Connections at once.")] = "100",
    size: Annotated[str, typer.Option(metavar="BYTES", help="Bytes per message.")] = "1K",
    duration: Duration = 0.5,
    repeat: Repeat = 5,
    models: Models = "usual",
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout, no table.")] = False,
) -> int:
    """\b
    Examples:
      proact lab best --p99 10ms
      proact lab best --p99 2ms --workload wait-1ms --connections 200 --models threads,epoll,proact-io_uring
      proact lab best --p99 1ms --json

    How many messages a second each model answers with p99 under a limit: a search by halves for each repeat,
    with messages at fixed times, so that no stall is hidden. The answer is a median with its interval; a
    repeat that something disturbed does not count and is made again, and with fewer than five there is no
    answer. Exit code 1 if a model failed.
    """
    (name, *more) = chosen("workload", workload, WORKLOADS)
    if more:
        raise CommandError("a search is for one workload")
    count, each = number("--connections", connections), number("--size", size, most=MAX_SIZE)
    if WORKLOADS[name].churn or WORKLOADS[name].slow():
        raise CommandError(f"{name} has no fixed rate to search for")
    if not ENOUGH <= repeat <= MAX_REPEAT:
        raise CommandError(
            f"--repeat is {repeat}: an interval needs {ENOUGH} or more, {MAX_REPEAT:,} at most"
        )
    limit = period("--p99", p99, 1e-5, 10.0)
    known = chosen("model", models, MODELS, USUAL)
    asked = Asked(limit, name, count, each, known, seconds("--duration", duration, 0.05), repeat)
    os.environ.pop("PROACT_ENGINE", None)  # each model names its own engine
    missing = asked.missing
    usable = len(known) - len(missing)
    print(f"proact: {usable} model{plural(usable)}, about {shown(asked.seconds)}", file=sys.stderr)
    found = {name: Found(name, reason=missing.get(name)) for name in known}
    try:
        with stoppable():
            best(asked, found, lambda line: print(line, file=sys.stderr, flush=True))
    except StoppedError:
        if any(each.rates for each in found.values()):
            _show(asked, found, as_json=as_json)
        raise
    _show(asked, found, as_json=as_json)
    return 1 if any(each.reason and each.model not in missing for each in found.values()) else 0


def _show(asked: Asked, found: dict[str, Found], *, as_json: bool) -> None:
    """The answer on stdout, the model with the highest rate first."""
    listed = sorted(found.values(), key=lambda each: -(each.spread.median if each.spread else -1.0))
    if as_json:
        load = {"workload": asked.workload, "connections": asked.connections, "size": asked.size}
        models = [each.as_object() for each in listed]
        said = {"p99_limit": asked.limit, "sentence": sentence(asked, listed)} | load | {"models": models}
        json.dump(said, sys.stdout, indent=1)
        print()
        return
    out = console()
    out.print(Text(sentence(asked, listed), style="bold"), "", sep="\n")
    out.print(Text(f"{describe(asked.load, open_loop=True)}, p99 under {time(asked.limit)}", style="dim"))
    out.print(_table(listed, out.width))
    if any(each.load_bound for each in listed):
        out.print(Text(SATURATED_NOTE, style="dim"))


#: The width of a bar, and the least width of a terminal that has them.
_BAR: Final = 20
_ROOMY: Final = 70


def _table(found: Sequence[Found], width: int) -> Table:
    roomy = width >= _ROOMY
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("model", no_wrap=True)
    if roomy:
        table.add_column("", width=_BAR, no_wrap=True)
    for heading in ("msgs/s", "from", "to"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    most = max((each.spread.median for each in found if each.spread), default=1.0) or 1.0
    for each in found:
        spread = each.spread
        if spread is None:
            tried = each.disturbed + len(each.rates)
            why = each.reason or f"{each.disturbed} of {counted(tried, 'repeat')} disturbed"
            cells, note = ["-"] * 3, Text(f"not measured: {why}", "yellow")
        else:
            mark = "*" * each.load_bound
            cells = [f"{spread.median:,.0f}{mark}", f"{spread.low:,.0f}", f"{spread.high:,.0f}"]
            note = Text("" if spread.median else "no rate keeps the limit")
        drawn = [Text(bar(spread.median / most, _BAR) if spread else "", "cyan")] * roomy
        table.add_row(each.model, *drawn, *cells, note)
    return table
