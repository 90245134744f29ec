"""The pauses of a server that waits in one place for everything: which of them is over next.

A workload has one length of pause, so the one that began first ends first, and a queue is enough.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

Paused = TypeVar("Paused")


class Pauses(Generic[Paused]):
    """Those that pause, in the order in which they go on."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, Paused]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def begin(self, paused: Paused, seconds: float) -> None:
        """``paused`` goes on in so many seconds; all pauses are equally long."""
        self._waiting.append((time.monotonic() + seconds, paused))

    def left(self) -> float | None:
        """The seconds until the next one goes on; None if there is none."""
        return max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None

    def milliseconds(self) -> float | None:
        """The same in milliseconds."""
        return None if (left := self.left()) is None else left * 1e3

    def over(self) -> Iterator[Paused]:
        """Those whose pause is over, each once."""
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            yield self._waiting.popleft()[1]
