"""The process that measures for the page: ``python -m proact.lab.live.child PARENT``.

The form comes in as one line of JSON on stdin; each step of the run goes out as one line on stdout, the
results last. It is a separate process because measuring blocks. SIGINT stops it, with the results until then,
and it ends with its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from proact.lab.lifetime import die_with_parent
from proact.lab.live.form import job_of
from proact.lab.summary import Load, cpu_seconds, empty
from proact.lab.table import amount, describe

if TYPE_CHECKING:
    from proact.lab.measure import Cell
    from proact.lab.results import CellResult
    from proact.lab.run import Settings
    from proact.lab.timeline import Taken

#: The approximate seconds that a timeline takes, most of them for its server to start.
_TIMELINE: Final = 0.4


class Teller:
    """An observer that reports each step on stdout; ``timelines`` of them follow the cells."""

    def __init__(self, timelines: int) -> None:
        self._timelines = timelines
        self._seconds, self._steps, self._begun = 0.0, 0, time.monotonic()

    def planned(self, settings: Settings, cells: int, seconds: float) -> None:
        self._steps, self._seconds = cells + self._timelines, seconds + self._timelines * _TIMELINE
        self._begun = time.monotonic()
        tell("planned", steps=self._steps, seconds=self._seconds)

    def started(self, cell: Cell, done: int, cells: int) -> None:
        self._steps = cells + self._timelines
        load = Load(cell.workload, cell.connections, cell.active, cell.size, cell.rate)
        tell("started", model=cell.model, load=describe(load), steps=self._steps, left=self._left(done))

    def tick(self) -> None:
        pass

    def heard(self, rate: float, p50: int, p99: int) -> None:
        tell("heard", rate=rate, p50=p50 / 1e3, p99=p99 / 1e3)

    def _left(self, done: int) -> float:
        """The seconds that are left, by how long the steps took so far."""
        passed = time.monotonic() - self._begun
        return passed / done * (self._steps - done) if done else self._seconds

    def finished(self, result: CellResult) -> None:
        tell("finished", model=result["model"], load=describe(Load.of(result)), **numbers(result))

    def note(self, what: str) -> None:
        tell("noted", what=what)

    def taken(self, taken: Taken) -> None:
        plan, timeline = taken.plan, taken.timeline
        facts: dict[str, Any]
        if timeline is None:
            facts = {"status": "failed" if taken.failed else "not measured", "reason": taken.reason}
        else:
            facts = {"status": "ok", "answered": timeline["answered"]}
        tell("taken", model=plan.model, load=f"{plan.workload}, one request x {amount(plan.size)}", **facts)


def numbers(result: CellResult) -> dict[str, Any]:
    """The figures of one cell that the page shows; times in µs."""
    measured = result["measured"]
    if measured is None:
        return {"status": result["status"], "reason": result["reason"]}
    return {
        "status": result["status"],
        "fixed": result["rate"] is not None,
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
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have set it to be ignored
    os.environ.pop("PROACT_ENGINE", None)  # each model names its own engine
    job = job_of(json.loads(sys.stdin.readline()))
    document, teller = job.begin(), Teller(len(job.plans))
    if not job.cells:
        teller.planned(job.settings, 0, 0.0)
    try:
        job.measure(document, teller)
    except KeyboardInterrupt:
        if empty(document):
            return 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # too late: the results go out whole
    for claim in document["claims"]:
        tell("judged", text=claim["text"], verdict=claim["verdict"], because=claim["because"])
    tell("results", document=document)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
