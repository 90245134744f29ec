"""I/O multiplexing (Stevens, fig. 6.3) with ``select``.

One call waits for all connections, then one call follows for each ready connection. The whole set is handed
over and searched each time, so its cost grows with the connections watched, and an fd of FD_SETSIZE (1024) or
more does not fit: ``select`` then raises ValueError.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, NoReturn

from proact.lab.models.attempt import Peer, accept_waiting

if TYPE_CHECKING:
    import socket

    from proact.lab.workloads import Sessions


def serve(listener: socket.socket, sessions: Sessions) -> NoReturn:
    """Wait with ``select`` for ever. A connection is watched to read; to write while it has a rest."""
    listener.setblocking(False)
    reading: set[socket.socket] = {listener}
    writing: set[socket.socket] = set()
    peers: dict[socket.socket, Peer] = {}
    while True:
        readable, writable, _ = select.select(reading, writing, [])
        for connection in readable + writable:
            if connection is listener:
                accepted = {peer.connection: peer for peer in accept_waiting(listener, sessions)}
                peers.update(accepted)
                reading.update(accepted)
                continue
            peer = peers[connection]
            if not peer.attempt():
                reading.discard(connection)
                writing.discard(connection)
                peers.pop(connection).connection.close()
            elif bool(peer.rest) != (connection in writing):  # change the watched set only if it differs
                reading ^= {connection}
                writing ^= {connection}
