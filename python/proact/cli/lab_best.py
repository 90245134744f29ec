"""``proact lab best``: checks the arguments; ``proact.lab.best`` searches."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from proact.cli.error import CommandError
from proact.cli.lab import Duration, Models, Repeat  # noqa: TC001 - typer reads the annotations
from proact.cli.stopping import stoppable
from proact.lab.asked import chosen, numbers, seconds
from proact.lab.best import Asked, Found, best
from proact.lab.choose.question import period
from proact.lab.job import MAX_REPEAT
from proact.lab.limits import MAX_SIZE
from proact.lab.progress import duration as shown
from proact.lab.progress import plural
from proact.lab.registry import MODELS, USUAL
from proact.lab.summary import ENOUGH
from proact.lab.table import bar, console
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
    repeat that something disturbed does not count, and with fewer than five there is no answer. Exit code 1
    if a model failed.
    """
    (name, *more), (count, *others), (each, *rest) = (
        chosen("workload", workload, WORKLOADS),
        numbers("--connections", connections),
        numbers("--size", size, most=MAX_SIZE),
    )
    if more or others or rest:
        raise CommandError("a search is for one workload, one number of connections and one size")
    if WORKLOADS[name].churn or WORKLOADS[name].slow():
        raise CommandError(f"{name} has no fixed rate to search for")
    if not ENOUGH <= repeat <= MAX_REPEAT:
        raise CommandError(
            f"--repeat is {repeat}: an interval needs {ENOUGH} or more, {MAX_REPEAT:,} at most"
        )
    limit = seconds("--p99", period("--p99", p99), 1e-5, 10.0)
    known = chosen("model", models, MODELS, USUAL)
    asked = Asked(limit, name, count, each, known, seconds("--duration", duration, 0.05), repeat)
    os.environ.pop("PROACT_ENGINE", None)  # each model names its own engine
    print(f"proact: {len(known)} model{plural(len(known))}, about {shown(asked.seconds)}", file=sys.stderr)
    with stoppable():
        found = best(asked, lambda line: print(line, file=sys.stderr, flush=True))
    if as_json:
        json.dump({"p99_limit": limit, "models": [each.as_object() for each in found]}, sys.stdout, indent=1)
        print()
    else:
        console().print(_table(found))
    missing = {name: MODELS[name].missing(count, asked.workload) for name in known}
    return 1 if any(each.reason and not missing[each.model] for each in found) else 0


def _table(found: Sequence[Found]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("model", no_wrap=True)
    table.add_column("", width=20, no_wrap=True)
    for heading in ("msgs/s", "from", "to"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    most = max((each.spread.median for each in found if each.spread), default=1.0) or 1.0
    for each in found:
        if (spread := each.spread) is None:
            busy = f"{each.disturbed} of {each.disturbed + len(each.rates)} repeats disturbed"
            why = Text(f"not measured: {each.reason or busy}", "yellow")
            table.add_row(each.model, "", "-", "-", "-", why)
            continue
        figures = (f"{value:,.0f}" for value in (spread.median, spread.low, spread.high))
        note = "" if spread.median else "no rate keeps the limit"
        table.add_row(each.model, Text(bar(spread.median / most, 20), "cyan"), *figures, note)
    return table
