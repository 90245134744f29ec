"""One cell of a measurement: a fresh server, a timed pass, and a counting pass.

Only a read of the server's CPU clock every few milliseconds disturbs the timed pass, and it runs on the
load's core. Measurements that cost more (counting system calls, walking page tables) have a separate pass.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from proact.lab import memory
from proact.lab.environment import busy_seconds
from proact.lab.load_process import LoadError, LoadProcess
from proact.lab.probe import Readings
from proact.lab.registry import MODELS
from proact.lab.server_process import ModelProcess, ServerError, ServerProcess
from proact.lab.timeline import SEVERAL
from proact.lab.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable

    from proact.lab.results import Counted, Latency, Measured, Occupied

#: The counting pass, in seconds: long enough for thousands of messages, short enough for a demo.
COUNT_WARMUP: Final = 0.05
COUNT_DURATION: Final = 0.25

#: The probing pass, in seconds.
SPLIT_WARMUP: Final = 0.1
SPLIT_DURATION: Final = 0.4

#: The connections that ask for the slow thing, if the workload has one.
SLOW: Final = 1

#: Where the TLS of a model is.
OWN_TLS: Final = "TLS by the model's own library"
TLS_IN_MEMORY: Final = "TLS between two buffers in memory (ssl.MemoryBIO), by the session"

#: The share of the time that reading the context switches of all threads may take.
SWITCHES_PERIOD: Final = 0.1
SWITCHES_SHARE: Final = 0.05

#: How often memory is read during the counting pass, in seconds.
MEMORY_PERIOD: Final = 0.05


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a measurement: a model, a load and a repeat."""

    model: str
    workload: str
    connections: int  # open
    active: int  # of these, the connections that send
    size: int  # bytes of content per message
    rate: float | None  # intended messages per second; None: closed loop
    repeat: int  # from 0


class Sampled:
    """A number that only grows. It is read again and again; afterwards, ``grown`` says how much it grew in a
    window.

    The load knows its window (without warm-up and connecting) only when it is over, and it is another
    process. So the number is read all the time, and the ends of the window are interpolated between two
    reads.
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
    """Reads something as often as is cheap: every ``SWITCHES_PERIOD`` seconds, more rarely if it is dear."""

    def __init__(self, take: Callable[[], None]) -> None:
        self._take = take
        self._next = 0.0

    def __call__(self) -> None:
        """Read it, if it is time."""
        begun = time.monotonic()
        if begun >= self._next:
            self._take()
            ended = time.monotonic()
            self._next = ended + max(SWITCHES_PERIOD, (ended - begun) / SWITCHES_SHARE)


class Switches:
    """Context switches of a process; a thread that has ended counts with its last reading."""

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
    """The CPU time of the rest of the machine: a comparison is only fair if it is little."""

    def __init__(
        self, server: ModelProcess, load: LoadProcess | None = None, backends: Callable[[], float] = float
    ) -> None:
        self._server, self._load, self._backends = server, load, backends
        self._begun, self._before = time.monotonic(), self._seconds()

    def _seconds(self) -> float:
        load = self._load.cpu_seconds() if self._load is not None else 0.0
        ours = self._server.cpu_seconds() + load + self._backends() + time.process_time()
        return busy_seconds() - ours

    def cores(self) -> float:
        """How many cores were busy since the beginning with anything but server, load and this process."""
        return max(0.0, self._seconds() - self._before) / (time.monotonic() - self._begun)


class Occupancy:
    """The most threads and memory seen, read at most every ``MEMORY_PERIOD`` seconds."""

    def __init__(self, server: ModelProcess, resident_before: int, *, workers: bool = False) -> None:
        self._server = server
        self._workers = workers
        self.shares: list[int] = []  # connections of each worker, when there were most
        # Not at once: threads that served the timed pass may still be ending.
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
        if self._workers and sum(shares := self._server.shares()) > sum(self.shares):
            self.shares = shares


class Counter:
    """Counts the system calls of some processes. Raises OSError."""

    def __init__(self, pids: list[int]) -> None:
        from proact._core import SyscallCounter  # here, so that the rest is testable without the core

        self._counters: list[Any] = []
        try:
            for pid in pids:
                self._counters.append(SyscallCounter(pid))
        except OSError:
            self.close()
            raise
        self.method: str = self._counters[0].method

    def read(self) -> float:
        """Calls so far."""
        return float(sum(each.read() for each in self._counters))

    def close(self) -> None:
        """Count no more."""
        for each in self._counters:
            each.close()


@dataclass(slots=True)
class Bench:
    """What all cells share: the load process, the server's core, and the observer of the passing time."""

    load: LoadProcess
    server_cpu: int | None
    warmup: float
    duration: float
    tick: Callable[[], None]
    split: frozenset[Cell] = frozenset()  #: the cells with a probing pass
    counted: frozenset[Cell] = frozenset()  #: the cells with a counting pass
    load_cpu: int | None = None
    several: tuple[int, ...] = ()  #: the cores of a server with several workers

    def measure(self, cell: Cell) -> Measured:
        """Measure one cell. Raises ServerError or LoadError, with a reason that people can read."""
        with self._server(cell) as server:
            server.check(cell.size)
            resident_before = server.resident_bytes()
            try:
                measured = self._timed(server, cell)
                if cell in self.counted:
                    self._count(server, cell, measured, resident_before)
            except LoadError as error:
                # If the server has ended, that is the cause of the load's failure.
                raise ServerError(server.ended(grace=1.0) or str(error)) from None
        if cell in self.counted:
            self._hold(cell, measured)
        if cell in self.split:
            self._split(cell, measured)
        return measured

    def _server(self, cell: Cell, probe: int | None = None) -> ServerProcess:
        """A fresh server for a cell, on its cores."""
        alone = self.server_cpu is None or not MODELS[cell.model].workers
        cpu = self.server_cpu if alone else self.several
        return ServerProcess(cell.model, cell.workload, cpu=cpu, beside=self.load_cpu, probe=probe)

    def _hold(self, cell: Cell, measured: Measured) -> None:
        """Memory at several numbers of connections, of a separate server: fills in ``held``, or why not."""
        if cell.connections < memory.LEAST or WORKLOADS[cell.workload].lazy is not None:
            return
        try:
            with self._server(cell) as server:
                measured["held"] = memory.held(server, cell.size, cell.connections)
        except (OSError, ServerError) as error:
            measured["unheld"] = str(error)
        self.tick()

    def _split(self, cell: Cell, measured: Measured) -> None:
        """The probing pass, on a separate server: fills in ``split``, or the reason why there is none."""
        from proact._core import Probe

        if MODELS[cell.model].workers:
            measured["unsplit"] = SEVERAL
            return
        try:
            probe = Probe()
            with self._server(cell, probe.fileno()) as server:
                server.check(cell.size)
                readings = Readings(probe, server.cpu_seconds)
                result, window = self._pass(server, cell, SPLIT_WARMUP, SPLIT_DURATION, readings.take)
                measured["split"] = readings.split(*window, result["messages"] / result["seconds"])
            if measured["split"] is None:
                measured["unsplit"] = "too few readings fell into the window"
        except (OSError, ServerError, LoadError) as error:
            # The timed pass remains valid.
            measured["unsplit"] = f"while it was probed: {error}"

    def _pass(
        self,
        server: ServerProcess,
        cell: Cell,
        warmup: float,
        duration: float,
        *watching: Callable[[], None],
        tell: bool = False,
    ) -> tuple[dict[str, Any], tuple[float, float]]:
        """One pass of load; the result, and the beginning and the end of the load's window.

        ``tell``: its figures so far are for who watches the run.
        """

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
        if not tell:
            spec["tell"] = False
        answer = self.load.apply(spec, tick)
        result = answer["result"]
        start = answer["begun"] + result["connect_seconds"] + warmup
        return result, (start, start + result["seconds"])

    def _timed(self, server: ServerProcess, cell: Cell) -> Measured:
        others = Others(server, self.load, server.backend_seconds)
        backends = Sampled(server.backend_seconds)
        clock, switches = Sampled(server.cpu_seconds), Switches(server)
        user, system = Sampled(lambda: server.ticks()[0]), Sampled(lambda: server.ticks()[1])
        watching = clock.take, backends.take, user.take, system.take, Seldom(switches.take)
        result, window = self._pass(server, cell, self.warmup, self.duration, *watching, tell=True)
        switches.take()  # what it read last may lie before the end of a short window
        if not result["messages"]:
            raise LoadError(f"no message of {cell.size} bytes came back within {self.duration:g} s")
        slow = result.get("slow")
        cpu, in_user, in_system = (each.growth(*window) for each in (clock, user, system))
        share = in_system / (in_user + in_system) if in_user + in_system else 0.0
        voluntary, involuntary = switches.growth(*window)
        more: dict[str, Any] = {}
        if "lazy" in result:
            more["lazy"] = dict(zip(("sent", "read"), result["lazy"], strict=True))
        if WORKLOADS[cell.workload].tls:
            more["how"] = OWN_TLS if MODELS[cell.model].tls else TLS_IN_MEMORY
        return more | {  # type: ignore[return-value]  # `|` makes a plain dictionary of it
            "messages": result["messages"],
            "bytes": result["bytes"],
            "unsent": result["unsent"],
            "seconds": result["seconds"],
            "connect_seconds": result["connect_seconds"],
            "latency": _latency(result),
            "slow": None if slow is None else {"messages": slow["messages"], "latency": _latency(slow)},
            # The back ends are on the other side, and on the same core.
            "load_cpu_seconds": result["cpu_seconds"] + backends.growth(*window),
            # The clock is exact; its division into user and system is known only in ticks of 10 ms.
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
        """The counting pass: fills in ``counted`` (or the reason why not) and ``occupied``."""
        occupancy = Occupancy(server, resident_before, workers=MODELS[cell.model].workers)
        try:
            counter = Counter(server.pids())
        except OSError as error:
            measured["uncounted"] = str(error)
            self._pass(server, cell, COUNT_WARMUP, COUNT_DURATION, occupancy.look)
        else:
            sampled, method = Sampled(counter.read), counter.method
            try:
                # Close the counter before anything waits for the server: a wait would take the stops of a
                # ptrace counter.
                with closing(counter):
                    watching = sampled.take, occupancy.look
                    result, window = self._pass(server, cell, COUNT_WARMUP, COUNT_DURATION, *watching)
            except LoadError as error:
                if server.ended(grace=1.0) is not None:
                    raise
                # The timed pass remains valid: the server may be too slow only while it is traced.
                measured["uncounted"] = f"while its calls were counted: {error}"
                return
            # The calls for slow requests are the server's too, and can't be told from the others.
            messages = result["messages"] + result.get("slow", {"messages": 0})["messages"]
            counted: Counted = {"method": method, "calls": sampled.growth(*window), "messages": messages}
            measured["counted"] = counted
        measured["occupied"] = occupancy.seen
        if occupancy.shares:
            measured["shares"] = occupancy.shares


def _latency(result: dict[str, Any]) -> Latency:
    return {"percentiles": result["latency_ns"], "histogram": result["histogram"]}
