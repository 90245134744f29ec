"""One cell of a measurement on files: a fresh process, timed rounds, and counted ones.

A round always has the same operations, so its digest is known. Rounds follow each other until they have
taken the time that the cell asks for. The clock stands still between them.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Final, Self

from proact.lab.files import SIZE
from proact.lab.files.fileset import Amounts, temporary
from proact.lab.files.process import FileProcess
from proact.lab.measure import COUNT_DURATION, Occupancy, Others
from proact.lab.probe import split
from proact.lab.server_process import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from proact.lab.files.fileset import FileSet
    from proact.lab.measure import Cell
    from proact.lab.results import Latency, Measured

#: Bits of a latency that are kept: three significant digits, as in the load's histograms.
PRECISION: Final = 11


class UnmeasurableError(Exception):
    """This machine does not allow what the cell asks for; the message says why."""


class FileBench:
    """What all cells share: the files, made for the first cell, and the observer of the passing time."""

    def __init__(
        self,
        *,
        seed: int,
        cpu: int | None,
        warmup: float,
        duration: float,
        tick: Callable[[], None],
        split: frozenset[Cell] = frozenset(),
        amounts: Amounts | None = None,
    ) -> None:
        self._seed, self._cpu, self._tick = seed, cpu, tick
        self._warmup, self._duration, self._probed = warmup, duration, split
        self._amounts = amounts or Amounts()
        self._made: tuple[FileSet, dict[str, str]] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def measure(self, cell: Cell) -> Measured:
        """Measure one cell. Raises ServerError or UnmeasurableError, with a reason that people can read."""
        files, truth = self._files()
        if cell.workload == "files-direct" and (reason := files.refuses_direct()):
            raise UnmeasurableError(reason)
        expected = truth[cell.workload]
        with FileProcess(cell.model, cell.workload, cell.connections, files, cpu=self._cpu) as process:
            resident_before = process.resident_bytes()
            if self._warmup:
                self._rounds(process, expected, self._warmup)
            others = Others(process)
            reports = self._rounds(process, expected, self._duration)
            measured = _measured(reports, others.cores())
            self._count(process, expected, measured, Occupancy(process, resident_before))
        if cell in self._probed:
            self._split(cell, files, expected, measured)
        return measured

    def _files(self) -> tuple[FileSet, dict[str, str]]:
        if self._made is None:
            try:
                with ExitStack() as stack:
                    files = stack.enter_context(temporary(self._seed, self._amounts))
                    self._made = files, files.create()
                    self._stack = stack.pop_all()
            except OSError as error:
                raise ServerError(f"the files to work on can't be made: {error}") from None
        return self._made

    def _rounds(
        self,
        process: FileProcess,
        expected: str,
        duration: float,
        take: Callable[[], None] = lambda: None,
        look: Callable[[], None] = lambda: None,
    ) -> list[dict[str, Any]]:
        """Rounds that take ``duration`` seconds together, each checked; ``take`` is called around each."""

        def tick() -> None:
            look()
            self._tick()

        reports: list[dict[str, Any]] = []
        while not reports or sum(report["seconds"] for report in reports) < duration:
            report = process.round(take, tick)
            if report["digest"] != expected:
                digests = f"{report['digest'][:12]} instead of {expected[:12]}"
                raise ServerError(f"moved other bytes than it should have: digest {digests}")
            reports.append(report)
        return reports

    def _count(self, process: FileProcess, expected: str, measured: Measured, occupancy: Occupancy) -> None:
        """The counting pass: fills in ``counted`` (or the reason why not) and ``occupied``."""
        from proact._core import SyscallCounter  # here, so that the rest is testable without the core

        readings: list[float] = []
        try:
            counter = SyscallCounter(process.pid)
        except OSError as error:
            measured["uncounted"] = str(error)
            self._rounds(process, expected, COUNT_DURATION, look=occupancy.look)
        else:
            # Close the counter before anything waits for the process: a wait would take the stops of a ptrace
            # counter.
            method = counter.method
            with closing(counter):
                reports = self._rounds(
                    process, expected, COUNT_DURATION, lambda: readings.append(counter.read()), occupancy.look
                )
            measured["counted"] = {
                "method": method,
                "calls": sum(readings[1::2]) - sum(readings[::2]),
                "messages": sum(report["operations"] for report in reports),
            }
        measured["occupied"] = occupancy.seen

    def _split(self, cell: Cell, files: FileSet, expected: str, measured: Measured) -> None:
        """The probing pass, in a process of its own: the first round warms up, the second one is split."""
        from proact._core import Probe

        taken: list[tuple[dict[str, Any], float]] = []
        try:
            probe = Probe()
            with FileProcess(
                cell.model, cell.workload, cell.connections, files, cpu=self._cpu, probe=probe.fileno()
            ) as process:
                self._rounds(process, expected, 0.0)
                (report,) = self._rounds(
                    process, expected, 0.0, lambda: taken.append((probe.snapshot(), process.cpu_seconds()))
                )
        except (OSError, ServerError) as error:
            # The timed pass remains valid.
            measured["unsplit"] = f"while it was probed: {error}"
            return
        (first, cpu_then), (last, cpu_now) = taken
        rate = report["operations"] / ((last["at"] - first["at"]) / 1e9)
        measured["split"] = split(first, last, cpu_now - cpu_then, rate)


def _measured(reports: list[dict[str, Any]], others: float) -> Measured:
    def total(name: str) -> Any:
        return sum(report[name] for report in reports)

    return {
        "messages": total("operations"),
        "bytes": total("operations") * SIZE,
        "unsent": 0,
        "seconds": total("seconds"),
        "connect_seconds": 0.0,
        "latency": latency([each for report in reports for each in report["latencies"]]),
        "slow": None,
        "load_cpu_seconds": 0.0,
        "server_user_seconds": total("user"),
        "server_system_seconds": total("system"),
        "switches_voluntary": total("voluntary"),
        "switches_involuntary": total("involuntary"),
        "others_cpu": others,
        "counted": None,
        "uncounted": None,
        "occupied": None,
        "split": None,
        "unsplit": None,
        "how": reports[-1]["how"],
    }


def latency(nanoseconds: list[int]) -> Latency:
    """Percentiles and histogram of at least one latency."""
    ordered = sorted(nanoseconds)

    def quantile(share: float) -> int:
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    def step(value: int) -> int:
        """The upper end of the step that a value falls into."""
        shift = max(0, value.bit_length() - PRECISION)
        return ((value >> shift) + 1 << shift) - 1

    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999}
    return {
        "percentiles": {
            **{name: quantile(share) for name, share in shares.items()},
            "max": ordered[-1],
            "mean": sum(ordered) / len(ordered),
        },
        "histogram": [list(each) for each in sorted(Counter(map(step, ordered)).items())],
    }
