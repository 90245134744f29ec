"""Owns: queues between the greenlets of one loop, with the interface of `queue.Queue`."""

from __future__ import annotations

import heapq
import queue
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .hub import hub_here
from .waiting import Line

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LifoQueue", "PriorityQueue", "Queue"]

_T = TypeVar("_T")


class Queue(Generic[_T]):
    """A queue: `get` waits while it is empty, `put` while it is full (`maxsize` 0: never)."""

    def __init__(self, maxsize: int = 0) -> None:
        self.maxsize = maxsize
        self._getters = Line()
        self._putters = Line()
        self._joiners = Line()
        self._unfinished = 0
        self._init(maxsize)

    # What a subclass may replace, as that of a `queue.Queue`.

    def _init(self, maxsize: int) -> None:
        self.queue: Any = deque()

    def _qsize(self) -> int:
        return len(self.queue)

    def _put(self, item: _T) -> None:
        self.queue.append(item)

    def _get(self) -> _T:
        item: _T = self.queue.popleft()
        return item

    def qsize(self) -> int:
        """The number of items."""
        return self._qsize()

    def empty(self) -> bool:
        """Whether there is no item."""
        return not self._qsize()

    def full(self) -> bool:
        """Whether `put` would wait."""
        return 0 < self.maxsize <= self._qsize()

    def put(self, item: _T, block: bool = True, timeout: float | None = None) -> None:
        """Add an item, waiting until there is room; queue.Full if there was none in time."""
        self._wait(self.full, self._putters, self._more_room, block, timeout, queue.Full)
        self._put(item)
        self._unfinished += 1
        self._getters.wake()

    def get(self, block: bool = True, timeout: float | None = None) -> _T:
        """Remove an item, waiting until there is one; queue.Empty if there was none in time."""
        self._wait(self.empty, self._getters, self._more_items, block, timeout, queue.Empty)
        item = self._get()
        self._putters.wake()
        return item

    def put_nowait(self, item: _T) -> None:
        """Add an item; queue.Full if there is no room."""
        self.put(item, block=False)

    def get_nowait(self) -> _T:
        """Remove an item; queue.Empty if there is none."""
        return self.get(block=False)

    def task_done(self) -> None:
        """An item that was got is done with."""
        if self._unfinished <= 0:
            raise ValueError("task_done() called too many times")
        self._unfinished -= 1
        while not self._unfinished and self._joiners.wake():
            pass

    def join(self) -> None:
        """Wait until every item that was put is done with."""
        while self._unfinished:
            self._joiners.wait(None, bool)

    def _more_items(self) -> None:
        if not self.empty():
            self._getters.wake()

    def _more_room(self) -> None:
        if not self.full():
            self._putters.wake()

    def _wait(
        self,
        lacks: Callable[[], bool],
        line: Line,
        pass_on: Callable[[], None],
        block: bool,
        timeout: float | None,
        failure: type[Exception],
    ) -> None:
        if not lacks():
            return
        if not block:
            raise failure
        if timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        loop = hub_here().loop
        end = None if timeout is None else loop.time() + timeout
        woken = False
        while lacks():
            left = None if end is None else end - loop.time()
            if left is not None and left <= 0:
                raise failure
            # Another one was faster although this one was woken: it keeps its place.
            woken = line.wait(left, pass_on, in_front=woken)

    def __repr__(self) -> str:
        waiting = f"{len(self._getters)} getting, {len(self._putters)} putting"
        return f"<{type(self).__name__} {self.qsize()} items, {waiting}, at {id(self):#x}>"


class LifoQueue(Queue[_T]):
    """A queue whose last item is got first."""

    def _get(self) -> _T:
        item: _T = self.queue.pop()
        return item


class PriorityQueue(Queue[_T]):
    """A queue whose least item is got first."""

    def _init(self, maxsize: int) -> None:
        self.queue = []

    def _put(self, item: _T) -> None:
        heapq.heappush(self.queue, item)

    def _get(self) -> _T:
        item: _T = heapq.heappop(self.queue)
        return item
