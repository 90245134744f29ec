"""Non-blocking I/O (Stevens, fig. 6.2): ask every socket again and again.

No call ever sleeps, so one thread serves all connections, and burns a core whether there is work or not: most
calls come back with EAGAIN. Nothing here waits for readiness; that is what multiplexing adds.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NoReturn

from proact.lab.models.attempt import Peer, accept_waiting, resumed
from proact.lab.models.pauses import Pauses

if TYPE_CHECKING:
    import socket

    from proact.lab.workloads import Sessions


def serve(listener: socket.socket, sessions: Sessions) -> NoReturn:
    """Go round all connections for ever, with one attempt at each."""
    listener.setblocking(False)
    peers: set[Peer] = set()
    pauses: Pauses[Peer] = Pauses()
    while True:
        peers.update(accept_waiting(listener, sessions, pauses))
        if pauses:
            deque(resumed(pauses), maxlen=0)
        for peer in list(peers):
            if not peer.attempt():
                peers.discard(peer)
                peer.connection.close()
