"""Non-blocking I/O (Stevens, fig. 6.2): ask every socket again and again.

No call ever sleeps, so one thread serves all connections, and burns a core whether there is work or not: most
calls come back with EAGAIN. Nothing here waits for readiness; that is what multiplexing adds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from proact.lab.models.attempt import accept_waiting, attempt

if TYPE_CHECKING:
    import socket


def serve(listener: socket.socket) -> NoReturn:
    """Go round all connections for ever, with one attempt at each."""
    listener.setblocking(False)
    unsent: dict[socket.socket, memoryview | None] = {}  # every connection, and what it could not send yet
    while True:
        unsent.update(dict.fromkeys(accept_waiting(listener)))
        for connection, rest in list(unsent.items()):
            rest = attempt(connection, rest)
            if rest is None:
                del unsent[connection]
                connection.close()
            else:
                unsent[connection] = rest
