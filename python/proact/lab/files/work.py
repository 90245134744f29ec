"""The work of a model's process: rounds of operations, each checked, timed and accounted for.

A model takes the rounds one by one, ``for lanes in work:``, and follows all lanes of each at once, in its own
way; an operation counts from when it is taken out of its lane until the next one is taken. Between rounds
nothing is timed: the files leave the page cache, and what was read or appended is compared.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proact.lab.files import SIZE
from proact.lab.files.calls import Append, Close, Open, Read, Sync
from proact.lab.files.fileset import digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proact.lab.files.calls import Lane, Operation
    from proact.lab.files.fileset import FileSet


class Work:
    """The rounds of one workload. ``how`` is the model's description of its way, once it has tried it."""

    def __init__(self, workload: str, files: FileSet, concurrency: int) -> None:
        self.workload = workload
        self.files = files
        self.concurrency = concurrency
        self.how = ""
        self._latencies: list[int] = []
        self._logs: list[int] = []
        self._records = files.records() if workload == "files-append" else []
        self._offsets = files.offsets()
        amounts = files.amounts
        self.operations = {"files-small": amounts.small, "files-append": amounts.appends}.get(
            workload, amounts.reads
        )
        self._read = memoryview(mmap.mmap(-1, self.operations * SIZE))  # aligned to a page
        flags = os.O_RDONLY | (os.O_DIRECT if workload == "files-direct" else 0)
        self.large = os.open(files.large, flags | os.O_CLOEXEC)
        os.posix_fadvise(self.large, 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead

    def __iter__(self) -> Iterator[list[Lane]]:
        while self._told("round"):
            self._prepare()
            say({"prepared": self.operations})
            self._told("go")
            lanes = [self._lane(number) for number in range(self.concurrency)]
            before, begun = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
            yield lanes
            seconds, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF)
            say({"ended": seconds})
            self._told("report")
            say(
                {
                    "how": self.how,
                    "operations": len(self._latencies),
                    "seconds": seconds,
                    "latencies": self._latencies,
                    "digest": self._digest(),
                    "user": after.ru_utime - before.ru_utime,
                    "system": after.ru_stime - before.ru_stime,
                    "voluntary": after.ru_nvcsw - before.ru_nvcsw,
                    "involuntary": after.ru_nivcsw - before.ru_nivcsw,
                }
            )

    def _told(self, what: str) -> bool:
        """Wait until the parent asks for a round. False when there is nothing more to do."""
        line = sys.stdin.readline().strip()
        if line not in ("", what):
            raise ValueError(f"told {line!r}, not {what!r}")
        return line == what

    def _prepare(self) -> None:
        self._latencies = []
        self._read[:] = bytes(len(self._read))  # also so that no page of it is new when the clock runs
        if self.workload == "files-append":
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            lanes = range(self.concurrency)
            self._logs = [os.open(self.files.log(lane), flags, 0o600) for lane in lanes]
        elif self.workload == "files-small":
            for number in range(self.operations):
                fd = os.open(self.files.small(number), os.O_RDONLY | os.O_CLOEXEC)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)
        else:
            os.posix_fadvise(self.large, 0, 0, os.POSIX_FADV_DONTNEED)

    def _lane(self, lane: int) -> Lane:
        make = {"files-small": self._small, "files-append": self._append}.get(self.workload, self._random)
        for number in range(lane, self.operations, self.concurrency):
            begun = time.perf_counter_ns()
            yield make(number)
            self._latencies.append(time.perf_counter_ns() - begun)

    def _slot(self, number: int) -> memoryview:
        return self._read[number * SIZE : (number + 1) * SIZE]

    def _small(self, number: int) -> Operation:
        fd = yield Open(self.files.small(number))
        whole((yield Read(fd, 0, self._slot(number))))
        yield Close(fd)

    def _random(self, number: int) -> Operation:
        whole((yield Read(self.large, self._offsets[number], self._slot(number))))

    def _append(self, number: int) -> Operation:
        fd = self._logs[number % self.concurrency]
        whole((yield Append(fd, self._records[number])))
        yield Sync(fd)

    def _digest(self) -> str:
        """The digest of what was read, or of what was appended, in the order of the operations."""
        if self.workload != "files-append":
            return digest(self._read)
        for fd in self._logs:
            os.close(fd)
        logs = [Path(self.files.log(lane)).read_bytes() for lane in range(self.concurrency)]
        found, taken = b"", [0] * self.concurrency
        for number in range(self.operations):
            lane = number % self.concurrency
            found += logs[lane][taken[lane] : taken[lane] + SIZE]
            taken[lane] += SIZE
        return digest(found + b"".join(log[at:] for log, at in zip(logs, taken, strict=True)))


def whole(count: int) -> None:
    """Raise ValueError if a call moved less than it was asked to."""
    if count != SIZE:
        raise ValueError(f"moved {count} of {SIZE} bytes")


def say(what: dict[str, Any]) -> None:
    """One line of JSON on stdout."""
    print(json.dumps(what), flush=True)
