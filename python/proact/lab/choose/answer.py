"""The answer: the models that win at each measured load around the question, and one sentence about them.

The winners at one load are the fastest models, those that can't be told from the fastest, and of these the
ones with the least CPU time per message. A model that wins on both sides of a question wins in between; that
is said. Where the sides disagree, or nothing good enough was measured, there is no recommendation.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Final

from proact.lab.choose.points import around, nearest, points
from proact.lab.registry import MODELS
from proact.lab.summary import fastest, share, thriftiest
from proact.lab.table import describe, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proact.lab.choose.points import Point
    from proact.lab.choose.question import Question
    from proact.lab.results import Document
    from proact.lab.spread import Spread
    from proact.lab.summary import Row

#: So many winners are named one by one.
_NAMED: Final = 3

#: A model whose threads or memory a reason is about, if it was measured.
_THREADS: Final = "threads"
_POLLING: Final = "nonblocking"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found for a question."""

    question: Question
    sentence: str
    models: tuple[str, ...]  # recommended, the best first; empty: there is no recommendation
    points: tuple[Point, ...]  # the evidence
    interpolated: bool
    unknown: dict[str, str]  # models that could not be compared, with the reason

    def as_object(self) -> dict[str, Any]:
        """In the form of JSON."""
        asked = self.question
        return {
            "question": {
                "connections": asked.connections,
                "active": asked.active,
                "does": asked.work,
                "seconds": asked.seconds,
                "size": asked.size,
            },
            "recommended": list(self.models),
            "sentence": self.sentence,
            "interpolated": self.interpolated,
            "evidence": [
                {
                    "load": describe(point.load),
                    "models": {
                        row.model: {
                            "messages_per_second": _interval(row.rate),
                            "cpu_us": _interval(row.cpu_us),
                            "repeats": row.repeats,
                        }
                        for row in point.rows
                    },
                }
                for point in self.points
            ],
            "not_compared": self.unknown,
            "measure": asked.command,
        }


def _interval(spread: Spread) -> dict[str, float]:
    return {"median": spread.median, "low": spread.low, "high": spread.high}


def answer(question: Question, document: Document) -> Answer:
    """Choose by the results of a run."""
    listed = points(document)
    found = around(question, listed)
    unknown = {name: reason for point in found.points for name, reason in point.unknown.items()}

    def without(reason: str) -> Answer:
        sentence = f"No recommendation for {question.words}: {reason}."
        return Answer(question, sentence, (), found.points, bool(found.between), unknown)

    if found.missing is not None:
        return _beyond(question, found.missing, nearest(question, listed))
    for point in found.points:
        if len(point.rows) < 2:
            reason = next(iter(point.unknown.values()), "no model was measured")
            return without(f"fewer than two models were measured well enough ({reason})")
    each = [winners(point.rows) for point in found.points]
    common = tuple(name for name in each[0] if all(name in others for others in each[1:]))
    if not common:
        sides = "; ".join(
            f"{_names(best)} at {describe(point.load)}"
            for best, point in zip(each, found.points, strict=True)
        )
        return without(f"it lies between loads with different winners ({sides})")
    level = all(len(point.rows) == len(common) for point in found.points)
    named = f"any of the {len(common)} models, none of which stands out" if level else _names(common)
    sentence = f"For {question.words.rstrip(',')}, use {named}"
    if found.between:
        sentence += f", best on both sides of it ({', '.join(found.between)}: interpolated, not measured)"
    sentence += f": {_figures(question, common[0], found.points)}{_reason(common, found.points)}."
    return Answer(question, sentence, common, found.points, bool(found.between), unknown)


def _beyond(question: Question, missing: str, near: Point | None) -> Answer:
    """No recommendation, because nothing was measured around the question; and what won nearest to it."""
    sentence = f"No recommendation for {question.words}: {missing}."
    if near is None:
        return Answer(question, sentence, (), (), interpolated=False, unknown={})
    able = tuple(name for name in winners(near.rows) if _limit(name) >= question.connections)
    if able:
        level = len(able) == len(near.rows)
        did = f"none of the {len(able)} models stood out" if level else f"{_names(able)} did best"
        sentence += f" The nearest load that was measured is {describe(near.load)}; there {did}."
    return Answer(question, sentence, (), (near,), interpolated=False, unknown=near.unknown)


def _limit(model: str) -> float:
    """The connections that a model can have."""
    return (MODELS[model].connection_limit if model in MODELS else None) or inf


def winners(rows: Sequence[Row]) -> tuple[str, ...]:
    """The models to use under one load, the best first."""
    best, level = fastest(rows)
    quick = [row for row in rows if row is best or row.model in level]
    thrifty, alike = thriftiest(quick)
    return (thrifty.model, *alike)


def _names(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    if len(names) <= _NAMED + 1:  # "1 that cannot be told from them" is no shorter than its name
        return f"{', '.join(names[:-1])} or {names[-1]}"
    return f"{', '.join(names[:_NAMED])} or {len(names) - _NAMED} that cannot be told from them"


def _row(point: Point, model: str) -> Row | None:
    return next((row for row in point.rows if row.model == model), None)


def _figures(question: Question, model: str, at: Sequence[Point]) -> str:
    """The best model's figures with their intervals; over several loads, from the least to the most."""
    rows = [row for point in at if (row := _row(point, model)) is not None]
    if len(rows) == 1:
        rate, cpu = rows[0].rate, rows[0].cpu_us
        allowed = ""
        if question.work == "wait":
            allowed = f", of the {question.active / question.seconds:,.0f} that the wait allows,"
        return (
            f"{model} serves {rate.median:,.0f} messages/s ({rate.low:,.0f} to {rate.high:,.0f}){allowed} "
            f"for {number(cpu.median)} µs of CPU each ({number(cpu.low)} to {number(cpu.high)})"
        )
    slow, quick = min(row.rate.low for row in rows), max(row.rate.high for row in rows)
    least, most = min(row.cpu_us.low for row in rows), max(row.cpu_us.high for row in rows)
    return (
        f"{model} serves {slow:,.0f} to {quick:,.0f} messages/s for {number(least)} to {number(most)} µs "
        "of CPU each"
    )


def _next(point: Point, first: Row) -> str | None:
    """What the fastest of the models that did not win lacks; ``first``'s figures have been given."""
    chosen = winners(point.rows)
    rest = [row for row in point.rows if row.model not in chosen]
    if not rest:
        return None
    after = max(rest, key=lambda row: row.rate.median)
    best, level = fastest(point.rows)
    if after is best or after.model in level:  # so it needs more CPU time than the thriftiest
        thrifty = next(row for row in point.rows if row.model == chosen[0])
        than = "" if thrifty is first else f" of {thrifty.model}"
        dearer = share(after.cpu_us, thrifty.cpu_us)
        return f"the next, {after.model}, is as fast for {dearer} times the CPU{than}"
    than = "that" if best is first else f"{best.model}'s rate"
    return f"the next, {after.model}, reaches {share(after.rate, best.rate)} of {than}"


def _reason(chosen: Sequence[str], at: Sequence[Point]) -> str:
    """What speaks against the others, as clauses that follow the figures."""
    point = max(at, key=lambda each: each.load.connections)
    clauses = []
    best = _row(point, chosen[0])
    if best is not None and (after := _next(point, best)) is not None:
        # The figures before it are of several loads.
        clauses.append(f"under {describe(point.load)}, {after}" if len(at) > 1 else after)
    threads = _row(point, _THREADS)
    if threads is not None and _THREADS not in chosen and point.load.connections > 1:
        costs = [f"{threads.memory.median / 1024:,.0f} KiB a connection"] if threads.memory else []
        costs.append(f"{threads.switches:.1f} context switches a message")
        clauses.append(f"threads cost {' and '.join(costs)}")
    if _POLLING in chosen:
        clauses.append(f"{_POLLING} keeps its core busy also while nothing comes")
    if best is not None and best.load_bound:
        clauses.append("the load had used up its core, so it may be faster")
    most = max(each.load.connections for each in at)
    if _limit("select") < most:
        clauses.append("select fails above 1,024 open files")
    return "".join(f"; {clause}" for clause in clauses)
