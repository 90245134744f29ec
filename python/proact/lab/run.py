"""The runner behind ``proact lab run``: every model under the same loads, cell after cell in random order.

If a cell fails, its result says why, and the run continues. Whatever ends the run, also Ctrl-C, no process is
left running: each process is a context manager here, and asks the kernel to kill it if this process dies.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

from proact.lab import environment
from proact.lab.disturbance import Watch, is_disturbed
from proact.lab.files import FILES, SIZE
from proact.lab.files.bench import FileBench, UnmeasurableError
from proact.lab.lifetime import all_but_the_loads, pinned, separate_cores
from proact.lab.limits import refusal
from proact.lab.load_process import LoadError, LoadProcess
from proact.lab.measure import (
    COUNT_DURATION,
    COUNT_WARMUP,
    SPLIT_DURATION,
    SPLIT_WARMUP,
    Bench,
    Cell,
)
from proact.lab.registry import MODELS
from proact.lab.results import SCHEMA, CellResult, Document, Measured, Status
from proact.lab.server_process import ServerError
from proact.lab.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

#: So many cells more that were disturbed than that were not, and no more of them are measured again.
PATIENCE: Final = 10

#: Starting and ending a server and its connections, in seconds; only for estimating the time of a run.
_OVERHEAD: Final = 0.2


@dataclass(frozen=True, slots=True)
class Settings:
    """What to measure. Sizes in bytes per message, times in seconds per cell.

    On files ``connections`` are the operations at once, and ``active``, ``sizes`` and ``rates`` are unused.
    """

    models: tuple[str, ...] = tuple(MODELS)
    workloads: tuple[str, ...] = ("echo",)
    connections: tuple[int, ...] = (1, 10, 100)
    active: tuple[int | None, ...] = (None,)  #: how many of the connections send; None: all
    sizes: tuple[int, ...] = (1024,)
    rates: tuple[float | None, ...] = (None,)  #: intended messages per second; None: closed loop
    duration: float = 1.0
    warmup: float = 0.2
    repeat: int = 1
    again: bool = False  #: measure a cell that something disturbed once more
    counted: bool = False  #: count calls, threads and memory in each repeat, not only in the first
    split: bool = False  #: measure where the time goes, in a separate pass
    seed: int = field(default_factory=lambda: random.SystemRandom().randrange(1_000_000))

    def cells(self) -> list[Cell]:
        """Every cell once, in this seed's random order, so that a drift of the machine favours no model."""
        cells = [
            Cell(model, *load, repeat)
            for repeat in range(self.repeat)
            for load in self.loads()
            for model in self.models
        ]
        random.Random(self.seed).shuffle(cells)
        return cells

    def loads(self) -> list[tuple[str, int, int, int, float | None]]:
        """Every load once: workload, connections, the number that send, size, rate."""
        return list(
            dict.fromkeys(
                (workload, connections, min(active or connections, connections), size, rate)
                for workload in self.workloads
                for size in ((SIZE,) if workload in FILES else self.sizes)
                for connections in self.connections
                for active in ((None,) if workload in FILES else self.active)
                for rate in ((None,) if workload in FILES else self.rates)
            )
        )

    def splits(self) -> list[Cell]:
        """The cells that have a probing pass if the user wants it: the first repeat of each."""
        return [cell for cell in self.cells() if self.split and cell.repeat == 0]

    def seconds(self, *, split: bool, counted: bool) -> float:
        """Roughly how long one cell takes."""
        splitting = _OVERHEAD + SPLIT_WARMUP + SPLIT_DURATION if split else 0.0
        counting = _OVERHEAD + COUNT_WARMUP + COUNT_DURATION if counted else 0.0
        return _OVERHEAD + self.warmup + self.duration + counting + splitting

    def counts(self, cell: Cell) -> bool:
        """Whether a cell has a counting pass: the first repeat; each if that is wanted, or about memory."""
        asks = cell.workload in WORKLOADS and WORKLOADS[cell.workload].lazy is not None
        return self.counted or not cell.repeat or asks


class Observer(Protocol):
    """Watches a run. It is called in the process that measures, so it must be quick."""

    def planned(self, settings: Settings, cells: int, seconds: float) -> None:
        """The run begins: ``cells`` will be measured, in about ``seconds``."""

    def started(self, cell: Cell, done: int, cells: int) -> None:
        """``cell`` is measured now; ``done`` of ``cells`` are finished (more, if some are measured again)."""

    def tick(self) -> None:
        """Some milliseconds have passed."""

    def heard(self, rate: float, p50: int, p99: int) -> None:
        """Half a second of load has passed: messages per second in it, latencies so far (ns; 0: none yet)."""

    def finished(self, result: CellResult) -> None:
        """One cell is done, or failed, or could not be measured."""


def run(
    settings: Settings,
    observer: Observer,
    *,
    cells: Sequence[Cell] | None = None,
    split: Collection[Cell] | None = None,
    document: Document | None = None,
    load_command: tuple[str, ...] | None = None,
) -> Document:
    """Measure all cells, or the given ones, and return the raw results.

    ``split``: the cells with a probing pass, by default the first repeat of each. Each result is added to
    ``document``, if there is one, as soon as it exists. ``load_command`` replaces the load in tests.
    """
    document = blank(settings) if document is None else document
    cells = settings.cells() if cells is None else cells
    missing = {
        (model, workload, connections): MODELS[model].missing(connections, workload)
        for model, workload, connections in {(each.model, each.workload, each.connections) for each in cells}
    }
    refused = {
        (each.workload, each.connections): refusal(opened(each.workload, each.connections)) for each in cells
    }
    results = document["cells"]
    measurable: list[Cell] = []
    for cell in cells:
        if reason := refused[cell.workload, cell.connections]:
            results.append(_result(cell, "failed", reason))
        elif reason := missing[cell.model, cell.workload, cell.connections]:
            results.append(_result(cell, "not measured", reason))
        else:
            measurable.append(cell)
    probed = frozenset(settings.splits() if split is None else split)
    seconds = sum(
        settings.seconds(split=cell in probed, counted=settings.counts(cell)) for cell in measurable
    )
    observer.planned(settings, len(measurable), seconds)
    server_cpu, load_cpu = separate_cores() or (None, None)
    several = all_but_the_loads()
    # This process reads clocks while the load works, so it shares the load's core, not the server's.
    on_files = FileBench(
        seed=settings.seed,
        cpu=server_cpu,
        warmup=settings.warmup,
        duration=settings.duration,
        tick=observer.tick,
        split=probed,
    )
    with (
        pinned(load_cpu),
        LoadProcess(cpu=load_cpu, command=load_command, heard=observer.heard) as load,
        on_files,
    ):
        counted = frozenset(filter(settings.counts, cells))
        bench = Bench(
            load,
            server_cpu,
            settings.warmup,
            settings.duration,
            observer.tick,
            probed,
            counted,
            load_cpu,
            several,
        )
        for result in _measure_all(bench, on_files, measurable, settings.again, observer.started):
            results.append(result)  # first, so that a reported result is kept, whatever ends the run now
            observer.finished(result)
    return document


def opened(workload: str, connections: int) -> int:
    """The connections that one process has open for a load."""
    return WORKLOADS[workload].opened(connections) if workload in WORKLOADS else connections


def blank(settings: Settings) -> Document:
    """New results, with nothing measured yet."""
    return {
        "schema": SCHEMA,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "seed": settings.seed,
        "settings": asdict(settings) | {"pinned": separate_cores() is not None},
        "environment": environment.describe(),
        "models": {
            name: {"kind": MODELS[name].kind, "family": MODELS[name].family} for name in settings.models
        },
        "cells": [],
        "timelines": [],
        "claims": [],
    }


def _measure_all(
    bench: Bench,
    on_files: FileBench,
    cells: list[Cell],
    again: bool,
    started: Callable[[Cell, int, int], None],
) -> Iterator[CellResult]:
    """The result of each cell, in their order; then, if wanted, one more of those that something disturbed.

    That ends when there is no hope: most of what was measured was disturbed.
    """
    waiting, excess, order = deque(cells), 0, 0
    while waiting:
        cell = waiting.popleft()
        started(cell, order, order + len(waiting) + 1)
        files = cell.workload in FILES
        watch = Watch(files=files)
        try:
            measured = (on_files if files else bench).measure(cell)
        except UnmeasurableError as error:
            yield _result(cell, "not measured", str(error), order=order)
        except (ServerError, LoadError) as error:
            yield _result(cell, "failed", str(error), order=order)
        else:
            measured["disturbance"] = watch.disturbance()
            disturbed = is_disturbed(measured["disturbance"])
            excess = max(0, excess + (1 if disturbed else -1))
            if again and disturbed and excess < PATIENCE and order + len(waiting) + 1 < 2 * len(cells):
                waiting.append(cell)
            yield _result(cell, "ok", measured=measured, order=order)
        order += 1


def _result(
    cell: Cell,
    status: Status,
    reason: str | None = None,
    *,
    measured: Measured | None = None,
    order: int = -1,
) -> CellResult:
    return {
        "workload": cell.workload,
        "model": cell.model,
        "connections": cell.connections,
        "active": cell.active,
        "size": cell.size,
        "rate": cell.rate,
        "repeat": cell.repeat,
        "order": order,
        "status": status,
        "reason": reason,
        "measured": measured,
    }
