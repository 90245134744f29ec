"""What the readiness servers share: accepting, and one attempt at one connection.

``nonblocking``, ``select``, ``poll`` and ``epoll`` move the data with these same non-blocking calls. They
differ only in how they learn which connection to try next, and that is what a comparison of them should show.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from proact.lab.models import CHUNK

if TYPE_CHECKING:
    from collections.abc import Iterator


def accept_waiting(listener: socket.socket) -> Iterator[socket.socket]:
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
        yield connection


def attempt(connection: socket.socket, rest: memoryview | None) -> memoryview | None:
    """Send ``rest``, or if there is none receive a chunk and send that; neither call waits.

    Returns what is still to be sent (empty: nothing, receive next), or None when the connection has ended.
    """
    try:
        if not rest:
            rest = memoryview(connection.recv(CHUNK))
            if not rest:
                return None
        return rest[connection.send(rest) :]
    except BlockingIOError:
        return memoryview(b"") if rest is None else rest
    except OSError:  # a reset, a timeout: the end of this connection only
        return None
