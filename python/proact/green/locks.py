"""Owns: what greenlets of one loop synchronise by, with the interfaces of `threading`.

None of them crosses threads, except that `Event.set` may be called from any thread.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent

from .greenlets import Bridge, Spawned
from .hub import hub_here
from .waiting import Line

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

__all__ = ["BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]


def _nothing() -> None:
    pass


def _limit(blocking: bool, timeout: float | None) -> float | None:
    """The timeout, where `threading` has -1 for none."""
    if timeout is None or timeout == -1:
        return None
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
    return timeout


class Event:
    """A flag that greenlets wait for."""

    def __init__(self) -> None:
        self._flag = False
        self._line = Line()

    def is_set(self) -> bool:
        """Whether the flag is set."""
        return self._flag

    def set(self) -> None:
        """Set the flag, and wake all that wait for it."""
        self._flag = True
        while self._line.wake():
            pass

    def clear(self) -> None:
        """Clear the flag."""
        self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is set, at most `timeout` seconds; return whether it is."""
        return self._flag or self._line.wait(timeout, _nothing, unless=self.is_set) or self._flag

    def __repr__(self) -> str:
        return f"<Event {'set' if self._flag else 'unset'}, {len(self._line)} waiting, at {id(self):#x}>"


class Semaphore:
    """A number that `acquire` counts down and `release` counts up; at 0, `acquire` waits, in order."""

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        self._value = value
        self._line = Line()

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Count down, waiting until that is possible; False if it was not in time."""
        timeout = _limit(blocking, timeout)
        if self._value > 0:
            self._value -= 1
            return True
        # What is released goes to the first in the line, so nobody overtakes it.
        return blocking and self._line.wait(timeout, self.release)

    def release(self, n: int = 1) -> None:
        """Count up `n` times, and wake as many."""
        if n < 1:
            raise ValueError("n must be one or more")
        for _ in range(n):
            if not self._line.wake():
                self._value += 1

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._value}, {len(self._line)} waiting, at {id(self):#x}>"


class BoundedSemaphore(Semaphore):
    """A semaphore that can't be counted higher than it began."""

    def __init__(self, value: int = 1) -> None:
        super().__init__(value)
        self._bound = value

    def release(self, n: int = 1) -> None:
        """Count up `n` times; ValueError if that is more than it began with."""
        if not len(self._line) and self._value + n > self._bound:
            raise ValueError("Semaphore released too many times")
        super().release(n)


class Lock:
    """A lock; greenlets get it in the order in which they asked. It is not reentrant."""

    def __init__(self) -> None:
        self._holder: Any = None
        self._line = Line()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, waiting until it is free; False if it was not in time."""
        limit = _limit(blocking, timeout)
        if self._holder is None:
            self._holder = _me()
            return True
        if not blocking or not self._line.wait(limit, self._hand_over):
            return False
        self._holder = _me()
        return True

    def release(self) -> None:
        """Give it to the first that waits, or free it."""
        if self._holder is None:
            raise RuntimeError("release unlocked lock")
        self._hand_over()

    def _hand_over(self) -> None:
        # In between it belongs to nobody, but is not free.
        self._holder = "the next one" if self._line.wake() else None

    def locked(self) -> bool:
        """Whether it is taken."""
        return self._holder is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        held = "free" if self._holder is None else f"held by {self._holder!r}"
        return f"<{type(self).__name__} {held}, {len(self._line)} waiting, at {id(self):#x}>"


def _me() -> Any:
    """Who holds a lock, for messages and for reentrant locks.

    In `green.run` that is the task: what it runs within what it waits for belongs to it, too.
    """
    here = getcurrent()
    if isinstance(here, Spawned):
        return here.job
    return (isinstance(here, Bridge) and asyncio.current_task()) or here


class RLock(Lock):
    """A lock that its holder may take again."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, or take it once more."""
        if self._holder is not _me() and not super().acquire(blocking, timeout):
            return False
        self._count += 1
        return True

    def release(self) -> None:
        """Undo one `acquire`."""
        if self._holder is not _me():
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            super().release()

    # What `threading.Condition` asks of a lock.

    def _is_owned(self) -> bool:
        return self._holder is _me()

    def _release_save(self) -> int:
        count, self._count = self._count, 0
        super().release()
        return count

    def _acquire_restore(self, count: int) -> None:
        super().acquire()
        self._count = count


class Condition:
    """A condition variable, with a lock (a new RLock if none is given)."""

    def __init__(self, lock: Lock | None = None) -> None:
        self._lock = RLock() if lock is None else lock
        self._line = Line()
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, traceback)

    def wait(self, timeout: float | None = None) -> bool:
        """Free the lock, wait for `notify`, and take the lock again; False if no notify came in time."""
        if self._lock._holder is not _me():
            raise RuntimeError("cannot wait on un-acquired lock")
        again: Any = self._lock.acquire
        if isinstance(self._lock, RLock):
            count = self._lock._release_save()
            again = lambda: self._lock._acquire_restore(count)  # noqa: E731
        else:
            self._lock.release()
        try:
            return self._line.wait(timeout, self._line.wake)
        finally:
            _insist(again)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until `predicate()` is true, at most `timeout` seconds; return what it returned."""
        loop = hub_here().loop
        end = None if timeout is None else loop.time() + timeout
        while not (result := predicate()):
            left = None if end is None else end - loop.time()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, n: int = 1) -> None:
        """Wake `n` that wait."""
        if self._lock._holder is not _me():
            raise RuntimeError("cannot notify on un-acquired lock")
        for _ in range(n):
            if not self._line.wake():
                return

    def notify_all(self) -> None:
        """Wake all that wait."""
        self.notify(len(self._line))


def _insist(acquire: Callable[[], object]) -> None:
    """Take a lock again even if the greenlet is interrupted meanwhile: its `with` block will free it."""
    interrupted: BaseException | None = None
    while True:
        try:
            acquire()
        except BaseException as error:
            interrupted = error
        else:
            break
    if interrupted is not None:
        raise interrupted
