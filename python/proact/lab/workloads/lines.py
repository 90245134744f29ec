"""The conversation of ``cpu``, ``wait`` and ``file``: a request is a line with a number of bytes, the answer
is as many bytes of content. What happens in between is the workload's.
"""

from __future__ import annotations

from collections import deque

from proact.lab.workloads import Exchange
from proact.lab.workloads.session import Session
from proact.lab.workloads.web import LARGEST, counted

#: The longest line that can be a number of bytes.
_LONGEST = 20


class Lines(Session):
    """Answers lines in their order. ``begin`` answers at once, or sets ``wanted``, and ``supply`` answers."""

    __slots__ = ("_asked", "_piece", "over", "wanted")

    def __init__(self) -> None:
        self._asked: deque[int] = deque()
        self._piece = b""
        self.over = False
        self.wanted = None

    def begin(self, size: int) -> bytes:
        """The answer of ``size`` bytes; or none yet, and ``wanted`` is set."""
        raise NotImplementedError

    def feed(self, data: bytes) -> bytes:
        *lines, self._piece = (self._piece + data).split(b"\n")
        for line in lines:
            if not line.isdigit() or len(line) > _LONGEST or int(line) > LARGEST:
                self.over = True
                break
            self._asked.append(int(line))
        self.over = self.over or len(self._piece) > _LONGEST
        return self.go_on()

    def go_on(self) -> bytes:
        """Answer what was asked, until something is wanted."""
        reply = b""
        while self._asked and self.wanted is None:
            reply += self.begin(self._asked.popleft())
        return reply


def exchange(size: int) -> Exchange:
    """Ask for ``size`` bytes."""
    return Exchange(b"%d\n" % size, counted(size))
