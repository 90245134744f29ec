"""Asynchronous I/O (Stevens, fig. 6.5) with glibc's POSIX AIO: a signal tells that data has been copied.

The process hands over whole reads and writes and sleeps in ``sigwaitinfo``. The kernel does nothing
asynchronously: helper threads of glibc block in pread (a socket refuses that with ESPIPE, so then in read)
and pwrite. There is one thread for each fd with a request, and the requests of one fd wait for each other: a
connection has one at a time, and the pieces of the slow file that connections share are read one by one. AIO
can't accept, so signal-driven I/O reports new connections. A completion whose signal finds the queue full
(RLIMIT_SIGPENDING) is lost with its result, so no more connections are taken than signals fit.
"""

from __future__ import annotations

import resource
import signal
from typing import TYPE_CHECKING, Final, NoReturn

from proact.lab.models import CHUNK
from proact.lab.models.aiocb import COMPLETED, Block, library
from proact.lab.models.attempt import accept_waiting
from proact.lab.models.pauses import Pauses
from proact.lab.models.sigio import CHANGED, OVERFLOW, arm, number, wait
from proact.lab.workloads.session import Extent, Pause

if TYPE_CHECKING:
    import socket

    from proact.lab.workloads import Sessions
    from proact.lab.workloads.session import Session

#: As many helper threads as there are connections; glibc starts them as they are needed.
HELPERS: Final = 1 << 16


class Peer:
    """One connection and the one operation that it always has under way."""

    def __init__(
        self, connection: socket.socket, session: Session, block: Block, pauses: Pauses[Peer]
    ) -> None:
        self.connection, self.session, self.block, self.pauses = connection, session, block, pauses
        self.fd = connection.fileno()
        self.received = memoryview(bytearray(CHUNK))
        self.rest, self.sent = b"", 0
        self.proceed()

    def proceed(self) -> bool:
        """Begin the next operation: send the rest, read the wanted file, pause, or receive. False: it is
        over.
        """
        if self.rest:
            self.block.write(self.fd, self.rest, self.sent)
        elif isinstance(wanted := self.session.wanted, Pause):
            self.pauses.begin(self, wanted.seconds)
        elif isinstance(wanted, Extent):
            self.block.read(wanted.fd, wanted.buffer, wanted.offset)
        elif self.session.over:
            return False
        else:
            self.block.read(self.fd, self.received)
        return True

    def resume(self) -> bool:
        """The pause is over: begin the next operation. False when the connection has ended."""
        self.rest = self.session.supply(0)
        return self.proceed()

    def completed(self) -> bool:
        """Take the result of the operation and begin the next. False when the connection has ended."""
        try:
            count = self.block.result()
        except OSError:
            return False
        if self.rest:
            self.sent += count
            if self.sent == len(self.rest):
                self.rest, self.sent = b"", 0
        elif self.session.wanted is not None:
            self.rest = self.session.supply(count)
        elif count:
            self.rest = self.session.feed(bytes(self.received[:count]))
        else:
            return False
        return self.proceed()


def serve(listener: socket.socket, sessions: Sessions) -> NoReturn:
    """Wait for signals for ever: each is a completion, or a connection that can be accepted."""
    signals = {COMPLETED, CHANGED, OVERFLOW}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    aio = library(HELPERS)
    listener.setblocking(False)
    arm(listener.fileno())
    peers: dict[int, Peer] = {}
    pauses: Pauses[Peer] = Pauses()

    def accept() -> None:
        for new in accept_waiting(listener, sessions):
            new.connection.setblocking(True)  # otherwise its helper thread would not wait
            fd = new.connection.fileno()
            peers[fd] = Peer(new.connection, new.session, Block(aio, fd), pauses)
        room = resource.getrlimit(resource.RLIMIT_SIGPENDING)[0]
        if 0 <= room < len(peers):
            raise RuntimeError(f"{len(peers)} operations at once, and only {room} signals fit (ulimit -i)")

    accept()
    while True:
        info = signal.sigwaitinfo(signals) if not pauses else wait(signals, pauses)
        if info is None:
            for peer in pauses.over():
                if not peer.resume():
                    peers.pop(peer.fd).connection.close()
        elif info.si_signo != COMPLETED:
            accept()
        elif not peers[number(info)].completed():
            peers.pop(number(info)).connection.close()
