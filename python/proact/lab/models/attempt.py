"""The part that the readiness servers share: accepting, and one attempt at one connection.

``nonblocking``, ``select``, ``poll``, ``epoll``, ``libevent`` and ``sigio`` move the data with these same
non-blocking calls. They differ only in how they learn which connection to try next, and that is what a
comparison of them should show.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from proact.lab.models import CHUNK
from proact.lab.models.pauses import Pauses
from proact.lab.workloads.session import Ask, Pause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proact.lab.workloads import Sessions
    from proact.lab.workloads.session import Session


class Peer:
    """One connection: its socket, its session, and the bytes that it could not send yet."""

    __slots__ = ("ask", "blocked", "connection", "pauses", "pausing", "rest", "session", "writing")

    def __init__(
        self,
        connection: socket.socket,
        session: Session,
        pauses: Pauses[Peer],
        ask: Callable[[Peer, Ask], None] | None = None,
    ) -> None:
        self.connection = connection
        self.session = session
        self.pauses = pauses
        self.ask = ask
        self.pausing = False
        self.rest = memoryview(b"")
        self.writing = False  # the model watches it for room to write, not for data
        self.blocked = False

    def attempt(self) -> bool:
        """Send the rest, or if there is none receive a chunk and send its answer; neither call waits.

        Returns False when the connection has ended. Otherwise ``rest`` holds the bytes still to be sent.
        While the session pauses, nothing is received: a request that comes meanwhile waits in the kernel.
        """
        if self.pausing and not self.rest:
            self.blocked = True
            return True
        try:
            if not self.rest:
                data = self.connection.recv(CHUNK)
                if not data:
                    return False
                self._take(self.session.feed(data))
            if self.rest:
                self.rest = self.rest[self.connection.send(self.rest) :]
        except BlockingIOError:
            self.blocked = True
            return True
        except OSError:  # a reset or a timeout ends this connection only
            return False
        return bool(self.rest) or self.pausing or not self.session.over

    def resume(self) -> None:
        """The pause is over, or all have answered: the next attempt sends what follows from it."""
        self.pausing = False
        self._take(self.session.supply(0))

    def _take(self, reply: bytes) -> None:
        """Do what the session wants: block for a file, which is always "ready"; begin a pause; ask others."""
        while (wanted := self.session.wanted) is not None:
            if isinstance(wanted, Pause):
                self.pausing = True
                self.pauses.begin(self, wanted.seconds)
                break
            if isinstance(wanted, Ask):
                assert self.ask is not None  # the registry names the models that can
                self.pausing = True
                self.ask(self, wanted)
                break
            reply += self.session.supply(wanted.read())
        self.rest = memoryview(bytes(self.rest) + reply) if self.rest else memoryview(reply)

    def exhaust(self) -> bool:
        """Attempt until one would wait, for models that learn only of changes. Returns as ``attempt``."""
        self.blocked = False
        while not self.blocked:
            if not self.attempt():
                return False
        return True


def accept_waiting(
    listener: socket.socket,
    sessions: Sessions,
    pauses: Pauses[Peer] | None = None,
    ask: Callable[[Peer, Ask], None] | None = None,
) -> Iterator[Peer]:
    """Each connection that waits in the backlog now, made non-blocking."""
    pauses = Pauses() if pauses is None else pauses
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        except ConnectionError:  # the peer gave up while it waited in the backlog
            continue
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Peer(connection, sessions(), pauses, ask)


def resumed(pauses: Pauses[Peer]) -> Iterator[Peer]:
    """Each connection whose pause is over, ready to be attempted."""
    for peer in pauses.over():
        peer.resume()
        yield peer
