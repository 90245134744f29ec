"""Runs seed after seed until the time is over; makes each kind of failure small once, and counts the others.

Owns what a finding is: the seed, the kind of failure, the smallest sequence, and how to run it again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import child, shrink
from .generate import generate
from .vocabulary import Sequence

TRIES = 4
"""How often a failure is tried alone, if it did not show again at once."""


@dataclass
class Finding:
    engine: str
    seed: int
    kind: str
    detail: str
    sequence: Sequence
    alone: int
    """How many of TRIES runs in a fresh process failed."""
    count: int = 1

    def save(self, directory: Path) -> Path:
        path = directory / f"{self.engine}-{self.seed}.json"
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(text(asdict(self)) + "\n")
        return path

    def shown(self, path: Path | None = None) -> str:
        lines = [
            f"{self.engine} seed {self.seed}: {self.kind} ({self.alone} of {TRIES} alone, {self.count} seen)"
        ]
        lines += [f"    {line}" for line in self.detail.strip().splitlines()[:12]]
        lines += [f"      {json.dumps(value)}" for value in self.sequence]
        if path is not None:
            lines.append(f"    again: make fuzz FUZZ_ARGS='--engine {self.engine} --replay {path}'")
        return "\n".join(lines)


def text(value: dict[str, Any]) -> str:
    """JSON, one op per line."""
    ops = ",\n  ".join(json.dumps(each) for each in value["sequence"])
    rest = {key: each for key, each in value.items() if key != "sequence"}
    return json.dumps(rest, indent=1)[:-2] + f',\n "sequence": [\n  {ops}\n ]\n}}'


@dataclass
class Campaign:
    engine: str
    seconds: float
    seed: int
    shrinking: float = 30.0
    """Seconds for each failure."""
    patience: float = 3.0
    enough: int = 1000
    """Findings after which it ends."""
    without: frozenset[str] = frozenset()
    """Ops to leave out, because a known failure hides others."""
    directory: Path | None = None
    """Where each finding is saved."""
    tell: Callable[[str], None] = print

    def run(self) -> tuple[int, list[Finding]]:
        """The number of sequences, and the findings."""
        until = time.monotonic() + self.seconds
        findings: list[Finding] = []
        seed = self.seed
        while time.monotonic() < until and len(findings) < self.enough:
            for ran, failure in child.run(self._sequences(seed, until), self.engine, self.patience):
                seed = ran + 1
                if failure:
                    self._failed(ran, failure, findings)
        return seed - self.seed, findings

    def _sequence(self, seed: int) -> Sequence:
        return [value for value in generate(seed) if value[0] not in self.without]

    def _sequences(self, seed: int, until: float) -> Iterator[tuple[int, Sequence]]:
        while time.monotonic() < until:
            yield seed, self._sequence(seed)
            seed += 1

    def _failed(self, seed: int, failure: child.Failure, findings: list[Finding]) -> None:
        kind, detail = failure
        sequence = self._sequence(seed)
        for known in findings:
            if known.kind == kind and _within(known.sequence, sequence):
                known.count += 1
                return
        found: child.Failure | None = None
        for _ in range(TRIES):
            found = found or child.alone(sequence, self.engine, self.patience)
        if found:
            kind, detail = found

            def fails(shorter: Sequence) -> bool:
                other = child.alone(shorter, self.engine, self.patience / 3)
                return other is not None and other[0] == kind

            small = shrink.shrink(sequence, fails, self.shrinking * (3 if kind == "hang" else 1))
            again = [child.alone(small, self.engine, self.patience / 2) for _ in range(TRIES)]
            same = [each for each in again if each and each[0] == kind]
            if same:
                sequence, detail = small, same[0][1]
                found = same[0]
            finding = Finding(self.engine, seed, kind, detail, sequence, len(same))
        else:
            finding = Finding(self.engine, seed, kind, detail, sequence, 0)
        for known in findings:
            if known.kind == kind and _names(known.sequence) == _names(finding.sequence):
                known.count += 1
                return
        findings.append(finding)
        self.tell(finding.shown(finding.save(self.directory) if self.directory else None))


def _names(sequence: Sequence) -> list[str]:
    return [value[0] for value in sequence]


def _within(small: Sequence, sequence: Sequence) -> bool:
    """Whether the ops of the small sequence occur in the other one, in order: then it is probably the same
    fault.
    """
    names = iter(_names(sequence))
    return all(any(name == other for other in names) for name in _names(small))
