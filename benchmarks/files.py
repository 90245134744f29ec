"""Owns: proact's files beside plain Python, threads and other libraries: `python -m benchmarks.files`.

Each row of the issue's table is a case; its works are in files_work.py. In a round every contender runs once,
one after another, in a process of its own; ratios are taken within a round. For a cold case the page cache is
dropped before each run, which takes root; without it only the pages of the files are.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import importlib.util
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import children, files_work, machine, stats, table

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULTS = children.ROOT / "benchmarks" / "results" / "files"
SCRATCH = children.ROOT / "build" / "benchmarks" / "files"
LINE = "The quick brown fox jumps over the lazy dog, and then it naps until the evening.\n"
TEXT, LARGE, HUGE = 100 << 20, 512 << 20, 1 << 30
MOST = 10_000
RING, POOL = "proact@io_uring", "proact@epoll"
OTHERS = ("to_thread", "aiofiles", "anyio", "aiofile", "py-asyncfiles", "ayafileio")
MODULES = {"py-asyncfiles": "asyncfiles"}
NOT_HERE = ("turbofile", "urio")
"""Libraries that were asked for and have no wheel for Linux and this Python on PyPI."""


@dataclass(frozen=True)
class Goal:
    """The contender's rate is to be at least `least` times the other's, or its lag at most `lag_ms`."""

    contender: str
    other: str = ""
    least: float = 0.0
    lag_ms: float = 0.0


@dataclass(frozen=True)
class Case:
    """One table. `slow`: the share of the operations that a slow contender is given."""

    name: str
    title: str
    work: str
    count: int
    baseline: str
    contenders: tuple[str, ...]
    unit: str
    cold: bool = False
    slow: dict[str, float] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()


def both(name: str) -> tuple[str, str]:
    return f"{name}@io_uring", f"{name}@epoll"


def opened(*names: str, factor: float = 0.5) -> tuple[Goal, ...]:
    return tuple(Goal(name, "blocking", factor) for name in names)


READERS = ("blocking", *both("proact.read_many"), *both("proact.open"), *OTHERS)
CASES = (
    Case(
        "read/warm",
        "whole files of 4 KiB, cached, 64 at a time",
        "read",
        MOST,
        "blocking",
        READERS,
        "files",
        goals=(
            *opened(*both("proact.read_many"), factor=1 / 1.15),
            *(Goal(name, "aiofiles", 5.0) for name in both("proact.read_many")),
            *opened(*both("proact.open")),
            *(Goal(name, "py-asyncfiles", 1.3) for name in both("proact.open")),
        ),
    ),
    Case(
        "read/cold",
        "whole files of 4 KiB, not cached, 64 at a time",
        "read",
        2_000,
        "blocking",
        READERS,
        "files",
        cold=True,
    ),
    Case(
        "pread/warm",
        "4 KiB somewhere in 512 MiB, cached, 64 at a time",
        "pread",
        50_000,
        "blocking",
        ("blocking", RING, POOL, "to_thread", "caio", "aiofile"),
        "reads",
        slow={"to_thread": 0.2, "caio": 0.4, "aiofile": 0.2},
        goals=(Goal(RING, "caio", 3.0), Goal(POOL, "caio", 3.0)),
    ),
    Case(
        "pread/cold",
        "4 KiB somewhere in 512 MiB, not cached, 64 at a time",
        "pread",
        10_000,
        "to_thread",
        ("blocking", RING, POOL, "to_thread", "caio", "aiofile"),
        "reads",
        cold=True,
        goals=(Goal(RING, lag_ms=2.0),),
    ),
    Case(
        "direct",
        "4 KiB somewhere in 512 MiB with O_DIRECT, 64 at a time",
        "direct",
        100_000,
        "fio",
        ("fio", RING, POOL, "to_thread"),
        "reads",
        slow={"to_thread": 0.2, POOL: 0.5},
        goals=(Goal(RING, "fio", 0.9),),
    ),
    Case(
        "lines",
        f"each line of 100 MiB of text, {len(LINE)} bytes each",
        "lines",
        TEXT // len(LINE),
        "blocking",
        ("blocking", RING, POOL, "aiofiles", "anyio", "aiofile", "py-asyncfiles", "ayafileio"),
        "lines",
        slow=dict.fromkeys(("aiofiles", "anyio", "aiofile", "py-asyncfiles", "ayafileio"), 0.02),
        goals=(Goal(RING, "blocking", 0.5), Goal(POOL, "blocking", 0.5)),
    ),
    Case(
        "copy",
        "a copy of 1 GiB, cached",
        "copy",
        1024,
        "cp",
        ("cp", RING, POOL, "blocking"),
        "MiB",
        goals=(Goal(RING, "cp", 0.95), Goal(POOL, "cp", 0.95)),
    ),
    *(
        Case(
            f"append/{lanes}",
            f"append 128 B and fsync, {lanes} task{'s' if lanes > 1 else ''}, one file",
            f"append/{lanes}",
            {1: 200, 4: 600, 16: 1500, 64: 3000}[lanes],
            "threads",
            ("blocking", "threads", RING, POOL, "to_thread", "aiofiles"),
            "records",
            slow={"blocking": 0.1} if lanes > 4 else {},
            goals=(Goal(RING, "threads", 1.0), Goal(POOL, "threads", 1.0))
            + ((Goal(RING, "blocking", 10.0), Goal(POOL, "blocking", 10.0)) if lanes == 64 else ()),
        )
        for lanes in (1, 4, 16, 64)
    ),
    *(
        Case(
            f"fsync/{lanes}",
            f"write 4 KiB and fsync, {lanes} at a time, a file each",
            f"fsync/{lanes}",
            {1: 300, 4: 800, 16: 1600, 64: 3200}[lanes],
            "threads",
            ("threads", RING, POOL, "to_thread"),
            "writes",
            goals=(Goal(RING, "threads", 1.0), Goal(POOL, "threads", 1.0)),
        )
        for lanes in (1, 4, 16, 64)
    ),
)


def missing(contender: str) -> bool:
    """Whether this machine lacks what the contender is."""
    name = contender.partition("@")[0].partition(".")[0]
    if name in ("fio", "cp"):
        return shutil.which(name) is None
    if name in ("blocking", "threads", "to_thread"):
        return False
    return importlib.util.find_spec(MODULES.get(name, name)) is None


def make(folder: Path) -> None:
    """The files that are read."""
    for number in range(MOST):
        (folder / f"small{number}").write_bytes(os.urandom(files_work.SIZE))
    for name, size in (("large", LARGE), ("huge", HUGE)):
        with (folder / name).open("wb") as file:
            piece = os.urandom(1 << 20)
            for _ in range(size >> 20):
                file.write(piece)
    with (folder / "text").open("w") as text:
        text.writelines([LINE] * (TEXT // len(LINE)))
    os.sync()


def forget(folder: Path) -> None:
    """Drop the page cache, or what of it holds these files."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        for path in folder.iterdir():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(case: Case, contender: str, folder: Path) -> dict[str, float]:
    """One contender in one round: its figures."""
    for left in ("copy", "log"):
        (folder / left).unlink(missing_ok=True)
    if case.work.startswith("append/"):
        # Of a new file proact syncs the directory, too, and the others do not: a tenth of 200 records.
        (folder / "log").touch()
    count = max(int(case.count * case.slow.get(contender, 1.0)), 64)
    if case.cold:
        forget(folder)
    elif case.work == "read":
        for path in files_work.small(folder, count):
            Path(path).read_bytes()
    elif case.work in ("pread", "lines", "copy"):
        name = {"pread": "large", "lines": "text", "copy": "huge"}[case.work]
        with (folder / name).open("rb") as file:
            while file.read(1 << 20):
                pass
        os.sync()
    warm = not case.cold and case.work in ("read", "pread", "direct")
    settings = {
        "work": case.work,
        "contender": contender,
        "folder": str(folder),
        "count": count,
        "warm": warm,
    }
    with children.child("benchmarks.files_work", settings) as process:
        report: dict[str, float] = children.hear(process, 120)
    return {"rate": count / report["seconds"], **report} | (
        {"cpu_us": report["cpu_seconds"] / count * 1e6} if "cpu_seconds" in report else {}
    )


def run_case(case: Case, rounds: int, folder: Path) -> dict[str, Any]:
    """All rounds of a case."""
    names = [name for name in case.contenders if not missing(name)]
    runs: list[stats.Run] = []
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found: stats.Run = {"contender": name, "round": number}
            try:
                found |= run(case, name, folder)
            except (children.ChildError, OSError) as error:
                found["error"] = str(error)
            runs.append(found)
    return {
        "name": case.name,
        "title": case.title,
        "baseline": case.baseline,
        "unit": case.unit,
        "runs": runs,
    }


def joined(before: dict[str, Any], now: dict[str, Any] | None) -> dict[str, Any]:
    """The rounds of a case that were measured before, and those after them."""
    if now is None:
        return before
    first = 1 + max((run["round"] for run in before["runs"]), default=-1)
    later = [run | {"round": run["round"] + first} for run in now["runs"]]
    return now | {"runs": before["runs"] + later}


def rows(result: dict[str, Any]) -> Iterator[list[str]]:
    """The table of a case: head, then the fastest first."""
    runs, baseline = result["runs"], result["baseline"]
    yield ["", f"{result['unit']}/s", "least-most", f"x {baseline}", "CPU µs each", "lag p99 ms", "idle"]
    names = dict.fromkeys(run["contender"] for run in runs)
    found = {name: stats.figure(runs, name, "rate") for name in names}
    medians = {name: rate.median if rate else 0.0 for name, rate in found.items()}
    for name in sorted(names, key=lambda name: -medians[name]):
        rate = found[name]
        if rate is None:
            yield [name, "failed: " + "; ".join(stats.errors(runs, name)), "", "", "", "", ""]
            continue
        cpu, lag = stats.figure(runs, name, "cpu_us"), stats.figure(runs, name, "lag_ms")
        idle = stats.figure(runs, name, "idle_lag_ms")
        yield [
            name,
            table.quantity(rate.median),
            f"{table.quantity(rate.low)}–{table.quantity(rate.high)}",
            table.times(stats.ratio(runs, name, baseline, "rate")),
            f"{cpu.median:.1f}" if cpu else "—",
            f"{lag.median:.2f}" if lag else "—",
            f"{idle.median:.2f}" if idle else "—",
        ]


def goals(result: dict[str, Any]) -> Iterator[list[str]]:
    """Which goals of a case were reached: what, measured, verdict."""
    case = next((case for case in CASES if case.name == result["name"]), None)
    for goal in case.goals if case else ():
        if goal.lag_ms:
            found, limit = stats.figure(result["runs"], goal.contender, "lag_ms"), goal.lag_ms
            reached = found is not None and found.median <= limit
            what = f"{goal.contender}: lag p99 at most {limit:g} ms"
        else:
            found, limit = stats.ratio(result["runs"], goal.contender, goal.other, "rate"), goal.least
            reached = found is not None and found.median >= limit
            what = f"{goal.contender}: at least {limit:.2f} x {goal.other}"
        if found:
            within = found.low <= limit <= found.high
            missed = "**missed**" + (", within the spread" if within else "")
            yield [result["title"], what, table.times(found), "reached" if reached else missed]


def as_markdown(results: dict[str, Any]) -> str:
    """The section of docs/performance.md."""
    with_head = [["case", "goal", "measured", ""]]
    with_head += [row for result in results["cases"] for row in goals(result)]
    tables = [with_head, *(list(rows(result)) for result in results["cases"])]
    titles = ["Goals of files", *(result["title"] for result in results["cases"])]
    lines = []
    for title, (head, *body) in zip(titles, tables, strict=True):
        lines += [f"### {title}", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in body] + [""]
    return "\n".join(lines)


def show(result: dict[str, Any]) -> None:
    """The table of a case on the terminal."""
    print(f"{result['title']}  ({result['name']})")
    body = list(rows(result))
    widths = [max(len(row[column]) for row in body) for column in range(len(body[0]))]
    for row in body:
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        print("  " + row[0].ljust(widths[0]) + "  " + "  ".join(cells))
    for _, what, measured, verdict in goals(result):
        print(f"  goal: {what}: {measured} {verdict}")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.files", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", metavar="PATTERN", action="append", help="only cases whose name matches")
    parser.add_argument("--folder", type=Path, help="where the files are, which are made once and kept")
    parser.add_argument("--json", type=Path, help="add the rounds to this file")
    options = parser.parse_args()
    chosen = [
        case
        for case in CASES
        if not options.only or any(fnmatch.fnmatchcase(case.name, f"*{one}*") for one in options.only)
    ]
    now = datetime.datetime.now(datetime.UTC)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="proact-files-", dir="/var/tmp"))
    try:
        folder.mkdir(exist_ok=True)
        if not (folder / "text").exists():
            make(folder)
        found = {case.name: run_case(case, options.rounds, folder) for case in chosen}
    finally:
        if not options.folder:
            shutil.rmtree(folder)
    place = SCRATCH if options.only else RESULTS
    target: Path = options.json or place / f"{now:%Y-%m-%dT%H%M%S}-{machine.kind()}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {"cases": []}
    for case in kept["cases"]:
        found[case["name"]] = joined(case, found.get(case["name"]))
    described = machine.describe()
    described["versions"] = {name: machine.version(name) for name in ("proact", "caio", *OTHERS[1:])}
    results = {
        "created": now.isoformat(timespec="seconds"),
        "rounds": options.rounds,
        "machine": described,
        "absent": sorted(
            {name for case in CASES for name in case.contenders if missing(name)} | set(NOT_HERE)
        ),
        "cases": [found[case.name] for case in CASES if case.name in found],
    }
    target.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    for case in chosen:
        show(found[case.name])
    print(f"results: {target}")


if __name__ == "__main__":
    main()
