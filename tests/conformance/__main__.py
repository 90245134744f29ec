"""Owns: the command line of the conformance tests: one loop, on one engine, on the Python that runs this."""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from . import contenders, exclusions, groups, outcome, runner

SCHEMA = 1
RERUN = 5
"""At most so many failures are run again."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance", description="Run CPython's own asyncio tests on an event loop."
    )
    parser.add_argument("--loop", choices=contenders.NAMES, default="proact")
    parser.add_argument("--engine", choices=contenders.ENGINES, default="io_uring", help="proact's")
    parser.add_argument(
        "--only",
        metavar="PATTERN",
        action="append",
        help="tests of which the id (group/Class.test) matches, or groups of that name; may be given again",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results there")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), help="tests at the same time")
    parser.add_argument("--limit", type=float, default=60.0, metavar="SECONDS", help="for each test")
    parser.add_argument("--quiet", action="store_true", help="no progress, and no output of failures")
    parser.add_argument("--check", action="store_true", help="only tell whether this Python has the tests")
    return parser.parse_args()


def chosen(case: groups.Case, patterns: list[str] | None) -> bool:
    if not patterns:
        return True
    names = [group.name for group in groups.GROUPS]
    return any(
        case.group.name == pattern if pattern in names else fnmatch.fnmatchcase(case.id, f"*{pattern}*")
        for pattern in patterns
    )


def execute(args: argparse.Namespace, contender: contenders.Contender) -> outcome.Results:
    contender.become_default()
    cases = [case for case in groups.load(contender) if chosen(case, args.only)]
    lines = outcome.applying(contender.name, contender.engine, sys.version_info[:2])
    results = outcome.Results()
    short = min(args.limit, exclusions.LIMIT)
    limited = [(case, short if outcome.exclusion_of(case.id, lines) else args.limit) for case in cases]
    for done, result in enumerate(runner.run(limited, contender, args.jobs), 1):
        result.exclusion = outcome.exclusion_of(result.id, lines)
        results.outcomes.append(result)
        if not args.quiet:
            progress(result, done, len(cases))
    results.again = again(results, limited, contender)
    results.outcomes.sort(key=lambda result: [case.id for case in cases].index(result.id))
    if not args.only:
        used = [result.exclusion for result in results.outcomes]
        results.stale = [line for line in lines if line not in used]
    return results


def again(
    results: outcome.Results, limited: list[tuple[groups.Case, float]], contender: contenders.Contender
) -> list[outcome.Outcome]:
    """Run failed tests again, with nothing beside them; return the first failures of those that pass now.

    Many of these tests look for a free port, or measure time: on a machine that does something else too, some
    fail for that reason. It is worth it only for a handful; some of the other loops fail dozens of tests.
    """
    failed = {result.id: result for result in results.unexpected if result.bad}
    if len(failed) > RERUN:
        return []
    cases = [(case, limit) for case, limit in limited if case.id in failed]
    passed = []
    for result in runner.run(cases, contender, jobs=1):
        if not result.bad:
            first = failed[result.id]
            passed.append(first)
            results.outcomes[results.outcomes.index(first)] = result
    return passed


def progress(result: outcome.Outcome, done: int, total: int) -> None:
    if result.unexpected:
        print(f"\r\x1b[K{'=' * 30} {result.id}: {result.word}", file=sys.stderr)
        print(result.output or result.why, file=sys.stderr)
    elif sys.stderr.isatty() or done % 100 == 0 or done == total:
        end = "" if sys.stderr.isatty() and done < total else "\n"
        print(f"\r\x1b[K{done}/{total} {result.id}", file=sys.stderr, end=end, flush=True)


def table(results: outcome.Results) -> str:
    keys = ("passed", "run", "excluded", "skipped", "apart")
    counts = results.count()
    total = {key: sum(row[key] for row in counts.values()) for key in keys}
    lines = [f"{'':16}" + "".join(f"{key:>10}" for key in keys)]
    for name, row in [*counts.items(), ("total", total)]:
        lines.append(f"{name:16}" + "".join(f"{row[key]:10}" for key in keys))
    return "\n".join(lines)


def document(results: outcome.Results, contender: contenders.Contender, seconds: float) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "loop": contender.name,
        "version": contender.version,
        "engine": contender.engine,
        "kernel": platform.release(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seconds": round(seconds),
        **results.as_json(),
    }


def main() -> int:
    args = parse()
    if not groups.installed():
        print(f"this Python ({sys.executable}) was installed without its test-suite", file=sys.stderr)
        return 3
    if args.check:
        return 0
    contender = contenders.Contender(args.loop, args.engine)
    begun = time.monotonic()
    results = execute(args, contender)
    seconds = time.monotonic() - begun
    if args.json:
        args.json.write_text(json.dumps(document(results, contender, seconds), indent=1) + "\n")
    print(f"\n{contender}, Python {platform.python_version()}, {seconds:.0f} s\n\n{table(results)}")
    for result in results.again:
        print(f"passed only when run again, with nothing beside it: {result.id}: {result.why}")
    if results.unexpected:
        print("\nunexpected:")
    for result in results.unexpected:
        word = f"passed, but is excluded ({result.exclusion.reason})" if result.exclusion else result.word
        print(f"  {result.id}: {word}: {result.why}")
    for line in results.stale:
        print(f"  the exclusion {line.pattern} matches no test")
    return int(bool(results.unexpected or results.stale))


if __name__ == "__main__":
    sys.exit(main())
