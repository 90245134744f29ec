"""Measuring what claims need, all of it in one run, and having them judged."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, Protocol

from proact.lab import timeline
from proact.lab.claims.trial import Evidence, Finding, MissingError
from proact.lab.run import Observer, Settings, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proact.lab.claims.trial import Trial
    from proact.lab.measure import Cell
    from proact.lab.results import Claim, Document

#: How often a cell is measured that needs an interval, and for how long, in seconds.
REPEAT: Final = 5
DURATION: Final = 0.2
WARMUP: Final = 0.05


class Watcher(Observer, timeline.Observer, Protocol):
    """Who is told of cells and of timelines."""


def measure(
    trials: Sequence[Trial], observer: Watcher, *, duration: float = DURATION, repeat: int = REPEAT
) -> tuple[Document, bool]:
    """Measure what these need, and judge; False beside the results if something failed to run."""
    cells = needed(trials, repeat)
    plans = list(dict.fromkeys(plan for trial in trials for plan in trial.plans))
    settings = Settings(
        tuple(dict.fromkeys([*(cell.model for cell in cells), *(plan.model for plan in plans)])),
        connections=tuple(sorted({cell.connections for cell in cells})),
        duration=duration,
        warmup=WARMUP,
        repeat=repeat,
        split=True,
    )
    random.Random(settings.seed).shuffle(cells)
    cells.sort(key=lambda cell: cell.repeat)  # so that a drift of the machine meets all of them alike
    split = {cell for trial in trials for need in trial.needs if need.split for cell in need.cells(1)}
    document = run(settings, observer, cells=cells, split=split)
    complete = timeline.add(document, plans, observer)
    document["claims"] = [judged(trial, document) for trial in trials]
    return document, complete


def needed(trials: Sequence[Trial], repeat: int) -> list[Cell]:
    """Every cell that one of them looks at, once."""
    return list(
        dict.fromkeys(cell for trial in trials for need in trial.needs for cell in need.cells(repeat))
    )


def judged(trial: Trial, document: Document) -> Claim:
    """What a document says of a claim."""
    try:
        found = trial.judge(Evidence(document))
    except MissingError as missing:
        found = Finding("not measured", str(missing), {})
    return {
        "name": trial.name,
        "text": trial.text,
        "source": trial.source,
        "verdict": found.verdict,
        "because": found.because,
        "evidence": found.evidence,
    }
