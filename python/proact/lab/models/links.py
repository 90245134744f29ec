"""The connections of an ``epoll`` server to other servers: in the same set as those of its clients."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

from proact.lab.models import CHUNK

if TYPE_CHECKING:
    from proact.lab.models.attempt import Peer
    from proact.lab.workloads.session import Ask


class Links:
    """Which client, and which of its questions, an fd belongs to."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self._of: dict[int, tuple[Peer, int]] = {}

    def ask(self, peer: Peer, wanted: Ask) -> None:
        """Ask all servers at once; connect to them before the first time."""
        for at, port in enumerate(wanted.ports if not wanted.links else ()):
            link = socket.create_connection(("127.0.0.1", port))
            link.setblocking(False)
            self._of[link.fileno()] = peer, at
            self._epoll.register(link, select.EPOLLIN)
            wanted.links.append(link)
        for link, request in zip(wanted.links, wanted.requests, strict=True):
            link.send(request)  # it fits: nothing else is under way there

    def __contains__(self, fd: int) -> bool:
        return fd in self._of

    def answered(self, fd: int) -> Peer | None:
        """Receive on a link; the client for whom all have answered now, if there is one."""
        peer, at = self._of[fd]
        wanted = peer.session.wanted
        if wanted is None:  # nothing is asked, so this is the other server's end
            raise ConnectionError("a back end has gone")
        return peer if wanted.take(at, peer.session.links[at].recv(CHUNK)) else None  # type: ignore[union-attr]  # a session that asks has links

    def close(self, peer: Peer) -> None:
        """The client has gone."""
        for link in peer.session.links:
            del self._of[link.fileno()]
            link.close()
