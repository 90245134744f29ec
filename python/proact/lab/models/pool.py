"""I/O multiplexing with a pool of threads: one thread waits with ``epoll``, sixteen serve what is ready.

A handler may block, as in ``threads``, but at most sixteen do at once: the next request waits in a queue,
also behind handlers that only sleep. A connection is watched for one event (EPOLLONESHOT), so that no two
threads serve it, and is armed again when its answer has been sent.
"""

from __future__ import annotations

import queue
import select
import socket
import threading
from typing import TYPE_CHECKING, Final, NoReturn

from proact.lab.models import CHUNK

if TYPE_CHECKING:
    from proact.lab.workloads import Sessions
    from proact.lab.workloads.session import Session

#: The threads of the pool.
THREADS: Final = 16

_ONCE: Final = select.EPOLLIN | select.EPOLLONESHOT


class _Peer:
    """One connection and its session."""

    __slots__ = ("connection", "session")

    def __init__(self, connection: socket.socket, session: Session) -> None:
        self.connection, self.session = connection, session

    def answer(self) -> bool:
        """Receive what is there and send its answer, in calls that block; False when it has ended."""
        try:
            data = self.connection.recv(CHUNK)
            if data:
                self.connection.sendall(self.session.answer(data))
        except OSError:  # a reset or a timeout ends this connection only
            return False
        return bool(data) and not self.session.over


def serve(listener: socket.socket, sessions: Sessions) -> NoReturn:
    """Wait with ``epoll`` for ever, and pass each connection that is ready to the pool."""
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    listener.setblocking(False)
    peers: dict[int, _Peer] = {}
    ready: queue.SimpleQueue[_Peer] = queue.SimpleQueue()

    def work() -> None:
        while True:
            peer = ready.get()
            fd = peer.connection.fileno()
            if peer.answer():
                epoll.modify(fd, _ONCE)
            else:
                del peers[fd]  # before it is closed: the next connection may get the same number
                peer.connection.close()

    for _ in range(THREADS):
        threading.Thread(target=work, daemon=True).start()
    while True:
        for fd, _ in epoll.poll():
            if fd != listener.fileno():
                ready.put(peers[fd])
                continue
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionError):
                continue
            connection.setblocking(True)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peers[connection.fileno()] = _Peer(connection, sessions())
            epoll.register(connection, _ONCE)
