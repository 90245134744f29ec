"""Owns: the comparison of two builds of proact: what became faster, what slower, and what is level.

    python -m benchmarks.compare OLD NEW                 trees of two checkouts, or folders with the package
    python -m benchmarks.compare OLD NEW --only sock --rounds 15 --json verdicts.json
    python -m benchmarks.compare OLD.json NEW.json       results of two runs of `python -m benchmarks`

Trees are measured interleaved: in each round the old and the new build run each case, one after the other,
and the ratio of the two counts. Two files were measured at different times: there the ratios to uvloop in the
same round are compared. The verdict is that of the interval of the median ratio (95 % or a little more, from
order statistics; the whole range below six rounds). Exit code 1: something is slower by more than `--limit`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import cases, runner, stats
from benchmarks.__main__ import choose
from benchmarks.contenders import BASELINE

if TYPE_CHECKING:
    from collections.abc import Iterator

SELECTION = ("echo/protocol/1KiB/100", "echo/streams/1KiB/100", "echo/sock/1KiB/100", "loop/call_soon_chain")
"""Cases that run in two minutes and stand for the rest."""
CONTENDERS = ("proact-io_uring", "proact-epoll")
KEYS = ("cpu_us", "memory")
"""What is compared: less is better. On a shared machine a rate says less than the CPU time."""


@dataclass(frozen=True)
class Verdict:
    """One case of one contender: the new build's figure over the old one's."""

    case: str
    contender: str
    figure: str
    ratio: float
    low: float
    high: float
    rounds: int

    @property
    def word(self) -> str:
        """faster, slower, or level: the interval decides."""
        return "faster" if self.high < 1 else "slower" if self.low > 1 else "level"

    def exceeds(self, limit: float) -> bool:
        """Whether it is slower, and by more than the limit."""
        return self.word == "slower" and self.ratio > 1 + limit


def interval(values: list[float]) -> tuple[float, float]:
    """The interval of the median, from order statistics: at least 95 % from six values on, else the range."""
    ordered, n = sorted(values), len(values)
    outside = 0
    while outside < n // 2:
        # The median lies outside as often as a coin shows at most so many heads, or tails, in n throws.
        missed = 2 * sum(math.comb(n, k) for k in range(outside + 1)) / 2**n
        if missed > 0.05:
            break
        outside += 1
    outside = max(outside - 1, 0)
    return ordered[outside], ordered[n - 1 - outside]


def judged(case: str, contender: str, figure: str, ratios: list[float]) -> Verdict:
    """The verdict on the ratios of the rounds."""
    return Verdict(case, contender, figure, statistics.median(ratios), *interval(ratios), len(ratios))


def of_files(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Verdict]:
    """Compares two results files, by the ratios to the baseline."""
    before = {case["name"]: case["runs"] for case in old["cases"]}
    for case in new["cases"]:
        for contender in CONTENDERS:
            for key in KEYS:
                pair = []
                for runs in (before.get(case["name"], []), case["runs"]):
                    ours, base = (stats.by_round(runs, name, key) for name in (contender, BASELINE))
                    pair.append([ours[n] / base[n] for n in sorted(ours.keys() & base.keys()) if base[n]])
                if all(pair):
                    # No round of one run belongs to a round of the other: each is compared with each.
                    middle = statistics.median(a / b for a in pair[1] for b in pair[0])
                    (a, b), (c, d) = map(interval, pair)
                    rounds = min(map(len, pair))
                    yield Verdict(case["name"], contender, key, middle, c / b, d / a, rounds)


def package(place: Path) -> Path:
    """The folder with the package of a tree, or the folder itself."""
    for folder in (place / "python", place):
        if list(folder.glob("proact/_core*.so")):
            return folder.resolve()
    raise SystemExit(f"{place}: no built proact there (no proact/_core*.so)")


def of_trees(
    old: Path, new: Path, patterns: list[str], settings: runner.Settings, contenders: list[str]
) -> Iterator[Verdict]:
    """Measures two builds interleaved."""
    places = {"old": package(old), "new": package(new)}
    chosen = choose(cases.FULL, patterns)
    progress = runner.Progress(2 * settings.rounds * len(chosen) * len(contenders))
    kept = os.environ.get("PYTHONPATH")
    try:
        for case in chosen:
            for contender in contenders:
                ratios: dict[str, list[float]] = {}
                for number in range(settings.rounds):
                    figures = {}
                    for which in ("old", "new") if number % 2 == 0 else ("new", "old"):
                        os.environ["PYTHONPATH"] = str(places[which])
                        what = f"{case.name:26} {contender:16} {which} round {number + 1}"
                        progress.before(what)
                        figures[which] = runner.MEASURES[case.kind](case, contender, settings)
                        progress.after(what, figures[which])
                    for key in KEYS:
                        if key in figures["old"] and figures["old"][key]:
                            ratio = figures["new"][key] / figures["old"][key]
                            ratios.setdefault(key, []).append(ratio)
                for key, values in ratios.items():
                    yield judged(case.name, contender, key, values)
    finally:
        progress.end()
        if kept is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = kept


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", metavar="PATTERN", action="append", help="cases; not given: a selection")
    parser.add_argument("--contenders", metavar="A,B", default=",".join(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--duration", type=float, default=0.6, help="seconds of each timed window")
    parser.add_argument("--limit", type=float, default=0.05, help="what counts as a loss: 0.05 is 5 %%")
    parser.add_argument("--json", metavar="FILE", type=Path)
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.duration <= 0 or arguments.limit < 0:
        parser.error("--rounds and --duration must be more than 0, --limit not less")
    return arguments


def main() -> int:
    arguments = parse()
    if arguments.old.suffix == arguments.new.suffix == ".json":
        verdicts = of_files(*(json.loads(file.read_text()) for file in (arguments.old, arguments.new)))
    else:
        settings = runner.Settings(arguments.rounds, arguments.duration, 0.2)
        patterns = arguments.only or list(SELECTION)
        names = arguments.contenders.split(",")
        verdicts = of_trees(arguments.old, arguments.new, patterns, settings, names)
    found = []
    for verdict in verdicts:
        found.append(verdict)
        print(
            f"{verdict.case:28} {verdict.contender:16} {verdict.figure:7} {verdict.ratio:5.2f} × the old"
            f" [{verdict.low:.2f}-{verdict.high:.2f}, {verdict.rounds} rounds]  {verdict.word}",
            flush=True,
        )
    if not found:
        print("nothing that both have", file=sys.stderr)
        return 2
    if arguments.json:
        rows = [asdict(verdict) | {"verdict": verdict.word} for verdict in found]
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    losses = [verdict for verdict in found if verdict.exceeds(arguments.limit)]
    for loss in losses:
        print(f"a loss: {loss.case}, {loss.contender}: {loss.ratio:.2f}", file=sys.stderr)
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main())
