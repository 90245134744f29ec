"""The part that the readiness servers share: accepting, and one attempt at one connection.

``nonblocking``, ``select``, ``poll``, ``epoll``, ``libevent`` and ``sigio`` move the data with these same
non-blocking calls. They differ only in how they learn which connection to try next, and that is what a
comparison of them should show.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from proact.lab.models import CHUNK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proact.lab.workloads import Sessions
    from proact.lab.workloads.session import Session


class Peer:
    """One connection: its socket, its session, and the bytes that it could not send yet."""

    __slots__ = ("blocked", "connection", "rest", "session")

    def __init__(self, connection: socket.socket, session: Session) -> None:
        self.connection = connection
        self.session = session
        self.rest = memoryview(b"")
        self.blocked = False

    def attempt(self) -> bool:
        """Send the rest, or if there is none receive a chunk and send its answer; neither call waits.

        Returns False when the connection has ended. Otherwise ``rest`` holds the bytes still to be sent.
        """
        try:
            if not self.rest:
                data = self.connection.recv(CHUNK)
                if not data:
                    return False
                self.rest = memoryview(self.session.answer(data))
            if self.rest:
                self.rest = self.rest[self.connection.send(self.rest) :]
        except BlockingIOError:
            self.blocked = True
            return True
        except OSError:  # a reset or a timeout ends this connection only
            return False
        return bool(self.rest) or not self.session.over

    def exhaust(self) -> bool:
        """Attempt until one would wait, for models that learn only of changes. Returns as ``attempt``."""
        self.blocked = False
        while not self.blocked:
            if not self.attempt():
                return False
        return True


def accept_waiting(listener: socket.socket, sessions: Sessions) -> Iterator[Peer]:
    """Each connection that waits in the backlog now, made non-blocking."""
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        except ConnectionError:  # the peer gave up while it waited in the backlog
            continue
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Peer(connection, sessions())
