"""The shape of a run's raw results: what ``--json`` writes and what the tables are drawn from.

Every number is as it was read; medians and conclusions are ``summary.py``'s. A change that an old reader
would misunderstand raises ``SCHEMA``.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypedDict

SCHEMA: Final = 1

#: A missing optional package or a refused engine is "not measured": nothing is wrong with the model.
Status = Literal["ok", "failed", "not measured"]


class Counted(TypedDict):
    """The counting pass: system calls of the server while it served ``messages``, in a pass of its own."""

    method: str  # "perf" or "ptrace"
    calls: float
    messages: float


class Occupied(TypedDict):
    """What the server's process holds while all connections are open, read during the counting pass."""

    threads: int
    resident_before: int  # bytes, after one connection has been served and closed
    resident: int  # bytes, the most that was seen


class Measured(TypedDict):
    """The timed pass of one cell. Times in seconds unless the name says otherwise."""

    messages: int
    bytes: int
    seconds: float
    connect_seconds: float
    latency_ns: dict[str, float]  # p50, p90, p99, p99.9, max, mean
    load_cpu_seconds: float
    server_cpu_seconds: float  # user and system, of the whole process, within the same window
    others_cpu: float  # cores kept busy by anything but server and load meanwhile, the hypervisor included
    counted: Counted | None  # None in all but the first repeat, or with ``uncounted`` saying why
    uncounted: str | None
    occupied: Occupied | None


class CellResult(TypedDict):
    """One model, one load, one repeat."""

    model: str
    connections: int
    size: int  # bytes per message
    repeat: int  # from 0
    order: int  # when in the run it was its turn, from 0
    status: Status
    reason: str | None
    measured: Measured | None


class Document(TypedDict):
    """A whole run."""

    schema: int
    workload: str
    started: str  # ISO 8601, with offset
    seed: int
    settings: dict[str, Any]
    environment: dict[str, Any]
    models: dict[str, dict[str, str]]  # name -> kind, family
    cells: list[CellResult]
