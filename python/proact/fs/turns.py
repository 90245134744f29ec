"""Owns: the order in which the operations on one file object are carried out."""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Turns"]

_T = TypeVar("_T")


class _Carried(asyncio.Task[_T]):
    """Work that goes on to its end.

    `asyncio.run` cancels all tasks when it ends, and waits for them. Bytes that a `write` has taken must not
    be lost by that.
    """

    def cancel(self, msg: Any | None = None) -> bool:
        return False


class Turns:
    """One operation at a time, first come first served. If `_busy` is false, an operation need not wait.

    What is done without an await is one piece by itself, and need not enter. All is done on one loop.
    """

    # The loop that the operations run on. They may move to another one only when this one is closed.
    _loop: asyncio.AbstractEventLoop

    # Defaults of the class, because most files are read once and closed: making them is what takes time.
    _busy = False
    # Whether work goes on whose caller was cancelled in his turn, which it keeps.
    _kept = False
    _waiting: deque[asyncio.Future[None]] | None = None

    def __reduce_ex__(self, _protocol: object) -> Any:
        # A copy would close the fd a second time, when it may be another file's.
        raise TypeError(f"cannot pickle {type(self).__qualname__!r} object")

    def _check_loop(self) -> None:
        """Raise RuntimeError on another loop than the file's, which could not wake it."""
        if get_running_loop() is not self._loop:
            self._move()

    def _move(self) -> None:
        if not self._loop.is_closed():
            raise RuntimeError(f"{self!r} belongs to another event loop")
        if self._busy:
            raise RuntimeError(f"the event loop of {self!r} was closed in the middle of an operation")
        self._loop = get_running_loop()

    async def _enter(self) -> None:
        """Wait until it is this operation's turn. Then call `_leave`."""
        self._check_loop()
        if not self._busy:
            self._busy = True
            return
        if self._waiting is None:
            self._waiting = deque()
        turn = self._loop.create_future()
        self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            if not turn.cancelled():
                # It is our turn already, and nobody else would end it.
                self._leave()
            raise

    def _leave(self) -> None:
        if self._kept:
            return
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                # Still busy: the turn is passed on, and nobody gets in between.
                try:
                    turn.set_result(None)
                except RuntimeError:
                    # The loop was closed, and the collector ends who waited on it.
                    continue
                return
        self._busy = False

    async def _settle(self) -> None:
        """Wait for what is under way and before this call."""
        if self._busy:
            await self._enter()
            self._leave()

    async def _carry(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Do work that goes on to its end if the caller is cancelled; until then it is nobody else's turn."""
        await self._enter()
        loop = self._loop
        ended = loop.create_future()

        def end(task: asyncio.Task[_T]) -> None:
            self._leave()
            # Looked at, so that asyncio does not report it if the caller is cancelled.
            task.exception()
            if not ended.done():
                ended.set_result(None)

        try:
            task = _Carried(work(), loop=loop)
        except BaseException:
            self._leave()
            raise
        task.add_done_callback(end)
        await ended
        return task.result()

    async def _see_through(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Within a turn: do work that goes on to its end if the caller is cancelled. It keeps the turn."""
        ended = self._loop.create_future()

        def end(task: asyncio.Task[object]) -> None:
            task.exception()
            if not ended.done():
                ended.set_result(None)
            if self._kept:
                self._kept = False
                self._leave()

        task = _Carried(work(), loop=self._loop)
        task.add_done_callback(end)
        try:
            await ended
        except BaseException:
            self._kept = not task.done()
            raise
        task.result()
