"""Owns: the outcome of a test, and its meaning in view of the exclusions.

It must not know how a test was run.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from . import exclusions

# The ways in which a test can end. "apart": it passed, but no loop under test ran in it.
PASSED, APART, SKIPPED = "passed", "apart", "skipped"
BAD = ("failed", "error", "timeout", "crashed", "no loop")


@dataclass
class Outcome:
    """One test's end."""

    id: str
    word: str
    why: str = ""
    """The last line of the traceback, or why it was skipped."""
    output: str = ""
    seconds: float = 0.0
    exclusion: exclusions.Exclusion | None = None

    @property
    def group(self) -> str:
        return self.id.partition("/")[0]

    @property
    def bad(self) -> bool:
        return self.word in BAD

    @property
    def excluded(self) -> bool:
        return self.exclusion is not None

    @property
    def unexpected(self) -> bool:
        """Whether it failed although it was not excluded, or passed although it was."""
        return self.bad != self.excluded


@dataclass
class Results:
    """All outcomes of one contender on one Python."""

    outcomes: list[Outcome] = field(default_factory=list)
    stale: list[exclusions.Exclusion] = field(default_factory=list)
    """Exclusions that match no test."""
    again: list[Outcome] = field(default_factory=list)
    """The failures of tests that passed when they were run again."""

    @property
    def unexpected(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.unexpected]

    def count(self) -> dict[str, dict[str, int]]:
        """For each group: tests passed, run, excluded, skipped, apart. An excluded test counts as run."""
        groups: dict[str, Counter[str]] = {}
        for outcome in self.outcomes:
            row = groups.setdefault(outcome.group, Counter())
            row["passed"] += outcome.word == PASSED
            row["run"] += outcome.word == PASSED or outcome.bad
            row["excluded"] += outcome.excluded and outcome.bad
            row["skipped"] += outcome.word == SKIPPED
            row["apart"] += outcome.word == APART
        return {name: dict(row) for name, row in groups.items()}

    def as_json(self) -> dict[str, Any]:
        def shown(outcomes: list[Outcome]) -> list[dict[str, str]]:
            return [{"id": o.id, "word": o.word, "why": o.why} for o in outcomes]

        return {
            "groups": self.count(),
            "failed": shown([o for o in self.outcomes if o.bad and not o.excluded]),
            "again": shown(self.again),
            "excluded": shown([o for o in self.outcomes if o.bad and o.excluded]),
            "excluded_but_passed": shown([o for o in self.outcomes if o.excluded and not o.bad]),
            "exclusions_without_test": [exclusion.pattern for exclusion in self.stale],
            "skipped": shown([o for o in self.outcomes if o.word == SKIPPED]),
            "apart": Counter(o.id.rpartition(".")[0] for o in self.outcomes if o.word == APART),
        }


def applying(loop: str, engine: str, python: tuple[int, int]) -> list[exclusions.Exclusion]:
    """The lines of the table that apply to this loop on this Python."""
    minor = f"{python[0]}.{python[1]}"
    return [
        line
        for line in exclusions.TABLE
        if loop == "proact"
        and (not line.engines or engine in line.engines)
        and (not line.pythons or minor in line.pythons)
    ]


def exclusion_of(test: str, lines: list[exclusions.Exclusion]) -> exclusions.Exclusion | None:
    return next((line for line in lines if fnmatch.fnmatchcase(test, line.pattern)), None)
