"""The wait workload: a handler that needs an answer of another server (a database), which takes a fixed time.

The other server is a timer, so that only the waiting is measured: each model waits in its own way (a thread
sleeps, a loop sets a timer) while it serves its other connections, if it can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proact.lab.workloads.lines import Lines, exchange
from proact.lab.workloads.session import Pause
from proact.lab.workloads.web import counted

if TYPE_CHECKING:
    from proact.lab.workloads import Sessions

__all__ = ("exchange", "sessions")


class Waiting(Lines):
    """Pauses, then answers."""

    __slots__ = ("_pause", "_size")

    def __init__(self, pause: Pause) -> None:
        super().__init__()
        self._pause = pause
        self._size = 0

    def begin(self, size: int) -> bytes:
        self._size, self.wanted = size, self._pause
        return b""

    def supply(self, count: int) -> bytes:
        self.wanted = None
        return counted(self._size) + self.go_on()


def sessions(seconds: float) -> Sessions:
    """Sessions that wait for so long for each request."""
    pause = Pause(seconds)
    return lambda: Waiting(pause)
