"""``make claims-noise``: each claim quiet, then beside each kind of noise; no verdict may turn round.

It needs a machine that does nothing else. Under each condition all claims are measured in one run, so that
what several of them need is measured once. All runs together take ``TOTAL`` seconds at most: one that takes
longer than its part is ended, and its claims have no verdict. Exit code 1 if a claim has different verdicts;
"not measured" is none.

``KNOWN=docs/lab/claims.json`` compares them with the verdicts of an earlier run on this machine, too.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Final

from proact.lab.claims import TRIALS
from support.noise import KINDS, verdicts

OPEN: Final = "not measured"

#: Seconds for everything.
TOTAL: Final = 43 * 60.0

#: How often progress is shown, in seconds.
PERIOD: Final = 10.0

_LATE: Final = (OPEN, "it took too long")

#: Verdict and sentence of each claim, by condition.
Found = dict[str, dict[str, tuple[str, str]]]


class Progress:
    """Shows every ten seconds how far the measurement under one condition has come."""

    def __init__(self, condition: str) -> None:
        self.condition, self.begun = condition, time.monotonic()
        self._next = self.begun + PERIOD

    def __call__(self, line: str) -> None:
        """A line of the measurement's own progress: ``[12/230] epoll, ...``."""
        if (step := re.match(r"\[(\d+)/(\d+)\]", line)) and time.monotonic() >= self._next:
            self._next = time.monotonic() + PERIOD
            print(f"{self.condition}: {step[1]} of {step[2]} cells, {self.seconds:.0f} s", flush=True)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun


def disagree(found: dict[str, tuple[str, str]]) -> bool:
    """Whether a claim has different verdicts; ``found``: verdict and sentence by condition."""
    return len({verdict for verdict, _ in found.values()} - {OPEN}) > 1


def turned(found: Found) -> list[str]:
    """A line for each verdict of the claims whose verdicts differ."""
    claims = dict.fromkeys(name for claims in found.values() for name in claims)
    lines = []
    for name in claims:
        each = {kind: of_kind[name] for kind, of_kind in found.items() if name in of_kind}
        if disagree(each):
            lines += [f"{name}, {kind}: {verdict}. {because}" for kind, (verdict, because) in each.items()]
    return lines


def table(names: list[str], found: Found) -> str:
    """The verdicts, a row for each claim."""
    rows = [("claim", *found)]
    rows += [(name, *(of_kind.get(name, (OPEN, ""))[0] for of_kind in found.values())) for name in names]
    return "\n".join("  ".join(f"{cell:19}" for cell in row).rstrip() for row in rows)


def main(claims: str = "all", known: str = "", duration: float = 0.1) -> int:
    """Measure under one condition after the other; show the verdicts as soon as they are known."""
    names = list(TRIALS) if claims == "all" else claims.split(",")
    conditions: dict[str, str | None] = {"quiet": None, **{kind: kind for kind in KINDS}}
    print(
        f"{len(names)} claims under {len(conditions)} conditions, at most {TOTAL / 60:.0f} minutes",
        flush=True,
    )
    ends = time.monotonic() + TOTAL
    found: Found = {}
    if known:
        document = json.loads(Path(known).read_text(encoding="utf-8"))
        found["known"] = {each["name"]: (each["verdict"], each["because"]) for each in document["claims"]}
    for at, (shown, kind) in enumerate(conditions.items()):
        progress = Progress(shown)
        limit = (ends - progress.begun) / (len(conditions) - at)
        try:
            measured = verdicts(",".join(names), kind, duration, limit, progress)
        except KeyboardInterrupt:
            print(f"\n{table(names, found)}\n\ninterrupted", flush=True)
            return 130
        found[shown] = {name: measured.get(name, _LATE) for name in names}
        decided = sum(verdict != OPEN for verdict, _ in found[shown].values())
        print(f"{shown}: {decided} verdicts of {len(names)}, {progress.seconds:.0f} s", flush=True)
        print(*turned(found), sep="\n", end="\n" * bool(turned(found)), flush=True)
    for name, (verdict, because) in found["quiet"].items():
        if verdict == OPEN:
            print(f"{name}, quiet: {because}")
    print(f"\n{table(names, found)}\n\n{'No verdict' if not turned(found) else 'A VERDICT'} turned round.")
    return 1 if turned(found) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
