"""What the rest of the machine did while something was measured: who took CPU time, and what was withheld.

A comparison is only fair if that is little. The processes that descend from this one are the measurement;
all others disturb it, and so does a hypervisor that runs something else, or a limit that stops a container.
Where files are measured, the kernel's threads belong to it: they carry the blocks to and from the disk.
"""

from __future__ import annotations

import os
import resource
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from proact.lab.environment import process_cpu_seconds, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proact.lab.results import Disturbance

#: Cores that may have been taken before what was measured counts as disturbed.
DISTURBED: Final = 0.05

#: Cores that nobody visible has taken count only above this: the kernel counts them in ticks of 10 ms.
UNSEEN: Final = 0.1

#: How many of those that took CPU time are named.
NAMED: Final = 3

HYPERVISOR: Final = "the hypervisor"
LIMIT: Final = "this container's CPU limit"
NOT_SEEN: Final = "processes that can't be seen from here"

_TICKS: Final = os.sysconf("SC_CLK_TCK")

#: The parent of all of the kernel's threads. A container does not see it, nor them.
_KERNEL: Final = (2, "kthreadd")


class _Process(NamedTuple):
    name: str
    parent: int
    seconds: float  # CPU time so far, with that of its children which have ended


class _Reading(NamedTuple):
    at: float
    others: dict[int, _Process]
    own: float  # CPU time of this process and of its descendants, in seconds
    machine: float
    stolen: float
    throttled: float


class Watch:
    """Watches from its making on. ``files``: what is measured makes the kernel's threads work."""

    def __init__(self, *, files: bool = False) -> None:
        self._files = files
        self._first = _reading(files)

    def disturbance(self) -> Disturbance:
        """What was taken until now, in cores."""
        first, last = self._first, _reading(self._files)
        seconds = last.at - first.at
        taken: defaultdict[str, float] = defaultdict(float)
        for pid, process in last.others.items():
            before = first.others.get(pid)
            taken[process.name] += process.seconds - (before.seconds if before else 0.0)
        # What an ended process took is in the account of who waited for it, with what it had taken before.
        for pid in first.others.keys() - last.others.keys():
            waited = first.others[pid].parent
            while waited in first.others and waited not in last.others:
                waited = first.others[waited].parent
            if waited in last.others:
                taken[last.others[waited].name] -= first.others[pid].seconds
        taken = defaultdict(float, {name: used for name, used in taken.items() if used > 0})
        visible = sum(taken.values())
        beside = max(0.0, last.machine - first.machine - (last.own - first.own))
        if beside - visible > UNSEEN * seconds:
            taken[NOT_SEEN] = beside - visible
        # A process whose parent has ended is waited for by another one, whose account then has all of it.
        if visible > (limit := beside + UNSEEN * seconds):
            taken = defaultdict(float, {name: used * limit / visible for name, used in taken.items()})
        taken[HYPERVISOR] = last.stolen - first.stolen
        taken[LIMIT] = last.throttled - first.throttled
        most = sorted(taken.items(), key=lambda each: -each[1])
        cores = {name: used / seconds for name, used in most if used}
        return {
            "cores": sum(cores.values()),
            "by": dict(list(cores.items())[:NAMED]),
        }


def is_disturbed(disturbance: Disturbance | None) -> bool:
    """Whether what was measured meanwhile may not be compared."""
    return disturbance is not None and disturbance["cores"] > DISTURBED


def named(disturbance: Disturbance) -> str:
    """``1.2 cores by python (1.0), make (0.2)``."""
    by = ", ".join(f"{name} ({cores:.2f})" for name, cores in disturbance["by"].items())
    return f"{disturbance['cores']:.2f} cores by {by or 'many'}"


def _reading(files: bool) -> _Reading:
    processes = dict(_processes())
    own = {os.getpid()}
    if files:
        own |= {pid for pid, each in processes.items() if (pid, each.name) == _KERNEL}
    grown = True
    while grown:
        more = {pid for pid, each in processes.items() if each.parent in own} - own
        own |= more
        grown = bool(more)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    mine = time.process_time() + ended.ru_utime + ended.ru_stime
    mine += sum(processes[pid].seconds for pid in own - {os.getpid()})
    user, nice, system, _idle, _iowait, _irq, _softirq, steal, *_ = map(int, read("/proc/stat").split()[1:11])
    return _Reading(
        at=time.monotonic(),
        others={pid: each for pid, each in processes.items() if pid not in own},
        own=mine,
        # Interrupts are left out: those of the loopback interface are the measurement's own.
        machine=(user + nice + system) / _TICKS,
        stolen=steal / _TICKS,
        throttled=_throttled(),
    )


def _processes() -> Iterator[tuple[int, _Process]]:
    """Every process that can be seen. One that ends meanwhile is left out."""
    for folder in os.scandir("/proc"):
        if not folder.name.isdigit():
            continue
        stat = read(f"/proc/{folder.name}/stat")
        name, _, rest = stat.partition("(")[2].rpartition(")")
        fields = rest.split()
        if len(fields) < 15:
            continue
        user, system, of_children, in_system = map(int, fields[11:15])
        try:
            seconds = process_cpu_seconds(int(folder.name))
        except OSError:  # a zombie has no clock
            seconds = (user + system) / _TICKS
        ended = (of_children + in_system) / _TICKS
        yield int(folder.name), _Process(name, int(fields[1]), seconds + ended)


def _throttled() -> float:
    """How long the limit of this process's control group has kept it from running, in seconds (cgroup v2)."""
    path = next((line[3:] for line in read("/proc/self/cgroup").splitlines() if line.startswith("0::")), None)
    if path is None:
        return 0.0
    for line in read(f"{Path('/sys/fs/cgroup')}{path}/cpu.stat").splitlines():
        if line.startswith("throttled_usec "):
            return int(line.split()[1]) / 1e6
    return 0.0
