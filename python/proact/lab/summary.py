"""From raw cells to rows and a verdict: medians over the repeats, their spread, and who was best.

Nothing is concluded that the data does not hold: models whose ranges overlap are called level.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from proact.lab.results import CellResult, Document, Measured

#: With a single repeat there is no spread to judge by; runs of this instrument differ by less than this.
SINGLE_RUN_NOISE: Final = 0.05

#: A load that used more of its core than this set the pace itself.
LOAD_BOUND: Final = 0.97

#: Cores that other programs may keep busy before a comparison is no longer fair.
QUIET: Final = 0.15


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the range of the repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(median(values), min(values), max(values))

    @property
    def half_range(self) -> float:
        """Half the range relative to the median: 0.03 reads "± 3 %"."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """One model under one load. Latencies in µs; None where it was not measured."""

    model: str
    kind: str
    family: str
    repeats: int
    rate: Spread  # messages per second
    p50: float
    p99: float
    p999: float
    cpu_us: Spread  # CPU time of the server per message, µs
    calls: float | None  # system calls of the server per message
    threads: int | None
    memory: float | None  # bytes per connection
    load_bound: bool  # the load's core was used up, so the server may be capable of more
    failures: tuple[str, ...]  # repeats that failed nevertheless


@dataclass(frozen=True, slots=True)
class Absent:
    """A model with no number under this load, and why."""

    model: str
    failed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Block:
    """All models under one load, the fastest first."""

    connections: int
    size: int
    rows: tuple[Row, ...]
    absent: tuple[Absent, ...]
    uncounted: str | None  # why system calls are missing, if they are
    others_cpu: float  # cores that other programs kept busy meanwhile, median of the cells
    traced: bool  # calls were counted by stopping the server at each: under load they come out low


def blocks(document: Document) -> list[Block]:
    """One block for each load, in the order of the settings."""
    settings = document["settings"]
    return [
        _block(document, connections, size)
        for size in settings["sizes"]
        for connections in settings["connections"]
    ]


def failed(document: Document) -> bool:
    """Whether any model crashed, hung or echoed wrongly. What could not be measured here does not count."""
    return any(cell["status"] == "failed" for cell in document["cells"])


def _block(document: Document, connections: int, size: int) -> Block:
    rows: list[Row] = []
    absent: list[Absent] = []
    uncounted: list[str] = []
    methods: set[str] = set()
    others: list[float] = []
    for name, facts in document["models"].items():
        cells = [
            cell
            for cell in document["cells"]
            if (cell["model"], cell["connections"], cell["size"]) == (name, connections, size)
        ]
        measured = [cell["measured"] for cell in cells if cell["measured"] is not None]
        if measured:
            rows.append(_row(name, facts, measured, cells))
            uncounted += [each["uncounted"] for each in measured if each["uncounted"] is not None]
            others += [each["others_cpu"] for each in measured]
            methods |= {each["counted"]["method"] for each in measured if each["counted"] is not None}
        elif cells:
            reason = cells[0]["reason"] or "no reason given"
            absent.append(Absent(name, cells[0]["status"] == "failed", reason))
    rows.sort(key=lambda row: row.rate.median, reverse=True)
    return Block(
        connections=connections,
        size=size,
        rows=tuple(rows),
        absent=tuple(absent),
        uncounted=uncounted[0] if uncounted else None,
        others_cpu=median(others) if others else 0.0,
        traced="ptrace" in methods,
    )


def _row(name: str, facts: dict[str, str], measured: list[Measured], cells: Iterable[CellResult]) -> Row:
    def latency(key: str) -> float:
        return median(each["latency_ns"][key] for each in measured) / 1e3

    counted = [each["counted"] for each in measured if each["counted"] and each["counted"]["messages"]]
    occupied = [each["occupied"] for each in measured if each["occupied"] and each["occupied"]["threads"]]
    connections = next(iter(cells))["connections"]
    return Row(
        model=name,
        kind=facts["kind"],
        family=facts["family"],
        repeats=len(measured),
        rate=Spread.of([each["messages"] / each["seconds"] for each in measured]),
        p50=latency("p50"),
        p99=latency("p99"),
        p999=latency("p99.9"),
        cpu_us=Spread.of([each["server_cpu_seconds"] * 1e6 / each["messages"] for each in measured]),
        calls=median(each["calls"] / each["messages"] for each in counted) if counted else None,
        threads=max(each["threads"] for each in occupied) if occupied else None,
        memory=(
            max(median((each["resident"] - each["resident_before"]) / connections for each in occupied), 0.0)
            if occupied
            else None
        ),
        load_bound=median(each["load_cpu_seconds"] / each["seconds"] for each in measured) > LOAD_BOUND,
        failures=tuple(cell["reason"] or "" for cell in cells if cell["status"] == "failed"),
    )


def verdict(block: Block) -> list[str]:
    """What this block's data says, in a few short sentences; nothing with fewer than two models."""
    rows = [row for row in block.rows if row.family != "ceiling"]
    if len(rows) < 2:
        return []
    fastest = max(rows, key=lambda row: row.rate.median)
    level = _level(rows, fastest, lambda row: row.rate, higher_is_better=True)
    lines = [f"Fastest: {fastest.model}, {fastest.rate.median:,.0f} messages/s{_also(level)}."]
    thrifty = min(rows, key=lambda row: row.cpu_us.median)
    level = _level(rows, thrifty, lambda row: row.cpu_us, higher_is_better=False)
    lines.append(f"Least CPU: {thrifty.model}, {thrifty.cpu_us.median:.1f} µs per message{_also(level)}.")
    ceilings = [row for row in block.rows if row.family == "ceiling"]
    if ceilings:
        top = max(ceilings, key=lambda row: row.rate.median)
        share = fastest.rate.median / top.rate.median
        lines.append(f"{fastest.model} reaches {share:.2f} of {top.model}, which has no Python in it.")
    return lines


def _level(
    rows: Iterable[Row], best: Row, value: Callable[[Row], Spread], *, higher_is_better: bool
) -> list[str]:
    """The models that cannot be told from the best: their ranges overlap, or one run differs too little."""

    def reaches(row: Row) -> bool:
        mine, theirs = value(row), value(best)
        slack = SINGLE_RUN_NOISE if min(row.repeats, best.repeats) == 1 else 0.0
        if higher_is_better:
            return mine.high >= theirs.low * (1 - slack)
        return mine.low <= theirs.high * (1 + slack)

    return [row.model for row in rows if row is not best and reaches(row)]


def _also(level: list[str]) -> str:
    return f" (level with {', '.join(level)})" if level else ""
