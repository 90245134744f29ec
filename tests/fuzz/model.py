"""What must arrive: one direction of a connection as bytes; and the list of problems. It needs no loop."""

from __future__ import annotations

import random

ROOM = 16_000
"""Bytes that every socket takes at once, whatever its kind, if its peer has taken what came before."""
PIECES = 40
"""... in at most so many pieces, because the kernel accounts much more for a piece than its bytes."""


class Deliberate(Exception):
    """The exception that scripts raise."""


class Problems(list[tuple[str, str]]):
    """The (kind, detail) of each problem. The shrinker keeps the kind equal."""

    def add(self, kind: str, detail: str = "") -> None:
        self.append((kind, detail))


class Stream:
    """The bytes of one direction.

    `made` holds all bytes that were handed over, `got` says how many have come out, `promised` how many have
    to come out even if the sender ends abruptly: asyncio sends within `write()` what the socket has room for.
    `whole`: all bytes have to.
    """

    def __init__(self, name: str, problems: Problems) -> None:
        self.name = name
        self.problems = problems
        self.random = random.Random(name)
        self.made = bytearray()
        self.got = 0
        self.promised = 0
        self.pieces = 0
        self.whole = True
        self.abandoned = False
        # Bytes may be missing in the middle: only where asyncio is known to lose them.
        self.gaps = False

    @property
    def outstanding(self) -> int:
        return len(self.made) - self.got

    def make(self, size: int) -> bytes:
        """New bytes for the stream; `add` says that they were handed over."""
        return self.random.randbytes(size)

    def add(self, data: bytes, at_once: bool = True) -> None:
        self.pieces += 1
        keeps = at_once and not self.abandoned and self.promised == len(self.made)
        self.made += data
        if keeps and self.outstanding <= ROOM and self.pieces <= PIECES:
            self.promised = len(self.made)

    def arrived(self, data: bytes) -> None:
        end = self.got + len(data)
        if self.gaps:
            self.got = min(end, len(self.made))
            return
        if self.made[self.got : end] != data:
            self.problems.add(
                "wrong bytes", f"{self.name}: {len(data)} bytes at {self.got}, {self._guess(data)}"
            )
        self.got = min(end, len(self.made))
        if not self.outstanding and not self.abandoned:
            self.pieces, self.promised = 0, len(self.made)

    def _guess(self, data: bytes) -> str:
        if self.got + len(data) > len(self.made):
            return f"more than the {len(self.made)} that were sent"
        at = self.made.find(data[:8])
        return "never sent" if at < 0 else f"which are those from {at} on"

    @property
    def missing(self) -> int:
        """How many of the bytes that must arrive are missing."""
        if self.gaps:
            return 0
        return max(0, (len(self.made) if self.whole else self.promised) - self.got)

    def cut(self) -> None:
        """From now on, only the promised bytes must arrive."""
        self.whole = False

    def abandon(self) -> None:
        """From now on, nothing more has to arrive; bytes that arrive are still in order."""
        self.whole, self.abandoned, self.promised = False, True, 0
