"""Owns: docs/compatibility.md, made from the results: `python -m tests.conformance.report`.

The page begins with the differences from asyncio, which are written by hand (differences.md). The rest of the
page is computed from the results.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from .contenders import ENGINES, NAMES
from .exclusions import TABLE
from .groups import GROUPS, MIXINS, SUITE

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent.parent / "docs" / "compatibility.md"

# The columns of the tables: loop and engine.
PEERS = [name for name in NAMES if name != "proact"]
COLUMNS = [*(("proact", engine) for engine in ENGINES), *((name, "") for name in PEERS)]

Run = dict[str, Any]

COMMON = 20
"""The page names a cause that at least this many failures share."""

HOW = """\
How the tables are made: `make conformance` imports the tests that each CPython was installed with and runs
each test in a process of its own, with a time limit. † marks mixins that CPython wrote to be given a loop:
they get the loop under test. The other tests run as they are, with the loop under test as asyncio's default.
Where a helper of the suite brings a loop of its own, `tests/conformance/takeover.py` replaces it; no
assertion is changed. Up to five failures of a run are repeated with nothing beside them; those that pass then
are named below. A test counts only if a loop of the class under test was made (†) or ran in the test's
process; a test that passes without such a loop (it uses mocks, or a loop with a simulated clock) is *not
about the loop*. An excluded test counts as run, is run, and has to fail. A fraction is **bold** if a test
that is not excluded did not pass. Nothing is excluded for the other loops, although they fail some tests only
because these use private parts of asyncio's loop. A dash stands where a loop has no wheel for that Python.
"""


def read() -> dict[str, dict[tuple[str, str], Run]]:
    """The runs of each minor version of Python, by loop and engine."""
    pythons: dict[str, dict[tuple[str, str], Run]] = {}
    for path in RESULTS.glob("*.json"):
        run = json.loads(path.read_text())
        minor = run["python"].rpartition(".")[0]
        pythons.setdefault(minor, {})[run["loop"], run["engine"]] = run
    return dict(sorted(pythons.items(), key=lambda item: [int(part) for part in item[0].split(".")]))


def total(run: Run) -> dict[str, int]:
    rows = run["groups"].values()
    return {key: sum(row[key] for row in rows) for key in ("passed", "run", "excluded", "skipped", "apart")}


def fraction(row: dict[str, int] | None) -> str:
    """How many tests passed of how many run; bold unless all but the excluded ones passed."""
    if row is None or not row["run"]:
        return "–"
    text = f"{row['passed']} / {row['run']}"
    if row["excluded"]:
        text += f" ({row['excluded']} excluded)"
    return text if row["passed"] + row["excluded"] == row["run"] else f"**{text}**"


def line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def head(*cells: str) -> list[str]:
    return [line(*cells), line("---", *("---:" for _ in cells[1:]))]


def name_of(column: tuple[str, str], run: Run) -> str:
    loop, engine = column
    if loop == "proact":
        return engine
    return loop if loop == "asyncio" else f"{loop} {run['version']}"


def python_section(runs: dict[tuple[str, str], Run]) -> list[str]:
    columns = [column for column in COLUMNS if column in runs]
    first = runs[columns[0]]
    lines = [f"## CPython {first['python']}", ""]
    lines += head("group", *(name_of(column, runs[column]) for column in columns), "not about the loop")
    for group in GROUPS:
        rows = [runs[column]["groups"].get(group.name) for column in columns]
        if any(rows):
            apart = rows[0]["apart"] if rows[0] else 0
            title = f"`{group.module}`" + (" †" if group in MIXINS else "")
            lines.append(line(title, *map(fraction, rows), str(apart or "")))
    totals = [total(runs[column]) for column in columns]
    lines.append(line("**all**", *map(fraction, totals), str(totals[0]["apart"])))
    skipped = {test["id"]: test["why"] for column in columns[:1] for test in runs[column]["skipped"]}
    if skipped:
        lines += ["", "Skipped by the tests themselves, on proact:", ""]
        lines += [f"- `{test}`: {why}" for test, why in skipped.items()]
    again = [
        (" ".join(filter(None, column)), test)
        for column, run in runs.items()
        for test in run.get("again", [])
    ]
    if again:
        lines += ["", "Passed only when run again, with nothing beside it:", ""]
        lines += [f"- `{test['id']}` on {loop}: {test['why']}" for loop, test in again]
    failures: dict[tuple[str, str], list[str]] = {}
    for (loop, engine), run in runs.items():
        if loop == "proact":
            for test in run["failed"]:
                failures.setdefault((test["id"], f"{test['word']}: {test['why']}"), []).append(engine)
    if failures:
        lines += ["", "Failed on proact:", ""]
        for (test, why), engines in sorted(failures.items()):
            where = "every engine" if len(engines) == len(ENGINES) else ", ".join(sorted(engines))
            lines.append(f"- `{test}` on {where}: {why}")
    lines += common_causes(runs)
    return [*lines, ""]


def common_causes(runs: dict[tuple[str, str], Run]) -> list[str]:
    """The causes that many failures of a loop share: without them, a count of failures misleads."""
    lines = []
    for (loop, _), run in runs.items():
        for why, count in Counter(test["why"] for test in run["failed"]).most_common():
            if count >= COMMON:
                lines.append(f"- {count} of the failures on {loop} end with `{why}`")
    return ["", "One cause for many failures:", "", *lines] if lines else []


def summary(pythons: dict[str, dict[tuple[str, str], Run]]) -> list[str]:
    present = [column for column in COLUMNS if any(column in runs for runs in pythons.values())]
    newest = {column: run for runs in pythons.values() for column, run in runs.items()}
    lines = head("CPython", *(name_of(column, newest[column]) for column in present))
    for minor, runs in pythons.items():
        cells = (fraction(total(runs[column])) if column in runs else "–" for column in present)
        lines.append(line(minor, *cells))
    return [*lines, ""]


def exclusions() -> list[str]:
    lines = [line("test", "Python", "engines", "why"), line("---", "---", "---", "---")]
    for item in TABLE:
        pythons, engines = ", ".join(item.pythons) or "all", ", ".join(item.engines) or "all"
        lines.append(line(f"`{item.pattern}`", pythons, engines, item.reason))
    return [*lines, ""]


def page(pythons: dict[str, dict[tuple[str, str], Run]]) -> str:
    runs = [run for loops in pythons.values() for run in loops.values()]
    dates = sorted({run["date"] for run in runs})
    kernels = ", ".join(sorted({f"Linux {run['kernel']} ({run['machine']})" for run in runs}))
    lines = [
        "# Compatibility",
        "",
        "<!-- Generated by `make conformance` (tests/conformance/report.py). Do not edit. -->",
        "",
        (HERE / "differences.md").read_text(),
        "## CPython's own tests",
        "",
        f"CPython's own asyncio tests (`{SUITE}`), on proact's engines and on other loops: passed / run.",
        "",
        *summary(pythons),
        HOW,
        "## Excluded on proact",
        "",
        *exclusions(),
    ]
    for loops in pythons.values():
        lines += python_section(loops)
    lines += [f"Made on {' to '.join({dates[0]: None, dates[-1]: None})}, {kernels}.", ""]
    return "\n".join(lines)


def main() -> None:
    pythons = read()
    if not pythons:
        raise SystemExit(f"no results in {RESULTS}: run `make conformance`")
    PAGE.write_text(page(pythons))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
