"""One cell of a measurement: a fresh server, a timed pass, and a counting pass.

The timed pass is disturbed by nothing but a read of the server's CPU clock every few milliseconds, from the
load's core. What needs more (counting system calls, walking page tables) has a pass of its own.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from proact.lab.environment import busy_seconds
from proact.lab.load_process import LoadError, LoadProcess
from proact.lab.probe import Readings
from proact.lab.server_process import ModelProcess, ServerError, ServerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from proact.lab.results import Counted, Latency, Measured, Occupied

#: The counting pass, in seconds: long enough for thousands of messages, short enough for a demo.
COUNT_WARMUP: Final = 0.05
COUNT_DURATION: Final = 0.25

#: The probing pass, in seconds.
SPLIT_WARMUP: Final = 0.1
SPLIT_DURATION: Final = 0.4

#: Connections that ask for the slow thing, where a workload has one.
SLOW: Final = 1

#: Reading the context switches of all threads takes so small a part of the time.
SWITCHES_PERIOD: Final = 0.1
SWITCHES_SHARE: Final = 0.05

#: How often memory is read during the counting pass, in seconds.
MEMORY_PERIOD: Final = 0.05


@dataclass(frozen=True, slots=True)
class Cell:
    """What is measured at once."""

    model: str
    workload: str
    connections: int  # open
    active: int  # of these, that send
    size: int  # bytes of content per message
    rate: float | None  # messages per second intended; None: closed loop
    repeat: int  # from 0


class Sampled:
    """A number that only grows, read again and again; asked afterwards how much it grew in a window.

    The load knows its window (warm-up and connecting excluded) only when it is over, and it is another
    process; so its clock is read here, and the ends of the window are interpolated between two reads.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._times: list[float] = []
        self._values: list[float] = []
        self.take()

    def take(self) -> None:
        """Read it once more."""
        self._times.append(time.monotonic())
        self._values.append(self._read())

    def growth(self, start: float, end: float) -> float:
        """How much it grew from ``start`` to ``end`` (monotonic seconds)."""
        return self._at(end) - self._at(start)

    def _at(self, when: float) -> float:
        right = bisect_left(self._times, when)
        if right == 0:
            return self._values[0]
        if right == len(self._times):
            return self._values[-1]
        t0, t1 = self._times[right - 1], self._times[right]
        v0, v1 = self._values[right - 1], self._values[right]
        return v0 + (v1 - v0) * (when - t0) / (t1 - t0)


class Seldom:
    """Reads something as often as is cheap: every ``SWITCHES_PERIOD`` seconds, seldomer if it is dear."""

    def __init__(self, take: Callable[[], None]) -> None:
        self._take = take
        self._next = 0.0

    def __call__(self) -> None:
        """Take it, if it is time."""
        begun = time.monotonic()
        if begun >= self._next:
            self._take()
            ended = time.monotonic()
            self._next = ended + max(SWITCHES_PERIOD, (ended - begun) / SWITCHES_SHARE)


class Switches:
    """Context switches of a process; threads that have ended count with what was last read of them."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._seen: dict[str, tuple[int, int]] = {}
        self._voluntary = Sampled(self._read)
        self._involuntary = Sampled(self._involuntary_so_far)

    def _read(self) -> float:
        self._seen.update(self._server.switches())
        return sum(voluntary for voluntary, _ in self._seen.values())

    def _involuntary_so_far(self) -> float:
        return sum(involuntary for _, involuntary in self._seen.values())

    def take(self) -> None:
        """Read them once more."""
        self._voluntary.take()
        self._involuntary.take()

    def growth(self, start: float, end: float) -> tuple[float, float]:
        """Voluntary and involuntary switches from ``start`` to ``end`` (monotonic seconds)."""
        return self._voluntary.growth(start, end), self._involuntary.growth(start, end)


class Others:
    """What the rest of the machine does meanwhile: a comparison is only fair if that is little."""

    def __init__(self, server: ModelProcess, load: LoadProcess | None = None) -> None:
        self._server, self._load = server, load
        self._begun, self._before = time.monotonic(), self._seconds()

    def _seconds(self) -> float:
        load = self._load.cpu_seconds() if self._load is not None else 0.0
        return busy_seconds() - (self._server.cpu_seconds() + load + time.process_time())

    def cores(self) -> float:
        """How many cores were busy since the beginning with neither server nor load nor this process."""
        return max(0.0, self._seconds() - self._before) / (time.monotonic() - self._begun)


class Occupancy:
    """The most threads and memory seen, looked at every ``MEMORY_PERIOD`` seconds at most."""

    def __init__(self, server: ModelProcess, resident_before: int) -> None:
        self._server = server
        # Not at once: what served the timed pass may still be ending.
        self._next = time.monotonic() + MEMORY_PERIOD
        self.seen: Occupied = {
            "threads": 0,
            "kernel_threads": 0,
            "resident_before": resident_before,
            "resident": 0,
        }

    def look(self) -> None:
        """Read threads and memory, if it is time."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + MEMORY_PERIOD
        threads, kernel_threads = self._server.threads()
        self.seen["threads"] = max(self.seen["threads"], threads)
        self.seen["kernel_threads"] = max(self.seen["kernel_threads"], kernel_threads)
        self.seen["resident"] = max(self.seen["resident"], self._server.resident_bytes())


@dataclass(slots=True)
class Bench:
    """What all cells share: the load process, the server's core, and who is told that time passes."""

    load: LoadProcess
    server_cpu: int | None
    warmup: float
    duration: float
    tick: Callable[[], None]
    split: frozenset[Cell] = frozenset()  #: those with a probing pass

    def measure(self, cell: Cell) -> Measured:
        """Measure one cell. Raises ServerError or LoadError, with the reason for people."""
        with ServerProcess(cell.model, cell.workload, cpu=self.server_cpu) as server:
            server.check(cell.size)
            resident_before = server.resident_bytes()
            try:
                measured = self._timed(server, cell)
                self._count(server, cell, measured, resident_before)
            except LoadError as error:
                # A server that has ended is the cause of what the load saw.
                raise ServerError(server.ended(grace=1.0) or str(error)) from None
        if cell in self.split:
            self._split(cell, measured)
        return measured

    def _split(self, cell: Cell, measured: Measured) -> None:
        """The probing pass, on a server of its own: fills in ``split``, or why not."""
        from proact._core import Probe

        try:
            probe = Probe()
            probed = ServerProcess(cell.model, cell.workload, cpu=self.server_cpu, probe=probe.fileno())
            with probed as server:
                server.check(cell.size)
                readings = Readings(probe, server.cpu_seconds)
                result, window = self._pass(server, cell, SPLIT_WARMUP, SPLIT_DURATION, readings.take)
                measured["split"] = readings.split(*window, result["messages"] / result["seconds"])
            if measured["split"] is None:
                measured["unsplit"] = "too few readings fell into the window"
        except (OSError, ServerError, LoadError) as error:
            # The timed pass stands.
            measured["unsplit"] = f"while it was probed: {error}"

    def _pass(
        self,
        server: ServerProcess,
        cell: Cell,
        warmup: float,
        duration: float,
        *watching: Callable[[], None],
    ) -> tuple[dict[str, Any], tuple[float, float]]:
        """One pass of load; the result, and from when to when the load's window was."""

        def tick() -> None:
            for each in watching:
                each()
            self.tick()

        spec = {
            "host": "127.0.0.1",
            "port": server.port,
            "workload": cell.workload,
            "connections": cell.active,
            "idle": cell.connections - cell.active,
            "slow": SLOW,
            "size": cell.size,
            "rate": cell.rate,
            "warmup": warmup,
            "duration": duration,
        }
        answer = self.load.apply(spec, tick)
        result = answer["result"]
        start = answer["begun"] + result["connect_seconds"] + warmup
        return result, (start, start + result["seconds"])

    def _timed(self, server: ServerProcess, cell: Cell) -> Measured:
        others = Others(server, self.load)
        clock, switches = Sampled(server.cpu_seconds), Switches(server)
        user, system = Sampled(lambda: server.ticks()[0]), Sampled(lambda: server.ticks()[1])
        watching = clock.take, user.take, system.take, Seldom(switches.take)
        result, window = self._pass(server, cell, self.warmup, self.duration, *watching)
        if not result["messages"]:
            raise LoadError(f"no message of {cell.size} bytes came back within {self.duration:g} s")
        slow = result.get("slow")
        cpu, in_user, in_system = (each.growth(*window) for each in (clock, user, system))
        share = in_system / (in_user + in_system) if in_user + in_system else 0.0
        voluntary, involuntary = switches.growth(*window)
        return {
            "messages": result["messages"],
            "bytes": result["bytes"],
            "unsent": result["unsent"],
            "seconds": result["seconds"],
            "connect_seconds": result["connect_seconds"],
            "latency": _latency(result),
            "slow": None if slow is None else {"messages": slow["messages"], "latency": _latency(slow)},
            "load_cpu_seconds": result["cpu_seconds"],
            # The clock is exact; how it is divided is known in ticks of 10 ms only.
            "server_user_seconds": cpu * (1 - share),
            "server_system_seconds": cpu * share,
            "switches_voluntary": voluntary,
            "switches_involuntary": involuntary,
            "others_cpu": others.cores(),
            "counted": None,
            "uncounted": None,
            "occupied": None,
            "split": None,
            "unsplit": None,
        }

    def _count(self, server: ServerProcess, cell: Cell, measured: Measured, resident_before: int) -> None:
        """The counting pass: fills in ``counted`` (or why not) and ``occupied``."""
        from proact._core import SyscallCounter  # here, so that the rest is testable without the core

        occupancy = Occupancy(server, resident_before)
        try:
            counter = SyscallCounter(server.pid)
        except OSError as error:
            measured["uncounted"] = str(error)
            self._pass(server, cell, COUNT_WARMUP, COUNT_DURATION, occupancy.look)
        else:
            sampled, method = Sampled(counter.read), counter.method
            try:
                # Closed before anything waits for the server: a ptrace counter's stops would be taken away.
                with closing(counter):
                    watching = sampled.take, occupancy.look
                    result, window = self._pass(server, cell, COUNT_WARMUP, COUNT_DURATION, *watching)
            except LoadError as error:
                if server.ended(grace=1.0) is not None:
                    raise
                # The timed pass stands: a server may be too slow to load only while it is traced.
                measured["uncounted"] = f"while its calls were counted: {error}"
                return
            # The slow ones' calls are the server's as well, and can't be told from the others'.
            messages = result["messages"] + result.get("slow", {"messages": 0})["messages"]
            counted: Counted = {"method": method, "calls": sampled.growth(*window), "messages": messages}
            measured["counted"] = counted
        measured["occupied"] = occupancy.seen


def _latency(result: dict[str, Any]) -> Latency:
    return {"percentiles": result["latency_ns"], "histogram": result["histogram"]}
