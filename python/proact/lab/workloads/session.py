"""One connection's conversation, without I/O: bytes in, bytes out, and pieces of files that it wants."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extent:
    """A piece of a file, and where its bytes go. ``buffer`` is aligned as O_DIRECT wants it."""

    fd: int
    offset: int
    buffer: memoryview

    def read(self) -> int:
        """Read it with a call that blocks, as a readiness model must: a file is always "ready"."""
        return os.preadv(self.fd, [self.buffer], self.offset)


class Session:
    """What is served to one peer.

    A model hands over what arrived with ``feed`` and sends what that returns. While ``wanted`` is not
    None the answer needs a piece of a file: the model reads it in its own way, and ``supply`` takes how
    many bytes came and returns more to send. Nothing may be fed meanwhile. When ``over`` is True the
    connection is closed once everything has been sent.
    """

    __slots__ = ()

    over: bool = False
    wanted: Extent | None = None

    def feed(self, data: bytes) -> bytes:
        """Take what arrived; returns what is to be sent now, perhaps nothing."""
        raise NotImplementedError

    def supply(self, count: int) -> bytes:
        """Take the ``wanted`` piece, of which ``count`` bytes were read; returns what is to be sent now."""
        raise NotImplementedError

    def answer(self, data: bytes) -> bytes:
        """``feed``, and the files it wants read on the spot: for the models that can only block for them."""
        reply = self.feed(data)
        while (wanted := self.wanted) is not None:
            reply += self.supply(wanted.read())
        return reply
