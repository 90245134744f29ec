"""The mixed workload: the web server, and ``GET /disk``, which reads 8 MiB from the disk itself.

O_DIRECT goes past the page cache, so that every read waits for the device; a filesystem without it (tmpfs)
serves from memory. The question: which connections does a model serve while it waits for the disk?
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from typing import TYPE_CHECKING, Final

from proact.lab.workloads import Exchange
from proact.lab.workloads.session import Extent
from proact.lab.workloads.web import Web, exchange, request, response

if TYPE_CHECKING:
    from proact.lab.workloads import Sessions

__all__ = ("exchange", "sessions", "slow")

#: The size of one read in bytes, and the number of reads for one answer.
PIECE: Final = 1 << 20
PIECES: Final = 8
#: The bytes of each piece that go into the answer: enough to prove that the piece was read.
SHOWN: Final = 64


def block(number: int) -> bytes:
    """The first ``SHOWN`` bytes of a piece of the file."""
    return (b"piece %d of the slow file, " % number * SHOWN)[:SHOWN]


def slow_file() -> tuple[int, bool]:
    """A new unnamed file of ``PIECES`` pieces on the disk, and whether reads go past the page cache."""
    directory = os.environ.get("PROACT_LAB_DIR", tempfile.gettempdir())
    with tempfile.NamedTemporaryFile(dir=directory, prefix="proact-lab-") as file:
        for number in range(PIECES):
            file.write(block(number) * (PIECE // SHOWN))
        file.flush()
        os.fsync(file.fileno())
        try:
            return os.open(file.name, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC), True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return os.open(file.name, os.O_RDONLY | os.O_CLOEXEC), False


class Disk(Web):
    """Reads the whole file for each ``GET /disk``, piece after piece."""

    __slots__ = ("_buffer", "_fd", "_keep", "_piece", "_shown", "wanted")

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._piece = 0
        self._shown = b""
        self._keep = True
        self._buffer: memoryview | None = None
        self.wanted = None

    def respond(self, target: bytes, keep: bool) -> bytes:
        if self.wanted is not None:  # its answer would overtake the request that waits
            raise ValueError("nothing may be pipelined behind /disk")
        if target != b"/disk":
            return super().respond(target, keep)
        if self._buffer is None:
            self._buffer = memoryview(mmap.mmap(-1, PIECE))  # aligned to a page
        self._keep, self._shown = keep, b""
        self.wanted = Extent(self._fd, 0, self._buffer)
        return b""

    def supply(self, count: int) -> bytes:
        wanted = self.wanted
        assert isinstance(wanted, Extent)
        self._shown += bytes(wanted.buffer[: min(count, SHOWN)])
        following = wanted.offset + PIECE
        if following < PIECE * PIECES:
            self.wanted = Extent(self._fd, following, wanted.buffer)
            return b""
        self.wanted = None
        return response(200, self._shown, self._keep)


def sessions() -> Sessions:
    """One file for all connections, and a buffer for each connection that asks for it."""
    fd, _ = slow_file()
    return lambda: Disk(fd)


def slow() -> Exchange:
    """The request that reads the disk."""
    shown = b"".join(map(block, range(PIECES)))
    return Exchange(request("/disk"), response(200, shown, keep=True))
