"""Owns: many files in one await. The loop reads what is cached at once, threads read the rest meanwhile."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from .peers import read_fifo
from .pieces import in_pieces
from .ways import of_running_loop
from .whole import read_in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from _typeshed import StrOrBytesPath

    from .pieces import Stop

__all__ = ["read_many", "stat_many"]

_T = TypeVar("_T")

_IN_A_TURN = 64
"""Files whose status is looked up in one turn of the loop."""

_IN_A_CALL = 16
"""Files that a thread reads in one call."""


@overload
async def read_many(
    paths: Iterable[StrOrBytesPath], *, concurrency: int = 64, return_exceptions: Literal[False] = False
) -> list[bytes]: ...
@overload
async def read_many(
    paths: Iterable[StrOrBytesPath], *, concurrency: int = 64, return_exceptions: bool
) -> list[bytes | OSError]: ...
async def read_many(
    paths: Iterable[StrOrBytesPath], *, concurrency: int = 64, return_exceptions: bool = False
) -> Any:
    """The contents of many files, in the order of their paths.

    At most `concurrency` files that are not cached are read at a time. The first error ends all and is
    raised, or with `return_exceptions` each stands in the place of its content. Other tasks run meanwhile.
    """
    paths = list(paths)
    ways = of_running_loop()
    many = _Many[bytes](len(paths), concurrency, return_exceptions)

    fifos: dict[int, int] = {}

    async def read_one(index: int, _last: int) -> None:
        content: bytes | int | OSError | None
        try:
            content = fifos.pop(index, None)
            if content is None:
                content = await ways.read_file(paths[index])
            if isinstance(content, int):
                content = await read_fifo(content)
        except OSError as error:
            content = error
        if content is None:
            await read(index, index + 1)
        else:
            many.settle(index, content)

    async def read(first: int, last: int) -> None:
        found = await in_pieces(_read_each, paths[first:last])
        for index, content in enumerate(found, first):
            many.settle(index, content)

    try:
        async with many:
            start = 0
            while start < len(paths):
                tried = ways.try_read_files(paths, start)
                fifos.update((at, found) for at, found in enumerate(tried, start) if isinstance(found, int))
                for index, content in enumerate(tried, start):
                    if content is None or isinstance(content, int):
                        await many.wait_for(read_one, index, index + 1)
                    else:
                        many.settle(index, content)
                start += len(tried)
                if ways.tried_enough():
                    await asyncio.sleep(0)
                if not tried:
                    # Nothing can be tried on this loop, or other tasks have used up this turn.
                    last = min(start + _IN_A_CALL, len(paths))
                    await many.wait_for(read, start, last)
                    start = last
    finally:
        # Those that an error has left.
        for fd in fifos.values():
            os.close(fd)
    return many.results


@overload
async def stat_many(
    paths: Iterable[StrOrBytesPath],
    *,
    follow_symlinks: bool = True,
    concurrency: int = 64,
    return_exceptions: Literal[False] = False,
) -> list[os.stat_result]: ...
@overload
async def stat_many(
    paths: Iterable[StrOrBytesPath],
    *,
    follow_symlinks: bool = True,
    concurrency: int = 64,
    return_exceptions: bool,
) -> list[os.stat_result | OSError]: ...
async def stat_many(
    paths: Iterable[StrOrBytesPath],
    *,
    follow_symlinks: bool = True,
    concurrency: int = 64,
    return_exceptions: bool = False,
) -> Any:
    """The status of many files, in the order of their paths; errors and `concurrency` are those of
    `read_many`.
    """
    paths = list(paths)
    ways = of_running_loop()
    many = _Many[os.stat_result](len(paths), concurrency, return_exceptions)

    async def look(first: int, last: int) -> None:
        found = await in_pieces(_stat_each, paths[first:last], follow_symlinks)
        for index, status in enumerate(found, first):
            many.settle(index, status)

    async with many:
        for start in range(0, len(paths), _IN_A_TURN):
            last = min(start + _IN_A_TURN, len(paths))
            for index in range(start, last):
                try:
                    status = ways.try_stat(paths[index], follow=follow_symlinks)
                except OSError as error:
                    many.settle(index, error)
                    continue
                if status is None:
                    # What follows needs a disk, too, or this turn is used up.
                    await many.wait_for(look, index, last)
                    break
                many.settle(index, status)
            await asyncio.sleep(0)
    return many.results


class _Many(Generic[_T]):
    """Results in order, and the tasks that wait for those which can't be had at once."""

    def __init__(self, count: int, concurrency: int, return_exceptions: bool) -> None:
        if concurrency < 1:
            raise ValueError("concurrency must be 1 or more")
        self.results: list[_T | BaseException | None] = [None] * count
        self._return_exceptions = return_exceptions
        self._room = asyncio.Semaphore(concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None

    def settle(self, index: int, result: _T | BaseException) -> None:
        if isinstance(result, BaseException) and not self._return_exceptions:
            raise result
        self.results[index] = result

    async def wait_for(self, work: Callable[[int, int], Awaitable[None]], first: int, last: int) -> None:
        """Start a task, as soon as there is room for one."""
        await self._room.acquire()
        if self._error:
            self._room.release()
            raise self._error

        async def run() -> None:
            try:
                await work(first, last)
            except Exception as error:
                self._error = self._error or error
            finally:
                self._room.release()

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: object, *_: object) -> None:
        try:
            while self._tasks and kind is None and not self._error:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
        if self._error and kind is None:
            raise self._error


# In a thread.


def _read_each(stop: Stop, paths: list[StrOrBytesPath]) -> list[bytes | OSError]:
    return _each(stop, paths, lambda path: read_in_thread(stop, path))


def _stat_each(stop: Stop, paths: list[StrOrBytesPath], follow: bool) -> list[os.stat_result | OSError]:
    return _each(stop, paths, lambda path: os.stat(path, follow_symlinks=follow))


def _each(
    stop: Stop, paths: list[StrOrBytesPath], work: Callable[[StrOrBytesPath], _T]
) -> list[_T | OSError]:
    found: list[_T | OSError] = []
    for path in paths:
        stop.check()
        try:
            found.append(work(path))
        except OSError as error:
            found.append(error)
    return found
