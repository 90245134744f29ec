"""I/O multiplexing (Stevens, fig. 6.3) with ``epoll``.

The kernel keeps the set of connections between calls and hands back only those that are ready, so the cost
grows with the connections that are active, not with those watched. Level-triggered, as most programs use it.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, NoReturn

from proact.lab.models.attempt import accept_waiting, attempt

if TYPE_CHECKING:
    import socket


def serve(listener: socket.socket) -> NoReturn:
    """Wait with ``epoll`` for ever. A connection is watched for reading; for writing while it has a rest."""
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    unsent: dict[int, memoryview] = {}
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                for connection in accept_waiting(listener):
                    connections[connection.fileno()] = connection
                    epoll.register(connection, select.EPOLLIN)
                continue
            waited = unsent.pop(fd, None)
            rest = attempt(connections[fd], waited)
            if rest is None:
                epoll.unregister(fd)
                connections.pop(fd).close()
                continue
            if rest:
                unsent[fd] = rest
            if bool(rest) != bool(waited):  # change what is watched only when it changes
                epoll.modify(fd, select.EPOLLOUT if rest else select.EPOLLIN)
