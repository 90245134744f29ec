"""Asynchronous I/O (Stevens, fig. 6.5) with io_uring: operations go in, completions come out.

The server never asks whether a socket is ready. Each connection has one operation in flight, which the kernel
carries out whole: it receives into the connection's buffer, sends, or reads a file, and says when the
operation is *done*. The operation carries the object to call, and the completion brings it back (a proactor).
A buffer is bound while its operation waits, so an idle connection holds one too: that is the price of
completion.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, NoReturn

import proact
from proact.lab.models import CHUNK
from proact.lab.models.pauses import Pauses
from proact.lab.workloads.session import Extent, Pause

if TYPE_CHECKING:
    from proact.lab.workloads import Sessions
    from proact.lab.workloads.session import Session

#: Accepts in flight, so that a burst of connections does not take a turn for each.
ACCEPTS = 16


class Peer:
    """One connection: its next operation follows from the one that has completed."""

    __slots__ = ("buffer", "connection", "fd", "pauses", "rest", "ring", "session")

    def __init__(
        self, ring: proact.Ring, connection: socket.socket, session: Session, pauses: Pauses[Peer]
    ) -> None:
        self.ring = ring
        self.pauses = pauses
        self.connection = connection
        self.fd = connection.fileno()
        self.session = session
        self.buffer = memoryview(bytearray(CHUNK))
        self.rest = memoryview(b"")

    def go_on(self) -> None:
        """Everything is sent: do what the session wants, end with the session, or receive."""
        if isinstance(wanted := self.session.wanted, Pause):
            self.pauses.begin(self, wanted.seconds)
        elif isinstance(wanted, Extent):
            self.ring.read(wanted.fd, wanted.buffer, wanted.offset, data=self.file_read)
        elif self.session.over:
            self.connection.close()
        else:
            self.ring.recv(self.fd, self.buffer, data=self.received)

    def received(self, count: int) -> None:
        """The peer has sent something, or ended (0), or failed."""
        if count > 0:
            self.reply(self.session.feed(bytes(self.buffer[:count])))
        else:
            self.connection.close()

    def resume(self) -> None:
        """The pause is over."""
        self.reply(self.session.supply(0))

    def file_read(self, count: int) -> None:
        """The kernel has read the wanted piece."""
        if count < 0:
            raise OSError(-count, os.strerror(-count))
        self.reply(self.session.supply(count))

    def reply(self, data: bytes) -> None:
        """Send ``data``, then continue."""
        self.rest = memoryview(data)
        self.sent(0)

    def sent(self, count: int) -> None:
        """``count`` bytes of the rest have left, perhaps not all."""
        if count < 0:
            self.connection.close()
            return
        self.rest = self.rest[count:]
        if self.rest:
            self.ring.send(self.fd, self.rest, data=self.sent)
        else:
            self.go_on()


def serve(listener: socket.socket, sessions: Sessions) -> NoReturn:
    """For ever: submit, wait, and pass each completion to its connection. One system call per round."""
    ring = proact.Ring(entries=1024)
    pauses: Pauses[Peer] = Pauses()

    def accepted(fd: int) -> None:
        ring.accept(listener, data=accepted)
        if fd >= 0:
            connection = socket.socket(listener.family, listener.type, listener.proto, fileno=fd)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Peer(ring, connection, sessions(), pauses).go_on()
        elif fd != -errno.ECONNABORTED:  # this error: the peer gave up while it waited in the backlog
            raise OSError(-fd, os.strerror(-fd))

    for _ in range(ACCEPTS):
        ring.accept(listener, data=accepted)
    while True:
        for completion in ring.wait(pauses.left() if pauses else None):
            completion.data(completion.result)
        if pauses:
            for peer in pauses.over():
                peer.resume()
