"""Owns: the order in which the operations on one file object are carried out."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

__all__ = ["Turns"]

_T = TypeVar("_T")


class Turns:
    """One operation at a time, first come first served. If `_busy` is false, an operation need not wait.

    What is done without an await is one piece by itself, and need not enter.
    """

    # Defaults of the class, because most files are read once and closed: making them is what takes time.
    _busy = False
    _waiting: deque[asyncio.Future[None]] | None = None

    async def _enter(self) -> None:
        """Wait until it is this operation's turn. Then call `_leave`."""
        if not self._busy:
            self._busy = True
            return
        if self._waiting is None:
            self._waiting = deque()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            if not turn.cancelled():
                # It is our turn already, and nobody else would end it.
                self._leave()
            raise

    def _leave(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                # Still busy: the turn is passed on, and nobody gets in between.
                turn.set_result(None)
                return
        self._busy = False

    async def _carry(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Do work that goes on to its end if the caller is cancelled; until then it is nobody else's turn."""
        await self._enter()
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def end(task: asyncio.Task[_T]) -> None:
            self._leave()
            if not task.cancelled():
                # Looked at, so that asyncio does not report it if the caller is cancelled.
                task.exception()
            if not ended.done():
                ended.set_result(None)

        try:
            task = loop.create_task(work())
        except BaseException:
            self._leave()
            raise
        task.add_done_callback(end)
        await ended
        return task.result()
