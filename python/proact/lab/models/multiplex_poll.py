"""I/O multiplexing (Stevens, fig. 6.3) with ``poll``.

Like ``select`` without its limit of 1024: each call still hands over and searches the whole set, so
the cost grows with the watched connections.
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
    """Wait with ``poll`` for ever. A connection is watched for reading; for writing while it has a rest."""
    listener.setblocking(False)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    peers: dict[int, Peer] = {}
    pauses: Pauses[Peer] = Pauses()
    while True:
        events = poll.poll(pauses.milliseconds() if pauses else None)
        if pauses:
            events += [(peer.connection.fileno(), 0) for peer in resumed(pauses)]
        for fd, _ in events:
            if fd == listener.fileno():
                for new in accept_waiting(listener, sessions, pauses):
                    peers[new.connection.fileno()] = new
                    poll.register(new.connection, select.POLLIN)
                continue
            if (peer := peers.get(fd)) is None:  # it was ready and resumed, and has ended
                continue
            if not peer.attempt():
                poll.unregister(fd)
                peers.pop(fd).connection.close()
            elif bool(peer.rest) != peer.writing:  # change the watched events only if they differ
                peer.writing = not peer.writing
                poll.modify(fd, select.POLLOUT if peer.rest else select.POLLIN)
