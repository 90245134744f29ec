"""One connection's conversation, without I/O: bytes in, bytes out, and the pieces of files that it wants."""

from __future__ import annotations

import os
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


class Session:
    """The server's side of one connection.

    A model passes the bytes that arrived to ``feed`` and sends what it returns. While ``wanted`` is not
    None, the answer needs a piece of a file: the model reads it in its own way, and ``supply`` takes how
    many bytes came and returns more to send. Nothing may be fed meanwhile. When ``over`` is True, the
    model closes the connection once everything has been sent.
    """

    __slots__ = ()

    over: bool = False
    wanted: Extent | None = None

    def feed(self, data: bytes) -> bytes:
        """Take the bytes that arrived; return the bytes to send now, perhaps none."""
        raise NotImplementedError

    def supply(self, count: int) -> bytes:
        """Take the ``wanted`` piece, of which ``count`` bytes were read; return the bytes to send now."""
        raise NotImplementedError

    def answer(self, data: bytes, read: Callable[[Extent], int] = Extent.read) -> bytes:
        """``feed``, then read the wanted files on the spot, by ``read``: for models whose code may block."""
        reply = self.feed(data)
        while (wanted := self.wanted) is not None:
            reply += self.supply(read(wanted))
        return reply
