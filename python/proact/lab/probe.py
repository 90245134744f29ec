"""The split of a server's time (waiting, copying, asking, running its program), from a probe inside it.

The probe (``crates/lab/src/probe``) adds each I/O call of the server's process to a table. The table is
read here from outside, again and again while a load runs. The window lies between the first and the
last reading within the load's own window, so nothing is interpolated.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from proact.lab.results import CallTimes, Split

#: How often the table is read, in seconds.
PERIOD: Final = 0.02

#: One kind of call of one thread: role, count, then wall, CPU and run queue in ns, bytes, EAGAINs.
Times = tuple[str, int, int, int, int, int, int]


class Readings:
    """The table of a probe, read with the process's CPU clock at moments of a pass."""

    def __init__(self, probe: Any, cpu_seconds: Callable[[], float]) -> None:
        self._probe = probe
        self._cpu_seconds = cpu_seconds
        self._taken: list[tuple[dict[str, Any], float]] = []
        self._next = 0.0

    def take(self) -> None:
        """Read the table once more, if it is time."""
        if time.monotonic() >= self._next:
            self._taken.append((self._probe.snapshot(), self._cpu_seconds()))
            self._next = time.monotonic() + PERIOD

    def split(self, start: float, end: float, messages_per_second: float) -> Split | None:
        """The split from the first to the last reading of a window (monotonic seconds); None with fewer."""
        within = [taken for taken in self._taken if start <= taken[0]["at"] / 1e9 <= end]
        if len(within) < 2:
            return None
        (first, cpu_then), (last, cpu_now) = within[0], within[-1]
        return split(first, last, cpu_now - cpu_then, messages_per_second)


def split(first: dict[str, Any], last: dict[str, Any], cpu: float, messages_per_second: float) -> Split:
    """Where the threads were between two snapshots; ``cpu`` is the whole process's CPU time in seconds."""
    calls: dict[str, list[float]] = {}
    roles: dict[str, str] = {}
    ring_ops = 0
    before = {slot: (ops, times) for slot, _, ops, times in first["threads"]}
    for slot, _, ops, times in last["threads"]:
        ops_then, times_then = before.get(slot, (0, {}))
        ring_ops += ops - ops_then
        for name, (role, *now) in times.items():
            then = times_then.get(name, (role, 0, 0, 0, 0, 0, 0))[1:]
            call = plain(name)
            roles[call] = role
            total = calls.setdefault(call, [0.0] * len(now))
            for index, (value, old) in enumerate(zip(now, then, strict=True)):
                total[index] += value - old
    seconds = {name: _seconds(roles[name], total) for name, total in calls.items()}
    between, own = (seconds.pop(name, _seconds(name, [0.0] * 6)) for name in ("between", "probe"))
    moving = [each for name, each in seconds.items() if roles[name] in ("moves", "ring")]
    asking = [each for name, each in seconds.items() if roles[name] in ("waits", "asks")]
    spent = sum(each["cpu"] for each in (between, own, *seconds.values()))
    return {
        "seconds": (last["at"] - first["at"]) / 1e9,
        "wall": sum(each["wall"] for each in (between, own, *seconds.values())),
        "messages": messages_per_second * (last["at"] - first["at"]) / 1e9,
        "waiting": sum(each["wall"] - each["cpu"] - each["run_queue"] for each in seconds.values()),
        "copying": sum(each["cpu"] for each in moving),
        "asking": sum(each["cpu"] for each in asking),
        "run_queue": sum(each["run_queue"] for each in (between, *seconds.values())),
        "user": between["cpu"],
        "stalled": between["wall"] - between["cpu"] - between["run_queue"],
        "probe": own["wall"],
        "others": max(0.0, cpu - spent),
        "ring_ops": ring_ops,
        "calls": {name: each for name, each in seconds.items() if each["count"]},
        "probe_ns": last["overhead"],
        "lost": last["lost"],
    }


def plain(name: str) -> str:
    """The name of a call in its manual page: glibc's checked and large-file forms are the same calls."""
    return name.removeprefix("__").removesuffix("_chk").removesuffix("64")


def _seconds(role: str, total: list[float]) -> CallTimes:
    count, wall, cpu, run_queue, moved, empty = total
    return {
        "role": role,
        "count": count,
        "wall": wall / 1e9,
        "cpu": cpu / 1e9,
        "run_queue": run_queue / 1e9,
        "bytes": moved,
        "empty": empty,
    }
