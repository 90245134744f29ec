"""I/O multiplexing (Stevens, fig. 6.3) with ``select``.

One call waits for all connections, then one call follows for each ready connection. The whole set is handed
over and searched each time, so its cost grows with the connections watched, and an fd of FD_SETSIZE (1024) or
more does not fit: ``select`` then raises ValueError.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, NoReturn

from proact.lab.models.attempt import Peer, accept_waiting, resumed
from proact.lab.models.pauses import Pauses

if TYPE_CHECKING:
    import socket

    from proact.lab.workloads import Sessions


def serve(listener: socket.socket, sessions: Sessions) -> NoReturn:
    """Wait with ``select`` for ever. A connection is watched to read; to write while it has a rest."""
    listener.setblocking(False)
    reading: set[socket.socket] = {listener}
    writing: set[socket.socket] = set()
    peers: dict[socket.socket, Peer] = {}
    pauses: Pauses[Peer] = Pauses()
    while True:
        readable, writable, _ = select.select(reading, writing, [], pauses.left() if pauses else None)
        if pauses:
            writable += [peer.connection for peer in resumed(pauses)]
        for connection in readable + writable:
            if connection is listener:
                accepted = {peer.connection: peer for peer in accept_waiting(listener, sessions, pauses)}
                peers.update(accepted)
                reading.update(accepted)
                continue
            if (peer := peers.get(connection)) is None:  # it was ready and resumed, and has ended
                continue
            if not peer.attempt():
                reading.discard(connection)
                writing.discard(connection)
                peers.pop(connection).connection.close()
            elif bool(peer.rest) != (connection in writing):  # change the watched set only if it differs
                reading ^= {connection}
                writing ^= {connection}
