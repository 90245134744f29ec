"""The calls of which an operation on files consists. Each can be made on the spot, which blocks.

An operation is a generator: it yields a call and is sent its result. So the model decides how a call is made:
on the spot, by a thread, or by a kernel or library that works meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Open:
    """Open a file for reading."""

    path: str

    def make(self) -> int:
        return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)


@dataclass(frozen=True, slots=True)
class Read:
    """Read into all of ``buffer``, which is aligned as O_DIRECT wants it."""

    fd: int
    offset: int
    buffer: memoryview

    def make(self) -> int:
        return os.preadv(self.fd, [self.buffer], self.offset)


@dataclass(frozen=True, slots=True)
class Append:
    """Write to a file that is open with O_APPEND."""

    fd: int
    data: bytes

    def make(self) -> int:
        return os.write(self.fd, self.data)


@dataclass(frozen=True, slots=True)
class Sync:
    """fsync."""

    fd: int

    def make(self) -> int:
        os.fsync(self.fd)
        return 0


@dataclass(frozen=True, slots=True)
class Close:
    """Close a file."""

    fd: int

    def make(self) -> int:
        os.close(self.fd)
        return 0


Call = Open | Read | Append | Sync | Close
Operation = Generator[Call, int, None]

#: A lane: operations that run one by one, each after the one before it is complete.
Lane = Iterator[Operation]


def perform(operation: Operation) -> None:
    """Make all calls of an operation on the spot."""
    try:
        call = next(operation)
        while True:
            call = operation.send(call.make())
    except StopIteration:
        return


def follow(lane: Lane) -> None:
    """Perform all operations of a lane."""
    for operation in lane:
        perform(operation)


class Follower:
    """A lane that advances as completions come. ``begin`` hands a call over, or says that it can't."""

    __slots__ = ("_begin", "_lane", "_operation")

    def __init__(self, lane: Lane, begin: Callable[[Call, Follower], bool]) -> None:
        self._lane, self._begin = lane, begin
        self._operation: Operation | None = None

    def proceed(self, result: int | None = None) -> bool:
        """Continue with the result of a call until the next call is under way. False at the lane's end."""
        while True:
            if self._operation is None:
                self._operation = next(self._lane, None)
                if self._operation is None:
                    return False
            try:
                call = next(self._operation) if result is None else self._operation.send(result)
            except StopIteration:
                self._operation = result = None
                continue
            if self._begin(call, self):
                return True
            result = call.make()
