"""Owns: the statistics of the raw runs: medians, spreads, and ratios within one round. Pure: no clock, no
file, no process.

A run is the result of one contender in one round of one case: `{"contender", "round", "rate", "cpu_us",
...}`, or `{"contender", "round", "error"}`. A machine's speed drifts; the ratio of two contenders in the same
round, seconds apart, drifts much less. So ratios are taken per round, and their median counts.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

Run = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """A median with the least and the greatest value, and the quartiles."""

    median: float
    low: float
    high: float
    q1: float
    q3: float
    n: int


def spread(values: list[float]) -> Spread | None:
    """The spread of some values, or None when there are none."""
    if not values:
        return None
    q1, _, q3 = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return Spread(statistics.median(values), min(values), max(values), q1, q3, len(values))


def by_round(runs: list[Run], contender: str, key: str) -> dict[int, float]:
    """One figure of one contender in each round that it finished."""
    return {run["round"]: run[key] for run in runs if run["contender"] == contender and key in run}


def figure(runs: list[Run], contender: str, key: str) -> Spread | None:
    """One figure of one contender over all rounds."""
    return spread(list(by_round(runs, contender, key).values()))


def ratio(runs: list[Run], contender: str, other: str, key: str) -> Spread | None:
    """`contender`'s figure over `other`'s, round by round."""
    ours, theirs = by_round(runs, contender, key), by_round(runs, other, key)
    return spread([ours[n] / theirs[n] for n in sorted(ours.keys() & theirs.keys()) if theirs[n]])


def errors(runs: list[Run], contender: str) -> list[str]:
    """The error messages of one contender, each once."""
    return list(
        dict.fromkeys(run["error"] for run in runs if run["contender"] == contender and "error" in run)
    )


def present(runs: list[Run], order: tuple[str, ...]) -> list[str]:
    """The contenders that took part, in the given order."""
    seen = {run["contender"] for run in runs}
    return [name for name in order if name in seen]
