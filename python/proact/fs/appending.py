"""Owns: appends to files with group commit: what waits for one file is written together, with one fsync.

One group at a time: groups beside each other were measured, and brought nothing.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from .pieces import in_pieces
from .ways import of_running_loop, turn
from .whole import PIECE, sync_directory

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, StrOrBytesPath

    from .pieces import Stop

__all__ = ["append"]

_MOST = 1024
"""Appends in one group."""

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC


class _Append:
    __slots__ = ("data", "done", "fsync")

    def __init__(self, data: bytes, fsync: bool) -> None:
        self.data = data
        self.fsync = fsync
        self.done: asyncio.Future[None] | None = None


class _Queue:
    """The appends to one file on one loop. The first one leads: if it is alone, its own task writes it.

    A task of the queue's writes what comes with it or after it, a group at a time.
    """

    def __init__(self, queues: dict[bytes, _Queue], name: bytes, path: StrOrBytesPath) -> None:
        self._queues = queues
        self._name = name
        self._path = path
        self._waiting: list[_Append] = []
        self._group: list[_Append] = []
        self._task: asyncio.Task[None] | None = None

    async def lead(self, append: _Append) -> None:
        self._waiting.append(append)
        try:
            # What other tasks append in this turn belongs to the same group.
            await turn()
        except BaseException:
            self._waiting.remove(append)
            self._hand_over()
            raise
        if len(self._waiting) > 1:
            append.done = asyncio.get_running_loop().create_future()
            self._hand_over()
            await self._written(append)
            return
        self._waiting.clear()
        try:
            written, error = await _commit(self._path, [append.data], append.fsync)
        finally:
            self._hand_over()
        if error is not None and (append.fsync or written < len(append.data)):
            raise error

    async def follow(self, append: _Append) -> None:
        append.done = asyncio.get_running_loop().create_future()
        self._waiting.append(append)
        await self._written(append)

    async def _written(self, append: _Append) -> None:
        assert append.done is not None
        try:
            await append.done
        except asyncio.CancelledError:
            if append in self._waiting:
                self._waiting.remove(append)
            if self._task is not None and not self._waiting and all(_is_over(one) for one in self._group):
                # Nobody waits any more. It may hang: in a FIFO without a reader.
                self._leave()
                self._task.cancel()
            raise

    def _hand_over(self) -> None:
        """The leader has written its own: a task writes what came meanwhile."""
        if self._waiting:
            self._task = asyncio.get_running_loop().create_task(self._run())
        else:
            self._leave()

    def _leave(self) -> None:
        """Appends from now on have another queue."""
        if self._queues.get(self._name) is self:
            del self._queues[self._name]

    async def _run(self) -> None:
        try:
            while self._waiting:
                self._group = self._waiting[:_MOST]
                del self._waiting[:_MOST]
                await self._write_group()
        finally:
            self._leave()
            for append in self._group + self._waiting:
                if append.done is not None:
                    append.done.cancel()

    async def _write_group(self) -> None:
        group = self._group
        records = [append.data for append in group]
        error: Exception | None = None
        written = 0
        try:
            written, error = await _commit(self._path, records, any(append.fsync for append in group))
        except Exception as raised:
            written, error = -1, raised
        for append in group:
            written -= len(append.data)
            if append.done is None or append.done.done():
                pass
            elif error is not None and (written < 0 or append.fsync):
                append.done.set_exception(error)
            else:
                append.done.set_result(None)
        self._group = []


def _is_over(append: _Append) -> bool:
    return append.done is None or append.done.done()


async def _commit(path: StrOrBytesPath, records: list[bytes], fsync: bool) -> tuple[int, OSError | None]:
    """Write all; how many bytes were written, and what prevented the rest."""
    tried = await _append_native(path, records) if fsync else None
    return await in_pieces(_append, path, records, fsync) if tried is None else tried


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
        queue = queues[name] = _Queue(queues, name, path)
        await queue.lead(record)
    else:
        await queue.follow(record)
    return len(record.data)


async def _append_native(path: StrOrBytesPath, records: list[bytes]) -> tuple[int, OSError | None] | None:
    """As `_append` with an fsync, to a regular file that there is; else None, and the other way tells why.

    That takes half the time that a thread of Python's takes beside its disk.
    """
    data = b"".join(records)
    return await of_running_loop().append_sync(path, data) if len(data) <= PIECE else None


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
