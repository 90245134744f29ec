"""I/O multiplexing (Stevens, fig. 6.3) with ``poll``.

Like ``select`` without its limit of 1024: still the whole set is handed over and searched at each call, so
the cost grows with the connections watched.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, NoReturn

from proact.lab.models.attempt import accept_waiting, attempt

if TYPE_CHECKING:
    import socket


def serve(listener: socket.socket) -> NoReturn:
    """Wait with ``poll`` for ever. A connection is watched for reading; for writing while it has a rest."""
    listener.setblocking(False)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    connections: dict[int, socket.socket] = {}
    unsent: dict[int, memoryview] = {}
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                for connection in accept_waiting(listener):
                    connections[connection.fileno()] = connection
                    poll.register(connection, select.POLLIN)
                continue
            waited = unsent.pop(fd, None)
            rest = attempt(connections[fd], waited)
            if rest is None:
                poll.unregister(fd)
                connections.pop(fd).close()
                continue
            if rest:
                unsent[fd] = rest
            if bool(rest) != bool(waited):  # change what is watched only when it changes
                poll.modify(fd, select.POLLOUT if rest else select.POLLIN)
