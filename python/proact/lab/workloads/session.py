"""One connection's conversation, without I/O: bytes in, bytes out, and what it wants meanwhile.

A session can want a piece of a file, a pause (the time that another server would take), or answers of other
servers.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: The bytes asked of one ``recv`` from another server.
_CHUNK: Final = 64 * 1024


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


class Ask:
    """A request to each of several servers, all at once, and their only right answers.

    ``links`` are the session's connections to them, in the model's own form; empty until the model has made
    them. ``heads`` are the bytes of each answer before its body.
    """

    __slots__ = ("_answers", "_expected", "_heads", "_left", "links", "ports", "requests")

    def __init__(
        self,
        ports: Sequence[int],
        requests: Sequence[bytes],
        expected: Sequence[bytes],
        heads: Sequence[int],
        links: list[Any],
    ) -> None:
        self.ports, self.requests, self.links = ports, requests, links
        self._expected, self._heads = expected, heads
        self._answers = [b""] * len(ports)
        self._left = len(ports)

    def take(self, at: int, data: bytes) -> bool:
        """Bytes came from the server ``at``; returns whether all have answered. Raises ConnectionError."""
        answer = self._answers[at] = self._answers[at] + data
        if not data or not self._expected[at].startswith(answer):
            raise ConnectionError("a back end has gone, or answers other bytes")
        self._left -= len(answer) == len(self._expected[at])
        return not self._left

    def bodies(self) -> bytes:
        """The joined bodies of all answers."""
        return b"".join(answer[head:] for answer, head in zip(self._answers, self._heads, strict=True))

    def blocking(self, connect: Callable[[tuple[str, int]], Any] = socket.create_connection) -> int:
        """Ask all, then read all, with calls that block; return 0, because no file was read."""
        while len(self.links) < len(self.ports):
            self.links.append(connect(("127.0.0.1", self.ports[len(self.links)])))
        for link, request in zip(self.links, self.requests, strict=True):
            link.sendall(request)
        for at, link in enumerate(self.links):
            while len(self._answers[at]) < len(self._expected[at]):
                self.take(at, link.recv(_CHUNK))
        return 0


#: What a session can want before it goes on.
Wanted = Extent | Pause | Ask


def on_the_spot(wanted: Wanted) -> int:
    """Do it with calls that block; return how many bytes were read."""
    if isinstance(wanted, Ask):
        return wanted.blocking()
    return wanted.read() if isinstance(wanted, Extent) else wanted.sleep()


class Session:
    """The server's side of one connection.

    A model passes the bytes that arrived to ``feed`` and sends what it returns. While ``wanted`` is not
    None, the answer needs a piece of a file, time, or other servers: the model does it in its own way, and
    ``supply`` takes how many bytes came (0 if it was no file) and returns more to send. Nothing may be fed
    meanwhile. When ``over`` is True, the model closes the connection once everything has been sent.
    """

    __slots__ = ()

    over: bool = False
    wanted: Wanted | None = None
    links: Sequence[Any] = ()  # connections to other servers, in the model's own form

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
