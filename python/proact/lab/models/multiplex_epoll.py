"""I/O multiplexing (Stevens, fig. 6.3) with ``epoll``.

The kernel keeps the set of connections between calls and hands back only those that are ready, so the cost
grows with the connections that are active, not with those watched. Level-triggered, as most programs use it.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, NoReturn

from proact.lab.models.attempt import Peer, accept_waiting, resumed
from proact.lab.models.links import Links
from proact.lab.models.pauses import Pauses

if TYPE_CHECKING:
    import socket

    from proact.lab.workloads import Sessions


def serve(listener: socket.socket, sessions: Sessions) -> NoReturn:
    """Wait with ``epoll`` for ever. A connection is watched for reading; for writing while it has a rest."""
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    peers: dict[int, Peer] = {}
    pauses: Pauses[Peer] = Pauses()
    links = Links(epoll)
    while True:
        events = epoll.poll(pauses.left() if pauses else None)
        if pauses:
            events += [(peer.connection.fileno(), 0) for peer in resumed(pauses)]
        for fd, _ in events:
            if fd == listener.fileno():
                for new in accept_waiting(listener, sessions, pauses, links.ask):
                    peers[new.connection.fileno()] = new
                    epoll.register(new.connection, select.EPOLLIN)
                continue
            if fd in links:
                if (answered := links.answered(fd)) is None:
                    continue
                answered.resume()
                fd = answered.connection.fileno()
            if (peer := peers.get(fd)) is None:  # it was ready and resumed, and has ended
                continue
            if not peer.attempt():
                epoll.unregister(fd)
                links.close(peer)
                peers.pop(fd).connection.close()
            elif bool(peer.rest) != peer.writing:  # change the watched events only if they differ
                peer.writing = not peer.writing
                epoll.modify(fd, select.EPOLLOUT if peer.rest else select.EPOLLIN)
