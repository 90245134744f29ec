"""Owns: appends to files with group commit: what waits for one file is written together, with one fsync.

A thread writes a group and then syncs the file. The next group is written while that fsync goes on, because a
file system flushes its journal once for all fsyncs that wait for it: groups that wait for each other get one
flush each.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from typing import TYPE_CHECKING

from .pieces import in_pieces
from .whole import PIECE, sync_directory

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, StrOrBytesPath

    from .pieces import Stop

__all__ = ["append"]

_MOST = 1024
"""Appends in one group."""

_AT_ONCE = 8
"""Groups of one file that are on their way to storage at the same time."""


class _Append:
    def __init__(self, data: bytes, fsync: bool) -> None:
        self.data = data
        self.fsync = fsync
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Queue:
    """The appends to one file on one loop, and the tasks that write them, a group each."""

    def __init__(self, queues: dict[bytes, _Queue], name: bytes, path: StrOrBytesPath) -> None:
        self._queues = queues
        self._name = name
        self._path = path
        self._groups: dict[asyncio.Task[None], list[_Append]] = {}
        # Of the loop and of the threads: what waits, and the group whose thread will take it.
        self._news = threading.Lock()
        self._waiting: deque[_Append] = deque()
        self._next: list[_Append] | None = None
        # Of the thread that writes.
        self._writes = threading.Lock()
        self._is_new = False

    async def add(self, append: _Append) -> None:
        with self._news:
            self._waiting.append(append)
        self._begin(_AT_ONCE if append.fsync else 1)
        try:
            await append.done
        except asyncio.CancelledError:
            self._give_up(append)
            raise

    def _begin(self, most: int) -> None:
        """Begin a group for what waits, unless one will take it, or so many are on their way."""
        group: list[_Append] = []
        with self._news:
            if self._next is not None or not self._waiting or len(self._groups) >= most:
                return
            self._next = group
        task = asyncio.get_running_loop().create_task(self._commit(group))
        self._groups[task] = group
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        group = self._groups.pop(task)
        with self._news:
            if self._next is group:
                self._next = None
        for append in group:
            # If the task was cancelled.
            append.done.cancel()
        self._begin(_AT_ONCE)
        if not self._groups:
            self._leave()

    def _leave(self) -> None:
        """Appends from now on have another queue."""
        if self._queues.get(self._name) is self:
            del self._queues[self._name]

    def _give_up(self, append: _Append) -> None:
        with self._news:
            if append in self._waiting:
                self._waiting.remove(append)
            groups = [self._waiting, *self._groups.values()]
            wanted = any(not one.done.done() for group in groups for one in group)
        if not wanted:
            # It may hang: in a FIFO without a reader.
            self._leave()
            for task in self._groups:
                task.cancel()

    async def _commit(self, group: list[_Append]) -> None:
        error: Exception | None = None
        try:
            written, error = await in_pieces(self._append, group)
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

    # In a thread.

    def _append(self, stop: Stop, group: list[_Append]) -> tuple[int, OSError | None]:
        """Take what waits, and write it: how many bytes were written, and what prevented the rest."""
        # Groups are written in the order in which they were taken.
        with self._writes:
            try:
                fd = self._open()
            finally:
                self._take(group)
            try:
                written, error = _write(stop, fd, group)
            except BaseException:
                os.close(fd)
                raise
        try:
            if not error and any(append.fsync for append in group):
                os.fsync(fd)
                if self._is_new:
                    sync_directory(self._path)
                    self._is_new = False
        except OSError as raised:
            error = raised
        finally:
            os.close(fd)
        return written, error

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        try:
            return os.open(self._path, flags)
        except FileNotFoundError:
            fd = os.open(self._path, flags | os.O_CREAT, 0o666)
            self._is_new = True
            return fd

    def _take(self, group: list[_Append]) -> None:
        with self._news:
            if self._next is not group:
                # Its task was cancelled, and others take what waits.
                return
            self._next = None
            while self._waiting and len(group) < _MOST:
                group.append(self._waiting.popleft())


def _write(stop: Stop, fd: int, group: list[_Append]) -> tuple[int, OSError | None]:
    view = memoryview(b"".join([append.data for append in group]))
    written = 0
    try:
        while written < len(view):
            stop.check()
            written += os.write(fd, view[written : written + PIECE])
    except OSError as error:
        return written, error
    return written, None


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
    await queue.add(record)
    return len(record.data)
