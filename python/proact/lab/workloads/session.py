"""One connection's conversation, without I/O: bytes in, bytes out, and what it wants meanwhile.

A session can want a piece of a file, or a pause: the time that another server would take.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Extent:
    """A piece of a file, and the buffer for its bytes, aligned as O_DIRECT needs it."""

    fd: int
    offset: int
    buffer: memoryview

    def read(self) -> int:
        """Read it with a call that blocks, as a readiness model must: a file is always "ready"."""
        return os.preadv(self.fd, [self.buffer], self.offset)


@dataclass(frozen=True, slots=True)
class Pause:
    """So many seconds, during which a model serves its other connections if it can."""

    seconds: float

    def sleep(self) -> int:
        """Sleep for that time; return 0, because no bytes were read."""
        time.sleep(self.seconds)
        return 0


#: What a session can want before it goes on.
Wanted = Extent | Pause


def on_the_spot(wanted: Wanted) -> int:
    """Do it with a call that blocks; return how many bytes were read."""
    return wanted.read() if isinstance(wanted, Extent) else wanted.sleep()


class Session:
    """The server's side of one connection.

    A model passes the bytes that arrived to ``feed`` and sends what it returns. While ``wanted`` is not
    None, the answer needs a piece of a file, or time: the model reads or waits in its own way, and ``supply``
    takes how many bytes came (0 after a pause) and returns more to send. Nothing may be fed meanwhile. When
    ``over`` is True, the model closes the connection once everything has been sent.
    """

    __slots__ = ()

    over: bool = False
    wanted: Wanted | None = None

    def feed(self, data: bytes) -> bytes:
        """Take the bytes that arrived; return the bytes to send now, perhaps none."""
        raise NotImplementedError

    def supply(self, count: int) -> bytes:
        """The ``wanted`` thing is done, and ``count`` bytes were read; return the bytes to send now."""
        raise NotImplementedError

    def answer(self, data: bytes, do: Callable[[Wanted], int] = on_the_spot) -> bytes:
        """``feed``, then do what is wanted on the spot, by ``do``: for models whose code may block."""
        reply = self.feed(data)
        while (wanted := self.wanted) is not None:
            reply += self.supply(do(wanted))
        return reply
