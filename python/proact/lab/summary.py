"""Turns raw cells into rows and a verdict: medians over the repeats, their intervals, and the best models.

It concludes nothing that the data does not show: models whose intervals overlap are called level.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import inf
from statistics import median
from typing import TYPE_CHECKING, Final

from proact.lab.files import FILES
from proact.lab.memory import Fit, fit
from proact.lab.registry import MODELS, READINESS, Kind
from proact.lab.spread import Spread
from proact.lab.workloads import WORKLOADS, base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from proact.lab.results import CellResult, Document, Measured, Split

#: Fewer repeats give no interval by which models can be ranked.
ENOUGH: Final = 5

#: A load that used more of its core than this set the pace itself.
LOAD_BOUND: Final = 0.97

#: Cores that other programs may keep busy before a comparison is no longer fair.
QUIET: Final = 0.15

#: The smallest step of a distribution that is drawn: a screen can't show smaller steps.
FINEST: Final = 0.002


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
    p9999: float
    slowest: float  # of all repeats
    p99_spread: Spread
    cpu_us: Spread  # CPU time of the server per message, µs
    system: float  # the kernel's share of it: 0 to 1
    switches: float  # context switches of the server per message
    calls: Spread | None  # system calls of the server per message
    threads: int | None
    kernel_threads: int | None  # of these, the kernel's threads
    unsent: float  # the share of the intended messages that was not sent in time: 0 to 1
    slow: float | None  # p50 of the slow requests, µs
    split: Split | None  # where the time went, from a separate pass
    how: str | None  # on files: how the model works
    memory: Spread | None  # bytes per connection; None on files and with few connections
    fixed: Spread | None  # bytes without a connection, on the same line as ``memory``
    kernel: Spread | None  # bytes of the kernel per connection, both ends
    load_bound: bool  # the load used up its core, so the server may be capable of more
    failures: tuple[str, ...]  # the reasons of the repeats that failed
    shares: tuple[int, ...]  # of several workers: the connections of each, the most first
    fullest: Spread | None  # of these, the first as a multiple of an even share
    grown: Spread | None  # bytes that the server holds more than before, beside slow readers
    blocks: bool  # on files: the model has no way of its own, so it reads with calls that block

    @property
    def shown(self) -> str:
        """Its name in a table: a plain blocking reader is not headed "epoll"."""
        return f"{self.model}, blocks" if self.blocks else self.model


@dataclass(frozen=True, slots=True)
class Absent:
    """A model without numbers under this load, and the reason."""

    model: str
    failed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Load:
    """The load that all models get alike."""

    workload: str
    connections: int
    active: int
    size: int
    rate: float | None

    @classmethod
    def of(cls, cell: CellResult) -> Load:
        """The load of one cell."""
        return cls(cell["workload"], cell["connections"], cell["active"], cell["size"], cell["rate"])

    @property
    def unit(self) -> str:
        """The unit that is counted."""
        return "operation" if self.workload in FILES else "message"


@dataclass(frozen=True, slots=True)
class Block:
    """All models under one load, the fastest first; with a rate, the one with the lowest p99 first."""

    load: Load
    rows: tuple[Row, ...]
    absent: tuple[Absent, ...]
    uncounted: str | None  # why system calls are missing, if they are missing
    others_cpu: float  # cores that other programs kept busy, median of the cells
    traced: bool  # calls were counted by stopping the server at each; under load, the count is too low


def blocks(document: Document) -> list[Block]:
    """One block for each load: workloads in their order, then by size, rate and connections."""
    loads = dict.fromkeys(Load.of(cell) for cell in document["cells"])
    known = [*WORKLOADS, *FILES]

    def place(load: Load) -> tuple[float, ...]:
        at = known.index(base(load.workload)) if base(load.workload) in known else len(known)
        work = WORKLOADS[load.workload].seconds if load.workload in WORKLOADS else None
        return (at, work or 0.0, load.size, load.rate or 0.0, load.connections, load.active)

    return [_block(document, load) for load in sorted(loads, key=place)]


def latencies(document: Document, load: Load, model: str) -> list[tuple[float, float]]:
    """The distribution of one model's latencies under a load: µs, and the share of answers within them.

    All repeats together; steps that add less than ``FINEST`` are joined. Empty: there is no histogram.
    """
    answers: Counter[int] = Counter()
    for cell in document["cells"]:
        if cell["model"] == model and cell["measured"] is not None and Load.of(cell) == load:
            for upper_end, count in cell["measured"]["latency"]["histogram"]:
                answers[upper_end] += count
    whole, within, drawn = answers.total(), 0, 0.0
    steps: list[tuple[float, float]] = []
    for upper_end in sorted(answers):
        within += answers[upper_end]
        if within / whole - drawn >= FINEST or not steps or within == whole:
            drawn = within / whole
            steps.append((upper_end / 1e3, drawn))
    return steps


def failed(document: Document) -> bool:
    """Whether any model crashed, hung or echoed wrongly. "Not measured" does not count as a failure."""
    return any(cell["status"] == "failed" for cell in document["cells"])


def empty(document: Document) -> bool:
    """Whether it holds no number at all."""
    return not document["timelines"] and all(cell["measured"] is None for cell in document["cells"])


def _block(document: Document, load: Load) -> Block:
    rows: list[Row] = []
    absent: list[Absent] = []
    uncounted: list[str] = []
    methods: set[str] = set()
    others: list[float] = []
    for name, facts in document["models"].items():
        cells = [cell for cell in document["cells"] if cell["model"] == name and Load.of(cell) == load]
        measured = [cell["measured"] for cell in cells if cell["measured"] is not None]
        if measured:
            rows.append(_row(name, facts, measured, cells))
            uncounted += [each["uncounted"] for each in measured if each["uncounted"] is not None]
            others += [each["others_cpu"] for each in measured]
            methods |= {each["counted"]["method"] for each in measured if each["counted"] is not None}
        elif cells:
            reason = cells[0]["reason"] or "no reason given"
            absent.append(Absent(name, cells[0]["status"] == "failed", reason))
    rows.sort(key=lambda row: row.p99 if load.rate else -row.rate.median)
    return Block(
        load=load,
        rows=tuple(rows),
        absent=tuple(absent),
        uncounted=uncounted[0] if uncounted else None,
        others_cpu=median(others) if others else 0.0,
        traced="ptrace" in methods,
    )


def _row(name: str, facts: dict[str, str], measured: list[Measured], cells: Iterable[CellResult]) -> Row:
    def latency(key: str) -> float:
        return median(each["latency"]["percentiles"][key] for each in measured) / 1e3

    counted = [each["counted"] for each in measured if each["counted"] and each["counted"]["messages"]]
    occupied = [each["occupied"] for each in measured if each["occupied"] and each["occupied"]["threads"]]
    connections = next(iter(cells))["connections"]
    on_files = next(iter(cells))["workload"] in FILES
    blocks_for_files = on_files and name in MODELS and MODELS[name].files[:1] == (READINESS,)
    own, kernel = lines(measured)
    grown = None
    if occupied and not on_files and not any("held" in each or "lazy" in each for each in measured):
        # Older results: what the load had left behind is in it.
        growths = (max(each["resident"] - each["resident_before"], 0) for each in occupied)
        grown = Spread.of([growth / connections for growth in growths])
    slow = [each["slow"]["latency"]["percentiles"]["p50"] for each in measured if each["slow"]]
    return Row(
        model=name,
        kind=Kind.BLOCKING if blocks_for_files else facts["kind"],
        family=facts["family"],
        repeats=len(measured),
        rate=Spread.of([each["messages"] / each["seconds"] for each in measured]),
        p50=latency("p50"),
        p99=latency("p99"),
        p999=latency("p99.9"),
        p9999=latency("p99.99"),
        slowest=max(each["latency"]["percentiles"]["max"] for each in measured) / 1e3,
        p99_spread=Spread.of([each["latency"]["percentiles"]["p99"] / 1e3 for each in measured]),
        cpu_us=Spread.of([cpu_seconds(each) * 1e6 / each["messages"] for each in measured]),
        system=median(each["server_system_seconds"] / (cpu_seconds(each) or 1.0) for each in measured),
        switches=median(
            (each["switches_voluntary"] + each["switches_involuntary"]) / each["messages"]
            for each in measured
        ),
        calls=Spread.of([each["calls"] / each["messages"] for each in counted]) if counted else None,
        threads=max(each["threads"] for each in occupied) if occupied else None,
        kernel_threads=max(each["kernel_threads"] for each in occupied) if occupied else None,
        unsent=median(each["unsent"] / (each["messages"] + each["unsent"]) for each in measured),
        slow=median(slow) / 1e3 if slow else None,
        split=next((each["split"] for each in measured if each["split"]), None),
        how=measured[0].get("how"),
        memory=own.slope if own else grown,
        fixed=own.fixed if own else None,
        kernel=kernel.slope if kernel else None,
        load_bound=median(each["load_cpu_seconds"] / each["seconds"] for each in measured) > LOAD_BOUND,
        failures=tuple(cell["reason"] or "" for cell in cells if cell["status"] == "failed"),
        blocks=blocks_for_files and name != Kind.BLOCKING,
        shares=next((tuple(each["shares"]) for each in measured if "shares" in each), ()),
        fullest=_over_all([fullest(each["shares"]) for each in measured if sum(each.get("shares", ()))]),
        grown=_over_all([growth(each) for each in measured if "lazy" in each and each["occupied"]]),
    )


def _over_all(values: list[float]) -> Spread | None:
    return Spread.of(values) if values else None


def fullest(shares: Sequence[int]) -> float:
    """How many times an even share of the connections the fullest worker has."""
    return max(shares) * len(shares) / sum(shares)


def growth(measured: Measured) -> float:
    """The bytes by which a server has grown since it had served one connection."""
    occupied = measured["occupied"]
    return max(0, occupied["resident"] - occupied["resident_before"]) if occupied else 0.0


def lines(measured: Sequence[Measured]) -> tuple[Fit | None, Fit | None]:
    """Memory by connections, of the server and of the kernel; None if it was not measured."""
    readings = [reading for each in measured for reading in each.get("held", ())]
    own = fit((each["connections"], each["resident"]) for each in readings)
    # The rest of the machine changes what the kernel holds: each server counts from its first reading.
    kernel = fit(
        (reading["connections"], reading["kernel"] - each["held"][0]["kernel"])
        for each in measured
        if "held" in each
        for reading in each["held"]
    )
    return own, kernel


def cpu_seconds(measured: Measured) -> float:
    """CPU time of the server's process, user and system."""
    return measured["server_user_seconds"] + measured["server_system_seconds"]


def verdict(block: Block) -> list[str]:
    """The conclusions from this block, in a few short sentences; none with fewer than two models."""
    rows = [row for row in block.rows if row.family != "ceiling"]
    if len(rows) < 2:
        return []
    if (fewest := min(row.repeats for row in block.rows)) < ENOUGH:
        times = f"{fewest} repeat{'s' if fewest > 1 else ''}"
        return [f"No ranking: a model has only {times}, and an interval needs {ENOUGH}."]
    quickest, level = fastest(rows)
    lines, unit = [], block.load.unit
    if block.load.rate is None:
        lines.append(f"Fastest: {quickest.model}, {quickest.rate.median:,.0f} {unit}s/s{_also(level)}.")
    thrifty, level = thriftiest(rows)
    lines.append(f"Least CPU: {thrifty.model}, {thrifty.cpu_us.median:.1f} µs per {unit}{_also(level)}.")
    ceilings = [row for row in block.rows if row.family == "ceiling"]
    if ceilings and block.load.rate is None:
        top = max(ceilings, key=lambda row: row.rate.median)
        reached = share(quickest.rate, top.rate)
        lines.append(f"{quickest.model} reaches {reached} of {top.model}, which has no Python in it.")
    return lines


def share(one: Spread, other: Spread) -> Spread:
    """How many times as large ``one`` is as ``other``, with an interval as wide as both allow."""

    def times(mine: float, theirs: float) -> float:
        return mine / theirs if theirs else inf  # CPU time may be too little for the clock

    return Spread(times(one.median, other.median), times(one.low, other.high), times(one.high, other.low))


@dataclass(frozen=True, slots=True)
class Winner:
    """The best models under one load, each with those that cannot be told from it; without the ceilings."""

    load: Load
    fastest: tuple[str, ...]  # most messages per second; empty if the rate is fixed
    thriftiest: tuple[str, ...]  # least CPU time per message
    gain: Spread | None  # ratio of the fastest to the best model that is not level with it


def winners(found: Sequence[Block]) -> list[Winner]:
    """When each model wins, for the loads under which at least two models were measured often enough."""
    listed = []
    for block in found:
        rows = [row for row in block.rows if row.family != "ceiling"]
        if len(rows) < 2 or min(row.repeats for row in rows) < ENOUGH:
            continue
        best, level = fastest(rows)
        thrifty, level_thrifty = thriftiest(rows)
        behind = [row.rate for row in rows if row is not best and row.model not in level]
        fixed = block.load.rate is not None
        listed.append(
            Winner(
                load=block.load,
                fastest=() if fixed else (best.model, *level),
                thriftiest=(thrifty.model, *level_thrifty),
                gain=None
                if fixed or not behind
                else share(best.rate, max(behind, key=lambda rate: rate.median)),
            )
        )
    return listed


def fastest(rows: Sequence[Row]) -> tuple[Row, list[str]]:
    """The row with the most messages per second, and the models that can't be told from it."""
    best = max(rows, key=lambda row: row.rate.median)
    return best, _level(rows, best, lambda row: row.rate, higher_is_better=True)


def thriftiest(rows: Sequence[Row]) -> tuple[Row, list[str]]:
    """The row with the least CPU time per message, and the models that can't be told from it."""
    best = min(rows, key=lambda row: row.cpu_us.median)
    return best, _level(rows, best, lambda row: row.cpu_us, higher_is_better=False)


def _level(
    rows: Iterable[Row], best: Row, value: Callable[[Row], Spread], *, higher_is_better: bool
) -> list[str]:
    """The models that can't be told from the best: their intervals overlap."""

    def reaches(row: Row) -> bool:
        mine, theirs = value(row), value(best)
        return mine.high >= theirs.low if higher_is_better else mine.low <= theirs.high

    return [row.model for row in rows if row is not best and reaches(row)]


def _also(level: list[str]) -> str:
    return f" (level with {', '.join(level)})" if level else ""
