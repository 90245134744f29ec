"""I/O multiplexing (Stevens, fig. 6.3) with ``select``.

One call waits for all connections, then one call for each that is ready. The whole set is handed over and
searched each time, so its cost grows with the connections watched, and an fd of FD_SETSIZE (1024) or more
does not fit: ``select`` then raises ValueError.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, NoReturn

from proact.lab.models.attempt import accept_waiting, attempt

if TYPE_CHECKING:
    import socket


def serve(listener: socket.socket) -> NoReturn:
    """Wait with ``select`` for ever. A connection is watched to read; to write while it has a rest."""
    listener.setblocking(False)
    reading = {listener}
    unsent: dict[socket.socket, memoryview] = {}
    while True:
        readable, writable, _ = select.select(reading, unsent, [])
        for connection in readable + writable:
            if connection is listener:
                reading.update(accept_waiting(listener))
                continue
            rest = attempt(connection, unsent.pop(connection, None))
            if rest is None:
                reading.discard(connection)
                connection.close()
            elif rest:
                reading.discard(connection)
                unsent[connection] = rest
            else:
                reading.add(connection)
