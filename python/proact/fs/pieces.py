"""Owns: long work in a thread of the pool, done in pieces, so that a cancel ends it soon."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

from . import ways

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = ["Batches", "Stop", "Stopped", "in_pieces"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Stopped(BaseException):
    """Ends the work in the thread. No `except Exception` of the standard library stops it, and no task sees
    it.
    """


class Stop:
    """Tells the work whether somebody still waits for it."""

    __slots__ = ("stopped",)

    def __init__(self) -> None:
        self.stopped = False

    def check(self) -> None:
        """Raise `Stopped` if the work was given up."""
        if self.stopped:
            raise Stopped


async def in_pieces(function: Callable[Concatenate[Stop, _P], _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call `function(stop, ...)` in a thread. It calls `stop.check()` between its pieces."""
    stop = Stop()

    def work() -> _T:
        return function(stop, *args, **kwargs)

    try:
        return await ways.of_running_loop().call(work)
    except asyncio.CancelledError:
        stop.stopped = True
        raise


class Batches(Generic[_T]):
    """An iterator whose steps may block: a thread of the pool makes them, many at a time.

    `make` is called in the thread, too. `close()` ends the iterator, and is safe while a thread is busy with
    it.
    """

    def __init__(self, make: Callable[[], Iterator[_T]], size: int) -> None:
        self._make = make
        self._size = size
        self._iterator: Iterator[_T] | None = None
        self._busy = threading.Lock()
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[_T]:
        try:
            while batch := await ways.of_running_loop().call(self._batch):
                for item in batch:
                    yield item
        finally:
            self.close()

    def _batch(self) -> list[_T]:
        with self._busy:
            if self._iterator is None and not self._closed:
                self._iterator = self._make()
            batch = [] if self._closed else list(itertools.islice(self._iterator or (), self._size))
        if self._closed:
            self._end()
        return batch

    def close(self) -> None:
        self._closed = True
        self._end()

    def _end(self) -> None:
        # If a thread is busy, it comes here when it has made its batch.
        if self._busy.acquire(blocking=False):
            try:
                iterator: Any = self._iterator
                self._iterator = None
                if iterator is not None and hasattr(iterator, "close"):
                    iterator.close()
            finally:
                self._busy.release()
