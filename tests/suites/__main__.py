"""Owns: the command line: the suites on asyncio, then on the engines, and the table of what differs."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from . import packages, table
from .runner import Outcome, Run, Runner, excluded

ENGINES = ("io_uring", "epoll", "poll", "select")
TRIES = 3
"""A difference counts if the test fails on the engine so many times in a row, alone after the first time."""
MANY = 40
"""With so many differences nothing is run again, because that is not noise."""


@dataclass
class Difference:
    """A test that fails on an engine but not on asyncio."""

    suite: str
    engine: str
    test: str
    outcome: Outcome
    tries: int


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.suites", description=__doc__)
    names = list(table.BY_NAME)
    parser.add_argument("--suite", choices=names, action="append", help="only this one; may be given again")
    parser.add_argument(
        "--engine", choices=ENGINES, action="append", help="only this one; may be given again"
    )
    parser.add_argument("--only", metavar="WORD", default="", help="only files with WORD in their names")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything there")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="files at the same time")
    parser.add_argument("--tries", type=int, default=TRIES, help="times that a test must fail (default: 3)")
    return parser.parse_args()


class Progress:
    """One line on a terminal, a line for each hundred tests elsewhere."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.done = 0
        self.failed = 0

    def __call__(self, test: str, outcome: Outcome) -> None:
        self.done += 1
        self.failed += outcome.bad
        if sys.stderr.isatty():
            print(f"\r\x1b[K{self}  {test[-60:]}", end="", file=sys.stderr, flush=True)
        elif self.done % 100 == 0:
            print(self, file=sys.stderr, flush=True)

    def __str__(self) -> str:
        return f"{self.title}: {self.done} tests, {self.failed} failed"

    def end(self, seconds: float) -> None:
        start = "\r\x1b[K" if sys.stderr.isatty() else ""
        print(f"{start}{self}, {seconds:.0f} s", file=sys.stderr, flush=True)


def run_suite(suite: table.Suite, args: argparse.Namespace) -> tuple[dict[str, Run], list[Difference]]:
    """The suite on every loop, asyncio first."""
    print(f"{suite.requirement}: fetching", file=sys.stderr, flush=True)
    place, python = packages.sources(suite), packages.environment(suite)
    runs: dict[str, Run] = {}
    differences: list[Difference] = []
    for loop in ("asyncio", *(args.engine or ENGINES)):
        runner = Runner(suite, loop, python, place)
        progress = Progress(f"{suite.name} on {loop}")
        begun = time.monotonic()
        files = [file for file in runner.files() if args.only in file]
        runs[loop] = runner.run(files, args.jobs, progress)
        progress.end(time.monotonic() - begun)
        if loop != "asyncio":
            differences += differ(runner, runs["asyncio"], runs[loop], args.tries)
    return runs, differences


def differ(runner: Runner, standard: Run, run: Run, tries: int) -> list[Difference]:
    """The tests that fail here, also when they run alone, and did not fail on asyncio."""
    found = []
    suspects = [
        (test, outcome)
        for test, outcome in run.outcomes.items()
        if outcome.bad and not (test in standard.outcomes and standard.outcomes[test].bad)
    ]
    for test, first in suspects:
        if excluded(runner.suite, test):
            continue
        outcome, tried = first, 1
        while outcome.bad and tried < tries and len(suspects) < MANY:
            tried += 1
            outcome = runner.alone(test)
        if outcome.bad:
            found.append(Difference(runner.suite.name, runner.loop, test, first, tried))
        else:
            print(f"  passed at try {tried}: {test}: {first.why}", file=sys.stderr, flush=True)
    return found


def show(counts: dict[str, dict[str, Run]], differences: list[Difference]) -> None:
    """The table for people."""
    print(f"\n{'suite':12}{'loop':10}{'passed':>8}{'failed':>8}{'skipped':>8}{'loops':>8}{'differences':>13}")
    for name, runs in counts.items():
        for loop, run in runs.items():
            count = run.count()
            here = sum(line.suite == name and line.engine == loop for line in differences)
            print(
                f"{name:12}{loop:10}{count['passed']:8}{count['failed']:8}{count['skipped']:8}{run.made:8}{here:13}"
            )
    merged: dict[tuple[str, str], list[Difference]] = {}
    for line in differences:
        merged.setdefault((line.suite, line.test), []).append(line)
    print(
        "\nfails on proact, not on asyncio:" if merged else "\nnothing fails on proact that passes on asyncio"
    )
    for (name, test), lines in merged.items():
        print(f"  {name}  {test}  [{', '.join(line.engine for line in lines)}]")
        print(f"      {lines[0].outcome.word}: {lines[0].outcome.why}")


def document(counts: dict[str, dict[str, Run]], differences: list[Difference]) -> dict[str, object]:
    """What `--json` writes."""
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "suites": {
            name: {
                loop: run.count()
                | {"loops": run.made, "bad": {test: vars(o) for test, o in run.outcomes.items() if o.bad}}
                for loop, run in runs.items()
            }
            for name, runs in counts.items()
        },
        "differences": [vars(line) | {"outcome": vars(line.outcome)} for line in differences],
    }


def main() -> int:
    args = parse()
    counts: dict[str, dict[str, Run]] = {}
    differences: list[Difference] = []
    problems = []
    for suite in table.SUITES:
        if args.suite and suite.name not in args.suite:
            continue
        try:
            counts[suite.name], found = run_suite(suite, args)
        except packages.CannotFetchError as error:
            problems.append(f"{suite.requirement} could not be run: {error}")
            continue
        differences += found
        for loop, run in counts[suite.name].items():
            if not run.made:
                problems.append(f"{suite.name} on {loop}: no loop of that kind was made: nothing was tested")
    show(counts, differences)
    if args.json:
        args.json.write_text(json.dumps(document(counts, differences), indent=1) + "\n")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if differences else 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
