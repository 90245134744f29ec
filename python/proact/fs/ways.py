"""Owns: the ways in which an operation on a file is carried out, behind one interface for all of `proact.fs`.

On a loop of proact: at once, where the kernel needs no disk for it (`try_...`, None where it does); else by
the ring, or by the native pool on engines without one. On any other loop, and for calls that no ring knows:
by the threads of `pool.py`. An offset of -1 is the current position, for files that can't seek.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import types
from typing import TYPE_CHECKING, Any, TypeVar

from proact import _core

from . import pool
from .peers import (
    Opened,
    close,
    delays,
    joined,
    lacks_reader,
    opened_at_once,
    received,
    writable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from _typeshed import ReadableBuffer, StrOrBytesPath, WriteableBuffer

__all__ = ["PIECE", "Opened", "Ways", "of_running_loop", "turn"]

PIECE = 1 << 20
"""Bytes: the most that one op reads, because a ring copies what is cached while the loop waits for it."""

_YIELDS = 4
"""Turns of the loop: how many to wait for until an open is tried again, before it is waited for otherwise."""

_FILES = 64
"""Files that are read as a whole at the same time, because each has an fd meanwhile: a process may have as
few as 1024, and its threads would not have opened more than there are threads.
"""

_T = TypeVar("_T")


@types.coroutine
def turn() -> Generator[None, None, None]:
    """Wait for the next turn of the loop: what `asyncio.sleep(0)` does, with one frame less."""
    yield


async def _in_pool(function: Callable[..., _T], *args: Any) -> _T:
    return await pool.of_process().call(function, *args)


async def _sent(function: Callable[[int, Any], int], fd: int, data: Any) -> int:
    while True:
        try:
            return await _in_pool(function, fd, data)
        except BlockingIOError:
            # An fd that does not block: its user waits all the same.
            await writable(fd)


def _room(size: int, offset: int) -> int:
    """How much to read at once of a file of that size: one byte more than is left, which shows the end."""
    return min(max(size - offset + 1, 4096), PIECE)


def _rest(fd: int, offset: int) -> bytes:
    size = os.fstat(fd).st_size
    pieces = []
    while piece := os.pread(fd, _room(size, offset), offset):
        pieces.append(piece)
        offset += len(piece)
        if offset == size:
            # A regular file gives all that was asked for, or ends.
            break
    return b"".join(pieces)


def _write_sync(fd: int, data: ReadableBuffer, offset: int, data_only: bool) -> tuple[int, OSError | None]:
    view = memoryview(data).cast("B")
    done = 0
    try:
        while done < len(view):
            rest = view[done:]
            done += os.write(fd, rest) if offset < 0 else os.pwrite(fd, rest, offset + done)
        (os.fdatasync if data_only else os.fsync)(fd)
    except OSError as error:
        if not done:
            raise
        return done, error
    return done, None


class Ways:
    """The ways of any loop: every operation in a thread of the pool."""

    call = staticmethod(_in_pool)

    reading: contextlib.AbstractAsyncContextManager[Any] = contextlib.nullcontext()
    """Held while `read_file` reads for a program that may ask for any number of files at the same time."""

    waiting = 0
    """Calls that wait for a turn with room (`later`): others that are tried meanwhile take it from them."""

    # At once, or None.

    def try_open(self, path: StrOrBytesPath, flags: int) -> tuple[int, int, int] | None:
        """Open a file, if that needs no disk: as `Opened`. `open` has to go on if it is no regular file."""
        return None

    def tried_enough(self) -> bool:
        """Whether these calls return None because this turn of the loop has had many of them."""
        return False

    def try_read(self, fd: int, size: int, offset: int) -> bytes | None:
        """Read once, `size` bytes at most, if that needs no disk."""
        return None

    def try_read_into(self, fd: int, buffer: WriteableBuffer, offset: int) -> int | None:
        """Read once into `buffer`, if that needs no disk; the number of bytes."""
        return None

    def try_read_rest(self, fd: int, offset: int) -> bytes | None:
        """Read a regular file from `offset` to its end, if that needs no disk."""
        return None

    def try_read_files(self, paths: list[StrOrBytesPath], start: int) -> list[bytes | OSError | int | None]:
        """Read whole files from `paths[start]` on, as many as one turn has room for.

        None stands for a file that needs a disk, or is not regular; a number is the fd of a FIFO
        (`read_fifo`).
        """
        return []

    def try_stat(self, path: StrOrBytesPath, *, follow: bool = True) -> os.stat_result | None:
        """As `os.stat` or `os.lstat`, if that needs no disk."""
        return None

    def fstat(self, fd: int) -> os.stat_result:
        """As `os.fstat`, which needs no disk."""
        return os.fstat(fd)

    async def later(self, attempt: Callable[..., _T | None], *args: Any) -> _T | None:
        """The result of a call that is tried at once, in a turn of the loop that has room for it."""
        self.waiting += 1
        try:
            for _ in range(_YIELDS):
                await turn()
                if not self.tried_enough():
                    return attempt(*args)
            return None
        finally:
            self.waiting -= 1

    # Waited for.

    async def open(
        self,
        path: StrOrBytesPath,
        flags: int,
        mode: int = 0o666,
        tried: tuple[int, int, int] | None = None,
    ) -> Opened:
        """Open a file, close-on-exec. If this is cancelled, a file that is opened later is closed.

        `tried` is what `try_open` has returned.
        """

        for delay in delays():
            opened = await pool.of_process().call(opened_at_once, path, flags, mode, undo=close)
            if opened:
                return await joined(opened, flags)
            await asyncio.sleep(delay)
        raise AssertionError("there is always one more delay")

    async def close(self, fd: int) -> None:
        """Close a file, even if this is cancelled."""
        await pool.of_process().call(os.close, fd, surely=True)

    async def read(self, fd: int, size: int, offset: int) -> bytes:
        """Read once, `size` bytes at most; empty at the end of the file."""
        if offset < 0:
            return await _in_pool(os.read, fd, size)
        return await _in_pool(os.pread, fd, size, offset)

    async def read_rest(self, fd: int, offset: int) -> bytes:
        """Read from `offset` to the end of the file."""
        return await _in_pool(_rest, fd, offset)

    async def read_file(self, path: StrOrBytesPath) -> bytes | int | None:
        """Read a whole regular file that is not cached, without a thread; None if there is no way to.

        A number is the fd of a FIFO, which is to be read by `read_fifo`.
        """
        return None

    async def receive(self, fd: int, size: int) -> bytes:
        """Read once from a file that can't seek; empty at its end. Cancelled, it has taken nothing."""
        return await received(fd, size)

    async def read_into(self, fd: int, buffer: WriteableBuffer, offset: int) -> int:
        """Read once into `buffer`; the number of bytes, 0 at the end of the file.

        Cancelled, it may still write into the buffer for a while.
        """
        return await self.readv(fd, [buffer], offset)

    async def readv(self, fd: int, buffers: Sequence[WriteableBuffer], offset: int) -> int:
        """As `read_into`, into several buffers, one after the other."""
        if offset < 0:
            return await _in_pool(os.readv, fd, buffers)
        return await _in_pool(os.preadv, fd, buffers, offset)

    async def write(self, fd: int, data: ReadableBuffer, offset: int) -> int:
        """Write once; the number of bytes, perhaps fewer than there are. Cancelled, it may be carried out."""
        if offset < 0:
            return await _sent(os.write, fd, data)
        return await _in_pool(os.pwrite, fd, data, offset)

    async def writev(self, fd: int, buffers: Sequence[ReadableBuffer], offset: int) -> int:
        """As `write`, of several buffers."""
        if offset < 0:
            return await _sent(os.writev, fd, buffers)
        return await _in_pool(os.pwritev, fd, buffers, offset)

    async def fsync(self, fd: int, *, data_only: bool = False) -> None:
        """Flush a file to storage."""
        await _in_pool(os.fdatasync if data_only else os.fsync, fd)

    async def write_sync(
        self, fd: int, data: ReadableBuffer, offset: int, *, data_only: bool = False
    ) -> tuple[int, OSError | None]:
        """Write all to a regular file and flush it, as one call: the bytes, and what prevented the rest.

        Raises what prevented it all. Cancelled, it may be carried out.
        """
        return await _in_pool(_write_sync, fd, data, offset, data_only)

    async def append_sync(
        self, path: StrOrBytesPath, data: ReadableBuffer
    ) -> tuple[int, OSError | None] | None:
        """Append all to a regular file that there is, and flush it, as one call, as `write_sync`.

        None, and nothing is written, if this loop has no such call, or the file can't be opened.
        """
        return None

    async def truncate(self, fd: int, size: int) -> None:
        """Cut a file to a size, or extend it."""
        await _in_pool(os.ftruncate, fd, size)

    async def stat(self, path: StrOrBytesPath, *, follow: bool = True) -> os.stat_result:
        """As `os.stat` or `os.lstat`."""
        return await _in_pool(os.stat if follow else os.lstat, path)

    async def unlink(self, path: StrOrBytesPath) -> None:
        """As `os.unlink`."""
        await _in_pool(os.unlink, path)

    async def rmdir(self, path: StrOrBytesPath) -> None:
        """As `os.rmdir`."""
        await _in_pool(os.rmdir, path)

    async def mkdir(self, path: StrOrBytesPath, mode: int = 0o777) -> None:
        """As `os.mkdir`."""
        await _in_pool(os.mkdir, path, mode)

    async def rename(self, source: StrOrBytesPath, target: StrOrBytesPath) -> None:
        """As `os.rename`, which replaces the target."""
        await _in_pool(os.rename, source, target)

    async def symlink(self, target: StrOrBytesPath, path: StrOrBytesPath) -> None:
        """As `os.symlink`."""
        await _in_pool(os.symlink, target, path)

    async def link(self, source: StrOrBytesPath, target: StrOrBytesPath, *, follow: bool = True) -> None:
        """As `os.link`."""

        def link() -> None:
            os.link(source, target, follow_symlinks=follow)

        await _in_pool(link)


# A method of `Ways`, and the method of the loop that takes its place.
_NATIVE = {
    "tried_enough": "_tried_enough",
    "try_open": "_try_open",
    "try_read": "_try_read",
    "try_read_into": "_try_read_into",
    "try_read_rest": "_try_read_rest",
    "try_read_files": "_try_read_files",
    "try_stat": "_try_stat",
    "fstat": "_fstat",
    "close": "_close_file",
    "read": "_read_bytes_at",
    "read_into": "_read_at",
    "readv": "_readv_at",
    "write": "_write_at",
    "writev": "_writev_at",
    "fsync": "_fsync",
    "write_sync": "_write_sync",
    "append_sync": "_append_sync",
    "truncate": "_truncate",
    "unlink": "_unlink",
    "mkdir": "_mkdir",
    "rename": "_rename",
    "symlink": "_symlink",
    "link": "_link",
}


class _Native(Ways):
    """The ways of a loop of proact."""

    def __init__(self, loop: _core.Scheduler) -> None:
        # The native methods themselves, so that nothing stands between.
        for name, native in _NATIVE.items():
            setattr(self, name, getattr(loop, native))
        self._loop = loop
        self.reading = asyncio.Semaphore(_FILES)

    async def open(
        self,
        path: StrOrBytesPath,
        flags: int,
        mode: int = 0o666,
        tried: tuple[int, int, int] | None = None,
    ) -> Opened:
        loop = self._loop
        opened = tried
        if opened is not None:
            if opened[1] not in (stat.S_IFREG, stat.S_IFDIR):
                return await joined(Opened(*opened), flags)
            return Opened(*opened)
        for delay in delays():
            try:
                fd = await loop._open_file(path, flags | os.O_NONBLOCK, mode)
                break
            except OSError as error:
                if not lacks_reader(error, path, flags):
                    raise
            await asyncio.sleep(delay)
        status = loop._fstat(fd)
        return await joined(Opened(fd, stat.S_IFMT(status.st_mode), status.st_size), flags)

    async def read_rest(self, fd: int, offset: int) -> bytes:
        loop = self._loop
        if loop._tried_enough():
            await asyncio.sleep(0)
            rest = loop._try_read_rest(fd, offset)
            if rest is not None:
                return rest
        size = loop._fstat(fd).st_size
        pieces = []
        while piece := await loop._read_bytes_at(fd, _room(size, offset), offset):
            pieces.append(piece)
            offset += len(piece)
            if offset == size:
                break
        return b"".join(pieces)

    async def read_file(self, path: StrOrBytesPath) -> bytes | int | None:
        # Without waiting for the peer of a FIFO.
        fd = await self._loop._open_file(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = self._loop._fstat(fd)
            if stat.S_ISFIFO(status.st_mode):
                # Not closed: a writer that waited for a reader has got one.
                fifo, fd = fd, -1
                return fifo
            if not stat.S_ISREG(status.st_mode) or status.st_size >= PIECE:
                return None
            data = await self._loop._read_bytes_at(fd, status.st_size + 1, 0)
            # One byte more would show that it has grown meanwhile, or, as in /proc, does not tell its size.
            return data if len(data) == status.st_size else None
        finally:
            # Of a file that was only read: it waits for nothing.
            if fd >= 0:
                os.close(fd)

    async def stat(self, path: StrOrBytesPath, *, follow: bool = True) -> os.stat_result:
        status = self._loop._try_stat(path, follow=follow)
        return status if status is not None else await self._loop._stat(path, follow=follow)

    async def rmdir(self, path: StrOrBytesPath) -> None:
        await self._loop._unlink(path, directory=True)


_THREADS = Ways()


def of_running_loop() -> Ways:
    """The ways of the loop that runs. Raises RuntimeError if none does."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, _core.Scheduler):
        return _THREADS
    ways: Ways | None = getattr(loop, "_file_ways", None)
    if ways is None:
        # The loop keeps its ways, and they keep the loop: the collector frees both.
        ways = _Native(loop)
        loop._file_ways = ways  # type: ignore[attr-defined]
    return ways
