"""The measurements of one document: cells under load, timelines, and claims that are judged by both.

Turns the request of a person, from a shell or a form, into a ``Job``; a wrong request is an AskedError.
Ctrl-C ends a job early: its document keeps what was measured until then, and says that it is incomplete.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from proact.lab import timeline
from proact.lab.asked import AskedError, chosen, numbers, seconds
from proact.lab.claims.trial import ENOUGH, judged
from proact.lab.files import FILES
from proact.lab.limits import MAX_SIZE, refusal
from proact.lab.run import Observer, Settings, blank, opened, run
from proact.lab.summary import failed
from proact.lab.timeline import DELAY, REQUESTS, Plan
from proact.lab.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proact.lab.claims.trial import Trial
    from proact.lab.measure import Cell
    from proact.lab.results import Document

#: The most repeats of a cell.
MAX_REPEAT: Final = 1000

#: The rates that the load generator accepts, in messages per second.
MAX_RATE: Final = 10_000_000

#: All workloads: files also by kind; idle is echo over connections of which few send.
LOADS: Final = (*WORKLOADS, "files", *FILES, "idle")

#: The default numbers of connections; on files, these are operations at once.
CONNECTIONS: Final = "1,100"
IDLE_CONNECTIONS: Final = "10,100,1000,10000"
FILES_AT_ONCE: Final = "1,16"
IDLE_ACTIVE: Final = "1"
SIZE: Final = "1024"

#: How often a cell that needs an interval is measured for a claim, and for how long, in seconds.
CLAIM_REPEAT: Final = 5
CLAIM_DURATION: Final = 0.2
CLAIM_WARMUP: Final = 0.05


class Watcher(Observer, timeline.Observer, Protocol):
    """The observer of cells and of timelines."""


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that goes into one document."""

    settings: Settings
    cells: tuple[Cell, ...] = ()
    split: frozenset[Cell] = frozenset()  #: the cells with a probing pass
    plans: tuple[Plan, ...] = ()
    trials: tuple[Trial, ...] = ()

    def begin(self) -> Document:
        """Its document, with nothing measured yet."""
        document = blank(self.settings)
        if self.plans and not self.cells:
            document["settings"]["delay"] = self.plans[0].delay
        return document

    def measure(self, document: Document, observer: Watcher) -> bool:
        """Measure into ``document``; False if something failed to run.

        Passes KeyboardInterrupt on, after it has noted in ``stopped`` how far the run came.
        """
        try:
            if self.cells:
                run(self.settings, observer, cells=self.cells, split=self.split, document=document)
            complete = timeline.add(document, self.plans, observer)
            document["claims"] = [judged(trial, document) for trial in self.trials]
        except KeyboardInterrupt:
            document["stopped"] = self._progress(document)
            raise
        return complete and not failed(document)

    def _progress(self, document: Document) -> str:
        parts = (
            (document["cells"], self.cells, "cells"),
            (document["timelines"], self.plans, "timelines"),
        )
        come = " and ".join(
            f"{len(done)} of {len(planned)} {what}" for done, planned, what in parts if planned
        )
        return come + ("; no claim is judged by half of what it needs" if self.trials else "")


def of_load(settings: Settings, *, timelines: bool = False, dashes: str = "--") -> Job:
    """Every model under every load, with a timeline of each model if wanted."""
    _check(settings, dashes)
    requested = [name for name in settings.workloads if name in WORKLOADS]
    if timelines and not requested:
        raise AskedError("timelines need a workload with requests: files has none")
    plans = [Plan(model, requested[0]) for model in settings.models] if timelines else []
    return Job(settings, tuple(settings.cells()), frozenset(settings.splits()), tuple(plans))


def of_timelines(
    models: tuple[str, ...],
    workload: str,
    size: str,
    *,
    delay: float = DELAY,
    requests: int = REQUESTS,
    dashes: str = "--",
) -> Job:
    """One request through each model."""
    works = chosen("workload", workload, WORKLOADS)
    sizes = numbers(f"{dashes}size", size or SIZE, most=timeline.MAX_SIZE)
    if len(works) > 1 or len(sizes) > 1:
        raise AskedError("a timeline is of one workload and one size")
    if not 1 <= requests <= 1000:
        raise AskedError(f"{dashes}requests is {requests}: it must be from 1 to 1000")
    settings = Settings(models, works, connections=(1,), sizes=sizes, repeat=requests)
    plans = (Plan(name, works[0], sizes[0], delay, requests) for name in models)
    return Job(settings, plans=tuple(plans))


def of_claims(trials: Sequence[Trial], *, duration: float, repeat: int, dashes: str = "--") -> Job:
    """All measurements that these claims need, in one run."""
    cells = needed(trials, repeat)
    plans = tuple(dict.fromkeys(plan for trial in trials for plan in trial.plans))
    settings = Settings(
        tuple(dict.fromkeys([*(cell.model for cell in cells), *(plan.model for plan in plans)])),
        connections=tuple(sorted({cell.connections for cell in cells})),
        duration=duration,
        warmup=CLAIM_WARMUP,
        repeat=repeat,
        again=True,
        counted=True,
        split=True,
    )
    _check(settings, dashes)
    if repeat < ENOUGH:
        raise AskedError(
            f"{dashes}repeat is {repeat}: a claim is decided by an interval, which needs {ENOUGH} or more"
        )
    random.Random(settings.seed).shuffle(cells)
    cells.sort(key=lambda cell: cell.repeat)  # so that a drift of the machine affects all cells alike
    split = {cell for trial in trials for need in trial.needs if need.split for cell in need.cells(repeat)}
    return Job(settings, tuple(cells), frozenset(split), plans, tuple(trials))


def needed(trials: Sequence[Trial], repeat: int) -> list[Cell]:
    """Every cell that one of the claims looks at, once."""
    return list(
        dict.fromkeys(cell for trial in trials for need in trial.needs for cell in need.cells(repeat))
    )


def asked_loads(
    workload: str, connections: str, active: str, size: str, rate: str, *, dashes: str = "--"
) -> dict[str, Any]:
    """The fields of ``Settings`` that describe the load; an empty one gets its default.

    ``dashes`` stand before the names of options in messages.
    """
    timed = (name for name in map(str.strip, workload.split(",")) if name in WORKLOADS and name not in LOADS)
    everything = tuple(name for name in LOADS if name != "idle")  # which has connections of its own
    names = everything if workload.strip() == "all" else chosen("workload", workload, (*LOADS, *timed))
    names = tuple(dict.fromkeys(each for name in names for each in (FILES if name == "files" else (name,))))
    if "idle" in names and len(names) > 1:
        raise AskedError("idle has connections of its own: run it by itself")
    idle, files = names == ("idle",), set(names) <= FILES.keys()
    if files and (active or rate or size):
        options = f"no {dashes}active, no {dashes}rate and no {dashes}size"
        raise AskedError(f"files have {options}: an operation moves 4 KiB")
    usual = IDLE_CONNECTIONS if idle else FILES_AT_ONCE if files else CONNECTIONS
    active = active or (IDLE_ACTIVE if idle else "")
    many = numbers(f"{dashes}connections", connections or usual)
    sending = numbers(f"{dashes}active", active) if active else ()
    if max(sending, default=0) > min(many):
        raise AskedError(f"{dashes}active is {max(sending):,}, but {dashes}connections is {min(many):,}")
    rates = numbers(f"{dashes}rate", rate, most=MAX_RATE) if rate else ()
    return {
        "workloads": ("echo",) if idle else names,
        "connections": many,
        "active": sending or (None,),
        "sizes": numbers(f"{dashes}size", size or SIZE, most=MAX_SIZE),
        "rates": tuple(map(float, rates)) or (None,),
    }


def _check(settings: Settings, dashes: str) -> None:
    seconds(f"{dashes}duration", settings.duration, least=0.01)
    seconds(f"{dashes}warmup", settings.warmup, least=0.0)
    if not 1 <= settings.repeat <= MAX_REPEAT:
        raise AskedError(f"{dashes}repeat is {settings.repeat}: it must be from 1 to {MAX_REPEAT:,}")
    reasons = [
        refusal(opened(workload, connections))
        for workload in settings.workloads
        for connections in settings.connections
    ]
    if reasons and all(reasons):  # otherwise measure the other cells
        raise AskedError(str(reasons[0]))
