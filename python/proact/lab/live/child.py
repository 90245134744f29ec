"""The process that measures for the page: ``python -m proact.lab.live.child PARENT``.

Settings come in as one line of JSON on stdin; each step of the run goes out as one on stdout, last the
results. It is a process of its own because measuring blocks. SIGINT stops it, and it ends with its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from proact.lab.lifetime import die_with_parent
from proact.lab.live.form import settings_from_json
from proact.lab.run import Settings, run
from proact.lab.summary import Load, cpu_seconds
from proact.lab.table import describe

if TYPE_CHECKING:
    from proact.lab.measure import Cell
    from proact.lab.results import CellResult


class Teller:
    """An observer that tells each step on stdout."""

    def planned(self, settings: Settings, cells: int, seconds: float) -> None:
        tell("planned", cells=cells, seconds=seconds, settings=asdict(settings))

    def started(self, cell: Cell, done: int) -> None:
        load = Load(cell.workload, cell.connections, cell.active, cell.size, cell.rate)
        tell("started", model=cell.model, load=describe(load), done=done)

    def tick(self) -> None:
        pass

    def finished(self, result: CellResult) -> None:
        tell("finished", model=result["model"], load=describe(Load.of(result)), **numbers(result))


def numbers(result: CellResult) -> dict[str, Any]:
    """What the page shows of one cell; times in µs."""
    measured = result["measured"]
    if measured is None:
        return {"status": result["status"], "reason": result["reason"]}
    return {
        "status": result["status"],
        "rate": measured["messages"] / measured["seconds"],
        "p50": measured["latency"]["percentiles"]["p50"] / 1e3,
        "p99": measured["latency"]["percentiles"]["p99"] / 1e3,
        "cpu": cpu_seconds(measured) * 1e6 / measured["messages"],
    }


def tell(event: str, **facts: Any) -> None:
    """One line to the server."""
    print(json.dumps({"event": event, **facts}), flush=True)


def main(parent: int) -> int:
    """Measure; the exit code."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    os.environ.pop("PROACT_ENGINE", None)  # each model names its own engine
    settings = settings_from_json(sys.stdin.readline())
    try:
        document = run(settings, Teller())
    except KeyboardInterrupt:
        return 130
    tell("results", document=document)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
