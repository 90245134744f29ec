"""Owns: the command line of the benchmarks: which cases, how long, what is printed, where the results go."""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import cases, children, contenders, machine, runner, table

if TYPE_CHECKING:
    from benchmarks.cases import Case

SCHEMA = 1
RESULTS = children.ROOT / "benchmarks" / "results"
SCRATCH = children.ROOT / "build" / "benchmarks"
"""The place of an incomplete run: docs/performance.md is not made from it."""
FILTER = children.ROOT / "tests" / "seccomp.py"
INSIDE = "PROACT_BENCHMARKS_CONTAINER"
"""Set within the filter of `--container`."""
OTHER = "PROACT_BENCHMARKS_PYTHON"
"""Set in the Python of `--python`."""
BUSY = 0.5
"""From this load average on, other programs' work is measured too, and a note says so."""

MODES = {
    "quick": (cases.DEFAULT, runner.Settings(rounds=2, duration=0.2, warmup=0.1)),
    "default": (cases.DEFAULT, runner.Settings(rounds=5, duration=0.6, warmup=0.2)),
    "full": (cases.FULL, runner.Settings(rounds=11, duration=1.0, warmup=0.3)),
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure proact against its peers."
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--quick", action="store_const", const="quick", dest="mode", help="two short rounds: does it run?"
    )
    mode.add_argument(
        "--full", action="store_const", const="full", dest="mode", help="every case, 11 rounds: over an hour"
    )
    parser.add_argument("--rounds", type=int, help="how often each contender runs each case")
    parser.add_argument("--duration", type=float, help="seconds of each timed window")
    parser.add_argument(
        "--only",
        metavar="PATTERN",
        action="append",
        help="only cases whose name matches, e.g. 'echo/*/1KiB/100'",
    )
    parser.add_argument("--contenders", metavar="A,B", help=f"only these, of {', '.join(contenders.ALL)}")
    parser.add_argument(
        "--cold-malloc", action="store_true", help="servers as bare as they start: see children.warm_malloc"
    )
    parser.add_argument(
        "--python",
        metavar="PATH",
        type=Path,
        help="run with this Python, whose environment has proact and its peers",
    )
    parser.add_argument(
        "--container",
        action="store_true",
        help="within a filter that refuses io_uring, as Docker, containerd and Kubernetes do; 'proact' is"
        " then the engine that it falls back to",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results to this file instead")
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    arguments = parser.parse_args()
    arguments.mode = arguments.mode or "default"
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    if arguments.duration is not None and arguments.duration <= 0:
        parser.error("--duration must be more than 0")
    arguments.contenders = arguments.contenders.split(",") if arguments.contenders else None
    for name in arguments.contenders or ():
        if name not in contenders.ALL:
            parser.error(f"no contender named {name!r}; there are {', '.join(contenders.ALL)}")
    return arguments


def moved(arguments: argparse.Namespace) -> list[str] | None:
    """The command that this run is to become, in another Python or within the filter."""
    rest = sys.argv[1:]
    python = str(arguments.python or sys.executable)
    if arguments.python:
        os.environ[OTHER] = "yes"
        at = next(n for n, word in enumerate(rest) if word.startswith("--python"))
        del rest[at : at + (1 if "=" in rest[at] else 2)]
    command = [python, "-m", "benchmarks", *rest]
    if arguments.container and not os.environ.get(INSIDE):
        os.environ[INSIDE] = "yes"
        return [python, str(FILTER), "io_uring=EPERM", "--", *command]
    return command if arguments.python else None


def folder(arguments: argparse.Namespace, complete: bool) -> Path:
    """Where results go. docs/performance.md is made from the newest complete ones, and has a section for each
    folder of others.
    """
    if arguments.contenders or arguments.cold_malloc or arguments.mode == "quick":
        return SCRATCH
    if arguments.container:
        return RESULTS / "container"
    if os.environ.get(OTHER):
        return RESULTS / f"python-{sys.version_info.major}.{sys.version_info.minor}"
    return RESULTS if complete else SCRATCH


def choose(everything: tuple[Case, ...], patterns: list[str] | None) -> list[Case]:
    """The cases whose name matches one of the patterns, wholly or in part."""
    if not patterns:
        return list(everything)
    return [
        case
        for case in everything
        if any(fnmatch.fnmatchcase(case.name, f"*{pattern}*") for pattern in patterns)
    ]


def main() -> None:
    arguments = parse()
    if command := moved(arguments):
        os.execv(command[0], command)
    everything, settings = MODES[arguments.mode]
    # A pattern may ask for a case that otherwise only --full runs.
    chosen = choose(cases.FULL if arguments.only else everything, arguments.only)
    if not chosen:
        raise SystemExit("no case matches; --list shows them")
    if arguments.list:
        print("\n".join(f"{case.name:28} {case.title}" for case in chosen))
        return
    settings = runner.Settings(
        rounds=arguments.rounds or settings.rounds,
        duration=arguments.duration or settings.duration,
        warmup=settings.warmup,
        cold_malloc=arguments.cold_malloc,
    )
    absent = [name for name in arguments.contenders or contenders.ALL if contenders.missing(name)]
    if absent:
        print(f"not installed here, left out: {', '.join(absent)}", file=sys.stderr)
    if not children.pinned():
        print(
            "note: fewer than two cores: server and load share one, and the figures mean little",
            file=sys.stderr,
        )

    if (busy := os.getloadavg()[0]) > BUSY:
        print(f"note: the machine is busy (load average {busy:.1f}): expect wide spreads", file=sys.stderr)

    plan: list[tuple[Case, list[str]]] = []
    for case in chosen:
        names = [
            name
            for name in (contenders.CHOSEN, *case.contenders())
            if ("io_uring" not in name if arguments.container else name != contenders.CHOSEN)
            if name not in absent and name in (arguments.contenders or contenders.ALL)
        ]
        if names:
            plan.append((case, names))
    now = datetime.datetime.now(datetime.UTC)
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "created": now.isoformat(timespec="seconds"),
        "mode": arguments.mode,
        "container": arguments.container,
        "complete": not (
            arguments.only
            or arguments.contenders
            or arguments.cold_malloc
            or arguments.container
            or contenders.BASELINE in absent
        ),
        "settings": asdict(settings),
        "machine": machine.describe(),
        "absent": absent,
        "cases": [],
    }
    runs = settings.rounds * sum(len(names) for case, names in plan if not case.missing())
    progress = runner.Progress(runs)
    try:
        for case, names in plan:
            results["cases"].append(runner.run_case(case, names, settings, progress))
    except KeyboardInterrupt:
        # The measurements until then are still worth showing, but the run is not complete.
        results["complete"] = False
        print("\ninterrupted; what was measured until here:", file=sys.stderr)
    progress.end()

    for result in results["cases"]:
        print(table.as_text(result) + "\n")
    name = f"{now:%Y-%m-%dT%H%M%S}-{machine.kind()}.json"
    target = arguments.json or folder(arguments, results["complete"]) / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(f"results: {target}")


if __name__ == "__main__":
    main()
