"""The shape of a run's raw results: ``--json`` writes them, and the tables are drawn from them.

Every number is as it was read; ``summary.py`` makes medians and conclusions. A change that an old reader
would misunderstand raises ``SCHEMA``.
"""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import Any, Final, Literal, NotRequired, TypedDict, cast

from proact.lab.shape import mismatch

SCHEMA: Final = 3

#: A missing optional package or a refused engine is "not measured": nothing is wrong with the model.
Status = Literal["ok", "failed", "not measured"]


class Counted(TypedDict):
    """The counting pass: system calls of the server while it served ``messages``, in a separate pass."""

    method: str  # "perf" or "ptrace"
    calls: float
    messages: float


class Occupied(TypedDict):
    """What the server's process holds while all connections are open, read during the counting pass."""

    threads: int  # its own threads, and the kernel's threads for it
    kernel_threads: int  # of these, the kernel's threads (iou-wrk, iou-sqp)
    resident_before: int  # bytes, after one connection has been served and closed
    resident: int  # bytes, the most that was seen


class Held(TypedDict):
    """Memory at a number of open connections, each of which has had one exchange; a fresh server. Bytes."""

    connections: int
    resident: int  # of the server
    kernel: int  # of the whole machine, so both ends: slabs, stacks, page tables, buffers


class CallTimes(TypedDict):
    """One kind of call of the server in the window of the probing pass. Times in seconds."""

    role: NotRequired[str]  # as in Event; absent from older results
    count: float
    wall: float  # from entry to return
    cpu: float  # of that, on a CPU: in the kernel, copying or asking
    run_queue: float  # of that, runnable but not running
    bytes: float  # moved by the call
    empty: float  # returns with EAGAIN: the call came too early


class Split(TypedDict):
    """Where the server's threads were in the window of the probing pass. Times in seconds.

    ``wall`` is the sum over the threads that make calls of how long they lived in the window. The parts
    from ``waiting`` to ``stalled`` add up to it.
    """

    seconds: float  # the window
    wall: float
    messages: float
    waiting: float  # asleep in a call: for data, for room, for the disk
    copying: float  # on a CPU inside the calls that move data: the copy and the protocol's path
    asking: float  # on a CPU inside the calls that only ask (select, epoll_ctl, accept, ...)
    run_queue: float  # runnable, but another thread had the CPU
    user: float  # on a CPU outside of calls: the program and its interpreter
    probe: NotRequired[float]  # in the probe itself, on a CPU; in older results it is in the parts above
    stalled: float  # outside of calls and off the CPU: waiting for a lock, such as the interpreter's
    others: float  # beside ``wall``: CPU time of threads that make no calls (kernel workers, AIO's helpers)
    ring_ops: float  # operations handed over by io_uring_enter
    calls: dict[str, CallTimes]
    probe_ns: float  # what the probe adds to a call, in nanoseconds
    lost: NotRequired[int]  # threads that the probe had no room for; no figure here includes them


class Disturbance(TypedDict):
    """What took CPU time beside what was measured, in cores."""

    cores: float
    by: dict[str, float]  # those that took most, by name


class Latency(TypedDict):
    """Answers by how long they took, in nanoseconds; from the intended start where the rate is fixed."""

    percentiles: dict[str, float]  # p50, p90, p99, p99.9, p99.99, max, mean
    histogram: list[list[int]]  # [upper end of a step in ns, answers in it], ascending


class Slow(TypedDict):
    """The slow requests of the mixed workload, beside which the others are measured."""

    messages: int
    latency: Latency


class Lazy(TypedDict):
    """The clients that read slowly, all of them, from their first byte until the window closed. Bytes."""

    sent: int
    read: int


class Measured(TypedDict):
    """The timed pass of one cell. Times in seconds unless the name says otherwise."""

    messages: int  # answers, verified
    bytes: int  # in these answers
    unsent: int  # with a rate: messages that no connection was free to send before the window closed
    seconds: float
    connect_seconds: float
    latency: Latency
    slow: Slow | None
    load_cpu_seconds: float
    server_user_seconds: float  # of the whole process, within the same window
    server_system_seconds: float
    switches_voluntary: float  # context switches of all its threads, within the same window
    switches_involuntary: float
    others_cpu: float  # cores that anything but server and load kept busy, including the hypervisor
    counted: Counted | None  # None but in the first repeat or for a claim, or if ``uncounted`` says why
    uncounted: str | None
    occupied: Occupied | None
    split: Split | None  # None except in the first repeat, if not wanted, or if ``unsplit`` says why
    unsplit: str | None
    disturbance: NotRequired[Disturbance]  # during all passes of the cell; absent from older results
    held: NotRequired[list[Held]]  # where calls were counted; absent with few connections, or if ``unheld``
    unheld: NotRequired[str]  # why not
    how: NotRequired[
        str
    ]  # on files: how the model works, and the result of trying its own way; over TLS: whose
    lazy: NotRequired[Lazy]  # if the workload has clients that read slowly
    shares: NotRequired[list[int]]  # of several workers: the connections of each, the most first


class CellResult(TypedDict):
    """One model, one load, one repeat."""

    workload: str
    model: str
    connections: int  # open; on files: operations at once
    active: int  # of these, the connections that send; the others are idle
    size: int  # bytes of content per message; on files, bytes that one operation moves
    rate: float | None  # intended messages per second (open loop); None: closed loop
    repeat: int  # from 0
    order: int  # its place in the order of the run, from 0
    status: Status
    reason: str | None
    measured: Measured | None


class Event(TypedDict):
    """One call in a timeline. Times in microseconds from the origin of the timeline."""

    thread: int  # from 0, in the order of their first call
    call: str
    fd: int
    start: float
    end: float
    cpu: float  # on a CPU between the two
    run_queue: float  # runnable between the two, but not running
    result: int  # what the call returned; -1 is an error
    errno: NotRequired[int]  # of a call that failed
    role: str  # "moves" data, "waits" for one of several things, "asks" anything else, or enters the "ring"


class Phases(TypedDict):
    """One request: what the server did since it began to wait for it. Times in microseconds."""

    answer: float  # from sending until the client had the whole answer
    waiting: float  # asleep in calls
    copying: float  # on a CPU in calls that moved data, and in io_uring_enter
    asking: float  # on a CPU in calls that moved no data
    run_queue: float  # runnable, but another thread had the CPU
    program: float  # outside of calls
    slept: NotRequired[dict[str, float]]  # the waiting, by the role of the calls; absent from older results
    others: NotRequired[float]  # CPU time meanwhile of threads that make no calls; absent from older results


class Timeline(TypedDict):
    """One request through one model, as the calls of its process. Times in microseconds."""

    model: str
    kind: str
    workload: str
    size: int  # bytes of content
    sent: float  # when the client sent the request: 0, the origin
    answered: float  # when the client had the whole answer
    events: list[Event]  # by their start
    others: (
        float  # CPU time of threads that make no calls (kernel workers, AIO's helpers) meanwhile, per request
    )
    requests: NotRequired[list[Phases]]  # all requests; this timeline is the one with the median answer time
    disturbance: NotRequired[Disturbance]  # absent from older results


Verdict = Literal["supported", "contradicted", "depends", "not measured"]


class Conditions(TypedDict):
    """Under which conditions a claim was measured."""

    cores: int
    pinned: bool  # server and load on a core each
    measured: int  # cells and timelines that the judge was given
    disturbed: int  # of those that were taken for it, how many something disturbed
    worst: Disturbance | None


class Claim(TypedDict):
    """A textbook's claim, tested on this machine."""

    name: str
    text: str
    source: str
    verdict: Verdict
    because: str  # one sentence with the numbers, made from ``evidence``
    evidence: dict[str, Any]  # the numbers
    conditions: NotRequired[Conditions]  # absent from older results


class _Always(TypedDict):
    """What every run's results hold. A run of one kind leaves the lists of the other kinds empty."""

    schema: int
    started: str  # ISO 8601, with offset
    seed: int
    settings: dict[str, Any]
    environment: dict[str, Any]
    models: dict[str, dict[str, str]]  # name -> kind, family (`_Model`)
    cells: list[CellResult]
    timelines: list[Timeline]
    claims: list[Claim]


class _Settings(TypedDict):
    """What tables need of the settings."""

    repeat: int
    pinned: bool
    duration: float
    warmup: float
    no_timeline: NotRequired[dict[str, str]]


class _Model(TypedDict):
    """What tables need of a model."""

    kind: str
    family: str


class _Environment(TypedDict):
    """What tables need of the environment."""

    cpu: str
    cores: int
    kernel: str
    python: str
    packages: dict[str, Any]
    also: NotRequired[dict[str, str]]  # kinds of request that another machine measured: its processor


#: What each latency has, with the mean.
PERCENTILES: Final = ("p50", "p90", "p99", "p99.9", "p99.99", "max", "mean")

#: No number of a measurement has so many digits.
_DIGITS: Final = 19


class Document(_Always, total=False):
    """A whole run, or one that was stopped early."""

    stopped: str  # how far the run came


class ResultsError(ValueError):
    """A file that holds no results, or results of another version."""


def load(path: str | Path) -> Document:
    """Read the results in a file. Raises ResultsError, or OSError if it cannot be read."""
    try:
        found = json.loads(
            Path(path).read_text(encoding="utf-8"),
            parse_float=_finite,
            parse_int=_integer,
            parse_constant=_finite,
        )
    except RecursionError:
        raise ResultsError(f"{path} is no JSON that can be read: it is nested too deeply") from None
    except ValueError as error:  # of JSON, of its encoding, of its numbers
        raise ResultsError(f"{path} is no JSON: {error}") from None
    check(found, path)
    return cast("Document", found)


def check(found: Any, path: str | Path) -> None:
    """Raise ResultsError if what was read from a file is not a run of this version of proact."""
    if not isinstance(found, dict) or not isinstance(found.get("schema"), int):
        raise ResultsError(f"{path} holds no results of `proact lab`")
    if found["schema"] != SCHEMA:
        raise ResultsError(f"{path} is of version {found['schema']}; this proact reads version {SCHEMA}")
    damage = (
        mismatch(found, Document)
        or mismatch(found["settings"], _Settings, "settings")
        or mismatch(found["environment"], _Environment, "environment")
        or mismatch(found["models"], dict[str, _Model], "models")
        or _nonsense(cast("Document", found))
    )
    if damage:
        raise ResultsError(f"{path} is damaged: {damage}")


def _finite(text: str) -> float:
    if not isfinite(value := float(text)):
        raise ValueError(f"{text} is no finite number")
    return value


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _nonsense(document: Document) -> str | None:
    """Where a number is of the right type and can't be: tables divide by it, or look it up."""
    for at, timeline in enumerate(document["timelines"]):
        if timeline["answered"] <= 0:
            return f"timelines[{at}].answered is {timeline['answered']}"
        if not timeline["events"]:
            return f"timelines[{at}] has no calls"
        if any(event["end"] < event["start"] for event in timeline["events"]):
            return f"timelines[{at}] has a call that ends before it starts"
    return _nonsense_of_cells(document)


def _nonsense_of_cells(document: Document) -> str | None:
    for at, cell in enumerate(document["cells"]):
        where, measured = f"cells[{at}]", cell["measured"]
        for name in ("connections", "active", "size"):
            if cell[name] < 1:
                return f"{where}.{name} is {cell[name]}"
        if cell["rate"] is not None and cell["rate"] <= 0:
            return f"{where}.rate is {cell['rate']}"
        if cell["model"] not in document["models"]:
            return f"{where}.model is {cell['model']!r}, which is not in models"
        if measured is None:
            continue
        where += ".measured"
        for name in ("messages", "seconds"):
            if measured[name] <= 0:  # type: ignore[literal-required]  # mypy sees a str
                return f"{where}.{name} is {measured[name]}"  # type: ignore[literal-required]  # likewise
        for latency in (measured["latency"], *([measured["slow"]["latency"]] if measured["slow"] else [])):
            if lacking := [name for name in PERCENTILES if name not in latency["percentiles"]]:
                return f"{where}.latency lacks {lacking[0]!r}"
            if any(len(step) != 2 or min(step) < 0 for step in latency["histogram"]):
                return f"{where}.latency.histogram has a step that is no pair of numbers"
        if "held" in measured and not measured["held"]:
            return f"{where}.held is empty"
    return None
