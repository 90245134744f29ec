"""What was measured well enough to choose by, and which of it lies around a question.

A repeat counts if nothing disturbed it, and a model if five of its repeats count. A question that was not
measured itself is answered only from loads on both sides of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Final

from proact.lab.asked import duration
from proact.lab.choose.question import WORKS, work_of
from proact.lab.disturbance import DISTURBED, named
from proact.lab.summary import ENOUGH, Load, Row, blocks
from proact.lab.table import amount, counted
from proact.lab.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proact.lab.choose.question import Question
    from proact.lab.results import CellResult, Document, Measured

#: The quantities of a load, in the order of ``where``.
AXES: Final = ("work", "bytes", "connections", "connections that send")


@dataclass(frozen=True, slots=True)
class Point:
    """One measured load."""

    load: Load
    rows: tuple[Row, ...]  # the models with enough repeats; not the ceilings
    unknown: dict[str, str]  # the models without a number to choose by, with the reason

    @property
    def where(self) -> tuple[float, float, float, float]:
        """The load as four numbers."""
        work = WORKLOADS[self.load.workload].seconds or 0.0
        return (work, self.load.size, self.load.connections, self.load.active)


@dataclass(frozen=True, slots=True)
class Around:
    """The measured loads around a question."""

    points: tuple[Point, ...]  # one that is the question, or those on both sides of it
    between: tuple[str, ...]  # the quantities that were not measured at the question's value, in words
    missing: str | None  # why there are no points


def points(document: Document) -> list[Point]:
    """Each load of a run that a question can be about. Only a closed loop shows what a model can do."""
    loads = [block.load for block in blocks(document)]
    quiet = [
        cell for cell in document["cells"] if cell["measured"] is None or disturbed(cell["measured"]) is None
    ]
    found = {block.load: block for block in blocks({**document, "cells": quiet})}
    listed = []
    for load in (load for load in loads if load.rate is None and _known(load)):
        block = found.get(load)
        rows = [row for row in block.rows if row.family != "ceiling"] if block else []
        unknown = {each.model: each.reason for each in block.absent} if block else {}
        enough = tuple(row for row in rows if row.repeats >= ENOUGH)
        cells = [cell for cell in document["cells"] if Load.of(cell) == load]
        few = {
            name: reason
            for name, facts in document["models"].items()
            if facts["family"] != "ceiling" and name not in unknown and name not in {r.model for r in enough}
            if (reason := _too_few([cell for cell in cells if cell["model"] == name])) is not None
        }
        listed.append(Point(load, enough, few | unknown))  # what more repeats would help comes first
    return listed


def disturbed(measured: Measured) -> str | None:
    """By what and how much a repeat was disturbed; None if it was not."""
    found = measured.get("disturbance")
    if found is not None:
        return named(found) if found["cores"] > DISTURBED else None
    cores = measured["others_cpu"]  # all that older results know
    return f"{cores:.2f} cores by others" if cores > DISTURBED else None


def _known(load: Load) -> bool:
    return load.workload in WORKLOADS and work_of(load.workload) is not None


def _too_few(cells: Sequence[CellResult]) -> str | None:
    """Why a model that was measured can't be used; None if it was not measured."""
    taken = [cell["measured"] for cell in cells if cell["measured"] is not None]
    if not taken:
        return None
    why = [found for each in taken if (found := disturbed(each))]
    if not why:
        return f"{len(taken)} repeat{'s' if len(taken) > 1 else ''}, and an interval needs {ENOUGH}"
    worst = Counter(why).most_common(1)[0][0]
    return f"{len(why)} of {len(taken)} repeats disturbed ({worst}), and an interval needs {ENOUGH} others"


def around(question: Question, listed: Sequence[Point]) -> Around:
    """The point that is the question; or the points on both sides of it in each quantity that differs."""
    same = [point for point in listed if work_of(point.load.workload) == question.work]
    if not same:
        known = sorted({work_of(point.load.workload) or "" for point in listed}, key=list(WORKS).index)
        other = (
            f"only of requests of the kinds {', '.join(known)}"
            if known
            else "of no load that a question is about"
        )
        return Around((), (), f"there are results {other}")
    # Where all of them send, the number that sends is no quantity of its own.
    if question.active == question.connections:
        all_send = [point for point in same if point.load.active == point.load.connections]
        same = all_send or same
    wanted = (question.seconds, question.size, question.connections, question.active)
    sides: list[set[float]] = []
    wider = near = same
    for at, value in enumerate(wanted):
        # Of each quantity only the loads on both sides of the quantities before it count.
        values = {point.where[at] for point in near}
        lower = max((each for each in values if each <= _just_over(value)), default=None)
        upper = min((each for each in values if each >= value * (1 - 1e-9)), default=None)
        if lower is None or upper is None:
            edge = min(values) if lower is None else max(values)
            beyond = "below" if lower is None else "above"
            many = "with so many connections " if AXES[at] == AXES[-1] else ""
            return Around((), (), f"{many}nothing {beyond} {shown(at, edge)} was measured")
        sides.append({lower, upper})
        wider, near = near, [point for point in near if point.where[at] in (lower, upper)]
    if _apart(sides, near) is not None:  # more loads have to agree then, but they lie on both sides
        near = wider
        sending = {point.where[-1] for point in near}
        sides[-1] = {min(sending), max(sending)}
    if (apart := _apart(sides, near)) is not None:
        return Around((), (), f"{AXES[apart]} and the rest were not measured together on both sides")
    if all(point.load.active == point.load.connections for point in near):
        sides.pop()  # all of them send: "between 1 and 100 connections" says it
    between = tuple(
        f"{shown(at, min(both))} and {shown(at, max(both))}" for at, both in enumerate(sides) if len(both) > 1
    )
    return Around(tuple(near), between, None)


def _apart(sides: Sequence[set[float]], near: Sequence[Point]) -> int | None:
    """The first quantity that the points have on one side only."""
    for at, both in enumerate(sides):
        if not both <= {point.where[at] for point in near}:
            return at
    return None


#: How many times as much or as little of anything a load may have and still be called near.
_NEAR: Final = 16.0


def nearest(question: Question, listed: Sequence[Point]) -> Point | None:
    """Of the loads under which models can be compared, the one most like the question; None if none is."""
    wanted = (question.seconds, question.size, question.connections, question.active)

    def factors(point: Point) -> list[float]:
        both = zip(wanted, point.where, strict=True)
        return [max(mine / theirs, theirs / mine) for mine, theirs in both if mine]

    near = [
        point
        for point in listed
        if work_of(point.load.workload) == question.work
        and len(point.rows) > 1
        and max(factors(point)) <= _just_over(_NEAR)
    ]
    return min(near, key=lambda point: prod(factors(point)), default=None)


def _just_over(value: float) -> float:
    return value * (1 + 1e-9)


def shown(axis: int, value: float) -> str:
    """A value on an axis, in words."""
    if axis == 0:
        return duration(value)
    if axis == 1:
        return amount(int(value))
    if axis == 2:
        return counted(int(value), "connection")
    return f"{value:,.0f} that send{'s' if value == 1 else ''}"
