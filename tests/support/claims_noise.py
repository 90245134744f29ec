"""``make claims-noise``: every claim quiet, then beside each kind of noise; no verdict may turn round.

It takes a quarter of an hour, and a machine that does nothing else: what the quiet run leaves open, the noise
can't be compared with. Exit code 1 if a verdict under noise is another one than the quiet one.
"""

from __future__ import annotations

import sys

from support.noise import KINDS, verdicts

OPEN = "not measured"


def main(claims: str = "all", duration: float = 0.2) -> int:
    """Measure, and show a table: claim by kind."""
    quiet = verdicts(claims, None, duration)
    print(f"{'claim':22} {'quiet':14} " + " ".join(f"{kind:16}" for kind in KINDS), flush=True)
    noisy = {kind: verdicts(claims, kind, duration) for kind in KINDS}
    turned = []
    for name, (verdict, _) in quiet.items():
        cells = []
        for kind in KINDS:
            found, because = noisy[kind][name]
            wrong = found not in (OPEN, verdict) and verdict != OPEN
            turned += [f"{name} beside {kind}: {verdict} became {found}: {because}"] if wrong else []
            cells.append(f"{found}{' !' if wrong else ''}")
        print(f"{name:22} {verdict:14} " + " ".join(f"{cell:16}" for cell in cells))
    print(*turned, sep="\n")
    return 1 if turned else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
