"""Owns: the threads that make blocking file calls: calls that no ring knows, and all calls on other loops.

The threads are daemons, at most `LIMIT` of them. A call that is given up may hang for ever (a FIFO without a
peer, a dead mount): its thread no longer counts, so that another one takes its place.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LIMIT", "Pool", "of_process", "threads"]

_T = TypeVar("_T")

LIMIT = 16
"""The most threads that work, beside those whose call was given up."""

_IDLE = 10.0
"""Seconds after which an idle thread ends."""


class _Call:
    """A blocking call that a task waits for."""

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], undo: Callable[[Any], object] | None
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.begun = self.given_up = False
        self._function = function
        self._args = args
        self._undo = undo

    def run(self) -> None:
        """In a thread of the pool."""
        try:
            result, error = self._function(*self._args), None
        except BaseException as raised:
            result, error = None, raised
        try:
            self.loop.call_soon_threadsafe(self._settle, result, error)
        except RuntimeError:
            # The loop is closed.
            self._drop(result, error)
        finally:
            # What is raised keeps its frames, and they keep the call.
            del result, error

    def _settle(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():
            self._drop(result, error)
        elif error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)

    def returned(self) -> bool:
        """Of a cancelled task: whether its result had come, but was not taken any more. It is dropped."""
        if not self.future.done() or self.future.cancelled():
            return False
        error = self.future.exception()
        self._drop(None if error else self.future.result(), error)
        return True

    def _drop(self, result: Any, error: BaseException | None) -> None:
        if self._undo and not error:
            self._undo(result)


class Pool:
    """Threads that take calls from one queue."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._queue: deque[_Call] = deque()
        self._threads = self._idle = self._lost = 0

    def counts(self) -> dict[str, int]:
        """`threads` (that exist), `busy` (of them), `queued` (calls that wait), `lost` and `limit` (threads).

        The call of a lost thread was given up and goes on.
        """
        with self._news:
            return {
                "threads": self._threads,
                "busy": self._threads - self._idle,
                "queued": len(self._queue),
                "lost": self._lost,
                "limit": LIMIT,
            }

    async def call(
        self,
        function: Callable[..., _T],
        *args: Any,
        undo: Callable[[_T], object] | None = None,
        surely: bool = False,
    ) -> _T:
        """Call a function in a thread of the pool.

        A cancelled call that has begun goes on; `undo` is then called with what it returns, in any thread.
        One that has not begun is never made, unless it is to be made `surely`.
        """
        call = _Call(function, args, undo)
        with self._news:
            self._queue.append(call)
            if self._idle >= len(self._queue) or self._threads >= LIMIT:
                self._news.notify()
            else:
                self._threads += 1
                self._start()
        try:
            result: _T = await call.future
            return result
        except asyncio.CancelledError:
            if not call.returned():
                self._give_up(call, surely)
            raise

    def _start(self) -> None:
        try:
            threading.Thread(target=self._work, name="proact-fs", daemon=True).start()
        except RuntimeError:
            self._threads -= 1
            if not self._threads:
                # No thread at all will make the call.
                self._queue.pop()
                raise

    def _give_up(self, call: _Call, surely: bool) -> None:
        with self._news:
            if call.begun:
                call.given_up = True
                # Counted back by its thread, should the call ever end.
                self._threads -= 1
                self._lost += 1
                if self._queue and not self._idle and self._threads < LIMIT:
                    self._threads += 1
                    self._start()
            elif call in self._queue and not surely:
                # Otherwise it has ended, and its result is on the way.
                self._queue.remove(call)

    def _work(self) -> None:
        while call := self._next():
            call.run()
            with self._news:
                call.begun = False
                if call.given_up:
                    self._lost -= 1
                    return
            del call

    def _next(self) -> _Call | None:
        with self._news:
            self._idle += 1
            found = self._news.wait_for(lambda: self._queue, _IDLE)
            self._idle -= 1
            if not found:
                self._threads -= 1
                return None
            call = self._queue.popleft()
            call.begun = True
            return call


_of_process = Pool()


def of_process() -> Pool:
    """The pool of this process. A forked child has a new one, because it has no threads."""
    return _of_process


def threads() -> dict[str, int]:
    """The threads of this process that make blocking file calls, on loops of any kind.

    Keys: `threads` (that work or wait for work), `busy` (of them), `queued` (calls that wait for a thread),
    `lost` (threads beside those, whose call was cancelled and goes on) and `limit` (the most `threads`).
    """
    return _of_process.counts()


def _renew() -> None:
    global _of_process
    _of_process = Pool()


os.register_at_fork(after_in_child=_renew)
