"""Owns: one case as a table, for a terminal and for a Markdown page. stats.py makes the figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import stats
from benchmarks.contenders import ALL, BASELINE

if TYPE_CHECKING:
    from collections.abc import Callable


def quantity(value: float) -> str:
    """A figure with three significant digits and a letter for thousands: 84.1 k."""
    letter = ""
    if value >= 1e6:
        value, letter = value / 1e6, " M"
    elif value >= 1e3:
        value, letter = value / 1e3, " k"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}{letter}"


def times(spread: stats.Spread | None) -> str:
    """A ratio with its spread over the rounds."""
    return "—" if spread is None else f"{spread.median:.2f} [{spread.low:.2f}–{spread.high:.2f}]"


@dataclass(frozen=True)
class Column:
    """A column: the `key` of every contender's runs, as it is or as a ratio to the baseline."""

    head: str
    key: str
    show: Callable[[stats.Spread], str]
    of_baseline: bool = False

    def cell(self, runs: list[stats.Run], name: str) -> str:
        """The cell of one contender in this column."""
        if self.of_baseline:
            return times(stats.ratio(runs, name, BASELINE, self.key))
        found = stats.figure(runs, name, self.key)
        return self.show(found) if found else "—"


def median(spread: stats.Spread) -> str:
    return quantity(spread.median)


def compared(head: str, key: str, ratio: str) -> tuple[Column, Column]:
    """Two columns: a figure, and its ratio to the baseline."""
    return Column(head, key, median), Column(ratio, key, median, of_baseline=True)


LATER = (
    *compared("B each", "memory", f"B × {BASELINE}"),
    Column("kernel B each", "kernel_memory", median),
    Column("B in all", "resident", median),
    Column("idle CPU µs/s", "idle_cpu_us", median),
    Column("p50 µs", "p50_us", median),
    Column("p99 µs", "p99_us", median),
    Column("load CPU", "load_busy", lambda spread: f"{spread.median:.0%}"),
)
"""The columns that not every kind of case has."""


def columns(case: dict[str, Any]) -> list[Column]:
    """The columns of a case's table: those that any of its runs has a figure for."""
    rate, relative = compared(f"{case['unit']}/s", "rate", f"× {BASELINE}")
    least = Column("least–most", "rate", lambda spread: f"{quantity(spread.low)}–{quantity(spread.high)}")
    found = {key for run in case["runs"] for key in run}
    return [
        rate,
        least,
        relative,
        *compared("CPU µs", "cpu_us", f"CPU × {BASELINE}"),
        *(column for column in LATER if column.key in found),
    ]


def rows(case: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and body of a case's table: the best contender first, failed ones last."""
    runs, primary = case["runs"], case.get("primary", "rate")
    shown = columns(case)
    head = ["", *(column.head for column in shown)]
    body: list[tuple[float, list[str]]] = []
    for name in stats.present(runs, ALL):
        deciding = stats.figure(runs, name, primary)
        if deciding is None:
            failed = stats.errors(runs, name)
            body.append((math.inf, [name, "failed: " + "; ".join(failed)] + [""] * (len(head) - 2)))
            continue
        place = -deciding.median if primary == "rate" else deciding.median
        body.append((place, [name, *(column.cell(runs, name) for column in shown)]))
    body.sort(key=lambda pair: pair[0])
    return head, [row for _, row in body]


def as_text(case: dict[str, Any]) -> str:
    """The table for a terminal."""
    if "missing" in case:
        return f"{case['title']}  ({case['name']})\n  not measured: {case['missing']}"
    head, body = rows(case)
    # The message of a failure may be long, so it gets its own line and widens no column.
    sound = [row for row in body if row[2]]
    widths = [max(len(row[i]) for row in [head, *sound]) for i in range(len(head))]
    lines = [f"{case['title']}  ({case['name']})"]
    for row in [head, *body]:
        if row in sound or row is head:
            cells = [
                row[0].ljust(max(widths[0], 15)),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            lines.append("  " + "  ".join(cells))
        else:
            lines.append(f"  {row[0].ljust(max(widths[0], 15))}  {row[1]}")
    return "\n".join(lines)


def as_markdown(case: dict[str, Any]) -> str:
    """The table for a page."""
    if "missing" in case:
        return f"Not measured: {case['missing']}."
    head, body = rows(case)
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row in body:
        row = [cell.replace("|", "\\|") for cell in row]
        name = f"**{row[0]}**" if row[0].startswith("proact-") else row[0]
        lines.append("| " + " | ".join([name, *row[1:]]) + " |")
    return "\n".join(lines)
