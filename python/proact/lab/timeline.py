"""Takes timelines: one request through a model, as the calls of its server's process.

The client sends a request some milliseconds after the server has begun to wait, so that both of Stevens'
phases are visible: waiting for data, and copying it. Several requests are taken in one trace of the
probe. The request with the median answer time is kept, and the phases of every request.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from proact.lab.disturbance import Watch, is_disturbed
from proact.lab.lifetime import pinned, separate_cores
from proact.lab.phases import phases
from proact.lab.probe import plain
from proact.lab.registry import MODELS
from proact.lab.server_process import ServerError, ServerProcess, sample

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator

    from proact.lab.results import Document, Event, Timeline
    from proact.lab.workloads import Exchange

#: The client sends so many seconds after the server has begun to wait.
DELAY: Final = 0.005

#: The requests per model: an odd number, so that one of them is the median.
REQUESTS: Final = 15

#: A request up to this size fits into the buffers of a connection's sockets, so one call sends it.
MAX_SIZE: Final = 64 * 1024

#: The seconds after which an answer counts as missing.
TIMEOUT: Final = 5.0

#: Why several workers have no timeline and no split.
SEVERAL: Final = "several workers: the probe accounts for one process with one loop"

#: How often a timeline is taken again that something disturbed.
RETAKES: Final = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """A timeline to take of a model. Size in bytes of content, delay in seconds."""

    model: str
    workload: str = "echo"
    size: int = 1024
    delay: float = DELAY
    requests: int = REQUESTS


@dataclass(frozen=True, slots=True)
class Taken:
    """The outcome of one plan: a timeline, or the reason why there is none."""

    plan: Plan
    timeline: Timeline | None
    reason: str | None = None
    failed: bool = False  #: the model is at fault, not this machine


class Observer(Protocol):
    """Is told what happens now."""

    def note(self, what: str) -> None:
        """The next tenths of a second are spent on ``what``."""

    def taken(self, taken: Taken) -> None:
        """One timeline is finished, or its model has none."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that the probe has traced. Times in ns of the monotonic clock."""

    thread: int
    name: str
    role: str
    fd: int
    start: int
    end: int
    cpu: int
    run_queue: int
    result: int
    errno: int


@dataclass(frozen=True, slots=True)
class _Request:
    """When a request was sent and answered, in ns; ``quiet``: when the request before it had its answer."""

    quiet: int
    sent: int
    answered: int
    threads: dict[int, int]  # the CPU time of each thread so far, in ns, before it was sent


def add(document: Document, plans: Iterable[Plan], observer: Observer) -> bool:
    """Take timelines into ``document``; return False if one failed. Its settings list the missing ones."""
    absent: dict[str, str] = {}
    document["settings"]["no_timeline"] = absent
    failed = False
    for taken in take_all(plans, observer):
        if taken.timeline is not None:
            document["timelines"].append(taken.timeline)
        else:
            absent[taken.plan.model] = f"{'FAILED' if taken.failed else 'not measured'}: {taken.reason}"
            failed |= taken.failed
        observer.taken(taken)
    return not failed


def take_all(plans: Iterable[Plan], observer: Observer) -> Iterator[Taken]:
    """Take a timeline for each plan, with the server on its own core if there are two."""
    server_cpu, client_cpu = separate_cores() or (None, None)
    with pinned(client_cpu):
        for plan in plans:
            if reason := MODELS[plan.model].missing(1, plan.workload):
                yield Taken(plan, None, reason)
                continue
            if MODELS[plan.model].workers:
                yield Taken(plan, None, SEVERAL)
                continue
            observer.note(f"timeline of {plan.model}, {plan.workload} x {plan.size} bytes")
            try:
                yield Taken(plan, _undisturbed(plan, server_cpu, client_cpu))
            except (ServerError, OSError) as error:
                yield Taken(plan, None, str(error), failed=True)


def _undisturbed(plan: Plan, server_cpu: int | None, beside: int | None) -> Timeline:
    """A timeline, the last one of several if something disturbed each of them."""
    for _ in range(RETAKES):
        if not is_disturbed((timeline := take(plan, server_cpu, beside))["disturbance"]):
            return timeline
    return take(plan, server_cpu, beside)


def take(plan: Plan, server_cpu: int | None = None, beside: int | None = None) -> Timeline:
    """Take one timeline. Raises ServerError, or OSError if the probe can't be made."""
    from proact._core import Probe  # here, so that the rest is testable without the core

    probe: Any = Probe()
    watch = Watch()
    asked = sample(plan.workload, plan.size)
    with ServerProcess(
        plan.model, plan.workload, cpu=server_cpu, beside=beside, probe=probe.fileno()
    ) as server:
        server.check(plan.size)
        with _connected(server) as connection:
            _ask(server, connection, asked)
            probe.trace(True)
            requests = list(_requests(server, connection, asked, plan))
            lost = probe.trace(False)
            calls = [_Call(*each) for each in probe.events()]
            callers = {thread for _, thread, _, _ in probe.snapshot()["threads"]}
    if lost:
        raise ServerError(
            f"made {lost:,} calls more than a trace can hold: a shorter delay or fewer requests"
        )
    # The last request only ends the wait that begins while the one before it is answered.
    timelines = [
        _timeline(plan, request, calls, _beside(request.threads, following.threads, callers))
        for request, following in pairwise(requests)
    ]
    timelines.sort(key=lambda timeline: timeline["answered"])
    median = timelines[len(timelines) // 2]
    return {
        **median,
        "others": sum(timeline["others"] for timeline in timelines) / len(timelines),
        "requests": [phases(timeline) for timeline in timelines],
        "disturbance": watch.disturbance(),
    }


def _beside(before: dict[int, int], after: dict[int, int], callers: set[int]) -> float:
    """The CPU time of threads that make no calls between two readings, in ns."""
    return sum(used - before.get(each, 0) for each, used in after.items() if each not in callers)


def _connected(server: ServerProcess) -> socket.socket:
    try:
        return server.connect(TIMEOUT)
    except OSError as error:
        raise ServerError(server.ended(grace=1.0) or f"no connection: {error}") from None


def _requests(
    server: ServerProcess, connection: socket.socket, asked: Exchange, plan: Plan
) -> Iterator[_Request]:
    quiet = time.monotonic_ns()
    for _ in range(plan.requests + 1):
        # What works beside the program has ended by then.
        time.sleep(plan.delay / 2)
        threads = thread_cpu(server.pid)
        time.sleep(plan.delay / 2)
        sent, answered = _ask(server, connection, asked)
        yield _Request(quiet, sent, answered, threads)
        quiet = answered


def _ask(server: ServerProcess, connection: socket.socket, asked: Exchange) -> tuple[int, int]:
    """Make one request; return when it was sent and when its whole answer was there, in ns."""
    returned = bytearray()
    sent = time.monotonic_ns()
    try:
        connection.sendall(asked.request)
        while len(returned) < len(asked.response):
            data = connection.recv(MAX_SIZE)
            if not data:
                break
            returned += data
    except OSError as error:
        raise ServerError(server.ended(grace=1.0) or f"no answer: {error}") from None
    answered = time.monotonic_ns()
    if returned != asked.response:
        raise ServerError(server.ended(grace=1.0) or "answered with other bytes")
    return sent, answered


def _timeline(plan: Plan, request: _Request, calls: list[_Call], others: float) -> Timeline:
    """What the server did from the last answer to this one, including the wait that this request ended."""
    within = [
        call
        for call in calls
        if (call.start >= request.quiet or call.end >= request.sent) and call.start < request.answered
    ]
    within.sort(key=lambda call: call.start)
    threads = {thread: index for index, thread in enumerate(dict.fromkeys(call.thread for call in within))}
    return {
        "model": plan.model,
        "kind": MODELS[plan.model].kind.value,
        "workload": plan.workload,
        "size": plan.size,
        "sent": 0.0,
        "answered": (request.answered - request.sent) / 1e3,
        "events": [_event(call, request.sent, threads[call.thread]) for call in within],
        "others": others / 1e3,
    }


def _event(call: _Call, origin: int, thread: int) -> Event:
    event: Event = {
        "thread": thread,
        "call": plain(call.name),
        "fd": call.fd,
        "start": (call.start - origin) / 1e3,
        "end": (call.end - origin) / 1e3,
        "cpu": call.cpu / 1e3,
        "run_queue": call.run_queue / 1e3,
        "result": call.result,
        "role": call.role,
    }
    if call.errno:
        event["errno"] = call.errno
    return event


def thread_cpu(pid: int) -> dict[int, int]:
    """CPU time of each thread of a process so far, in ns, by id, including the kernel's workers for it."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found[int(task.name)] = int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue  # the thread has just ended
    return found
