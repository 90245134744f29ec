"""Owns: what waits for another process: the open of a FIFO, and reads from files that can't seek.

No thread waits, so a call that is given up leaves nothing behind. No event tells that the other end of a FIFO
was opened, so it is looked at now and then.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import stat
from typing import TYPE_CHECKING, NamedTuple

from proact import _core

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import StrOrBytesPath

__all__ = [
    "Opened",
    "close",
    "delays",
    "joined",
    "lacks_reader",
    "opened_at_once",
    "read_fifo",
    "received",
    "writable",
]


class Opened(NamedTuple):
    """A file that was opened: its fd, the type bits of its mode (`stat.S_IFMT`), its size in bytes."""

    fd: int
    kind: int
    size: int


def opened_at_once(path: StrOrBytesPath, flags: int, mode: int) -> Opened | None:
    """Open a file without waiting for another process. None: it is a FIFO without a reader."""
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, mode)
    except OSError as error:
        if lacks_reader(error, path, flags):
            return None
        raise
    status = os.fstat(fd)
    return Opened(fd, stat.S_IFMT(status.st_mode), status.st_size)


def close(opened: Opened | None) -> None:
    """Undo it."""
    if opened:
        os.close(opened.fd)


def lacks_reader(error: OSError, path: StrOrBytesPath, flags: int) -> bool:
    """Whether an open without waiting has failed because a FIFO has no reader."""
    if error.errno != errno.ENXIO or flags & os.O_NONBLOCK:
        return False
    return stat.S_ISFIFO(os.stat(path).st_mode)


def delays() -> Iterator[float]:
    """Seconds to wait before it is looked again whether a FIFO has its other end."""
    delay = 0.0005
    while True:
        delay = min(delay * 2, 0.02)
        yield delay


async def joined(opened: Opened, flags: int) -> Opened:
    """Go on with what was opened without waiting: in blocking mode, and of a FIFO once it has a writer."""
    if flags & os.O_NONBLOCK:
        return opened
    try:
        if stat.S_ISFIFO(opened.kind) and not flags & (os.O_WRONLY | os.O_RDWR):
            for delay in delays():
                if _core.has_writer(opened.fd):
                    break
                await asyncio.sleep(delay)
        os.set_blocking(opened.fd, True)
    except BaseException:
        os.close(opened.fd)
        raise
    return opened


def _received(fd: int, size: int) -> bytes | None:
    """What a pipe, a terminal or a socket has already; None if nothing."""
    room = bytearray(size)
    try:
        count = os.preadv(fd, [room], -1, os.RWF_NOWAIT)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM):
            raise
        # This file, or an old kernel, does not know the flag.
        asked = select.poll()
        asked.register(fd, select.POLLIN)
        if not asked.poll(0):
            return None
        return os.read(fd, size)
    return bytes(memoryview(room)[:count])


async def received(fd: int, size: int) -> bytes:
    """Read once from a file that can't seek; empty at its end. Cancelled, it has taken nothing."""
    # Bytes are taken only within a step of the task that gets them.
    while (data := _received(fd, size)) is None:
        await _ready(fd, to_read=True)
    return data


async def read_fifo(fd: int) -> bytes:
    """Wait for a writer and read to the end; of a FIFO that was opened without waiting. Closes it."""
    fd = (await joined(Opened(fd, stat.S_IFIFO, 0), os.O_RDONLY)).fd
    try:
        pieces = []
        while piece := await received(fd, 65536):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


async def writable(fd: int) -> None:
    """Wait until a file that does not block takes more."""
    await _ready(fd, to_read=False)


async def _ready(fd: int, *, to_read: bool) -> None:
    loop = asyncio.get_running_loop()
    news = loop.create_future()

    def wake() -> None:
        if not news.done():
            news.set_result(None)

    add, remove = (loop.add_reader, loop.remove_reader) if to_read else (loop.add_writer, loop.remove_writer)
    try:
        # A number of our own: a loop has one reader for an fd, which may be another file's or the program's.
        watched = os.dup(fd)
    except OSError:
        # No fd is left.
        watched = fd
    try:
        add(watched, wake)
        try:
            await news
        finally:
            remove(watched)
    finally:
        if watched != fd:
            os.close(watched)
