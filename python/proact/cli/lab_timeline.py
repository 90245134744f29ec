"""``proact lab timeline``: checks the arguments; ``proact.lab`` takes and draws the timelines."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from proact.cli.lab import Html, Json, Models, carry_out
from proact.lab.asked import chosen, period
from proact.lab.job import of_timelines
from proact.lab.registry import MODELS
from proact.lab.timeline import DELAY, REQUESTS
from proact.lab.workloads import WORKLOADS

#: The least and the longest delay, in seconds: a model that polls during the delay fills the trace.
_DELAYS: Final = (0.0001, 1.0)


def timeline(
    models: Models = "all",
    workload: Annotated[str, typer.Option(metavar="NAME", help=f"One of: {', '.join(WORKLOADS)}.")] = "echo",
    size: Annotated[str, typer.Option(metavar="BYTES", help="Bytes of content, up to 64K.")] = "1024",
    delay: Annotated[
        str, typer.Option(metavar="TIME", help="How long the server waits before it is asked: 500us, 5ms.")
    ] = f"{DELAY * 1e3:g}ms",
    requests: Annotated[int, typer.Option(help="Requests per model; the median one is shown.")] = REQUESTS,
    json_file: Json = None,
    html_file: Html = None,
) -> int:
    """\b
    Examples:
      proact lab timeline
      proact lab timeline --models blocking,select,epoll,proact-io_uring
      proact lab timeline --size 64K --delay 20ms --html timelines.html

    One request through each I/O model, call by call, in microseconds: where the server's process waited,
    and who copied the data. The five figures of Stevens' UNIX Network Programming, ch. 6, measured on this
    machine, and the sixth, which compares them. Exit code 1 if a model failed.
    """
    job = of_timelines(
        chosen("model", models, MODELS),
        workload,
        size,
        delay=period("--delay", delay, *_DELAYS),
        requests=requests,
    )
    return carry_out(job, json_file, None, html_file)
