"""Owns: waiting for a time, and exceptions that a time raises."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent

from .. import _core
from .greenlets import Bridge, Spawned
from .hub import hub_here, refuse

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Literal, Self

__all__ = ["Timeout", "interrupt_later", "limit_call", "sleep"]


sleep = _core.green_sleep


def interrupt_later(seconds: float, error: BaseException) -> asyncio.TimerHandle:
    """Raise an exception in the greenlet that runs now, if the handle is not cancelled within `seconds`."""
    here = getcurrent()
    loop: asyncio.AbstractEventLoop = hub_here().loop
    if isinstance(here, Spawned):
        return loop.call_later(seconds, here.job._interrupt, error)
    if not isinstance(here, Bridge):
        refuse()
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a timeout needs a task to interrupt")
    return loop.call_later(seconds, _interrupt_bridge, here, task, task.cancelling(), error)


def limit_call(seconds: float) -> asyncio.TimerHandle:
    """Raise TimeoutError in the greenlet that runs now, as a socket's timeout does."""
    return interrupt_later(seconds, TimeoutError("timed out"))


def _interrupt_bridge(bridge: Bridge, task: asyncio.Task[Any], cancelled: int, error: BaseException) -> None:
    # The greenlet waits with its task, and only a cancellation wakes that. The step turns it into the
    # exception.
    bridge._interrupts.append((error, cancelled))
    task.cancel()


class Timeout(BaseException):
    """Raised in the greenlet that waits when the time is over; also the context manager that does so.

    `with Timeout(5): ...` raises itself, which is no `Exception`, so that the code in the block does not
    catch it by mistake. With `exception` an exception (or its class) it raises that instead; with False, the
    block is left without an exception. `seconds` None: never. It is not a cancellation, and interrupts only
    what waits.
    """

    def __init__(
        self,
        seconds: float | None = None,
        exception: BaseException | type[BaseException] | Literal[False] | None = None,
    ) -> None:
        super().__init__(seconds)
        self.seconds = seconds
        self._raised = exception
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to count the time, for the greenlet that runs now."""
        if self._timer is not None:
            raise RuntimeError("the timeout was started already")
        if self.seconds is not None:
            error = self._raised or self
            error = error() if isinstance(error, type) else error
            self._timer = interrupt_later(self.seconds, error)

    def cancel(self) -> None:
        """Stop counting; a second call has no effect."""
        if (timer := self._timer) is not None:
            self._timer = None
            timer.cancel()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.cancel()
        return error is self and self._raised is False

    def __str__(self) -> str:
        return "" if self.seconds is None else f"{self.seconds} seconds"
