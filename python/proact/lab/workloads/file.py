"""The file workload: a handler that reads the bytes of its answer from an open file, through the page cache.

The file has just been written, so nothing waits for a disk: what is measured is how a model gets at a file
(a call that blocks, a thread, an operation). The workload ``mixed`` waits for the disk itself.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from proact.lab.workloads.lines import Lines, exchange
from proact.lab.workloads.session import Extent
from proact.lab.workloads.web import LARGEST, counted

if TYPE_CHECKING:
    from proact.lab.workloads import Sessions

__all__ = ("exchange", "sessions")


class Reading(Lines):
    """Reads the answer, in as many pieces as the kernel gives."""

    __slots__ = ("_buffer", "_fd", "_left")

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._buffer = memoryview(b"")
        self._left = 0

    def begin(self, size: int) -> bytes:
        if size == 0:
            return b""
        if len(self._buffer) < size:
            self._buffer = memoryview(bytearray(size))
        self._left = size
        self.wanted = Extent(self._fd, 0, self._buffer[:size])
        return b""

    def supply(self, count: int) -> bytes:
        wanted = self.wanted
        assert isinstance(wanted, Extent)
        if count <= 0:
            raise OSError("the file of the workload is shorter than it was written")
        read = bytes(wanted.buffer[:count])
        self._left -= count
        if self._left:
            self.wanted = Extent(self._fd, wanted.offset + count, wanted.buffer[count:])
            return read
        self.wanted = None
        return read + self.go_on()


def sessions() -> Sessions:
    """One unnamed file for all connections, and a buffer for each."""
    with tempfile.NamedTemporaryFile(dir=os.environ.get("PROACT_LAB_DIR"), prefix="proact-lab-") as file:
        file.write(counted(LARGEST))
        file.flush()
        fd = os.open(file.name, os.O_RDONLY | os.O_CLOEXEC)
    return lambda: Reading(fd)
