"""Owns: appends to files with group commit: what waits for one file is written together, with one fsync.

One group at a time: groups beside each other were measured, and brought nothing.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from typing import TYPE_CHECKING

from .pieces import in_pieces
from .ways import of_running_loop
from .whole import PIECE, sync_directory

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, StrOrBytesPath

    from .pieces import Stop

__all__ = ["append"]

_MOST = 1024
"""Appends in one group."""

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC


class _Append:
    def __init__(self, data: bytes, fsync: bool) -> None:
        self.data = data
        self.fsync = fsync
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Queue:
    """The appends to one file on one loop, and the task that writes them, a group at a time."""

    def __init__(self, queues: dict[bytes, _Queue], name: bytes) -> None:
        self._queues = queues
        self._name = name
        self._waiting: list[_Append] = []
        self._group: list[_Append] = []
        self._task: asyncio.Task[None] | None = None

    async def add(self, path: StrOrBytesPath, append: _Append) -> None:
        self._waiting.append(append)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(path))
        task = self._task
        try:
            await append.done
        except asyncio.CancelledError:
            if append in self._waiting:
                self._waiting.remove(append)
            if not self._waiting and all(one.done.done() for one in self._group):
                # Nobody waits any more. It may hang: in a FIFO without a reader.
                self._leave()
                task.cancel()
            raise

    def _leave(self) -> None:
        """Appends from now on have another queue."""
        if self._queues.get(self._name) is self:
            del self._queues[self._name]

    async def _run(self, path: StrOrBytesPath) -> None:
        try:
            while self._waiting:
                self._group = self._waiting[:_MOST]
                del self._waiting[:_MOST]
                await self._commit(path)
        finally:
            self._leave()
            for append in self._group + self._waiting:
                append.done.cancel()

    async def _commit(self, path: StrOrBytesPath) -> None:
        group = self._group
        records = [append.data for append in group]
        error: Exception | None = None
        written = 0
        try:
            fsync = any(append.fsync for append in group)
            tried = await _append_cached(path, records) if fsync else None
            written, error = await in_pieces(_append, path, records, fsync) if tried is None else tried
        except Exception as raised:
            written, error = -1, raised
        for append in group:
            written -= len(append.data)
            if append.done.done():
                pass
            elif error is not None and (written < 0 or append.fsync):
                append.done.set_exception(error)
            else:
                append.done.set_result(None)
        self._group = []


_QUEUES = "_file_appends"


async def append(path: StrOrBytesPath, data: ReadableBuffer, *, fsync: bool = False) -> int:
    """Append to a file, which is made if there is none; the number of bytes.

    Appends to one path that wait on one loop are written together, in the order of their calls, none inside
    another. With `fsync`, one fsync for all of them; those without it in the same group wait for it, too.

    Raises what `open(path, "ab")` and `write` raise. If the storage is full, the appends that it still took
    succeed, and one may be there in part. Cancelled before its group is written, it leaves no trace; later,
    it may be carried out.
    """
    record = _Append(bytes(data), fsync)
    loop = asyncio.get_running_loop()
    queues: dict[bytes, _Queue] | None = getattr(loop, _QUEUES, None)
    if queues is None:
        queues = {}
        setattr(loop, _QUEUES, queues)
    name = os.fsencode(path)
    queue = queues.get(name)
    if queue is None:
        queue = queues[name] = _Queue(queues, name)
    await queue.add(path, record)
    return len(record.data)


async def _append_cached(path: StrOrBytesPath, records: list[bytes]) -> tuple[int, OSError | None] | None:
    """As `_append`, where nothing but the write and the fsync has to be waited for; else None.

    That takes half the time that a thread of Python's takes beside its disk.
    """
    ways = of_running_loop()
    try:
        status = ways.try_stat(path)
        if not status or not stat.S_ISREG(status.st_mode) or sum(map(len, records)) > PIECE:
            return None
        sys.audit("open", path, None, _FLAGS)
        opened = ways.try_open(path, _FLAGS)
    except OSError:
        # The thread will tell.
        return None
    if not opened:
        return None
    fd = opened[0]
    try:
        return await ways.write_sync(fd, b"".join(records), -1)
    except OSError as error:
        return 0, error
    except asyncio.CancelledError:
        # As soon as the write has ended.
        closing, fd = fd, -1
        await ways.close(closing)
        raise
    finally:
        # It was synced, so this waits for nothing.
        if fd >= 0:
            os.close(fd)


def _append(
    stop: Stop, path: StrOrBytesPath, records: list[bytes], fsync: bool
) -> tuple[int, OSError | None]:
    """In a thread: write all records; how many bytes were written, and what prevented the rest."""
    is_new = False
    try:
        fd = os.open(path, _FLAGS)
    except (FileNotFoundError, NotADirectoryError):
        # Of a file with a slash behind its name, `open()` says something else if it may make one.
        fd = os.open(path, _FLAGS | os.O_CREAT, 0o666)
        is_new = True
    written = 0
    try:
        view = memoryview(b"".join(records))
        while written < len(view):
            stop.check()
            written += os.write(fd, view[written : written + PIECE])
        if fsync:
            os.fsync(fd)
    except OSError as error:
        return written, error
    finally:
        os.close(fd)
    if fsync and is_new:
        try:
            sync_directory(path)
        except OSError as error:
            return written, error
    return written, None
