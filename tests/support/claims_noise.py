"""``make claims-noise``: each claim quiet, then beside each kind of noise; no verdict may turn round.

It needs a machine that does nothing else. A measurement ends after ``LIMIT`` seconds at the latest, so the
whole takes so many times the number of claims and conditions at most, and mostly a quarter of that. Exit code
1 if two conditions give a claim different verdicts; "not measured" is none.
"""

from __future__ import annotations

import sys
import time

from proact.lab.claims import TRIALS
from support.noise import KINDS, verdicts

OPEN = "not measured"

#: Seconds for one claim under one condition.
LIMIT = 100.0

_LATE = (OPEN, f"it took longer than {LIMIT:.0f} s")


def disagree(found: dict[str, tuple[str, str]]) -> bool:
    """Whether a claim has different verdicts; ``found``: verdict and sentence by condition."""
    return len({verdict for verdict, _ in found.values()} - {OPEN}) > 1


def main(claims: str = "all", duration: float = 0.2) -> int:
    """Measure claim after claim, and show a row of each as soon as it is known."""
    names = list(TRIALS) if claims == "all" else claims.split(",")
    conditions = {"quiet": None, **{kind: kind for kind in KINDS}}
    most = len(names) * len(conditions) * LIMIT / 60
    print(f"{len(names)} claims under {len(conditions)} conditions, at most {most:.0f} minutes")
    print(f"{'claim':20} " + " ".join(f"{name:14}" for name in conditions) + "  seconds", flush=True)
    turned = []
    for name in names:
        begun = time.monotonic()
        found = {
            shown: verdicts(name, kind, duration, LIMIT).get(name, _LATE)
            for shown, kind in conditions.items()
        }
        row = " ".join(f"{verdict:14}" for verdict, _ in found.values())
        print(f"{name:20} {row}  {time.monotonic() - begun:.0f}", flush=True)
        if found["quiet"][0] == OPEN:
            print(f"{'':20} quiet: {found['quiet'][1]}", flush=True)
        if disagree(found):
            turned += [
                f"{name}, {shown}: {verdict}. {because}" for shown, (verdict, because) in found.items()
            ]
    print(*turned, sep="\n")
    return 1 if turned else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
